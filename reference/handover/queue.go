package handover

import (
	"time"

	"meibench/internal/rng"
	"meibench/internal/units"
)

// Simulate plays requests through stages in a row, one at a time in each, first come, first served, and returns the mean time
// from arrival to the end of the last stage, in seconds: the check of the TTFT formulas. Arrivals are random at rate per
// second; virtual time is in whole nanoseconds.
func Simulate(stages []time.Duration, rate float64, requests int, seed uint64) float64 {
	r := rng.Stream(seed, "handover", "arrivals")
	free := make([]time.Duration, len(stages)) // when each stage is done with those before
	var now time.Duration
	total := 0.0
	for range requests {
		now += units.Seconds(rng.Exp(r) / rate)
		at := now
		for i, service := range stages {
			at = max(at, free[i]) + service
			free[i] = at
		}
		total += (at - now).Seconds()
	}
	return total / float64(requests)
}
