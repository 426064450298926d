package results_test

import (
	"fmt"
	"os"
	"time"

	"meibench/harness/record"
	"meibench/harness/results"
)

// A run of one cell with two requests, written and read back.
func Example() {
	dir, err := os.MkdirTemp("", "run")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	run, err := results.Create(dir, results.Manifest{Expected: 1})
	if err != nil {
		panic(err)
	}
	cell := record.Cell{Suite: "demo", Name: "local", App: "assistant", Pipeline: "local", Mode: "modelled", Horizon: time.Second}
	w, err := run.Begin(cell)
	if err != nil {
		panic(err)
	}
	for _, id := range []int{1, 0} { // rows may come in any order
		var r record.Request
		r.Reset(id, time.Duration(id)*time.Second/2)
		r.AskedTokens = 1
		r.Spent(record.Compute, "phone", r.Intended, r.Intended+200*time.Millisecond)
		r.Token(r.Intended+200*time.Millisecond, 1)
		r.Finish(r.LastToken, nil)
		if err := w.Row(&r); err != nil {
			panic(err)
		}
	}
	if err := w.End(cell); err != nil {
		panic(err)
	}
	if err := run.Finish(); err != nil {
		panic(err)
	}

	set, err := results.Read(dir)
	if err != nil {
		panic(err)
	}
	defer set.Close()
	for r, err := range set.Full(0) {
		fmt.Println(r.ID, r.FirstToken, r.Spans, err)
	}
	for _, v := range set.Runs()[0].Values {
		if v.Metric.Name == "ttft_p50" || v.Metric.Name == "goodput" {
			fmt.Println(v.Metric.Name, v.V, v.Metric.Unit)
		}
	}
	// Output:
	// 0 200ms [{compute phone 0s 200ms}] <nil>
	// 1 700ms [{compute phone 500ms 700ms}] <nil>
	// goodput 2 req/s
	// ttft_p50 0.2 sec
}
