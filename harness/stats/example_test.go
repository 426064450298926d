package stats_test

import (
	"fmt"

	"meibench/harness/stats"
)

// Six runs a side: the new version's p99 is about 8 % lower, and that is more
// than chance and more than the practical band of 1 %.
func Example() {
	old := []float64{0.201, 0.205, 0.199, 0.203, 0.207, 0.202}
	new := []float64{0.186, 0.188, 0.185, 0.189, 0.187, 0.184}
	e, err := stats.Compare(old, new, stats.Rule{})
	fmt.Printf("%.3f [%.3f, %.3f] p=%.4f %s %v\n", e.Ratio, e.Lo, e.Hi, e.P, e.Verdict, err)
	// Output: 0.921 [0.903, 0.935] p=0.0022 lower <nil>
}

// A single run of 600 queries says nothing of its p99; the rule says so.
func ExampleBound() {
	latencies := make([]float64, 600)
	a := stats.Bound(latencies, 0.99, 0.99)
	fmt.Println(a.Abstain, a.Why)
	// Output: true not enough data: 600 queries are worth 600 independent ones; p99 needs about 662 queries in one run, or repeats
}
