package probe

import (
	"context"
	"fmt"
	"math"
	"time"

	"meibench/internal/rng"
	"meibench/reference/llm"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// EngineTest is a whole-model measurement in the sense of llama-bench: Prompt tokens at once (pp), or Gen tokens one
// after another (tg), behind Depth tokens that are in the cache already.
type EngineTest struct {
	Prompt, Gen, Depth int
	Threads            int
	Cache              quant.Type // of keys and values
	Repeats            int
}

// Name is pp512, tg128, pp512+tg128, with @ d4096 behind it, as llama-bench prints them.
func (t EngineTest) Name() string {
	name := fmt.Sprintf("tg%d", t.Gen)
	switch {
	case t.Gen == 0:
		name = fmt.Sprintf("pp%d", t.Prompt)
	case t.Prompt > 0:
		name = fmt.Sprintf("pp%d+tg%d", t.Prompt, t.Gen)
	}
	if t.Depth > 0 {
		name += fmt.Sprintf(" @ d%d", t.Depth)
	}
	return name
}

// EngineRow is what a test gave.
type EngineRow struct {
	EngineTest
	Began   time.Time
	Samples []time.Duration // one per repeat, of all tokens
}

// Tokens is what one repeat computed.
func (t EngineTest) Tokens() int { return t.Prompt + t.Gen }

// PerSec is tokens per second of a sample; best is the fastest.
func (r *EngineRow) PerSec() (mean, deviation, best float64) {
	var sum, squares float64
	for _, s := range r.Samples {
		v := float64(r.Tokens()) / s.Seconds()
		sum, squares, best = sum+v, squares+v*v, max(best, v)
	}
	n := float64(len(r.Samples))
	mean = sum / n
	if n > 1 {
		deviation = math.Sqrt(max(0, (squares-n*mean*mean)/(n-1)))
	}
	return mean, deviation, best
}

// PromptBatch is how many tokens of a prompt are computed together, llama.cpp's n_ubatch.
const PromptBatch = 512

// MeasureEngine runs one test on a model: a warm-up, then repeats. Tokens are random; every generated token computes its
// logits, every prompt those of its last token.
func MeasureEngine(ctx context.Context, m *llm.Model, t EngineTest) (*EngineRow, error) {
	if t.Tokens() < 1 || t.Repeats < 1 {
		return nil, fmt.Errorf("measure engine: %d prompt and %d generated tokens, %d repeats: want at least one", t.Prompt, t.Gen, t.Repeats)
	}
	kv, err := m.NewCacheOf(t.Cache, 0, m.Layers, t.Depth+t.Tokens())
	if err != nil {
		return nil, fmt.Errorf("measure engine: %w", err)
	}
	w := m.NewWork(t.Threads)
	defer w.Close()
	r := rng.Stream(1, "engine")
	ids := make([]int32, t.Depth+t.Tokens())
	for i := range ids {
		ids[i] = int32(r.IntN(m.Vocab))
	}
	e := &engineRun{w: w, kv: kv}
	if err := e.prompt(ids[:t.Depth]); err != nil {
		return nil, err
	}
	row := &EngineRow{EngineTest: t, Began: time.Now()}
	warm := min(t.Gen, 1)
	for i := range t.Repeats + 1 {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		kv.Truncate(t.Depth)
		gen := ids[t.Depth+t.Prompt:]
		if i == 0 {
			gen = gen[:warm]
		}
		began := time.Now()
		if err := e.prompt(ids[t.Depth : t.Depth+t.Prompt]); err != nil {
			return nil, err
		}
		for k := range gen {
			if err := e.step(gen[k : k+1]); err != nil {
				return nil, err
			}
		}
		if i > 0 {
			row.Samples = append(row.Samples, time.Since(began))
		}
	}
	return row, nil
}

// EngineWork is what one repeat of a test must do at least: the products of every
// weight that a token meets, scores and weighted sums, the logits that it gives;
// weights once for each batch of a prompt and for each generated token, as they lie
// packed, and the cache. Of a mixture only the experts that are used count; which
// tokens share one is not known, so a prompt reads as many as it may.
func EngineWork(m *llm.Model, t EngineTest) Work {
	var sum Work
	past := t.Depth
	for n := t.Prompt; n > 0; n -= PromptBatch {
		sum.add(passWork(m, t.Cache, min(n, PromptBatch), past))
		past += min(n, PromptBatch)
	}
	for range t.Gen {
		sum.add(passWork(m, t.Cache, 1, past))
		past++
	}
	return sum
}

func (w *Work) add(x Work) {
	w.Float, w.Int, w.Bytes, w.Set = w.Float+x.Float, w.Int+x.Int, w.Bytes+x.Bytes, max(w.Set, x.Set)
}

// passWork is the work of T tokens behind past others.
func passWork(m *llm.Model, cache quant.Type, T, past int) (sum Work) {
	c := m.Config
	one := float64(c.FLOPs(0, c.Layers, 1, 0)) - 4*float64(c.QDim()*c.Layers) // products of a token
	sum.Float = float64(c.FLOPs(0, c.Layers, T, past)) - float64(T)*one
	sum.Bytes = float64(past+T) * float64(c.Layers*tensor.KVBytes(cache, c.KVHeads, c.HeadDim))
	sum.Set = sum.Bytes
	for _, w := range m.Weights() {
		if w.Matrix == nil {
			sum.Bytes += 4 * float64(w.K)
			continue
		}
		tokens, read := float64(T), 1.0
		switch {
		case w.Matrix == &m.Embed && !m.Tied:
			continue // a few of its rows
		case w.Matrix == &m.Embed || w.Matrix == &m.Head:
			tokens = 1
		case w.Expert:
			share := float64(c.ExpertsUsed) / float64(c.Experts)
			tokens, read = tokens*share, min(1, tokens*share)
		}
		ops := 2 * tokens * float64(w.N) * float64(w.K)
		if w.Matrix.Integer() {
			sum.Int += ops
		} else {
			sum.Float += ops
		}
		sum.Bytes += read * float64(w.Matrix.Bytes())
		sum.Set += float64(w.Matrix.Bytes())
	}
	return sum
}

type engineRun struct {
	w    *llm.Work
	kv   *llm.Cache
	seqs [1]llm.Seq
}

func (e *engineRun) step(ids []int32) error {
	e.seqs[0] = llm.Seq{IDs: ids, Cache: e.kv}
	return e.w.Forward(0, e.w.Model.Layers, e.seqs[:])
}

func (e *engineRun) prompt(ids []int32) error {
	for len(ids) > 0 {
		n := min(PromptBatch, len(ids))
		if err := e.step(ids[:n]); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}
