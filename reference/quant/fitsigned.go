package quant

import "math"

// Q6_K's half of fit.go: scales of either sign, integers -32 to 31, no offset.

// signedStarts are the integers that the extreme weight of a sub-block starts from.
var signedStarts = [...]float32{-34, -33, -32, -31, -30, -29, 30, 31, 32}

const (
	signedLow    = 32 // integers are stored with this added
	signedTop    = 63
	signedRounds = 2
)

// sumSigned rounds x to scale and returns Σwqx and Σwq².
func sumSigned(x, w []float32, scale float32) (qx, qq float32) {
	inverse := 1 / scale
	w = w[:len(x)]
	for i, v := range x {
		q := float32(clampRound(float32(v*inverse)+signedLow, signedTop)) - signedLow
		wq := float32(w[i] * q)
		qq += float32(wq * q)
		qx += float32(wq * v)
	}
	return qx, qq
}

// fitScale finds the scale of a sub-block.
func fitScale(x, w []float32) (best float32) {
	m := extreme(x)
	if max(m, -m) < 1e-12 { // no half holds the scale
		return 0
	}
	gain := float32(0) // the part of Σwx² that the scale explains
	for _, start := range signedStarts {
		scale := m / start
		for range signedRounds {
			qx, qq := sumSigned(x, w, scale)
			if qq == 0 {
				break
			}
			scale = qx / qq
			if scale == 0 {
				break
			}
			if g := scale * qx; g > gain {
				best, gain = scale, g
			}
		}
	}
	return best
}

// signed is a super-block of sixteen scales that are integers times a half.
type signed struct {
	d  float32 // as a half holds it
	sc [16]int8
	q  [256]uint8 // with 32 added
	w  [256]float32
}

// squares is the weighted sum of squares that sub-block j leaves.
func (s *signed) squares(j int, x []float32) (left float32) {
	scale := s.d * float32(s.sc[j])
	inverse := float32(0)
	if scale != 0 {
		inverse = 1 / scale
	}
	w := s.w[16*j : 16*j+16]
	for i, v := range x[:16] {
		q := float32(clampRound(float32(v*inverse)+signedLow, signedTop)) - signedLow
		e := float32(scale*q) - v
		left += float32(float32(e*e) * w[i])
	}
	return left
}

// fit fits 256 weights. The scale of largest magnitude becomes -128, so d may be negative.
func (s *signed) fit(x []float32) {
	var scales [16]float32
	for j := range scales {
		importance(s.w[16*j:16*j+16], x[16*j:16*j+16])
		scales[j] = fitScale(x[16*j:16*j+16], s.w[16*j:])
	}
	s.d = F16ToF32(F32ToF16(extreme(scales[:]) / -128))
	left := s.roundScales(x, &scales)
	before := *s
	if !s.refit(x) {
		return
	}
	var again float32
	for j := range 16 {
		again += s.squares(j, x[16*j:16*j+16])
	}
	if again > left {
		*s = before
		return
	}
	s.roundWeights(x)
}

// roundScales chooses the integer scales, rounds the weights, and returns the squares left.
func (s *signed) roundScales(x []float32, scales *[16]float32) (left float32) {
	for j, scale := range scales {
		down := 0.0
		if s.d != 0 {
			down = math.Floor(float64(scale / s.d))
		}
		least := float32(math.MaxFloat32)
		var best int8
		for up := range 2 {
			s.sc[j] = int8(max(-128, min(127, down+float64(up))))
			if e := s.squares(j, x[16*j:16*j+16]); e < least {
				best, least = s.sc[j], e
			}
		}
		s.sc[j] = best
		left += least
	}
	s.roundWeights(x)
	return left
}

func (s *signed) roundWeights(x []float32) {
	for i := range s.q {
		s.q[i] = signedLow
	}
	for j, sc := range s.sc {
		scale := s.d * float32(sc)
		if scale == 0 {
			continue
		}
		inverse := 1 / scale
		for i, v := range x[16*j : 16*j+16] {
			s.q[16*j+i] = clampRound(float32(v*inverse)+signedLow, signedTop)
		}
	}
}

// refit solves for d with all integers held, and reports whether it changed.
func (s *signed) refit(x []float32) bool {
	var ax, aa float64
	for j, sc := range s.sc {
		for i, v := range x[16*j : 16*j+16] {
			a := float64(sc) * float64(int(s.q[16*j+i])-signedLow)
			wa := float64(a * float64(s.w[16*j+i]))
			ax += float64(wa * float64(v))
			aa += float64(wa * a)
		}
	}
	if aa == 0 || math.Abs(ax/aa) > mostF16 {
		return false
	}
	was := s.d
	s.d = F16ToF32(F32ToF16(float32(ax / aa)))
	return s.d != 0 && s.d != was
}
