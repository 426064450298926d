package llm

import (
	"math"
	"slices"
	"strings"
)

// oracle computes the logits of every token from the papers' formulas: float64 throughout, no cache, no batch, no shared
// code but the decoding of weights. It knows architectures by name, not by the table of traits, so that a wrong entry
// there is found. x[t] is the hidden state of token t.
type oracle struct {
	m       *Model
	decoded map[*Matrix][][]float64
}

func (o oracle) is(names ...string) bool { return slices.Contains(names, o.m.Arch) }
func (o oracle) gemma() bool             { return strings.HasPrefix(o.m.Arch, "gemma") }

func (o oracle) rows(w *Matrix) [][]float64 {
	if rows, ok := o.decoded[w]; ok {
		return rows
	}
	rows := make([][]float64, w.N)
	for n := range rows {
		r := make([]float32, w.K)
		w.ReadRow(r, n, 0)
		for _, v := range r {
			rows[n] = append(rows[n], float64(v))
		}
	}
	o.decoded[w] = rows
	return rows
}

// linear is W·x + b; an empty bias is none.
func (o oracle) linear(w *Matrix, bias []float32, x []float64) []float64 {
	y := make([]float64, w.N)
	for n := range y {
		for k, v := range o.rows(w)[n] {
			y[n] += v * x[k]
		}
		if bias != nil {
			y[n] += float64(bias[n])
		}
	}
	return y
}

func (o oracle) rms(x []float64, w []float32) []float64 {
	var s float64
	for _, v := range x {
		s += v * v
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / math.Sqrt(s/float64(len(x))+float64(o.m.Eps)) * float64(w[i])
	}
	return y
}

// norm is LayerNorm for phi2, RMSNorm for the others.
func (o oracle) norm(x []float64, w, bias []float32) []float64 {
	if !o.is("phi2") {
		return o.rms(x, w)
	}
	mean, variance, n := 0.0, 0.0, float64(len(x))
	for _, v := range x {
		mean += v / n
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / n
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = (v-mean)/math.Sqrt(variance+float64(o.m.Eps))*float64(w[i]) + float64(bias[i])
	}
	return y
}

// windowed says whether a layer of the published models has a sliding window: in gemma2 every other one from the first, in
// gemma3 five of six, elsewhere all if any.
func (o oracle) windowed(layer int) bool {
	switch {
	case o.m.Window == 0:
		return false
	case o.is("gemma2"):
		return layer%2 == 0
	case o.is("gemma3"):
		return layer%6 != 5
	}
	return true
}

// angle of pair i at a position. In gemma3 layers with a window rotate faster, and unscaled.
func (o oracle) angle(layer, pos, i int) float64 {
	c, s := o.m.Config, o.m.Rope
	if o.is("gemma3") && o.windowed(layer) {
		return float64(pos) * math.Pow(10000, -float64(2*i)/float64(c.RopeDim))
	}
	a := float64(pos) * math.Pow(c.RopeBase, -float64(2*i)/float64(c.RopeDim))
	switch s.Kind {
	case "linear":
		a /= s.Factor
	case "yarn":
		// turns of this pair over the first context; the paper's γ is 1 above 32 turns and 0 below 1. It is a ramp in the
		// pair's number, between the pairs that turn so often, rounded outwards as its authors' code does.
		pairOf := func(turns float64) float64 {
			return float64(c.RopeDim) / 2 * math.Log(float64(s.OrigContext)/(2*math.Pi*turns)) / math.Log(c.RopeBase)
		}
		lo, hi := math.Max(0, math.Floor(pairOf(32))), math.Min(float64(c.RopeDim-1), math.Ceil(pairOf(1)))
		gamma := 1 - math.Min(1, math.Max(0, (float64(i)-lo)/(hi-lo)))
		a = gamma*a + (1-gamma)*a/s.Factor
	}
	switch {
	case o.m.RopeLong != nil && c.Context > s.OrigContext:
		a /= float64(o.m.RopeLong[i])
	case o.m.RopeFactors != nil:
		a /= float64(o.m.RopeFactors[i])
	}
	return a
}

// rotate turns complex pairs of every head; the pairs are neighbours for llama and halves for the others.
func (o oracle) rotate(x []float64, layer, pos int) {
	D, R, scale := o.m.HeadDim, o.m.RopeDim, 1.0
	if o.m.Rope.Attention != 0 {
		scale = o.m.Rope.Attention
	}
	if o.m.Rope.Kind == "yarn" {
		scale *= 0.1*math.Log(o.m.Rope.Factor) + 1
	}
	for h := 0; h < len(x); h += D {
		for i := range R / 2 {
			a, b := h+i, h+i+R/2
			if o.is("llama") {
				a, b = h+2*i, h+2*i+1
			}
			angle := o.angle(layer, pos, i)
			z := complex(x[a], x[b]) * complex(scale*math.Cos(angle), scale*math.Sin(angle))
			x[a], x[b] = real(z), imag(z)
		}
	}
}

// heads normalises each head.
func (o oracle) heads(x []float64, w []float32) {
	for h := 0; h < len(x); h += len(w) {
		copy(x[h:], o.rms(x[h:h+len(w)], w))
	}
}

func (o oracle) attend(layer int, q []float64, keys, values [][]float64) []float64 {
	D, perGroup := o.m.HeadDim, o.m.Heads/o.m.KVHeads
	out := make([]float64, len(q))
	first := 0
	if o.windowed(layer) {
		first = max(0, len(keys)-o.m.Window)
	}
	for h := range o.m.Heads {
		g := h / perGroup * D
		weights, sum := make([]float64, len(keys)), 0.0
		for p := first; p < len(keys); p++ {
			dot := 0.0
			for d := range D {
				dot += q[h*D+d] * keys[p][g+d]
			}
			dot /= math.Sqrt(float64(D))
			if c := float64(o.m.AttnSoftcap); c > 0 {
				dot = c * math.Tanh(dot/c)
			}
			weights[p] = math.Exp(dot)
			sum += weights[p]
		}
		for p := first; p < len(keys); p++ {
			for d := range D {
				out[h*D+d] += weights[p] / sum * values[p][g+d]
			}
		}
	}
	return out
}

func silu(x float64) float64 { return x / (1 + math.Exp(-x)) }

func gelu(x float64) float64 {
	return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*math.Pow(x, 3))))
}

func (o oracle) gated(gate, up, down *Matrix, x []float64) []float64 {
	act := silu
	if o.gemma() {
		act = gelu
	}
	g, u := o.linear(gate, nil, x), o.linear(up, nil, x)
	for i := range u {
		u[i] *= act(g[i])
	}
	return o.linear(down, nil, u)
}

// mixture is Σ p_e·expert_e(x) over the most probable experts; qwen2moe leaves p as it is and adds a shared expert.
func (o oracle) mixture(b *Block, x []float64) []float64 {
	p := o.linear(&b.Router, nil, x)
	sum := 0.0
	for i := range p {
		p[i] = math.Exp(p[i])
		sum += p[i]
	}
	order := make([]int, len(p))
	for i := range p {
		p[i] /= sum
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if p[a] > p[b] {
			return -1
		}
		return 1
	})
	chosen := order[:o.m.ExpertsUsed]
	whole := 0.0
	for _, e := range chosen {
		whole += p[e]
	}
	if o.is("qwen2moe") {
		whole = 1
	}
	y := make([]float64, len(x))
	for _, e := range chosen {
		ex := &b.Experts[e]
		for i, v := range o.gated(&ex.Gate, &ex.Up, &ex.Down, x) {
			y[i] += p[e] / whole * v
		}
	}
	if o.is("qwen2moe") {
		open := 1 / (1 + math.Exp(-o.linear(&b.SharedGate, nil, x)[0]))
		for i, v := range o.gated(&b.Shared.Gate, &b.Shared.Up, &b.Shared.Down, x) {
			y[i] += open * v
		}
	}
	return y
}

func (o oracle) feedForward(b *Block, x []float64) []float64 {
	switch {
	case o.m.Experts > 0:
		return o.mixture(b, x)
	case o.is("phi2"):
		u := o.linear(&b.Up, b.UpB, x)
		for i := range u {
			u[i] = gelu(u[i])
		}
		return o.linear(&b.Down, b.DownB, u)
	}
	return o.gated(&b.Gate, &b.Up, &b.Down, x)
}

// layer runs token t, whose state is x[t], behind the keys and values of those before it.
func (o oracle) layer(l, t int, x []float64, keys, values *[][]float64) {
	b := &o.m.Blocks[l]
	n := o.norm(x, b.AttnNorm, b.AttnNormB)
	q, k := o.linear(&b.Q, b.QB, n), o.linear(&b.K, b.KB, n)
	if o.is("qwen3", "qwen3moe", "gemma3") {
		o.heads(q, b.QNorm)
		o.heads(k, b.KNorm)
	}
	o.rotate(q, l, t)
	o.rotate(k, l, t)
	*keys, *values = append(*keys, k), append(*values, o.linear(&b.V, b.VB, n))
	a := o.linear(&b.Out, b.OutB, o.attend(l, q, *keys, *values))
	if o.is("gemma2", "gemma3") {
		a = o.rms(a, b.PostAttnNorm)
	}
	for i, v := range a {
		x[i] += v
	}
	if !o.is("phi2") { // in phi2 both halves of the layer read the same norm
		n = o.norm(x, b.FFNNorm, nil)
	}
	f := o.feedForward(b, n)
	if o.is("gemma2", "gemma3") {
		f = o.rms(f, b.PostFFNNorm)
	}
	for i, v := range f {
		x[i] += v
	}
}

// logits returns, per token, the logits after the first upTo layers.
func (o oracle) logits(ids []int32, upTo int) [][]float64 {
	o.decoded = map[*Matrix][][]float64{}
	var x [][]float64
	for _, id := range ids {
		x = append(x, slices.Clone(o.rows(&o.m.Embed)[id]))
		if o.gemma() {
			for i := range x[len(x)-1] {
				x[len(x)-1][i] *= math.Sqrt(float64(o.m.Dim))
			}
		}
	}
	for l := range upTo {
		var keys, values [][]float64
		for t := range x {
			o.layer(l, t, x[t], &keys, &values)
		}
	}
	head := &o.m.Head
	if o.m.Tied {
		head = &o.m.Embed
	}
	var out [][]float64
	for t := range x {
		y := o.linear(head, o.m.HeadB, o.norm(x[t], o.m.Norm, o.m.NormB))
		if c := float64(o.m.FinalSoftcap); c > 0 {
			for i := range y {
				y[i] = c * math.Tanh(y[i]/c)
			}
		}
		out = append(out, y)
	}
	return out
}
