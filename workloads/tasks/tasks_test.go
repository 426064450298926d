package tasks

import (
	"fmt"
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
				require.LessOrEqual(t, len(strings.Fields(in.Answer)), 16)
				require.LessOrEqual(t, len(strings.Fields(in.Prompt)), 60)
			}
			require.NotEqual(t, task.Generate(5, 1).Prompt, task.Generate(6, 1).Prompt)
		})
	}
}

// No test question appears in training, whatever the seeds; about one in eight
// is held out and about half are hard (four standard errors at n = 3000).
func TestSplits(t *testing.T) {
	for _, task := range Table {
		t.Run(task.Name, func(t *testing.T) {
			splits, hard, held := map[string]Split{}, 0, 0
			for id := range 2 * sample {
				in := task.Generate(uint64(id%2), id/2)
				question := withoutDistraction(in)
				if before, ok := splits[question]; ok {
					require.Equal(t, before, in.Split, in.Prompt)
				}
				splits[question] = in.Split
				if in.Difficulty == Hard {
					hard++
				}
				if in.Split == Test {
					held++
				}
			}
			require.InDelta(t, sample, hard, 160)
			require.InDelta(t, sample/4, held, 200) // contents repeat, so wider than binomial
		})
	}
}

// withoutDistraction is what must decide the split: for the assistant the
// meaning, for driving all but the weather and the kinds of vehicles.
func withoutDistraction(in Instance) string {
	switch in.Task {
	case "assistant":
		return in.Answer
	case "driving":
		words := strings.Fields(in.Prompt)
		for i, w := range words {
			for _, v := range vehicles {
				if w == v {
					words[i] = "vehicle"
				}
			}
		}
		return strings.Join(words[:len(words)-2], " ")
	}
	return in.Prompt
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
		// from 1 1 the cup at 2 3 is one east and two north: any order fetches it
		{"another plan that works", "robotics", "robot 1 1 , cup 2 3 , bag 5 5 ; fetch cup =>", "east 1 north 2 grab", "north 2 east 1 grab", 0.5},
		{"a plan that ends elsewhere", "robotics", "robot 1 1 , cup 2 3 , bag 5 5 ; fetch cup =>", "east 1 north 2 grab", "north 1 east 1 grab", 0},
		{"a plan off the grid", "robotics", "robot 1 1 , cup 2 3 , bag 5 5 ; fetch cup =>", "east 1 north 2 grab", "west 1 east 2 north 2 grab", 0},
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
}

func ExampleTask() {
	task, _ := Lookup("healthcare")
	in := task.Generate(1, 0)
	fmt.Println(in.Prompt)
	fmt.Println(in.Answer)
	fmt.Println(task.Score(in, in.Answer), task.Score(in, "no idea"))
	// Output:
	// resp 20 sat 95 scale 1 on air blood 149 pulse 79 mind alert temp 37.4 =>
	// 0 1 0 0 0 0 0 total 1 low
	// 1 0
}
