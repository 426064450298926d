// Package rng gives every use of chance a name.
//
// Luck is keyed, not drawn in order. Stream returns a ChaCha8 generator whose
// key is the SHA-256 of a seed and a list of names, so that a stream depends
// on nothing but its name: one more consumer shifts nobody else's draws.
//
//	r := rng.Stream(seed, "arrivals", cell.Name)
//
// For draws per request there is Luck, a counter-based generator that costs a
// few nanoseconds and no allocation: the same request meets the same luck under
// every pipeline (common random numbers).
//
//	key := rng.NewKey(seed, "length", cell.Name)
//	u := key.At(uint64(req.ID)).Float64()
//
// The transforms (Exp, Normal, LogNormal, Gamma, Weibull) are our own so that
// amd64 and arm64 make the same schedule bit for bit: products that feed a sum
// are rounded explicitly, because Go may fuse them on some machines, and
// logarithms and the like come from internal/portable, because Go's own are
// assembly on some machines only.
package rng

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"meibench/internal/portable"
)

// Source is what the transforms draw from: *rand.Rand and *Luck both fit.
type Source interface{ Uint64() uint64 }

// Stream returns the generator named by seed and names. Names may be strings
// and integers; their types and lengths are part of the key, so ("ab","c") and
// ("a","bc") differ. Any other type panics.
func Stream(seed uint64, names ...any) *rand.Rand {
	return rand.New(rand.NewChaCha8(digest(seed, names)))
}

func digest(seed uint64, names []any) [32]byte {
	h := sha256.New()
	var b [9]byte
	put := func(tag byte, v uint64) {
		b[0] = tag
		binary.LittleEndian.PutUint64(b[1:], v)
		h.Write(b[:])
	}
	put('s', seed)
	for _, n := range names {
		switch v := n.(type) {
		case string:
			put('t', uint64(len(v)))
			h.Write([]byte(v))
		case int:
			put('i', uint64(v))
		case int64:
			put('i', uint64(v))
		case uint64:
			put('i', v)
		default:
			panic(fmt.Sprintf("rng: a stream name must be a string or an integer, got %T", n))
		}
	}
	return [32]byte(h.Sum(nil))
}

// Key is the name of a family of draws, one per counter.
type Key struct{ a, b uint64 }

// NewKey hashes a seed and names as Stream does.
func NewKey(seed uint64, names ...any) Key {
	d := digest(seed, names)
	return Key{binary.LittleEndian.Uint64(d[:]), binary.LittleEndian.Uint64(d[8:])}
}

// At is the luck of counter n: a fresh generator that depends on the key and n only.
func (k Key) At(n uint64) Luck {
	return Luck{mix(k.a^mix(n+0x9e3779b97f4a7c15)) ^ k.b}
}

// Luck is a SplitMix64 generator (Steele, Lea, Flood 2014) on the stack.
type Luck struct{ s uint64 }

// Uint64 returns 64 uniform bits.
func (l *Luck) Uint64() uint64 {
	l.s += 0x9e3779b97f4a7c15
	return mix(l.s)
}

// Float64 is uniform on [0, 1).
func (l *Luck) Float64() float64 { return Float64(l) }

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Float64 draws uniformly from [0, 1) with 53 bits.
func Float64(r Source) float64 { return float64(r.Uint64()>>11) * 0x1p-53 }

// open draws uniformly from (0, 1], safe to take the logarithm of.
func open(r Source) float64 { return float64(r.Uint64()>>11+1) * 0x1p-53 }

// Exp draws an exponential variate with mean 1.
func Exp(r Source) float64 { return -portable.Log(open(r)) }

// Normal draws a standard normal variate by Box and Muller's cosine branch
// (one variate from two draws, so that a draw count never depends on a value).
func Normal(r Source) float64 {
	u, v := open(r), Float64(r)
	return float64(math.Sqrt(float64(-2*portable.Log(u))) * portable.CosTurns(v))
}

// LogNormal draws exp(mu + sigma Z).
func LogNormal(r Source, mu, sigma float64) float64 {
	return portable.Exp(mu + float64(sigma*Normal(r)))
}

// Weibull draws a Weibull variate of the given shape and scale 1.
func Weibull(r Source, shape float64) float64 { return portable.Pow(Exp(r), 1/shape) }

// Gamma draws a gamma variate of the given shape and scale 1 after Marsaglia
// and Tsang (2000); shapes under 1 are boosted by a power of a uniform.
func Gamma(r Source, shape float64) float64 {
	if shape <= 0 || math.IsNaN(shape) {
		panic("rng: gamma shape must be positive")
	}
	boost := 1.0
	if shape < 1 {
		boost = portable.Pow(open(r), 1/shape)
		shape++
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(float64(9*d))
	for {
		x := Normal(r)
		v := 1 + float64(c*x)
		if v <= 0 {
			continue
		}
		v = float64(float64(v*v) * v)
		half := float64(0.5 * float64(x*x))
		if portable.Log(open(r)) < half+d-float64(d*v)+float64(d*portable.Log(v)) {
			return float64(float64(d*v) * boost)
		}
	}
}
