package record_test

import (
	"fmt"
	"time"

	"meibench/harness/record"
)

// A pipeline reports steps as they end; metrics are read off the events.
func Example() {
	var r record.Request
	r.Reset(0, 0)
	r.AskedTokens, r.Released, r.Sent = 3, 0, 0
	r.Spent(record.Transfer, "up", 2*time.Millisecond, 10*time.Millisecond) // 2 ms in the uplink's queue
	r.Spent(record.Compute, "edge", 10*time.Millisecond, 50*time.Millisecond)
	r.Token(50*time.Millisecond, 1)
	r.Spent(record.Batch, "edge", 50*time.Millisecond, 90*time.Millisecond)
	r.Token(90*time.Millisecond, 2)
	r.Finish(90*time.Millisecond, nil)

	for _, name := range []string{"ttft", "tpot", "queue_time"} {
		m, _ := record.Lookup(name)
		fmt.Printf("%s %g %s\n", name, m.Of(&r), m.Unit)
	}
	fmt.Println(len(r.Spans), "spans,", r.Check())
	// Output:
	// ttft 0.05 sec
	// tpot 0.02 sec
	// queue_time 0.002 sec
	// 4 spans, <nil>
}
