package published

import (
	"meibench/internal/units"
	"meibench/reference/delivery"
)

// deliveries are the targets of how long models take to come (checklist C10): arithmetic on sizes and rates.
func deliveries() []Target {
	const (
		ts    = "3GPP TS 22.261 v20.1.0, 7.10.1: downloads of models within 1 s"
		llama = "parameters of Llama-2-7B, two bytes each"
		layer = 4*4096*4096 + 3*4096*11008 + 2*4096 // attention, SwiGLU and norms
		whole = units.Bytes(2 * (32*layer + 2*32000*4096 + 4096))
		lora  = units.Bytes(2 * 32 * 2 * 8 * (4096 + 4096)) // rank 8 on q and v of 32 layers
		mbit  = 1e6 / 8
		near  = 0.005
	)
	takes := func(n units.Bytes, rate float64) func() float64 {
		return func() float64 { return units.TransferTime(n, rate).Seconds() }
	}
	var all []Target
	for _, b := range delivery.Budgets() {
		if b.Assumed != "" {
			continue // nothing printed to compare with
		}
		all = append(all, Target{ID: "C10 budget " + b.Name, Quantity: "time of the model at the rate that is asked for", Unit: "s", Value: b.Within.Seconds(), Source: ts,
			Evidence: Summary, Tolerance: near, Ours: takes(b.Bytes, b.Rate)})
	}
	return append(all,
		Target{ID: "C10 llama 100", Quantity: "Llama-2-7B in 16 bits at 100 Mbit/s", Unit: "s", Value: 1078, Source: llama, Evidence: Derived, Tolerance: near, Ours: takes(whole, 100*mbit)},
		Target{ID: "C10 llama 1100", Quantity: "Llama-2-7B in 16 bits at 1.1 Gbit/s", Unit: "s", Value: 98, Source: llama, Evidence: Derived, Tolerance: near, Ours: takes(whole, 1100*mbit)},
		Target{ID: "C10 lora 100", Quantity: "an adapter of it, rank 8 on q and v, 8.39 MB, at 100 Mbit/s", Unit: "s", Value: 0.67, Source: llama, Evidence: Derived, Tolerance: near, Ours: takes(lora, 100*mbit)})
}
