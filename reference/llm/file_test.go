package llm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/gguf"
	"meibench/reference/quant"
)

func write(t testing.TB, m *Model, meta ...gguf.KV) []byte {
	var b bytes.Buffer
	require.NoError(t, m.Write(&b, meta...))
	return b.Bytes()
}

func read(raw []byte, o ReadOptions) (*Model, error) {
	return Read(bytes.NewReader(raw), int64(len(raw)), o)
}

func TestWriteReadSameLogits(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		m.RopeFactors = slices.Repeat([]float32{1.5}, m.RopeDim/2)
		raw := write(t, m, gguf.KV{Key: "general.name", Value: "tiny"})
		got, err := read(raw, ReadOptions{})
		require.NoError(t, err)
		require.Equal(t, m, got)
		ids := tokens(9, m.Vocab)
		require.Equal(t, all(t, work(t, m, 1), ids), all(t, work(t, got, 1), ids))
		require.Equal(t, raw, write(t, got, gguf.KV{Key: "general.name", Value: "tiny"}))

		path := filepath.Join(t.TempDir(), "m.gguf")
		require.NoError(t, os.WriteFile(path, raw, 0o600))
		opened, err := Open(path, ReadOptions{})
		require.NoError(t, err)
		require.Equal(t, m.Config, opened.Config)
		require.Equal(t, all(t, work(t, m, 1), ids), all(t, work(t, opened, 1), ids))
		require.Equal(t, raw, write(t, opened, gguf.KV{Key: "general.name", Value: "tiny"}))
		require.NoError(t, opened.Close())
		require.NoError(t, opened.Close(), "closing twice does no harm")
	})
	_, err := Open(filepath.Join(t.TempDir(), "absent.gguf"), ReadOptions{})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestReadQuantised(t *testing.T) {
	m := model(t, configs()["llama"])
	ids := tokens(9, m.Vocab)
	for _, typ := range quant.Encodable() {
		if m.Dim%typ.Block() != 0 {
			continue
		}
		q, err := m.As(typ)
		require.NoError(t, err)
		raw := write(t, q)
		got, err := read(raw, ReadOptions{})
		require.NoError(t, err)
		require.Equal(t, q, got)
		want := all(t, work(t, q, 1), ids)
		require.Equal(t, want, all(t, work(t, got, 1), ids))
		f32, err := read(raw, ReadOptions{F32: true})
		require.NoError(t, err)
		_, err = f32.Params()
		require.NoError(t, err, "every weight is a float32 slice")
		require.Equal(t, want, all(t, work(t, f32, 1), ids))
		if typ != quant.F32 {
			_, err = got.Params()
			require.ErrorContains(t, err, "As(quant.F32)")
		}
	}
}

// TestReadSpans: nodes that load only their layers compute the whole together.
func TestReadSpans(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		raw, ids := write(t, m), tokens(11, m.Vocab)
		want := all(t, work(t, m, 1), ids)
		for k := 1; k <= m.Layers; k++ {
			front, err := read(raw, ReadOptions{Lo: 0, Hi: k})
			require.NoError(t, err)
			back, err := read(raw, ReadOptions{Lo: k, Hi: m.Layers})
			require.NoError(t, err)
			s := []Seq{{IDs: ids, Cache: cache(t, front, 0, k), Want: Hidden}}
			require.NoError(t, work(t, front, 1).Forward(0, k, s))
			s = []Seq{{Hidden: s[0].Out, Cache: cache(t, back, k, m.Layers), Want: AllLogits}}
			require.NoError(t, work(t, back, 1).Forward(k, m.Layers, s))
			require.Equal(t, want, s[0].Out)
			if k < m.Layers {
				require.Nil(t, front.Norm)
				require.Nil(t, front.Blocks[k].AttnNorm)
				require.ErrorContains(t, front.Write(&bytes.Buffer{}), "only layers")
				s := []Seq{{IDs: ids, Cache: cache(t, front, 0, k), Want: LastLogits}}
				require.ErrorContains(t, work(t, front, 1).Forward(0, k, s), "without its head")
			}
			require.Nil(t, back.Blocks[0].AttnNorm)
			require.Equal(t, m.Tied, back.Embed.F32 != nil, "the embedding comes along only as a tied head")
		}
	})
	_, err := read(write(t, model(t, configs()["llama"])), ReadOptions{Lo: 1, Hi: 5})
	require.ErrorContains(t, err, "the model has 4")
}

// edit reads a file, lets change alter it, and writes it again.
func edit(t *testing.T, raw []byte, change func(meta *[]gguf.KV, tensors *[]gguf.TensorData)) []byte {
	f, err := gguf.Read(bytes.NewReader(raw), int64(len(raw)))
	require.NoError(t, err)
	var tensors []gguf.TensorData
	for _, info := range f.Tensors {
		data := make([]byte, info.Bytes)
		require.NoError(t, f.ReadTensor(data, info))
		tensors = append(tensors, gguf.TensorData{Name: info.Name, Type: info.Type, Dims: info.Dims, Data: gguf.Bytes(data)})
	}
	meta := f.KV
	change(&meta, &tensors)
	var b bytes.Buffer
	require.NoError(t, gguf.Write(&b, meta, tensors))
	return b.Bytes()
}

func set(key string, v any) func(*[]gguf.KV, *[]gguf.TensorData) {
	return func(meta *[]gguf.KV, _ *[]gguf.TensorData) {
		*meta = slices.DeleteFunc(*meta, func(kv gguf.KV) bool { return kv.Key == key })
		if v != nil {
			*meta = append(*meta, gguf.KV{Key: key, Value: v})
		}
	}
}

func change(name string, f func(*gguf.TensorData)) func(*[]gguf.KV, *[]gguf.TensorData) {
	return func(_ *[]gguf.KV, tensors *[]gguf.TensorData) {
		for i := range *tensors {
			if (*tensors)[i].Name == name {
				f(&(*tensors)[i])
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	raw := write(t, model(t, configs()["llama"]))
	for _, tc := range []struct {
		name   string
		change func(*[]gguf.KV, *[]gguf.TensorData)
		want   string
	}{
		{"architecture", set("general.architecture", "mamba"), `"mamba" is not supported, want one of gemma, gemma2, gemma3, llama, phi2`},
		{"no architecture", set("general.architecture", nil), "general.architecture"},
		{"architecture of another type", set("general.architecture", uint32(3)), "want string"},
		{"no layer count", set("llama.block_count", nil), "llama.block_count"},
		{"more layers than tensors", set("llama.block_count", uint32(5)), "blk.4."},
		{"absurd layer count", set("llama.block_count", uint64(1<<40)), "not a plausible size"},
		{"large layer count", set("llama.block_count", uint32(1<<12+1)), "4097, but the file has 39 tensors in all"},
		{"zero heads", set("llama.attention.head_count", uint32(0)), "Heads is 0"},
		{"experts without their number in use", set("llama.expert_count", uint32(8)), "llama.expert_used_count"},
		{"rotation of nothing", set("llama.rope.dimension_count", uint32(0)), "a model without rotation"},
		{"rotation wider than a head", set("llama.rope.dimension_count", uint32(18)), "RopeDim is 18, want 2 to 16"},
		{"a bias that llama has not", func(_ *[]gguf.KV, tensors *[]gguf.TensorData) {
			*tensors = append(*tensors, gguf.TensorData{Name: "blk.0.attn_q.bias", Type: quant.F32, Dims: []int{64}, Data: gguf.Bytes(make([]byte, 256))})
		}, `"blk.0.attn_q.bias", which llama does not use here`},
		{"uneven values", set("llama.attention.value_length", uint32(8)), "8 value channels"},
		{"position scaling", set("llama.rope.scaling.type", "ntk"), `by "ntk"`},
		{"width", set("llama.embedding_length", uint32(65)), "shape is"},
		{"no epsilon", set("llama.attention.layer_norm_rms_epsilon", nil), "epsilon"},
		{"weight type", change("blk.1.attn_q.weight", func(t *gguf.TensorData) {
			t.Type, t.Data = 26, gguf.Bytes(make([]byte, 64*64*4)) // I32
		}), "blk.1.attn_q.weight: weights are I32, want one of [F32 F16 Q4_0"},
		{"weight shape", change("blk.1.attn_q.weight", func(t *gguf.TensorData) { t.Dims = []int{32, 128} }), "shape is [32 128], want [64 64]"},
		{"missing weight", change("output_norm.weight", func(t *gguf.TensorData) { t.Name = "x" }), "output_norm.weight"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := read(edit(t, raw, tc.change), ReadOptions{})
			require.ErrorContains(t, err, tc.want)
		})
	}
	for n := 0; n < len(raw); n += 997 {
		_, err := read(raw[:n], ReadOptions{})
		require.Error(t, err, "cut after %d bytes", n)
	}
	nan := model(t, configs()["llama"])
	nan.Blocks[0].Q.F32[3] = float32(math.NaN())
	require.ErrorContains(t, nan.Write(&bytes.Buffer{}), "blk.0.attn_q.weight")
}

func TestWriteStopsOnError(t *testing.T) {
	require.ErrorContains(t, model(t, configs()["llama"]).Write(brokenDisk{}), "disk full")
}

type brokenDisk struct{}

func (brokenDisk) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// FuzzRead flips bytes of a good file: no panic, and whatever loads can be run.
func FuzzRead(f *testing.F) {
	m, err := New(Config{Arch: Llama, Layers: 1, Dim: 4, Heads: 2, KVHeads: 1, FFN: 4, Vocab: 3, Context: 8}, 1)
	require.NoError(f, err)
	raw := write(f, m)
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Add(binary.LittleEndian.AppendUint64(raw[:16:16], 1<<40))
	for _, c := range []Config{
		{Arch: Gemma3, Layers: 1, Dim: 4, Heads: 2, KVHeads: 1, FFN: 4, Vocab: 3, Context: 8, Window: 2, FinalSoftcap: 3, Tied: true},
		{Arch: Phi2, Layers: 1, Dim: 4, Heads: 1, KVHeads: 1, FFN: 4, Vocab: 3, Context: 8, RopeDim: 2},
		{Arch: Phi3, Layers: 1, Dim: 4, Heads: 1, KVHeads: 1, FFN: 4, Vocab: 3, Context: 8, Rope: RopeScaling{Kind: ScaleYaRN, Factor: 2}},
		{Arch: Qwen2MoE, Layers: 1, Dim: 4, Heads: 2, KVHeads: 1, FFN: 4, Vocab: 3, Context: 8, Experts: 3, ExpertsUsed: 2},
	} {
		m, err := New(c, 1)
		require.NoError(f, err)
		f.Add(write(f, m))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := read(raw, ReadOptions{})
		if err != nil || m.TotalParams() > 1<<16 || m.Layers > 8 {
			return
		}
		c, err := m.NewCache(0, m.Layers, 1)
		require.NoError(t, err)
		if c.Resident() > 1<<20 {
			return
		}
		require.NoError(t, work(t, m, 1).Forward(0, m.Layers, []Seq{{IDs: []int32{0}, Cache: c}}))
	})
}

func TestSampler(t *testing.T) {
	logits := []float32{1, 3, 2, 3, -4}
	require.EqualValues(t, 1, Greedy(logits), "the lowest id among equals")
	p := func(s Sampler) []float32 { out := make([]float32, 5); s.Probs(out, logits); return out }
	require.Equal(t, []float32{0, 1, 0, 0, 0}, p(Sampler{}))
	// By hand: e^(x-3) = 0.1353, 1, 0.3679, 1, 0.0009, sum 2.5041.
	require.InDeltaSlice(t, []float32{0.0540, 0.3993, 0.1469, 0.3993, 0.0004}, p(Sampler{Temperature: 1}), 1e-4)
	// Halved exponents: 0.3679, 1, 0.6065, 1, 0.0302, sum 3.0046.
	require.InDeltaSlice(t, []float32{0.1224, 0.3328, 0.2019, 0.3328, 0.0100}, p(Sampler{Temperature: 2}), 1e-4)
	require.InDeltaSlice(t, []float32{0, 0.5, 0, 0.5, 0}, p(Sampler{Temperature: 1, TopK: 2}), 1e-6)
	require.InDeltaSlice(t, []float32{0, 1, 0, 0, 0}, p(Sampler{Temperature: 1, TopK: 1}), 1e-6)
	// 0.3993 + 0.3993 = 0.7986 < 0.9, plus 0.1469 reaches it.
	require.InDeltaSlice(t, []float32{0, 0.4223, 0.1554, 0.4223, 0}, p(Sampler{Temperature: 1, TopP: 0.9}), 1e-4)
	// Of the two that TopK keeps, the first alone has half.
	require.InDeltaSlice(t, []float32{0, 1, 0, 0, 0}, p(Sampler{Temperature: 1, TopK: 2, TopP: 0.5}), 1e-6)

	s := Sampler{Temperature: 1, TopP: 0.9}
	want, counts := p(s), make([]float64, 5)
	r := rand.New(rand.NewPCG(1, 1))
	const n = 20000
	for range n {
		counts[s.Sample(r, logits)]++
	}
	for i, c := range counts {
		require.InDelta(t, want[i], c/n, 4*math.Sqrt(0.25/n), "four deviations")
	}
	again := func() (ids []int32) {
		r := rand.New(rand.NewPCG(9, 9))
		for range 50 {
			ids = append(ids, s.Sample(r, logits))
		}
		return ids
	}
	require.Equal(t, again(), again())
	require.Zero(t, testing.AllocsPerRun(10, func() { s.Sample(r, logits) }))
}

func TestGenerate(t *testing.T) {
	m := model(t, configs()["llama"])
	w, prompt := work(t, m, 1), tokens(5, 70)
	got, err := w.Generate(cache(t, m, 0, 4), prompt, 12, Greedy, nil)
	require.NoError(t, err)
	require.Len(t, got, 12)
	ids := slices.Clone(prompt) // the same, without a cache
	for range 12 {
		logits := all(t, w, ids)
		ids = append(ids, Greedy(logits[len(logits)-m.Vocab:]))
	}
	require.Equal(t, ids[5:], got)
	stopped, err := w.Generate(cache(t, m, 0, 4), prompt, 12, Greedy, func(id int32) bool { return id == got[3] })
	require.NoError(t, err)
	require.Equal(t, got[:slices.Index(got, got[3])], stopped)
	full, err := m.NewCache(0, 4, 7)
	require.NoError(t, err)
	part, err := w.Generate(full, prompt, 12, Greedy, nil)
	require.ErrorContains(t, err, "do not fit")
	require.Equal(t, got[:3], part)
}

// A prompt runs on the device up to layer 1; the edge continues from the hidden states.
func ExampleWork_Forward() {
	m, err := New(Config{Arch: Llama, Layers: 2, Dim: 32, Heads: 2, KVHeads: 1, FFN: 48, Vocab: 16, Context: 64}, 7)
	if err != nil {
		panic(err)
	}
	device, edge := m.NewWork(1), m.NewWork(2)
	defer device.Close()
	defer edge.Close()
	front, _ := m.NewCache(0, 1, 64)
	back, _ := m.NewCache(1, 2, 64)

	prompt := []Seq{{IDs: []int32{3, 1, 4}, Cache: front}}
	if err := device.Forward(0, 1, prompt); err != nil {
		panic(err)
	}
	rest := []Seq{{Hidden: prompt[0].Out, Cache: back}}
	if err := edge.Forward(1, 2, rest); err != nil {
		panic(err)
	}
	whole, _ := m.NewCache(0, 2, 64)
	seq := []Seq{{IDs: []int32{3, 1, 4}, Cache: whole}}
	if err := device.Forward(0, 2, seq); err != nil {
		panic(err)
	}
	fmt.Println(len(prompt[0].Out), "values sent; same logits:", slices.Equal(rest[0].Out, seq[0].Out))
	// Output: 96 values sent; same logits: true
}
