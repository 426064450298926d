package train

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/gguf"
	"meibench/reference/llm"
)

// tinyLoRA changes three kinds of matrices of the tiny model: 3 of 2 layers are
// 6 pairs; with B filled in they change what it computes.
func tinyLoRA(t *testing.T) (*Params, *LoRA) {
	base, err := New(tinyTrain)
	require.NoError(t, err)
	base.Init(3)
	l, err := NewLoRA(tinyTrain, 2, 3, 5, "attn_q", "attn_v", "ffn_down")
	require.NoError(t, err)
	require.Len(t, l.Pairs, 6)
	return base, l
}

func fillB(l *LoRA) {
	for _, p := range l.Pairs {
		copy(p.B, normals("b"+p.Name, len(p.B)))
	}
}

// W + 3/2·B·A by hand, element by element.
func TestLoRAMerge(t *testing.T) {
	base, l := tinyLoRA(t)
	merged, err := From(base.Model)
	require.NoError(t, err)
	require.NoError(t, l.Merge(merged))
	require.Equal(t, base.Flat, merged.Flat, "B is zero at first")
	fillB(l)
	require.NoError(t, l.Merge(merged))
	p := l.Pairs[0]
	require.Equal(t, "blk.0.attn_q.weight", p.Name)
	was, now := base.Model.Blocks[0].Q.F32, merged.Model.Blocks[0].Q.F32
	for n := range p.N {
		for k := range p.K {
			change := 1.5 * (float64(p.B[n*2]*p.A[k]) + float64(p.B[n*2+1]*p.A[p.K+k]))
			require.InDelta(t, float64(was[n*p.K+k])+change, now[n*p.K+k], 1e-5)
		}
	}
	require.Equal(t, base.Model.Blocks[0].K.F32, merged.Model.Blocks[0].K.F32, "not a target")
	l.Alpha = -l.Alpha
	require.NoError(t, l.Merge(merged))
	require.InDeltaSlice(t, base.Flat, merged.Flat, 1e-5, "taken away again")
}

// The projected gradient against the central difference of the float64 model.
func TestLoRAGradient(t *testing.T) {
	base, l := tinyLoRA(t)
	fillB(l)
	merged, err := From(base.Model)
	require.NoError(t, err)
	require.NoError(t, l.Merge(merged))
	learner, err := NewLearner(merged, 1)
	require.NoError(t, err)
	_, grad := learner.Gradient(tinyBatches())
	got, err := l.Project(grad)
	require.NoError(t, err)
	places := map[string]int{}
	at := 0
	for _, w := range base.Model.Weights() {
		places[w.Name] = at
		at += w.N * w.K
	}
	checkGrad(t, "lora", l.Flat, got, func(flat []float64) float64 {
		w := widen(base.Flat)
		for _, p := range l.Pairs {
			a := flat[:l.Rank*p.K]
			b := flat[l.Rank*p.K : l.Rank*(p.K+p.N)]
			flat = flat[l.Rank*(p.K+p.N):]
			for n := range p.N {
				for k := range p.K {
					for r := range l.Rank {
						w[places[p.Name]+n*p.K+k] += 1.5 * b[n*l.Rank+r] * a[r*p.K+k]
					}
				}
			}
		}
		return naiveLoss(tinyTrain, w, tinyBatches())
	})
}

// Adapters of all layers learn some of three sequences (their prompts cannot be
// foreseen, and the embedding stays); the base does not change.
func TestTuner(t *testing.T) {
	base, err := New(tinyTrain)
	require.NoError(t, err)
	base.Init(3)
	was := append([]float32{}, base.Flat...)
	l, err := NewLoRA(tinyTrain, 4, 8, 5, "attn", "ffn")
	require.NoError(t, err)
	tuner, err := NewTuner(base, l, 2)
	require.NoError(t, err)
	first, err := tuner.Step(tinyBatches(), 2e-2)
	require.NoError(t, err)
	last := first
	for range 80 {
		last, err = tuner.Step(tinyBatches(), 2e-2)
		require.NoError(t, err)
	}
	require.Less(t, last, 0.8*first)
	require.Equal(t, was, base.Flat)
	require.InDelta(t, lossOf(t, tuner.Merged()), last, 0.2)
}

// The file has llama.cpp's names, dimensions and metadata, and reads back.
func TestLoRAFile(t *testing.T) {
	_, l := tinyLoRA(t)
	fillB(l)
	var b bytes.Buffer
	require.NoError(t, l.Write(&b, llm.Llama))
	f, err := gguf.Read(bytes.NewReader(b.Bytes()), int64(b.Len()))
	require.NoError(t, err)
	kind, err := gguf.Value[string](f, "general.type")
	require.NoError(t, err)
	require.Equal(t, "adapter", kind)
	a, err := f.Tensor("blk.1.ffn_down.weight.lora_a")
	require.NoError(t, err)
	require.Equal(t, []int{10, 2}, a.Dims, "(K, rank), the inner dimension first")
	bt, err := f.Tensor("blk.1.ffn_down.weight.lora_b")
	require.NoError(t, err)
	require.Equal(t, []int{2, 12}, bt.Dims)
	back, err := ReadLoRA(f)
	require.NoError(t, err)
	require.Equal(t, l, back)
	read, err := tinyTrain.ReadAdapter(f)
	require.NoError(t, err)
	direct, err := l.Adapter(tinyTrain)
	require.NoError(t, err)
	require.Equal(t, direct, read, "what package llm reads is what was trained")
}

func TestLoRAErrors(t *testing.T) {
	for _, tc := range []struct {
		name    string
		rank    int
		targets []string
		want    string
	}{
		{"nothing", 2, nil, "no targets"},
		{"unknown", 2, []string{"attn_q", "attn_z"}, `no matrix is called "attn_z"`},
		{"embedding", 2, []string{"token_embd"}, "a look-up is not a product"},
		{"no rank", 0, []string{"attn_q"}, "rank 0, want 1 to 12"},
		{"full rank and more", 13, []string{"attn_q"}, "rank 13, want 1 to 12"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := NewLoRA(tinyTrain, tc.rank, 1, 1, tc.targets...)
			require.ErrorContains(t, err, tc.want)
		})
	}
	c := tinyTrain
	c.FFN = 20
	other, err := New(c)
	require.NoError(t, err)
	_, l := tinyLoRA(t)
	require.ErrorContains(t, l.Merge(other), "made for another model")
	c = tinyTrain
	c.Layers = 1
	other, err = New(c)
	require.NoError(t, err)
	require.ErrorContains(t, l.Merge(other), "the model has 3 of its 6 matrices")

	var b bytes.Buffer
	require.NoError(t, gguf.Write(&b, []gguf.KV{{Key: "general.type", Value: "model"}}, nil))
	f, err := gguf.Read(bytes.NewReader(b.Bytes()), int64(b.Len()))
	require.NoError(t, err)
	_, err = ReadLoRA(f)
	require.ErrorContains(t, err, `general.type is "model", want "adapter"`)
}
