package probe

import (
	"context"
	"fmt"
	"strings"
	"time"

	"meibench/internal/rng"
	"meibench/reference/llm"
	"meibench/reference/panel"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// Kernel says how fast one operation of the reference kernels runs at one shape
// of a model, and what share of the machine's limit that is.
type Kernel struct {
	Op      string        `json:"op"`    // matmul.gate, attention, rmsnorm, ...
	Shape   string        `json:"shape"` // T=8 N=352 K=128, with the letters of package reference
	Format  string        `json:"format,omitempty"`
	Tokens  int           `json:"tokens"`
	Threads int           `json:"threads"`
	FLOP    float64       `json:"flop"`              // a multiply-add is two
	Integer bool          `json:"integer,omitempty"` // they are operations on 8-bit integers
	Bytes   float64       `json:"bytes"`             // that must be read and written once: weights, inputs, outputs
	Set     float64       `json:"set_bytes"`         // of all copies that are read in turn; 0: Bytes, again and again
	Time    time.Duration `json:"time_ns"`
	N       int           `json:"n"` // undisturbed trials

	// Samples are the times of these trials, or of all if every one was disturbed.
	Samples []time.Duration `json:"samples_ns"`

	// Share is the least time that the limits allow (see [Limits.Share]), over
	// Time. Bound names the limit. NaN-free: 0 means no limit is known.
	Share float64 `json:"share_of_limit"`
	Bound string  `json:"bound"`
}

// Rate is FLOP/s, or OP/s of integers.
func (k Kernel) Rate() float64 { return k.FLOP / k.Time.Seconds() }

// Unit is that of Rate: operations on integers are no FLOP.
func (k Kernel) Unit() string {
	if k.Integer {
		return "OP/s"
	}
	return "FLOP/s"
}

// Bandwidth is B/s.
func (k Kernel) Bandwidth() float64 { return k.Bytes / k.Time.Seconds() }

// Work is what the kernel had to do.
func (k Kernel) Work() Work {
	w := Work{Bytes: k.Bytes, Set: k.Set, Float: k.FLOP}
	if k.Integer {
		w.Int, w.Float = k.FLOP, 0
	}
	return w
}

// MeasureKernels times the reference kernels at a model's shapes: the matrices
// of its first layer and its head for 1, 8 and 64 tokens, attention, and the
// operations between them.
func MeasureKernels(ctx context.Context, m *llm.Model, limits *Limits, threads int) ([]Kernel, error) {
	if m.Lo != 0 || m.Hi == 0 {
		return nil, fmt.Errorf("measure kernels: the model holds layers %d to %d, its first is needed", m.Lo, m.Hi)
	}
	p := tensor.NewPool(threads)
	defer p.Close()
	b := &modelBench{bench{pool: p, products: panel.NewProducts(p), limits: limits}, m}
	for _, T := range []int{1, 8, 64} {
		b.matrices(T)
	}
	for _, s := range []struct{ T, past int }{{1, 63}, {1, min(m.Context, 1024) - 1}, {64, 0}} {
		if s.T+s.past <= m.Context {
			b.attention(s.T, s.past)
		}
	}
	for _, T := range []int{1, 64} {
		b.rows(T)
	}
	return b.list, context.Cause(ctx)
}

// bench times kernels on a pool.
type bench struct {
	pool     *tensor.Pool
	products *panel.Products
	limits   *Limits
	target   time.Duration // of a trial; 0 is the usual one
	list     []Kernel
}

// modelBench takes shapes and weights from a model.
type modelBench struct {
	bench
	m *llm.Model
}

func noise(n int) []float32 {
	r := rng.Stream(1, "kernel input")
	x := make([]float32, n)
	for i := range x {
		x[i] = 2*r.Float32() - 1
	}
	return x
}

func (b *modelBench) matrices(T int) {
	blk := &b.m.Blocks[0]
	head := &b.m.Head
	if b.m.Tied {
		head = &b.m.Embed
	}
	for _, op := range []struct {
		name string
		w    *llm.Matrix
	}{{"q", &blk.Q}, {"k", &blk.K}, {"out", &blk.Out}, {"gate", &blk.Gate}, {"down", &blk.Down}, {"head", head}} {
		w := op.w
		if w.N == 0 {
			continue // the head of a model loaded in part
		}
		x, y := noise(T*w.K), make([]float32, T*w.N)
		b.add(Kernel{Op: "matmul." + op.name, Shape: fmt.Sprintf("T=%d N=%d K=%d", T, w.N, w.K), Format: w.Type.String(), Tokens: T, Integer: w.Integer(),
			FLOP: 2 * float64(T) * float64(w.N) * float64(w.K), Bytes: float64(w.Bytes()) + 4*float64(T)*float64(w.N+w.K)},
			func() { w.Mul(b.products, y, x, T) })
	}
}

func (b *modelBench) attention(T, past int) {
	c := b.m.Config
	q, kv := T*c.QDim(), (past+T)*c.KVDim()
	cache, err := tensor.NewKV(quant.F32, c.KVHeads, c.HeadDim, past+T)
	if err != nil {
		panic("probe: " + err.Error()) // F32 is one of its types
	}
	cache.Put(0, past+T, noise(kv), noise(kv))
	seqs := []tensor.AttnSeq{{Out: make([]float32, q), Q: noise(q), KV: cache, T: T, Past: past}}
	b.add(attentionKernel(Layer{H: c.Heads, G: c.KVHeads, D: c.HeadDim}, cache.Type, T, past), func() { b.pool.Attention(seqs, c.Heads) })
}

// attentionKernel counts what T tokens behind past others need: two products a
// pair of positions and channel; queries in, outputs out, keys and values once.
// Exponentials are not counted.
func attentionKernel(l Layer, t quant.Type, T, past int) Kernel {
	pairs := float64(T)*float64(past) + float64(T)*float64(T+1)/2
	return Kernel{Op: "attention", Shape: fmt.Sprintf("T=%d past=%d H=%d G=%d D=%d", T, past, l.H, l.G, l.D), Format: t.String(), Tokens: T,
		FLOP:  4 * pairs * float64(l.H*l.D),
		Bytes: float64(8*T*l.H*l.D) + float64(past+T)*float64(tensor.KVBytes(t, l.G, l.D))}
}

// rows times what happens row by row, on one thread as the engine does for few rows.
func (b *modelBench) rows(T int) {
	l := Layer{C: b.m.Dim, F: b.m.FFN}
	for _, op := range l.rowOps()[:2] {
		k, run := op(T)
		k.Threads = 1
		b.add(k, func() { run(0, T) })
	}
}

// add times an operation and compares it with the limits. Disturbed trials are
// repeated, up to a point; long operations get fewer, but three.
func (b *bench) add(k Kernel, run func()) {
	const trials, least, enough = 9, 3, 300 * time.Millisecond
	target := 500 * time.Microsecond
	if b.target > 0 {
		target = b.target
	}
	if k.Threads == 0 {
		k.Threads = b.pool.Workers()
	}
	run() // warm-up
	began := time.Now()
	run()
	reps := int(target/max(time.Since(began), 1)) + 1
	var times []trial
	lost := 0
	for all := time.Now(); len(times) < least || len(times)-lost < trials && len(times) < 4*trials && time.Since(all) < enough; {
		before, began := preemptions(), time.Now()
		for range reps {
			run()
		}
		x := trial{took: max(time.Since(began)/time.Duration(reps), 1)}
		if x.lost = preemptions() > before; x.lost {
			lost++
		}
		times = append(times, x)
	}
	k.Time, k.N = undisturbed(times)
	clean := k.N > 0
	if !clean {
		for i := range times {
			times[i].lost = false
		}
		k.Time, _ = undisturbed(times)
	}
	for _, x := range times {
		if !x.lost {
			k.Samples = append(k.Samples, x.took)
		}
	}
	k.Share, k.Bound = b.limits.Share(k.Work(), k.Threads, k.Time)
	b.list = append(b.list, k)
}

// Work is what an operation must do at least.
type Work struct {
	Float, Int float64 // operations on float32 and on 8-bit integers; a multiply-add is two
	Bytes      float64 // to read and write
	Set        float64 // bytes in use before any comes again, which decides on the memory they come from; 0: Bytes
}

// set is the bytes in use.
func (w Work) set() float64 { return max(w.Set, w.Bytes) }

// Share is the least time that the limits allow for work, over the time that it
// took, and what binds: arithmetic at the peaks of the instruction set that the
// kernels use, integers and floats one after the other, or the read bandwidth of
// the smallest memory that holds what is in use, whichever takes longer. Both are
// 0 where no limit is known.
func (l *Limits) Share(w Work, threads int, took time.Duration) (share float64, bound string) {
	if l == nil || took <= 0 {
		return 0, ""
	}
	var sec, most float64
	for _, part := range []struct {
		ops    float64
		figure string
		name   string
	}{{w.Float, PeakF32, "F32"}, {w.Int, PeakInt8, "int8"}} {
		if peak, ok := l.Peak(part.figure, threads); ok && part.ops > 0 {
			sec += part.ops / peak.Value
			if part.ops/peak.Value > most {
				most, bound = part.ops/peak.Value, part.name+" "+peak.Detail
			}
		}
	}
	if rate, ok := l.Memory(w.set(), threads); ok && w.Bytes/rate.Value > sec {
		sec, bound = w.Bytes/rate.Value, rate.Detail
	}
	return sec / took.Seconds(), bound
}

// Memory is the read bandwidth of the smallest memory that holds a number of
// bytes; Detail is the level of cache, or "DRAM".
func (l *Limits) Memory(bytes float64, threads int) (Figure, bool) {
	for _, c := range l.Machine.Caches {
		if bytes <= float64(c.Bytes) {
			return l.find(CacheRead, c.Name(), threads)
		}
	}
	f, ok := l.find(DRAMRead, "", threads)
	f.Detail = "DRAM"
	return f, ok
}

// Limit is the figure that a bound named by [Limits.Share] stands for.
func (l *Limits) Limit(bound string, threads int) (Figure, bool) {
	kind, _, _ := strings.Cut(bound, " ")
	switch kind {
	case "":
		return Figure{}, false
	case "F32":
		return l.Peak(PeakF32, threads)
	case "int8":
		return l.Peak(PeakInt8, threads)
	case "DRAM":
		return l.find(DRAMRead, "", threads)
	}
	return l.find(CacheRead, bound, threads)
}

// Peak is a peak, [PeakF32] or [PeakInt8], of the instruction set that the
// kernels of l.Tier use, and the machine's best where that is not known.
func (l *Limits) Peak(name string, threads int) (Figure, bool) {
	if f, ok := l.find(name, instructions(name, l.Tier), threads); ok {
		return f, true
	}
	return l.find(name, "", threads)
}

// instructions names the set whose peak bounds the kernels of a tier of package
// tensor, as the loops here call it. Integer products of avx512 are those of avx2.
func instructions(peak, tier string) string {
	switch tier {
	case "generic":
		return portableName
	case "avx2":
		if peak == PeakInt8 {
			return "AVX2 VPMADDUBSW"
		}
		return "AVX2"
	case "avx512", "vnni":
		if peak == PeakF32 {
			return "AVX-512"
		}
		if tier == "vnni" {
			return "AVX512-VNNI"
		}
		return "AVX2 VPMADDUBSW"
	}
	return ""
}

// find is a limit at a number of threads: the best that they or fewer reached, in
// any detail unless one is given.
func (l *Limits) find(name, detail string, threads int) (best Figure, ok bool) {
	for _, f := range l.Figures {
		if f.Name == name && (detail == "" || f.Detail == detail) && f.Threads <= threads && f.Value > best.Value { // false for NaN
			best, ok = f, true
		}
	}
	return best, ok
}

// at is the value of find.
func (l *Limits) at(name, detail string, threads int) (value float64, ok bool) {
	f, ok := l.find(name, detail, threads)
	return f.Value, ok
}
