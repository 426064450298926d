package record

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
)

const ms = time.Millisecond

// sample is a whole, valid request: intended at 10 ms, queued for the uplink
// until 12, up until 20, computing until 50, four tokens, done at 50.
func sample() *Request {
	r := new(Request)
	r.Reset(7, 10*ms)
	r.AskedTokens, r.PromptTokens = 8, 20
	r.Released, r.Sent = 10*ms, 12*ms
	r.Spent(Transfer, "up", 12*ms, 20*ms)
	r.Token(30*ms, 1)
	r.Token(40*ms, 2)
	r.Token(50*ms, 1)
	r.Spent(Compute, "edge", 20*ms, 50*ms)
	r.Spend(EdgePart, 3, 1)
	r.Finish(50*ms, nil)
	return r
}

func TestHashesOfAnswers(t *testing.T) {
	require.Zero(t, HashTokens(nil))
	require.Zero(t, HashText(""))
	require.Equal(t, HashText("\x01\x00\x00\x00\xff\xff\xff\xff"), HashTokens([]int32{1, -1}), "four bytes a token, the lowest first")
	require.Equal(t, uint64(0xba7816bf8f01cfea), HashText("abc"), "FIPS 180-4's example")
}

func TestSampleIsValid(t *testing.T) {
	r := sample()
	require.NoError(t, r.Check())
	require.Equal(t, []Span{
		{Queue, "up", 10 * ms, 12 * ms}, {Transfer, "up", 12 * ms, 20 * ms}, {Compute, "edge", 20 * ms, 50 * ms},
	}, r.Spans)
	require.Equal(t, 4, r.OutputTokens)
}

func TestCheckNamesTheBrokenInvariant(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*Request)
		want  string
	}{
		{"no outcome", func(r *Request) { r.Outcome = 0 }, "no outcome"},
		{"an outcome that does not exist", func(r *Request) { r.Outcome = 99 }, "no outcome"},
		{"time goes back", func(r *Request) { r.Sent = 5 * ms }, "sent at 5ms before released at 10ms"},
		{"answer token before first token", func(r *Request) { r.FirstAnswerToken = 29 * ms }, "first answer token at 29ms before first token at 30ms"},
		{"done before intended", func(r *Request) { r.Done = 0 }, "before intended"},
		{"a gap between spans", func(r *Request) { r.Spans[1].Start++ }, "does not follow on"},
		{"a span of no length", func(r *Request) { r.Spans[1].End = r.Spans[1].Start }, "does not follow on"},
		{"a span of no kind", func(r *Request) { r.Spans[1].Kind = 0 }, "no kind"},
		{"time left over", func(r *Request) { r.Spans = r.Spans[:2] }, "spans end at 20ms, the request at 50ms"},
		{"chunks out of order", func(r *Request) { r.Chunks[1].At = 29 * ms }, "after 30ms"},
		{"chunk after the end", func(r *Request) { r.Chunks[2].At = 51 * ms }, "done at 50ms"},
		{"first token is not the first chunk's", func(r *Request) { r.FirstToken, r.FirstAnswerToken = 31*ms, 31*ms }, "recorded 31ms to 50ms"},
		{"first chunk is not the first", func(r *Request) { r.FirstByte, r.FirstChunk = 29*ms, 29*ms }, "recorded at 29ms"},
		{"tokens that no chunk holds", func(r *Request) { r.OutputTokens++ }, "chunks hold 4 tokens, the request 5"},
		{"more tokens than asked for", func(r *Request) { r.AskedTokens = 3 }, "only 3 asked for"},
		{"negative bytes", func(r *Request) { r.UpBytes = -1 }, "negative bytes"},
		{"negative deadline", func(r *Request) { r.Deadline = -1 }, "negative tokens or deadline"},
		{"quality above one", func(r *Request) { r.Quality = 1.5 }, "quality 1.5"},
		{"negative energy", func(r *Request) { r.Energy[CloudPart].Joules = -1 }, "cloud spent -1 J"},
		{"energy that is no number", func(r *Request) { r.Energy[RadioPart].Joules = units.Joules(math.NaN()) }, "radio spent NaN J"},
		{"work that is no number", func(r *Request) { r.FLOP = units.FLOP(math.NaN()) }, "NaN FLOP"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := sample()
			tc.spoil(r)
			require.ErrorContains(t, r.Check(), tc.want)
			require.ErrorContains(t, r.Check(), "request 7: ")
		})
	}
}

// Whatever steps a pipeline reports, in whatever disorder, spans partition the
// request: the clip in Spent, not the caller, guarantees it.
func FuzzSpentPartitions(f *testing.F) {
	f.Add([]byte{3, 9, 20, 1, 0, 255, 7, 7})
	f.Fuzz(func(t *testing.T, steps []byte) {
		r := new(Request)
		r.Reset(1, 10)
		for i := 0; i+1 < len(steps); i += 2 {
			r.Spent(Kind(steps[i]%5+1), "n", time.Duration(int8(steps[i])), time.Duration(int8(steps[i+1])))
		}
		r.Finish(60, nil)
		require.NoError(t, r.Check())
		sum := 0.0
		for _, k := range []Kind{Compute, Transfer, Queue, Batch, Wait} {
			sum += spent(k)(r)
		}
		require.InDelta(t, (r.Done - r.Intended).Seconds(), sum, 1e-15)
	})
}

func TestTokens(t *testing.T) {
	r := new(Request)
	r.Reset(1, 0)
	r.Token(5, 0)
	require.Equal(t, Unset, r.FirstChunk, "no token, no event")
	r.Empty(6)
	require.Equal(t, []time.Duration{6, 6, Unset}, []time.Duration{r.FirstByte, r.FirstChunk, r.FirstToken})
	r.Token(8, 2)
	require.Equal(t, []time.Duration{6, 8, 8}, []time.Duration{r.FirstChunk, r.FirstToken, r.LastToken})
	require.Panics(t, func() { r.Token(7, 1) }, "tokens come in order of time")
	r.Reset(2, 9)
	require.Empty(t, r.Chunks)
	require.Equal(t, Unset, r.FirstToken)
}

func TestEnergyKeepsItsDoubt(t *testing.T) {
	r := sample()
	require.Equal(t, 3.0, energy(r), "a part that took no part counts nothing")
	r.Spend(EdgePart, 1, 3)
	require.Equal(t, Energy{Joules: 4, Source: 1}, r.Energy[EdgePart], "measured and modelled joules make modelled ones")
	r.Spend(RadioPart, 0, 0)
	require.True(t, math.IsNaN(energy(r)), "one step that cannot tell, and the sum is unknown")
	r.Spend(RadioPart, 5, 3)
	require.False(t, r.Energy[RadioPart].Known(), "unknown stays unknown")
	require.True(t, math.IsNaN(energyOf(RadioPart)(r)))
}

func TestFinish(t *testing.T) {
	r := new(Request)
	r.Reset(1, 0)
	r.Finish(3, errors.New("link down"))
	require.Equal(t, Failed, r.Outcome)
	require.Equal(t, "link down", r.Err)
	require.Equal(t, []Span{{Wait, "", 0, 3}}, r.Spans)
	require.NoError(t, r.Check())
}

// says is an error that knows what it is.
type says struct{ rejected, timeout bool }

func (says) Error() string    { return "no" }
func (s says) Rejected() bool { return s.rejected }
func (s says) Timeout() bool  { return s.timeout }

func TestOutcomeIsWhatTheErrorSays(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		want Outcome
	}{
		{"none", nil, OK},
		{"it says nothing", errors.New("link down"), Failed},
		{"it says no to both", says{}, Failed},
		{"rejected", says{rejected: true}, Rejected},
		{"timeout", says{timeout: true}, Timeout},
		{"rejected comes first", says{true, true}, Rejected},
		{"under other errors", fmt.Errorf("device: %w", errors.Join(errors.New("x"), fmt.Errorf("generate: %w", says{timeout: true}))), Timeout},
		{"a context's deadline", fmt.Errorf("wait: %w", context.DeadlineExceeded), Timeout},
		{"a socket's deadline", &os.PathError{Err: os.ErrDeadlineExceeded}, Timeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := new(Request)
			r.Reset(1, 0)
			r.Finish(3, tc.err)
			require.Equal(t, tc.want, r.Outcome)
			require.Equal(t, tc.err != nil, r.Err != "")
			require.NoError(t, r.Check())
		})
	}
}

func TestNames(t *testing.T) {
	require.Equal(t, "ok", OK.String())
	require.Equal(t, "cancelled", Outcome(200).String())
	require.Equal(t, "batch", Batch.String())
	require.Equal(t, "edge", EdgePart.String())
}
