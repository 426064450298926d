package record

import (
	"fmt"
	"math"
	"time"
)

// Check returns the first invariant that the request breaks, or nil. The
// harness checks each row before it is written.
func (r *Request) Check() error {
	for _, err := range [...]error{r.checkEvents(), r.checkSpans(), r.checkChunks(), r.checkSizes()} {
		if err != nil {
			return fmt.Errorf("request %d: %w", r.ID, err)
		}
	}
	return nil
}

// eventNames are the events in the order in which they must happen.
var eventNames = [...]string{"released", "sent", "first byte", "first chunk", "first token", "first answer token", "last token", "done"}

func (r *Request) checkEvents() error {
	if r.Outcome == 0 || int(r.Outcome) >= len(outcomes) {
		return fmt.Errorf("no outcome (%d)", r.Outcome)
	}
	if r.Done < r.Intended {
		return fmt.Errorf("done at %v before intended at %v", r.Done, r.Intended)
	}
	last, before := r.Intended, "intended"
	for i, e := range [...]time.Duration{r.Released, r.Sent, r.FirstByte, r.FirstChunk, r.FirstToken, r.FirstAnswerToken, r.LastToken, r.Done} {
		if e == Unset {
			continue
		}
		if e < last {
			return fmt.Errorf("%s at %v before %s at %v", eventNames[i], e, before, last)
		}
		last, before = e, eventNames[i]
	}
	return nil
}

func (r *Request) checkSpans() error {
	if r.Brief && len(r.Spans) == 0 {
		return nil
	}
	at := r.Intended
	for i := range r.Spans {
		s := &r.Spans[i]
		if s.Start != at || s.End <= s.Start {
			return fmt.Errorf("span %s %q [%v, %v] does not follow on %v", s.Kind, s.Node, s.Start, s.End, at)
		}
		if s.Kind == 0 || int(s.Kind) >= len(kinds) {
			return fmt.Errorf("span %d has no kind (%d)", i, s.Kind)
		}
		at = s.End
	}
	if at != r.Done {
		return fmt.Errorf("spans end at %v, the request at %v", at, r.Done)
	}
	return nil
}

func (r *Request) checkChunks() error {
	prev, tokens, first, last := r.Intended, 0, Unset, Unset
	for _, c := range r.Chunks {
		if c.At < prev || c.At > r.Done || c.Tokens < 0 || c.Tokens > math.MaxInt32 {
			return fmt.Errorf("chunk of %d tokens at %v, after %v, done at %v", c.Tokens, c.At, prev, r.Done)
		}
		prev = c.At
		if c.Tokens > 0 {
			if first == Unset {
				first = c.At
			}
			last = c.At
		}
		tokens += c.Tokens
	}
	switch {
	case len(r.Chunks) > 0 && r.FirstChunk != r.Chunks[0].At:
		return fmt.Errorf("first chunk at %v, recorded at %v", r.Chunks[0].At, r.FirstChunk)
	case first != r.FirstToken || last != r.LastToken:
		return fmt.Errorf("chunks hold tokens from %v to %v, recorded %v to %v", first, last, r.FirstToken, r.LastToken)
	case tokens != r.OutputTokens:
		return fmt.Errorf("chunks hold %d tokens, the request %d", tokens, r.OutputTokens)
	}
	return nil
}

func (r *Request) checkSizes() error {
	switch {
	case r.OutputTokens > r.AskedTokens:
		return fmt.Errorf("%d output tokens, only %d asked for", r.OutputTokens, r.AskedTokens)
	case r.PromptTokens < 0 || r.AskedTokens < 0 || r.Deadline < 0:
		return fmt.Errorf("negative tokens or deadline")
	case r.UpBytes < 0 || r.DownBytes < 0 || r.SensorBytes < 0 || r.PeakBytes < 0 || r.RawBytesOut < 0 || r.DerivedBytesOut < 0:
		return fmt.Errorf("negative bytes")
	case !(r.FLOP >= 0):
		return fmt.Errorf("%g FLOP", float64(r.FLOP))
	case !math.IsNaN(r.Quality) && (r.Quality < 0 || r.Quality > 1):
		return fmt.Errorf("quality %g outside [0, 1]", r.Quality)
	}
	for c, n := range r.Counts {
		if n < 0 {
			return fmt.Errorf("%s is %d", Counter(c), n)
		}
	}
	if r.Counts[Accepted] > r.Counts[Drafted] || r.Counts[LayersRun] > r.Counts[LayersFull] {
		return fmt.Errorf("%d of %d drafted tokens accepted, %d of %d layers run", r.Counts[Accepted], r.Counts[Drafted], r.Counts[LayersRun], r.Counts[LayersFull])
	}
	for p, e := range r.Energy {
		if !(e.Joules >= 0) || math.IsInf(float64(e.Joules), 0) {
			return fmt.Errorf("%s spent %g J", Part(p), float64(e.Joules))
		}
	}
	return nil
}
