package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/probe"
	"meibench/reference/models"
)

// someLimits stand for those of this machine, which take seconds to measure.
func someLimits() *probe.Limits {
	return &probe.Limits{Tier: "vnni", Machine: probe.Machine{CPU: "Abacus 9000"}, Figures: []probe.Figure{
		{Name: probe.DRAMRead, Threads: 1, Value: 1e12, Unit: "B/s"}, {Name: probe.PeakF32, Detail: "AVX-512", Threads: 1, Value: 1e14, Unit: "FLOP/s"},
		{Name: probe.PeakInt8, Detail: "AVX512-VNNI", Threads: 1, Value: 1e14, Unit: "OP/s"}}}
}

// small are flags whose measurement takes moments.
func small() *benchFlags {
	return &benchFlags{shape: "C=64,F=128,H=4,G=2,D=16", types: []string{"q8_0", "F16"}, tokens: []int{1, 4}, depths: []int{8}, threads: []int{1, 2},
		prompts: []int{16}, gen: []int{4}, repeats: 2, cache: "f16", output: "table", limits: someLimits(), memory: 1 << 16, target: time.Microsecond}
}

func runSmall(t *testing.T, f *benchFlags) string {
	t.Helper()
	var out, errOut bytes.Buffer
	require.NoError(t, f.run(t.Context(), &app{out: &out, err: &errOut, quiet: true}), errOut.String())
	return out.String()
}

func TestBenchKernelsOfALayer(t *testing.T) {
	dir := t.TempDir()
	for _, ext := range []string{"svg", "png", "pdf"} {
		f := small()
		f.figure, f.bench = filepath.Join(dir, "roof."+ext), filepath.Join(dir, "bench.txt")
		text := runSmall(t, f)
		require.Contains(t, text, "layer C=64,F=128,H=4,G=2,D=16")
		require.Equal(t, 8, strings.Count(text, "matmul.gate_up"), "two types, tokens and threads")
		require.Regexp(t, `attention +T=1 past=8 H=4 G=2 D=16 +f16 +1 +vnni`, text)
		data, err := os.ReadFile(f.figure)
		require.NoError(t, err)
		require.True(t, bytes.Contains(data[:100], []byte(map[string]string{"svg": "<svg", "png": "PNG", "pdf": "%PDF"}[ext])), ext)
	}
	data, err := os.ReadFile(filepath.Join(dir, "bench.txt"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, strings.Count(string(data), "\nBenchmarkKernel/op=matmul.gate_up/type=f16/T=4/"), 6, "at least three trials on one thread and on two")
	require.Contains(t, string(data), " share-of-limit\n")
}

func TestBenchKernelsOfAModel(t *testing.T) {
	f := small()
	f.models, f.depths, f.output = []string{"mei-nano"}, []int{0, 8}, "json"
	var rows []struct {
		File   string  `json:"model_filename"`
		Type   string  `json:"model_type"`
		Size   int64   `json:"model_size"`
		Params int     `json:"model_n_params"`
		Prompt int     `json:"n_prompt"`
		Gen    int     `json:"n_gen"`
		Depth  int     `json:"n_depth"`
		Thread int     `json:"n_threads"`
		NS     []int64 `json:"samples_ns"`
		Share  float64 `json:"share_of_limit"`
	}
	require.NoError(t, json.Unmarshal([]byte(runSmall(t, f)), &rows))
	require.Len(t, rows, 2*2*2, "threads, depths, and prompt or generation")
	var order [][4]int
	for _, r := range rows {
		require.Equal(t, "mei-nano", r.File)
		require.Regexp(t, `^llama 0\.3\d+M F16$`, r.Type)
		require.Len(t, r.NS, 2)
		require.Positive(t, r.Share)
		require.Positive(t, r.Params)
		require.Greater(t, r.Size, int64(2*r.Params), "two bytes a weight and four of a norm")
		order = append(order, [4]int{r.Thread, r.Depth, r.Prompt, r.Gen})
	}
	require.Equal(t, [][4]int{{1, 0, 16, 0}, {1, 0, 0, 4}, {1, 8, 16, 0}, {1, 8, 0, 4}, {2, 0, 16, 0}, {2, 0, 0, 4}, {2, 8, 16, 0}, {2, 8, 0, 4}}, order)

	raw, err := models.Bytes("mei-nano")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "copy.gguf")
	require.NoError(t, os.WriteFile(path, raw, 0o600))
	f.models, f.output = []string{"mei-nano", path}, "md"
	require.Equal(t, 2*2, strings.Count(runSmall(t, f), "| tg4 @ d8 "), "models and threads")
}

func TestBenchKernelsRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"unknown type", []string{"--types", "q4_z"}, `unknown type "q4_z"; did you mean "q4_0"? (have f32, f16`},
		{"unknown shape", []string{"--shape", "gpt-5"}, "want one of llama-3.1-8b"},
		{"rows that are not whole blocks", []string{"--shape", "qwen2.5-0.5b", "--types", "q4_k"}, "choose another type or shape"},
		{"unknown model", []string{"--model", "absent"}, "meibench ships mei-base, mei-nano, mei-small, and there is no such file"},
		{"a file that is no model", []string{"--model", "main.go"}, "open model main.go"},
		{"more tokens than the model takes", []string{"--model", "mei-nano", "-d", "100000"}, "choose smaller --prompt, --gen or --depth"},
		{"unknown cache type", []string{"--cache-type", "q4_0"}, "have f32, f16, q8_0"},
		{"unknown output", []string{"-o", "sql"}, "have csv, json"},
		{"a figure of another kind", []string{"--figure", "roof.jpg"}, ".svg, .png or .pdf"},
		{"no threads", []string{"--threads", "0"}, "--threads [0]: want numbers from 1"},
		{"a prompt without a model", []string{"-p", "64"}, "name one with --model"},
		{"neither prompt nor generation", []string{"--model", "mei-nano", "-p", "0", "-n", "0"}, "nothing to measure"},
		{"a shape with a model", []string{"--model", "mei-nano", "--shape", "tinyllama"}, "leave out --model"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, errOut := do(t, append([]string{"bench-kernels", "-q"}, tc.args...)...)
			require.Equal(t, 2, code, errOut)
			require.Contains(t, errOut, tc.want)
			require.Empty(t, out)
		})
	}
}

func TestBenchKernelsInterrupted(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	f := small()
	f.models = []string{"mei-nano"}
	err := f.run(ctx, &app{out: io.Discard, err: io.Discard, quiet: true})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "measure mei-nano: pp16 @ d8")
}
