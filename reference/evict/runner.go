package evict

import (
	"errors"
	"fmt"
	"math"

	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

// Memory is a [llm.Store] that a Runner can drive: an evicting cache, or another that keeps less than everything.
type Memory interface {
	llm.Store
	Prompt(n int) // the next n tokens are a prompt
	Reset()
	Bytes() units.Bytes // of keys and values held
	Peak() units.Bytes  // the largest so far
}

// Options says how a model is run. The zero value of a field stands for its default.
type Options struct {
	Type    quant.Type // of the cache's elements, F32 by default; F16
	Threads int        // 1 by default; they do not change the bits
}

// Runner runs a whole model over one conversation.
type Runner struct {
	Memory Memory
	work   *llm.Work
	seqs   [1]llm.Seq
}

// New runs a model over a cache that forgets by a policy. Close the runner to end its threads.
func New(m *llm.Model, p Policy, o Options) (*Runner, error) {
	c, err := NewCache(m.Config, p, o.Type, 0, m.Layers)
	if err != nil {
		return nil, err
	}
	return NewOn(m, c, o.Threads), nil
}

// NewOn runs a model over a memory.
func NewOn(m *llm.Model, memory Memory, threads int) *Runner {
	return &Runner{Memory: memory, work: m.NewWork(max(1, threads))}
}

// Close ends the threads.
func (r *Runner) Close() { r.work.Close() }

// Reset forgets the conversation.
func (r *Runner) Reset() { r.Memory.Reset() }

// Prefill takes a prompt and returns the logits behind its last token, (V), valid until the next call.
func (r *Runner) Prefill(ids []int32) ([]float32, error) {
	r.Memory.Prompt(len(ids))
	return r.forward(ids)
}

// Step takes one token and returns the logits behind it, (V), valid until the next call.
func (r *Runner) Step(id int32) ([]float32, error) { return r.forward([]int32{id}) }

func (r *Runner) forward(ids []int32) ([]float32, error) {
	r.seqs[0] = llm.Seq{IDs: ids, Store: r.Memory}
	if err := r.work.Forward(0, r.work.Model.Layers, r.seqs[:]); err != nil {
		return nil, err
	}
	return r.seqs[0].Out, nil
}

// Bytes is what the memory holds.
func (r *Runner) Bytes() units.Bytes { return r.Memory.Bytes() }

// Generate appends up to most greedy tokens to a prompt, until stop says so; the stopping token is not returned.
func (r *Runner) Generate(prompt []int32, most int, stop func(id int32) bool) ([]int32, error) {
	logits, err := r.Prefill(prompt)
	var out []int32
	for err == nil && len(out) < most {
		id := llm.Greedy(logits)
		if stop != nil && stop(id) {
			break
		}
		out = append(out, id)
		logits, err = r.Step(id)
	}
	return out, err
}

// Score is how well a text was predicted.
type Score struct {
	NLL   float64 // sum of negative log likelihoods, nats
	Count int     // tokens scored
	Peak  units.Bytes
}

// Perplexity is e to the mean negative log likelihood.
func (s Score) Perplexity() float64 { return math.Exp(s.NLL / float64(s.Count)) }

// Read resets the runner, takes the first prompt tokens of a text at once and the others one by one, and scores every one
// of these that count accepts by its place in the text; nil accepts all.
func (r *Runner) Read(ids []int32, prompt int, count func(i int) bool) (Score, error) {
	if prompt < 1 || prompt >= len(ids) {
		return Score{}, fmt.Errorf("read a text of %d tokens behind a prompt of %d: want at least 1 and fewer than the text", len(ids), prompt)
	}
	r.Reset()
	logits, err := r.Prefill(ids[:prompt])
	var s Score
	for i := prompt; err == nil; i++ {
		if count == nil || count(i) {
			s.NLL += nll(logits, ids[i])
			s.Count++
		}
		if i == len(ids)-1 {
			break
		}
		logits, err = r.Step(ids[i])
	}
	s.Peak = r.Memory.Peak()
	if err == nil && s.Count == 0 {
		err = errors.New("read a text: no token was to be scored")
	}
	return s, err
}

// Recompute scores a text like Read with a prompt of 1, but every token is predicted from the last window tokens alone, as
// if the text began there: the quality that a cache of that size is held against. It costs window times as much.
func Recompute(m *llm.Model, ids []int32, window, threads int, count func(i int) bool) (Score, error) {
	c, err := m.NewCache(0, m.Layers, window)
	if err != nil {
		return Score{}, err
	}
	w := m.NewWork(max(1, threads))
	defer w.Close()
	var s Score
	for i := 1; i < len(ids); i++ {
		if count != nil && !count(i) {
			continue
		}
		c.Truncate(0)
		seqs := []llm.Seq{{IDs: ids[max(0, i-window):i], Cache: c}}
		if err := w.Forward(0, m.Layers, seqs); err != nil {
			return s, err
		}
		s.NLL += nll(seqs[0].Out, ids[i])
		s.Count++
	}
	s.Peak = c.Bytes()
	if s.Count == 0 {
		return s, errors.New("recompute a text: no token was to be scored")
	}
	return s, nil
}

// nll is the negative log likelihood of a token, in nats.
func nll(logits []float32, id int32) float64 {
	top := float64(logits[llm.Greedy(logits)])
	sum := 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x) - top)
	}
	return math.Log(sum) + top - float64(logits[id])
}
