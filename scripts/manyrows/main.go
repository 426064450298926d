// Manyrows writes a run folder with as many requests as asked for, through the
// writer that runs use, to time what reads run folders.
//
//	go run ./scripts/manyrows -rows 10000000 -out many
//	/usr/bin/time -v meibench report many --out page
//
// With -parts N it writes N folders of whole runs of cells, many/0 and so on, and with
// -merge it puts such folders together again, to time that:
//
//	go run ./scripts/manyrows -rows 10000000 -parts 4 -out many
//	/usr/bin/time -v go run ./scripts/manyrows -merge many -out merged
//
// The rows are those of five applications under five placements: modelled-looking
// times with queues, four to eight chunks, energy of three parts, three spans.
// Nothing in them is a result.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"math"
	"path/filepath"
	"strconv"
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
	parts := flag.Int("parts", 1, "folders to deal the runs of cells to")
	from := flag.String("merge", "", "folder of parts to merge, in place of writing rows")
	flag.Parse()
	if *out == "" {
		log.Fatal("manyrows: -out is missing: name a folder to write")
	}
	var err error
	switch {
	case *from != "":
		err = merge(*from, *out)
	case *parts > 1:
		for i := range *parts {
			err = errors.Join(err, write(filepath.Join(*out, strconv.Itoa(i)), *rows, part{i, *parts}))
		}
	default:
		err = write(*out, *rows, part{0, 1})
	}
	if err != nil {
		log.Fatal(err)
	}
}

// part is every n-th run of a cell, from the i-th on.
type part struct{ i, n int }

// merge puts the parts in a folder together.
func merge(from, out string) (err error) {
	dirs, err := filepath.Glob(filepath.Join(from, "*", results.ManifestFile))
	if err != nil {
		return err
	}
	var sets []*results.Set
	defer func() {
		for _, s := range sets {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, d := range dirs {
		s, err := results.Read(filepath.Dir(d))
		if err != nil {
			return err
		}
		sets = append(sets, s)
	}
	if len(sets) == 0 {
		return fmt.Errorf("%s: there are no parts in it", from)
	}
	m := sets[0].Manifest
	m.Expected, m.Files = 0, nil
	return results.Merge(out, m, sets)
}

func write(dir string, rows int, p part) error {
	apps, pipelines := []string{"assistant", "ar", "driving", "healthcare", "robotics"}, []string{"local", "offload", "split", "speculate", "cascade"}
	cells := len(apps) * len(pipelines)
	run, err := results.Create(dir, results.Manifest{Command: []string{"manyrows"}, Expected: (cells - p.i + p.n - 1) / p.n, Seeds: []string{"1"}})
	if err != nil {
		return err
	}
	each := (rows + cells - 1) / cells
	for i := p.i; i < cells; i += p.n {
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
