// Package record holds what happened: one Request per request with its events,
// spans, sizes, energy and outcome. Plain types and their invariants; every
// metric is derived from them, none is stored beside them.
//
// All times are nanoseconds since the run began, on one monotonic clock. Unset
// marks an event that did not happen.
//
// Spans partition a request: a pipeline calls Spent after each step, which
// closes the time from the previous call to now, so that the spans of a request
// add up to it by construction:
//
//	u, err := link.Send(p)
//	log.Spent(record.Transfer, "up", u.Start, u.End) // waiting before u.Start becomes a queue span
//
// Metrics is the one table of figures: per request and per run, with unit,
// direction and how each is derived. Views is the same for the definitions of
// other tools, over the same events. A Cell is what the requests of a run share;
// its Good says which of them count in goodput, its Judge whether the run may be
// believed at all.
//
//	s := record.NewSummary(&cell)
//	s.Add(&req) // for every request, in order of ID
//	for _, v := range s.Values() {
//		fmt.Println(v.Metric.Name, v.V, v.Metric.Unit)
//	}
//
// The package keeps nothing on disk (results does) and says nothing of chance
// (stats does).
package record

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"meibench/internal/units"
)

// Unset marks an event that did not happen.
const Unset time.Duration = -1

// Outcome is how a request ended.
type Outcome uint8

// Outcomes. Everything but OK is a miss in goodput.
const (
	OK        Outcome = iota + 1
	Failed            // for any other reason
	Timeout           // a limit on time passed
	Rejected          // the server had no room: nothing was begun
	Cancelled         // by who asked
)

var outcomes = [...]string{"none", "ok", "failed", "timeout", "rejected", "cancelled"}

// String is the outcome as it appears in records.
func (o Outcome) String() string { return outcomes[min(int(o), len(outcomes)-1)] }

// Kind is what a span of a request's time was spent on.
type Kind uint8

// Kinds of spans.
const (
	Compute  Kind = iota + 1 // an operation on a device, for this request
	Transfer                 // on a link, serialisation and propagation
	Queue                    // waiting for a device, a link or admission
	Batch                    // served in a batch together with others
	Wait                     // anything else: think time, waiting for the turn
)

var kinds = [...]string{"none", "compute", "transfer", "queue", "batch", "wait"}

// String is the kind as it appears in records.
func (k Kind) String() string { return kinds[min(int(k), len(kinds)-1)] }

// Span is one part of a request's time.
type Span struct {
	Kind       Kind
	Node       string // device, link or queue by its name in the site
	Start, End time.Duration
}

// Chunk is one arrival of output at the user: a time and how many tokens came.
// A chunk without tokens is one that carries only a role or a finish mark: some
// tools start their clocks on it, we do not.
type Chunk struct {
	At     time.Duration
	Tokens int // >= 0
}

// Part of the system that spends energy.
type Part uint8

// Parts.
const (
	DevicePart Part = iota
	RadioPart
	EdgePart
	CloudPart
	NumParts
)

var parts = [...]string{"device", "radio", "edge", "cloud"}

// String is the part as it appears in records.
func (p Part) String() string {
	if int(p) < len(parts) {
		return parts[p]
	}
	return "none"
}

// Energy is what one part spent on a request. Source is 0 when nothing is known,
// Unknown is true when some step of the part could not tell; in both cases the
// energy is null in the tables, never zero.
type Energy struct {
	Joules  units.Joules
	Source  uint8 // hardware.Source
	Unknown bool
}

// Known reports whether the energy is that of all the part's steps.
func (e Energy) Known() bool { return e.Source != 0 && !e.Unknown }

// Request is one request from its intended arrival to its end.
type Request struct {
	// Identity.
	ID, User, Session, Turn int

	// Events (see DESIGN: records). Intended is when the schedule wanted the
	// request to start; headline latencies count from it.
	Intended, Released, Sent                time.Duration
	FirstByte, FirstChunk                   time.Duration
	FirstToken, FirstAnswerToken, LastToken time.Duration // FirstAnswerToken: the first that is not reasoning
	Done                                    time.Duration
	Deadline                                time.Duration // after Intended; 0 = none. The request's own limit
	Chunks                                  []Chunk

	// Sizes.
	PromptTokens, AskedTokens, OutputTokens int
	SensorBytes, UpBytes, DownBytes         units.Bytes
	RawBytesOut, DerivedBytesOut            units.Bytes // user data, and data computed from it, that left the device
	PeakBytes                               units.Bytes
	FLOP                                    units.FLOP

	Counts  [NumCounters]int64 // by Counter; see Count
	Energy  [NumParts]Energy
	Quality float64 // task score in [0,1]; NaN where there is none
	Outcome Outcome
	Err     string
	Spans   []Span
	Output  []int32 // answer tokens, for scoring; not stored

	OutputHash uint64 // of the answer, by HashTokens or HashText; 0 = not known

	// Of a server with a tokenizer of its own; not stored.
	Texted   bool   // the answer is Text, not Output
	Text     string // for scoring
	Doubt    string // what is questionable in it; "" = nothing
	Mismatch bool   // the server's counts of tokens contradict each other

	Brief bool // no spans, and of the chunks the first and the last: see Shorten

	cursor time.Duration
}

// Reset prepares r for a new request that is intended at a time, keeping the
// memory of its slices.
func (r *Request) Reset(id int, intended time.Duration) {
	chunks, spans, out := r.Chunks[:0], r.Spans[:0], r.Output[:0]
	*r = Request{ID: id, Intended: intended, Released: Unset, Sent: Unset, FirstByte: Unset, FirstChunk: Unset,
		FirstToken: Unset, FirstAnswerToken: Unset, LastToken: Unset, Done: Unset, Quality: math.NaN(),
		Chunks: chunks, Spans: spans, Output: out, cursor: intended}
}

// Spent says that the time from the last call until end went into a step that
// itself ran from start to end; what lies before start was queueing. Start and
// end outside what is still open are clipped to it.
func (r *Request) Spent(kind Kind, node string, start, end time.Duration) {
	start, end = max(start, r.cursor), max(end, r.cursor)
	if start > end {
		start = end
	}
	if start > r.cursor {
		r.add(Queue, node, r.cursor, start)
	}
	if end > start {
		r.add(kind, node, start, end)
	}
	r.cursor = end
}

// Reached is the end of the last span: until when the request's time is accounted for.
func (r *Request) Reached() time.Duration { return r.cursor }

func (r *Request) add(kind Kind, node string, start, end time.Duration) {
	if n := len(r.Spans); n > 0 {
		if s := &r.Spans[n-1]; s.Kind == kind && s.Node == node && s.End == start {
			s.End = end
			return
		}
	}
	r.Spans = append(r.Spans, Span{kind, node, start, end})
}

// Token records n output tokens that reached the user at a time. They must come
// in order of time.
func (r *Request) Token(at time.Duration, n int) {
	if n <= 0 {
		return
	}
	r.chunk(at, n)
	if r.FirstToken == Unset {
		r.FirstToken, r.FirstAnswerToken = at, at
	}
	r.OutputTokens += n
	r.LastToken = at
}

// Tokens records single tokens that reached the user at these times, in order.
func (r *Request) Tokens(at []time.Duration) {
	if len(at) == 0 {
		return
	}
	r.Token(at[0], 1)
	r.Chunks = slices.Grow(r.Chunks, len(at)-1)
	for _, t := range at[1:] {
		r.Chunks = append(r.Chunks, Chunk{t, 1})
	}
	r.OutputTokens += len(at) - 1
	r.LastToken = at[len(at)-1]
}

// Shorten leaves out what a run of millions need not keep: spans, and the chunks
// between the first token and the last. Metrics of these then do not exist.
func (r *Request) Shorten() {
	r.Brief, r.Spans = true, r.Spans[:0]
	if len(r.Chunks) <= 2 {
		return
	}
	chunks := r.Chunks[:0]
	if r.FirstToken != r.FirstChunk {
		chunks = append(chunks, Chunk{At: r.FirstChunk})
	}
	switch {
	case r.OutputTokens == 0:
	case r.LastToken == r.FirstToken:
		chunks = append(chunks, Chunk{r.FirstToken, r.OutputTokens})
	default:
		chunks = append(chunks, Chunk{r.FirstToken, 1}, Chunk{r.LastToken, r.OutputTokens - 1})
	}
	r.Chunks = chunks
}

// Empty records a chunk that reached the user and held no token: a role, a
// finish mark. It sets FirstByte and FirstChunk, never FirstToken.
func (r *Request) Empty(at time.Duration) { r.chunk(at, 0) }

func (r *Request) chunk(at time.Duration, n int) {
	if k := len(r.Chunks); k > 0 && at < r.Chunks[k-1].At {
		panic(fmt.Sprintf("record: chunk at %v after one at %v", at, r.Chunks[k-1].At))
	}
	if r.FirstByte == Unset {
		r.FirstByte = at
	}
	if r.FirstChunk == Unset {
		r.FirstChunk = at
	}
	r.Chunks = append(r.Chunks, Chunk{at, n})
}

// Spend adds energy to a part. A source of 0 means that the step could not tell:
// the part's energy then is and stays unknown. A sum of measured and modelled
// joules is called modelled.
func (r *Request) Spend(p Part, j units.Joules, source uint8) {
	e := &r.Energy[p]
	if source == 0 {
		e.Unknown = true
		return
	}
	e.Joules += j
	if e.Source == 0 || source < e.Source {
		e.Source = source
	}
}

// Finish closes the request. The time since the last span is a wait. An error
// that wraps one with a method `Rejected() bool` or `Timeout() bool`, as
// net.Error and context.DeadlineExceeded have it, says so of the outcome, in this
// order; any other is Failed.
func (r *Request) Finish(at time.Duration, err error) {
	if at > r.cursor {
		r.add(Wait, "", r.cursor, at)
		r.cursor = at
	}
	r.Done = r.cursor
	r.Outcome = OK
	if err != nil {
		r.Outcome, r.Err = outcomeOf(err), err.Error()
	}
}

func outcomeOf(err error) Outcome {
	var rejected interface {
		error
		Rejected() bool
	}
	var timeout interface {
		error
		Timeout() bool
	}
	switch {
	case errors.As(err, &rejected) && rejected.Rejected():
		return Rejected
	case errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	}
	return Failed
}
