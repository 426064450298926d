package probe

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
	"meibench/internal/units"
)

// limits of a made-up machine.
func limits() *Limits {
	nan := math.NaN()
	return &Limits{
		When: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Took: time.Second,
		Machine: Machine{CPU: "Abacus 9000", OS: "linux", Arch: "amd64", Cores: 4, Memory: 16 * units.GiB,
			Caches: []Cache{{1, 32 * units.KiB, 1}, {2, units.MiB, 1}}},
		Figures: []Figure{
			{Name: PeakF32, Detail: "AVX2", Threads: 1, Value: 80e9, Unit: "FLOP/s", N: 3, Low: 79e9, High: 80e9},
			{Name: PeakF32, Detail: "AVX-512", Threads: 1, Value: 100e9, Unit: "FLOP/s", N: 3, Low: 99e9, High: 100e9},
			{Name: PeakF32, Detail: "AVX-512", Threads: 4, Value: 390e9, Unit: "FLOP/s", N: 3, Low: 380e9, High: 390e9},
			{Name: DRAMRead, Threads: 1, Value: 20e9, Unit: "B/s", N: 3, Low: 19e9, High: 20e9},
			{Name: DRAMRead, Threads: 2, Value: 35e9, Unit: "B/s", N: 3, Low: 34e9, High: 35e9},
			{Name: CacheRead, Detail: "L1", Threads: 1, Value: 400e9, Unit: "B/s", N: 3, Low: 399e9, High: 400e9},
			{Name: CacheRead, Detail: "L2", Threads: 1, Value: 100e9, Unit: "B/s", N: 3, Low: 99e9, High: 100e9},
			{Name: StorageRead, Value: 1e9, Unit: "B/s", N: 3, Low: 9e8, High: 1e9, Method: "read"},
			{Name: PowerIdle, Value: nan, Unit: "W", Method: "not measured: no counters", Low: nan, High: nan},
			{Name: PowerBusy, Value: nan, Unit: "W", Method: "not measured: no counters", Low: nan, High: nan},
		},
	}
}

func TestLimitsAtSomeThreads(t *testing.T) {
	l := limits()
	for _, tc := range []struct {
		name, figure, detail string
		threads              int
		want                 float64
	}{
		{"the best instruction set", PeakF32, "", 1, 100e9},
		{"the next lower count", PeakF32, "", 3, 100e9},
		{"all threads", PeakF32, "", 4, 390e9},
		{"more than were measured", DRAMRead, "", 8, 35e9},
		{"a level of cache", CacheRead, "L2", 2, 100e9},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, ok := l.at(tc.figure, tc.detail, tc.threads)
			require.True(t, ok)
			require.Equal(t, tc.want, v)
		})
	}
	_, ok := l.at(PowerIdle, "", 1)
	require.False(t, ok, "unknown is not a limit")
}

func TestShareOfTheLimit(t *testing.T) {
	for _, tc := range []struct {
		name  string
		k     Kernel
		share float64
		bound string
	}{
		// 1e9 FLOP at 100 GFLOP/s take 10 ms
		{"bound by arithmetic", Kernel{FLOP: 1e9, Bytes: 1e6, Time: 20 * time.Millisecond, Threads: 1}, 0.5, "F32 AVX-512"},
		// 200 MB at 20 GB/s take 10 ms
		{"bound by memory", Kernel{FLOP: 1e6, Bytes: 200e6, Time: 40 * time.Millisecond, Threads: 1}, 0.25, "DRAM"},
		// 500 kB fit L2: 5 µs at 100 GB/s
		{"bound by a cache", Kernel{FLOP: 1, Bytes: 500e3, Time: 10 * time.Microsecond, Threads: 1}, 0.5, "L2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			share, bound := limits().Share(tc.k.Work(), tc.k.Threads, tc.k.Time)
			require.InDelta(t, tc.share, share, 1e-9)
			require.Equal(t, tc.bound, bound)
		})
	}
	share, bound := (*Limits)(nil).Share(Work{Float: 1, Bytes: 1}, 1, 1)
	require.Zero(t, share)
	require.Empty(t, bound)
}

func TestKernelsAreTimedAtTheModelsShapes(t *testing.T) {
	m := tiny(t)
	list, err := MeasureKernels(t.Context(), m.Weights, limits(), 1)
	require.NoError(t, err)
	ops := map[string]int{}
	for _, k := range list {
		ops[k.Op]++
		require.Positive(t, k.Time, k.Op)
		require.Positive(t, k.FLOP, k.Op)
		require.Positive(t, k.Bytes, k.Op)
		require.Equal(t, 1, k.Threads)
	}
	require.Equal(t, map[string]int{"matmul.q": 3, "matmul.k": 3, "matmul.out": 3, "matmul.gate": 3, "matmul.down": 3, "matmul.head": 3,
		"attention": 3, "rmsnorm": 2, "swiglu": 2}, ops)
	// gate for 8 tokens: 2·8·64·32 FLOP; 64·32 weights of 4 bytes, 8·(64+32) activations
	for _, k := range list {
		if k.Op == "matmul.gate" && k.Tokens == 8 {
			require.Equal(t, 32768.0, k.FLOP)
			require.Equal(t, 11264.0, k.Bytes)
			require.Equal(t, "T=8 N=64 K=32", k.Shape)
		}
	}
}

func TestHostSheetIsAProfileLikeAnyOther(t *testing.T) {
	fit := law()
	h := Host{Limits: limits(), Fits: []profiles.Fit{fit}, Threads: 2, Kernels: []Kernel{
		{Op: "matmul.q", Tokens: 64, FLOP: 5e9, Bytes: 1, Time: 100 * time.Millisecond}, // 50 GFLOP/s of 100
		{Op: "matmul.q", Tokens: 1, FLOP: 1, Bytes: 7e9, Time: time.Second},             // 7 GB/s of 35
		{Op: "matmul.q", Tokens: 8, FLOP: 1, Bytes: 1, Time: time.Hour},                 // neither
	}}
	d, err := HostSheet(h)
	require.NoError(t, err)
	require.Equal(t, profiles.Host, d.Name)
	require.Equal(t, 100e9, d.PeakFP16.Value, "2 threads were not measured, 1 was")
	require.Equal(t, 35e9, d.Bandwidth.Value)
	require.InDelta(t, 0.5, d.Law.MFU.Value, 1e-9)
	require.InDelta(t, 0.2, d.Law.Efficiency.Value, 1e-9)
	require.Equal(t, profiles.Measured, d.PeakFP16.Kind)
	require.Contains(t, d.PeakFP16.Source, "meibench profile on Abacus 9000, 2026-11-22")
	require.NotNil(t, d.Law.PassOverhead, "the prior of the class fills in the rest")

	text, err := d.YAML()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "host.yaml")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	again, err := profiles.LoadDevice(path)
	require.NoError(t, err)
	require.Equal(t, d.Digest(), again.Digest())

	m := tinySpec()
	op := hardware.Op{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: 1, Context: 12}}}
	require.Equal(t, predict(&fit, &op), costmodel.NewLaw(again).Time(&op), "the fit speaks for its model")
}

func TestHostPower(t *testing.T) {
	h := Host{Limits: limits(), Threads: 2}
	d, err := HostSheet(h)
	require.NoError(t, err)
	require.Equal(t, profiles.Assumed, d.Power.Active.Kind)
	require.Equal(t, 12.0, d.Power.Active.Value, "6 W for each of 2 busy threads")
	require.Equal(t, 6.0, d.Power.Idle.Value, "1.5 W for each of 4 cores")
	require.Contains(t, d.Power.Idle.Source, "no counters")

	for i := range h.Limits.Figures {
		switch f := &h.Limits.Figures[i]; f.Name {
		case PowerIdle:
			f.Value, f.Method = 10, "RAPL [package-0]"
		case PowerBusy:
			f.Value = 50
		}
	}
	d, err = HostSheet(h)
	require.NoError(t, err)
	require.Equal(t, profiles.Measured, d.Power.Active.Kind)
	require.Equal(t, 20.0, d.Power.Active.Value, "2 of 4 threads: half of the 40 W that all add")
	require.Equal(t, 10.0, d.Power.Idle.Value)
}

func TestHostSheetNeedsLimits(t *testing.T) {
	h := Host{Limits: limits()}
	h.Limits.Figures = h.Limits.Figures[3:]
	_, err := HostSheet(h)
	require.ErrorContains(t, err, "no figure peak_f32")
}

func TestReport(t *testing.T) {
	_, ev, err := lived(6).fit()
	require.NoError(t, err)
	l := limits()
	l.Warnings = []string{"something else used the processor"}
	r := &Report{Limits: l, Fits: []FittedModel{{law(), ev}},
		Kernels: []Kernel{{Op: "matmul.q", Shape: "T=1 N=8 K=8", Threads: 1, FLOP: 128, Bytes: 320, Time: time.Microsecond, Share: 0.25, Bound: "L1"}}}
	var text bytes.Buffer
	require.NoError(t, r.Text(&text))
	for _, want := range []string{"Abacus 9000, 4 core(s), linux/amd64, 16 GiB", "100 GFLOP/s", "19 G .. 20 GB/s", "power_idle", "unknown",
		"not measured: no counters", "matmul.q", "25 %", "MODEL tiny", "wake decode: ", "operations left out of the fit", "warning: something else"} {
		require.Contains(t, text.String(), want)
	}
	require.NotContains(t, text.String(), "NaN")

	var data bytes.Buffer
	require.NoError(t, r.JSON(&data))
	var back struct {
		Limits struct {
			Figures []struct {
				Name  string
				Value *float64
			}
		}
		Fits []struct {
			Evidence struct{ Timings []struct{ Kind string } }
		}
	}
	require.NoError(t, json.Unmarshal(data.Bytes(), &back))
	for _, f := range back.Limits.Figures {
		require.Equal(t, f.Name == PowerIdle || f.Name == PowerBusy, f.Value == nil, f.Name)
	}
	require.NotEmpty(t, back.Fits[0].Evidence.Timings)
}

func TestScaled(t *testing.T) {
	for _, tc := range []struct {
		x    float64
		unit string
		want string
	}{{0, "s", "0 s"}, {1.5e-6, "s", "1.5 µs"}, {42e9, "B/s", "42 GB/s"}, {1, "W", "1 W"}, {-2e-3, "s", "-2 ms"}, {1e-15, "s", "1e-15 s"}} {
		require.Equal(t, tc.want, scaled(tc.x, tc.unit))
	}
}
