// Package units holds the physical quantities that cross package borders as
// types of their own, so that bytes never meet joules in one sum.
//
// Time is always time.Duration (integer nanoseconds). Everything else is an SI
// base unit: bytes, joules, watts, floating-point operations, and per-second
// rates of them. Scaling to ms or MB happens only where a person reads.
//
//	t := units.Seconds(0.25)                       // 250ms
//	d := units.TransferTime(1500, 10*units.Mega/8) // 1.2ms
//
// The package does no formatting beyond Bytes.String; tables belong to reports.
package units

import (
	"fmt"
	"math"
	"time"
)

// Bytes is a size or an amount of traffic in bytes.
type Bytes int64

// Joules is an energy in joules.
type Joules float64

// Watts is a power in watts.
type Watts float64

// FLOP counts floating-point operations; one multiply-add is two.
type FLOP float64

// Decimal prefixes for rates and sizes.
const (
	Kilo = 1e3
	Mega = 1e6
	Giga = 1e9
	Tera = 1e12
)

// Binary multiples for memory sizes.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

// Seconds converts a float number of seconds to virtual time, rounding up to
// the next nanosecond, so that no modelled step is free. Negative and NaN
// inputs panic: they are always a broken model, never data.
func Seconds(s float64) time.Duration {
	if math.IsNaN(s) || s < 0 {
		panic(fmt.Sprintf("units: seconds must be non-negative, got %g", s))
	}
	ns := math.Ceil(s * 1e9)
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}

// TransferTime is how long n bytes take at a rate in bytes per second.
func TransferTime(n Bytes, bytesPerSec float64) time.Duration {
	return Seconds(float64(n) / bytesPerSec)
}

// Energy is a constant power over a time.
func Energy(p Watts, d time.Duration) Joules {
	return Joules(float64(p) * d.Seconds())
}

// String prints a size with a binary prefix and at most three digits.
func (b Bytes) String() string {
	for _, u := range []struct {
		n Bytes
		s string
	}{{GiB, "GiB"}, {MiB, "MiB"}, {KiB, "KiB"}} {
		if b >= u.n || b <= -u.n {
			return fmt.Sprintf("%.3g %s", float64(b)/float64(u.n), u.s)
		}
	}
	return fmt.Sprintf("%d B", int64(b))
}
