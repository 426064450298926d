package train

import (
	"math"
	"sync"

	"meibench/reference/tensor"
)

// lanes is the number of gradients that are summed at the end of a step. It is
// fixed, and batch i always goes to lane i mod lanes, so that a step has the
// same bits on any number of threads.
const lanes = 4

// Learner computes losses and gradients of a model.
//
// One goroutine may use it at a time. Training is float32 throughout, with
// float64 only inside sums of norms and losses.
type Learner struct {
	Params *Params
	// Recompute keeps only the input of each layer for the backward pass and
	// computes the rest again when it is needed (gradient checkpointing, Chen et
	// al. 2016): about a third more work, and the memory of one layer instead of
	// all. The bits are the same.
	Recompute bool

	threads int
	tapes   []*tape   // of the threads
	grads   []*Params // of the lanes
	added   int       // batches since Reset
}

// NewLearner wraps parameters, which it does not copy. threads is at least 1; more
// than four are of no use.
func NewLearner(p *Params, threads int) (*Learner, error) {
	l := &Learner{Params: p, threads: min(max(1, threads), lanes)}
	for range l.threads {
		l.tapes = append(l.tapes, newTape(p.Model.Config, 0, p.Model.Layers, true))
	}
	return l, nil
}

// each runs do for every batch, a lane at a time on each thread, which has one tape: what a batch left in the caches is
// where the next one writes. The first batch goes to the given lane.
func (l *Learner) each(batches []Batch, first int, do func(t *tape, lane, i int)) {
	var wait sync.WaitGroup
	for thread := range l.threads {
		wait.Go(func() {
			for lane := thread; lane < lanes; lane += l.threads {
				for i := (lane - first%lanes + lanes) % lanes; i < len(batches); i += lanes {
					do(l.tapes[thread], lane, i)
				}
			}
		})
	}
	wait.Wait()
}

// Gradient returns the mean loss over the weights of all batches (nats per
// token) and its gradient, which stays valid until the next call. Batches of
// a few hundred tokens fit the caches best.
func (l *Learner) Gradient(batches []Batch) (loss float64, grad *Params) {
	l.Reset()
	loss = l.Accumulate(batches, Weight(batches))
	return loss, l.Sum()
}

// Reset begins a gradient that Accumulate adds to.
func (l *Learner) Reset() {
	l.added = 0
	for len(l.grads) < lanes { // whoever only scores has none
		l.grads = append(l.grads, l.Params.Like())
	}
	l.split(func(lo, hi int) {
		for _, g := range l.grads {
			clear(g.Flat[lo:hi])
		}
	})
}

// split calls do for the parts of a gradient, one on each thread.
func (l *Learner) split(do func(lo, hi int)) {
	var wait sync.WaitGroup
	for thread := range l.threads {
		wait.Go(func() { do(tensor.Share(len(l.Params.Flat), thread, l.threads)) })
	}
	wait.Wait()
}

// Accumulate adds the gradient of some batches of a step whose batches weigh
// total in all, and returns their part of its loss. Any number of calls gives
// the gradient of one call with all batches, so that a step can be larger than
// what is held at once.
func (l *Learner) Accumulate(batches []Batch, total float64) (loss float64) {
	scale := float32(1 / total)
	sums := make([]float64, len(batches))
	l.each(batches, l.added, func(t *tape, lane, i int) {
		l.pass(t, l.grads[lane], &batches[i], func(int) { sums[i] = t.loss(sums[i], scale) })
	})
	l.added += len(batches)
	for _, s := range sums {
		loss += s
	}
	return loss
}

// pass adds the gradient of a batch to grad, part by part. loss turns the logits of a part, which begins at place at, into
// their gradient.
func (l *Learner) pass(t *tape, grad *Params, b *Batch, loss func(at int)) {
	t.keep = keepAll
	if l.Recompute {
		t.keep = keepInputs
	}
	t.ids, t.dids = t.ids[:0], t.dids[:0]
	for i := range t.parts(b) {
		t.forward(l.Params, &t.cut[i], nil)
		loss(len(t.ids))
		t.backward(grad, l.Params, nil, false)
		t.ids, t.dids = append(t.ids, t.b.Tokens...), append(t.dids, t.dx...)
	}
	t.embedBack(grad, t.ids, t.dids) // at the end, because a head that is the embedding comes first
}

// parts cuts a batch behind sequences. Every chain of a gradient runs over places in their order, so it keeps its bits; early
// exits, whose gradients come between those of other layers, must not be cut.
//
// A layer has about 12·C² weights and keeps about 16·C numbers for a place. Parts of about 2·C places leave less than three times
// as much behind as there are weights: the backward pass finds it in a nearer cache than that of the whole batch, and weights
// are not yet what is moved most.
// Note: a model of C = 64 took up to a tenth less time in parts of 120 places than in one of 480, one of C = 256 a fifth more.
func (t *tape) parts(b *Batch) []Batch {
	t.cut = t.cut[:0]
	n := max(1, (len(b.Tokens)+t.shape.Dim)/(2*t.shape.Dim))
	if b.exits(t.shape.Layers) {
		n = 1
	}
	at, from, first := 0, 0, 0
	for i, length := range b.Lens {
		at += length
		if (at-from)*n < len(b.Tokens) && i+1 < len(b.Lens) {
			continue
		}
		t.cut = append(t.cut, Batch{Tokens: b.Tokens[from:at], Targets: b.Targets[from:at], Weights: b.Weights[from:at], Lens: b.Lens[first : i+1],
			Exit: b.Exit, ExitWeight: b.ExitWeight})
		from, first = at, i+1
	}
	return t.cut
}

// Sum ends a gradient: it is valid until Reset.
func (l *Learner) Sum() *Params {
	l.split(func(lo, hi int) {
		const block = 1 << 12 // fits the first cache
		for ; lo < hi; lo += block {
			end := min(lo+block, hi)
			for _, g := range l.grads[1:] {
				tensor.Add(l.grads[0].Flat[lo:end], g.Flat[lo:end])
				clear(g.Flat[lo:end])
			}
		}
	})
	return l.grads[0]
}

// ActivationBytes is the memory that a batch's forward pass occupies for its
// backward pass, of the largest part of a batch so far on all threads.
func (l *Learner) ActivationBytes() (n int) {
	for _, t := range l.tapes {
		n += t.activationBytes()
	}
	return n
}

// Weight is the sum of the weights of all tokens.
func Weight(batches []Batch) float64 {
	total := 0.0
	for _, b := range batches {
		for _, w := range b.Weights {
			total += float64(w)
		}
	}
	return max(total, math.SmallestNonzeroFloat32)
}

// Evaluate returns the mean loss and, for each batch and sequence, whether the
// model ranks every weighted target first. With weight on the answer and its
// end of text only, that is exact match under greedy decoding: a greedy decoder
// is right at a token only after it was right at all tokens before.
func (l *Learner) Evaluate(batches []Batch) (loss float64, exact [][]bool) {
	scale := float32(1 / Weight(batches))
	sums := make([]float64, len(batches))
	exact = make([][]bool, len(batches))
	l.each(batches, 0, func(t *tape, lane, i int) {
		b := &batches[i]
		t.keep = keepNone
		t.forward(l.Params, b, nil)
		sums[i] = t.loss(0, scale)
		exact[i] = sequencesHit(t.b, t.rows, t.hits)
	})
	for _, s := range sums {
		loss += s
	}
	return loss, exact
}

func sequencesHit(b *Batch, rows []int, hits []bool) []bool {
	all := make([]bool, len(b.Lens))
	end, r := 0, 0
	for s, n := range b.Lens {
		end += n
		all[s] = true
		for ; r < len(rows) && rows[r] < end; r++ {
			all[s] = all[s] && hits[r]
		}
	}
	return all
}

// Cosine is the learning rate at a step: a linear warm-up to peak, then half a
// cosine down to floor at total.
func Cosine(step, warmUp, total int, peak, floor float64) float64 {
	if step < warmUp {
		return peak * float64(step+1) / float64(warmUp)
	}
	done := float64(min(step, total)-warmUp) / float64(max(1, total-warmUp))
	return floor + (peak-floor)*0.5*(1+math.Cos(math.Pi*done))
}
