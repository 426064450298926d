package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/reports"
)

// turned is the end of a request that was not let in.
type turned struct{}

func (turned) Error() string  { return "full" }
func (turned) Rejected() bool { return true }

// fleetOf adds a cell of 100 requests of one second each, every tenth not admitted, with figures of its own.
func fleetOf(t *testing.T, d *reports.Data, name string, figures map[string]float64) {
	c := record.Cell{Index: len(d.Groups), Suite: "s", Name: name, App: "assistant", Pipeline: "balance", Mode: "modelled", Site: "three", Valid: true,
		Horizon: 200 * time.Second, E2ELimit: 2 * time.Second, Figures: figures, Params: map[string]any{"route": name}}
	require.NoError(t, d.Add(0, c, func(yield func(*record.Request, error) bool) {
		for i := range 100 {
			var r record.Request
			at := time.Duration(i) * 2 * time.Second
			r.Reset(i, at)
			r.Released, r.Sent, r.AskedTokens = at, at, 1
			if i%10 == 3 {
				r.Finish(at, turned{})
			} else {
				r.Spent(record.Compute, "n", at, at+time.Second)
				r.Token(at+time.Second, 1)
				r.Finish(at+time.Second, nil)
			}
			if !yield(&r, r.Check()) {
				return
			}
		}
	}))
	d.Groups[len(d.Groups)-1].Values = [][]record.Value{record.NewSummary(&c).Values()} // as the run folder has them
}

func TestFleet(t *testing.T) {
	d := reports.NewData()
	d.AddRun("", "", results.Manifest{})
	fleetOf(t, d, "plain", nil)
	require.Empty(t, Sections(d), "no fleet, no section")
	fleetOf(t, d, "jsq", map[string]float64{"node_time": 800, "replicas_mean": 4, "replicas_max": 4, "replica_changes": 0, "availability": 1})
	fleetOf(t, d, "least", map[string]float64{"node_time": 612.5, "replicas_mean": 3.062, "replicas_max": 4, "replica_changes": 6, "availability": 0.975, "recovery": 1.334, "optimum_ratio": 0.998, "decision_time": 0.0163})
	out := Sections(d)
	require.Len(t, out, 1)
	rows := out[0].Tables[0].Groups[0].Rows
	require.Len(t, rows, 2)
	texts := func(i int) (all []string) {
		for _, v := range rows[i].Values[1:] {
			all = append(all, v.Text)
		}
		return all
	}
	require.Equal(t, []string{"modelled", "90.0", "10.0", "100", "–", "800", "4.00", "4.00", "0", "–", "–"}, texts(0))
	require.Equal(t, []string{"modelled", "90.0", "10.0", "97.5", "1.33", "612", "3.06", "4.00", "6.00", "99.8", "0.0163"}, texts(1))
	require.Equal(t, len(out[0].Tables[0].Columns), len(rows[0].Values))
	require.Equal(t, "Orchestration: 2 cells ran several replicas, which were on or starting for 612 to 800 node-seconds; some replica could serve for 97.5 to 100 % of the time; decisions reached 99.8 % of the optimum of their instances; after a node's death the next token came within 1.33 s.",
		out[0].Lead[0], fmt.Sprint(out[0].Lead))
}
