package probe

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"meibench/internal/units"
	"meibench/reference/panel"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// Layer is the shape of a transformer layer in the letters of package reference:
// channels, width of the feed-forward network, heads, key/value heads and
// channels of a head.
type Layer struct{ C, F, H, G, D int }

// NamedLayer is the layer of a published model.
type NamedLayer struct {
	Name, Source string
	Layer        Layer
}

// Layers lists layers by name.
var Layers = []NamedLayer{
	{"llama-3.1-8b", "config.json of meta-llama/Llama-3.1-8B", Layer{4096, 14336, 32, 8, 128}},
	{"llama-3.2-1b", "config.json of meta-llama/Llama-3.2-1B", Layer{2048, 8192, 32, 8, 64}},
	{"qwen2.5-0.5b", "config.json of Qwen/Qwen2.5-0.5B", Layer{896, 4864, 14, 2, 64}},
	{"smollm2-135m", "config.json of HuggingFaceTB/SmolLM2-135M", Layer{576, 1536, 9, 3, 64}},
	{"tinyllama", "config.json of TinyLlama/TinyLlama-1.1B-Chat-v1.0", Layer{2048, 5632, 32, 4, 64}},
}

// ParseLayer reads the name of one of [Layers], or a shape such as
// C=2048,F=5632,H=32,G=4,D=64.
func ParseLayer(text string) (Layer, error) {
	var names []string
	for _, n := range Layers {
		if n.Name == text {
			return n.Layer, nil
		}
		names = append(names, n.Name)
	}
	var l Layer
	fields := map[string]*int{"C": &l.C, "F": &l.F, "H": &l.H, "G": &l.G, "D": &l.D}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		field := fields[key]
		n, err := strconv.Atoi(value)
		if field == nil || err != nil {
			return Layer{}, fmt.Errorf("layer %q: want one of %s, or sizes such as %v", text, strings.Join(names, ", "), Layers[len(Layers)-1].Layer)
		}
		*field = n
		delete(fields, key)
	}
	return l, l.check()
}

// String is the shape as [ParseLayer] reads it.
func (l Layer) String() string {
	return fmt.Sprintf("C=%d,F=%d,H=%d,G=%d,D=%d", l.C, l.F, l.H, l.G, l.D)
}

func (l Layer) check() error {
	const most = 1 << 17 // no published model is wider
	for _, v := range []int{l.C, l.F, l.H, l.G, l.D} {
		if v < 1 || v > most {
			return fmt.Errorf("layer %v: want each size from 1 to %d", l, most)
		}
	}
	if l.H%l.G != 0 || l.D%2 != 0 {
		return fmt.Errorf("layer %v: want H a multiple of G, and D even", l)
	}
	return nil
}

// product is a step of matrices that share their input.
type product struct {
	op string
	n  []int
	k  int
}

// products are the steps of a layer, as package llm runs them.
func (l Layer) products() []product {
	q, kv := l.H*l.D, l.G*l.D
	return []product{
		{"matmul.qkv", []int{q, kv, kv}, l.C}, {"matmul.out", []int{l.C}, q},
		{"matmul.gate_up", []int{l.F, l.F}, l.C}, {"matmul.down", []int{l.C}, l.F},
	}
}

// KernelPlan says which kernels of a synthetic layer are measured.
type KernelPlan struct {
	Layer   Layer
	Types   []quant.Type // of weights
	Tokens  []int        // at once
	Threads []int
	Depths  []int      // tokens that are in the cache when one more attends to them
	Cache   quant.Type // of keys and values
	Limits  *Limits    // to compare with; may be nil
	Memory  units.Bytes
	Target  time.Duration // of a trial; 0 is the usual one

	// Progress is called before step i of n; may be nil.
	Progress func(i, n int, what string)
}

// Check refuses what cannot be measured, and [MeasureLayer] does so first.
func (p *KernelPlan) Check() error {
	if err := p.Layer.check(); err != nil {
		return err
	}
	for _, list := range []struct {
		what  string
		least int
		have  []int
	}{{"tokens", 1, p.Tokens}, {"threads", 1, p.Threads}, {"depths", 0, p.Depths}} {
		if len(list.have) == 0 || slices.Min(list.have) < list.least {
			return fmt.Errorf("measure kernels: %s %v: want numbers from %d", list.what, list.have, list.least)
		}
	}
	for _, t := range p.Types {
		for _, s := range p.Layer.products() {
			if _, err := t.RowBytes(s.k); err != nil {
				return fmt.Errorf("measure kernels: %s of layer %v: %w; choose another type or shape", s.op, p.Layer, err)
			}
		}
	}
	return nil
}

// MeasureLayer times every kernel of a plan.
//
// In a real decode weights and caches come from main memory, because a whole
// model passes between two uses. So products and attention to a cache are
// measured on copies that together are several times the largest cache, read in
// turn. Everything else is small, stays in a cache there and here, and is compared
// with that cache.
func MeasureLayer(ctx context.Context, p KernelPlan) ([]Kernel, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if p.Memory == 0 {
		p.Memory = beyondCaches(p.Limits)
	}
	l := layerBench{KernelPlan: p, ctx: ctx}
	defer l.close()
	for _, n := range p.Threads {
		pool := tensor.NewPool(n)
		l.benches = append(l.benches, bench{pool: pool, products: panel.NewProducts(pool), limits: p.Limits, target: p.Target})
	}
	l.of = len(p.Types)*len(p.Layer.products()) + len(p.Depths) + 2
	for _, t := range p.Types {
		for _, s := range p.Layer.products() {
			l.say(t.String() + " " + s.op)
			if err := l.product(t, s); err != nil {
				return nil, fmt.Errorf("measure %s of %v: %w", s.op, t, err)
			}
		}
	}
	for _, depth := range p.Depths {
		l.say(fmt.Sprintf("attention at depth %d", depth))
		if err := l.attention(1, depth); err != nil {
			return nil, fmt.Errorf("measure attention: %w", err)
		}
	}
	l.say("attention of a prompt")
	if T := slices.Max(p.Tokens); T > 1 {
		if err := l.attention(T, 0); err != nil {
			return nil, fmt.Errorf("measure attention: %w", err)
		}
	}
	l.say("row by row")
	l.rows()
	return l.list(), context.Cause(ctx)
}

// beyondCaches is memory that no cache holds a good part of.
func beyondCaches(l *Limits) units.Bytes {
	size := 64 * units.MiB
	if l != nil {
		size = l.Machine.streamed()
	}
	return size
}

type layerBench struct {
	KernelPlan
	ctx     context.Context
	benches []bench // one per number of threads
	at, of  int
}

func (l *layerBench) say(what string) {
	if l.Progress != nil {
		l.Progress(l.at, l.of, what)
	}
	l.at++
}

func (l *layerBench) close() {
	for _, b := range l.benches {
		b.pool.Close()
	}
}

// list is what was measured, by operation and type, then threads.
func (l *layerBench) list() (all []Kernel) {
	for i := range l.benches[0].list {
		for _, b := range l.benches {
			if b.list[i].Time > 0 {
				all = append(all, b.list[i])
			}
		}
	}
	return all
}

// each times a kernel on every number of threads; most is the number of parts
// that its work has, 0 for any.
func (l *layerBench) each(k Kernel, most int, run func(b *bench)) {
	last := 0
	for i := range l.benches {
		b := &l.benches[i]
		k.Threads = b.pool.Workers()
		if most > 0 {
			k.Threads = min(k.Threads, most)
		}
		if k.Threads == last || l.ctx.Err() != nil {
			b.list = append(b.list, Kernel{}) // nothing new
			continue
		}
		last = k.Threads
		b.add(k, func() { run(b) })
	}
}

// product times one step for every number of tokens.
func (l *layerBench) product(t quant.Type, s product) error {
	arena := panel.NewArena()
	var first []*panel.Matrix
	set, rows := 0, 0
	for _, n := range s.n {
		m, err := matrixOf(t, n, s.k, arena)
		if err != nil {
			return err
		}
		first, set, rows = append(first, m), set+m.Bytes(), rows+n
	}
	copies := [][]*panel.Matrix{first}
	for len(copies)*set < int(l.Memory) {
		var next []*panel.Matrix
		for _, m := range first {
			next = append(next, m.Clone(arena))
		}
		copies = append(copies, next)
	}
	for _, T := range l.Tokens {
		x, turn := noise(T*s.k), 0
		var out [][]float32
		for _, n := range s.n {
			out = append(out, make([]float32, T*n))
		}
		l.each(Kernel{Op: s.op, Shape: fmt.Sprintf("T=%d N=%d K=%d", T, rows, s.k), Format: t.String(), Tokens: T, Integer: first[0].Integer(),
			FLOP: 2 * float64(T) * float64(rows) * float64(s.k), Bytes: float64(set) + 4*float64(T)*float64(rows+s.k), Set: float64(len(copies) * set)}, 0,
			func(b *bench) {
				turn = (turn + 1) % len(copies)
				b.products.Set(x, T, s.k)
				for i, m := range copies[turn] {
					b.products.Add(m, out[i])
				}
				b.products.Run()
			})
	}
	return nil
}

// matrixOf packs random weights. A few rows are encoded and then repeated: speed
// does not depend on values.
func matrixOf(t quant.Type, n, k int, arena *panel.Arena) (*panel.Matrix, error) {
	const distinct = 16
	size, err := t.RowBytes(k)
	if err != nil {
		return nil, err
	}
	src := make([]byte, n*size)
	values := noise(distinct * k)
	for i := range min(n, distinct) {
		if err := quant.Encode(t, src[i*size:(i+1)*size], values[i*k:(i+1)*k]); err != nil {
			return nil, err
		}
	}
	for at := distinct * size; at < len(src); at *= 2 {
		copy(src[at:], src[:at])
	}
	return panel.Pack(t, n, k, src, arena)
}

// attention times T tokens behind past others: one token on caches read in turn,
// a prompt on the one that it has just filled.
func (l *layerBench) attention(T, past int) error {
	s := l.Layer
	k := attentionKernel(s, l.Cache, T, past)
	q, width := noise(T*s.H*s.D), s.G*s.D
	keys := noise((past + T) * width)
	var seqs [][]tensor.AttnSeq
	for n := 1; len(seqs) < n; {
		kv, err := tensor.NewKV(l.Cache, s.G, s.D, past+T)
		if err != nil {
			return err
		}
		kv.Put(0, past+T, keys, keys)
		seqs = append(seqs, []tensor.AttnSeq{{Out: make([]float32, len(q)), Q: q, KV: kv, T: T, Past: past}})
		if T == 1 {
			n = int(l.Memory)/kv.Resident() + 1
			k.Set = float64(n * kv.Resident())
		}
	}
	turn := 0
	l.each(k, 0, func(b *bench) {
		turn = (turn + 1) % len(seqs)
		b.pool.Attention(seqs[turn], s.H)
	})
	return nil
}

// rows times what happens row by row, with the shares of rows that threads get.
func (l *layerBench) rows() {
	for _, op := range l.Layer.rowOps() {
		for _, T := range l.Tokens {
			k, run := op(T)
			l.each(k, T, func(b *bench) {
				if T < b.pool.Workers() {
					run(0, T)
					return
				}
				b.pool.Rows(T, run)
			})
		}
	}
	for _, T := range l.Tokens {
		C := l.Layer.C / 32 * 32
		if C == 0 {
			continue
		}
		x := noise(T * C)
		// 32 quants and 7 numbers of 4 bytes a block; largest, scale, round and sum
		most := 0
		if T*C < panel.SmallRound {
			most = 1
		}
		l.each(Kernel{Op: "round8", Shape: fmt.Sprintf("T=%d C=%d", T, C), Tokens: T, FLOP: 4 * float64(T*C), Bytes: float64(4*T*C) + 60*float64(T*C/32)}, most,
			func(b *bench) { b.products.Set(x, T, C); b.products.Round() })
	}
}

// expFLOP is what an exponential takes: clamped to its range by two comparisons
// that are not counted, x = n·ln 2 + r takes 7, a polynomial of degree 7 takes 14
// and 2^n one (tensor.Exp).
const expFLOP = 22

// rowOps are the operations between products: what each does for T tokens, and a
// function that does it for rows [lo, hi).
func (l Layer) rowOps() []func(T int) (Kernel, func(lo, hi int)) {
	const positions = 4096 // of a row of scores
	return []func(T int) (Kernel, func(lo, hi int)){
		func(T int) (Kernel, func(lo, hi int)) { // square, add, scale, weigh
			C := l.C
			x, w, y := noise(T*C), noise(C), make([]float32, T*C)
			return Kernel{Op: "rmsnorm", Shape: fmt.Sprintf("T=%d C=%d", T, C), Tokens: T, FLOP: 4 * float64(T*C), Bytes: 4 * float64(2*T*C+C)},
				func(lo, hi int) { tensor.RMSNorm(y[lo*C:hi*C], x[lo*C:hi*C], w, nil, hi-lo, C, 1e-5) }
		},
		func(T int) (Kernel, func(lo, hi int)) { // negate, exponentiate, add 1, divide, multiply
			F := l.F
			gate, up, out := noise(T*F), noise(T*F), make([]float32, T*F)
			return Kernel{Op: "swiglu", Shape: fmt.Sprintf("T=%d F=%d", T, F), Tokens: T, FLOP: (4 + expFLOP) * float64(T*F), Bytes: 12 * float64(T*F)},
				func(lo, hi int) { tensor.SwiGLU(out[lo*F:hi*F], gate[lo*F:hi*F], up[lo*F:hi*F]) }
		},
		func(T int) (Kernel, func(lo, hi int)) { // two channels: four products, two sums
			r, w := tensor.Rope{D: l.D, Base: 10000}, (l.H+l.G)*l.D
			r.Reserve(T)
			x := noise(T * w)
			return Kernel{Op: "rope", Shape: fmt.Sprintf("T=%d H=%d D=%d", T, l.H+l.G, l.D), Tokens: T, FLOP: 3 * float64(T*w), Bytes: 8*float64(T*w) + 4*float64(T*l.D)},
				func(lo, hi int) { r.Apply(x[lo*w:hi*w], hi-lo, l.H+l.G, lo) }
		},
		func(T int) (Kernel, func(lo, hi int)) { // compare, subtract, exponentiate, add, divide
			x, y := noise(T*positions), make([]float32, T*positions)
			return Kernel{Op: "softmax", Shape: fmt.Sprintf("T=%d N=%d", T, positions), Tokens: T, FLOP: (4 + expFLOP) * float64(T*positions), Bytes: 8 * float64(T*positions)},
				func(lo, hi int) {
					for t := lo; t < hi; t++ {
						tensor.Softmax(y[t*positions:(t+1)*positions], x[t*positions:(t+1)*positions])
					}
				}
		},
		func(T int) (Kernel, func(lo, hi int)) { // and add
			x, y := noise(T*positions), make([]float32, T*positions)
			return Kernel{Op: "exp", Shape: fmt.Sprintf("T=%d N=%d", T, positions), Tokens: T, FLOP: (1 + expFLOP) * float64(T*positions), Bytes: 8 * float64(T*positions)},
				func(lo, hi int) { tensor.Exp(y[lo*positions:hi*positions], x[lo*positions:hi*positions]) }
		},
	}
}
