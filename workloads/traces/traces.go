// Package traces reads recorded traces of LLM requests, describes them with
// numbers, and writes them in one form.
//
//	t, err := traces.Open("AzureLLMInferenceTrace_conv.csv", traces.Options{})
//	s := t.Stats()          // rate, burstiness, lengths, reuse
//	s.WriteText(os.Stdout)
//	fast, err := t.Scale(4) // four times the rate, the same shape
//	err = fast.WriteCSV(out)
//
// The format is found out from the first line, gzip from the first bytes:
//
//   - azure: CSV with TIMESTAMP, ContextTokens, GeneratedTokens and, since 2025,
//     NumImages (Azure LLM inference traces 2023, 2024; multimodal 2025)
//   - bailian: JSON lines with chat_id, parent_chat_id, turn, hash_ids of 16
//     tokens (Qwen-Bailian)
//   - burstgpt: CSV with Timestamp, Model, Request tokens, Response tokens
//   - meibench: the form WriteCSV writes
//   - mooncake: JSON lines with timestamp in ms and hash_ids of 512 tokens
//
// ServeGen publishes rates, not requests; see ReadRates.
//
// Readers are strict. A line that is not what its format says is an error with
// file, line and column, what is wrong and what to do; lines, rows and
// uncompressed bytes are bounded. What is left out on purpose (requests without
// an answer, which are recorded failures) is counted in Trace.Skipped.
//
// Times are nanoseconds since the first request. Recordings whose clock ticks
// in whole seconds put many requests on one instant; they are spread evenly at
// random over the tick by keyed luck, and Trace.Notes says so.
package traces

import (
	"fmt"
	"math"
	"time"
)

// Row is one recorded request.
type Row struct {
	At      time.Duration // since the first request of the trace
	Prompt  int32         // tokens, those of images included
	Output  int32         // tokens
	Images  int32         // number of images
	User    int32         // who asked, numbered in order of appearance; -1 unknown
	Session int32         // conversation, numbered in order of appearance; -1 unknown
	Turn    int32         // 0, 1, ... within the session
	Type    int16         // index into Trace.Types; -1 unknown

	blocks     uint32
	firstBlock uint32
}

// Trace is a recorded trace in SI units, in order of time.
type Trace struct {
	Name        string   // file or data set
	Format      string   // as in Formats
	Rows        []Row    // at least one
	Types       []string // kinds of request that the recording distinguishes
	BlockTokens int      // tokens that a prefix block stands for; 0: the trace has none
	Factor      float64  // time compression applied so far; 1 as recorded
	Skipped     int      // recorded requests left out: no prompt or no answer
	Notes       []string // what was changed on import, and doubts

	arena []int64 // ids of prefix blocks of all rows
}

// Blocks returns the ids of row i's prefix blocks: equal ids mark equal,
// reusable prompt prefixes. The slice must not be changed.
func (t *Trace) Blocks(i int) []int64 {
	r := &t.Rows[i]
	end := r.firstBlock + r.blocks
	return t.arena[r.firstBlock:end:end]
}

// Span is the time from the first request to the last.
func (t *Trace) Span() time.Duration { return t.Rows[len(t.Rows)-1].At }

// Rate is the mean number of requests per second over the span of the trace; 0
// if it has none.
func (t *Trace) Rate() float64 {
	if span := t.Span(); span > 0 {
		return float64(len(t.Rows)) / span.Seconds()
	}
	return 0
}

// Scale returns the trace with its time compressed: all times divided by
// factor, so that the rate is factor times as high and the burstiness is kept.
// Removing requests instead would make a bursty trace Poisson.
func (t *Trace) Scale(factor float64) (*Trace, error) {
	if !(factor > 0) || math.IsInf(factor, 0) {
		return nil, fmt.Errorf("scale trace %q: want a finite factor > 0, got %g", t.Name, factor)
	}
	if last := t.Span().Seconds() / factor; last > maxTime.Seconds() {
		return nil, fmt.Errorf("scale trace %q: a factor of %g stretches it to %g s, over the limit of %v", t.Name, factor, last, maxTime)
	}
	scaled := *t
	scaled.Factor *= factor
	scaled.Rows = make([]Row, len(t.Rows))
	for i, r := range t.Rows {
		r.At = time.Duration(math.Floor(float64(r.At)/factor + 0.5))
		scaled.Rows[i] = r
	}
	return &scaled, nil
}

// maxTime bounds times of a trace: a century.
const maxTime = 100 * 365 * 24 * time.Hour
