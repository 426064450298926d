package record

import (
	"math"
	"time"
)

// View is how one tool reads the events of a request. The functions return
// seconds, NaN where the tool reports nothing for the request, and are nil where
// it has no such figure. The rules are those of the tools' sources in 2026; a
// tool that changes gets a second view, never an edited one.
type View struct {
	ID   string
	Doc  string
	From func(*Request) time.Duration // where the tool starts its clock

	TTFT func(*Request) float64 // time to first token
	TPOT func(*Request) float64 // "time per output token", as the tool means it
	ITL  func(*Request) float64 // "inter-token latency": the request's value or the mean of its gaps

	// Good says whether the tool counts the request in goodput under limits.
	Good func(*Request, Limits) bool
}

// Limits are an application's limits; 0 = none.
type Limits struct{ TTFT, TPOT, E2E time.Duration }

// Views is the table of definitions, sorted by ID. One trace gives TTFTs from 50
// to 300 ms under them (see the test): a comparison must name its definition.
func Views() []View {
	return []View{
		{ID: "aiperf", Doc: "from the actual send to the first chunk with content; ITL is (latency - TTFT)/(tokens - 1)",
			From: sentAt, TTFT: fromSent, ITL: smooth(sentAt), Good: within(fromSent, smooth(sentAt), tookFrom(sentAt, lastTokenAt))},
		{ID: "guidellm", Doc: "from the actual start; TPOT divides the whole latency by all tokens, so TTFT is inside; its goodput tests ITL in the place of TPOT",
			From: sentAt, TTFT: fromSent, TPOT: perToken(sentAt), ITL: TPOTOf, Good: within(fromSent, TPOTOf, tookFrom(sentAt, lastTokenAt))},
		{ID: "inference-perf", Doc: "from the actual send to the first chunk with content; ITL is the gaps between chunks with content",
			From: sentAt, TTFT: fromSent, TPOT: smooth(sentAt), ITL: contentGaps, Good: within(fromSent, smooth(sentAt), tookFrom(sentAt, lastTokenAt))},
		{ID: "llmperf", Doc: "from the call; ITL is the sum of gaps with TTFT among them, over all tokens",
			From: sentAt, TTFT: fromSent, ITL: perToken(sentAt)},
		{ID: "loadgen/v6", Doc: "from the scheduled time to the first token; TPOT in integer ns; one percentile tested per limit, no goodput",
			From: intendedAt, TTFT: func(r *Request) float64 { return since(r.FirstToken, r.Intended) }, TPOT: loadgenTPOT},
		{ID: "ours", Doc: "from the intended start to the first token; TPOT between first and last token; goodput tests all limits together, failures are misses",
			From: intendedAt, TTFT: func(r *Request) float64 { return since(r.FirstToken, r.Intended) }, TPOT: TPOTOf, ITL: contentGaps, Good: ours},
		{ID: "vllm", Doc: "from behind the concurrency gate to the first chunk, even one without text; ITL is the gaps between all chunks",
			From: sentAt, TTFT: func(r *Request) float64 { return since(r.FirstChunk, r.Sent) }, TPOT: vllmTPOT, ITL: allGaps, Good: vllmGood},
	}
}

func sentAt(r *Request) time.Duration      { return r.Sent }
func intendedAt(r *Request) time.Duration  { return r.Intended }
func lastTokenAt(r *Request) time.Duration { return r.LastToken }
func fromSent(r *Request) float64          { return since(r.FirstToken, r.Sent) }

func tookFrom(from, to func(*Request) time.Duration) func(*Request) float64 {
	return func(r *Request) float64 { return since(to(r), from(r)) }
}

// smooth is (latency - TTFT)/(tokens - 1) by a clock that starts at from; the
// start cancels, the guard against an unset one remains.
func smooth(from func(*Request) time.Duration) func(*Request) float64 {
	return func(r *Request) float64 {
		if from(r) == Unset {
			return math.NaN()
		}
		return TPOTOf(r)
	}
}

// perToken is the whole latency over all tokens.
func perToken(from func(*Request) time.Duration) func(*Request) float64 {
	return func(r *Request) float64 { return over(since(r.LastToken, from(r)), r.OutputTokens) }
}

// loadgenTPOT is (latency - TTFT)/(tokens - 1) in whole nanoseconds; LoadGen
// treats fewer than two tokens as an error of the system under test.
func loadgenTPOT(r *Request) float64 {
	if r.OutputTokens < 2 || r.FirstToken == Unset {
		return math.NaN()
	}
	return ((r.Done - r.FirstToken) / time.Duration(r.OutputTokens-1)).Seconds()
}

func vllmTPOT(r *Request) float64 {
	if r.OutputTokens < 2 || r.FirstChunk == Unset {
		return math.NaN()
	}
	return over(since(lastChunk(r), r.FirstChunk), r.OutputTokens-1)
}

func lastChunk(r *Request) time.Duration {
	if len(r.Chunks) == 0 {
		return Unset
	}
	return r.Chunks[len(r.Chunks)-1].At
}

func contentGaps(r *Request) float64 { return meanGap(r, 1) }
func allGaps(r *Request) float64     { return meanGap(r, 0) }

// meanGap is the mean gap between successive chunks of at least so many tokens.
func meanGap(r *Request, least int) float64 {
	if r.Brief {
		return math.NaN()
	}
	first, last, n := Unset, Unset, 0
	for _, c := range r.Chunks {
		if c.Tokens < least {
			continue
		}
		if first == Unset {
			first = c.At
		}
		last, n = c.At, n+1
	}
	return over(since(last, first), max(n-1, 0))
}

// within counts a request as good when it ended well and meets the limits by
// the three figures given; a figure that the request lacks binds nothing.
func within(ttft, tpot, e2e func(*Request) float64) func(*Request, Limits) bool {
	ok := func(v float64, limit time.Duration) bool { return limit == 0 || !(v > limit.Seconds()) }
	return func(r *Request, l Limits) bool {
		return r.Outcome == OK && ok(ttft(r), l.TTFT) && ok(tpot(r), l.TPOT) && ok(e2e(r), l.E2E)
	}
}

// vllmGood: a TPOT that does not exist counts as 0.
func vllmGood(r *Request, l Limits) bool {
	ttft := func(r *Request) float64 { return since(r.FirstChunk, r.Sent) }
	return within(ttft, vllmTPOT, tookFrom(sentAt, lastChunk))(r, l)
}

func ours(r *Request, l Limits) bool {
	c := Cell{TTFTLimit: l.TTFT, TPOTLimit: l.TPOT, E2ELimit: l.E2E}
	return c.Good(r)
}

// LoadGenQuantile is element floor(n p), counted from zero, of n sorted values,
// LoadGen's rule; NaN of none. Quantile, ours, is one element lower where n p is
// whole.
func LoadGenQuantile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

// LoadGenRate is LoadGen's completed rate in requests per second: (n - 1) over
// the time of the last completion; NaN for fewer than two.
func LoadGenRate(n int, last time.Duration) float64 {
	if n < 2 || last <= 0 {
		return math.NaN()
	}
	return float64(n-1) / last.Seconds()
}
