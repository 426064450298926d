package sparse

import (
	"math/bits"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/reference/llm"
	"meibench/reference/models"
)

func texts(t testing.TB, m *models.Loaded, from, to int) (out [][]int32) {
	scenes := []string{
		"me south straight , car east straight , dry ; may me go =>", "me north left , bus west right , wet ; may me go =>",
		"me east right , car south straight , dry ; may me go =>", "me west straight , car north left , wet ; may me go =>",
		"me south right , bus east left , dry ; may me go =>", "me north straight , car west straight , wet ; may me go =>",
	}
	for _, s := range scenes[from:to] {
		out = append(out, m.Tokenizer.EncodePrompt(s))
	}
	return out
}

func open(t testing.TB, name string) *models.Loaded {
	m, err := models.Open(name)
	require.NoError(t, err)
	return m
}

// run is all logits of a text with a rule, or dense.
func run(t testing.TB, m *llm.Model, ids []int32, tally *Tally) []float32 {
	w := m.NewWork(1)
	defer w.Close()
	if tally != nil {
		tally.Attach(w)
	}
	c, err := m.NewCache(0, m.Layers, len(ids))
	require.NoError(t, err)
	seqs := []llm.Seq{{IDs: ids, Cache: c, Want: llm.AllLogits}}
	require.NoError(t, w.Forward(0, m.Layers, seqs))
	return slices.Clone(seqs[0].Out)
}

// TestD5EverythingKeptIsDense: predictor off, everything predicted, and a share of one by any rule give the dense bits, and a
// recall of one; a tenth of the neurons gives others.
func TestD5EverythingKeptIsDense(t *testing.T) {
	m := open(t, "mei-nano")
	ids := texts(t, m, 0, 1)[0]
	want := run(t, m.Model, ids, nil)
	s, err := Sample(m.Model, texts(t, m, 1, 4), 500)
	require.NoError(t, err)
	p, err := Fit(s, 0.25, 8)
	require.NoError(t, err)
	bounds, err := s.Threshold(1)
	require.NoError(t, err)
	for name, rule := range map[string]Rule{"all": All, "oracle": Oracle(1), "threshold": Threshold(bounds), "predictor": p.Rule(1)} {
		tally := NewTally(rule, 0.25)
		require.Equal(t, want, run(t, m.Model, ids, tally), name)
		require.Equal(t, 1.0, tally.Kept(), name)
		require.Equal(t, 1.0, tally.Recall(), name)
		require.InDelta(t, 0.25, tally.Precision(), 1e-9, name)
		require.Equal(t, len(ids)*m.Model.Layers, tally.Tokens)
	}
	few := run(t, m.Model, ids, NewTally(Oracle(0.1), 0.1))
	require.NotEqual(t, want, few)
	w := m.Model.NewWork(1)
	defer w.Close()
	Oracle(0.1).Attach(w)
	c, err := m.Model.NewCache(0, m.Model.Layers, len(ids))
	require.NoError(t, err)
	seqs := []llm.Seq{{IDs: ids, Cache: c, Want: llm.AllLogits}}
	require.NoError(t, w.Forward(0, m.Model.Layers, seqs))
	require.Equal(t, few, seqs[0].Out, "judging changes nothing")
}

// TestD5RecallGrowsWithTheShare: the sets of a predictor are nested, so its recall never falls as it keeps more; the oracle's is
// one; and on a text that it was not fitted to, a predictor is better than chance, whose recall is the share kept.
func TestD5RecallGrowsWithTheShare(t *testing.T) {
	m := open(t, "mei-nano")
	s, err := Sample(m.Model, texts(t, m, 0, 4), 500)
	require.NoError(t, err)
	p, err := Fit(s, 0.25, 32)
	require.NoError(t, err)
	other, err := Sample(m.Model, texts(t, m, 4, 6), 500)
	require.NoError(t, err)
	before := 0.0
	for _, keep := range []float64{0.1, 0.25, 0.5, 0.75, 1} {
		kept, recall, precision := other.Judge(p.Rule(keep), 0.25)
		require.InDelta(t, keep, kept, 0.01)
		require.GreaterOrEqual(t, recall, before)
		require.InDelta(t, recall*0.25, precision*kept, 1e-9, "both count the same hits")
		if keep < 1 {
			require.Greater(t, recall, kept+0.05)
		}
		before = recall
	}
	_, recall, precision := other.Judge(oracleOf(other), 0.25)
	require.Equal(t, 1.0, recall)
	require.Equal(t, 1.0, precision)
}

// oracleOf is the exact set by the activations of samples, in their order.
func oracleOf(s *Samples) Rule {
	at := make([]int, len(s.layers))
	return func(l int, _, _, _ []float32, on []bool) {
		t := at[l]
		at[l]++
		largest(nil, s.layers[l].act[t*s.FFN:(t+1)*s.FFN], Count(0.25, s.FFN), on)
	}
}

// TestD5FitIsTheBestOfItsRank: a layer whose targets are a matrix of rank two of its inputs is found exactly by rank two, up to the
// ridge, and by no lower rank; and fitting again gives equal coefficients.
func TestD5FitIsTheBestOfItsRank(t *testing.T) {
	const N, C, F = 400, 6, 8
	r := rng.Stream(2, "fit")
	s := &Samples{Tokens: N, Dim: C, FFN: F, layers: make([]sampled, 1)}
	l := &s.layers[0]
	for range N {
		a, b := r.Float64()-0.5, r.Float64()-0.5
		x := []float32{float32(a), float32(b)}
		for range C - 2 {
			x = append(x, float32(r.Float64()-0.5))
		}
		l.x = append(l.x, x...)
		for f := range F { // two groups by the sign of a, two by that of b: the four largest
			v := float32(0)
			if f < 4 && (f < 2) == (a > 0) || f >= 4 && (f < 6) == (b > 0) {
				v = 1
			}
			l.act = append(l.act, v)
		}
	}
	recall := func(rank int) float64 {
		p, err := Fit(s, 0.5, rank)
		require.NoError(t, err)
		again, err := Fit(s, 0.5, rank)
		require.NoError(t, err)
		require.Equal(t, p, again)
		_, recall, _ := s.Judge(p.Rule(0.5), 0.5)
		return recall
	}
	require.Greater(t, recall(2), 0.93) // the sign of a, from a line through few samples near zero
	require.Less(t, recall(1), 0.85)    // one of the two pairs of groups is a coin: 3/4
}

func TestD5ThresholdKeepsItsShare(t *testing.T) {
	m := open(t, "mei-nano")
	s, err := Sample(m.Model, texts(t, m, 0, 6), 500)
	require.NoError(t, err)
	for _, keep := range []float64{0.1, 0.3, 0.8} {
		bounds, err := s.Threshold(keep)
		require.NoError(t, err)
		for l := range s.layers {
			above := 0
			for _, v := range s.layers[l].open {
				if v > bounds[l] {
					above++
				}
			}
			require.Equal(t, Count(keep, len(s.layers[l].open)), above)
		}
	}
}

// TestD5HotSetIsTheBest: no other set of as many neurons covers more, by cost, of all subsets of drawn counts.
func TestD5HotSetIsTheBest(t *testing.T) {
	r := rng.Stream(4, "hot")
	for range 50 {
		counts, cost := [][]int{make([]int, 5), make([]int, 6)}, []float64{1 + r.Float64(), 1 + r.Float64()}
		for _, row := range counts {
			for i := range row {
				row[i] = r.IntN(9)
			}
		}
		n := r.IntN(12)
		hot, err := Hot(counts, cost, n)
		require.NoError(t, err)
		value := func(on func(i int) bool) (sum float64) {
			for i := range 11 {
				if l := i / 5; on(i) && i < 5 {
					sum += float64(counts[l][i]) * cost[0]
				} else if on(i) {
					sum += float64(counts[1][i-5]) * cost[1]
				}
			}
			return sum
		}
		best := 0.0
		for set := range 1 << 11 {
			if bits.OnesCount(uint(set)) == n {
				best = max(best, value(func(i int) bool { return set>>i&1 == 1 }))
			}
		}
		require.InDelta(t, best, value(func(i int) bool { return i < 5 && hot[0][i] || i >= 5 && hot[1][i-5] }), 1e-9)
	}
	all, err := Hot([][]int{{1, 2}}, nil, 2)
	require.NoError(t, err)
	require.Equal(t, 1.0, Covered([][]int{{1, 2}}, all))
	none, err := Hot([][]int{{1, 2}}, nil, 1)
	require.NoError(t, err)
	require.InDelta(t, 2.0/3, Covered([][]int{{1, 2}}, none), 1e-12)
}

func TestD5SparseRefusals(t *testing.T) {
	m := open(t, "mei-nano")
	_, err := Sample(m.Model, nil, 10)
	require.ErrorContains(t, err, "want 2 at least")
	mixed := *m.Model
	mixed.Experts = 4
	_, err = Sample(&mixed, texts(t, m, 0, 1), 10)
	require.ErrorContains(t, err, "want a dense model")
	s, err := Sample(m.Model, texts(t, m, 0, 1), 10)
	require.NoError(t, err)
	require.Equal(t, 10, s.Tokens)
	for _, keep := range []float64{0, 1.1} {
		_, err = Fit(s, keep, 2)
		require.ErrorContains(t, err, "at most 1")
	}
	_, err = Fit(s, 0.5, 65)
	require.ErrorContains(t, err, "want 1 to 64")
	_, err = Hot([][]int{{1}}, nil, 2)
	require.ErrorContains(t, err, "want 0 to 1")
	_, err = Hot([][]int{{1}}, []float64{1, 2}, 1)
	require.ErrorContains(t, err, "want one each")
}

// TestD5AgreementIsWholeForDense: with all neurons every next token is the dense model's; with a hundredth of them few are; and no more
// positions are counted than asked for.
func TestD5AgreementIsWholeForDense(t *testing.T) {
	m := open(t, "mei-nano")
	same, err := Agreement(m.Model, NewTally(All, 0.5), texts(t, m, 0, 3), 1000)
	require.NoError(t, err)
	require.Equal(t, 1.0, same)
	few := NewTally(Oracle(0.01), 0.5)
	same, err = Agreement(m.Model, few, texts(t, m, 0, 3), 10)
	require.NoError(t, err)
	require.Less(t, same, 0.9)
	require.Equal(t, 10*m.Model.Layers, few.Tokens)
}

// TestD5ScoresAreUnbiased: over the samples that it was fitted to, a regression's mean score is the share of tokens at which the neuron
// mattered; coefficients are rounded to float32.
func TestD5ScoresAreUnbiased(t *testing.T) {
	m := open(t, "mei-nano")
	s, err := Sample(m.Model, texts(t, m, 0, 4), 500)
	require.NoError(t, err)
	p, err := Fit(s, 0.25, 16)
	require.NoError(t, err)
	counts, err := s.Counts(0.25)
	require.NoError(t, err)
	for l := range counts {
		mean, scores := make([]float64, s.FFN), make([]float64, s.FFN)
		for i := range s.Tokens {
			p.scores(&p.layers[l], s.layers[l].x[i*s.Dim:(i+1)*s.Dim], scores)
			for f, v := range scores {
				mean[f] += v / float64(s.Tokens)
			}
		}
		for f, n := range counts[l] {
			require.InDelta(t, float64(n)/float64(s.Tokens), mean[f], 1e-4)
		}
	}
}
