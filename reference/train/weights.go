// Package train fits models of package llm: losses and gradients of a batch, AdamW, and what a training loop needs
// around them.
//
//	p, _ := train.New(shape)        // or train.From(model), to go on from one
//	p.Init(seed)
//	l, _ := train.NewLearner(p, threads)
//	loss, grad := l.Gradient(batches)
//	opt.Step(p, grad, rate)
//
// The one idea: parameters and gradients are one vector each ([Params.Flat]), whose views are a model that package
// llm can run. So an optimiser, a norm or an average over clients is a loop over floats, and a model in training is
// evaluated by the code that will serve it; the tests compare the logits of both.
//
// A step has the same bits on any number of threads: batches go to a fixed number of lanes, whose sums are added in
// order. Arithmetic is float32, with float64 inside the sums of norms and losses only.
//
// What it does not do: architectures other than llama, qwen2 and qwen3, and any graph but the decoder's: backward passes are written
// by hand, one per operation, and checked by central difference against a float64 model in the tests.
package train

import (
	"fmt"
	"math"
	"strings"

	"meibench/internal/rng"
	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

// Params is a model in training: one vector of what is trained, and views of it in the model's tensors. A gradient has the same
// type and layout, without the weights that stay as they are. An optimiser, a clipping norm or an average over clients
// works on Flat; a forward pass works on the model. [New] and [From] train every weight, [Tune] what a method says.
type Params struct {
	Model  *llm.Model
	Flat   []float32 // what is trained, in the order of Parts
	Method Method
	list   []Part
	extra  *extra // what the method adds; nil: nothing
}

// trainable says why there is no backward pass for a shape, or returns nil.
func trainable(c llm.Config) error {
	c = c.WithDefaults()
	if err := c.Check(); err != nil {
		return fmt.Errorf("new trainable model: %w", err)
	}
	bare := c
	if c.Arch == llm.Qwen2 || c.Arch == llm.Qwen3 {
		bare.Arch = llm.Llama
	}
	if bare.Arch != llm.Llama || !bare.Plain() {
		return fmt.Errorf("new trainable model: architecture %q has no backward pass here, want %q, %q or %q without windows, caps, experts or scaled positions",
			c.Arch, llm.Llama, llm.Qwen2, llm.Qwen3)
	}
	return nil
}

// New returns zeros in the shape of c: llama, qwen2 (biases) or qwen3 (norms of
// queries and keys), without windows, caps, experts or scaled positions, for
// which no backward pass is written. All of them are trained.
func New(c llm.Config) (*Params, error) {
	if err := trainable(c); err != nil {
		return nil, err
	}
	c = c.WithDefaults()
	return lay(&llm.Model{Config: c, Hi: c.Layers, Blocks: make([]llm.Block, c.Layers)}, Method{Kind: "full"})
}

// From returns a copy of a whole model, decoded to F32, to be fine-tuned.
func From(m *llm.Model) (*Params, error) {
	if m.RopeFactors != nil {
		return nil, fmt.Errorf("make a model trainable: scaled positions have no backward pass here")
	}
	t, err := New(m.Config)
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

// at is what the method adds to layer i: never nil.
func (t *Params) at(i int) *layerExtra {
	if t.extra == nil {
		return &layerExtra{}
	}
	return &t.extra.layers[i]
}

// lowHead is the low-rank change of the head, nil if there is none.
func (t *Params) lowHead() *lowRank {
	if t.extra == nil {
		return nil
	}
	return t.extra.head
}

// prefix is the number of keys that stand before every sequence.
func (t *Params) prefix() int {
	if t.Method.Kind != "prefix" {
		return 0
	}
	return t.Method.Tokens
}

// promptLen is the number of embeddings that do.
func (t *Params) promptLen() int {
	if t.Method.Kind != "prompt" {
		return 0
	}
	return t.Method.Tokens
}

// head is the matrix that turns hidden states into logits.
func head(m *llm.Model) *llm.Matrix {
	if m.Tied {
		return &m.Embed
	}
	return &m.Head
}

// Init draws fresh parameters: norms are 1, biases 0, matrices normal with deviation
// 1/√K, those that write to the residual stream a further 10·√2L smaller,
// embedding and head 0.05, so that at first the stream carries the tokens and
// little else. Note: on look-up drills (one seed) a loss of 0.37 took 400 steps
// so, and 600 with 1/√2L alone (Radford et al. 2019).
func (t *Params) Init(seed uint64) {
	m := t.Model
	residual := map[*llm.Matrix]bool{}
	for i := range m.Blocks {
		residual[&m.Blocks[i].Out], residual[&m.Blocks[i].Down] = true, true
	}
	for _, w := range m.Weights() {
		if w.Vector != nil {
			for i := range *w.Vector {
				(*w.Vector)[i] = 1
				if strings.HasSuffix(w.Name, ".bias") {
					(*w.Vector)[i] = 0
				}
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

// Grow copies a shallower model of the same width into p, which has been
// initialised: layer i of L becomes layer i·M/L of M. The layers between keep
// their first values, which add nearly nothing to the residual stream, so the
// deeper model begins as good as the shallower one was and learns on from there.
//
// Note: half of the cost of a deep model's first thousand steps is saved so; see
// Gong et al. 2019, "Efficient training of BERT by progressively stacking".
func (p *Params) Grow(from *Params) error {
	return p.Spread(p.Flat, from, from.Flat)
}

// Spread is Grow for other values in the order of the parameters, such as the
// moments of an optimiser: src, in the order of from, goes to its places in dst.
func (p *Params) Spread(dst []float32, from *Params, src []float32) error {
	a, b := from.Model.Config, p.Model.Config
	deeper := a
	if deeper.Layers = b.Layers; deeper != b || a.Layers > b.Layers {
		return fmt.Errorf("grow a model of %d layers into one of %d: they differ in more than depth, or it is not deeper", a.Layers, b.Layers)
	}
	if len(src) != len(from.Flat) || len(dst) != len(p.Flat) {
		return fmt.Errorf("grow a model: %d and %d values for %d and %d parameters", len(src), len(dst), len(from.Flat), len(p.Flat))
	}
	places, at := map[string]int{}, 0
	for _, w := range p.Model.Weights() {
		places[w.Name] = at
		at += w.N * w.K
	}
	at = 0
	for _, w := range from.Model.Weights() {
		name := w.Name
		if layer, rest, ok := gguf.LayerOf(w.Name); ok {
			name = fmt.Sprintf("blk.%d.%s", layer*b.Layers/a.Layers, rest)
		}
		copy(dst[places[name]:], src[at:at+w.N*w.K])
		at += w.N * w.K
	}
	return nil
}
