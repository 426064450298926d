package engine

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchfmt"

	"meibench/hardware/probe"
	"meibench/reference/quant"
)

// limits is a made-up machine with a cache of 1 MB.
func limits() *probe.Limits {
	return &probe.Limits{Tier: "vnni", Machine: probe.Machine{CPU: "Abacus 9000", OS: "linux", Arch: "amd64", Cores: 2, Caches: []probe.Cache{{Level: 2, Bytes: 1e6, SharedBy: 1}}},
		Figures: []probe.Figure{
			{Name: probe.DRAMRead, Threads: 1, Value: 20e9, Unit: "B/s"},
			{Name: probe.CacheRead, Detail: "L2", Threads: 1, Value: 100e9, Unit: "B/s"},
			{Name: probe.PeakF32, Detail: "AVX-512", Threads: 1, Value: 100e9, Unit: "FLOP/s"},
			{Name: probe.PeakInt8, Detail: "AVX512-VNNI", Threads: 1, Value: 2000e9, Unit: "OP/s"},
			{Name: probe.PeakInt8, Detail: "AVX512-VNNI", Threads: 2, Value: 4000e9, Unit: "OP/s"},
		}}
}

// kernels: 10 MB that are read at half of the DRAM limit, and 10^9 FLOP at a quarter of the peak.
func kernels() *Report {
	return &Report{Commit: "abc", Limits: limits(), Layer: probe.Layers[0].Layer, Kernels: []probe.Kernel{
		{Op: "matmul.qkv", Shape: "T=1 N=8 K=4", Format: "Q8_0", Tokens: 1, Threads: 1, Integer: true, FLOP: 4e6, Bytes: 10e6, Set: 40e6,
			Time: time.Millisecond, N: 2, Samples: []time.Duration{time.Millisecond, 2 * time.Millisecond}, Share: 0.5, Bound: "DRAM"},
		{Op: "exp", Shape: "T=8 N=4", Tokens: 8, Threads: 2, FLOP: 1e9, Bytes: 1e3, Time: 40 * time.Millisecond, N: 1,
			Samples: []time.Duration{40 * time.Millisecond}, Share: 0.25, Bound: "F32 AVX-512"}}}
}

// rows: 30 tokens in 100, 200 and 300 ms, of 0.2·10^12 integer operations; and 10 tokens of 100 MB each in 100 ms.
func rows() *Report {
	m := Model{File: "models/tiny one.gguf", Type: "llama 135M Q8_0", Bytes: 143e6, Params: 134_515_008}
	test := probe.EngineTest{Prompt: 30, Depth: 7, Threads: 2, Cache: quant.F16, Repeats: 3}
	ms := time.Millisecond
	when := time.Date(2026, 11, 22, 12, 30, 1, 5, time.FixedZone("east", 3600))
	return &Report{Commit: "abc", Limits: limits(), Rows: []Row{
		{EngineRow: probe.EngineRow{EngineTest: test, Began: when, Samples: []time.Duration{100 * ms, 200 * ms, 300 * ms}}, Model: m,
			Work: probe.Work{Int: 0.2e12, Bytes: 143e6}},
		{EngineRow: probe.EngineRow{EngineTest: probe.EngineTest{Gen: 10, Threads: 1, Cache: quant.Q8_0, Repeats: 1}, Began: when, Samples: []time.Duration{100 * ms}}, Model: m,
			Work: probe.Work{Int: 1e9, Bytes: 1e9}}}}
}

func written(t *testing.T, r *Report, format string) string {
	var b bytes.Buffer
	require.NoError(t, r.Write(&b, format))
	return b.String()
}

// The fields that readers of llama-bench's JSON look at, with its types.
type theirs struct {
	Commit     string    `json:"build_commit"`
	CPU        string    `json:"cpu_info"`
	File       string    `json:"model_filename"`
	Type       string    `json:"model_type"`
	Size       uint64    `json:"model_size"`
	Params     uint64    `json:"model_n_params"`
	Batch      int       `json:"n_batch"`
	MicroBatch int       `json:"n_ubatch"`
	Threads    int       `json:"n_threads"`
	TypeK      string    `json:"type_k"`
	TypeV      string    `json:"type_v"`
	Prompt     int       `json:"n_prompt"`
	Gen        int       `json:"n_gen"`
	Depth      int       `json:"n_depth"`
	When       time.Time `json:"test_time"`
	AvgNS      uint64    `json:"avg_ns"`
	StddevNS   uint64    `json:"stddev_ns"`
	AvgTS      float64   `json:"avg_ts"`
	StddevTS   float64   `json:"stddev_ts"`
	SamplesNS  []uint64  `json:"samples_ns"`
	SamplesTS  []float64 `json:"samples_ts"`
}

func TestReadersOfLlamaBenchReadRows(t *testing.T) {
	var list []theirs
	require.NoError(t, json.Unmarshal([]byte(written(t, rows(), "json")), &list))
	require.Len(t, list, 2)
	x := list[0]
	require.InDelta(t, 550.0/3, x.AvgTS, 1e-9)      // 300, 150 and 100 tokens a second
	require.InDelta(t, 104.0833, x.StddevTS, 1e-4)  // √((116.67² + 33.33² + 83.33²)/2)
	require.EqualValues(t, 100_000_000, x.StddevNS) // √((100² + 0 + 100²)/2) ms
	x.AvgTS, x.StddevTS, x.StddevNS = 0, 0, 0
	require.Equal(t, theirs{Commit: "abc", CPU: "Abacus 9000", File: "models/tiny one.gguf", Type: "llama 135M Q8_0", Size: 143e6, Params: 134_515_008,
		Batch: 512, MicroBatch: 512, Threads: 2, TypeK: "f16", TypeV: "f16", Prompt: 30, Depth: 7, When: time.Date(2026, 11, 22, 11, 30, 1, 0, time.UTC),
		AvgNS: 200_000_000, SamplesNS: []uint64{1e8, 2e8, 3e8}, SamplesTS: []float64{300, 150, 100}}, x)
	require.Equal(t, []int{0, 10, 0}, []int{list[1].Prompt, list[1].Gen, list[1].Depth})
	require.Equal(t, "q8_0", list[1].TypeK)

	lines := strings.Split(strings.TrimSpace(written(t, rows(), "jsonl")), "\n")
	require.Len(t, lines, 2)
	var line theirs
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &line))
	require.Equal(t, list[1], line)
}

// What is ours: 10^12 operations a second of 4·10^12 in 200 ms each, and 10^10 bytes of 2·10^10.
func TestRowsCarryTheirLimit(t *testing.T) {
	var list []map[string]any
	require.NoError(t, json.Unmarshal([]byte(written(t, rows(), "json")), &list))
	for i, want := range []map[string]any{
		{"tier": "vnni", "limit": "int8 AVX512-VNNI", "limit_per_s": 4e12, "limit_unit": "OP/s", "share_of_limit": 0.25, "ops_per_s": 1e12, "mem_bytes_per_s": 715e6},
		{"tier": "vnni", "limit": "DRAM", "limit_per_s": 20e9, "limit_unit": "B/s", "share_of_limit": 0.5, "ops_per_s": 10e9, "mem_bytes_per_s": 10e9},
	} {
		for key, v := range want {
			if f, ok := v.(float64); ok {
				require.InEpsilon(t, f, list[i][key], 1e-9, key)
			} else {
				require.Equal(t, v, list[i][key], key)
			}
		}
	}
}

// llamaBench is the header of llama-bench's CSV: get_fields in tools/llama-bench/llama-bench.cpp, read on 2026-11-22.
var llamaBench = strings.Fields(`build_commit build_number cpu_info gpu_info backends model_filename model_type model_size model_n_params n_batch
	n_ubatch n_threads cpu_mask cpu_strict poll type_k type_v n_gpu_layers n_cpu_moe split_mode main_gpu no_kv_offload flash_attn devices
	tensor_split tensor_buft_overrides load_mode embeddings no_op_offload no_host fit_target fit_min_ctx n_prompt n_gen n_depth test_time
	avg_ns stddev_ns avg_ts stddev_ts`)

func TestCSVHasTheirColumns(t *testing.T) {
	all, err := csv.NewReader(strings.NewReader(written(t, rows(), "csv"))).ReadAll()
	require.NoError(t, err)
	require.Len(t, all, 3)
	require.Equal(t, llamaBench, all[0][:len(llamaBench)], "theirs first, in their order")
	require.NotContains(t, all[0], "samples_ns")
	at := slices.Index(all[0], "avg_ns")
	require.Equal(t, "200000000", all[1][at])
	require.Equal(t, "0", all[1][slices.Index(all[0], "cpu_strict")])
}

func TestTables(t *testing.T) {
	text := written(t, rows(), "md")
	require.Contains(t, text, "| llama 135M Q8_0 | 136 MiB | 134.52 M | vnni | 2       | f16  | pp30 @ d7 | 183.33 ± 104.08 | 0.715 | 1000  | int8 AVX512-VNNI 4000 GOP/s | 25.0 %   |")
	require.Contains(t, text, "| tg10      | 100.00 ± 0.00   | 10    | 10    | DRAM 20 GB/s                | 50.0 %   |")
	text = written(t, kernels(), "table")
	require.Contains(t, text, "Abacus 9000, 2 core(s), linux/amd64, kernels: vnni")
	require.Regexp(t, `limits, 1 thread\(s\): +L2 100 GB/s +DRAM 20 GB/s +F32 AVX-512 100 GFLOP/s +int8 AVX512-VNNI 2000 GOP/s`, text)
	require.Regexp(t, `matmul.qkv +T=1 N=8 K=4 +q8_0 +1 +vnni +1 ms +10 +4 +DRAM 20 GB/s +50.0 %`, text)
	require.Regexp(t, `exp +T=8 N=4 +2 +vnni +40 ms +2.5e-05 +25 +F32 AVX-512 100 GFLOP/s +25.0 %`, text)
	require.Contains(t, written(t, kernels(), "csv"), "matmul.qkv,T=1 N=8 K=4,q8_0,1,vnni,1 ms,10,,4,DRAM 20 GB/s,50.0 %\n")

	var list struct {
		Tier    string
		Kernels []probe.Kernel
	}
	require.NoError(t, json.Unmarshal([]byte(written(t, kernels(), "json")), &list))
	require.Equal(t, kernels().Kernels, list.Kernels)
	require.Equal(t, "vnni", list.Tier)
	require.Equal(t, 2, strings.Count(written(t, kernels(), "jsonl"), `"tier":"vnni"`))
	require.ErrorContains(t, kernels().Write(&bytes.Buffer{}, "xml"), "want one of csv, json")
}

// bench reads what benchstat would.
func bench(t *testing.T, r *Report) (map[string]map[string][]float64, benchfmt.UnitMetadataMap) {
	var b bytes.Buffer
	require.NoError(t, r.Bench(&b))
	values := map[string]map[string][]float64{}
	reader := benchfmt.NewReader(&b, "bench.txt")
	for reader.Scan() {
		switch rec := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			t.Fatal(rec)
		case *benchfmt.Result:
			name := string(rec.Name)
			require.Equal(t, "vnni", rec.GetConfig("tier"))
			if values[name] == nil {
				values[name] = map[string][]float64{}
			}
			for _, v := range rec.Values {
				values[name][v.Unit] = append(values[name][v.Unit], v.Value)
			}
			_, parts := rec.Name.Parts()
			for _, p := range parts {
				require.Regexp(t, `^/\w+=[^=]+$`, string(p), "key=value, and no GOMAXPROCS")
			}
		}
	}
	require.NoError(t, reader.Err())
	return values, reader.Units()
}

func TestBenchText(t *testing.T) {
	values, units := bench(t, kernels())
	for _, unit := range []string{"B/s", "FLOP/s", "OP/s", "share-of-limit", "tokens/s"} {
		require.Equal(t, 1, units.GetBetter(unit), unit)
	}
	require.Equal(t, map[string][]float64{"sec/op": {0.001, 0.002}, "B/s": {10e9, 5e9}, "OP/s": {4e9, 2e9}, "share-of-limit": {0.5, 0.25}},
		values["Kernel/op=matmul.qkv/type=q8_0/T=1/N=8/K=4/threads=1"])
	require.Equal(t, map[string][]float64{"sec/op": {0.04}, "B/s": {25e3}, "FLOP/s": {25e9}, "share-of-limit": {0.25}}, values["Kernel/op=exp/T=8/N=4/threads=2"])
	require.Equal(t, map[string][]float64{"B/s": {20e9}}, values["Limit/of=DRAM/threads=1"])
	require.Equal(t, map[string][]float64{"OP/s": {4e12}}, values["Limit/of=int8_AVX512-VNNI/threads=2"])

	values, _ = bench(t, rows())
	require.Equal(t, map[string][]float64{"sec/op": {0.1}, "B/s": {10e9}, "OP/s": {10e9}, "share-of-limit": {0.5}, "tokens/s": {100}},
		values["Engine/model=tiny_one.gguf/prompt=0/gen=10/depth=0/cache=q8_0/threads=1"])
	require.Len(t, values["Engine/model=tiny_one.gguf/prompt=30/gen=0/depth=7/cache=f16/threads=2"]["tokens/s"], 3)
}

func TestFigure(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    *Report
		want []string
	}{
		{"kernels", kernels(), []string{"Abacus 9000, vnni kernels", "1 thread", "2 threads", "DRAM 20 GB/s", "int8 AVX512-VNNI 4000 GOP/s", "products, q8_0", "exp"}},
		{"models", rows(), []string{"llama 135M Q8_0", "pp30 @ d7", "tg10"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			svg := string(tc.r.Figure().SVG())
			for _, text := range tc.want {
				require.Contains(t, svg, text)
			}
			require.Equal(t, svg, string(tc.r.Figure().SVG()), "same bytes twice")
		})
	}
	require.Contains(t, string((&Report{Limits: limits()}).Figure().SVG()), "nothing was measured")
}
