package reports

import (
	"math"
	"slices"
	"strconv"
)

// scale turns SI base units into what people read: a column has one unit, chosen
// by the median of its values.
type scale struct {
	unit string
	by   float64 // values are divided by it
	from float64 // smallest median that uses it
}

func timeScales() []scale {
	return []scale{{"s", 1, 10}, {"ms", 1e-3, 1e-4}, {"µs", 1e-6, 0}}
}
func byteScales() []scale {
	return []scale{{"GB", 1e9, 1e9}, {"MB", 1e6, 1e6}, {"kB", 1e3, 1e3}, {"B", 1, 0}}
}
func energyScales() []scale {
	return []scale{{"kJ", 1e3, 1e3}, {"J", 1, 0.1}, {"mJ", 1e-3, 1e-4}, {"µJ", 1e-6, 0}}
}

// choose picks the scale for a list of values; without any it is the second,
// the everyday one.
func choose(scales []scale, values []float64) scale {
	var known []float64
	for _, v := range values {
		if v > 0 && !math.IsInf(v, 0) {
			known = append(known, v)
		}
	}
	if len(known) == 0 {
		return scales[1]
	}
	slices.Sort(known)
	median := known[len(known)/2]
	for _, s := range scales {
		if median >= s.from {
			return s
		}
	}
	return scales[len(scales)-1]
}

// dash stands for a value that nobody knows.
const dash = "–"

// place is the power of ten of the last digit worth printing: two digits of the
// half width of the interval, three of the value without one, and never more
// than four of the value.
func place(s Stat) int {
	digit := func(v float64) int { return int(math.Floor(math.Log10(v))) }
	half := math.NaN()
	switch {
	case !math.IsNaN(s.Lo) && !math.IsNaN(s.Hi):
		half = (s.Hi - s.Lo) / 2
	case !math.IsNaN(s.Lo):
		half = s.V - s.Lo
	case !math.IsNaN(s.Hi):
		half = s.Hi - s.V
	}
	v := math.Abs(s.V)
	p := math.MinInt
	if v > 0 {
		p = digit(v) - 2
	}
	if half > 0 {
		p = digit(half) - 1
		if v > 0 {
			p = max(p, digit(v)-3)
		}
	}
	if p == math.MinInt {
		return 0
	}
	return p
}

// number prints v rounded to a power of ten.
func number(v float64, place int) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return dash
	}
	if v == 0 {
		return "0"
	}
	if place > 0 {
		unit := math.Pow10(place)
		return strconv.FormatFloat(math.Round(v/unit)*unit, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', min(-place, 12), 64)
}

// texts prints an estimate and its interval in a unit: "412", "[398, 431]".
func (s Stat) texts(by float64) (value, interval string) {
	if math.IsNaN(s.V) {
		return dash, ""
	}
	s.V, s.Lo, s.Hi = s.V/by, s.Lo/by, s.Hi/by
	at := place(s)
	value = number(s.V, at)
	if !math.IsNaN(s.Lo) || !math.IsNaN(s.Hi) {
		interval = "[" + number(s.Lo, at) + ", " + number(s.Hi, at) + "]"
	}
	return value, interval
}

// String is the estimate with its interval, in the unit it is in.
func (s Stat) String() string {
	v, i := s.texts(1)
	if i != "" {
		v += " " + i
	}
	return v
}

// brief prints three significant digits.
func brief(v float64) string { return number(v, place(bare(v))) }

// seconds prints a time in its own unit: "412 ms".
func seconds(v float64) string {
	sc := choose(timeScales(), []float64{v})
	return brief(v/sc.by) + " " + sc.unit
}

// percent prints a share; only all is 100 % and only none is 0 %.
func percent(v float64) string {
	switch p := 100 * v; {
	case math.IsNaN(v):
		return dash
	case p > 99.9 && p < 100:
		return ">99.9 %"
	case p > 0 && p < 0.1:
		return "<0.1 %"
	case p == math.Trunc(p):
		return strconv.FormatFloat(p, 'f', 0, 64) + " %"
	default:
		return strconv.FormatFloat(p, 'f', 1, 64) + " %"
	}
}
