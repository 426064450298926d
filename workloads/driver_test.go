package workloads

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// run serves a workload on a toy system that answers every request after a
// fixed time, and returns the requests in order of their numbers.
func run(w *Workload, seed uint64, service time.Duration) []Request {
	queue := collect(w.Requests(seed))
	d := w.Drive(seed)
	var all []Request
	for len(queue) > 0 {
		slices.SortStableFunc(queue, func(a, b Request) int { return int(a.ArriveAt - b.ArriveAt) })
		r := queue[0]
		queue = queue[1:]
		all = append(all, r)
		queue = append(queue, d.Completed(r, r.ArriveAt+service)...)
	}
	slices.SortFunc(all, func(a, b Request) int { return a.ID - b.ID })
	return all
}

func TestClosedScenariosNumberEveryRequestOnce(t *testing.T) {
	for _, sc := range []Scenario{SingleStream, MultiStream, ClosedLoop, MultiTurn} {
		t.Run(string(sc), func(t *testing.T) {
			all := run(make1(t, Spec{App: "assistant", Scenario: sc, Users: 3, Requests: 101}, Deps{}), 1, time.Second)
			require.Len(t, all, 101)
			for i, r := range all {
				require.Equal(t, i, r.ID)
			}
		})
	}
}

func TestSingleStreamIssuesOnCompletion(t *testing.T) {
	for i, r := range run(make1(t, Spec{App: "ar", Scenario: SingleStream, Requests: 5}, Deps{}), 1, time.Second) {
		require.Equal(t, time.Duration(i)*time.Second, r.ArriveAt)
		require.Equal(t, i, r.Query)
	}
}

func TestMultiStreamWaitsForTheWholeQuery(t *testing.T) {
	w := make1(t, Spec{App: "ar", Scenario: MultiStream, Requests: 20}, Deps{})
	first, d := collect(w.Requests(1)), w.Drive(1)
	require.Len(t, first, 8)
	for i, r := range first[:7] {
		require.Empty(t, d.Completed(r, time.Duration(i)*time.Second))
	}
	second := slices.Clone(d.Completed(first[7], 9*time.Second))
	require.Len(t, second, 8)
	for i, r := range second {
		require.Equal(t, []int{8 + i, 1}, []int{r.ID, r.Query})
		require.Equal(t, 9*time.Second, r.ArriveAt)
	}
	for _, r := range second[:7] {
		require.Empty(t, d.Completed(r, 10*time.Second))
	}
	last := slices.Clone(d.Completed(second[7], 10*time.Second))
	require.Len(t, last, 4, "20 requests are two queries and a half")
	for _, r := range last[:4] {
		require.Empty(t, d.Completed(r, 11*time.Second))
	}
}

// A system twice as fast meets the same requests of the same users after the
// same thoughts: only the waiting differs.
func TestClosedLoopLuckBelongsToTheUser(t *testing.T) {
	w := make1(t, Spec{App: "assistant", Scenario: ClosedLoop, Users: 4, Requests: 80}, Deps{})
	fast, slow := run(w, 7, time.Second), run(w, 7, 3*time.Second)
	for i := range fast {
		require.Equal(t, i%4, fast[i].User)
		// Request i is the user's (i/4)-th: it waited for that many answers.
		require.Equal(t, time.Duration(i/4)*2*time.Second, slow[i].ArriveAt-fast[i].ArriveAt)
		fast[i].ArriveAt = slow[i].ArriveAt
		require.Equal(t, fast[i], slow[i])
	}
}

func TestMultiTurnRepeatsTheConversation(t *testing.T) {
	all := run(make1(t, Spec{App: "assistant-command", Scenario: MultiTurn, Users: 2, Requests: 300}, Deps{}), 1, time.Second)
	turns := map[int]int{}
	var last Request
	for i, r := range all {
		if i > 0 && r.Session == last.Session {
			require.Equal(t, last.Turn+1, r.Turn)
			require.Equal(t, last.User, r.User)
			require.Equal(t, last.PromptTokens+last.OutputTokens, r.PrefixTokens)
			require.Greater(t, r.PromptTokens, r.PrefixTokens)
			require.GreaterOrEqual(t, r.ArriveAt, last.ArriveAt+time.Second, "a turn follows the answer")
		} else {
			require.Zero(t, r.Turn)
			require.Zero(t, r.PrefixTokens)
		}
		turns[r.Session]++
		last = r
	}
	// 300 requests hold about 300/9.04 = 33 dialogues of 2 to 17 turns.
	require.InDelta(t, 33, len(turns), 6)
}

func TestMultiTurnSlidesItsWindow(t *testing.T) {
	all := run(make1(t, Spec{App: "assistant-command", Scenario: MultiTurn, Requests: 300, Context: 128}, Deps{}), 1, time.Second)
	slid := 0
	for _, r := range all {
		require.LessOrEqual(t, r.PromptTokens+r.OutputTokens, 128)
		if r.Turn > 0 && r.PrefixTokens == 0 {
			slid++
		}
	}
	require.Positive(t, slid)
}

func TestOpenScenariosNeedNoDriver(t *testing.T) {
	w := make1(t, Spec{App: "ar", Requests: 3}, Deps{})
	require.False(t, w.Closed())
	for r := range w.Requests(1) {
		require.Empty(t, w.Drive(1).Completed(r, time.Hour))
	}
}

// Two users, a system that takes a second: each asks again after reading the
// answer and thinking.
func ExampleDriver() {
	w, err := New(Spec{App: "assistant", Scenario: SingleStream, Requests: 2}, Deps{})
	if err != nil {
		panic(err)
	}
	d := w.Drive(1)
	for r := range w.Requests(1) {
		for _, next := range d.Completed(r, r.ArriveAt+time.Second) {
			fmt.Println(r.ID, r.ArriveAt, "then", next.ID, next.ArriveAt)
		}
	}
	// Output: 0 0s then 1 1s
}
