package engine

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"time"

	"meibench/hardware/probe"
)

// record is a row with the fields of llama-bench, by their names and in their
// order; those that say how a graphics card takes part say that none does. What
// llama-bench has no field for stands at the end.
type record struct {
	Commit      string  `json:"build_commit"`
	BuildNumber int     `json:"build_number"`
	CPU         string  `json:"cpu_info"`
	GPU         string  `json:"gpu_info"`
	Backends    string  `json:"backends"`
	File        string  `json:"model_filename"`
	Type        string  `json:"model_type"`
	Size        int64   `json:"model_size"`
	Params      int     `json:"model_n_params"`
	Batch       int     `json:"n_batch"`
	MicroBatch  int     `json:"n_ubatch"`
	Threads     int     `json:"n_threads"`
	CPUMask     string  `json:"cpu_mask"`
	CPUStrict   bool    `json:"cpu_strict"`
	Poll        int     `json:"poll"`
	TypeK       string  `json:"type_k"`
	TypeV       string  `json:"type_v"`
	GPULayers   int     `json:"n_gpu_layers"`
	CPUExperts  int     `json:"n_cpu_moe"`
	SplitMode   string  `json:"split_mode"`
	MainGPU     int     `json:"main_gpu"`
	NoOffloadKV bool    `json:"no_kv_offload"`
	Flash       int     `json:"flash_attn"`
	Devices     string  `json:"devices"`
	TensorSplit string  `json:"tensor_split"`
	Overrides   string  `json:"tensor_buft_overrides"`
	LoadMode    string  `json:"load_mode"`
	Embeddings  bool    `json:"embeddings"`
	NoOffload   int     `json:"no_op_offload"`
	NoHost      bool    `json:"no_host"`
	FitTarget   int     `json:"fit_target"`
	FitContext  int     `json:"fit_min_ctx"`
	Prompt      int     `json:"n_prompt"`
	Gen         int     `json:"n_gen"`
	Depth       int     `json:"n_depth"`
	When        string  `json:"test_time"`
	AvgNS       int64   `json:"avg_ns"`
	DeviationNS int64   `json:"stddev_ns"`
	AvgTS       float64 `json:"avg_ts"`
	DeviationTS float64 `json:"stddev_ts"`

	Tier      string  `json:"tier"`
	BytesRate float64 `json:"mem_bytes_per_s"`
	OpsRate   float64 `json:"ops_per_s"`
	Limit     string  `json:"limit"`
	LimitRate float64 `json:"limit_per_s"` // in limit_unit
	LimitUnit string  `json:"limit_unit"`
	Share     float64 `json:"share_of_limit"`

	SamplesNS []int64   `json:"samples_ns" csv:"-"`
	SamplesTS []float64 `json:"samples_ts" csv:"-"`
}

func (r *Report) record(row *Row) record {
	share, bound := r.share(row)
	limit, _ := r.Limits.Limit(bound, row.Threads)
	kv := strings.ToLower(row.Cache.String())
	sec := row.mean().Seconds()
	x := record{Commit: r.Commit, CPU: r.Limits.Machine.CPU, Backends: "meibench " + r.Limits.Tier, File: row.Model.File, Type: row.Model.Type,
		Size: int64(row.Model.Bytes), Params: row.Model.Params, Batch: probe.PromptBatch, MicroBatch: probe.PromptBatch, Threads: row.Threads,
		CPUMask: "0x0", TypeK: kv, TypeV: kv, SplitMode: "none", Flash: 1, Devices: "none", TensorSplit: "0.00", Overrides: "none", LoadMode: "mmap",
		Prompt: row.Prompt, Gen: row.Gen, Depth: row.Depth, When: row.Began.UTC().Format(time.RFC3339), AvgNS: int64(row.mean()),
		Tier: r.Limits.Tier, BytesRate: row.Work.Bytes / sec, OpsRate: (row.Work.Float + row.Work.Int) / sec,
		Limit: bound, LimitRate: limit.Value, LimitUnit: limit.Unit, Share: share}
	x.AvgTS, x.DeviationTS, _ = row.PerSec()
	var squares float64
	for _, s := range row.Samples {
		x.SamplesNS = append(x.SamplesNS, int64(s))
		x.SamplesTS = append(x.SamplesTS, float64(row.Tokens())/s.Seconds())
		squares += math.Pow(float64(s-row.mean()), 2)
	}
	if n := len(row.Samples); n > 1 {
		x.DeviationNS = int64(math.Round(math.Sqrt(squares / float64(n-1))))
	}
	return x
}

// json writes rows as llama-bench does: a list, or a line each. Kernels are a
// list beside the limits, or a line each.
func (r *Report) json(w io.Writer, lines bool) error {
	e := json.NewEncoder(w)
	if !lines {
		e.SetIndent("", "  ")
	}
	if len(r.Rows) > 0 {
		list := make([]record, len(r.Rows))
		for i := range r.Rows {
			list[i] = r.record(&r.Rows[i])
		}
		if !lines {
			return e.Encode(list)
		}
		return encodeEach(e, list)
	}
	if !lines {
		return e.Encode(struct {
			Commit  string         `json:"build_commit"`
			Tier    string         `json:"tier"`
			Layer   string         `json:"layer"`
			Limits  *probe.Limits  `json:"limits"`
			Kernels []probe.Kernel `json:"kernels"`
		}{r.Commit, r.Limits.Tier, r.Layer.String(), r.Limits, r.Kernels})
	}
	type line struct {
		Tier  string `json:"tier"`
		Layer string `json:"layer"`
		probe.Kernel
	}
	var list []line
	for _, k := range r.Kernels {
		list = append(list, line{r.Limits.Tier, r.Layer.String(), k})
	}
	return encodeEach(e, list)
}

func encodeEach[T any](e *json.Encoder, list []T) error {
	for _, x := range list {
		if err := e.Encode(x); err != nil {
			return err
		}
	}
	return nil
}

// csv writes what JSON does, without the samples, or the table of kernels.
func (r *Report) csv(w io.Writer) error {
	if len(r.Rows) == 0 {
		return r.kernelTable().csv(w)
	}
	var s sheet
	for i := range r.Rows {
		names, values := fields(r.record(&r.Rows[i]))
		s.head, s.rows = names, append(s.rows, values)
	}
	return s.csv(w)
}

// fields lists a record by the names of its JSON.
func fields(x record) (names, values []string) {
	v := reflect.ValueOf(x)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Tag.Get("csv") == "-" {
			continue
		}
		value := fmt.Sprint(v.Field(i).Interface())
		if v.Field(i).Kind() == reflect.Bool { // llama-bench writes 0 and 1
			value = map[bool]string{false: "0", true: "1"}[v.Field(i).Bool()]
		}
		names, values = append(names, f.Tag.Get("json")), append(values, value)
	}
	return names, values
}
