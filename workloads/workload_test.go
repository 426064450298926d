package workloads

import (
	"fmt"
	"hash/fnv"
	"iter"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/sourced"
	"meibench/internal/units"
	"meibench/workloads/tasks"
	"meibench/workloads/traces"
)

// letters is a tokenizer of one token per byte.
type letters struct{}

func (letters) Encode(s string) []int32 {
	ids := make([]int32, len(s))
	for i := range ids {
		ids[i] = int32(s[i])
	}
	return ids
}

func (l letters) EncodePrompt(s string) []int32 { return append([]int32{1}, l.Encode(s)...) }

func make1(t testing.TB, s Spec, d Deps) *Workload {
	w, err := New(s, d)
	require.NoError(t, err)
	return w
}

func collect(seq iter.Seq[Request]) []Request { return slices.Collect(seq) }

func TestEveryNumberOfEveryApplicationIsSourced(t *testing.T) {
	require.True(t, slices.IsSorted(Names()), "the table is sorted")
	for _, a := range Table {
		t.Run(a.Name, func(t *testing.T) {
			require.NoError(t, a.Validate())
			require.NotEmpty(t, a.About)
			require.NotEmpty(t, a.Limits)
			seen := map[string]bool{}
			for _, n := range a.Numbers() {
				require.NoError(t, n.Check(n.Unit), n.Name)
				require.NotEmpty(t, n.Unit, n.Name)
				require.False(t, seen[n.Name], "two numbers are called %s", n.Name)
				seen[n.Name] = true
			}
			_, err := tasks.Lookup(a.Task)
			require.NoError(t, err)
		})
	}
}

func TestRequestsArePureAndOrdered(t *testing.T) {
	for _, name := range Names() {
		for _, sc := range Scenarios {
			if sc == Replay {
				continue
			}
			t.Run(fmt.Sprintf("app=%s/scenario=%s", name, sc), func(t *testing.T) {
				w := make1(t, Spec{App: name, Scenario: sc, Requests: 200, Users: 7, Context: 8192}, Deps{})
				a, b := collect(w.Requests(1)), collect(w.Requests(1))
				require.Equal(t, a, b)
				if name == "assistant" { // some applications draw nothing: constant sizes, no think time
					require.NotEqual(t, a, collect(w.Requests(2)))
				}
				for i, r := range a {
					require.Positive(t, r.PromptTokens)
					require.Positive(t, r.OutputTokens)
					require.LessOrEqual(t, r.PromptTokens+r.OutputTokens, 8192)
					require.LessOrEqual(t, r.VisionTokens, r.PromptTokens)
					require.Less(t, r.User, 7)
					require.True(t, i == 0 || r.ArriveAt >= a[i-1].ArriveAt)
				}
				if !w.Closed() {
					require.Len(t, a, 200)
					require.Equal(t, 199, a[199].ID)
				}
			})
		}
	}
}

// Luck belongs to the request: neither the rate nor the scenario changes what
// request 17 asks.
func TestSameRequestUnderEveryArrival(t *testing.T) {
	slow := collect(make1(t, Spec{App: "assistant", Rate: 1, Requests: 50}, Deps{}).Requests(3))
	for _, s := range []Spec{
		{App: "assistant", Rate: 100, Requests: 60}, {App: "assistant", Scenario: Offline, Requests: 50},
		{App: "assistant", Scenario: Server, Requests: 50}, {App: "assistant", Scenario: Periodic, Requests: 50},
	} {
		got := collect(make1(t, s, Deps{}).Requests(3))
		for i := range slow {
			got[i].ArriveAt, got[i].Query = slow[i].ArriveAt, slow[i].Query
			require.Equal(t, slow[i], got[i], "%s, request %d", s.Scenario, i)
		}
	}
}

// The offered rate is the rate asked for; 20,000 requests of a bursty process
// with rate CV 0.21 over 380 s of trace time (2,100 requests) average about ten
// correlation times: a standard error of 0.21 sqrt(2/10) = 9 percent.
func TestRate(t *testing.T) {
	for _, tc := range []struct {
		spec      Spec
		rate, tol float64
	}{
		{Spec{App: "assistant", Rate: 3}, 3, 0.2},
		{Spec{App: "assistant", Scenario: Server, Rate: 3}, 3, 0.04},
		{Spec{App: "assistant", Scenario: Server, Users: 4}, 0.08, 0.04}, // 4 x 0.02
		{Spec{App: "robotics", Users: 3}, 15, 0.001},                     // 3 / 0.2 s
		{Spec{App: "robotics", Users: 3, Rate: 30}, 30, 0.001},
		{Spec{App: "ar", Scenario: Periodic, Users: 2, Rate: 4}, 4, 0.001},
	} {
		tc.spec.Requests = 20_000
		w := make1(t, tc.spec, Deps{})
		require.InEpsilon(t, tc.rate, w.Rate(), 1e-12)
		all := collect(w.Requests(1))
		require.InEpsilon(t, tc.rate, float64(len(all))/all[len(all)-1].ArriveAt.Seconds(), tc.tol, "%+v", tc.spec)
	}
	require.InEpsilon(t, 3/5.53, make1(t, Spec{App: "assistant", Rate: 3, Requests: 1}, Deps{}).Factor(), 1e-12)
	require.True(t, math.IsNaN(make1(t, Spec{App: "ar", Scenario: SingleStream, Requests: 1}, Deps{}).Rate()))
}

// A frame of 1196 tokens of 28 x 28 pixels at 1.5 bit/pixel is 147 x 1196 =
// 175,812 bytes; the robot's is 36.75 x 256 = 9,408.
func TestSensorBytes(t *testing.T) {
	r := collect(make1(t, Spec{App: "driving", Requests: 1}, Deps{}).Requests(1))[0]
	require.Equal(t, units.Bytes(175_812), r.SensorBytes)
	require.Equal(t, 1196, r.VisionTokens)
	require.Equal(t, 1196+64, r.PromptTokens)
	require.Equal(t, units.Bytes(288), r.TextBytes) // 64 x 4.5
	require.Equal(t, 500*time.Millisecond, r.Deadline)
	r = collect(make1(t, Spec{App: "robotics", Requests: 1}, Deps{}).Requests(1))[0]
	require.Equal(t, units.Bytes(9408), r.SensorBytes)
	require.Equal(t, 7, r.OutputTokens)
}

func TestHorizonEndsTheStream(t *testing.T) {
	all := collect(make1(t, Spec{App: "driving", Horizon: 10 * time.Second}, Deps{}).Requests(1))
	require.Len(t, all, 20) // 2 Hz; the phase decides where the first falls
	for _, r := range all {
		require.LessOrEqual(t, r.ArriveAt, 10*time.Second)
	}
}

func TestOfflineIsOneQuery(t *testing.T) {
	for _, r := range collect(make1(t, Spec{App: "ar", Scenario: Offline, Requests: 30}, Deps{}).Requests(1)) {
		require.Zero(t, r.ArriveAt)
		require.Zero(t, r.Query)
	}
}

func TestTaskScale(t *testing.T) {
	for _, app := range []string{"ar", "assistant", "driving", "healthcare", "robotics"} {
		w := make1(t, Spec{App: app, Scale: Task, Difficulty: "easy", Requests: 5}, Deps{Tokenizer: letters{}})
		for _, r := range collect(w.Requests(1)) {
			require.Equal(t, app, r.Task)
			require.Equal(t, len(r.Text)+1, r.PromptTokens, "the text and a begin of text")
			require.Len(t, r.Prompt, r.PromptTokens)
			require.Equal(t, len(r.Answer)+1, r.OutputTokens, "the answer and the end of text")
			require.Equal(t, units.Bytes(len(r.Text)), r.TextBytes)
			require.Zero(t, r.VisionTokens)
		}
	}
	w := make1(t, Spec{App: "ar", Scale: Task, Requests: 5}, Deps{Tokenizer: letters{}})
	require.Equal(t, collect(w.Requests(1)), collect(w.Requests(1)))
}

// Only questions that no model was trained on are asked, and none twice in a
// short run.
func TestTasksComeFromTheTestSplit(t *testing.T) {
	source, err := Tasks("healthcare", "hard")
	require.NoError(t, err)
	task, err := tasks.Lookup("healthcare")
	require.NoError(t, err)
	_, prompt, answer := source.Instance(9, 4)
	found := false
	for k := range candidates {
		in := task.Generate(9, 4*candidates+k)
		if in.Prompt == prompt && in.Answer == answer {
			found = true
			require.Equal(t, tasks.Test, in.Split)
			require.Equal(t, tasks.Hard, in.Difficulty)
			break
		}
	}
	require.True(t, found)
}

// replayed is a trace of four requests, built by hand.
func replayed() *traces.Trace {
	return &traces.Trace{Rows: []traces.Row{
		{At: 0, Prompt: 100, Output: 10, User: -1, Session: -1}, {At: time.Second, Prompt: 5000, Output: 4000, User: -1, Session: -1},
		{At: 3 * time.Second, Prompt: 2000, Output: 30, Images: 1, User: 4, Session: 2, Turn: 1}, {At: 4 * time.Second, Prompt: 1, Output: 1},
	}}
}

func TestReplay(t *testing.T) {
	w := make1(t, Spec{App: "ar", Scenario: Replay, Rate: 2, Context: 6000}, Deps{Trace: replayed()})
	require.InEpsilon(t, 2.0, w.Factor(), 1e-12) // 4 requests in 4 s, asked for 2/s
	all := collect(w.Requests(1))
	require.Len(t, all, 4)
	require.Equal(t, 500*time.Millisecond, all[1].ArriveAt)
	require.Equal(t, 3000, all[1].OutputTokens, "clipped to half of the context")
	require.Equal(t, 3000, all[1].PromptTokens, "clipped to the rest")
	require.Equal(t, 1196, all[2].VisionTokens)
	require.Equal(t, 2000, all[2].PromptTokens)
	require.Equal(t, units.Bytes(175_812), all[2].SensorBytes)
	require.Equal(t, []int{4, 2, 1}, []int{all[2].User, all[2].Session, all[2].Turn})
	require.Equal(t, 1, all[1].Session, "a request without a session is its own")
}

func TestLimitsAndTiers(t *testing.T) {
	l := make1(t, Spec{App: "assistant", Requests: 1}, Deps{}).Limits()
	require.Equal(t, 2*time.Second, l.TTFT.Duration()) // MLPerf conversational
	require.Equal(t, 100*time.Millisecond, l.TPOT.Duration())
	require.Zero(t, l.E2E.Duration())
	require.Empty(t, l.E2E.Metric)
	l = make1(t, Spec{App: "assistant", Tier: "interactive", Requests: 1}, Deps{}).Limits()
	require.Equal(t, 500*time.Millisecond, l.TTFT.Duration())
}

func TestZones(t *testing.T) {
	require.True(t, PremisesZone.Allows(DeviceZone))
	require.True(t, PremisesZone.Allows(PremisesZone))
	require.False(t, PremisesZone.Allows(CloudZone))
}

func TestNewRefuses(t *testing.T) {
	broken := assistant
	broken.PerUser.Source = ""
	for _, tc := range []struct {
		name string
		spec Spec
		deps Deps
		want string
	}{
		{"unknown application", Spec{App: "toaster"}, Deps{}, `unknown application "toaster" (have ar, assistant,`},
		{"unsourced application", Spec{Requests: 1}, Deps{App: &broken}, "per_user: source is missing"},
		{"unknown scenario", Spec{App: "ar", Scenario: "chaos"}, Deps{}, `scenario: unknown scenario "chaos"`},
		{"unknown scale", Spec{App: "ar", Scale: "huge", Requests: 1}, Deps{}, "scale: want field or task"},
		{"endless", Spec{App: "ar"}, Deps{}, "the stream would never end"},
		{"negative rate", Spec{App: "ar", Rate: -1, Requests: 1}, Deps{}, "rate: want a finite number >= 0"},
		{"negative users", Spec{App: "ar", Users: -1, Requests: 1}, Deps{}, "users: want at least 1"},
		{"negative requests", Spec{App: "ar", Requests: -1}, Deps{}, "requests: want >= 0"},
		{"negative horizon", Spec{App: "ar", Horizon: -1}, Deps{}, "horizon: want >= 0"},
		{"context of one", Spec{App: "ar", Context: 1, Requests: 1}, Deps{}, "context: want 0"},
		{"no such tier", Spec{App: "ar", Tier: "gold", Requests: 1}, Deps{}, `tier: no limits of tier "gold"`},
		{"no day curve", Spec{App: "ar", Day: true, Requests: 1}, Deps{}, "day: application \"ar\" has no day curve"},
		{"day of a server", Spec{App: "assistant", Day: true, Scenario: Server, Requests: 1}, Deps{}, "day: scenario"},
		{"no trace", Spec{App: "ar", Scenario: Replay}, Deps{}, "scenario: trace replays a recorded trace"},
		{"task without tokenizer", Spec{App: "ar", Scale: Task, Requests: 1}, Deps{}, "task requests need the model's tokenizer"},
		{"difficulty of field requests", Spec{App: "ar", Difficulty: "easy", Requests: 1}, Deps{}, "difficulty: only task requests"},
		{"unknown difficulty", Spec{App: "ar", Scale: Task, Difficulty: "mad", Requests: 1}, Deps{Tokenizer: letters{}}, "want easy, hard or nothing"},
		{"offline without a number", Spec{App: "ar", Scenario: Offline, Horizon: 1}, Deps{}, "say how many"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(tc.spec, tc.deps)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestDescribeAndCanonical(t *testing.T) {
	w := make1(t, Spec{App: "healthcare", Users: 2, Requests: 1}, Deps{})
	names := map[string]sourced.Number{}
	for _, n := range w.Describe() {
		require.NoError(t, n.Check(n.Unit), n.Name)
		names[n.Name] = n.Number
	}
	require.Equal(t, 0.65, names["rho"].Value)
	require.InEpsilon(t, 2.0/900, names["run.rate"].Value, 1e-12)
	require.Equal(t, 60.0, names["limits.e2e.p95"].Value)
	a, err := w.Canonical()
	require.NoError(t, err)
	b, err := make1(t, Spec{App: "healthcare", Scenario: Server, Scale: Field, Users: 2, Requests: 1}, Deps{}).Canonical()
	require.NoError(t, err)
	require.Equal(t, string(a), string(b), "a default written out is the same workload")
	c, err := make1(t, Spec{App: "healthcare", Users: 3, Requests: 1}, Deps{}).Canonical()
	require.NoError(t, err)
	require.NotEqual(t, string(a), string(c))
}

// The vector pins arrivals, lengths and users together; taken from the first
// version on amd64. If it moves, every recorded contract moves.
func TestVector(t *testing.T) {
	all := collect(make1(t, Spec{App: "assistant", Scenario: Server, Rate: 10, Users: 5, Requests: 3}, Deps{}).Requests(42))
	got := ""
	for _, r := range all {
		got += fmt.Sprintf("%d %d %d %d %d\n", r.ID, r.ArriveAt, r.User, r.PromptTokens, r.OutputTokens)
	}
	require.Equal(t, vector, got)
}

const vector = `0 13640552 2 1128 412
1 175579332 3 1320 421
2 349831793 4 4083 142
`

// One number for the first 2,000 requests of every application pins the rest.
// It holds on amd64 (also GOAMD64=v3) and arm64: sizes and times are rounded to
// whole numbers, which swallows the last bit in which their logarithms differ.
func TestStreamsAreTheSameEverywhere(t *testing.T) {
	h := fnv.New64a()
	for _, name := range Names() {
		for _, sc := range []Scenario{Open, Server, Periodic} {
			for r := range make1(t, Spec{App: name, Scenario: sc, Users: 5, Requests: 2000}, Deps{}).Requests(1) {
				fmt.Fprintln(h, r.ArriveAt, r.User, r.PromptTokens, r.OutputTokens, r.SensorBytes)
			}
		}
	}
	require.Equal(t, uint64(0x684b61014dc419e0), h.Sum64())
}

func TestFieldRequestsDoNotAllocate(t *testing.T) {
	for _, name := range Names() {
		few := make1(t, Spec{App: name, Requests: 10, Users: 9}, Deps{})
		many := make1(t, Spec{App: name, Requests: 5000, Users: 9}, Deps{})
		drain := func(w *Workload) float64 {
			return testing.AllocsPerRun(5, func() {
				for range w.Requests(1) {
				}
			})
		}
		require.Equal(t, drain(few), drain(many), "%s: memory grows with the run", name)
	}
}

func BenchmarkRequests(b *testing.B) {
	for _, bc := range []struct {
		app      string
		arrivals Scenario
	}{
		{"assistant", Server}, {"assistant", Open}, {"assistant-code", Open}, {"ar", Server}, {"healthcare", Server},
		{"robotics", Periodic}, {"driving", Periodic}, {"assistant", Offline},
	} {
		w := make1(b, Spec{App: bc.app, Scenario: bc.arrivals, Users: 8, Requests: math.MaxInt32}, Deps{})
		b.Run(fmt.Sprintf("app=%s/arrivals=%s", bc.app, bc.arrivals), func(b *testing.B) {
			tokens := 0
			b.ReportAllocs()
			for r := range w.Requests(1) {
				if tokens += r.PromptTokens; !b.Loop() {
					break
				}
			}
			runtime.KeepAlive(tokens)
		})
	}
}

// A day in a clinic: what a request looks like, and where its text may go.
func ExampleNew() {
	w, err := New(Spec{App: "healthcare", Scenario: SingleStream, Requests: 1}, Deps{})
	if err != nil {
		panic(err)
	}
	for r := range w.Requests(1) {
		fmt.Println(r.App, r.ArriveAt, r.Zone, r.Deadline, r.PromptTokens > r.OutputTokens)
	}
	// Output: healthcare 0s premises 1m0s true
}

// What people ask of a pool: so many different things, the popular ones as often as Zipf's law has it, in several wordings with one
// answer; a pure function of seed and number, and nothing else about the requests changes.
func TestC4PoolsRepeatQuestions(t *testing.T) {
	spec := Spec{App: "assistant", Scale: Task, Users: 3, Requests: 2000, Rate: 5}
	pooled := spec
	pooled.Pool = 50
	plain, again := run(make1(t, spec, Deps{Tokenizer: ended{}}), 5, 0), run(make1(t, pooled, Deps{Tokenizer: ended{}}), 5, 0)
	require.Equal(t, again, run(make1(t, pooled, Deps{Tokenizer: ended{}}), 5, 0))
	count, texts := map[string]int{}, map[string]map[string]bool{}
	for i, r := range again {
		require.Equal(t, plain[i].ArriveAt, r.ArriveAt)
		require.Equal(t, plain[i].User, r.User)
		count[r.Answer]++
		if texts[r.Answer] == nil {
			texts[r.Answer] = map[string]bool{}
		}
		texts[r.Answer][r.Text] = true
	}
	require.LessOrEqual(t, len(count), 50)
	require.Greater(t, len(count), 40)
	most, wordings := 0, 0
	for answer, n := range count {
		most, wordings = max(most, n), max(wordings, len(texts[answer]))
	}
	sum := 0.0
	for k := range 50 {
		sum += math.Pow(float64(k+1), -0.8)
	}
	require.InDelta(t, 2000/sum, most, 4*math.Sqrt(2000/sum)+10)
	require.Greater(t, wordings, 3, "in other words")
	health := pooled
	health.App = "healthcare"
	same := map[string]string{}
	for _, r := range run(make1(t, health, Deps{Tokenizer: ended{}}), 5, 0) {
		if a, ok := same[r.Text]; ok {
			require.Equal(t, a, r.Answer)
		}
		same[r.Text] = r.Answer
	}
	require.LessOrEqual(t, len(same), 50, "one way to say it")
}

// A preamble is in front of every first prompt and common to all; it is the server's and does not travel.
func TestC4PreamblesAreCommon(t *testing.T) {
	spec := Spec{App: "assistant", Scenario: MultiTurn, Users: 3, Requests: 60, Rate: 5}
	with := spec
	with.Preamble = 300
	plain, common := run(make1(t, spec, Deps{}), 5, time.Second), run(make1(t, with, Deps{}), 5, time.Second)
	require.Len(t, common, len(plain))
	for i, r := range common {
		require.Equal(t, plain[i].PromptTokens+300, r.PromptTokens)
		require.Equal(t, 300, r.CommonTokens)
		require.Equal(t, plain[i].TextBytes, r.TextBytes)
		if r.Turn > 0 {
			require.Equal(t, plain[i].PrefixTokens+300, r.PrefixTokens)
		}
	}
	with.Context = 512
	for _, r := range run(make1(t, with, Deps{}), 5, time.Second) {
		require.LessOrEqual(t, r.PromptTokens+r.OutputTokens, 512)
		require.LessOrEqual(t, r.CommonTokens, r.PromptTokens)
	}
	for field, bad := range map[string]Spec{"pool": {App: "ar", Requests: 1, Rate: 1, Pool: 5}, "preamble": {App: "ar", Scale: Task, Requests: 1, Rate: 1, Preamble: 5}} {
		_, err := New(bad, Deps{Tokenizer: ended{}})
		require.ErrorContains(t, err, field)
	}
	_, err := New(Spec{App: "ar", Requests: 1, Rate: 1, Preamble: 512, Context: 512}, Deps{})
	require.ErrorContains(t, err, "leave nothing")
}
