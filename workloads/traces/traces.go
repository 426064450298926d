// Package traces reads recorded LLM request traces.
package traces

import "time"

// Row is one recorded request.
type Row struct {
	At      time.Duration // since the first request of the trace
	Prompt  int32         // tokens
	Output  int32         // tokens
	Images  int32
	User    int32 // who asked, numbered in order of appearance; -1 unknown
	Session int32 // conversation, numbered in order of appearance; -1 unknown
	Turn    int32 // 0, 1, ... within the session

	firstBlock, blocks uint32 // part of Trace.arena
}

// Trace is a recorded trace in SI units, in order of time.
type Trace struct {
	Name        string  // file or data set
	Format      string  // as in Formats
	Rows        []Row   // at least one
	BlockTokens int     // tokens that a prefix block stands for; 0: the trace has none
	Factor      float64 // time compression applied so far; 1 as recorded

	arena []int64 // ids of prefix blocks of all rows
}

// Blocks returns the ids of row i's prefix blocks: equal ids mark equal,
// reusable prompt prefixes. The slice must not be changed.
func (t *Trace) Blocks(i int) []int64 {
	r := &t.Rows[i]
	return t.arena[r.firstBlock : r.firstBlock+r.blocks : r.firstBlock+r.blocks]
}

// Rate is the mean number of requests per second over the span of the trace.
func (t *Trace) Rate() float64 {
	if span := t.Rows[len(t.Rows)-1].At; span > 0 {
		return float64(len(t.Rows)) / span.Seconds()
	}
	return 0
}
