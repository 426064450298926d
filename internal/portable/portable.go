// Package portable has elementary functions with the same bits on every machine.
//
// The one idea: IEEE 754 fixes +, -, ×, ÷ and √ to the last bit, and nothing
// else. Go's math.Exp and math.Log are assembly on some machines and not on
// others, and elsewhere the compiler may fuse x*y+z into one rounding (arm64, and
// amd64 at GOAMD64=v3). So math.Log(x) on amd64 and on arm64 differ in the last
// bit for some x, and a simulated schedule that hangs on it differs too. Here
// every product is rounded before it is added.
//
//	gap := -portable.Log(u) // the same nanosecond everywhere
//
// Results are within 2 ulp of the exact value (Pow: see there); the tests compare
// with math, and pin a digest that scripts/arm64 checks on arm64. Where bits do
// not matter, math is faster.
package portable

import "math"

// ln 2 in two parts: the high one ends in 32 zero bits, so that its product with
// a binary exponent is exact.
const (
	ln2Hi = 0x1.62e42feep-1
	ln2Lo = 0x1.a39ef35793c76p-33
)

// Exp is e to the x.
//
// With x = k ln 2 + r and |r| ≤ ln 2 / 2 it is 2^k times the Taylor sum of e^r
// to the 13th power, whose rest is below 5e-18.
func Exp(x float64) float64 {
	switch {
	case x != x || x > 0x1.62e42fefa39efp+9: // NaN, or over the largest number
		return x * math.Inf(1)
	case x < -0x1.74910d52d3052p+9: // under half the smallest
		return 0
	}
	k := math.Floor(float64(x*(1/math.Ln2)) + 0.5)
	r := x - float64(k*ln2Hi)
	r -= float64(k * ln2Lo)
	rr := float64(r * r)
	even := [...]float64{1, 1. / 2, 1. / 24, 1. / 720, 1. / 40320, 1. / 3628800, 1. / 479001600}
	odd := [...]float64{1, 1. / 6, 1. / 120, 1. / 5040, 1. / 362880, 1. / 39916800, 1. / 6227020800}
	e := float64(horner(rr, even[1:]) * rr) // e^r = 1 + (r + (r³/6 + …) + (r²/2 + …)), small parts first
	o := float64(horner(rr, odd[1:]) * rr)
	return math.Ldexp(1+(r+(float64(o*r)+e)), int(k))
}

// Log is the natural logarithm.
//
// With x = m 2^k, m within a factor √2 of 1 and s = (m-1)/(m+1), it is k ln 2 +
// 2 (s + s³/3 + s⁵/5 + …) to the 23rd power, whose rest is below 1e-18.
func Log(x float64) float64 {
	switch {
	case x != x || x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	case math.IsInf(x, 1):
		return x
	}
	m, exponent := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m *= 2
		exponent--
	}
	k, f := float64(exponent), m-1
	s := f / (m + 1)
	ss := float64(s * s)
	series := [...]float64{2. / 3, 2. / 5, 2. / 7, 2. / 9, 2. / 11, 2. / 13, 2. / 15, 2. / 17, 2. / 19, 2. / 21, 2. / 23}
	rest := float64(horner(ss, series[:]) * ss)
	// 2s = f - s f keeps the bits that the division lost
	small := float64(s*(rest-f)) + float64(k*ln2Lo)
	return float64(k*ln2Hi) + (f + small)
}

// Log1p is log(1 + x), exact for small x too (Kahan's correction of the rounding
// of 1 + x).
func Log1p(x float64) float64 {
	u := 1 + x
	switch {
	case u == 1:
		return x
	case math.IsInf(u, 1):
		return u
	}
	return float64(Log(u)*x) / (u - 1)
}

// Pow is x to the y for x ≥ 0, as Exp(y Log(x)): its relative error grows to
// about |y log x| ulp.
func Pow(x, y float64) float64 {
	switch {
	case y == 0 || x == 1:
		return 1
	case x == 0 && y > 0:
		return 0
	}
	return Exp(float64(y * Log(x)))
}

// CosTurns is the cosine of v whole turns, cos(2πv). Its zeros and extremes are
// exact, because the turns are reduced before π comes in.
func CosTurns(v float64) float64 {
	v = math.Abs(v)
	v -= math.Floor(v)
	if v > 0.5 {
		v = 1 - v
	}
	if v > 0.25 { // the second quarter is the first, upside down
		return -CosTurns(0.5 - v)
	}
	if v > 0.125 {
		return sinEighth(0.25 - v)
	}
	a := float64(v * (2 * math.Pi))
	aa := float64(a * a)
	series := [...]float64{-1. / 2, 1. / 24, -1. / 720, 1. / 40320, -1. / 3628800, 1. / 479001600, -1. / 87178291200, 1. / 20922789888000}
	return 1 + float64(horner(aa, series[:])*aa)
}

// sinEighth is sin(2πv) for 0 ≤ v ≤ 1/8.
func sinEighth(v float64) float64 {
	a := float64(v * (2 * math.Pi))
	aa := float64(a * a)
	series := [...]float64{-1. / 6, 1. / 120, -1. / 5040, 1. / 362880, -1. / 39916800, 1. / 6227020800, -1. / 1307674368000}
	return a + float64(float64(horner(aa, series[:])*aa)*a)
}

// horner is c[0] + c[1] x + c[2] x² + …, rounded after every step.
func horner(x float64, c []float64) float64 {
	sum := c[len(c)-1]
	for i := len(c) - 2; i >= 0; i-- {
		sum = float64(sum*x) + c[i]
	}
	return sum
}
