package workloads

import (
	"fmt"
	"hash/fnv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
	"meibench/workloads/length"
)

// ended is letters with an end of text.
type ended struct{ letters }

func (ended) EOS() int32 { return 2 }

func (e ended) EncodePrompt(s string) []int32 { return e.letters.EncodePrompt(s) }

func joined(parts ...[]int32) (all []int32) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// I13 (E): the prompt of a later turn begins with the tokens of the turn before,
// its reference answer and the end of text: PrefixTokens of them, not one more or
// less. The tokens behind are those of what is said next.
func TestI13TurnsHoldTheConversation(t *testing.T) {
	for _, tc := range []struct {
		app  string
		same bool // a later turn asks of the same scene
	}{{"ar", true}, {"assistant", false}} {
		w := make1(t, Spec{App: tc.app, Scenario: MultiTurn, Scale: Task, Users: 3, Requests: 200}, Deps{Tokenizer: ended{}})
		all := run(w, 5, time.Second)
		require.Len(t, all, 200)
		later := 0
		for i, r := range all {
			require.Equal(t, len(r.Prompt), r.PromptTokens)
			if r.Turn == 0 {
				require.Zero(t, r.PrefixTokens)
				continue
			}
			later++
			before := all[i-1]
			require.Equal(t, before.Session, r.Session)
			history := joined(before.Prompt, letters{}.Encode(before.Answer), []int32{2})
			require.Equal(t, len(history), r.PrefixTokens)
			require.Equal(t, history, r.Prompt[:r.PrefixTokens])
			said := ""
			for _, id := range r.Prompt[r.PrefixTokens:] {
				said += string(rune(id))
			}
			require.True(t, strings.HasSuffix(r.Text, said), "%q ends in %q", r.Text, said)
			require.True(t, strings.HasPrefix(r.Text, before.Text+" "+before.Answer))
			require.True(t, strings.HasSuffix(said, "=>"))
			require.Equal(t, tc.same, strings.HasPrefix(said, " ; "), "%q", said)
			require.NotContains(t, before.Text, said, "nothing is asked twice in a row")
			require.Equal(t, len(r.Answer)+1, r.OutputTokens)
		}
		require.Greater(t, later, 50)
	}
}

// A prompt and its answer stay within the context; where the history does not fit,
// the turn stands alone.
func TestI13TurnsRespectTheContext(t *testing.T) {
	emptied, kept := 0, 0
	for c := 200; c < 300; c++ { // so that some history just fits, and some answer just does not
		w := make1(t, Spec{App: "ar", Scenario: MultiTurn, Scale: Task, Users: 3, Requests: 40, Context: c}, Deps{Tokenizer: ended{}})
		for _, r := range run(w, 5, time.Second) {
			switch {
			case r.Turn > 0 && r.PrefixTokens == 0:
				emptied++
				require.Equal(t, letters{}.EncodePrompt(r.Text), r.Prompt)
				require.True(t, strings.HasPrefix(r.Text, "see "), "the whole question: %q", r.Text)
			case r.Turn > 0:
				kept++
				require.LessOrEqual(t, r.PromptTokens+r.OutputTokens, c)
			}
		}
	}
	require.Positive(t, emptied)
	require.Positive(t, kept)
}

// The answers belong to the questions: of a scene that goes on, the lesson's own.
func TestTurnsAreGradedByTheirOwnAnswers(t *testing.T) {
	source, err := Tasks("ar", "")
	require.NoError(t, err)
	talk := source.(Conversation)
	_, first, _ := source.Instance(3, 7)
	scene, _, _ := strings.Cut(first, " ; ")
	_, alone, more, answer := talk.Turn(3, 7, 1)
	require.True(t, strings.HasPrefix(alone, scene+" ; "), "%q goes on with %q", alone, scene)
	require.Equal(t, alone, scene+more)
	require.NotEqual(t, first, alone)
	require.NotEmpty(t, answer)
	health, err := Tasks("healthcare", "")
	require.NoError(t, err)
	_, alone, more, _ = health.(Conversation).Turn(3, 7, 2)
	_, other, _ := health.Instance(3, 9)
	require.Equal(t, []string{other, other}, []string{alone, more}, "no further question: a case of its own")
}

// I13 (E): a replay from a seed is the same, bit for bit, here and elsewhere: the
// number is over every request of every application, with its text and tokens,
// in an open and in two closed scenarios.
func TestI13ReplayIsBitReproducible(t *testing.T) {
	digest := func(seed uint64) uint64 {
		h := fnv.New64a()
		for _, name := range Names() {
			for _, scale := range []Scale{Field, Task} {
				for _, sc := range []Scenario{Open, ClosedLoop, MultiTurn} {
					w := make1(t, Spec{App: name, Scenario: sc, Scale: scale, Users: 3, Requests: 40}, Deps{Tokenizer: ended{}})
					for _, r := range run(w, seed, 700*time.Millisecond) {
						fmt.Fprintln(h, r)
					}
				}
			}
		}
		return h.Sum64()
	}
	require.Equal(t, digest(11), digest(11))
	require.NotEqual(t, digest(11), digest(12))
	require.Equal(t, uint64(0xa34dcb1e6a5dc13d), digest(11))
}

// By hand: 64 tokens x 4.5 B; one frame of 1,196 tokens x 147 B; a sweep of 1.92 MB.
// The robot's camera: 256 x 36.75 B; speech: 2.7 s of 24 kbit/s; ECG: 10 s of 72 kbit/s.
func TestI13PayloadsOfApplications(t *testing.T) {
	of := func(name string) map[string]units.Bytes {
		a, err := Lookup(name)
		require.NoError(t, err)
		got := map[string]units.Bytes{}
		for _, p := range a.Payloads() {
			got[p.Kind] = p.Mean
		}
		return got
	}
	require.Equal(t, map[string]units.Bytes{"text": 288, "image": 175_812, "lidar": 1_920_000}, of("driving-lidar"))
	require.Equal(t, units.Bytes(9408), of("robotics")["image"])
	require.Equal(t, units.Bytes(8100), of("assistant-command")["audio"])
	require.Equal(t, units.Bytes(90_000), of("healthcare-monitor")["vitals"])
	require.Len(t, of("assistant"), 1, "chat is text alone")
	require.Positive(t, of("ar")["image"])
	for _, r := range collect(make1(t, Spec{App: "driving-lidar", Requests: 3}, Deps{}).Requests(1)) {
		require.Equal(t, units.Bytes(175_812+1_920_000), r.SensorBytes, "the mean of constants is what is sent")
	}
	a := healthcareMonitor
	a.Sensor = length.Spec{}
	require.ErrorContains(t, a.Validate(), `there is no sensor to be "vitals"`)
}
