package kernel_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/hwtest"
	"meibench/hardware/kernel"
	"meibench/hardware/world"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

// tiny is a random model of four layers; random weights have no favourite token,
// so a wrong cache or a wrong input changes what it says.
func tiny(t testing.TB, name string, dim int) kernel.Loaded {
	c := llm.Config{Arch: llm.Llama, Layers: 4, Dim: dim, Heads: 4, KVHeads: 2, FFN: 3 * dim, Vocab: 97, Context: 128}
	w, err := llm.New(c, 5)
	require.NoError(t, err)
	params, err := w.Params()
	require.NoError(t, err)
	for _, p := range params {
		for i := range p.Data {
			if p.N > 1 { // fresh weights are so small that the model repeats its last word
				p.Data[i] *= 10
			}
		}
	}
	return kernel.Loaded{Spec: &hardware.Model{Name: name, Layers: 4, Dim: dim, Heads: 4, KVHeads: 2, HeadDim: dim / 4, FFN: 3 * dim, Vocab: 97,
		BytesPerWeight: 4, KVBytes: 4}, Weights: w, End: -1}
}

// words is the start of one fixed random text.
func words(n int) []int32 {
	r := rng.Stream(9, "words")
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(97))
	}
	return ids
}

// disguised hides a world's type from the device, which then emulates.
type disguised struct{ world.Env }

func TestDevicesConform(t *testing.T) {
	m := tiny(t, "tiny", 32)
	for _, tc := range []struct {
		name string
		env  func(world.Env) world.Env
		cfg  kernel.Config
	}{
		{"measured", func(e world.Env) world.Env { return e }, kernel.Config{}},
		{"measured, two threads, two slots", func(e world.Env) world.Env { return e }, kernel.Config{Threads: 2, Slots: 2}},
		{"emulated", func(e world.Env) world.Env { return disguised{e} }, kernel.Config{Slowdown: 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cfg.Name, tc.cfg.Models = "host", []kernel.Loaded{m}
			hwtest.Device(t, func(e world.Env) hardware.Device {
				return newDevice(t, tc.env(e), tc.cfg)
			}, hwtest.DeviceOptions{Model: m.Spec, Prompt: words, Measured: true})
		})
	}
}

func newDevice(t testing.TB, env world.Env, cfg kernel.Config) *kernel.Device {
	d, err := kernel.New(env, cfg)
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return d
}

// in runs a body as a process of a world with a device in it.
func in(t testing.TB, w world.Runner, cfg kernel.Config, body func(d *kernel.Device)) {
	if cfg.Name == "" {
		cfg.Name = "host"
	}
	d := newDevice(t, w, cfg)
	w.Go("test", func() { body(d) })
	require.NoError(t, w.Run())
}

// talk asks for n tokens after each prompt, all in one batch, on the layers below
// cut and then on those above it (cut 0: in one piece).
type talk struct {
	prompts [][]int32
	n, cut  int
}

// answer generates greedily.
func answer(t testing.TB, d *kernel.Device, m *hardware.Model, ask talk) [][]int32 {
	prompts, cut := ask.prompts, ask.cut
	spans := []hardware.Span{m.All()}
	if cut > 0 {
		spans = []hardware.Span{{Hi: cut}, {Lo: cut, Hi: m.Layers}}
	}
	seqs := make([]hardware.Seq, len(prompts))
	for i, p := range prompts {
		seqs[i] = hardware.Seq{ID: int64(i + 1), New: len(p), Tokens: p}
	}
	said := make([][]int32, len(prompts))
	kind := hardware.Prefill
	for range ask.n {
		for _, span := range spans {
			res, err := d.Run(&hardware.Op{Kind: kind, Model: m, Layers: span, Seqs: seqs})
			require.NoError(t, err)
			for i, out := range res.Seqs {
				seqs[i].In = out.Hidden
				if span.Hi == m.Layers {
					said[i] = append(said[i], out.Token)
				}
			}
		}
		kind = hardware.Decode
		for i := range seqs {
			s := &seqs[i]
			s.Context, s.New, s.In = s.Context+s.New, 1, hardware.Payload{}
			s.Tokens = []int32{said[i][len(said[i])-1]}
		}
	}
	for _, span := range spans {
		_, err := d.Run(&hardware.Op{Kind: hardware.Drop, Model: m, Layers: span, Seqs: seqs})
		require.NoError(t, err)
	}
	return said
}

func TestTokensDoNotDependOnHowTheWorkIsDone(t *testing.T) {
	m := tiny(t, "tiny", 32)
	prompts := [][]int32{words(40), words(7), words(1), words(23)}
	const n = 30 // past 64 positions: caches grow on the way
	var want [][]int32
	in(t, world.NewReal(t.Context()), kernel.Config{Models: []kernel.Loaded{m}}, func(d *kernel.Device) {
		for _, p := range prompts {
			want = append(want, answer(t, d, m.Spec, talk{[][]int32{p}, n, 0})...)
		}
	})
	kinds := map[int32]bool{}
	for _, id := range want[0] {
		kinds[id] = true
	}
	require.Greater(t, len(kinds), 2, "a model that says one word tests nothing")
	for _, tc := range []struct {
		name    string
		threads int
		cut     int
		sim     bool
	}{
		{"in one batch", 1, 0, false},
		{"cut after the first layer", 1, 1, false},
		{"cut before the last layer", 2, 3, false},
		{"emulated", 1, 0, true},
		{"emulated, cut in the middle, two threads", 2, 2, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var w world.Runner = world.NewReal(t.Context())
			if tc.sim {
				w = world.NewSim(t.Context())
			}
			in(t, w, kernel.Config{Models: []kernel.Loaded{m}, Threads: tc.threads}, func(d *kernel.Device) {
				require.Equal(t, want, answer(t, d, m.Spec, talk{prompts, n, tc.cut}))
			})
		})
	}
}

func TestHiddenStatesAreThoseOfTheEngine(t *testing.T) {
	m := tiny(t, "tiny", 32)
	ids := words(11)
	work := m.Weights.NewWork(1)
	defer work.Close()
	cache, err := m.Weights.NewCache(0, 2, 64)
	require.NoError(t, err)
	seqs := []llm.Seq{{IDs: ids, Cache: cache}}
	require.NoError(t, work.Forward(0, 2, seqs))
	in(t, world.NewReal(t.Context()), kernel.Config{Models: []kernel.Loaded{m}}, func(d *kernel.Device) {
		res, err := d.Run(&hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: hardware.Span{Hi: 2}, Seqs: []hardware.Seq{{ID: 1, New: 11, Tokens: ids}}})
		require.NoError(t, err)
		require.Equal(t, units.Bytes(11*32*4), res.Seqs[0].Hidden.Bytes)
		for i, x := range seqs[0].Out {
			require.Equal(t, math.Float32bits(x), binary.LittleEndian.Uint32(res.Seqs[0].Hidden.Data[4*i:]))
		}
	})
}

func TestRefusals(t *testing.T) {
	m := tiny(t, "tiny", 32)
	prefill := func(s hardware.Seq) *hardware.Op {
		return &hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All(), Seqs: []hardware.Seq{s}}
	}
	for _, tc := range []struct {
		name string
		op   *hardware.Op
		want string
	}{
		{"context that is not there", prefill(hardware.Seq{ID: 9, Context: 3, New: 1, Tokens: words(1)}), "has 0 tokens cached for layers 0 to 4, the operation counts on 3"},
		{"context overflow", prefill(hardware.Seq{ID: 1, Context: 10, New: 119, Tokens: words(119)}), `would grow to 129 tokens, model "tiny" has a context of 128`},
		{"no token ids", prefill(hardware.Seq{ID: 2, New: 5}), "brings 0 token ids for 5 new tokens"},
		{"token beyond the vocabulary", prefill(hardware.Seq{ID: 3, New: 1, Tokens: []int32{97}}), "want 0 to 96"},
		{"activations of the wrong size", &hardware.Op{Kind: hardware.Decode, Model: m.Spec, Layers: hardware.Span{Lo: 2, Hi: 4},
			Seqs: []hardware.Seq{{ID: 4, New: 1, In: hardware.Payload{Data: make([]byte, 4)}}}}, "sequence 4: "},
		{"two tokens to decode", &hardware.Op{Kind: hardware.Decode, Model: m.Spec, Layers: m.Spec.All(),
			Seqs: []hardware.Seq{{ID: 1, Context: 10, New: 2, Tokens: words(2)}}}, "decode adds one"},
		{"another model", &hardware.Op{Kind: hardware.Prefill, Model: &hardware.Model{Name: "other", Layers: 4}, Layers: hardware.Span{Hi: 4},
			Seqs: []hardware.Seq{{ID: 5, New: 1, Tokens: words(1)}}}, `does not hold model "other"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, world.NewReal(t.Context()), kernel.Config{Models: []kernel.Loaded{m}}, func(d *kernel.Device) {
				_, err := d.Run(prefill(hardware.Seq{ID: 1, New: 10, Tokens: words(10)}))
				require.NoError(t, err)
				_, err = d.Run(tc.op)
				require.ErrorContains(t, err, tc.want)
				_, err = d.Run(&hardware.Op{Kind: hardware.Decode, Model: m.Spec, Layers: m.Spec.All(), Seqs: []hardware.Seq{{ID: 1, Context: 10, New: 1, Tokens: words(1)}}})
				require.NoError(t, err, "a refusal leaves the sequence as it was")
			})
		})
	}
}

func TestDropFreesCaches(t *testing.T) {
	m := tiny(t, "tiny", 32)
	w := m.Weights
	one := w.CacheBytes(quant.F32, 0, 4, 64) // a cache starts with room for 64 tokens
	limit := w.WeightBytes(0, 4) + 2*one
	in(t, world.NewReal(t.Context()), kernel.Config{Models: []kernel.Loaded{m}, Memory: limit}, func(d *kernel.Device) {
		start := func(id int64, n int) error {
			_, err := d.Run(&hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All(), Seqs: []hardware.Seq{{ID: id, New: n, Tokens: words(n)}}})
			return err
		}
		drop := func(ids ...int64) {
			op := &hardware.Op{Kind: hardware.Drop, Model: m.Spec, Layers: m.Spec.All()}
			for _, id := range ids {
				op.Seqs = append(op.Seqs, hardware.Seq{ID: id})
			}
			_, err := d.Run(op)
			require.NoError(t, err)
		}
		require.NoError(t, start(1, 5))
		require.NoError(t, start(2, 5))
		require.ErrorIs(t, start(3, 5), hardware.ErrMemory)
		drop(1)
		require.NoError(t, start(3, 5), "the dropped cache is used again")
		drop(2, 3)
		require.NoError(t, start(4, 100), "128 tokens fit where two caches of 64 were given up")
		drop(4)
		require.NoError(t, start(1, 5), "a dropped sequence starts again")
	})
}

func TestCachesOfTwoModelsDoNotMix(t *testing.T) {
	a, b := tiny(t, "a", 32), tiny(t, "b", 64)
	in(t, world.NewReal(t.Context()), kernel.Config{Models: []kernel.Loaded{a, b}}, func(d *kernel.Device) {
		first := answer(t, d, a.Spec, talk{[][]int32{words(9)}, 4, 0})
		answer(t, d, b.Spec, talk{[][]int32{words(9)}, 4, 0})
		require.Equal(t, first, answer(t, d, a.Spec, talk{[][]int32{words(9)}, 4, 0}))
	})
}

func TestEmulatedTimeIsKernelTimeTimesSlowdown(t *testing.T) {
	m := tiny(t, "tiny", 32)
	took := func(slowdown float64) (least time.Duration) {
		in(t, world.NewSim(t.Context()), kernel.Config{Models: []kernel.Loaded{m}, Slowdown: slowdown}, func(d *kernel.Device) {
			for id := range int64(9) {
				res, err := d.Run(&hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All(), Seqs: []hardware.Seq{{ID: id, New: 60, Tokens: words(60)}}})
				require.NoError(t, err)
				u := res.Usage
				require.Equal(t, hardware.Emulated, u.Time)
				if busy := u.End - u.Start; least == 0 || busy < least {
					least = busy
				}
			}
		})
		return least
	}
	ratio := took(1000).Seconds() / took(1).Seconds()
	require.InEpsilon(t, 1000, ratio, 0.5, "the same work, a thousand times slower in virtual time")
}

func TestManyUsersOnSeveralSlots(t *testing.T) { // with -race: benches and caches stay with their owners
	m := tiny(t, "tiny", 32)
	w := world.NewReal(t.Context())
	d := newDevice(t, w, kernel.Config{Name: "host", Models: []kernel.Loaded{m}, Slots: 3, Threads: 2})
	said := make([][]int32, 12)
	for u := range said {
		w.Go(fmt.Sprint("user ", u), func() {
			op := &hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All(), Seqs: []hardware.Seq{{ID: int64(u), New: 8, Tokens: words(8)}}}
			for range 6 {
				res, err := d.Run(op)
				if err != nil {
					panic(err)
				}
				id := res.Seqs[0].Token
				said[u] = append(said[u], id)
				s := &op.Seqs[0]
				op.Kind, s.Context, s.New, s.Tokens = hardware.Decode, s.Context+s.New, 1, []int32{id}
			}
			op.Kind = hardware.Drop
			if _, err := d.Run(op); err != nil {
				panic(err)
			}
		})
	}
	require.NoError(t, w.Run())
	for _, s := range said {
		require.Equal(t, said[0], s)
	}
	require.Positive(t, d.Busy())
}

func TestConfigIsChecked(t *testing.T) {
	m := tiny(t, "tiny", 32)
	for _, tc := range []struct {
		name string
		cfg  kernel.Config
		want string
	}{
		{"no model", kernel.Config{}, "no model"},
		{"negative slowdown", kernel.Config{Models: []kernel.Loaded{m}, Slowdown: -1}, "slowdown"},
		{"slowdown is not a number", kernel.Config{Models: []kernel.Loaded{m}, Slowdown: math.NaN()}, "slowdown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := kernel.New(world.NewSim(t.Context()), tc.cfg)
			require.ErrorContains(t, err, tc.want)
		})
	}
}
