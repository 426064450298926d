package train

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/internal/rng"
	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

// Method says which numbers training changes. All others stay as they are, in the format that the base has: a base in q4_0
// under a LoRA is QLoRA (Dettmers et al. 2023, but for the format).
type Method struct {
	Kind    string   // of Methods
	Rank    int      // lora: of the change of each matrix
	Alpha   float64  // lora: the change is Alpha/Rank·B·A; 0 stands for Rank
	Targets []string // lora: parts of the names of matrices; none stands for attn_q and attn_v
	Width   int      // adapter: of the bottleneck
	Tokens  int      // prefix, prompt: how many stand before the sequence
	From    int      // lora, adapter, prefix, bias, layers: the lowest layer that changes
}

// Methods lists the kinds, sorted, each with what it trains.
func Methods() [][2]string {
	return [][2]string{
		{"adapter", "a bottleneck behind attention and feed-forward of every layer: h + U·silu(D·h + b) + c (Houlsby et al. 2019)"},
		{"bias", "vectors: biases where the architecture has them, and norms (after BitFit, Ben Zaken et al. 2021; llama models have norms only)"},
		{"full", "every weight"},
		{"layers", "the weights of layers, without embedding, last norm and head"},
		{"lora", "a low-rank change of some matrices (Hu et al. 2021)"},
		{"prefix", "keys and values that every token attends to, in every layer (Li & Liang 2021, without the network that makes them)"},
		{"prompt", "embeddings that stand before the first token (Lester et al. 2021)"},
	}
}

// String is the method in a few words: lora-r8, adapter-w16, prefix-5.
func (m Method) String() string {
	switch m.Kind {
	case "lora":
		return fmt.Sprintf("lora-r%d", m.Rank)
	case "adapter":
		return fmt.Sprintf("adapter-w%d", m.Width)
	case "prefix", "prompt":
		return fmt.Sprintf("%s-%d", m.Kind, m.Tokens)
	}
	return m.Kind
}

// check says what is wrong with a method on models of a shape.
func (m Method) check(c llm.Config) error {
	var kinds []string
	for _, k := range Methods() {
		kinds = append(kinds, k[0])
	}
	if !slices.Contains(kinds, m.Kind) {
		return fmt.Errorf("tune a model: unknown method %q, have %s", m.Kind, strings.Join(kinds, ", "))
	}
	most := min(c.Dim, c.FFN)
	switch {
	case m.From < 0 || m.From >= c.Layers:
		return fmt.Errorf("tune a model: from layer %d, want 0 to %d", m.From, c.Layers-1)
	case m.From > 0 && (m.Kind == "full" || m.Kind == "prompt"):
		return fmt.Errorf("tune a model: from layer %d: method %s begins at the embedding", m.From, m.Kind)
	case m.Kind == "adapter" && (m.Width < 1 || m.Width > most):
		return fmt.Errorf("tune a model: an adapter of width %d, want 1 to %d, the width of the model", m.Width, most)
	case (m.Kind == "prefix" || m.Kind == "prompt") && (m.Tokens < 1 || m.Tokens >= c.Context):
		return fmt.Errorf("tune a model: a %s of %d tokens, want 1 to %d, the context less one", m.Kind, m.Tokens, c.Context-1)
	}
	return nil
}

// Tune makes the parameters of a method on a base, which is shared and not changed: matrices that are not trained stay in the base's
// format, F32 or quantised, and must not be packed (see [llm.Model.As]). What is trained begins where it changes nothing, but for a prefix,
// which takes some attention from the start, and a prompt, which begins as words of luck.
func Tune(base *llm.Model, m Method, seed uint64) (*Params, error) {
	if err := trainable(base.Config); err != nil {
		return nil, err
	}
	if base.RopeFactors != nil || base.Packed() || base.Lo != 0 || base.Hi != base.Layers {
		return nil, fmt.Errorf("tune a model: want a whole one that is not packed and has no scaled positions: copy it with As")
	}
	own := &llm.Model{Config: base.Config.WithDefaults(), Hi: base.Layers, Embed: base.Embed, Blocks: slices.Clone(base.Blocks), Norm: base.Norm, Head: base.Head}
	p, err := lay(own, m)
	if err != nil {
		return nil, err
	}
	return p, p.begin(base, seed)
}

// Like returns zeros in the layout of p: a gradient, or the state of an optimiser.
func (t *Params) Like() *Params {
	p, err := lay(&llm.Model{Config: t.Model.Config, Hi: t.Model.Layers, Blocks: make([]llm.Block, t.Model.Layers)}, t.Method)
	if err != nil {
		panic("train: parameters of a method that is none: " + err.Error())
	}
	return p
}

// Part is a tensor among those that are trained.
type Part struct {
	Name   string
	N, K   int  // a vector has N = 1
	Decays bool // under weight decay: matrices of the model do
	Data   []float32
}

// Parts lists what is trained, in the order of Flat.
func (t *Params) Parts() []Part { return t.list }

// slot is a part that waits for its place.
type slot struct {
	Part
	set func(view []float32)
}

// lay gives the parts of a method their places in one vector and hangs views of it into m, whose other weights stay.
func lay(m *llm.Model, method Method) (*Params, error) {
	if err := method.check(m.Config); err != nil {
		return nil, err
	}
	p := &Params{Model: m, Method: method}
	var slots []slot
	var err error
	switch method.Kind {
	case "full", "layers", "bias":
		slots = own(m, method)
	default:
		p.extra = &extra{layers: make([]layerExtra, m.Layers)}
		slots, err = p.extra.slots(m.Config, method)
	}
	if err != nil {
		return nil, err
	}
	n := 0
	for _, s := range slots {
		n += s.N * s.K
	}
	p.Flat = make([]float32, n)
	rest := p.Flat
	for _, s := range slots {
		n := s.N * s.K
		s.Data = rest[:n:n]
		rest = rest[n:]
		s.set(s.Data)
		p.list = append(p.list, s.Part)
	}
	return p, nil
}

// own are the weights of the model that a method trains.
func own(m *llm.Model, method Method) (slots []slot) {
	for _, w := range m.Weights() {
		layer, _, inside := gguf.LayerOf(w.Name)
		switch {
		case method.Kind == "bias" && (w.Matrix != nil || inside && layer < method.From),
			method.Kind == "layers" && (!inside || layer < method.From):
			continue
		}
		s := slot{Part: Part{Name: w.Name, N: w.N, K: w.K, Decays: w.Matrix != nil}}
		if w.Vector != nil {
			s.set = func(view []float32) { *w.Vector = view }
		} else {
			s.set = func(view []float32) { *w.Matrix = llm.Matrix{Type: quant.F32, N: w.N, K: w.K, F32: view} }
		}
		slots = append(slots, s)
	}
	return slots
}

// begin sets what is trained to its first values.
func (t *Params) begin(base *llm.Model, seed uint64) error {
	weights := map[string]llm.Weight{}
	for _, w := range base.Weights() {
		weights[w.Name] = w
	}
	for _, part := range t.list {
		if w, ok := weights[part.Name]; ok {
			read(part.Data, w)
			continue
		}
		r := rng.Stream(seed, "lora", strings.TrimSuffix(part.Name, ".lora_a"))
		switch {
		case strings.HasSuffix(part.Name, ".lora_a"), strings.HasSuffix(part.Name, ".down"):
			for i := range part.Data {
				part.Data[i] = float32(rng.Normal(r) / math.Sqrt(float64(part.K)))
			}
		case strings.HasSuffix(part.Name, ".prefix_k"):
			for i := range part.Data {
				part.Data[i] = float32(rng.Normal(r) / 2)
			}
		case part.Name == "prompt":
			for i := range part.N {
				readRow(part.Data[i*part.K:(i+1)*part.K], &base.Embed, r.IntN(base.Vocab))
			}
		}
	}
	return nil
}

// read decodes a weight.
func read(dst []float32, w llm.Weight) {
	if w.Vector != nil {
		copy(dst, *w.Vector)
		return
	}
	for n := range w.N {
		readRow(dst[n*w.K:(n+1)*w.K], w.Matrix, n)
	}
}

// readRow decodes a row of a matrix.
func readRow(dst []float32, m *llm.Matrix, n int) {
	if m.F32 != nil {
		copy(dst, m.F32[n*m.K:(n+1)*m.K])
		return
	}
	m.ReadRow(dst, n, 0)
}

// LoRA is the adapter among parameters of kind lora: its factors are views of Flat, so it follows training. nil for other kinds.
func (t *Params) LoRA() *LoRA {
	if t.Method.Kind != "lora" {
		return nil
	}
	l := &LoRA{Rank: t.Method.Rank, Alpha: t.Method.alpha(), Flat: t.Flat}
	for i := 0; i < len(t.list); i += 2 {
		a, b := t.list[i], t.list[i+1]
		l.Pairs = append(l.Pairs, Pair{Name: strings.TrimSuffix(a.Name, ".lora_a"), N: b.N, K: a.K, A: a.Data, B: b.Data})
	}
	return l
}

func (m Method) alpha() float64 {
	if m.Alpha == 0 {
		return float64(m.Rank)
	}
	return m.Alpha
}

// Lowest is the lowest layer in which anything is trained, -1 if something before the layers is: below it nothing needs a
// gradient, and hidden states never change.
func (t *Params) Lowest() int {
	lowest := t.Model.Layers
	for _, p := range t.list {
		layer, _, inside := gguf.LayerOf(p.Name)
		switch {
		case p.Name == "prompt", p.Name == "token_embd.weight":
			return -1
		case inside:
			lowest = min(lowest, layer)
		}
	}
	return lowest
}

// Count is how many numbers the method trains in models of a shape, which need not have weights.
func (m Method) Count(c llm.Config) (n int, err error) {
	c = c.WithDefaults()
	if err := m.check(c); err != nil {
		return 0, err
	}
	blank := &llm.Model{Config: c, Hi: c.Layers, Blocks: make([]llm.Block, c.Layers)}
	slots := own(blank, m)
	if m.Kind != "full" && m.Kind != "layers" && m.Kind != "bias" {
		if slots, err = (&extra{layers: make([]layerExtra, c.Layers)}).slots(c, m); err != nil {
			return 0, err
		}
	}
	for _, s := range slots {
		n += s.N * s.K
	}
	return n, nil
}
