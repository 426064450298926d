package published

import (
	"slices"

	"meibench/reference/codec"
)

// collaboration are the targets of split models, pipelines over several nodes, routing and speculative decoding.
func collaboration() []Target { return slices.Concat(splits(), theory(), drafts(), routing()) }

// splits are the targets of split models and of pipelines over several nodes.
func splits() []Target {
	return []Target{
		{ID: "I3 split with lookahead 20 ms", Quantity: "tokens per second at 20 ms RTT, Mistral-7B", Unit: "token/s", Value: 17,
			Source: "arXiv 2602.16760, projected 15 to 19", Evidence: Abstract, Tolerance: 0.118,
			Note: "middle of the range; fitted at 9.0 token/s and 80 ms", Ours: func() float64 { return lookahead(0.020) }},
		{ID: "I5 wire clamp gauss 4 bits", Quantity: "range that an integer covers, in standard deviations", Value: 2.55,
			Source: "Banner et al. 2018 (ACIQ)", Evidence: Recalled, Tolerance: 0.01, Ours: clip(codec.Gauss, 4)},
		{ID: "I5 wire clamp laplace 4 bits", Quantity: "range that an integer covers, in mean distances", Value: 5.03,
			Source: "Banner et al. 2018 (ACIQ)", Evidence: Recalled, Tolerance: 0.01, Ours: clip(codec.Laplace, 4)},
		{ID: "I7 edgeshard llama-2-7b gain", Quantity: "latency of one device over that of EdgeShard", Value: 1.85,
			Source: "arXiv 2405.14371, table", Evidence: Recalled, Tolerance: 0.19,
			Note: "nominal memory rates and no time per message, which flatters the server; missed, and the paper's profiles are not known", Ours: edgeShardGain},
		{ID: "I7 edgeshard llama-2-7b solo", Quantity: "latency of one Jetson AGX Orin", Unit: "ms/token", Value: 140.34,
			Source: "arXiv 2405.14371, table", Evidence: Recalled, Tolerance: 0.1,
			Note: "27 GB of float32 weights over the nominal memory rate", Ours: soloMs},
		{ID: "I7 edgeshard memory", Quantity: "cells of 12 that fit or do not", Unit: "cell", Value: 12,
			Source: "arXiv 2405.14371, table", Evidence: Recalled, Tolerance: 0.01,
			Note: "weights in float32 alone; missed, as half of 13B is 26 GB and the server has 24", Ours: edgeShardMemory},
		{ID: "I8 petals 03 servers", Quantity: "extra time of a step through 3 servers when the RTT grows by 97.5 ms", Unit: "ms", Value: 211,
			Source: "arXiv 2209.01188, table", Evidence: Recalled, Tolerance: 0.231,
			Note: "ours is the middle of a chain of servers and a star, and the tolerance reaches to both", Ours: between(3)},
		{ID: "I8 petals 12 servers", Quantity: "extra time of a step through 12 servers when the RTT grows by 97.5 ms", Unit: "ms", Value: 948,
			Source: "arXiv 2209.01188, table", Evidence: Recalled, Tolerance: 0.283,
			Note: "ours is the middle of a chain of servers and a star, and the tolerance reaches to both", Ours: between(12)},
	}
}

// theory is the table of Leviathan et al.
func theory() []Target {
	return []Target{
		{ID: "I10 theory 0.6 02 operations", Quantity: "growth of arithmetic at α 0.6, γ 2", Value: 1.53,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.0036,
			Note: "a draft that costs nothing", Ours: operations(0.6, 2)},
		{ID: "I10 theory 0.6 02 speed", Quantity: "speed-up at α 0.6, γ 2", Value: 1.96,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.003,
			Note: "a draft that costs nothing", Ours: speed(0.6, 2)},
		{ID: "I10 theory 0.7 03 operations", Quantity: "growth of arithmetic at α 0.7, γ 3", Value: 1.58,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.0035,
			Note: "a draft that costs nothing", Ours: operations(0.7, 3)},
		{ID: "I10 theory 0.7 03 speed", Quantity: "speed-up at α 0.7, γ 3", Value: 2.53,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.002,
			Note: "a draft that costs nothing", Ours: speed(0.7, 3)},
		{ID: "I10 theory 0.8 02 operations", Quantity: "growth of arithmetic at α 0.8, γ 2", Value: 1.23,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.0045,
			Note: "a draft that costs nothing", Ours: operations(0.8, 2)},
		{ID: "I10 theory 0.8 02 speed", Quantity: "speed-up at α 0.8, γ 2", Value: 2.44,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.0023,
			Note: "a draft that costs nothing", Ours: speed(0.8, 2)},
		{ID: "I10 theory 0.8 05 operations", Quantity: "growth of arithmetic at α 0.8, γ 5", Value: 1.63,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.0034,
			Note: "a draft that costs nothing", Ours: operations(0.8, 5)},
		{ID: "I10 theory 0.8 05 speed", Quantity: "speed-up at α 0.8, γ 5", Value: 3.69,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.0015,
			Note: "a draft that costs nothing", Ours: speed(0.8, 5)},
		{ID: "I10 theory 0.9 02 operations", Quantity: "growth of arithmetic at α 0.9, γ 2", Value: 1.11,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.005,
			Note: "a draft that costs nothing", Ours: operations(0.9, 2)},
		{ID: "I10 theory 0.9 02 speed", Quantity: "speed-up at α 0.9, γ 2", Value: 2.71,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.002,
			Note: "a draft that costs nothing", Ours: speed(0.9, 2)},
		{ID: "I10 theory 0.9 10 operations", Quantity: "growth of arithmetic at α 0.9, γ 10", Value: 1.6,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.0034,
			Note: "a draft that costs nothing", Ours: operations(0.9, 10)},
		{ID: "I10 theory 0.9 10 speed", Quantity: "speed-up at α 0.9, γ 10", Value: 6.86,
			Source: "arXiv 2211.17192, theory table", Evidence: Recalled, Tolerance: 0.0008,
			Note: "a draft that costs nothing", Ours: speed(0.9, 10)},
	}
}

// drafts are the targets of drafting on a device and judging elsewhere.
func drafts() []Target {
	return []Target{
		{ID: "I11 dssd 20 ms", Quantity: "tokens per second at 20 ms RTT, OPT-125M and OPT-6.7B", Unit: "token/s", Value: 13.28,
			Source: "DSSD repository, results (arXiv 2507.12000)", Evidence: Code, Tolerance: 0.012,
			Note: "overhead calibrated on the row of 0 ms", Ours: splitDecode(0.020, 7.66, 105.3)},
		{ID: "I11 dssd 50 ms", Quantity: "tokens per second at 50 ms RTT, OPT-125M and OPT-6.7B", Unit: "token/s", Value: 11.93,
			Source: "DSSD repository, results (arXiv 2507.12000)", Evidence: Code, Tolerance: 0.012,
			Note: "overhead calibrated on the row of 0 ms", Ours: splitDecode(0.050, 7.59, 85.25)},
		{ID: "I11 specinfer width 1", Quantity: "tokens per verification, greedy, chain", Unit: "token", Value: 2.73,
			Source: "summary of ASPLOS 2024", Evidence: Summary, Tolerance: 0.1,
			Note: "depth 8 and the middle of the published top-1 range are assumed", Ours: specInfer(1)},
		{ID: "I11 specinfer width 5", Quantity: "tokens per verification, greedy, width 5", Unit: "token", Value: 3.91,
			Source: "summary of ASPLOS 2024", Evidence: Summary, Tolerance: 0.1,
			Note: "five children at the third level alone and independent levels are assumed; missed, perhaps because hits of one question's levels go together", Ours: specInfer(5)},
	}
}

// routing are the targets of query routers: the accuracies follow from counts of right answers.
func routing() []Target {
	return []Target{
		{ID: "I12 ianvs gpqa", Quantity: "accuracy of oracle routing, GPQA edge", Unit: "%", Value: 54.55,
			Source: "Ianvs joint inference example, results table", Evidence: Code, Tolerance: 0.0003,
			Note: "from the edge's accuracy and the share sent; the table rounds both", Ours: ianvs(2727, 4091, 2727)},
		{ID: "I12 ianvs mmlu 1.5b", Quantity: "accuracy of oracle routing, MMLU 1.5B edge", Unit: "%", Value: 82.22,
			Source: "Ianvs joint inference example, results table", Evidence: Code, Tolerance: 0.0003,
			Note: "from the edge's accuracy and the share sent; the table rounds both", Ours: ianvs(5835, 7599, 2388)},
		{ID: "I12 ianvs mmlu 3b", Quantity: "accuracy of oracle routing, MMLU 3B edge", Unit: "%", Value: 82.75,
			Source: "Ianvs joint inference example, results table", Evidence: Code, Tolerance: 0.0003,
			Note: "from the edge's accuracy and the share sent; the table rounds both", Ours: ianvs(6030, 7599, 2245)},
		{ID: "I12 ianvs mmlu 7b", Quantity: "accuracy of oracle routing, MMLU 7B edge", Unit: "%", Value: 84.22,
			Source: "Ianvs joint inference example, results table", Evidence: Code, Tolerance: 0.0003,
			Note: "from the edge's accuracy and the share sent; the table rounds both", Ours: ianvs(7184, 7599, 1238)},
		{ID: "I12 routellm gsm8k ceiling", Quantity: "accuracy of an oracle router, GSM8K", Unit: "%", Value: 92.96,
			Source: "RouteLLM repository, per-question results", Evidence: Code, Tolerance: 0.00006,
			Note: "recomputed from counts of right answers", Ours: ceiling(gsm8k)},
		{ID: "I12 routellm gsm8k needed", Quantity: "share of questions that only GPT-4 answers, GSM8K", Unit: "%", Value: 29.23,
			Source: "RouteLLM repository, per-question results", Evidence: Code, Tolerance: 0.0002,
			Note: "recomputed from counts of right answers", Ours: needed(gsm8k)},
		{ID: "I12 routellm gsm8k strong", Quantity: "accuracy of GPT-4, GSM8K", Unit: "%", Value: 85.77,
			Source: "RouteLLM repository, per-question results", Evidence: Code, Tolerance: 0.00006,
			Note: "recomputed from counts of right answers", Ours: strong(gsm8k)},
		{ID: "I12 routellm gsm8k weak", Quantity: "accuracy of Mixtral-8x7B, GSM8K", Unit: "%", Value: 63.73,
			Source: "RouteLLM repository, per-question results", Evidence: Code, Tolerance: 0.00008,
			Note: "recomputed from counts of right answers", Ours: weak(gsm8k)},
		{ID: "I12 routellm mmlu ceiling", Quantity: "accuracy of an oracle router, MMLU", Unit: "%", Value: 85.87,
			Source: "RouteLLM repository, per-question results", Evidence: Code, Tolerance: 0.00006,
			Note: "recomputed from counts of right answers", Ours: ceiling(mmlu)},
		{ID: "I12 routellm mmlu needed", Quantity: "share of questions that only GPT-4 answers, MMLU", Unit: "%", Value: 17.78,
			Source: "RouteLLM repository, per-question results", Evidence: Code, Tolerance: 0.0003,
			Note: "recomputed from counts of right answers", Ours: needed(mmlu)},
		{ID: "I12 routellm mmlu strong", Quantity: "accuracy of GPT-4, MMLU", Unit: "%", Value: 80.59,
			Source: "RouteLLM repository, per-question results", Evidence: Code, Tolerance: 0.00007,
			Note: "recomputed from counts of right answers", Ours: strong(mmlu)},
		{ID: "I12 routellm mmlu weak", Quantity: "accuracy of Mixtral-8x7B, MMLU", Unit: "%", Value: 68.09,
			Source: "RouteLLM repository, per-question results", Evidence: Code, Tolerance: 0.00008,
			Note: "recomputed from counts of right answers", Ours: weak(mmlu)},
		{ID: "I12 routellm random apgr", Quantity: "APGR of a random router", Value: 0.5,
			Source: "arXiv 2406.18665, table", Evidence: Recalled, Tolerance: 0.01,
			Note: "mean of random routers: the straight line", Ours: randomAPGR},
		{ID: "I12 routellm random cpt50", Quantity: "strong calls of a random router for half of the gap, MT-Bench", Unit: "%", Value: 49.03,
			Source: "arXiv 2406.18665, table", Evidence: Recalled, Tolerance: 0.03,
			Note: "one draw against the mean", Ours: randomCPT(0.5)},
		{ID: "I12 routellm random cpt80", Quantity: "strong calls of a random router for 80 % of the gap, MT-Bench", Unit: "%", Value: 78.08,
			Source: "arXiv 2406.18665, table", Evidence: Recalled, Tolerance: 0.03,
			Note: "one draw against the mean", Ours: randomCPT(0.8)},
	}
}
