package convert

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/gguf"
	"meibench/reference/quant"
)

// zeros is a matrix of F32 zeros.
func zeros(name string, dims ...int) gguf.TensorData {
	n := 4
	for _, d := range dims {
		n *= d
	}
	return gguf.TensorData{Name: name, Type: quant.F32, Dims: dims, Data: gguf.Bytes(make([]byte, n))}
}

func file(t *testing.T, meta []gguf.KV, tensors []gguf.TensorData) *gguf.File {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, gguf.Write(&b, meta, tensors))
	f, err := gguf.Read(bytes.NewReader(b.Bytes()), int64(b.Len()))
	require.NoError(t, err)
	return f
}

// model has the tensors of sixteen layers with the given columns, in an order that is not that of the layers.
func model(t *testing.T, cols, experts int, tied bool) *gguf.File {
	meta := []gguf.KV{
		{Key: "general.architecture", Value: "llama"}, {Key: "llama.block_count", Value: uint32(16)},
		{Key: "llama.attention.head_count", Value: uint32(8)}, {Key: "llama.attention.head_count_kv", Value: uint32(2)},
		{Key: "llama.expert_count", Value: uint32(experts)},
	}
	list := []gguf.TensorData{zeros("token_embd.weight", cols, 2), zeros("output_norm.weight", cols)}
	if !tied {
		list = append(list, zeros("output.weight", cols, 2))
	}
	for i := 15; i >= 0; i-- {
		at := func(name string) string { return fmt.Sprintf("blk.%d.%s.weight", i, name) }
		list = append(list, zeros(at("attn_norm"), cols), zeros(at("attn_q"), cols, 2), zeros(at("attn_k"), cols, 2),
			zeros(at("attn_v"), cols, 2), zeros(at("attn_output"), cols, 2))
		if experts > 0 {
			list = append(list, zeros(at("ffn_gate_inp"), cols, experts), zeros(at("ffn_up_exps"), cols, 2, experts), zeros(at("ffn_down_exps"), cols, 2, experts))
		} else {
			list = append(list, zeros(at("ffn_up"), cols, 2), zeros(at("ffn_down"), cols, 2))
		}
	}
	return file(t, meta, list)
}

// TestPlan: for each recipe the tensors that do not take its base type. The mixes were read off llama-quantize
// --dry-run for the same shapes: of sixteen layers the ends are 0, 1, 14, 15 and, every third from 2 on, 4, 7, 10, 13.
func TestPlan(t *testing.T) {
	ends := []int{0, 1, 4, 7, 10, 13, 14, 15}
	layers := func(name string, list ...int) (names []string) {
		for _, i := range list {
			names = append(names, fmt.Sprintf("blk.%d.%s.weight", i, name))
		}
		return names
	}
	all := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	type mix map[quant.Type][]string
	for _, tc := range []struct {
		name, recipe  string
		cols, experts int
		tied, pure    bool
		base          quant.Type
		others        mix
	}{
		{"usual", "q4_k_m", 256, 0, false, false, quant.Q4_K, mix{quant.Q6_K: slices.Concat([]string{"output.weight"}, layers("attn_v", ends...), layers("ffn_down", ends...))}},
		{"tied", "q4_k", 256, 0, true, false, quant.Q4_K, mix{quant.Q6_K: slices.Concat([]string{"token_embd.weight"}, layers("attn_v", ends...), layers("ffn_down", ends...))}},
		{"pure", "q4_k_m", 256, 0, false, true, quant.Q4_K, nil},
		{"odd rows", "q4_k_m", 288, 0, false, false, quant.Q5_0, mix{quant.Q8_0: slices.Concat([]string{"output.weight"}, layers("attn_v", ends...), layers("ffn_down", ends...))}},
		{"odd rows, pure", "q5_k_s", 288, 0, false, true, quant.Q5_1, nil},
		{"rows of no block", "q4_0", 40, 0, false, false, quant.F16, nil},
		{"small", "q4_k_s", 256, 0, false, false, quant.Q4_K, mix{quant.Q6_K: {"output.weight"},
			quant.Q5_K: slices.Concat(layers("attn_v", 0, 1, 2, 3), layers("ffn_down", 0, 1))}},
		{"eight experts", "q4_k_m", 256, 8, false, false, quant.Q4_K, mix{
			quant.Q6_K: slices.Concat([]string{"output.weight"}, layers("ffn_down_exps", ends...)),
			quant.Q8_0: slices.Concat(layers("attn_v", all...), layers("attn_k", all...)),
			quant.Q5_K: layers("attn_output", all...)}},
		{"four experts", "mxfp4_moe", 256, 4, false, false, quant.Q8_0, mix{quant.MXFP4: slices.Concat(layers("ffn_up_exps", all...), layers("ffn_down_exps", all...))}},
		{"grouped values", "iq4_nl", 256, 0, false, false, quant.IQ4_NL, mix{quant.Q6_K: {"output.weight"},
			quant.Q5_K: slices.Concat(layers("attn_v", all...), layers("ffn_down", 0, 1))}},
		{"q8_0 everywhere", "q8_0", 256, 0, true, false, quant.Q8_0, nil},
		{"q4_0", "q4_0", 256, 0, false, false, quant.Q4_0, mix{quant.Q6_K: {"output.weight"}}},
		{"f16", "f16", 256, 0, false, false, quant.F16, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := Find(tc.recipe)
			require.NoError(t, err)
			f := model(t, tc.cols, tc.experts, tc.tied)
			p, err := NewPlan(f, r, tc.pure)
			require.NoError(t, err)
			want := map[string]quant.Type{}
			for _, info := range f.Tensors {
				want[info.Name] = tc.base
				if len(info.Dims) == 1 || bytes.Contains([]byte(info.Name), []byte("gate_inp")) {
					want[info.Name] = quant.F32
				}
			}
			for typ, names := range tc.others {
				for _, name := range names {
					require.Contains(t, want, name)
					want[name] = typ
				}
			}
			got := map[string]quant.Type{}
			bytes := int64(0)
			for _, s := range p.Steps {
				got[s.From.Name] = s.To
				n, err := s.To.RowBytes(s.From.Elements())
				require.NoError(t, err)
				require.EqualValues(t, n, s.Bytes)
				bytes += s.Bytes
			}
			require.Equal(t, want, got)
			require.Equal(t, bytes, p.Bytes())
		})
	}
}

func TestRecipes(t *testing.T) {
	for _, r := range Table {
		got, err := Find(r.Name)
		require.NoError(t, err)
		require.Equal(t, r.FileType, got.FileType)
		require.True(t, r.Base.CanEncode(), r.Name)
		require.NotEmpty(t, r.Doc)
	}
	got, err := Find("Q4_K")
	require.NoError(t, err)
	require.Equal(t, "q4_k_m", got.Name)
	_, err = Find("q3_k_m")
	require.ErrorContains(t, err, "q4_k_m")
}

// weights makes an F32 tensor of small random numbers.
func weights(name string, dims ...int) (gguf.TensorData, []float32) {
	r := rand.New(rand.NewPCG(8, uint64(len(name))))
	d := zeros(name, dims...)
	b, _ := d.Data()
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = float32(r.NormFloat64() / 16)
	}
	if err := quant.Encode(quant.F32, b, x); err != nil {
		panic(err)
	}
	d.Data = gguf.Bytes(b)
	return d, x
}

func write(t *testing.T, p *Plan, threads int) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, p.Write(context.Background(), &b, Options{Threads: threads}))
	return b.Bytes()
}

// TestWrite: each tensor's bytes are those of one call of Encode over the whole of it, whatever the number of threads,
// also where it is several chunks, has experts, or goes from one format of blocks to another.
func TestWrite(t *testing.T) {
	large, x := weights("blk.0.ffn_up.weight", 256, 2*chunkWeights/256+13)
	experts, y := weights("blk.0.ffn_down_exps.weight", 512, 3, 5)
	norm, _ := weights("blk.0.attn_norm.weight", 40)
	meta := []gguf.KV{
		{Key: "general.architecture", Value: "llama"}, {Key: "general.file_type", Value: uint32(0)}, {Key: "split.count", Value: uint16(1)},
		{Key: "tokenizer.ggml.tokens", Value: []string{"a", "b"}},
	}
	for _, name := range []string{"f32", "f16", "q8_0", "q4_k_m", "q6_k"} {
		t.Run(name, func(t *testing.T) {
			r, err := Find(name)
			require.NoError(t, err)
			p, err := NewPlan(file(t, meta, []gguf.TensorData{large, experts, norm}), r, true)
			require.NoError(t, err)
			raw := write(t, p, 1)
			require.Equal(t, raw, write(t, p, 2))
			require.Equal(t, raw, write(t, p, 3))
			f, err := gguf.Read(bytes.NewReader(raw), int64(len(raw)))
			require.NoError(t, err)
			require.Equal(t, []gguf.KV{meta[0], {Key: "general.file_type", Value: r.FileType}, meta[3], {Key: "general.quantization_version", Value: uint32(2)}}, f.KV)
			for i, want := range [][]float32{x, y} {
				require.Equal(t, p.Steps[i].From.Dims, f.Tensors[i].Dims)
				require.Equal(t, r.Base, f.Tensors[i].Type)
				b := make([]byte, f.Tensors[i].Bytes)
				require.NoError(t, quant.Encode(r.Base, b, want))
				got, err := f.Data(f.Tensors[i])
				require.NoError(t, err)
				require.True(t, bytes.Equal(b, got), f.Tensors[i].Name)
			}
			require.Equal(t, quant.F32, f.Tensors[2].Type)

			q8, err := Find("q8_0")
			require.NoError(t, err)
			again, err := NewPlan(f, q8, true)
			require.NoError(t, err)
			if r.Base.Block() > 1 && r.Base != quant.Q8_0 {
				require.Equal(t, 2, again.Requantised())
			} else {
				require.Zero(t, again.Requantised())
			}
			write(t, again, 2)
		})
	}
}

func TestWriteFails(t *testing.T) {
	bad, _ := weights("blk.0.ffn_up.weight", 256, 2)
	raw, _ := bad.Data()
	raw = slices.Clone(raw)
	copy(raw[4*300:], []byte{0, 0, 0xc0, 0x7f}) // a NaN, weight 300
	bad.Data = gguf.Bytes(raw)
	r, err := Find("q8_0")
	require.NoError(t, err)
	p, err := NewPlan(file(t, nil, []gguf.TensorData{bad}), r, false)
	require.NoError(t, err)
	err = p.Write(context.Background(), &bytes.Buffer{}, Options{Threads: 2})
	require.ErrorContains(t, err, `tensor "blk.0.ffn_up.weight"`)
	require.ErrorContains(t, err, "weight 300 is NaN")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, p.Write(ctx, &bytes.Buffer{}, Options{Threads: 1}), context.Canceled)
	require.ErrorContains(t, p.Write(ctx, &bytes.Buffer{}, Options{}), "at least 1")

	listed := gguf.TensorData{Name: "blk.0.ffn_up.weight", Type: 21, Dims: []int{256, 2}, Data: gguf.Bytes(make([]byte, 220))}
	_, err = NewPlan(file(t, nil, []gguf.TensorData{listed}), r, false)
	require.ErrorContains(t, err, "IQ3_S, which cannot be decoded")
	listed.Name = "table"
	p, err = NewPlan(file(t, nil, []gguf.TensorData{listed}), r, false)
	require.NoError(t, err, "what is no matrix is copied")
	require.Equal(t, listed.Type, p.Steps[0].To)
	write(t, p, 1)
}

// TestWriteMemory: converting 64 MiB of weights holds on to a few chunks.
func TestWriteMemory(t *testing.T) {
	f := file(t, nil, []gguf.TensorData{zeros("a.weight", 4096, 4096)})
	r, err := Find("q4_0")
	require.NoError(t, err)
	p, err := NewPlan(f, r, false)
	require.NoError(t, err)
	sum := &most{}
	require.NoError(t, p.Write(context.Background(), sum, Options{Threads: 2}))
	require.Less(t, sum.piece, 1<<20, "the data comes in pieces")
	require.Greater(t, sum.all, 4096*4096*18/32)
}

// most counts what is written, and the largest piece of it.
type most struct{ all, piece int }

func (m *most) Write(b []byte) (int, error) {
	m.all += len(b)
	m.piece = max(m.piece, len(b))
	return len(b), nil
}

func TestGroupedModelsOf70B(t *testing.T) {
	f := facts{arch: "llama", layers: 80, heads: 64, kvHeads: 8, valueRank: map[string]int{"blk.31.attn_v.weight": 31}}
	for i := range 79 {
		f.valueRank[fmt.Sprint(i)] = i
	}
	r, err := Find("q4_k_m")
	require.NoError(t, err)
	require.Equal(t, quant.Q5_K, r.chooseValue(31, f), "Q4_K becomes Q5_K: eight heads share the values")
	require.Equal(t, quant.Q6_K, r.chooseValue(0, f))
	f.layers = 32
	require.Equal(t, quant.Q4_K, r.chooseValue(31, f))
}
