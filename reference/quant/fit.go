package quant

import "math"

// How Q4_K, Q5_K and Q6_K are fitted.
//
// What is minimised is Σ w·(x - x̂)² over a super-block with w = |x| + √(mean x² of the sub-block). Were the activations of
// equal variance and nothing else known, w = 1 would be right; but in trained layers large weights tend to meet large
// activations, so an error on them costs more. Note: w = 1 was tried. Its plain error is about one percent smaller still,
// but that of the large weights, by which heavy-tailed layers live, up to a half larger.
//
// Given the integers, scale and offset are a linear least-squares problem with a closed form; given scale and offset,
// the integers are a rounding. A sub-block alternates the two, which never raises the error, from several starts, since
// it ends in a local minimum. Then the scales themselves are rounded to integers: for each sub-block the four ways to
// round scale and offset up or down are tried on the weights. Last, the two halves of the super-block are fitted once
// more with all integers held. Every product is rounded on its own, so that all processors make the same bytes.

// line is x̂ = scale·q - low for integers q, with the sums that its fit needs.
type line struct{ scale, low float32 }

// sums of the integers of a sub-block against its weights, each times w.
type sums struct {
	q, qq, qx float32
}

// round writes the integers of x on a line, 0 to top.
func (l line) round(q []uint8, x []float32, top float32) {
	inverse := 1 / l.scale
	q = q[:len(x)]
	for i, v := range x {
		q[i] = clampRound(float32((v+l.low)*inverse), top)
	}
}

// clampRound is the nearest integer from 0 to top. It never converts a float that an integer cannot hold, which
// processors do differently.
func clampRound(v, top float32) uint8 {
	if v >= top {
		return uint8(top)
	}
	if v > 0 {
		return uint8(int32(v + 0.5))
	}
	return 0
}

// sum rounds x on a line, none of whose weights is far beyond top, and returns the sums, without keeping the integers.
func (l line) sum(x, w []float32, top float32) (s sums) {
	inverse, most := 1/l.scale, int32(top)
	w = w[:len(x)]
	for i, v := range x {
		q := float32(max(0, min(most, int32(float32((v+l.low)*inverse)+0.5))))
		wq := float32(w[i] * q)
		s.q += wq
		s.qq += float32(wq * q)
		s.qx += float32(wq * v)
	}
	return s
}

// total of w, w·x and w·x².
type total struct{ n, x, xx float32 }

func totalOf(x, w []float32) (t total) {
	for i, v := range x {
		t.n += w[i]
		t.x += float32(w[i] * v)
		t.xx += float32(float32(w[i]*v) * v)
	}
	return t
}

// importance writes w for a sub-block.
func importance(w, x []float32) {
	var xx float32
	for _, v := range x {
		xx += float32(v * v)
	}
	rms := float32(math.Sqrt(float64(xx) / float64(len(x))))
	for i, v := range x {
		w[i] = rms + max(v, -v)
	}
}

// fit is the least-squares line through integers and weights, with low >= 0, and the sum of squares that it leaves.
func (t total) fit(s sums) (l line, left float32) {
	n, x, q, qq, qx := float64(t.n), float64(t.x), float64(s.q), float64(s.qq), float64(s.qx)
	if qq == 0 {
		return line{}, t.xx
	}
	det := float64(n*qq) - float64(q*q)
	scale, low := qx/qq, 0.0
	if det > 0 {
		if free := (float64(q*qx) - float64(qq*x)) / det; free > 0 {
			low = free
			scale = (float64(n*qx) - float64(q*x)) / det
		}
	}
	// Σw(x - scale·q + low)², multiplied out; at the minimum it is Σwx² - scale·Σwqx + low·Σwx.
	err := float64(t.xx) - float64(scale*qx) + float64(low*x)
	return line{float32(scale), float32(low)}, float32(err)
}

// lineStarts are the widths, as steps more than top between the extremes, from which the alternation starts.
var lineStarts = [...]float32{-3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5}

const lineRounds = 2

// fitLine finds scale and low of a sub-block for integers 0 to top.
func fitLine(x, w []float32, top float32) line {
	lowest, highest := float32(0), x[0]
	for _, v := range x {
		lowest, highest = min(lowest, v), max(highest, v)
	}
	width := highest - lowest
	best := line{0, -lowest}
	if width < 1e-12 { // no half holds the scale
		return best
	}
	t := totalOf(x, w)
	least := float32(math.MaxFloat32)
	for _, more := range lineStarts {
		l := line{width / (top + more), -lowest}
		for range lineRounds {
			next, left := t.fit(l.sum(x, w, top))
			if !(next.scale > width/1024) { // never seen, but a line through noise could be flat
				break
			}
			if left < least {
				best, least = next, left
			}
			if next == l {
				break
			}
			l = next
		}
	}
	return best
}

// squares is the weighted sum of squares that a line leaves of x.
func (l line) squares(x, w []float32, top float32) (left float32) {
	inverse := float32(0)
	if l.scale > 0 {
		inverse = 1 / l.scale
	}
	w = w[:len(x)]
	for i, v := range x {
		q := clampRound(float32((v+l.low)*inverse), top)
		e := float32(l.scale*float32(q)) - l.low - v
		left += float32(float32(e*e) * w[i])
	}
	return left
}

// affine is a super-block of eight lines whose scales and lows are integers times two halves.
type affine struct {
	d, dmin float32 // as halves hold them
	sc, mn  [8]uint8
	q       [256]uint8
	w       [256]float32
}

// fitAffine fits 256 weights with integers 0 to top.
func (a *affine) fitAffine(x []float32, top float32) {
	var lines [8]line
	var scale, low float32
	for j := range lines {
		importance(a.w[32*j:32*j+32], x[32*j:32*j+32])
		lines[j] = fitLine(x[32*j:32*j+32], a.w[32*j:], top)
		scale, low = max(scale, lines[j].scale), max(low, lines[j].low)
	}
	a.d, a.dmin = F16ToF32(F32ToF16(scale/63)), F16ToF32(F32ToF16(low/63))
	left := a.roundScales(x, &lines, top)
	before := *a
	if !a.refit(x) {
		return
	}
	var again float32
	for j := range lines {
		again += a.line(j).squares(x[32*j:32*j+32], a.w[32*j:], top)
	}
	if again > left {
		*a = before
		return
	}
	a.roundWeights(x, top)
}

// line is what sub-block j decodes with.
func (a *affine) line(j int) line {
	return line{a.d * float32(a.sc[j]), a.dmin * float32(a.mn[j])}
}

// roundScales chooses the integer scales and lows, rounds the weights, and returns the squares left.
func (a *affine) roundScales(x []float32, lines *[8]line, top float32) (left float32) {
	for j, l := range lines {
		part := x[32*j : 32*j+32]
		sc, mn := ratio(l.scale, a.d), ratio(l.low, a.dmin)
		least := float32(math.MaxFloat32)
		var bestSc, bestMn uint8
		for c := range 4 {
			a.sc[j], a.mn[j] = min(63, sc+uint8(c&1)), min(63, mn+uint8(c>>1))
			if e := a.line(j).squares(part, a.w[32*j:], top); e < least {
				least, bestSc, bestMn = e, a.sc[j], a.mn[j]
			}
		}
		a.sc[j], a.mn[j] = bestSc, bestMn
		left += least
	}
	a.roundWeights(x, top)
	return left
}

// ratio is a/b rounded down to 0..63.
func ratio(a, b float32) uint8 {
	if b == 0 {
		return 0
	}
	return uint8(min(63, a/b))
}

func (a *affine) roundWeights(x []float32, top float32) {
	for j := range 8 {
		q := a.q[32*j : 32*j+32]
		if l := a.line(j); l.scale > 0 {
			l.round(q, x[32*j:32*j+32], top)
		} else {
			clear(q)
		}
	}
}

// refit solves for d and dmin with all integers held, and reports whether they changed.
func (a *affine) refit(x []float32) bool {
	var aa, ab, bb, ax, bx float64 // sums of w times products of A = sc·q, B = mn and x
	for j := range 8 {
		var s sums
		part, w := x[32*j:32*j+32], a.w[32*j:32*j+32]
		for i, q := range a.q[32*j : 32*j+32] {
			wq := float32(w[i] * float32(q))
			s.q += wq
			s.qq += float32(wq * float32(q))
			s.qx += float32(wq * part[i])
		}
		t := totalOf(part, w)
		sc, mn := float64(a.sc[j]), float64(a.mn[j])
		aa += float64(sc * sc * float64(s.qq))
		ab += float64(sc * mn * float64(s.q))
		bb += float64(mn * mn * float64(t.n))
		ax += float64(sc * float64(s.qx))
		bx += float64(mn * float64(t.x))
	}
	if aa == 0 {
		return false
	}
	d, dmin := ax/aa, 0.0
	if det := float64(aa*bb) - float64(ab*ab); det > 0 {
		if free := (float64(ab*ax) - float64(aa*bx)) / det; free > 0 {
			d, dmin = (float64(bb*ax)-float64(ab*bx))/det, free
		}
	}
	if !(d > 0) || d > mostF16 || dmin > mostF16 {
		return false
	}
	was := line{a.d, a.dmin}
	a.d, a.dmin = F16ToF32(F32ToF16(float32(d))), F16ToF32(F32ToF16(float32(dmin)))
	return line{a.d, a.dmin} != was
}
