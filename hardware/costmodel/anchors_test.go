package costmodel

import (
	"math"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/profiles"
)

// TestPublishedSpeeds compares the prior with rows it was not fitted to one by
// one: batch 1, short context. The class priors promise a median error of 20 % on
// devices they have not seen, and 90 % of rows within 85 %.
func TestPublishedSpeeds(t *testing.T) {
	var errs []float64
	for _, tc := range []struct {
		device, model string
		decode        float64 // tokens/s
		source        string
	}{
		{"raspberry-pi-5", "llama-3.2-3b:q4_k", 4.88, "geerlingguy/ai-benchmarks"},
		{"laptop-ryzen-ai-340", "llama-3.2-3b:q4_k", 23.81, "geerlingguy/ai-benchmarks"},
		{"mac-mini-m4", "llama-3.2-3b:q4_k", 41.31, "geerlingguy/ai-benchmarks"},
		{"rtx-4090", "llama-3.2-3b:q4_k", 334.67, "geerlingguy/ai-benchmarks"},
		{"rtx-4090", "llama-3.1-8b:q4_k", 127.7, "XiongjieDai, Llama-3-8B"},
		{"iphone-17-pro", "llama-3.2-3b:q4_0", 38.2, "apple-silicon-llm-bench, r0 of Core AI GPU"},
		{"jetson-agx-orin-64", "llama-2-7b:q4_0", 46.9, "dusty-nv MLC q4f16"},
		{"h100-sxm-80", "llama-3.1-8b:bf16", 1070.0 / 8, "ml-energy, batch 8: rate of one"},
	} {
		p, err := profiles.Device(tc.device)
		require.NoError(t, err)
		m, err := profiles.Model(tc.model)
		require.NoError(t, err)
		op := &hardware.Op{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{ID: 1, Context: 100, New: 1}}}
		got := 1 / NewLaw(p).Time(op).Seconds()
		errs = append(errs, math.Abs(got/tc.decode-1))
		t.Logf("%-22s %-20s published %7.1f modelled %7.1f  %+.0f %%", tc.device, tc.model, tc.decode, got, 100*(got/tc.decode-1))
	}
	sort.Float64s(errs)
	require.LessOrEqual(t, errs[len(errs)/2], 0.20)
	require.LessOrEqual(t, errs[len(errs)-1], 0.45)
}
