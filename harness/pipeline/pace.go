package pipeline

import (
	"math"
	"time"

	"meibench/reference/spec"
)

// pace is what rounds have taken so far, for the choice of gamma.
type pace struct {
	draft, trip     time.Duration // of one draft, of one judgement with its way there and back
	drafts, accepts int           // positions judged, and accepted
}

func (a *pace) drafted(took time.Duration) { mix(&a.draft, took) }

func (a *pace) judged(drafts, accepted int, took time.Duration) {
	if drafts > 0 {
		mix(&a.trip, took)
		a.drafts += min(accepted+1, drafts)
		a.accepts += accepted
	}
}

// mix is a moving average.
func mix(old *time.Duration, now time.Duration) {
	if *old == 0 {
		*old = now
	}
	*old += (now - *old) / 8
}

// gamma maximises tokens per second by the closed form (Leviathan et al. 2023,
// with the round trip beside the verification); 4 before anything is known.
func (a *pace) gamma(most int) int {
	if a.drafts < 8 || a.draft == 0 {
		return min(4, most)
	}
	law := spec.Law{Alpha: float64(a.accepts) / float64(a.drafts), DraftSec: a.draft.Seconds(), VerifySec: a.trip.Seconds()}
	return max(1, law.BestGamma(most))
}

// bitsOf and floatsOf take numbers over a wire of 32-bit words; nil stays nil.
func bitsOf(x []float32) (bits []int32) {
	for _, v := range x {
		bits = append(bits, int32(math.Float32bits(v)))
	}
	return bits
}

func floatsOf(bits []int32) (x []float32) {
	for _, b := range bits {
		x = append(x, math.Float32frombits(uint32(b)))
	}
	return x
}
