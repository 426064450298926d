package llm

import (
	"fmt"
	"math"

	"meibench/internal/rng"
	"meibench/reference/quant"
)

// Trainable is a whole F32 llama model whose tensors are views of one vector:
// parameters, or their gradient. An optimiser, a clipping norm or an average
// over clients works on Flat; a forward pass works on Model.
type Trainable struct {
	Model *Model
	Flat  []float32 // all tensors in the order of Model.Weights
}

// NewTrainable returns zeros in the shape of c. Architectures with biases are
// refused: their gradients are not written.
func NewTrainable(c Config) (*Trainable, error) {
	c = c.withDefaults()
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("new trainable model: %w", err)
	}
	if c.Arch != Llama {
		return nil, fmt.Errorf("new trainable model: architecture %q has no backward pass here, want %q", c.Arch, Llama)
	}
	m := &Model{Config: c, Hi: c.Layers, Blocks: make([]Block, c.Layers)}
	t := &Trainable{m, make([]float32, c.TotalParams())}
	rest := t.Flat
	for _, w := range m.Weights() {
		data := rest[: w.N*w.K : w.N*w.K]
		rest = rest[w.N*w.K:]
		if w.Vector != nil {
			*w.Vector = data
		} else {
			*w.Matrix = Matrix{Type: quant.F32, N: w.N, K: w.K, F32: data}
		}
	}
	return t, nil
}

// Trainable returns a copy of a whole model, decoded to F32, to be fine-tuned.
func (m *Model) Trainable() (*Trainable, error) {
	if m.RopeFactors != nil {
		return nil, fmt.Errorf("make a model trainable: scaled positions have no backward pass here")
	}
	t, err := NewTrainable(m.Config)
	if err != nil {
		return nil, err
	}
	full, err := m.As(quant.F32)
	if err != nil {
		return nil, fmt.Errorf("make a model trainable: %w", err)
	}
	params, err := full.Params()
	if err != nil {
		return nil, fmt.Errorf("make a model trainable: %w", err)
	}
	rest := t.Flat
	for _, p := range params {
		rest = rest[copy(rest, p.Data):]
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("make a model trainable: only layers [%d, %d) of %d are loaded", m.Lo, m.Hi, m.Layers)
	}
	return t, nil
}

// Init draws fresh parameters: norms are 1, matrices normal with deviation
// 1/√K, those that write to the residual stream a further 10·√2L smaller,
// embedding and head 0.05, so that at first the stream carries the tokens and
// little else. Note: on look-up drills (one seed) a loss of 0.37 took 400 steps
// so, and 600 with 1/√2L alone (Radford et al. 2019).
func (t *Trainable) Init(seed uint64) {
	m := t.Model
	residual := map[*Matrix]bool{}
	for i := range m.Blocks {
		residual[&m.Blocks[i].Out], residual[&m.Blocks[i].Down] = true, true
	}
	for _, w := range m.Weights() {
		if w.Vector != nil {
			for i := range *w.Vector {
				(*w.Vector)[i] = 1
			}
			continue
		}
		deviation := 1 / math.Sqrt(float64(w.K))
		switch {
		case w.Matrix == &m.Embed || w.Matrix == &m.Head:
			deviation = 0.05
		case residual[w.Matrix]:
			deviation /= 10 * math.Sqrt(2*float64(m.Layers))
		}
		r := rng.Stream(seed, "train", w.Name)
		for i := range w.Matrix.F32 {
			w.Matrix.F32[i] = float32(deviation * rng.Normal(r))
		}
	}
}
