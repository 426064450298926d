package offload

import (
	"math"
	"slices"
)

// Foresight says which experts layers will ask for. It is told every choice of the router, in order.
type Foresight interface {
	Note(layer, expert int)          // a layer of the present pass chose an expert
	Likely(layer, most int) []int    // experts that a layer ahead in the present pass will choose, likeliest first; may be none
	Score(layer, expert int) float64 // how likely an expert is wanted again soon, for who leaves: least goes
}

// Traces foresees from what sequences did before, after MoE-Infinity (TorchMoE/MoE-Infinity, by its idea): how often each layer of a sequence chose each
// expert is its matrix; past matrices are kept, and the one that is most like what the present sequence has shown, by
// cosine, tells the layers ahead. What the present sequence has done in a layer counts as well; without a past, alone.
type Traces struct {
	layers, experts, most int
	now                   []float64
	past                  [][]float64 // of unit length, the oldest first
	near                  []float64   // of the past, the most like the present; nil: not looked for since it changed
}

// NewTraces keeps so many past sequences of a model of layers with so many experts each.
func NewTraces(layers, experts, most int) *Traces {
	return &Traces{layers: layers, experts: experts, most: most, now: make([]float64, layers*experts)}
}

// Note counts a choice.
func (t *Traces) Note(layer, expert int) {
	t.now[layer*t.experts+expert]++
	t.near = nil
}

// End says that a sequence is over: it becomes part of the past.
func (t *Traces) End() {
	if n := length(t.now); n > 0 && t.most > 0 {
		for i := range t.now {
			t.now[i] /= n
		}
		if len(t.past) == t.most {
			t.past = slices.Delete(t.past, 0, 1)
		}
		t.past = append(t.past, slices.Clone(t.now))
	}
	clear(t.now)
	t.near = nil
}

func length(v []float64) (n float64) {
	for _, x := range v {
		n += float64(x * x)
	}
	return math.Sqrt(n)
}

// nearest is the past that is most like the present, the latest of equals; nil without a past or a present.
func (t *Traces) nearest() []float64 {
	if t.near != nil || len(t.past) == 0 {
		return t.near
	}
	best := 0.0
	for _, p := range t.past {
		like := 0.0
		for i, x := range t.now {
			like += float64(x * p[i])
		}
		if like > 0 && like >= best {
			best, t.near = like, p
		}
	}
	return t.near
}

// Score is the share of the layer's choices that the expert had in the nearest past, and in the present.
func (t *Traces) Score(layer, expert int) float64 {
	row := func(v []float64) float64 {
		sum := 0.0
		for _, x := range v[layer*t.experts : (layer+1)*t.experts] {
			sum += x
		}
		if sum == 0 {
			return 0
		}
		return v[layer*t.experts+expert] / sum
	}
	score := row(t.now)
	if p := t.nearest(); p != nil {
		score += row(p)
	}
	return score
}

// Likely are the experts with the best scores, of equals the lower number; those without any are none.
func (t *Traces) Likely(layer, most int) (out []int) {
	scores := make([]float64, t.experts)
	for e := range scores {
		scores[e] = t.Score(layer, e)
	}
	for range most {
		best := -1
		for e, s := range scores {
			if s > 0 && (best < 0 || s > scores[best]) {
				best = e
			}
		}
		if best < 0 {
			break
		}
		out, scores[best] = append(out, best), 0
	}
	return out
}

// Record remembers every choice of a run, and foresees it in the same run again: what no foresight can do better than.
type Record struct {
	passes [][][]int // by pass and layer
	pass   int       // of the run at hand; -1 = before the first
	layer  int
	again  bool
}

// NewRecord is an empty one, which foresees nothing.
func NewRecord() *Record { return &Record{pass: -1, layer: math.MaxInt} }

// Again begins the same run anew, whose choices are known now.
func (r *Record) Again() *Record {
	return &Record{passes: r.passes, pass: -1, layer: math.MaxInt, again: true}
}

// Note follows the run.
func (r *Record) Note(layer, expert int) {
	if layer < r.layer { // the layers of a pass ascend
		r.pass++
		if !r.again {
			r.passes = append(r.passes, nil)
		}
	}
	r.layer = layer
	if r.again {
		return
	}
	p := &r.passes[r.pass]
	for len(*p) <= layer {
		*p = append(*p, nil)
	}
	if !slices.Contains((*p)[layer], expert) {
		(*p)[layer] = append((*p)[layer], expert)
	}
}

// Likely is what the layer chose in this pass.
func (r *Record) Likely(layer, most int) []int {
	if !r.again || r.pass < 0 || r.pass >= len(r.passes) || layer >= len(r.passes[r.pass]) {
		return nil
	}
	all := r.passes[r.pass][layer]
	return all[:min(most, len(all))]
}

// Score is nearer to 1 the sooner the layer chooses the expert again, and 0 if it never does.
func (r *Record) Score(layer, expert int) float64 {
	for ahead := 0; r.again && r.pass+ahead < len(r.passes); ahead++ {
		if p := r.passes[max(r.pass, 0)+ahead:]; len(p) > 0 && layer < len(p[0]) && slices.Contains(p[0][layer], expert) && (ahead > 0 || layer >= r.layer) {
			return 1 / float64(1+ahead)
		}
	}
	return 0
}

// aware lets the one go that is least likely to be wanted, and the least recently used of equals.
type aware struct {
	*recency
	score func(expert int) float64
}

// Victim has one answer: what recency cannot tell apart it tells by number.
func (p *aware) Victim(kept func(int) bool) int {
	best, least := -1, 0.0
	for e := range p.there {
		if !kept(e) {
			continue
		}
		if s := p.score(e); best < 0 || s < least || s == least && p.before(e, best) {
			best, least = e, s
		}
	}
	return best
}
