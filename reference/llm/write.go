package llm

import (
	"fmt"
	"io"

	"meibench/reference/gguf"
	"meibench/reference/quant"
)

// Write writes the model as GGUF: its shape, then meta (name, tokenizer, licence ...), then its weights in the formats
// they are held in. Equal models make equal bytes. Only a whole model can be written.
func (m *Model) Write(w io.Writer, meta ...gguf.KV) error {
	if m.Lo != 0 || m.Hi != m.Layers {
		return fmt.Errorf("write model: only layers [%d, %d) of %d are loaded", m.Lo, m.Hi, m.Layers)
	}
	var tensors []gguf.TensorData
	weights := m.Weights()
	if m.RopeFactors != nil {
		weights = append(weights, Weight{Name: "rope_freqs.weight", Vector: &m.RopeFactors, N: 1, K: len(m.RopeFactors)})
	}
	for _, t := range weights {
		if t.Vector != nil {
			tensors = append(tensors, gguf.TensorData{Name: t.Name, Type: quant.F32, Dims: []int{t.K}, Data: encodeF32(*t.Vector)})
			continue
		}
		data := gguf.Bytes(t.Matrix.Data)
		if t.Matrix.F32 != nil {
			data = encodeF32(t.Matrix.F32)
		}
		tensors = append(tensors, gguf.TensorData{Name: t.Name, Type: t.Matrix.Type, Dims: []int{t.K, t.N}, Data: data})
	}
	if err := gguf.Write(w, append(m.Config.meta(), meta...), tensors); err != nil {
		return fmt.Errorf("write model: %w", err)
	}
	return nil
}

// encodeF32 encodes late, so that one tensor at a time is held twice. A weight that is not finite is an error.
func encodeF32(x []float32) func() ([]byte, error) {
	return func() ([]byte, error) {
		b := make([]byte, 4*len(x))
		return b, quant.Encode(quant.F32, b, x)
	}
}

// meta is the configuration as GGUF metadata.
func (c Config) meta() []gguf.KV {
	k := func(name string) string { return c.Arch + "." + name }
	return []gguf.KV{
		{Key: "general.architecture", Value: c.Arch},
		{Key: k("block_count"), Value: uint32(c.Layers)},
		{Key: k("context_length"), Value: uint32(c.Context)},
		{Key: k("embedding_length"), Value: uint32(c.Dim)},
		{Key: k("feed_forward_length"), Value: uint32(c.FFN)},
		{Key: k("attention.head_count"), Value: uint32(c.Heads)},
		{Key: k("attention.head_count_kv"), Value: uint32(c.KVHeads)},
		{Key: k("attention.key_length"), Value: uint32(c.HeadDim)},
		{Key: k("attention.value_length"), Value: uint32(c.HeadDim)},
		{Key: k("attention.layer_norm_rms_epsilon"), Value: c.Eps},
		{Key: k("rope.dimension_count"), Value: uint32(c.HeadDim)},
		{Key: k("rope.freq_base"), Value: float32(c.RopeBase)},
		{Key: k("vocab_size"), Value: uint32(c.Vocab)},
	}
}
