// Package invert recovers input tokens from the activations that a split sends: the privacy attack on split inference.
//
// A device that runs layers 0 to k and sends hidden states ("smashed data") does not send its text. This package measures
// how much of the text the receiver can read all the same. Attacks, from the weakest to the strongest, by what they know:
//
//   - [Fit]: pairs of states and tokens of other texts, nothing of the model; a ridge regression from state to token.
//   - [Attacker.Embeddings]: the embedding matrix; the token whose embedding points the way of the state.
//   - [Attacker.Dictionary]: the lower layers; the token whose state behind the known prefix lies nearest.
//   - [Attacker.Sequential]: the lower layers; every candidate for the next token is run behind the tokens recovered so far,
//     all in one pass over a token tree, and the nearest state wins. States that arrive unrounded are recovered whole.
//
// # Use
//
//	a, err := invert.New(work, k, []int32{bos})
//	guess, err := a.Sequential(hidden, invert.Search{Shortlist: 64, Near: 1e-3})
//	hits, n := invert.Hits(prompt, guess, 1) // position 0 was known
//
// Recovery is a rate over tokens that were not known before. It is a lower bound on what leaks: other attacks (gradient
// search, trained decoders with a language model) may read more.
//
// Source of the kind of attack: Song & Raghunathan 2020 (embeddings are invertible); [Table] has published rates.
//
// What it does not do: defend (package codec rounds, noise is the caller's), attack the downlink, break encryption.
package invert

import (
	"fmt"
	"math"
	"slices"

	"meibench/reference/llm"
)

// Published is a recovery rate from the literature, to stand beside ours.
type Published struct {
	Name     string
	Layers   int     // in front of the cut
	Rate     float64 // of tokens recovered
	Source   string
	Evidence string // A: abstract or first page read in a copy
}

// Table lists published rates, sorted by name. Model and attack are other ones than ours; what can be compared is that the
// rate falls with the depth of the cut.
var Table = []Published{
	{"mistral-7b behind 2 layers", 2, 0.59, "arXiv 2602.16760", "A"},
	{"mistral-7b behind 8 layers", 8, 0.35, "arXiv 2602.16760", "A"},
}

// Attacker has the embedding and the first layers of the model.
type Attacker struct {
	Cut    int     // layers that the states went through
	Prefix []int32 // tokens that every prompt begins with, known to the attacker

	w        *llm.Work
	embed    []float32  // (V, C)
	isolated []float32  // (V, C): state of each token right behind the prefix
	cache    *llm.Cache // of layers [0, Cut), nil at cut 0
	ids      []int32
	parents  []int32
	rank     []int32
	away     []float64
}

// New runs the vocabulary through the first cut layers once. The work may be of a model that holds only those.
func New(w *llm.Work, cut int, prefix []int32) (*Attacker, error) {
	m := w.Model
	if cut < 0 || cut > m.Hi || m.Lo != 0 {
		return nil, fmt.Errorf("invert: cut behind layer %d, the attacker has layers [%d, %d)", cut, m.Lo, m.Hi)
	}
	a := &Attacker{Cut: cut, Prefix: slices.Clone(prefix), w: w, parents: make([]int32, m.Vocab), away: make([]float64, m.Vocab)}
	for id := range m.Vocab {
		a.ids, a.parents[id], a.rank = append(a.ids, int32(id)), -1, append(a.rank, int32(id))
	}
	seqs := []llm.Seq{{IDs: a.ids, Want: llm.Hidden}}
	if err := w.Forward(0, 0, seqs); err != nil {
		return nil, fmt.Errorf("invert: %w", err)
	}
	a.embed = slices.Clone(seqs[0].Out)
	a.isolated = a.embed
	if cut == 0 {
		return a, nil
	}
	if err := a.room(len(prefix)); err != nil {
		return nil, fmt.Errorf("invert: %w", err)
	}
	if err := a.feed(prefix); err != nil {
		return nil, fmt.Errorf("invert: %w", err)
	}
	states, err := a.candidates(a.ids)
	a.isolated = slices.Clone(states)
	return a, err
}

// most is the number of candidates of one pass: a cache has room for them behind the prompt.
const most = 128

// room makes a cache for n tokens and a pass of candidates.
func (a *Attacker) room(n int) error {
	m := a.w.Model
	if a.cache != nil && a.cache.Cap() >= min(n+most, m.Context) {
		a.cache.Truncate(0)
		return nil
	}
	c, err := m.NewCache(0, a.Cut, min(n+most, m.Context))
	a.cache = c
	return err
}

// feed appends known tokens to the cache.
func (a *Attacker) feed(ids []int32) error {
	if len(ids) == 0 || a.Cut == 0 {
		return nil
	}
	return a.w.Forward(0, a.Cut, []llm.Seq{{IDs: ids, Cache: a.cache, Want: llm.Hidden}})
}

// candidates returns the state that each token would have behind what is cached, (len(ids), C).
func (a *Attacker) candidates(ids []int32) ([]float32, error) {
	var states []float32
	base := a.cache.Len()
	step := min(most, a.cache.Cap()-base)
	if step < 1 {
		return nil, fmt.Errorf("invert: %d tokens fill the context of the model, %d", base, a.w.Model.Context)
	}
	for len(ids) > 0 {
		n := min(step, len(ids))
		seqs := []llm.Seq{{IDs: ids[:n], Parents: a.parents[:n], Cache: a.cache, Want: llm.Hidden}}
		if err := a.w.Forward(0, a.Cut, seqs); err != nil {
			return nil, err
		}
		states = append(states, seqs[0].Out...)
		a.cache.Truncate(base)
		ids = ids[n:]
	}
	return states, nil
}

// Embeddings guesses, for each state, the token whose embedding has the largest cosine with it.
//
//	hidden: (T, C)
func (a *Attacker) Embeddings(hidden []float32) []int32 {
	return a.each(hidden, func(x []float32) int32 {
		best, most := int32(0), math.Inf(-1)
		for id := range a.ids {
			xe, ee := 0.0, 0.0
			for i, e := range a.embed[id*len(x) : (id+1)*len(x)] {
				xe += float64(float64(x[i]) * float64(e))
				ee += float64(float64(e) * float64(e))
			}
			if c := xe / math.Sqrt(max(ee, math.SmallestNonzeroFloat64)); c > most {
				best, most = int32(id), c
			}
		}
		return best
	})
}

// Dictionary guesses, for each state, the token whose state right behind the prefix lies nearest.
//
//	hidden: (T, C)
func (a *Attacker) Dictionary(hidden []float32) []int32 {
	return a.each(hidden, func(x []float32) int32 {
		id, _ := nearest(x, a.isolated)
		return int32(id)
	})
}

func (a *Attacker) each(hidden []float32, guess func(x []float32) int32) []int32 {
	C := a.w.Model.Dim
	list := make([]int32, 0, len(hidden)/C)
	for ; len(hidden) >= C; hidden = hidden[C:] {
		list = append(list, guess(hidden[:C]))
	}
	return list
}

// Search limits what Sequential tries.
type Search struct {
	Shortlist int     // candidates that are tried first: those nearest in the dictionary; 0 is the whole vocabulary
	Near      float64 // if the best of them is further than this, as a fraction of the state's squared length, all others are tried too
}

// Sequential guesses token after token: each candidate is run behind the tokens guessed so far and the one whose state lies
// nearest wins. A wrong guess stays in the way of those behind it.
//
//	hidden: (T, C) of a whole prompt from its first token on; the prefix is taken as known
func (a *Attacker) Sequential(hidden []float32, s Search) ([]int32, error) {
	C := a.w.Model.Dim
	T := len(hidden) / C
	if T < len(a.Prefix) {
		return nil, fmt.Errorf("invert: %d states, fewer than the prefix of %d", T, len(a.Prefix))
	}
	if a.Cut == 0 {
		return append(slices.Clone(a.Prefix), a.Dictionary(hidden[len(a.Prefix)*C:])...), nil
	}
	if err := a.room(T); err != nil {
		return nil, fmt.Errorf("invert: %w", err)
	}
	if err := a.feed(a.Prefix); err != nil {
		return nil, fmt.Errorf("invert: %w", err)
	}
	guess := slices.Clone(a.Prefix)
	for t := len(guess); t < T; t++ {
		id, err := a.next(hidden[t*C:(t+1)*C], s)
		if err != nil {
			return nil, err
		}
		guess = append(guess, id)
		if err := a.feed([]int32{id}); err != nil {
			return nil, fmt.Errorf("invert: %w", err)
		}
	}
	return guess, nil
}

// next finds the token behind the cached ones.
func (a *Attacker) next(x []float32, s Search) (int32, error) {
	C, try, order := len(x), len(a.ids), a.ids
	if s.Shortlist > 0 && s.Shortlist < try {
		try, order = s.Shortlist, a.rank
		for id := range a.away {
			a.away[id] = apart(x, a.isolated[id*C:(id+1)*C])
		}
		slices.SortFunc(a.rank, func(p, q int32) int {
			switch dp, dq := a.away[p], a.away[q]; {
			case dp < dq:
				return -1
			case dp > dq:
				return 1
			}
			return int(p - q)
		})
	}
	length := apart(x, make([]float32, C))
	best, least := int32(0), math.Inf(1)
	for pass, list := range [][]int32{order[:try], order[try:]} {
		if pass > 0 && (len(list) == 0 || least <= float64(s.Near*length)) {
			break
		}
		states, err := a.candidates(list)
		if err != nil {
			return 0, err
		}
		if i, d := nearest(x, states); d < least {
			best, least = list[i], d
		}
	}
	return best, nil
}

// nearest is the row of states, (n, C), that lies nearest to x, and its squared distance.
func nearest(x, states []float32) (row int, least float64) {
	least = math.Inf(1)
	for i := range len(states) / len(x) {
		if d := apart(x, states[i*len(x):(i+1)*len(x)]); d < least {
			row, least = i, d
		}
	}
	return row, least
}

// apart is the squared distance. Products are rounded before they are added, so that guesses are the same everywhere.
func apart(x, y []float32) float64 {
	sum := 0.0
	for i, v := range x {
		d := float64(v) - float64(y[i])
		sum += float64(d * d)
	}
	return sum
}

// Hits counts the tokens that were guessed right, from position from on (what lies before was known), and those that were
// asked for.
func Hits(truth, guess []int32, from int) (hits, n int) {
	for t := from; t < len(truth); t++ {
		n++
		if t < len(guess) && guess[t] == truth[t] {
			hits++
		}
	}
	return hits, n
}

// Chance is the rate at which two tokens drawn from a text are the same, Σ p²: what an attack on states that say nothing
// about their own token comes to if it guesses tokens as often as they occur.
func Chance(tokens []int32) float64 {
	count := map[int32]int{}
	for _, id := range tokens {
		count[id]++
	}
	pairs := 0 // an integer, so that the order of the map does not matter
	for _, n := range count {
		pairs += n * n
	}
	return float64(pairs) / float64(len(tokens)) / float64(len(tokens))
}
