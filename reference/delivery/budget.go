package delivery

import (
	"time"

	"meibench/internal/units"
)

// Budget is a download that has to be done within a time.
type Budget struct {
	Name    string
	Bytes   units.Bytes
	Rate    float64 // bytes per second that the source asks of the network
	Within  time.Duration
	Source  string
	Assumed string // what of it is worked out by us and not printed there; "" = nothing
}

// Budgets are the model downloads of 3GPP (checklist C10), by name.
func Budgets() []Budget {
	const source = "3GPP TS 22.261 v20.1.0, 7.10.1, downloads of models"
	return []Budget{
		{Name: "image recognition", Bytes: 138_000_000, Rate: 1.1e9 / 8, Within: time.Second, Source: source},
		{Name: "speech recognition", Bytes: 80_000_000, Rate: 640e6 / 8, Within: time.Second, Source: source},
		{Name: "third row", Bytes: 64_000_000, Rate: 512e6 / 8, Within: time.Second, Source: source, Assumed: "the size, from rate and time"},
	}
}

// Met reports whether so many bytes in that time are a download that keeps to the budget: no longer than its time, where a
// larger model gets no more time. Times are compared to three digits, as sources print them.
func (b Budget) Met(bytes units.Bytes, took time.Duration) bool {
	return bytes >= b.Bytes && took.Round(b.Within/100) <= b.Within
}

// Share is the share of downloads, in [0, 1], that take at most the budget's time, whatever their size; 0 without any.
func (b Budget) Share(took []time.Duration) float64 {
	n := 0
	for _, t := range took {
		if t.Round(b.Within/100) <= b.Within {
			n++
		}
	}
	return float64(n) / float64(max(1, len(took)))
}
