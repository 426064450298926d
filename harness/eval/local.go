package eval

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"meibench/reference/llm"
	"meibench/reference/models"
)

// Local is a model on this machine.
type Local struct {
	Model *models.Loaded
	// Layers, if not 0, answers from an early exit: the first Layers layers, then
	// the final norm and head.
	Layers int
	// Prepare, if not nil, is given each thread's workspace before it answers, one at a time: to attach what looks into layers.
	Prepare func(*llm.Work)
	threads int
}

// Batch is the number of prompts that a thread decodes together, and lone the
// number of parameters above which one prompt at a time gets all threads: the
// matrices of such a model do not fit a cache, so it is better read once.
const (
	batch = 16
	lone  = 50e6
)

// NewLocal evaluates a loaded model on the given number of threads, which do not
// change what it answers.
func NewLocal(m *models.Loaded, threads int) *Local {
	return &Local{Model: m, threads: max(1, threads)}
}

// Answer decodes prompts in batches: whenever an answer is complete, the next
// prompt takes its place.
func (l *Local) Answer(ctx context.Context, prompts []string, most int, done func(int)) ([]string, error) {
	layers := l.Model.Model.Layers
	if l.Layers != 0 {
		layers = l.Layers
	}
	if layers < 1 || layers > l.Model.Model.Layers {
		return nil, fmt.Errorf("answer from layer %d: the model has layers 1 to %d", layers, l.Model.Model.Layers)
	}
	outputs, errs := make([]string, len(prompts)), make([]error, l.threads)
	workers, each := l.threads, 1
	if l.Model.Model.TotalParams() > lone {
		workers, each = 1, l.threads
	}
	var next, finished atomic.Int64
	var wait sync.WaitGroup
	var turn sync.Mutex // one call of done at a time
	for thread := range workers {
		work := l.Model.Model.NewWork(each)
		if l.Prepare != nil {
			l.Prepare(work)
		}
		wait.Go(func() {
			d := &decoder{local: l, layers: layers, most: most, work: work}
			defer d.work.Close()
			d.take = func() (int, string, bool) {
				i := int(next.Add(1)) - 1
				if i >= len(prompts) {
					return 0, "", false
				}
				return i, prompts[i], true
			}
			d.give = func(i int, text string) {
				outputs[i] = text
				n := finished.Add(1)
				if done != nil {
					turn.Lock()
					done(int(n))
					turn.Unlock()
				}
			}
			errs[thread] = d.run(ctx)
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return outputs, nil
}

// decoder is one thread's batch.
type decoder struct {
	local  *Local
	layers int
	most   int
	work   *llm.Work
	take   func() (i int, prompt string, ok bool)
	give   func(i int, text string)

	slots []*slot
	seqs  []llm.Seq
}

// slot is a prompt under way.
type slot struct {
	i     int
	new   []int32 // tokens the model has not seen
	out   []int32
	cache *llm.Cache
}

func (d *decoder) run(ctx context.Context) error {
	tok := d.local.Model.Tokenizer
	for {
		if err := d.fill(); err != nil {
			return err
		}
		if len(d.slots) == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		d.seqs = d.seqs[:0]
		for _, s := range d.slots {
			d.seqs = append(d.seqs, llm.Seq{IDs: s.new, Cache: s.cache, Want: llm.LastLogits})
		}
		if err := d.work.Forward(0, d.layers, d.seqs); err != nil {
			return err
		}
		kept := d.slots[:0]
		for k, s := range d.slots {
			id := llm.Greedy(d.seqs[k].Out)
			s.out = append(s.out, id)
			s.new = append(s.new[:0], id)
			if tok.Ends(id) || len(s.out) == d.most || s.cache.Len() == s.cache.Cap() {
				d.give(s.i, Output(tok, s.out))
				continue
			}
			kept = append(kept, s)
		}
		d.slots = kept
	}
}

// fill takes prompts until the batch is full.
func (d *decoder) fill() error {
	m := d.local.Model
	for len(d.slots) < batch {
		i, prompt, ok := d.take()
		if !ok {
			return nil
		}
		ids := m.Tokenizer.EncodePrompt(prompt)
		if len(ids) >= m.Model.Context {
			return fmt.Errorf("answer prompt %d: it has %d tokens, the model's context %d", i, len(ids), m.Model.Context)
		}
		cache, err := m.Model.NewCache(0, d.layers, min(len(ids)+d.most, m.Model.Context))
		if err != nil {
			return err
		}
		d.slots = append(d.slots, &slot{i: i, new: ids, cache: cache})
	}
	return nil
}
