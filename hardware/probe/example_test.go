package probe_test

import (
	"context"
	"fmt"

	"meibench/hardware/probe"
)

// What this machine can do, in under three seconds.
func ExampleMeasure() {
	limits, err := probe.Measure(context.Background(), probe.Options{Quick: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	if f, ok := limits.Best(probe.DRAMRead, 0); ok {
		fmt.Printf("%s reads %.0f GB/s (%s)\n", limits.Machine.CPU, f.Value/1e9, f.Method)
	}
}
