package serve

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"meibench/reference/llm"
	"meibench/reference/models"
)

// engine steps the sequences of one model.
type engine struct {
	*models.Loaded
	work   *llm.Work
	batch  int
	chunk  int
	queue  chan *job // buffered: who finds it full is refused
	quit   chan struct{}
	once   sync.Once
	done   sync.WaitGroup
	active atomic.Int64

	jobs []*job
	step []*job // those with tokens in the present step
	seqs []llm.Seq
	free []*llm.Cache
}

var errClosed = errors.New("the server is stopping")

// job is one sequence.
type job struct {
	ctx     context.Context
	prompt  []int32
	limit   int // most tokens to make
	adapter *llm.Adapter
	sampler llm.Sampler
	luck    *rand.Rand
	out     chan made // has room for all tokens and an error: the engine never waits for a client

	cache *llm.Cache
	fed   int     // tokens of the prompt that the model has seen or sees in this step
	next  []int32 // what it sees next
	n     int     // tokens made
}

// made is a token, or why there is none. The channel is closed after the last.
type made struct {
	id  int32
	err error
}

func newEngine(cfg *Config, m *models.Loaded) *engine {
	return &engine{Loaded: m, work: m.Model.NewWork(cfg.Threads), batch: cfg.Batch, chunk: cfg.Chunk,
		queue: make(chan *job, max(0, cfg.Queue)), quit: make(chan struct{})}
}

func (e *engine) start() { e.done.Go(e.loop) }

func (e *engine) close() {
	e.once.Do(func() { close(e.quit) })
	e.done.Wait()
}

// submit hands a sequence over, or reports that the queue is full.
func (e *engine) submit(j *job) bool {
	j.out = make(chan made, j.limit+1)
	select {
	case e.queue <- j:
		return true
	default:
		return false
	}
}

func (e *engine) loop() {
	defer e.work.Close()
	for e.admit() {
		e.plan()
		if len(e.step) > 0 {
			e.forward()
		}
	}
	for _, j := range e.jobs {
		j.fail(errClosed)
	}
	for {
		select {
		case j := <-e.queue:
			j.fail(errClosed)
		default:
			return
		}
	}
}

// admit takes waiting sequences while there is room, waits for one if there is
// nothing to do, and lets go of those that nobody waits for any more.
func (e *engine) admit() bool {
	e.jobs = slices.DeleteFunc(e.jobs, func(j *job) bool {
		gone := j.ctx.Err() != nil
		if gone {
			e.leave(j)
		}
		return gone
	})
	for len(e.jobs) < e.batch {
		var j *job
		if len(e.jobs) == 0 {
			e.active.Store(0)
			select {
			case j = <-e.queue:
			case <-e.quit:
				return false
			}
		} else {
			select {
			case j = <-e.queue:
			case <-e.quit:
				return false
			default:
				e.active.Store(int64(len(e.jobs)))
				return true
			}
		}
		e.take(j)
	}
	e.active.Store(int64(len(e.jobs)))
	select {
	case <-e.quit:
		return false
	default:
		return true
	}
}

// take gives a sequence a cache and puts it into the batch.
func (e *engine) take(j *job) {
	if j.ctx.Err() != nil {
		close(j.out)
		return
	}
	need := len(j.prompt) + j.limit
	for i, c := range e.free {
		if c.Cap() >= need {
			j.cache, e.free = c, slices.Delete(e.free, i, i+1)
			break
		}
	}
	if j.cache == nil {
		size := 64
		for size < need {
			size *= 2
		}
		var err error
		if j.cache, err = e.Model.NewCache(0, e.Model.Layers, min(size, e.Model.Context)); err != nil {
			j.fail(fmt.Errorf("make room for %d tokens: %w", need, err))
			return
		}
	}
	e.jobs = append(e.jobs, j)
}

// leave ends a sequence and keeps its cache, up to a batch of them.
func (e *engine) leave(j *job) {
	close(j.out)
	j.cache.Truncate(0)
	if len(e.free) < e.batch {
		e.free = append(e.free, j.cache)
	}
	j.cache = nil
}

func (j *job) fail(err error) {
	j.out <- made{err: err}
	close(j.out)
}

// plan fills a step: a token of each sequence that answers, then as much of the
// prompts as fits, first come, first served. A prompt always gets something.
func (e *engine) plan() {
	e.step, e.seqs = e.step[:0], e.seqs[:0]
	room := e.chunk
	for _, j := range e.jobs {
		if j.fed == len(j.prompt) {
			e.add(j, llm.LastLogits)
			room--
		}
	}
	room = max(room, 1)
	for _, j := range e.jobs {
		n := min(room, len(j.prompt)-j.fed)
		if n <= 0 {
			continue
		}
		j.next = j.prompt[j.fed : j.fed+n]
		j.fed += n
		room -= n
		if j.fed == len(j.prompt) {
			e.add(j, llm.LastLogits)
		} else {
			e.add(j, llm.Hidden) // no head for a prompt's middle
		}
	}
}

func (e *engine) add(j *job, want llm.Want) {
	e.step = append(e.step, j)
	e.seqs = append(e.seqs, llm.Seq{IDs: j.next, Cache: j.cache, Adapter: j.adapter, Want: want})
}

// forward runs a step and hands out its tokens.
func (e *engine) forward() {
	err := e.work.Forward(0, e.Model.Layers, e.seqs)
	for i, j := range e.step {
		switch {
		case err != nil:
			j.out <- made{err: err}
		case e.seqs[i].Want != llm.LastLogits:
			continue
		default:
			id := j.sampler.Sample(j.luck, e.seqs[i].Out)
			j.out <- made{id: id}
			if j.n++; j.n < j.limit && !e.Tokenizer.Ends(id) {
				j.next = []int32{id}
				continue
			}
		}
		e.leave(j)
		e.jobs = slices.DeleteFunc(e.jobs, func(o *job) bool { return o == j })
	}
}
