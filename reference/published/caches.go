package published

import (
	"time"

	"meibench/internal/units"
	"meibench/reference/handover"
	"meibench/reference/kivi"
)

// caches are the targets of key/value caches: their size, rounding, handover, and the prefill queues in front of them.
func caches() []Target {
	const (
		mooncake  = "Qin et al. 2025 (Mooncake, FAST'25), break-even of prefix reuse, LLaMA3-70B, prefix of 8192 tokens"
		distserve = "Zhong et al. 2024 (DistServe, OSDI'24), equations 1 to 3 at a load of 0.6"
		liu       = "Liu et al. 2024 (KIVI, ICML'24), layout of the code at G=32"
		ctho      = "arXiv 2603.28018, joint handover, single user: S=4096, 2500 tokens/s, 0.131 MB/token, 10 Gbit/s"
	)
	example := handover.Example()
	simulated := func(stages ...time.Duration) func() float64 {
		return func() float64 { return handover.Simulate(stages, 0.6, 1_000_000, 1) }
	}
	return []Target{
		{ID: "I14 kivi-2 bits", Quantity: "size of a fp16 cache over that of 2 bits", Value: 16 / 3.0, Source: liu, Evidence: Derived, Tolerance: 0.01,
			Ours: func() float64 { return 16 / kivi.Default(2).BitsPerElement() }},
		{ID: "I14 kivi-4 bits", Quantity: "size of a fp16 cache over that of 4 bits", Value: 3.2, Source: liu, Evidence: Derived, Tolerance: 0.01,
			Ours: func() float64 { return 16 / kivi.Default(4).BitsPerElement() }},
		{ID: "I14 outlier-2", Quantity: "error of the other channels, per token over per channel, 2 bits, one channel 30 times as large", Value: 3.6,
			Source: liu, Evidence: Derived, Tolerance: 0.1, Note: "width of a row not stated; 64 channels here", Ours: func() float64 { return kivi.OutlierRatio(2, 64) }},
		{ID: "I14 outlier-4", Quantity: "the same with 4 bits", Value: 6.0, Source: liu, Evidence: Derived, Tolerance: 0.1,
			Note: "width of a row not stated; 64 channels here", Ours: func() float64 { return kivi.OutlierRatio(4, 64) }},
		{ID: "I19 joint", Quantity: "delay of the joint handover", Unit: "s", Value: 0.340, Source: ctho, Evidence: Derived, Tolerance: 0.01,
			Ours: func() float64 { _, t := example.Joint(handover.ExampleBytesPerSec); return t }},
		{ID: "I19 recompute", Quantity: "delay if all is computed again", Unit: "s", Value: 1.638, Source: ctho, Evidence: Derived, Tolerance: 0.01,
			Ours: func() float64 { return example.Recompute().Seconds() }},
		{ID: "I19 transfer", Quantity: "delay if all is sent", Unit: "s", Value: 0.429, Source: ctho, Evidence: Derived, Tolerance: 0.01,
			Ours: func() float64 { return example.Transfer(handover.ExampleBytesPerSec).Seconds() }},
		{ID: "I2 opt-66b cache", Quantity: "cache of 512 tokens of OPT-66B in fp16", Unit: "GB, meant as GiB", Value: 1.13,
			Source: "Zhong et al. 2024 (DistServe, OSDI'24)", Evidence: Summary, Tolerance: 0.01,
			Ours: func() float64 { return float64(handover.KVBytes(64, 9216, 1, 512, 2)) / float64(units.GiB) }},
		{ID: "I9 break-even a100", Quantity: "bandwidth from which on a prefix is fetched, 8 x 312 TFLOPS", Unit: "B/s", Value: 6e9,
			Source: mooncake, Evidence: Paper, Tolerance: 0.05, Ours: func() float64 { return handover.MooncakeExample().BreakEven(8192, 8*312e12) }},
		{ID: "I9 break-even h100", Quantity: "bandwidth from which on a prefix is fetched, 8 x 989 TFLOPS", Unit: "B/s", Value: 19e9,
			Source: mooncake, Evidence: Paper, Tolerance: 0.05, Ours: func() float64 { return handover.MooncakeExample().BreakEven(8192, 8*989e12) }},
		{ID: "I9 ttft pipeline", Quantity: "mean TTFT of two stages, in service times", Value: handover.PipelineTTFT(0.6, 1), Source: distserve, Evidence: Summary,
			Tolerance: 0.01, Note: "theirs is the formula, ours a simulation", Ours: simulated(time.Second/2, time.Second/2)},
		{ID: "I9 ttft single", Quantity: "mean TTFT of one server, in service times", Value: handover.SingleTTFT(0.6, 1), Source: distserve, Evidence: Summary,
			Tolerance: 0.01, Note: "theirs is the formula, ours a simulation", Ours: simulated(time.Second)},
		{ID: "I9 ttft tensor", Quantity: "mean TTFT of tensor parallelism that speeds up by 1.5, in service times", Value: handover.TensorTTFT(0.6, 1, 1.5),
			Source: distserve, Evidence: Summary, Tolerance: 0.01, Note: "theirs is the formula, ours a simulation", Ours: simulated(time.Second * 2 / 3)},
	}
}
