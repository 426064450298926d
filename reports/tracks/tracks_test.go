package tracks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/internal/golden"
	"meibench/internal/units"
)

const ms = time.Millisecond

// some requests: one on the device, two in one batch, one that never began.
func some() (out []*record.Request) {
	add := func(at time.Duration, fill func(r *record.Request)) {
		r := &record.Request{}
		r.Reset(len(out), at)
		r.User, r.Released = len(out), at
		fill(r)
		out = append(out, r)
	}
	add(0, func(r *record.Request) {
		r.Spent(record.Compute, "device", 1*ms+1, 5*ms)
		r.Token(5*ms, 1)
		r.Spend(record.DevicePart, 0.008, 1)
		r.Finish(5*ms, nil)
	})
	for range 2 {
		add(2*ms, func(r *record.Request) {
			r.Spent(record.Transfer, "up", 2*ms, 3*ms)
			r.Spent(record.Batch, "edge", 4*ms, 8*ms)
			r.Spent(record.Transfer, "down", 8*ms, 8*ms+500*time.Microsecond)
			r.Spend(record.RadioPart, 0.003, 1)
			r.Spend(record.EdgePart, units.Joules(0.4), 1)
			r.Token(8*ms, 2)
			r.Finish(9*ms, nil)
		})
	}
	add(9*ms, func(r *record.Request) { r.Finish(9*ms, errors.New(`"no" <room>`)) })
	return out
}

func each(rs []*record.Request) iter.Seq2[*record.Request, error] {
	return func(yield func(*record.Request, error) bool) {
		for _, r := range rs {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// event is one of the format; pointers tell what is missing.
type event struct {
	Ph             string
	Pid, Tid       *int
	Name, Cat, Bp  string
	Ts, Dur        *float64
	ID             int
	Args           map[string]any
	lane           [2]int
	start, stop    int64 // ns
	hasStart, long bool
}

func written(t *testing.T, rs []*record.Request) (text []byte, events []event) {
	var b bytes.Buffer
	require.NoError(t, Requests(&b, &record.Cell{Suite: "s", Name: `a"b`, Mode: "modelled", Seed: math.MaxUint64}, each(rs)))
	var doc struct {
		TraceEvents     []event
		DisplayTimeUnit string
		OtherData       map[string]string
	}
	require.NoError(t, json.Unmarshal(b.Bytes(), &doc))
	require.Equal(t, `s/a"b`, doc.OtherData["cell"])
	for i := range doc.TraceEvents {
		e := &doc.TraceEvents[i]
		require.NotNil(t, e.Pid)
		require.NotNil(t, e.Tid)
		e.lane = [2]int{*e.Pid, *e.Tid}
		if e.Ts != nil {
			e.start, e.hasStart = int64(math.Round(*e.Ts*1000)), true
		}
		if e.Dur != nil {
			e.stop, e.long = e.start+int64(math.Round(*e.Dur*1000)), true
		}
	}
	return b.Bytes(), doc.TraceEvents
}

// TestRulesOfTheFormat: phases known, slices with ts and dur, every process and lane named,
// slices of a lane nested or apart, counters in order of time, arrows with both ends in a slice.
func TestRulesOfTheFormat(t *testing.T) {
	_, events := written(t, crowd(500))
	named, slicesOf, counters, ends := map[[2]int]bool{}, map[[2]int][]event{}, map[string]int64{}, map[int]string{}
	for _, e := range events {
		switch e.Ph {
		case "M":
			require.Contains(t, []string{"process_name", "process_sort_index", "thread_name"}, e.Name)
			named[e.lane] = true
		case "X":
			require.True(t, e.hasStart && e.long, e.Name)
			require.GreaterOrEqual(t, e.stop, e.start)
			require.True(t, named[e.lane], "lanes are announced first")
			slicesOf[e.lane] = append(slicesOf[e.lane], e)
		case "C":
			require.True(t, e.hasStart)
			require.GreaterOrEqual(t, e.Args["value"], 0.0)
			key := fmt.Sprint(e.lane, e.Name)
			require.GreaterOrEqual(t, e.start, counters[key])
			counters[key] = e.start
		case "s", "f":
			require.True(t, e.hasStart)
			require.True(t, slices.ContainsFunc(slicesOf[e.lane], func(x event) bool { return x.start <= e.start && e.start <= x.stop }))
			ends[e.ID] += e.Ph
		case "i":
			require.True(t, e.hasStart)
		default:
			require.Fail(t, "unknown phase", e.Ph)
		}
	}
	require.NotEmpty(t, ends)
	for id, both := range ends {
		require.Equal(t, "sf", both, id)
	}
	for lane, list := range slicesOf {
		slices.SortStableFunc(list, func(a, b event) int {
			if a.start != b.start {
				return int(a.start - b.start)
			}
			return int(b.stop - a.stop)
		})
		var open []int64
		for _, e := range list {
			for len(open) > 0 && open[len(open)-1] <= e.start {
				open = open[:len(open)-1]
			}
			require.True(t, len(open) == 0 || e.stop <= open[len(open)-1], "lane %v: %s overlaps", lane, e.Name)
			open = append(open, e.stop)
		}
	}
}

// crowd are requests that overlap in many ways.
func crowd(n int) (out []*record.Request) {
	for i := range n {
		r := &record.Request{}
		at := time.Duration(i) * ms
		r.Reset(i, at)
		r.Spent(record.Transfer, "up", at, at+time.Duration(i%5)*ms)
		r.Spent(record.Batch, "edge", at+7*ms, at+time.Duration(8+i*7%40)*ms)
		r.Spend(record.EdgePart, units.Joules(0.1), 1)
		r.Finish(r.Reached()+time.Duration(i%3)*ms, nil)
		out = append(out, r)
	}
	return out
}

// TestEverySpanIsInIt, with its times to the nanosecond, inside its request, and again
// on its node; and every request.
func TestEverySpanIsInIt(t *testing.T) {
	rs := append(some(), crowd(300)[4:]...)
	_, events := written(t, rs)
	type key struct {
		pid         bool // of the requests
		what        string
		request     int
		start, stop int64
	}
	have := map[key]int{}
	for _, e := range events {
		if id, ok := e.Args["request"].(float64); ok && e.Ph == "X" {
			have[key{*e.Pid == 1, e.Cat, int(id), e.start, e.stop}]++
		}
	}
	n := 0
	for _, r := range rs {
		for _, s := range r.Spans {
			n++
			k := key{true, s.Kind.String(), r.ID, int64(s.Start), int64(s.End)}
			require.Positive(t, have[k], "%v", k)
			if k.pid = false; s.Node != "" && s.Kind != record.Queue {
				require.Positive(t, have[k], "%v", k)
			}
		}
	}
	require.Greater(t, n, 600)
	total := 0
	for k, c := range have {
		if k.pid {
			total += c
		}
	}
	require.Equal(t, n, total, "and nothing else")
}

// TestCountersAreRight: two in a batch of 4 to 8 ms, waiting for a millisecond before, at
// 0.8 J over 4 ms = 200 W.
func TestCountersAreRight(t *testing.T) {
	_, events := written(t, some())
	tracks := map[int]string{}
	got := map[string][]string{}
	for _, e := range events {
		if e.Name == "process_name" {
			tracks[*e.Pid] = e.Args["name"].(string)
		}
		if e.Ph == "C" {
			key := tracks[*e.Pid] + ": " + e.Name
			got[key] = append(got[key], fmt.Sprintf("%g=%g", *e.Ts, e.Args["value"]))
		}
	}
	require.Equal(t, []string{"4000=2", "8000=0"}, got["node edge: served at once"])
	require.Equal(t, []string{"3000=2", "4000=0"}, got["node edge: queue"])
	require.Equal(t, []string{"4000=200", "8000=0"}, got["power of edges: power W"])
	require.Equal(t, []string{"0=1", "2000=3", "5000=2", "9000=0"}, got["requests: in the system"])
	require.Equal(t, []string{"1000.001=2", "5000=0"}, got["power of devices: power W"])
}

func TestGolden(t *testing.T) {
	text, _ := written(t, some())
	again, _ := written(t, some())
	require.Equal(t, text, again)
	golden.Check(t, "testdata/small.json", text)
}

// TestErrorsOfRowsAreTold and so are those of the file.
func TestErrorsOfRowsAreTold(t *testing.T) {
	broken := errors.New("broken")
	err := Requests(&bytes.Buffer{}, &record.Cell{}, func(yield func(*record.Request, error) bool) { yield(nil, broken) })
	require.ErrorIs(t, err, broken)
	err = Requests(full{}, &record.Cell{}, each(crowd(1000)))
	require.ErrorIs(t, err, errFull)
}

type full struct{}

var errFull = errors.New("disk full")

func (full) Write([]byte) (int, error) { return 0, errFull }
