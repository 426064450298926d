package invert

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/codec"
	"meibench/reference/llm"
	"meibench/reference/models"
)

// setup is the shipped model and texts of the kind that it knows.
type setup struct {
	*models.Loaded
	w *llm.Work
}

func open(t testing.TB, name string) setup {
	l, err := models.Open(name)
	require.NoError(t, err)
	w := l.Model.NewWork(1)
	t.Cleanup(w.Close)
	return setup{l, w}
}

// prompts draws texts; the stream tells training texts from those that are attacked.
func (s setup) prompts(n int, stream uint64) (list [][]int32) {
	r := rand.New(rand.NewPCG(7, stream))
	things := []string{"can", "cup", "tool", "box", "ball"}
	for range n {
		a, b := r.IntN(5), r.IntN(4)
		text := fmt.Sprintf("robot %d%d , %s %d%d , %s %d%d , shelf %d%d ; store %s =>", 1+r.IntN(5), 1+r.IntN(5), things[a], 1+r.IntN(5), 1+r.IntN(5),
			things[(a+1+b)%5], 1+r.IntN(5), 1+r.IntN(5), 1+r.IntN(5), 1+r.IntN(5), things[a])
		list = append(list, s.Tokenizer.EncodePrompt(text))
	}
	return list
}

// smash is the states of a prompt at a cut.
func (s setup) smash(t testing.TB, ids []int32, cut int) []float32 {
	var c *llm.Cache
	if cut > 0 {
		var err error
		c, err = s.Model.NewCache(0, cut, len(ids))
		require.NoError(t, err)
	}
	seqs := []llm.Seq{{IDs: ids, Cache: c, Want: llm.Hidden}}
	require.NoError(t, s.w.Forward(0, cut, seqs))
	return slices.Clone(seqs[0].Out)
}

func (s setup) attacker(t testing.TB, cut int) *Attacker {
	a, err := New(s.w, cut, s.prompts(1, 1)[0][:1]) // begin of text
	require.NoError(t, err)
	return a
}

// rate runs an attack on prompts.
func rate(prompts [][]int32, guess func(ids []int32) []int32) float64 {
	hits, n := 0, 0
	for _, ids := range prompts {
		h, m := Hits(ids, guess(ids), 1)
		hits, n = hits+h, n+m
	}
	return float64(hits) / float64(n)
}

// TestI4EmbeddingsAreRead: what is cut in front of the first layer is the text itself, for every attack that knows the model.
func TestI4EmbeddingsAreRead(t *testing.T) {
	s := open(t, "mei-nano")
	a := s.attacker(t, 0)
	list := s.prompts(10, 1)
	for name, attack := range map[string]func(x []float32) []int32{"embeddings": a.Embeddings, "dictionary": a.Dictionary,
		"sequential": func(x []float32) []int32 {
			guess, err := a.Sequential(x, Search{})
			require.NoError(t, err)
			return guess
		}} {
		require.EqualValues(t, 1, rate(list, func(ids []int32) []int32 { return attack(s.smash(t, ids, 0)) }), name)
	}
}

// TestI4UnroundedStatesAreRead: at every cut the true token's state behind the true prefix is the one that was sent, bit for
// bit, so the sequential attack recovers every token, with and without a shortlist.
func TestI4UnroundedStatesAreRead(t *testing.T) {
	s := open(t, "mei-nano")
	for _, cut := range []int{1, 3, 5} {
		a := s.attacker(t, cut)
		for _, search := range []Search{{}, {Shortlist: 16}} { // Near 0: until the state is met exactly
			list := s.prompts(1, uint64(cut))
			list[0] = list[0][:12-2*cut] // deep cuts take long
			require.EqualValues(t, 1, rate(list, func(ids []int32) []int32 {
				guess, err := a.Sequential(s.smash(t, ids, cut), search)
				require.NoError(t, err)
				return guess
			}), "cut %d, %+v", cut, search)
		}
	}
}

// TestI4ShuffledStatesSayNothing: if states change places, what is recovered is what the places have in common by chance.
func TestI4ShuffledStatesSayNothing(t *testing.T) {
	s := open(t, "mei-nano")
	C := s.Model.Dim
	r := rand.New(rand.NewPCG(2, 2))
	for _, cut := range []int{0, 1} {
		a := s.attacker(t, cut)
		var truth []int32
		var states []float32
		for _, ids := range s.prompts(40, 1) {
			truth = append(truth, ids[1:]...)
			states = append(states, s.smash(t, ids, cut)[C:]...)
		}
		shuffled, same := make([]float32, len(states)), 0
		for to, from := range r.Perm(len(truth)) {
			copy(shuffled[to*C:(to+1)*C], states[from*C:])
			if truth[to] == truth[from] {
				same++
			}
		}
		hits, n := Hits(truth, a.Dictionary(shuffled), 0)
		chance := Chance(truth)
		require.InDelta(t, chance, float64(hits)/float64(n), 0.03, "cut %d", cut)
		if cut == 0 {
			require.Equal(t, same, hits, "it reads the state, whichever it is")
		} else {
			whole, _ := Hits(truth, a.Dictionary(states), 0)
			require.Greater(t, float64(whole)/float64(n), 3*chance, "unshuffled")
		}
	}
}

// TestI4AttacksByStrength: on states behind two layers, knowing more recovers more. Rounding on the wire saves no text from
// the strongest attack: states rounded to 4 bits are still nearest to those of their own tokens. Noise as large as the
// states does.
func TestI4AttacksByStrength(t *testing.T) {
	s := open(t, "mei-nano")
	const cut = 2
	a := s.attacker(t, cut)
	list := s.prompts(6, 1)
	C := s.Model.Dim
	embeddings := rate(list, func(ids []int32) []int32 { return a.Embeddings(s.smash(t, ids, cut)) })
	dictionary := rate(list, func(ids []int32) []int32 { return a.Dictionary(s.smash(t, ids, cut)) })
	near := 0.05
	sequential := func(spoil func(x []float32) []float32) float64 {
		return rate(list, func(ids []int32) []int32 {
			guess, err := a.Sequential(spoil(s.smash(t, ids, cut)), Search{Shortlist: 64, Near: near})
			require.NoError(t, err)
			return guess
		})
	}
	int4, err := codec.Find("int4")
	require.NoError(t, err)
	rounded := sequential(func(x []float32) []float32 {
		x, err := int4.Decode(nil, int4.Encode(nil, x, C), C)
		require.NoError(t, err)
		return x
	})
	last := rounded
	near = math.Inf(1) // the shortlist has to do
	require.Greater(t, dictionary, embeddings+0.2)
	require.Greater(t, rounded, dictionary+0.2)
	require.Greater(t, rounded, 0.95)
	for _, share := range []float64{1, 4} { // of the deviation of the states
		r := rand.New(rand.NewPCG(5, 5))
		noisy := sequential(func(x []float32) []float32 {
			size := math.Sqrt(apart(x, make([]float32, len(x))) / float64(len(x)))
			for i := range x {
				x[i] += float32(share * size * r.NormFloat64())
			}
			return x
		})
		t.Logf("noise %g: %.3f", share, noisy)
		require.Less(t, noisy, last-0.1)
		last = noisy
	}
	t.Logf("embeddings %.3f, dictionary %.3f, sequential on int4 %.3f", embeddings, dictionary, rounded)
}

// TestI4RidgeLearnsFromPairs: fitted on other texts it reads most tokens of new ones at a shallow cut, and chance from
// shuffled pairs.
func TestI4RidgeLearnsFromPairs(t *testing.T) {
	s := open(t, "mei-nano")
	const cut = 1
	var states []float32
	var ids []int32
	for _, p := range s.prompts(150, 99) {
		states, ids = append(states, s.smash(t, p, cut)...), append(ids, p...)
	}
	r, err := Fit(states, ids, s.Model.Vocab, 1e-4)
	require.NoError(t, err)
	list := s.prompts(20, 1)
	got := rate(list, func(ids []int32) []int32 { return r.Guess(s.smash(t, ids, cut)) })
	t.Logf("ridge %.3f", got)
	require.Greater(t, got, 0.7)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	r, err = Fit(states, ids, s.Model.Vocab, 1e-4)
	require.NoError(t, err)
	require.Less(t, rate(list, func(ids []int32) []int32 { return r.Guess(s.smash(t, ids, cut)) }), 0.25, "the commonest token alone is a fifth")
}

// TestRidgeSolvesItsEquations: (XᵀX + λ·s·I)·W = XᵀY, by residual.
func TestRidgeSolvesItsEquations(t *testing.T) {
	const n, C, V = 60, 5, 4
	r := rand.New(rand.NewPCG(4, 4))
	x, y := make([]float32, n*C), make([]int32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for i := range y {
		y[i] = int32(r.IntN(V))
	}
	fit, err := Fit(x, y, V, 0.3)
	require.NoError(t, err)
	wide := func(t, i int) float64 {
		if i == C {
			return 1
		}
		return float64(x[t*C+i])
	}
	trace := 0.0
	for _, v := range x {
		trace += float64(v) * float64(v)
	}
	for i := range C + 1 {
		for v := range V {
			left, right := 0.3*trace/C*fit.weights[i*V+v], 0.0
			for s := range n {
				score := 0.0
				for j := range C + 1 {
					score += wide(s, j) * fit.weights[j*V+v]
				}
				left += wide(s, i) * score
				if int(y[s]) == v {
					right += wide(s, i)
				}
			}
			require.InDelta(t, right, left, 1e-9)
		}
	}
}

func TestInvertRefuses(t *testing.T) {
	s := open(t, "mei-nano")
	_, err := New(s.w, 6, nil)
	require.ErrorContains(t, err, "layers [0, 5)")
	a := s.attacker(t, 1)
	_, err = a.Sequential(nil, Search{})
	require.ErrorContains(t, err, "0 states")
	long, err := New(s.w, 1, make([]int32, 255))
	require.NoError(t, err)
	_, err = long.Sequential(make([]float32, 258*s.Model.Dim), Search{Shortlist: 4, Near: math.Inf(1)})
	require.ErrorContains(t, err, "fill the context of the model, 256")
	_, err = Fit(make([]float32, 4), []int32{1, 9}, 3, 1)
	require.ErrorContains(t, err, "id 9")
	_, err = Fit(make([]float32, 4), []int32{1, 2}, 3, 1)
	require.ErrorContains(t, err, "all zero")
	_, err = Fit(make([]float32, 3), []int32{1, 2}, 3, 1)
	require.ErrorContains(t, err, "whole states")
	hits, n := Hits([]int32{1, 2, 3}, []int32{1, 2}, 1)
	require.Equal(t, [2]int{1, 2}, [2]int{hits, n})
	require.InDelta(t, 0.375, Chance([]int32{1, 1, 2, 3}), 1e-12) // 1/4 + 1/16 + 1/16
}

func BenchmarkSequential(b *testing.B) {
	s := open(b, "mei-nano")
	a := s.attacker(b, 2)
	x := s.smash(b, s.prompts(1, 1)[0], 2)
	for b.Loop() {
		if _, err := a.Sequential(x, Search{Shortlist: 64, Near: 0.02}); err != nil {
			b.Fatal(err)
		}
	}
}
