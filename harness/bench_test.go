package harness

import (
	"cmp"
	"context"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
	"meibench/harness/record"
	"meibench/suites"
	"meibench/workloads"
)

const scaleSuite = `
name: scale
question: how many requests a second does the modelled world serve?
defaults: {site: robot-5g-edge, model: "qwen2.5-0.5b:q4_0", scale: field, app: robotics, users: 100, rate: 50}
matrix:
  pipeline: [local, offload, split]
`

// BenchmarkModelled is the whole modelled path of one core: workload, links,
// batching server, spans and invariants; only the table on disk is left out.
func BenchmarkModelled(b *testing.B) {
	s, err := suites.Parse("scale.yaml", []byte(scaleSuite))
	require.NoError(b, err)
	lab := &Lab{}
	for _, c := range s.Cells {
		b.Run("app=robotics/"+c.Name+"/", func(b *testing.B) {
			b.ReportAllocs()
			events, tokens := modelled(b, lab, c, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(tokens)/float64(b.N), "tokens/request")
		})
	}
}

func modelled(b testing.TB, lab *Lab, c suites.Cell, n int) (events uint64, tokens int) {
	c.Requests = n
	cell := rehearse(b, lab, c, func(log *record.Request) { tokens += log.OutputTokens })
	return cell.Events, tokens
}

// rehearse runs a cell and hands each record to sink instead of a run folder.
func rehearse(b testing.TB, lab *Lab, c suites.Cell, sink func(*record.Request)) record.Cell {
	set, err := lab.resolve(c, false)
	require.NoError(b, err)
	a := &arm{cell: c, suite: "bench", seed: 1, setup: set}
	cell := a.header()
	t := &trial{lab: lab, arm: a, cell: &cell, progress: silent{}, sink: func(_ *workloads.Request, log *record.Request) {
		if err := log.Check(); err != nil {
			panic(err)
		}
		sink(log)
	}}
	require.NoError(b, t.run(context.Background(), c.Requests))
	return cell
}

// BenchmarkQuickstart is every modelled cell of the quickstart suite, with its
// metrics. The host is a fixed profile here, so that the figures are exact and
// differ between two commits only if the code does.
func BenchmarkQuickstart(b *testing.B) {
	s, err := suites.Load("quickstart")
	require.NoError(b, err)
	require.NoError(b, s.Narrow(map[string][]string{"mode": {"modelled"}}))
	host, err := profiles.Device("laptop-ryzen-ai-340")
	require.NoError(b, err)
	lab := &Lab{Host: host}
	for _, c := range s.Cells {
		b.Run(c.Name+"/", func(b *testing.B) {
			var values []record.Value
			for b.Loop() {
				var logs []*record.Request
				cell := rehearse(b, lab, c, func(log *record.Request) {
					kept := *log
					kept.Chunks, kept.Spans = slices.Clone(log.Chunks), slices.Clone(log.Spans)
					logs = append(logs, &kept)
				})
				slices.SortFunc(logs, func(a, b *record.Request) int { return a.ID - b.ID })
				sum := record.NewSummary(&cell)
				for _, log := range logs {
					sum.Add(log)
				}
				values = sum.Values()
			}
			for _, v := range values {
				if !math.IsNaN(v.V) {
					b.ReportMetric(v.V, "modelled-"+v.Metric.Bench)
				}
			}
		})
	}
}

// BenchmarkMillion is the figure of the front page: a million offload requests
// to Arrow tables, with the memory that takes.
func BenchmarkMillion(b *testing.B) {
	for _, rows := range []string{"", "brief"} {
		b.Run("rows="+cmp.Or(rows, "full")+"/", func(b *testing.B) { million(b, rows) })
	}
}

func million(b *testing.B, rows string) {
	s, err := suites.Parse("scale.yaml", []byte(scaleSuite))
	require.NoError(b, err)
	require.NoError(b, s.Narrow(map[string][]string{"pipeline": {"offload"}}))
	s.Cells[0].Requests, s.Cells[0].Rows = 1_000_000, rows
	for b.Loop() {
		dir := b.TempDir()
		o := Options{Suites: []*suites.Suite{s}, Out: dir + "/run", Progress: silent{}, Now: time.Now}
		require.NoError(b, Run(context.Background(), &Lab{}, o))
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.Sys), "sys-B")
	b.ReportMetric(1e6/(b.Elapsed().Seconds()/float64(b.N)), "requests/s")
}
