// Package handover answers what to do with the key/value cache of a request that moves: compute it again at the target,
// send it, or both at once; copy it while decoding goes on; and when a cached prefix is worth fetching. It also holds the
// queueing formulas of disaggregated prefill, with a small simulation that checks them.
//
// All of it is plain arithmetic without state: pipelines ask and then act.
//
//	u := handover.User{Tokens: 4096, PrefillTokensPerSec: 2500, KVBytesPerToken: 131000}
//	plan, _ := handover.Share([]handover.User{u}, 10e9/8)
//	fmt.Println(plan.Delay, plan.Prefill[0]) // the first tokens are computed while the cache of the rest is on its way
//
// Costs are linear: no start-up of prefill, no propagation delay; add those outside. Rates are bytes per second, never bits.
package handover

import (
	"fmt"
	"math"
	"time"

	"meibench/internal/units"
)

// KVBytes is the size of the cache of tokens in layers of width dim, where kvShare query heads share one key/value head,
// keys and values together.
func KVBytes(layers, dim, kvShare, tokens, bytesPerElement int) units.Bytes {
	return units.Bytes(2 * layers * (dim / kvShare) * tokens * bytesPerElement)
}

// User is a request whose context of Tokens moves. The cache of token t needs the tokens before it only, so the target may
// compute the first tokens while the cache of the others arrives.
type User struct {
	Tokens              int
	PrefillTokensPerSec float64 // at the target, for this user
	KVBytesPerToken     int
}

// Recompute is the delay if the target computes everything.
func (u User) Recompute() time.Duration {
	return units.Seconds(float64(u.Tokens) / u.PrefillTokensPerSec)
}

// Transfer is the delay if everything is sent.
func (u User) Transfer(bytesPerSec float64) time.Duration {
	return units.TransferTime(units.Bytes(u.Tokens*u.KVBytesPerToken), bytesPerSec)
}

// Joint is the best split for one user in closed form, with tokens as a real number: of T_tok to compute and T_kv to send
// everything,
//
//	n* = S·T_kv/(T_tok+T_kv),  T* = T_tok·T_kv/(T_tok+T_kv)
//
// so T* lies between half the smaller of both and that. Source: arXiv 2603.28018 (joint handover), single user, linear costs.
func (u User) Joint(bytesPerSec float64) (prefillTokens, delaySec float64) {
	compute := float64(u.Tokens) / u.PrefillTokensPerSec
	send := float64(u.Tokens) * float64(u.KVBytesPerToken) / bytesPerSec
	if compute+send == 0 {
		return 0, 0
	}
	return float64(u.Tokens) * send / (compute + send), compute * send / (compute + send)
}

// Plan is a joint handover of several users over one link.
type Plan struct {
	Delay       time.Duration // of the slowest user
	Prefill     []int         // first tokens that the target computes, per user; the cache of the others is sent
	BytesPerSec []float64     // of the link, per user; their sum is at most the link's
}

// Share finds the split of every user and the shares of the link that make the slowest user's handover as short as can be:
// by bisection on the delay in whole nanoseconds. A delay is feasible if, with as many tokens computed as fit into it, the
// rest of all users fits the link; that only gets easier with time, so the result is the optimum in whole tokens.
func Share(users []User, bytesPerSec float64) (Plan, error) {
	if !(bytesPerSec > 0) || math.IsInf(bytesPerSec, 0) {
		return Plan{}, fmt.Errorf("plan handover: a link of %g bytes per second: want above 0 and finite", bytesPerSec)
	}
	high := time.Duration(0)
	for i, u := range users {
		if u.Tokens < 0 || u.KVBytesPerToken < 1 || !(u.PrefillTokensPerSec > 0) || math.IsInf(u.PrefillTokensPerSec, 0) {
			return Plan{}, fmt.Errorf("plan handover: user %d has %d tokens of %d bytes and prefills %g tokens per second: want at least 0, at least 1, above 0",
				i, u.Tokens, u.KVBytesPerToken, u.PrefillTokensPerSec)
		}
		high = max(high, u.Recompute())
	}
	low := time.Duration(-1) // not feasible, or below all
	for high-low > 1 {
		if mid := low + (high-low)/2; feasible(users, bytesPerSec, mid) {
			high = mid
		} else {
			low = mid
		}
	}
	plan := Plan{Delay: high}
	for _, u := range users {
		n, rate := u.prefilled(high), 0.0
		if left := u.Tokens - n; left > 0 {
			rate = float64(left*u.KVBytesPerToken) / high.Seconds()
		}
		plan.Prefill, plan.BytesPerSec = append(plan.Prefill, n), append(plan.BytesPerSec, rate)
	}
	return plan, nil
}

// prefilled is how many tokens the target computes in a time.
func (u User) prefilled(d time.Duration) int {
	if d >= u.Recompute() {
		return u.Tokens
	}
	return int(min(float64(u.Tokens), math.Floor(u.PrefillTokensPerSec*d.Seconds())))
}

func feasible(users []User, bytesPerSec float64, d time.Duration) bool {
	left := 0
	for _, u := range users {
		left += (u.Tokens - u.prefilled(d)) * u.KVBytesPerToken
	}
	return units.TransferTime(units.Bytes(left), bytesPerSec) <= d
}

// Copy describes a live migration: a cache is copied in stages while the source goes on decoding.
type Copy struct {
	Tokens         int           // in the cache when it begins
	BlockTokens    int           // tokens of a block, 16 for instance
	BlockBytes     units.Bytes   // of all layers
	BytesPerSec    float64       // of the link
	TokenTime      time.Duration // the source needs for the next token
	TokensLeft     int           // that the request will still make
	LastStageMost  int           // blocks that may be sent while the request stands still
	MostStages     int           // give up beyond these
	FreeAtTarget   int           // blocks
	CommitOverhead time.Duration // of the hand-over itself, after the last stage
}

// Stage is one part of a live copy.
type Stage struct {
	Blocks   int
	Duration time.Duration
}

// Copied is the outcome of a live copy.
type Copied struct {
	Stages   []Stage       // the last one stands still, unless Aborted
	Downtime time.Duration // no token is made: last stage and commit
	Total    time.Duration
	Bytes    units.Bytes // on the link
	Made     int         // tokens made meanwhile by the source
	Aborted  string      // why it was given up, or ""
}

// Live plays a live copy: every stage sends all blocks that are full and not yet sent, while decoding fills more; once at most
// LastStageMost are left, the one being written included, the request stops, the rest is sent, and the target goes on. It
// is given up if the stages are too many, if the target has no room, or if the request ends first. Source: Llumnix (Sun et
// al. 2024). No block is sent twice: the one being written waits for the last stage.
func Live(c Copy) (Copied, error) {
	if c.Tokens < 1 || c.BlockTokens < 1 || c.BlockBytes < 1 || !(c.BytesPerSec > 0) || c.TokenTime < 1 || c.LastStageMost < 1 || c.MostStages < 1 {
		return Copied{}, fmt.Errorf("plan live copy: %d tokens in blocks of %d (%d bytes) at %g bytes per second, a token in %v, last stage %d, at most %d stages: all must be above 0",
			c.Tokens, c.BlockTokens, c.BlockBytes, c.BytesPerSec, c.TokenTime, c.LastStageMost, c.MostStages)
	}
	var out Copied
	sent := 0
	for {
		tokens := c.Tokens + out.Made
		blocks := (tokens + c.BlockTokens - 1) / c.BlockTokens
		stage := Stage{Blocks: tokens/c.BlockTokens - sent}
		last := blocks-sent <= c.LastStageMost
		switch {
		case blocks > c.FreeAtTarget:
			out.Aborted = fmt.Sprintf("the target has room for %d blocks of %d", c.FreeAtTarget, blocks)
			return out, nil
		case len(out.Stages) == c.MostStages:
			out.Aborted = fmt.Sprintf("%d blocks are left after %d stages", blocks-sent, c.MostStages)
			return out, nil
		case last:
			stage.Blocks = blocks - sent
		}
		stage.Duration = units.TransferTime(units.Bytes(stage.Blocks)*c.BlockBytes, c.BytesPerSec)
		sent += stage.Blocks
		out.Stages = append(out.Stages, stage)
		out.Bytes += units.Bytes(stage.Blocks) * c.BlockBytes
		out.Total += stage.Duration
		if last {
			out.Total += c.CommitOverhead
			out.Downtime = stage.Duration + c.CommitOverhead
			return out, nil
		}
		if out.Made = int(out.Total / c.TokenTime); out.Made >= c.TokensLeft {
			out.Made, out.Aborted = c.TokensLeft, "the request ended first"
			return out, nil
		}
	}
}

// Prefix describes a model for [Prefix.BreakEven].
type Prefix struct {
	Dim             int     // d
	KVShare         int     // query heads that share a key/value head
	BytesPerElement int     // of the cache
	A, B            float64 // FLOP of a layer for p tokens are A·p²·d + B·p·d²
}

// BreakEven is the bandwidth, in bytes per second, from which on a cached prefix of p tokens is fetched sooner than a
// machine of flops FLOP per second computes it again:
//
//	B/G > 2·d·s / (gqa·(a·p·d + b·d²))
//
// Source: Qin et al. 2025 (Mooncake, FAST), section on the value of reuse.
func (m Prefix) BreakEven(p int, flops float64) float64 {
	d := float64(m.Dim)
	return flops * 2 * d * float64(m.BytesPerElement) / (float64(m.KVShare) * (m.A*float64(p)*d + m.B*d*d))
}

// MooncakeExample is LLaMA3-70B as that paper sets it: d = 8192, 8 query heads a key/value head, 2 bytes, a = 4, b = 22. Its
// figures follow with prefixes of 8192 tokens.
func MooncakeExample() Prefix {
	return Prefix{Dim: 8192, KVShare: 8, BytesPerElement: 2, A: 4, B: 22}
}

// SingleTTFT is the mean time to first token of one prefill server, requests coming at random at rate per second, each
// taking service seconds: D + R·D²/(2(1-R·D)), the M/D/1 queue. +Inf at and beyond full load. Source: Zhong et al. 2024
// (DistServe), equation 1.
func SingleTTFT(rate, service float64) float64 {
	return waiting(rate, service, service, 2*(1-rate*service))
}

// PipelineTTFT is that of two stages of half the service each: D + R·D²/(4(2-R·D)). Source: DistServe, equation 2.
func PipelineTTFT(rate, service float64) float64 {
	return waiting(rate, service, service, 4*(2-rate*service))
}

// TensorTTFT is that of tensor parallelism that speeds a request up by k: D/k + R·D²/(2k(k-R·D)). Source: DistServe, equation 3.
func TensorTTFT(rate, service, k float64) float64 {
	return waiting(rate, service, service/k, 2*k*(k-rate*service))
}

func waiting(rate, service, alone, divisor float64) float64 {
	if divisor <= 0 {
		return math.Inf(1)
	}
	return alone + float64(rate*service)*service/divisor
}

// Example is the request of the worked example: 4096 tokens of 0.131 MB, computed at 2500 a second, and
// ExampleBytesPerSec its link of 10 Gbit/s.
func Example() User { return User{Tokens: 4096, PrefillTokensPerSec: 2500, KVBytesPerToken: 131000} }

// ExampleBytesPerSec is described at [Example].
const ExampleBytesPerSec = 10e9 / 8
