package eval

import (
	"context"
	"fmt"
	"slices"

	"meibench/reference/codec"
	"meibench/reference/invert"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/workloads/tasks"
)

// Sizes of the attack on what a split sends.
const (
	leakPrompts   = 20
	leakTokens    = 6    // of each prompt, from its beginning; an attack reads them in order
	leakShortlist = 32   // candidates that are run for each token, the nearest in the dictionary
	leakNear      = 0.02 // if the best of these is further than that from the state, all tokens are run
	leakSeed      = 20_242
)

// Leak is what an attacker with the lower layers reads from the states that a split
// sends (invert's Sequential): a lower bound on what there is to read.
type Leak struct {
	Hits, N int // tokens of prompts read right, and asked for
}

// Share is the share of tokens that were read.
func (l Leak) Share() float64 { return float64(l.Hits) / float64(l.N) }

// LeakSetup is a split and what is sent through it.
type LeakSetup struct {
	Model *models.Loaded
	Task  tasks.Task
	Cut   int    // 1 to the model's layers
	Wire  string // a name of codec.Table
}

// Measure sends the prompts of an application through the first layers of a model
// and a codec, and attacks what arrives. Prompts are of the validation split; of each
// the beginning is attacked. The begin of text is known to the attacker and not
// counted.
func (s LeakSetup) Measure(ctx context.Context) (l Leak, err error) {
	m := s.Model
	c, err := codec.Find(s.Wire)
	if err != nil {
		return l, fmt.Errorf("measure what a split tells: %w", err)
	}
	work := m.Model.NewWork(1)
	defer work.Close()
	begin := m.Tokenizer.EncodePrompt("")
	a, err := invert.New(work, s.Cut, begin)
	if err != nil {
		return l, fmt.Errorf("measure what a split tells: %w", err)
	}
	for _, in := range s.Task.Draw(leakSeed, tasks.Validation, "", leakPrompts) {
		if err := ctx.Err(); err != nil {
			return l, err
		}
		ids := m.Tokenizer.EncodePrompt(in.Prompt)
		ids = ids[:min(len(ids), len(begin)+leakTokens)]
		states, err := smashed(m.Model, work, ids, s.Cut, c)
		if err != nil {
			return l, fmt.Errorf("measure what a split tells: %w", err)
		}
		guess, err := a.Sequential(states, invert.Search{Shortlist: leakShortlist, Near: leakNear})
		if err != nil {
			return l, fmt.Errorf("measure what a split tells: %w", err)
		}
		hits, asked := invert.Hits(ids, guess, len(begin))
		l.Hits, l.N = l.Hits+hits, l.N+asked
	}
	return l, nil
}

// smashed are the states behind the cut as they arrive.
func smashed(m *llm.Model, w *llm.Work, ids []int32, cut int, c codec.Codec) ([]float32, error) {
	cache, err := m.NewCache(0, cut, len(ids))
	if err != nil {
		return nil, err
	}
	seqs := []llm.Seq{{IDs: ids, Cache: cache, Want: llm.Hidden}}
	if err := w.Forward(0, cut, seqs); err != nil {
		return nil, err
	}
	sent := slices.Clone(seqs[0].Out)
	return c.Decode(nil, c.Encode(nil, sent, m.Dim), m.Dim)
}
