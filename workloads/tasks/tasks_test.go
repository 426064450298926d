package tasks

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const sample = 3000 // instances per task that each property is checked on

// check derives the answer from the prompt alone; each checker is written
// without the generator's code (see the *_test.go file of the application).
var checkers = map[string]func(t *testing.T, prompt string) string{
	"ar": checkAR, "assistant": checkAssistant, "driving": checkDriving,
	"healthcare": checkHealthcare, "robotics": checkRobotics,
}

func TestAnswersAreRight(t *testing.T) {
	for _, task := range Table {
		t.Run(task.Name, func(t *testing.T) {
			for id := range sample {
				in := task.Generate(11, id)
				require.Equal(t, checkers[task.Name](t, in.Prompt), in.Answer, in.Prompt)
			}
		})
	}
}

func TestTable(t *testing.T) {
	require.True(t, sort.SliceIsSorted(Table, func(i, j int) bool { return Table[i].Name < Table[j].Name }))
	for _, task := range Table {
		require.NotEmpty(t, task.Doc)
		got, err := Lookup(task.Name)
		require.NoError(t, err)
		require.Equal(t, task.Name, got.Name)
	}
	_, err := Lookup("poetry")
	require.ErrorContains(t, err, `look up task "poetry": unknown, have ar, assistant`)
}

func TestText(t *testing.T) {
	for _, task := range Table {
		t.Run(task.Name, func(t *testing.T) {
			for id := range sample {
				in := task.Generate(5, id)
				require.Equal(t, task.Generate(5, id), in, "same seed and id, same instance")
				require.Regexp(t, `^[a-z0-9 ,;.]+ =>$`, in.Prompt)
				require.Regexp(t, `^[a-z0-9;]+( [a-z0-9;]+)*$`, in.Answer)
				require.LessOrEqual(t, len(strings.Fields(in.Answer)), 28)
				require.LessOrEqual(t, len(strings.Fields(in.Prompt)), 72)
			}
			require.NotEqual(t, task.Generate(5, 1).Prompt, task.Generate(6, 1).Prompt)
		})
	}
}

// No test scene appears in training or validation, whatever the seeds; one in
// eight is held out for test, one in sixteen for validation, and scenes of all levels are
// equally frequent (four standard errors at n = 6000).
func TestSplits(t *testing.T) {
	for _, task := range Table {
		t.Run(task.Name, func(t *testing.T) {
			splits, levels, held := map[string]Split{}, [Levels + 1]int{}, map[Split]int{}
			for id := range 2 * sample {
				in := task.Generate(uint64(id%2), id/2)
				scene := withoutDistraction(in)
				if before, ok := splits[scene]; ok {
					require.Equal(t, before, in.Split, in.Prompt)
				}
				splits[scene] = in.Split
				levels[in.Level]++
				held[in.Split]++
				require.Equal(t, map[int]Difficulty{1: Easy, 2: Easy, 3: Hard, 4: Hard, 5: Hard}[in.Level], in.Difficulty)
			}
			for level := 1; level <= Levels; level++ {
				want := 2.0 / 5
				if task.Name == "ar" { // a third of level 1's questions and a quarter of level 2's are level 3
					want = [Levels]float64{2.0 / 5 * 2 / 3, 2.0 / 5 * 3 / 4, 2.0 / 5 * (1 + 1.0/3 + 1.0/4), 2.0 / 5, 2.0 / 5}[level-1]
				}
				require.InDelta(t, want*sample, levels[level], 145) // four times √(6000·0.32·0.68) = 36
			}
			require.InDelta(t, sample/4, held[Test], 200)       // contents repeat, so wider than binomial
			require.InDelta(t, sample/8, held[Validation], 150) // likewise
		})
	}
}

// A lesson asks different questions on one scene; the first is that of Generate.
func TestLesson(t *testing.T) {
	several := 0
	for _, task := range Table {
		for id := range 300 {
			first, asked := task.Generate(4, id), task.Lesson(4, id, 3)
			require.Equal(t, first, asked[0])
			require.LessOrEqual(t, len(asked), 3)
			seen := map[string]bool{}
			for _, in := range asked {
				require.False(t, seen[in.Prompt])
				seen[in.Prompt] = true
				require.Equal(t, first.Split, in.Split)
				text, _, _ := strings.Cut(in.Prompt, " ; ")
				require.True(t, strings.HasPrefix(first.Prompt, text))
				require.Equal(t, checkers[task.Name](t, in.Prompt), in.Answer, in.Prompt)
			}
			several += len(asked) - 1
		}
	}
	require.Greater(t, several, 900, "ar alone has two more questions on nearly every scene")
}

// withoutDistraction is what must decide the split: the scene without the
// question; for the assistant the meaning, for driving all but the weather and
// the kinds of vehicles.
func withoutDistraction(in Instance) string {
	text, _, _ := strings.Cut(in.Prompt, " ; ")
	switch in.Task {
	case "assistant":
		return in.Answer
	case "driving":
		words := strings.Fields(text)
		for i, w := range words {
			if slices.Contains(vehicles, w) {
				words[i] = "vehicle"
			}
		}
		return strings.Join(words[:len(words)-2], " ")
	}
	return text
}

func TestScore(t *testing.T) {
	for _, task := range Table {
		t.Run(task.Name, func(t *testing.T) {
			for id := range 300 {
				in := task.Generate(3, id)
				require.Equal(t, 1.0, task.Score(in, in.Answer))
				require.Equal(t, 1.0, task.Score(in, "  "+in.Answer+" \n"), "white space is free")
				words := strings.Fields(in.Answer)
				wrong := append([]string{}, words...)
				wrong[id%len(words)] = "zebra"
				for _, out := range []string{"", strings.Join(wrong, " "), in.Answer + " zebra", strings.Join(words[:len(words)-1], " ")} {
					got := task.Score(in, out)
					require.True(t, got >= 0 && got < 1, "%q for %q scores %g", out, in.Answer, got)
					require.False(t, Exact(in, out))
				}
			}
		})
	}
}

func TestPartialCredit(t *testing.T) {
	for _, tc := range []struct {
		name, task, prompt, answer, output string
		want                               float64
	}{
		{"two of three words", "assistant", "", "play jazz den", "play rock den", 2.0 / 3},
		{"a word too many", "assistant", "", "play jazz den", "play jazz den now", 3.0 / 4},
		{"nine of ten fields", "healthcare", "", "0 0 0 0 0 0 0 total 0 low", "0 0 0 0 0 0 1 total 0 low", 0.9},
		{"no half right of way", "driving", "", "wait east west", "wait east", 0},
		// from 11 the cup at 23 is one east and two north: any order fetches it
		{"another plan that works", "robotics", "robot 11 , cup 23 , bag 55 ; fetch cup =>", "cup 23 east 1 north 2 grab", "cup 23 north 2 east 1 grab", 0.5},
		{"a plan without the square", "robotics", "robot 11 , cup 23 , bag 55 ; fetch cup =>", "cup 23 east 1 north 2 grab", "east 1 north 2 grab", 0.5},
		// 14 is three north of 11, then 11 again for the shelf: one of two jobs done is no plan
		{"half of the job", "robotics", "robot 11 , cup 14 , bag 55 , shelf 12 ; store cup bag =>", "", "cup 14 north 3 grab shelf 12 south 2 drop", 0},
		{"both jobs", "robotics", "robot 11 , cup 14 , bag 15 , shelf 12 ; store cup bag =>", "", "cup 14 north 3 grab shelf 12 south 2 drop bag 15 north 3 grab south 3 drop", 0.5},
		{"a plan that ends elsewhere", "robotics", "robot 11 , cup 23 , bag 55 ; fetch cup =>", "cup 23 east 1 north 2 grab", "cup 23 north 1 east 1 grab", 0},
		{"a plan off the grid", "robotics", "robot 11 , cup 23 , bag 55 ; fetch cup =>", "cup 23 east 1 north 2 grab", "west 1 east 2 north 2 grab", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			task, err := Lookup(tc.task)
			require.NoError(t, err)
			require.InDelta(t, tc.want, task.Score(Instance{Task: tc.task, Prompt: tc.prompt, Answer: tc.answer}, tc.output), 1e-12)
		})
	}
}

func TestDraw(t *testing.T) {
	got := Table[0].Draw(1, Test, Hard, 5)
	require.Len(t, got, 5)
	for i, in := range got {
		require.Equal(t, Test, in.Split)
		require.Equal(t, Hard, in.Difficulty)
		require.True(t, i == 0 || got[i-1].ID < in.ID)
	}
	for _, in := range Table[1].DrawLevel(1, Validation, 2, 5) {
		require.Equal(t, Validation, in.Split)
		require.Equal(t, 2, in.Level)
	}
}

// 3 for the respiration, 0 for the saturation on scale 2, 2 each for oxygen,
// blood pressure and pulse, 1 for the temperature: 10.
func ExampleTask() {
	task, _ := Lookup("healthcare")
	in := task.Generate(1, 0)
	fmt.Println(in.Prompt)
	fmt.Println(in.Answer)
	fmt.Println(task.Score(in, in.Answer), task.Score(in, "no idea"))
	// Output:
	// resp 32 sat 90 scale 2 on oxygen blood 98 pulse 124 mind alert temp 35.7 ; total =>
	// total 10 high
	// 1 0
}

// The examples of the pages under docs/tasks are right.
func TestPages(t *testing.T) {
	example := regexp.MustCompile(`(?m)^(.* =>) {2,}(.*)$`)
	for _, task := range Table {
		page, err := os.ReadFile("../../docs/tasks/" + task.Name + ".md")
		require.NoError(t, err)
		found := example.FindAllStringSubmatch(string(page), -1)
		require.NotEmpty(t, found)
		for _, m := range found {
			require.Equal(t, checkers[task.Name](t, m[1]), m[2], m[1])
		}
		for level := 1; level <= Levels; level++ {
			require.Regexp(t, fmt.Sprintf(`(?m)^\| .*\b%d\b.* \|`, level), string(page))
		}
	}
}
