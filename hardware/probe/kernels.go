package probe

import (
	"context"
	"fmt"
	"math"
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
	FLOP    float64       `json:"flop"`
	Bytes   float64       `json:"bytes"` // that must be read and written once: weights, inputs, outputs
	Time    time.Duration `json:"time_ns"`
	N       int           `json:"n"` // undisturbed trials

	// Share is the least time that the limits allow, over Time: the larger of
	// FLOP over the F32 peak and Bytes over the read bandwidth of the level of
	// memory that holds them. Bound names the limit. NaN-free: 0 means no limit
	// is known.
	Share float64 `json:"share_of_limit"`
	Bound string  `json:"bound"`
}

// Rate is FLOP/s.
func (k Kernel) Rate() float64 { return k.FLOP / k.Time.Seconds() }

// Bandwidth is B/s.
func (k Kernel) Bandwidth() float64 { return k.Bytes / k.Time.Seconds() }

// MeasureKernels times the reference kernels at a model's shapes: the matrices
// of its first layer and its head for 1, 8 and 64 tokens, attention, and the
// operations between them.
func MeasureKernels(ctx context.Context, m *llm.Model, limits *Limits, threads int) ([]Kernel, error) {
	if m.Lo != 0 || m.Hi == 0 {
		return nil, fmt.Errorf("measure kernels: the model holds layers %d to %d, its first is needed", m.Lo, m.Hi)
	}
	p := tensor.NewPool(threads)
	defer p.Close()
	b := &kernelBench{pool: p, products: panel.NewProducts(p), m: m, limits: limits, threads: p.Workers()}
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

type kernelBench struct {
	pool     *tensor.Pool
	products *panel.Products
	m        *llm.Model
	limits   *Limits
	threads  int
	list     []Kernel
}

func noise(n int) []float32 {
	r := rng.Stream(1, "kernel input")
	x := make([]float32, n)
	for i := range x {
		x[i] = 2*r.Float32() - 1
	}
	return x
}

func (b *kernelBench) matrices(T int) {
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
		b.add(Kernel{Op: "matmul." + op.name, Shape: fmt.Sprintf("T=%d N=%d K=%d", T, w.N, w.K), Format: w.Type.String(), Tokens: T,
			FLOP: 2 * float64(T) * float64(w.N) * float64(w.K), Bytes: float64(w.Bytes()) + 4*float64(T)*float64(w.N+w.K)},
			func() { w.Mul(b.products, y, x, T) })
	}
}

func (b *kernelBench) attention(T, past int) {
	c := b.m.Config
	q, kv := T*c.QDim(), (past+T)*c.KVDim()
	cache, err := tensor.NewKV(quant.F32, c.KVHeads, c.HeadDim, past+T)
	if err != nil {
		panic("probe: " + err.Error()) // F32 is one of its types
	}
	cache.Put(0, past+T, noise(kv), noise(kv))
	seqs := []tensor.AttnSeq{{Out: make([]float32, q), Q: noise(q), KV: cache, T: T, Past: past}}
	pairs := float64(T)*float64(past) + float64(T)*float64(T+1)/2
	b.add(Kernel{Op: "attention", Shape: fmt.Sprintf("T=%d past=%d H=%d G=%d D=%d", T, past, c.Heads, c.KVHeads, c.HeadDim), Tokens: T,
		FLOP: 4 * pairs * float64(c.QDim()), Bytes: 4 * float64(2*q+2*kv)},
		func() { b.pool.Attention(seqs, c.Heads) })
}

// rows times what happens row by row, on one thread as the engine does for few rows.
func (b *kernelBench) rows(T int) {
	C, F := b.m.Dim, b.m.FFN
	x, w, y := noise(T*C), noise(C), make([]float32, T*C)
	b.add(Kernel{Op: "rmsnorm", Shape: fmt.Sprintf("T=%d C=%d", T, C), Tokens: T, FLOP: 4 * float64(T*C), Bytes: 4 * float64(2*T*C+C)},
		func() { tensor.RMSNorm(y, x, w, nil, T, C, 1e-5) })
	gate, up, act := noise(T*F), noise(T*F), make([]float32, T*F)
	b.add(Kernel{Op: "swiglu", Shape: fmt.Sprintf("T=%d F=%d", T, F), Tokens: T, FLOP: 5 * float64(T*F), Bytes: 12 * float64(T*F)},
		func() { tensor.SwiGLU(act, gate, up) })
}

// add times an operation and compares it with the limits.
func (b *kernelBench) add(k Kernel, run func()) {
	const trials, target = 9, 500 * time.Microsecond
	k.Threads = b.threads
	run() // warm-up
	began := time.Now()
	run()
	reps := int(target/max(time.Since(began), 1)) + 1
	var times []trial
	for range trials {
		lost, began := preemptions(), time.Now()
		for range reps {
			run()
		}
		x := trial{took: time.Since(began)}
		x.lost = preemptions() > lost
		times = append(times, x)
	}
	mean, n := undisturbed(times)
	if n == 0 {
		for i := range times {
			times[i].lost = false
		}
		mean, _ = undisturbed(times)
	}
	k.Time, k.N = max(mean/time.Duration(reps), 1), n
	k.Share, k.Bound = b.limits.share(k)
	b.list = append(b.list, k)
}

// share is the least time that the limits allow for a kernel, over its time.
func (l *Limits) share(k Kernel) (share float64, bound string) {
	if l == nil {
		return 0, ""
	}
	if peak, ok := l.at(PeakF32, "", k.Threads); ok {
		share, bound = k.FLOP/peak/k.Time.Seconds(), "arithmetic"
	}
	name, level := DRAMRead, "memory"
	for _, c := range l.Machine.Caches {
		if k.Bytes <= float64(c.Bytes) {
			name, level = CacheRead, c.Name()
			break
		}
	}
	detail := ""
	if name == CacheRead {
		detail = level
	}
	if rate, ok := l.at(name, detail, k.Threads); ok {
		if s := k.Bytes / rate / k.Time.Seconds(); s > share {
			share, bound = s, level
		}
	}
	return share, bound
}

// at is a limit at a number of threads, or at the next lower one measured.
func (l *Limits) at(name, detail string, threads int) (value float64, ok bool) {
	most := 0
	for _, f := range l.Figures {
		if f.Name != name || detail != "" && f.Detail != detail || math.IsNaN(f.Value) || f.Threads > threads || f.Threads < most {
			continue
		}
		if f.Threads > most || f.Value > value {
			most, value, ok = f.Threads, f.Value, true
		}
	}
	return value, ok
}
