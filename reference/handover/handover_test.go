package handover

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
)

// TestI19JointClosedForm: T* is the harmonic half-sum, between half of the smaller cost and the smaller cost; equal costs
// give exactly one half; a search over n finds n*.
func TestI19JointClosedForm(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for range 300 {
		u := User{Tokens: 1 + r.IntN(9000), PrefillTokensPerSec: math.Exp(r.NormFloat64()*2 + 6), KVBytesPerToken: 1 + r.IntN(300000)}
		rate := math.Exp(r.NormFloat64()*2 + 18)
		n, T := u.Joint(rate)
		tok, kv := float64(u.Tokens)/u.PrefillTokensPerSec, float64(u.Tokens)*float64(u.KVBytesPerToken)/rate
		require.InEpsilon(t, 1/(1/tok+1/kv), T, 1e-12)
		require.LessOrEqual(t, T, min(tok, kv))
		require.GreaterOrEqual(t, T*(1+1e-12), min(tok, kv)/2)
		delay := func(n float64) float64 {
			return max(n/u.PrefillTokensPerSec, (float64(u.Tokens)-n)*float64(u.KVBytesPerToken)/rate)
		}
		low, high := 0.0, float64(u.Tokens) // ternary search: the larger of a rising and a falling line
		for range 200 {
			a, b := low+(high-low)/3, high-(high-low)/3
			if delay(a) < delay(b) {
				high = b
			} else {
				low = a
			}
		}
		require.InEpsilon(t, n, low, 1e-6)
		require.InEpsilon(t, T, delay(low), 1e-6)
	}
	u := User{Tokens: 1000, PrefillTokensPerSec: 1000, KVBytesPerToken: 4000}
	n, T := u.Joint(4e6) // one second each
	require.Equal(t, 500.0, n)
	require.Equal(t, 0.5, T)
	n, T = User{PrefillTokensPerSec: 1, KVBytesPerToken: 1}.Joint(1)
	require.Equal(t, []float64{0, 0}, []float64{n, T})
}

// TestI19ShareEqualsBruteForce: the bisection finds the best of all splits in whole tokens, to the nanosecond. For given
// splits the link is best shared so that all transfers end together: the sum of bytes over its rate.
func TestI19ShareEqualsBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	for range 60 {
		users := make([]User, 1+r.IntN(3))
		for i := range users {
			users[i] = User{Tokens: r.IntN(25), PrefillTokensPerSec: 1 + 50*r.Float64(), KVBytesPerToken: 1 + r.IntN(900)}
		}
		rate := math.Exp(r.NormFloat64()*1.5 + 8)
		best := time.Duration(math.MaxInt64)
		n := make([]int, len(users))
		for {
			worst, left := time.Duration(0), 0
			for i, u := range users {
				worst = max(worst, units.Seconds(float64(n[i])/u.PrefillTokensPerSec))
				left += (u.Tokens - n[i]) * u.KVBytesPerToken
			}
			best = min(best, max(worst, units.TransferTime(units.Bytes(left), rate)))
			i := 0
			for ; i < len(n) && n[i] == users[i].Tokens; i++ {
				n[i] = 0
			}
			if i == len(n) {
				break
			}
			n[i]++
		}
		plan, err := Share(users, rate)
		require.NoError(t, err)
		require.InDelta(t, best, plan.Delay, 1, "%v over %g", users, rate)
		sum := 0.0
		for i, u := range users {
			sum += plan.BytesPerSec[i]
			require.LessOrEqual(t, plan.Prefill[i], u.Tokens)
			if left := (u.Tokens - plan.Prefill[i]) * u.KVBytesPerToken; left > 0 {
				require.InEpsilon(t, plan.Delay.Seconds(), float64(left)/plan.BytesPerSec[i], 1e-9)
			}
		}
		require.LessOrEqual(t, sum, rate*(1+1e-6))
	}
	_, err := Share(nil, 0)
	require.ErrorContains(t, err, "a link of 0")
	_, err = Share([]User{{Tokens: 1, KVBytesPerToken: 1}}, 5)
	require.ErrorContains(t, err, "prefills 0")
}

// TestI19PublishedExample: 4096 tokens, 2500 a second, 0.131 MB each, 10 Gbit/s.
func TestI19PublishedExample(t *testing.T) {
	u := Example()
	_, joint := u.Joint(ExampleBytesPerSec)
	require.InDelta(t, 1.638, u.Recompute().Seconds(), 0.0005)
	require.InDelta(t, 0.429, u.Transfer(ExampleBytesPerSec).Seconds(), 0.0005)
	require.InDelta(t, 0.340, joint, 0.0005)
	plan, err := Share([]User{u}, ExampleBytesPerSec)
	require.NoError(t, err)
	require.InDelta(t, joint, plan.Delay.Seconds(), 1/u.PrefillTokensPerSec, "whole tokens cost at most one token")
}

func TestI19KVBytes(t *testing.T) {
	require.Equal(t, 9*units.GiB/8, KVBytes(64, 9216, 1, 512, 2), "OPT-66B, 512 tokens, fp16: 1.125 GiB")
	require.EqualValues(t, 2*80*1024*100*2, KVBytes(80, 8192, 8, 100, 2))
}

// TestI9BreakEven: the printed bandwidths, and that the inequality is the race between the two times.
func TestI9BreakEven(t *testing.T) {
	m := MooncakeExample()
	require.InEpsilon(t, 5.86e9, m.BreakEven(8192, 8*312e12), 0.001)
	require.InEpsilon(t, 18.57e9, m.BreakEven(8192, 8*989e12), 0.001)
	const layers, p, flops = 80, 5000, 1e15
	bytes := float64(KVBytes(layers, m.Dim, m.KVShare, p, m.BytesPerElement))
	compute := layers * (4*float64(p)*p*8192 + 22*float64(p)*8192*8192) / flops
	require.InEpsilon(t, bytes/compute, m.BreakEven(p, flops), 1e-12)
}

// TestI9QueueFormulasMeetSimulation: R = 0.6 within 1 %, as the published check; R = 0.9 mixes slowly in the single queue.
func TestI9QueueFormulasMeetSimulation(t *testing.T) {
	const second = time.Second
	for _, tc := range []struct {
		name         string
		stages       []time.Duration
		rate         float64
		formula      float64
		want, within float64
	}{
		{"single", []time.Duration{second}, 0.6, SingleTTFT(0.6, 1), 1.75, 0.01},
		{"single, busy", []time.Duration{second}, 0.9, SingleTTFT(0.9, 1), 5.5, 0.05},
		{"pipeline", []time.Duration{second / 2, second / 2}, 0.6, PipelineTTFT(0.6, 1), 1 + 0.6/5.6, 0.01},
		{"pipeline, busy", []time.Duration{second / 2, second / 2}, 0.9, PipelineTTFT(0.9, 1), 1.2045, 0.01},
		{"tensor", []time.Duration{second * 2 / 3}, 0.6, TensorTTFT(0.6, 1, 1.5), 8. / 9, 0.01},
		{"tensor, busy", []time.Duration{second * 2 / 3}, 0.9, TensorTTFT(0.9, 1, 1.5), 1.1667, 0.01},
	} {
		require.InEpsilon(t, tc.want, tc.formula, 1e-4, tc.name)
		require.InEpsilon(t, tc.formula, Simulate(tc.stages, tc.rate, 1_000_000, 1), tc.within, tc.name)
	}
	require.True(t, math.IsInf(SingleTTFT(1, 1), 1))
	require.True(t, math.IsInf(TensorTTFT(3, 1, 1.5), 1))
	require.Equal(t, SingleTTFT(0.4, 2), TensorTTFT(0.4, 2, 1))
}

// TestI19LiveCopyByHand: 100 tokens in blocks of 10, a block takes 1 s, a token 0.5 s.
func TestI19LiveCopyByHand(t *testing.T) {
	c := Copy{Tokens: 100, BlockTokens: 10, BlockBytes: 1000, BytesPerSec: 1000, TokenTime: time.Second / 2, TokensLeft: 1000, LastStageMost: 1,
		MostStages: 9, FreeAtTarget: 99, CommitOverhead: time.Millisecond}
	got, err := Live(c)
	require.NoError(t, err)
	// 10 blocks in 10 s make 20 tokens; 2 blocks in 2 s make 4 tokens, which is one block being written: sent standing still.
	require.Equal(t, []Stage{{10, 10 * time.Second}, {2, 2 * time.Second}, {1, time.Second}}, got.Stages)
	require.Equal(t, time.Second+time.Millisecond, got.Downtime)
	require.Equal(t, 13*time.Second+time.Millisecond, got.Total)
	require.Equal(t, 24, got.Made)
	require.EqualValues(t, 13000, got.Bytes)
	require.Empty(t, got.Aborted)
	part := c
	part.Tokens = 95 // the tenth block is being written: 9 blocks in 9 s, 18 tokens, 2 blocks in 2 s, 4 tokens, the rest
	half, err := Live(part)
	require.NoError(t, err)
	require.Equal(t, []Stage{{9, 9 * time.Second}, {2, 2 * time.Second}, {1, time.Second}}, half.Stages)
	require.Equal(t, 22, half.Made)
	for _, tc := range []struct {
		name   string
		change func(*Copy)
		want   string
	}{
		{"stages", func(c *Copy) { c.MostStages = 2 }, "1 blocks are left after 2 stages"},
		{"room", func(c *Copy) { c.FreeAtTarget = 12 }, "room for 12 blocks of 13"},
		{"end", func(c *Copy) { c.TokensLeft = 20 }, "ended first"},
		{"never catches up", func(c *Copy) { c.TokenTime = time.Second / 20 }, "after 9 stages"},
	} {
		bad := c
		bad.FreeAtTarget = 1 << 30
		bad.TokensLeft = 1 << 30
		tc.change(&bad)
		got, err := Live(bad)
		require.NoError(t, err)
		require.Contains(t, got.Aborted, tc.want, tc.name)
		require.Zero(t, got.Downtime)
	}
	_, err = Live(Copy{})
	require.ErrorContains(t, err, "above 0")
}

// TestI19LiveCopyMovesEveryBlockOnce: bytes moved are the blocks at the end times their size, and the downtime is that of
// the last stage, which is short.
func TestI19LiveCopyMovesEveryBlockOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 1))
	for range 500 {
		c := Copy{Tokens: 1 + r.IntN(3000), BlockTokens: 1 + r.IntN(32), BlockBytes: units.Bytes(1 + r.IntN(1<<20)), BytesPerSec: math.Exp(r.NormFloat64() + 18),
			TokenTime: time.Duration(1 + r.IntN(100_000_000)), TokensLeft: r.IntN(2000), LastStageMost: 1 + r.IntN(4), MostStages: 1 + r.IntN(9),
			FreeAtTarget: r.IntN(500)}
		got, err := Live(c)
		require.NoError(t, err)
		require.LessOrEqual(t, len(got.Stages), c.MostStages)
		sent := 0
		for _, s := range got.Stages {
			sent += s.Blocks
		}
		require.Equal(t, units.Bytes(sent)*c.BlockBytes, got.Bytes)
		if got.Aborted == "" {
			require.Equal(t, (c.Tokens+got.Made+c.BlockTokens-1)/c.BlockTokens, sent)
			last := got.Stages[len(got.Stages)-1]
			require.LessOrEqual(t, last.Blocks, c.LastStageMost)
			require.Equal(t, last.Duration, got.Downtime)
		}
	}
}
