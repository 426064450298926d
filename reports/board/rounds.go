package board

import (
	"fmt"
	"slices"
	"strings"

	"meibench/harness/bundle"
	"meibench/reports"
)

// Cells whose requests are rounds of training are ranked as MLPerf Training ranks (Mattson et al. 2020): by the time to a target of
// quality. What is asked, of how much data, is in their parameters, and so part of what a table shares.

// trains reports whether a claim's requests are rounds of training.
func trains(c *bundle.Claim) bool { return c.Params["optimizer"] != nil }

// exam is what is learned from what, and which share of right answers is asked for; "" for cells that serve.
func exam(c *bundle.Claim) string {
	if !trains(c) {
		return ""
	}
	var parts []string
	keys := []string{"data", "levels", "samples", "clients", "dirichlet", "score", "target"}
	if attack := c.Params["attack"]; attack != nil && attack != "none" {
		keys = append(keys, "attack", "bad", "noisy")
	}
	for _, k := range keys {
		if v, ok := c.Params[k]; ok {
			parts = append(parts, k+" "+paramText(v))
		}
	}
	return strings.Join(parts, ", ")
}

// clock is the metric that ranks a claim.
func clock(c *bundle.Claim) string {
	if trains(c) {
		return "target_time"
	}
	return latency
}

// mark is the metric of how good answers are.
func mark(c *bundle.Claim) string {
	if trains(c) {
		return "score_final"
	}
	return "quality_mean"
}

// rounds are the columns of cells that train.
func rounds() []column {
	return []column{
		{"target_time", "time to target", reports.Time},
		{"target_bytes", "bytes to target", reports.Bytes},
		{"target_joules", "joules to target", reports.Energy},
		{"rounds", "rounds to target", reports.Number},
		{"score_final", "right at the end", reports.Percent},
		{"score_base", "untuned", reports.Percent},
		{"e2e_p50", "round p50", reports.Time},
		{"energy_per_request", "energy/round", reports.Energy},
	}
}

// columnsOf are those that some rows need.
func columnsOf(rows []*row) (out []column) {
	train := func(r *row) bool { return trains(r.claim) }
	if slices.ContainsFunc(rows, func(r *row) bool { return !train(r) }) || len(rows) == 0 {
		out = columns()
	}
	if slices.ContainsFunc(rows, train) {
		for _, c := range rounds() {
			if !slices.ContainsFunc(out, func(o column) bool { return o.Metric == c.Metric }) {
				out = append(out, c)
			}
		}
	}
	return out
}

func headsOf(columns []column) (out []string) {
	for _, c := range columns {
		out = append(out, c.Head)
	}
	return out
}

// missed says of a claim that trains in how many runs it did not come to its target, "" if in none.
func missed(c *bundle.Claim) string {
	if n := c.Metrics["target_time"].N; trains(c) && n < c.Runs {
		return fmt.Sprintf("its target was reached in %d of %d runs", n, c.Runs)
	}
	return ""
}
