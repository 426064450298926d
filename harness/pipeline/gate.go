package pipeline

import (
	"slices"
	"time"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/internal/portable"
	"meibench/internal/rng"
	"meibench/internal/units"
)

// popularity sums up the laws of ranks 1 to n: 1/rank^skew, over their sum.
func popularity(n int, skew float64) []float64 {
	law := make([]float64, n)
	total := 0.0
	for i := range law {
		total += portable.Exp(-float64(skew * portable.Log(float64(i+1))))
		law[i] = total
	}
	for i := range law {
		law[i] /= total
	}
	return law
}

// errand is what a helper has to do in a step.
type errand struct {
	out, back       units.Bytes
	experts, tokens int // passes of experts, and tokens through them, summed over layers
}

// mixedWork is a step's work: the helpers', and how long all layers take.
type mixedWork struct {
	helpers []errand
	takes   time.Duration
}

// gate chooses the experts of every token and layer of a step, and adds up what
// follows. The station's own part takes its share of what the model takes more
// than its core.
func (p *experts) gate(log *record.Request, seq *hardware.Seq, kind hardware.Kind) mixedWork {
	m := p.model
	w := mixedWork{helpers: make([]errand, len(p.helpers))}
	pairs := make([][]int, m.Layers) // tokens of each expert
	for l := range pairs {
		pairs[l] = make([]int, m.Experts)
	}
	for i := range seq.New {
		luck := p.key.At(uint64(seq.ID)<<24 ^ uint64(seq.Context+i))
		for l := range pairs {
			p.choose(&luck, l, pairs[l])
		}
	}
	all := p.ownTime(seq, kind)
	for l, tokens := range pairs {
		w.takes += p.layer(log, &w, l, tokens, float64(all)/float64(m.Layers*m.ExpertsUsed*seq.New))
	}
	return w
}

// ownTime is what the station would take for all experts of a step.
func (p *experts) ownTime(seq *hardware.Seq, kind hardware.Kind) time.Duration {
	e, ok := estimator(p.roads.devs[p.home])
	if !ok {
		return 0
	}
	op := hardware.Op{Kind: kind, Model: p.model, Layers: p.model.All(), Seqs: []hardware.Seq{*seq}}
	whole := e.Estimate(&op)
	op.Model = p.core
	return max(0, whole-e.Estimate(&op))
}

// choose draws a token's experts of a layer, none twice, and leaves out those that
// are too slow unless they are the quickest. Ranks of popularity are another
// order of experts in every layer.
func (p *experts) choose(luck *rng.Luck, layer int, tokens []int) {
	var picks [64]int
	n := 0
	for used := min(p.model.ExpertsUsed, len(picks)); n < used; {
		rank, _ := slices.BinarySearch(p.law, luck.Float64())
		expert := (min(rank, len(p.law)-1) + 3*layer) % p.model.Experts
		if !slices.Contains(picks[:n], expert) {
			picks[n] = expert
			n++
		}
	}
	quickest := never
	for _, e := range picks[:n] {
		quickest = min(quickest, p.wait(e))
	}
	for _, e := range picks[:n] {
		p.chosen++
		if t := p.wait(e); p.dropAfter > 0 && t > p.dropAfter && t > quickest {
			p.skipped++
			continue
		}
		tokens[e]++
	}
}

// wait is how long one token waits for an expert.
func (p *experts) wait(expert int) time.Duration {
	if h := p.where(expert); h >= 0 {
		return p.helpers[h].single
	}
	return 0
}

// layer is how long a layer of a step takes, and adds to the helpers' errands.
// Weights that come are there before the station runs them.
func (p *experts) layer(log *record.Request, w *mixedWork, l int, tokens []int, each float64) time.Duration {
	own := 0 // pairs of tokens and experts at the station
	asked, fetched := make([]errand, len(p.helpers)), make([]int, len(p.helpers))
	var needed []int
	for e, n := range tokens {
		if n == 0 {
			continue
		}
		h := p.where(e)
		states := p.stateBytes(n)
		switch {
		case h < 0 || p.shelves[l].has(e):
			own += n
			log.Count(record.CacheHits, 1)
			log.Count(record.CacheHitBytes, int64(p.expertBytes()))
		case p.move == "weight" || p.move == "best" && p.expertBytes() < 2*states:
			own += n
			fetched[h]++
			log.Count(record.CacheMisses, 1)
			log.Count(record.CacheMissBytes, int64(p.expertBytes()))
		default:
			a := &asked[h]
			a.out, a.back, a.experts, a.tokens = a.out+states, a.back+states, a.experts+1, a.tokens+n
			log.Count(record.CacheMisses, 1)
			log.Count(record.CacheMissBytes, int64(2*states))
		}
		if h >= 0 {
			needed = append(needed, e)
		}
	}
	if p.move != "activation" {
		p.shelves[l].touch(needed, p.cache)
	}
	var slowest, fetching time.Duration
	for i, h := range p.helpers {
		a, t := &asked[i], &w.helpers[i]
		if a.experts > 0 {
			slowest = max(slowest, p.roads.time(p.home, h.place, a.out)+p.pass(timed{i, a.experts, (a.tokens + a.experts - 1) / a.experts})+p.roads.time(h.place, p.home, a.back))
		}
		if weights := units.Bytes(fetched[i]) * p.expertBytes(); weights > 0 {
			fetching = max(fetching, p.roads.time(h.place, p.home, weights))
			a.back += weights
		}
		t.out, t.back, t.experts, t.tokens = t.out+a.out, t.back+a.back, t.experts+a.experts, t.tokens+a.tokens
	}
	return max(slowest, fetching+time.Duration(each*float64(own)))
}

// shelfOfExperts is the experts of a layer that came to the station, the least
// recently used first.
type shelfOfExperts struct{ have []int }

func (s *shelfOfExperts) has(e int) bool { return slices.Contains(s.have, e) }

// touch makes experts the most recently used ones and keeps so many.
func (s *shelfOfExperts) touch(used []int, most int) {
	s.have = slices.DeleteFunc(s.have, func(e int) bool { return slices.Contains(used, e) })
	s.have = append(s.have, used...)
	s.have = s.have[max(0, len(s.have)-most):]
}
