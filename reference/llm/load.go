package llm

import (
	"errors"
	"fmt"
	"io"
	"os"

	"meibench/reference/gguf"
	"meibench/reference/quant"
)

// ReadOptions narrow what Read loads. The zero value loads the whole model as it is stored.
type ReadOptions struct {
	Lo, Hi int  // layers to load; both zero stands for all
	F32    bool // decode every matrix to float32, as training needs
}

// Open loads a GGUF file from disk; the file is closed again.
func Open(path string, o ReadOptions) (*Model, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	m, err := Read(f, info.Size(), o)
	if err != nil {
		return nil, fmt.Errorf("open model %s: %w", path, err)
	}
	return m, nil
}

// Read loads a model from a GGUF file of size bytes.
func Read(r io.ReaderAt, size int64, o ReadOptions) (*Model, error) {
	f, err := gguf.Read(r, size)
	if err != nil {
		return nil, err
	}
	return FromFile(f, o)
}

// FromFile loads a model from a GGUF file whose index was read before, for example to read its tokenizer too.
// Architectures, options and weight formats that would compute something else are refused by name.
func FromFile(f *gguf.File, o ReadOptions) (*Model, error) {
	c, err := ReadConfig(f)
	if err != nil {
		return nil, err
	}
	m := &Model{Config: c, Lo: o.Lo, Hi: o.Hi, Blocks: make([]Block, c.Layers)}
	if o.Lo == 0 && o.Hi == 0 {
		m.Hi = c.Layers
	}
	if m.Lo < 0 || m.Hi < m.Lo || m.Hi > c.Layers {
		return nil, fmt.Errorf("load layers [%d, %d): the model has %d", m.Lo, m.Hi, c.Layers)
	}
	for _, w := range m.Weights() {
		if err := loadWeight(f, w, o.F32); err != nil {
			return nil, fmt.Errorf("load %s: %w", w.Name, err)
		}
	}
	factors := Weight{Name: "rope_freqs.weight", Vector: &m.RopeFactors, N: 1, K: c.HeadDim / 2}
	if err := loadWeight(f, factors, true); err != nil && !errors.Is(err, gguf.ErrMissing) {
		return nil, fmt.Errorf("load %s: %w", factors.Name, err)
	}
	return m, nil
}

// ReadConfig reads a model's shape from metadata.
func ReadConfig(f *gguf.File) (Config, error) {
	k := keys{f: f}
	arch, err := gguf.Value[string](f, "general.architecture")
	if err != nil {
		return Config{}, err
	}
	if arch != Llama && arch != Qwen2 {
		return Config{}, fmt.Errorf("architecture %q is not supported, want %q or %q: convert to one of these or choose another model", arch, Llama, Qwen2)
	}
	k.arch = arch
	c := Config{
		Arch: arch, Layers: k.int("block_count", -1), Dim: k.int("embedding_length", -1), FFN: k.int("feed_forward_length", -1),
		Heads: k.int("attention.head_count", -1), Context: k.int("context_length", -1),
		Eps: float32(k.float("attention.layer_norm_rms_epsilon", -1)), RopeBase: k.float("rope.freq_base", 10000),
	}
	c.KVHeads = k.int("attention.head_count_kv", c.Heads)
	c.HeadDim = k.int("attention.key_length", c.Dim/max(1, c.Heads))
	k.refuse(c)
	embed, err := f.Tensor("token_embd.weight")
	if err != nil {
		return Config{}, err
	}
	if len(embed.Dims) == 2 {
		c.Vocab = embed.Dims[1]
	}
	_, err = f.Tensor("output.weight")
	c.Tied = err != nil
	if k.err != nil {
		return Config{}, k.err
	}
	return c, c.Check()
}

// keys reads metadata of one architecture and keeps the first error.
type keys struct {
	f    *gguf.File
	arch string
	err  error
}

func (k *keys) fail(err error) {
	if k.err == nil {
		k.err = err
	}
}

// int reads a size; a negative otherwise means that the key must be there.
func (k *keys) int(name string, otherwise int) int {
	v, err := k.f.Uint(k.arch + "." + name)
	if errors.Is(err, gguf.ErrMissing) && otherwise >= 0 {
		return otherwise
	}
	if err == nil && v > 1<<30 {
		err = fmt.Errorf("key %q is %d, which is not a plausible size", k.arch+"."+name, v)
	}
	if err != nil {
		k.fail(err)
		return 0
	}
	return int(v)
}

func (k *keys) float(name string, otherwise float64) float64 {
	v, err := k.f.Float(k.arch + "." + name)
	if errors.Is(err, gguf.ErrMissing) && otherwise >= 0 {
		return otherwise
	}
	if err != nil {
		k.fail(err)
	}
	return v
}

// refuse fails on options that change what the model computes and that this package does not implement.
func (k *keys) refuse(c Config) {
	if n := k.int("expert_count", 0); n > 0 {
		k.fail(fmt.Errorf("the model has %d experts: mixtures of experts are not supported, want a dense model", n))
	}
	if n := k.int("rope.dimension_count", c.HeadDim); n != c.HeadDim {
		k.fail(fmt.Errorf("the model rotates %d of %d channels per head: partial rotation is not supported", n, c.HeadDim))
	}
	if n := k.int("attention.value_length", c.HeadDim); n != c.HeadDim {
		k.fail(fmt.Errorf("the model has %d value channels but %d key channels per head: want equal", n, c.HeadDim))
	}
	scaling, err := gguf.Value[string](k.f, k.arch+".rope.scaling.type")
	if err == nil && scaling != "none" {
		k.fail(fmt.Errorf("the model scales positions by %q: only \"none\" is supported", scaling))
	}
}

// loadWeight reads one tensor after checking its shape and type.
func loadWeight(f *gguf.File, w Weight, f32 bool) error {
	t, err := f.Tensor(w.Name)
	if err != nil {
		return err
	}
	want := []int{w.K, w.N}
	if w.Vector != nil {
		want = want[:1]
	}
	if fmt.Sprint(t.Dims) != fmt.Sprint(want) {
		return fmt.Errorf("shape is %v, want %v by the metadata", t.Dims, want)
	}
	if !t.Type.CanDecode() {
		return fmt.Errorf("weights are %v, want one of %v: requantise the model", t.Type, quant.Supported())
	}
	data := make([]byte, t.Bytes)
	if err := f.ReadTensor(data, t); err != nil {
		return err
	}
	if w.Matrix != nil && t.Type != quant.F32 && !f32 {
		*w.Matrix = Matrix{Type: t.Type, N: w.N, K: w.K, Data: data}
		return nil
	}
	values := make([]float32, w.N*w.K)
	quant.Decode(t.Type, values, data)
	if w.Vector != nil {
		*w.Vector = values
	} else {
		*w.Matrix = Matrix{Type: quant.F32, N: w.N, K: w.K, F32: values}
	}
	return nil
}
