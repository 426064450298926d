package spec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// someLaw is a random law over n tokens; a third of them has holes, as top-k makes them.
func someLaw(r *rand.Rand, n int) []float64 {
	law := make([]float64, n)
	holes := r.IntN(3) == 0
	var sum float64
	for i := range law {
		if law[i] = rng.Exp(r) * rng.Exp(r); holes && i%2 == 1 {
			law[i] = 0
		}
		sum += law[i]
	}
	for i := range law {
		law[i] /= sum
	}
	return law
}

func farthest(a, b []float64) (most float64) {
	for i := range a {
		most = max(most, math.Abs(a[i]-b[i]))
	}
	return most
}

// E1: for any p and q, what a draft and its replacement emit together is p; and α is one less the total variation.
func TestI10EmittedLawIsTheTargetsForAnyPair(t *testing.T) {
	r := rng.Stream(1, "spec pairs")
	for range 1000 {
		n := 2 + r.IntN(40)
		p, q := someLaw(r, n), someLaw(r, n)
		alpha := Overlap(p, q)
		rest := Residual(make([]float64, n), p, q)
		emitted := make([]float64, n)
		var tv float64
		for x := range p {
			stays := 1.0
			if q[x] > 0 {
				stays = min(1, p[x]/q[x])
			}
			if q[x] > 0 {
				require.True(t, Accepts(p, q, x, stays*(1-1e-9)) || stays == 0)
				require.False(t, stays < 1 && Accepts(p, q, x, stays*(1+1e-9)))
			}
			emitted[x] = q[x]*stays + (1-alpha)*rest[x]
			tv += math.Abs(p[x]-q[x]) / 2
		}
		require.Less(t, farthest(emitted, p), 1e-12)
		require.InDelta(t, 1-tv, alpha, 1e-12)
	}
}

// toy is a pair of models over 4 tokens whose laws hang on the token before.
type toy struct{ p, q [5][]float64 }

func newToy() (m toy) {
	m.p = [5][]float64{{.5, .2, .2, .1}, {.1, .6, .1, .2}, {.25, .25, .25, .25}, {.05, .05, .2, .7}, {.4, .1, .4, .1}}
	m.q = [5][]float64{{.2, .4, .1, .3}, {.3, .3, .3, .1}, {.7, .1, .1, .1}, {.1, .2, .3, .4}, {.1, .4, .1, .4}}
	return m
}

type round func(p, q [][]float64, draft []int, u func() float64) (int, int)

// chiSquare runs rounds of two drafts until three tokens are there, n times, and compares the counts of the 64 texts with the
// target's joint law.
func (m toy) chiSquare(n int, sampling [5][]float64, judge round) (chi float64, freedom int) {
	r := rng.Stream(7, "spec chi square")
	var count [64]int
	for range n {
		last, text := 4, make([]int, 0, 6)
		for len(text) < 3 {
			a := Draw(sampling[last], r.Float64())
			draft := []int{a, Draw(sampling[a], r.Float64())}
			p := [][]float64{m.p[last], m.p[a], m.p[draft[1]]}
			k, next := judge(p, [][]float64{m.q[last], m.q[a]}, draft, r.Float64)
			text = append(append(text, draft[:k]...), next)
			last = next
		}
		count[16*text[0]+4*text[1]+text[2]]++
	}
	for cell, c := range count {
		a, b, x := cell/16, cell/4%4, cell%4
		want := float64(n) * m.p[4][a] * m.p[a][b] * m.p[b][x]
		chi += (float64(c) - want) * (float64(c) - want) / want
	}
	return chi, 63
}

// critical is the value that chi square passes with probability 1e-6 (Wilson and Hilferty 1931).
func critical(freedom int) float64 {
	f := 2 / (9 * float64(freedom))
	return float64(freedom) * math.Pow(1-f+4.753424*math.Sqrt(f), 3)
}

const draws = 120_000

// E2, and the three defects of published code that the test must find.
func TestI10ChiSquareOfThreeTokens(t *testing.T) {
	m := newToy()
	chi, freedom := m.chiSquare(draws, m.q, Chain[float64])
	require.Less(t, chi, critical(freedom))

	softmaxed := func(p, q [][]float64, draft []int, u func() float64) (int, int) { // the residual goes through softmax once more
		for i, x := range draft {
			if !Accepts(p[i], q[i], x, u()) {
				rest := Residual(make([]float64, 4), p[i], q[i])
				for j := range rest {
					rest[j] = math.Exp(rest[j])
				}
				return i, Draw(rest, u())
			}
		}
		return len(draft), Draw(p[len(draft)], u())
	}
	inverse := func(p, q [][]float64, draft []int, u func() float64) (int, int) { // accepts by q/p
		for i, x := range draft {
			if !Accepts(q[i], p[i], x, u()) {
				return i, Draw(Residual(make([]float64, 4), p[i], q[i]), u())
			}
		}
		return len(draft), Draw(p[len(draft)], u())
	}
	var top2 [5][]float64 // drafts come from the two likeliest tokens, and are judged against all of q
	for i, law := range m.q {
		order := []int{0, 1, 2, 3}
		slices.SortStableFunc(order, func(a, b int) int { return int(math.Copysign(1, law[b]-law[a])) })
		top2[i] = make([]float64, 4)
		for _, x := range order[:2] {
			top2[i][x] = law[x] / (law[order[0]] + law[order[1]])
		}
	}
	for name, wrong := range map[string]func() (float64, int){
		"softmax of the residual": func() (float64, int) { return m.chiSquare(draws, m.q, softmaxed) },
		"inverse ratio":           func() (float64, int) { return m.chiSquare(draws, m.q, inverse) },
		"unfiltered q":            func() (float64, int) { return m.chiSquare(draws, top2, Chain[float64]) },
	} {
		chi, freedom := wrong()
		require.Greater(t, chi, 2*critical(freedom), name)
	}
}

// E3: the text of greedy rounds is the target's, for a draft that is right, wrong or random, and any γ.
func TestI10GreedyTextIsTheTargets(t *testing.T) {
	r := rng.Stream(3, "spec greedy")
	target := func(text []int32) int32 { // any function of the text will do
		h := int32(17)
		for _, x := range text {
			h = (h*31 + x) % 1009
		}
		return h % 5
	}
	var want []int32
	for len(want) < 40 {
		want = append(want, target(want))
	}
	for gamma := range 8 {
		for _, good := range []float64{0, 0.5, 1} {
			var text []int32
			for len(text) < 40 {
				var draft, truth []int32
				for range gamma {
					next := target(slices.Concat(text, draft))
					if r.Float64() >= good {
						next = int32(r.IntN(5))
					}
					draft = append(draft, next)
				}
				for i := range gamma + 1 {
					truth = append(truth, target(slices.Concat(text, draft[:i])))
				}
				k, next := Greedy(truth, draft)
				require.True(t, good < 1 || k == gamma)
				text = append(append(text, draft[:k]...), next)
			}
			require.Equal(t, want, text[:40])
		}
	}
}

// At temperature 0 the laws are points and the sampling rule is the greedy one.
func TestI10ChainAtTemperatureZeroIsGreedy(t *testing.T) {
	r := rng.Stream(4, "spec points")
	point := func(x int32) []float32 { law := make([]float32, 3); law[x] = 1; return law }
	for range 500 {
		var p, q [][]float32
		var truth, draft []int32
		var drafted []int
		for range 4 {
			truth, draft = append(truth, int32(r.IntN(3))), append(draft, int32(r.IntN(3)))
			p, q = append(p, point(truth[len(truth)-1])), append(q, point(draft[len(draft)-1]))
			drafted = append(drafted, int(draft[len(draft)-1]))
		}
		k, next := Chain(p, q[:3], drafted[:3], r.Float64)
		wantK, want := Greedy(truth, draft[:3])
		require.Equal(t, []int{wantK, int(want)}, []int{k, next})
	}
}

// I11: every draft of a tree with two children a node and two levels, every decision: the law of the first two tokens.
func TestI11TreeRuleKeepsTheTargetsLaw(t *testing.T) {
	const V = 3
	r := rng.Stream(5, "spec tree")
	for range 3 {
		var p, q [V + 1][]float64 // after token x, or at the start for V
		for i := range p {
			p[i], q[i] = someLaw(r, V), someLaw(r, V)
		}
		tree := Static([]int{2, 2})
		state := func(i int) int {
			if i < 0 {
				return V
			}
			return int(tree.Tokens[i])
		}
		after := func(i int) []float64 { return p[state(i)] }
		from := func(i int) []float64 { return q[state(int(tree.Parents[i]))] }
		var joint [V][V]float64
		for code := range 729 { // 3^6 drafts
			weight := 1.0
			for i, c := 0, code; i < 6; i, c = i+1, c/V {
				tree.Tokens[i] = int32(c % V)
				weight *= from(i)[c%V]
			}
			if weight == 0 {
				continue
			}
			outcomes(func(decide func(chance float64) bool) {
				w := weight
				path, left := tree.walk(after, from, func(left, q []float64, x int) bool {
					chance := min(1, left[x]/q[x])
					if decide(chance) {
						w *= chance
						return true
					}
					w *= 1 - chance
					return false
				})
				text := make([]int, 0, 3)
				for _, i := range path {
					text = append(text, int(tree.Tokens[i]))
				}
				for x, chance := range left {
					if full := append(text, x); len(full) > 1 {
						joint[full[0]][full[1]] += w * chance
					} else { // the second token comes in the next round
						for y := range V {
							joint[x][y] += w * chance * p[x][y]
						}
					}
				}
			})
		}
		for a := range V {
			for b := range V {
				require.InDelta(t, p[V][a]*p[a][b], joint[a][b], 1e-12)
			}
		}
	}
}

// outcomes calls run once for every sequence of decisions that it can take with a probability over 0.
func outcomes(run func(decide func(chance float64) bool)) {
	var fixed, certain []bool
	for {
		n := 0
		run(func(chance float64) bool {
			if n == len(fixed) {
				fixed, certain = append(fixed, chance > 0), append(certain, chance <= 0 || chance >= 1)
			}
			n++
			return fixed[n-1]
		})
		for len(fixed) > 0 && (certain[len(fixed)-1] || !fixed[len(fixed)-1]) {
			fixed, certain = fixed[:len(fixed)-1], certain[:len(certain)-1]
		}
		if len(fixed) == 0 {
			return
		}
		fixed[len(fixed)-1] = false
	}
}

// Trees by the statistical way too, through Verify itself: one level of three children.
func TestI11TreeChiSquare(t *testing.T) {
	r := rng.Stream(6, "spec tree chi square")
	p, q := []float64{.4, .3, .2, .1}, []float64{.1, .2, .3, .4}
	tree := Static([]int{3})
	var count [4]float64
	for range draws {
		for i := range tree.Tokens {
			tree.Tokens[i] = int32(Draw(q, r.Float64()))
		}
		law := func(v []float64) func(int) []float64 { return func(int) []float64 { return v } }
		path, next := tree.Verify(law(p), law(q), r.Float64)
		if len(path) > 0 {
			next = int(tree.Tokens[path[0]])
		}
		count[next]++
	}
	var chi float64
	for x, c := range count {
		chi += (c - draws*p[x]) * (c - draws*p[x]) / (draws * p[x])
	}
	require.Less(t, chi, critical(3))
}

func TestI11TreeShape(t *testing.T) {
	tree := Static([]int{2, 1})
	require.Equal(t, []int32{-1, -1, 0, 1}, tree.Parents)
	require.Equal(t, []int{1, 1, 2, 2}, tree.Depths())
	require.Equal(t, []bool{
		true, false, false, false,
		false, true, false, false,
		true, false, true, false,
		false, true, false, true,
	}, tree.Mask())
	require.Equal(t, []int{0, 1}, tree.Children(-1))
	require.NoError(t, tree.Check())
	require.EqualError(t, Tree{[]int32{1}, []int32{0}}.Check(), "draft tree: node 0 has parent 0: want -1 or a node before it")
	require.ErrorContains(t, Tree{[]int32{1}, nil}.Check(), "1 tokens and 0 parents")
	tree.Tokens = []int32{5, 6, 7, 8}
	path, next := tree.Greedy(func(i int) int32 { return map[int]int32{-1: 6, 1: 8, 3: 9}[i] })
	require.Equal(t, []int{1, 3}, path)
	require.Equal(t, int32(9), next)
	path, next = tree.Greedy(func(int) int32 { return 4 })
	require.Empty(t, path)
	require.Equal(t, int32(4), next)
}

// I11: the split judgement makes the tokens of the whole one, from the scalar that goes up and the law that comes down.
func TestI11SplitJudgementEqualsChain(t *testing.T) {
	r := rng.Stream(8, "spec split")
	for n := range 1000 {
		gamma := n % 7
		var p, q [][]float64
		var draft []int
		var drawn []float64
		for range gamma {
			q = append(q, someLaw(r, 9))
			draft = append(draft, Draw(q[len(q)-1], r.Float64()))
			drawn = append(drawn, q[len(q)-1][draft[len(draft)-1]])
		}
		for range gamma + 1 {
			p = append(p, someLaw(r, 9))
		}
		whole, split := rng.Stream(uint64(n), "u"), rng.Stream(uint64(n), "u")
		wantK, want := Chain(p, q, draft, whole.Float64)
		k := Judge(p, drawn, draft, split.Float64)
		require.Equal(t, wantK, k)
		if k < gamma {
			require.Equal(t, want, Resample(p[k], q[k], split.Float64()))
		} else {
			require.Equal(t, want, Draw(p[k], split.Float64()))
		}
	}
}

// γ (id + q) up against γ rows of V; the law of one position down.
func TestI11SplitBytes(t *testing.T) {
	w := Wire{ID: 4, Prob: 4, Vocab: 50272}
	require.Equal(t, 6*8, w.UpSplit(6))
	require.Equal(t, 6*(4+50272*4), w.UpFull(6))
	require.Equal(t, 4+50272*4, w.DownSplit(true))
	require.Equal(t, 8, w.DownSplit(false))
	require.Equal(t, 8, w.DownFull())
}

func TestI10DrawNeverAnswersTheImpossible(t *testing.T) {
	require.Equal(t, 1, Draw([]float64{0, 1, 0}, 0))
	require.Equal(t, 1, Draw([]float64{0, 1, 0}, math.Nextafter(1, 0)))
	require.Equal(t, 2, Draw([]float32{.5, 0, .5}, .5))
	require.Panics(t, func() { Draw([]float64{0, 0}, .5) })
	require.Equal(t, []float64{.5, .5}, Residual(make([]float64, 2), []float64{.5, .5}, []float64{.5, .5}))
}

func Example() {
	p := [][]float64{{0.7, 0.2, 0.1}, {0.1, 0.1, 0.8}} // the target after each prefix
	q := [][]float64{{0.5, 0.4, 0.1}}                  // the draft's law of its one token
	u := rng.Stream(1, "example").Float64
	accepted, next := Chain(p, q, []int{0}, u)
	fmt.Println(accepted, next, Overlap(p[0], q[0]))
	// Output: 1 2 0.7999999999999999
}
