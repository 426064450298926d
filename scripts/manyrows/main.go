// Manyrows writes a run folder with as many requests as asked for, through the
// writer that runs use, to time what reads run folders.
//
//	go run ./scripts/manyrows -rows 10000000 -out many
//	/usr/bin/time -v meibench report many --out page
//
// The rows are those of five applications under five placements: modelled-looking
// times with queues, four to eight chunks, energy of three parts, three spans.
// Nothing in them is a result.
package main

import (
	"flag"
	"fmt"
	"log"
	"math"
	"time"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/rng"
	"meibench/internal/units"
)

func main() {
	rows := flag.Int("rows", 10_000_000, "requests in all")
	out := flag.String("out", "", "folder to write, which must not be there")
	flag.Parse()
	if *out == "" {
		log.Fatal("manyrows: -out is missing: name a folder to write")
	}
	if err := write(*out, *rows); err != nil {
		log.Fatal(err)
	}
}

func write(dir string, rows int) error {
	apps, pipelines := []string{"assistant", "ar", "driving", "healthcare", "robotics"}, []string{"local", "offload", "split", "speculate", "cascade"}
	cells := len(apps) * len(pipelines)
	run, err := results.Create(dir, results.Manifest{Command: []string{"manyrows"}, Expected: cells, Seeds: []string{"1"}})
	if err != nil {
		return err
	}
	each := (rows + cells - 1) / cells
	for i := range cells {
		c := record.Cell{Index: i, Suite: "manyrows", App: apps[i/len(pipelines)], Pipeline: pipelines[i%len(pipelines)], Site: "a-site", Model: "a-model", Mode: "modelled", Seed: 1,
			Valid: true, Horizon: time.Duration(each) * 100 * time.Millisecond, TTFTLimit: 200 * time.Millisecond, E2ELimit: time.Second}
		c.Name = "app=" + c.App + "/pipeline=" + c.Pipeline
		w, err := run.Begin(c)
		if err != nil {
			return err
		}
		key := rng.NewKey(1, "manyrows", c.Name)
		var r record.Request
		for id := range min(each, rows-i*each) {
			fill(&r, id, i%len(pipelines), key)
			if err := w.Row(&r); err != nil {
				return err
			}
		}
		if err := w.End(c); err != nil {
			return err
		}
		fmt.Println(c.Name)
	}
	return run.Finish()
}

// fill makes request id of a placement.
func fill(r *record.Request, id, placement int, key rng.Key) {
	l := key.At(uint64(id))
	vary := func(d time.Duration) time.Duration { return time.Duration(float64(d) * math.Exp(0.3*rng.Normal(&l))) }
	at := time.Duration(id) * 100 * time.Millisecond
	r.Reset(id, at)
	r.Released, r.Sent = at, at
	r.PromptTokens, r.AskedTokens = 100, 4+id%5
	up, work := vary(10*time.Millisecond), vary(time.Duration(20+20*placement)*time.Millisecond)
	r.Spent(record.Transfer, "up", at, at+up)
	r.Spent(record.Queue, "edge", at+up, at+up+work/4)
	now := at + up + work
	r.Spent(record.Compute, "edge", at+up+work/4, now)
	for range r.AskedTokens {
		now += 5 * time.Millisecond
		r.Token(now, 1)
	}
	r.UpBytes, r.DownBytes = 2000, 200
	for p := record.DevicePart; p <= record.EdgePart; p++ {
		r.Spend(p, units.Joules(work.Seconds()), uint8(hardware.Modelled))
	}
	r.Finish(now, nil)
}
