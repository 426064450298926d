// Package tracks writes a run of a cell in Chrome's trace event format, which
// ui.perfetto.dev and chrome://tracing open: what every request, node and link did, when.
//
//	set, err := results.Read(dir)
//	i, err := tracks.Find(set, "mobility/offload")
//	err = tracks.Write(w, set, i)
//
// There is a process of requests, whose slices hold a request's spans, and one for each
// node, link or queue that spans name; what overlaps lies on lanes of its own. Counters
// say how many requests are in the system, how many queue for a node and how many it serves at
// once, and the power that each part draws: a request's joules of a part, spread evenly
// over its spans there. Arrows run from a request to the nodes that batch it. Times are
// microseconds with nanoseconds behind the point, on the run's clock; bytes depend on
// the run alone. Requests are streamed; the counters need 24 bytes of memory for each change.
//
// Run folders hold no temperatures and no clocks, so neither does a trace.
package tracks

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"meibench/harness/record"
	"meibench/harness/results"
)

// Find is the run of a cell by its name, as NAME or SUITE/NAME: its first repeat. Without a
// name, the only cell there is.
func Find(set *results.Set, name string) (int, error) {
	var have []string
	for i, r := range set.Runs() {
		full := r.Cell.Suite + "/" + r.Cell.Name
		if name != "" && (name == full || name == r.Cell.Name) {
			return i, nil
		}
		if !slices.Contains(have, full) {
			have = append(have, full)
		}
	}
	if name == "" && len(have) == 1 {
		return 0, nil
	}
	problem := "a trace holds one cell: name it by --cell"
	if name != "" {
		problem = fmt.Sprintf("there is no cell %q", name)
	}
	return 0, fmt.Errorf("%s: %s (have %s)", set.Dir, problem, strings.Join(have[:min(len(have), 20)], ", "))
}

// Write writes run i of a set.
func Write(w io.Writer, set *results.Set, i int) error {
	c := set.Runs()[i].Cell
	return Requests(w, &c, set.Full(i))
}

// Requests writes requests of a cell, with their spans, in the order in which they come. The
// cell says only whose they are.
func Requests(w io.Writer, c *record.Cell, requests iter.Seq2[*record.Request, error]) error {
	e := &emitter{w: bufio.NewWriterSize(w, 1<<16), at: map[string]*track{}}
	e.raw(`{"displayTimeUnit":"ms","otherData":{"cell":`, quoted(c.Suite+"/"+c.Name), `,"mode":`, quoted(c.Mode), `,"site":`, quoted(c.Site),
		`,"model":`, quoted(c.Model), `,"seed":"`, strconv.FormatUint(c.Seed, 10), `","contract":`, quoted(c.Contract), "},\n\"traceEvents\":[\n")
	all := e.track("requests")
	for r, err := range requests {
		if err != nil {
			return err
		}
		e.request(all, r)
	}
	for _, t := range e.tracks {
		for k := range t.counts {
			e.counter(t, k)
		}
	}
	e.raw("\n]}\n")
	return e.w.Flush()
}

// Counters of a track, by what they count.
const (
	inside = iota // in the system, or served
	waits
	watts
	numCounts
)

// change is a step of a counter.
type change struct {
	at time.Duration
	by float64
}

// track is a process of the format: the requests, or a node.
type track struct {
	name   string
	pid    int
	lanes  []time.Duration // until when each is taken
	counts [numCounts][]change
}

type emitter struct {
	w      *bufio.Writer
	any    bool // an event was written
	tracks []*track
	at     map[string]*track
	flows  int
	buf    []byte
}

func (e *emitter) raw(parts ...string) {
	for _, p := range parts {
		_, _ = e.w.WriteString(p) // Flush tells the first error
	}
}

// event writes one event: its phase, its track and lane, and more fields.
func (e *emitter) event(ph string, t *track, lane int, fields ...string) {
	if e.any {
		e.raw(",\n")
	}
	e.any = true
	e.raw(`{"ph":"`, ph, `","pid":`, strconv.Itoa(t.pid), `,"tid":`, strconv.Itoa(lane))
	e.raw(fields...)
	e.raw("}")
}

// stamp is a time or a length in microseconds.
func (e *emitter) stamp(key string, t time.Duration) string {
	b := append(e.buf[:0], `,"`...)
	b = append(b, key...)
	b = append(b, `":`...)
	if t < 0 {
		b, t = append(b, '-'), -t
	}
	b = strconv.AppendInt(b, int64(t/1000), 10)
	b = append(b, '.')
	ns := int(t % 1000)
	b = append(b, byte('0'+ns/100), byte('0'+ns/10%10), byte('0'+ns%10))
	e.buf = b
	return string(b)
}

// track is the one of a name, announced when it first appears.
func (e *emitter) track(name string) *track {
	if t, ok := e.at[name]; ok {
		return t
	}
	t := &track{name: name, pid: len(e.tracks) + 1}
	e.tracks, e.at[name] = append(e.tracks, t), t
	e.event("M", t, 0, `,"name":"process_name","args":{"name":`, quoted(name), "}")
	e.event("M", t, 0, `,"name":"process_sort_index","args":{"sort_index":`, strconv.Itoa(t.pid), "}")
	return t
}

// lane is a lane of a track that is free from start on, taken until end. Lanes count from 1.
func (e *emitter) lane(t *track, start, end time.Duration) int {
	for k, until := range t.lanes {
		if until <= start {
			t.lanes[k] = end
			return k + 1
		}
	}
	t.lanes = append(t.lanes, end)
	k := len(t.lanes)
	e.event("M", t, k, `,"name":"thread_name","args":{"name":`, quoted(fmt.Sprintf("%s %d", t.name, k)), "}")
	return k
}

// request writes a request with its spans, and its spans again where they were spent.
func (e *emitter) request(all *track, r *record.Request) {
	lane := e.lane(all, r.Intended, r.Done)
	all.count(inside, r.Intended, r.Done, 1)
	id := strconv.Itoa(r.ID)
	e.event("X", all, lane, `,"name":"request `, id, `","cat":"request"`, e.stamp("ts", r.Intended), e.stamp("dur", r.Done-r.Intended),
		`,"args":{"user":`, strconv.Itoa(r.User), `,"outcome":"`, r.Outcome.String(), `","prompt_tokens":`, strconv.Itoa(r.PromptTokens), `,"output_tokens":`, strconv.Itoa(r.OutputTokens), "}")
	if r.FirstToken != record.Unset {
		e.event("i", all, lane, `,"name":"first token","s":"t"`, e.stamp("ts", r.FirstToken))
	}
	batched := ""
	for i := range r.Spans {
		s := &r.Spans[i]
		kind := s.Kind.String()
		e.event("X", all, lane, `,"name":`, quoted(strings.TrimSpace(kind+" "+s.Node)), `,"cat":"`, kind, `"`, e.stamp("ts", s.Start), e.stamp("dur", s.End-s.Start), `,"args":{"request":`, id, "}")
		if s.Node == "" {
			continue
		}
		t := e.track("node " + s.Node)
		if s.Kind == record.Queue {
			t.count(waits, s.Start, s.End, 1)
			continue
		}
		t.count(inside, s.Start, s.End, 1)
		there := e.lane(t, s.Start, s.End)
		e.event("X", t, there, `,"name":"`, kind, ` `, id, `","cat":"`, kind, `"`, e.stamp("ts", s.Start), e.stamp("dur", s.End-s.Start), `,"args":{"request":`, id, "}")
		if s.Kind == record.Batch && s.Node != batched {
			batched = s.Node
			e.flows++
			flow := `,"name":"to server","cat":"flow","id":` + strconv.Itoa(e.flows)
			e.event("s", all, lane, flow, e.stamp("ts", s.Start))
			e.event("f", t, there, flow, `,"bp":"e"`, e.stamp("ts", s.Start))
		}
	}
	e.power(r)
}

// power spreads a request's joules of each part over the spans that spent them: a radio's
// over transfers, a device's over operations for this request alone, a server's over batches;
// over the whole request where it has none of these.
func (e *emitter) power(r *record.Request) {
	kinds := [...]record.Kind{record.DevicePart: record.Compute, record.RadioPart: record.Transfer, record.EdgePart: record.Batch, record.CloudPart: record.Batch}
	for p, kind := range kinds {
		j := r.Energy[p]
		if !j.Known() || j.Joules == 0 {
			continue
		}
		total := time.Duration(0)
		for _, s := range r.Spans {
			if s.Kind == kind {
				total += s.End - s.Start
			}
		}
		t := e.track("power of " + record.Part(p).String() + "s")
		if total == 0 {
			if d := r.Done - r.Intended; d > 0 {
				t.count(watts, r.Intended, r.Done, float64(j.Joules)/d.Seconds())
			}
			continue
		}
		w := float64(j.Joules) / total.Seconds()
		for _, s := range r.Spans {
			if s.Kind == kind && s.End > s.Start {
				t.count(watts, s.Start, s.End, w)
			}
		}
	}
}

func (t *track) count(what int, from, to time.Duration, by float64) {
	if to > from {
		t.counts[what] = append(t.counts[what], change{from, by}, change{to, -by})
	}
}

// counter writes a counter of a track: its value after each time at which it changes.
func (e *emitter) counter(t *track, what int) {
	list := t.counts[what]
	slices.SortStableFunc(list, func(a, b change) int { return cmp.Compare(a.at, b.at) })
	name := [numCounts]string{"served at once", "queue", "power W"}[what]
	if what == inside && t.pid == 1 {
		name = "in the system"
	}
	sum, last := 0.0, ""
	for i, c := range list {
		sum += c.by
		if i+1 < len(list) && list[i+1].at == c.at {
			continue
		}
		format, digits := byte('f'), 0
		if what == watts {
			digits = 3
		}
		v := strconv.FormatFloat(max(0, sum), format, digits, 64)
		if v == last {
			continue
		}
		last = v
		e.event("C", t, 0, `,"name":"`, name, `"`, e.stamp("ts", c.at), `,"args":{"value":`, v, "}")
	}
}

// quoted is a string as JSON, with what is not UTF-8 replaced.
func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil { // a string always can
		panic(err)
	}
	return string(b)
}
