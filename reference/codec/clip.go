package codec

import (
	"math"

	"meibench/internal/portable"
)

// The factors for 0 to 8 bits (0 and 1 are not used), computed once.
var (
	gaussFactors   = factors(func(a float64) float64 { return 4 * (density(a) - float64(a*portable.NormalCDF(-a))) })
	laplaceFactors = factors(func(a float64) float64 { return 2 * portable.Exp(-a) })
)

// ClipFactor is where to cut a law's tails so that the expected square error of an integer of that many bits is least, in
// units of the law's spread: the standard deviation for Gauss, the mean distance from the mean for Laplace. bits is 2 to 8.
//
// The error is that of cutting, twice the integral of (x-a)² over the tail, plus that of rounding, (2a/2^bits)²/12 (Banner et al.
// 2018, eq. 3 and 8). The factor is the zero of its derivative; for Laplace that is a e^a = 3 · 4^bits.
func ClipFactor(law Clip, bits int) float64 {
	switch law {
	case Gauss:
		return gaussFactors[bits]
	case Laplace:
		return laplaceFactors[bits]
	}
	return math.Inf(1)
}

// factors solves gain(a) = 2a / (3 · 4^bits) by bisection; gain, what a wider range saves of the tails, falls with a.
func factors(gain func(a float64) float64) (out [9]float64) {
	for bits := range out {
		slope := 2 / (3 * float64(uint64(1)<<(2*bits)))
		lo, hi := 0.0, 64.0
		for range 60 {
			if a := (lo + hi) / 2; gain(a) > float64(slope*a) {
				lo = a
			} else {
				hi = a
			}
		}
		out[bits] = lo
	}
	return out
}

func density(a float64) float64 {
	return portable.Exp(-float64(a*a)/2) / math.Sqrt(2*math.Pi)
}
