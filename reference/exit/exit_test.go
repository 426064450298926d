package exit

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/quant"
)

const prompt = "robot 24 , tool 21 , cup 12 , shelf 45 ; store cup =>"

type setup struct {
	m *llm.Model
	w *llm.Work
	p []int32
}

// nano is the smallest shipped model, trained with exits.
func nano(t testing.TB) setup {
	l, err := models.Open("mei-nano")
	require.NoError(t, err)
	w := l.Model.NewWork(1)
	t.Cleanup(w.Close)
	return setup{l.Model, w, l.Tokenizer.EncodePrompt(prompt)}
}

// unsure is a model with random weights, whose laws are nearly even.
func unsure(t testing.TB) setup {
	m, err := llm.New(llm.Config{Arch: llm.Qwen2, Layers: 5, Dim: 64, Heads: 4, KVHeads: 2, FFN: 96, Vocab: 70, Context: 128}, 3)
	require.NoError(t, err)
	w := m.NewWork(2)
	t.Cleanup(w.Close)
	return setup{m, w, []int32{3, 9, 27, 11, 33}}
}

func (s setup) cache(t testing.TB) *llm.Cache {
	c, err := s.m.NewCache(0, s.m.Layers, 100)
	require.NoError(t, err)
	return c
}

func contents(c *llm.Cache, width int) []float32 {
	var list []float32
	for l := c.Lo; l < c.Hi; l++ {
		k, v := make([]float32, c.Len()*width), make([]float32, c.Len()*width)
		c.Get(l, 0, c.Len(), k, v)
		list = append(append(list, k...), v...)
	}
	return list
}

// answer takes steps by a rule and returns tokens and depths.
func (s setup) answer(t testing.TB, rule Rule, steps int) (tokens []int32, depths []int, c *llm.Cache) {
	r, err := New(s.w, rule)
	require.NoError(t, err)
	c = s.cache(t)
	seqs := []Seq{{IDs: s.p, Cache: c}}
	for range steps {
		require.NoError(t, r.Step(seqs))
		tokens, depths = append(tokens, seqs[0].Token), append(depths, seqs[0].Depth)
		seqs[0].IDs = []int32{seqs[0].Token}
		seqs[0].Answer++
	}
	return tokens, depths, c
}

// TestI11StrictThresholdIsTheFullModel: if no token may leave, logits, tokens and cache are those of the model, bit for bit,
// by every measure; also where heads are asked and do not reach the threshold.
func TestI11StrictThresholdIsTheFullModel(t *testing.T) {
	for _, tc := range []struct {
		name  string
		s     setup
		limit float64
		heads int
	}{{"never", nano(t), 1, 1}, {"never reached", unsure(t), 0.9, 4}} {
		for measure := MaxProb; measure <= Entropy; measure++ {
			t.Run(fmt.Sprint(tc.name, measure), func(t *testing.T) {
				s := tc.s
				full := s.cache(t)
				r, err := New(s.w, Rule{Layers: []int{1, 2, 4}, Measure: measure, Thresholds: []float64{tc.limit}, Prompt: true})
				require.NoError(t, err)
				got := []Seq{{IDs: s.p, Cache: s.cache(t)}}
				want := []llm.Seq{{IDs: s.p, Cache: full}}
				for range 8 {
					require.NoError(t, s.w.Forward(0, s.m.Layers, want))
					logits := slices.Clone(want[0].Out)
					require.NoError(t, r.Step(got))
					require.Equal(t, logits, got[0].Logits)
					require.Equal(t, llm.Greedy(logits), got[0].Token)
					require.Equal(t, s.m.Layers, got[0].Depth)
					require.Equal(t, tc.heads, got[0].Heads)
					want[0].IDs = []int32{got[0].Token}
					got[0].IDs = want[0].IDs
				}
				require.Equal(t, contents(full, s.m.KVDim()), contents(got[0].Cache, s.m.KVDim()))
			})
		}
	}
}

// TestI11LooseThresholdLeavesAtTheFirstHead: every token has the logits of the model cut off there, bit for bit.
func TestI11LooseThresholdLeavesAtTheFirstHead(t *testing.T) {
	s := nano(t)
	for measure := MaxProb; measure <= Saturation; measure++ {
		for e := 1; e < s.m.Layers; e++ {
			r, err := New(s.w, Rule{Layers: []int{e}, Measure: measure, Thresholds: []float64{0}, Prompt: true})
			require.NoError(t, err)
			cut, err := s.m.NewCache(0, e, 100)
			require.NoError(t, err)
			got, want := []Seq{{IDs: s.p, Cache: s.cache(t)}}, []llm.Seq{{IDs: s.p, Cache: cut, Want: llm.LastLogits}}
			var ids []int32
			for range 5 {
				ids = append(ids, got[0].IDs...)
				require.NoError(t, s.w.Forward(0, e, want))
				logits := slices.Clone(want[0].Out)
				require.NoError(t, r.Step(got))
				require.Equal(t, logits, got[0].Logits)
				require.Equal(t, []int{e, 1}, []int{got[0].Depth, got[0].Heads})
				got[0].IDs = []int32{got[0].Token}
				want[0].IDs = got[0].IDs
			}
			require.Equal(t, contents(cut, s.m.KVDim()), contents(got[0].Cache.Span(0, e), s.m.KVDim()))
			require.Equal(t, len(s.p)+4, got[0].Cache.Len())
			cut.Truncate(0) // layers above hold what the states at the exit make of them
			states := []llm.Seq{{IDs: ids, Cache: cut, Want: llm.Hidden}}
			require.NoError(t, s.w.Forward(0, e, states))
			above, err := s.m.NewCache(e, s.m.Layers, 100)
			require.NoError(t, err)
			require.NoError(t, s.w.Complete(e, s.m.Layers, []llm.Seq{{Hidden: slices.Clone(states[0].Out), Cache: above}}))
			require.Equal(t, contents(above, s.m.KVDim()), contents(got[0].Cache.Span(e, s.m.Layers), s.m.KVDim()))
		}
	}
}

// TestI11DepthGrowsWithTheThreshold: for each token, behind the same cache, the exit never comes earlier when the threshold
// rises, by every measure; and thresholds between the ends do send tokens to different depths.
func TestI11DepthGrowsWithTheThreshold(t *testing.T) {
	s := nano(t)
	ids, _, _ := s.answer(t, Rule{}, 6)
	for measure := MaxProb; measure <= Saturation; measure++ {
		c, seen := s.cache(t), map[int]bool{}
		require.NoError(t, s.w.Forward(0, s.m.Layers, []llm.Seq{{IDs: s.p, Cache: c}}))
		for _, id := range ids {
			last, base := 0, c.Len()
			for _, limit := range []float64{0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1} {
				r, err := New(s.w, Rule{Layers: []int{1, 2, 3, 4}, Measure: measure, Thresholds: []float64{limit}})
				require.NoError(t, err)
				seqs := []Seq{{IDs: []int32{id}, Cache: c}}
				require.NoError(t, r.Step(seqs))
				c.Truncate(base)
				require.GreaterOrEqual(t, seqs[0].Depth, last, "measure %d, threshold %g", measure, limit)
				last = seqs[0].Depth
				seen[last] = true
				if last < s.m.Layers {
					require.GreaterOrEqual(t, seqs[0].Confidence, limit)
				}
			}
			require.Equal(t, s.m.Layers, last)
			require.NoError(t, s.w.Forward(0, s.m.Layers, []llm.Seq{{IDs: []int32{id}, Cache: c}}))
		}
		require.Greater(t, len(seen), 2, "measure %d must tell tokens apart", measure)
	}
}

// TestI11SequencesLeaveIndependently: a batch gives each sequence what it gets alone, wherever the others leave.
func TestI11SequencesLeaveIndependently(t *testing.T) {
	s := nano(t)
	rule := Rule{Layers: []int{1, 2, 3, 4}, Thresholds: []float64{0.5, 0.8, 0.9, 0.9}, Decay: 0.1, Length: 8}
	prompts := [][]int32{s.p, s.p[:7], s.p[:4], s.p[:10], {1, 5}}
	r, err := New(s.w, rule)
	require.NoError(t, err)
	var seqs []Seq
	for _, p := range prompts {
		seqs = append(seqs, Seq{IDs: p, Cache: s.cache(t)})
	}
	got, mixed := make([][]int32, len(seqs)), false
	depths := make([][]int, len(seqs))
	for range 8 {
		require.NoError(t, r.Step(seqs))
		for i := range seqs {
			got[i], depths[i] = append(got[i], seqs[i].Token), append(depths[i], seqs[i].Depth)
			seqs[i].IDs = []int32{seqs[i].Token}
			seqs[i].Answer++
			mixed = mixed || seqs[i].Depth != seqs[0].Depth
		}
	}
	require.True(t, mixed, "sequences must leave at different layers")
	for i, p := range prompts {
		alone := setup{s.m, s.w, p}
		tokens, deep, c := alone.answer(t, rule, 8)
		require.Equal(t, tokens, got[i])
		require.Equal(t, deep, depths[i])
		require.Equal(t, contents(c, s.m.KVDim()), contents(seqs[i].Cache, s.m.KVDim()))
	}
}

// TestI11StopAndOffload: a device that stops unsure and a cloud that goes on from its hidden states give the tokens of one
// machine with that one exit, if the cloud completes the tokens that left.
func TestI11StopAndOffload(t *testing.T) {
	s := nano(t)
	const cut = 3
	limit := []float64{0.9}
	want, deep, _ := s.answer(t, Rule{Layers: []int{cut}, Thresholds: limit}, 8)
	require.Contains(t, deep, cut)
	require.Greater(t, len(deep), 1)
	r, err := New(s.w, Rule{Layers: []int{cut}, Thresholds: limit, Stop: true})
	require.NoError(t, err)
	front, err := s.m.NewCache(0, cut, 100)
	require.NoError(t, err)
	back, err := s.m.NewCache(cut, s.m.Layers, 100)
	require.NoError(t, err)
	seqs, pos := []Seq{{IDs: s.p, Cache: front}}, len(s.p)
	left := 0
	for i := range 8 {
		require.NoError(t, r.Step(seqs))
		if seqs[0].Token < 0 {
			require.Equal(t, cut, seqs[0].Depth)
			cloud := []llm.Seq{{Hidden: slices.Clone(seqs[0].Hidden), Cache: back}}
			require.NoError(t, s.w.Forward(cut, s.m.Layers, cloud))
			seqs[0].Token = llm.Greedy(cloud[0].Out)
		} else { // its state is sent later; here at once
			left++
			alone, err := s.m.NewCache(0, cut, 100)
			require.NoError(t, err)
			again := []llm.Seq{{IDs: append(slices.Clone(s.p), want[:i]...), Cache: alone, Want: llm.Hidden}}
			require.NoError(t, s.w.Forward(0, cut, again))
			state := slices.Clone(again[0].Out[(pos-1)*s.m.Dim:])
			require.NoError(t, s.w.Complete(cut, s.m.Layers, []llm.Seq{{Hidden: state, Cache: back}}))
		}
		require.Equal(t, want[i], seqs[0].Token, "token %d", i)
		seqs[0].IDs = []int32{seqs[0].Token}
		pos++
	}
	require.Positive(t, left)
	require.Less(t, left, 8)
}

// TestI11OperationsAddUp: what a rule spends and what it leaves to others are counted by hand here.
func TestI11OperationsAddUp(t *testing.T) {
	c := llm.Config{Arch: llm.Llama, Layers: 4, Dim: 8, Heads: 2, KVHeads: 1, HeadDim: 4, FFN: 16, Vocab: 10, Context: 50}
	const layer, past = 2*(2*8*8+2*8*4+3*8*16) + 4*8*7, 6 // products, and scores and sums over 7 positions
	r := Rule{Layers: []int{1, 3}, Thresholds: []float64{0.5}}
	s := Seq{IDs: []int32{1}, Depth: 3, Heads: 2}
	require.EqualValues(t, 3*layer+2*2*8*10+1*2*2*8*4, r.FLOPs(c, &s, past))
	r.Stop = true
	require.EqualValues(t, 3*layer+2*2*8*10, r.FLOPs(c, &s, past))
	require.EqualValues(t, (4-1)*layer+(4-3)*layer, CloudFLOPs(c, []int{1, 3}, []int{past, past}))
	n := nano(t)
	rule := Rule{Layers: []int{2, 4}, Thresholds: []float64{0.8}}
	_, depths, _ := n.answer(t, rule, 8)
	sum, pasts := 0, make([]int, 8)
	for i := range depths {
		sum += n.m.Layers - depths[i]
		pasts[i] = 40
	}
	require.Positive(t, sum)
	require.Equal(t, units.FLOP(sum)*n.m.FLOPs(0, 1, 1, 40), CloudFLOPs(n.m.Config, depths, pasts), "Σ (L - exit)·operations of a layer")
}

func TestThresholds(t *testing.T) {
	r := Rule{Layers: []int{1, 2}, Thresholds: []float64{0.6, 0.9}, Decay: 0.1, Length: 10}
	require.InDelta(t, 0.9*0.6+0.1, r.Threshold(0, 0), 1e-12)
	require.InDelta(t, 0.9*0.9+0.1*0.36787944117144233, r.Threshold(1, 0+10/4)+0.1*(0.36787944117144233-0.44932896411722156), 1e-9) // e^-1 and e^-0.8
	require.Greater(t, r.Threshold(0, 3), r.Threshold(0, 4))
	r.Thresholds = []float64{1}
	require.EqualValues(t, 1, r.Threshold(1, 9), "the strict end stays strict")
	r.Thresholds = []float64{0}
	require.Zero(t, r.Threshold(0, 0), "the loose end stays loose")
}

func TestRuleRefuses(t *testing.T) {
	s := unsure(t)
	for _, tc := range []struct {
		rule Rule
		want string
	}{
		{Rule{Layers: []int{2, 2}, Thresholds: []float64{1}}, "ascending numbers from 1 to 4"},
		{Rule{Layers: []int{5}, Thresholds: []float64{1}}, "ascending numbers"},
		{Rule{Layers: []int{1, 2, 3}, Thresholds: []float64{1, 1}}, "2 thresholds for 3 exits"},
		{Rule{Layers: []int{1}, Thresholds: []float64{1}, Measure: 9}, "measure 9"},
		{Rule{Decay: 0.1}, "decay of 0.1 over 0 tokens"},
		{Rule{Stop: true}, "nowhere to stop"},
	} {
		_, err := New(s.w, tc.rule)
		require.ErrorContains(t, err, tc.want)
	}
	r, err := New(s.w, Rule{Layers: []int{2}, Thresholds: []float64{1}})
	require.NoError(t, err)
	c := s.cache(t)
	require.ErrorContains(t, r.Step([]Seq{{IDs: []int32{1}, Cache: c}, {IDs: []int32{1}, Cache: c}}), "share a cache")
	require.ErrorContains(t, r.Step([]Seq{{IDs: []int32{1}, Cache: c.Span(0, 2)}}), "layers [0, 5)")
	require.ErrorContains(t, r.Step([]Seq{{IDs: []int32{-1}, Cache: c}}), "id -1")
	require.Zero(t, c.Len())
	_, err = NewSelf(s.w, []int{0}, 2)
	require.ErrorContains(t, err, "of 1 to 4")
	_, err = NewPath(s.w, []int{5})
	require.ErrorContains(t, err, "leave out layer 5")
}

// TestStepDoesNotAllocate once it is warm, with some leaving and some not.
func TestStepDoesNotAllocate(t *testing.T) {
	s := nano(t)
	r, err := New(s.w, Rule{Layers: []int{1, 3}, Thresholds: []float64{0.9}})
	require.NoError(t, err)
	seqs := []Seq{{IDs: s.p, Cache: s.cache(t)}, {IDs: s.p[:5], Cache: s.cache(t)}}
	require.NoError(t, r.Step(seqs))
	seqs[0].IDs, seqs[1].IDs = []int32{seqs[0].Token}, []int32{seqs[1].Token}
	step := func() {
		if err := r.Step(seqs); err != nil {
			panic(err)
		}
		seqs[0].Cache.Truncate(len(s.p))
		seqs[1].Cache.Truncate(5)
	}
	step()
	require.Zero(t, testing.AllocsPerRun(20, step))
}

// TestI11SelfSpeculationIsGreedy: tokens and cache are those of the whole model, for exits at every layer, for layers left
// out in the middle, for any number of drafts, and where a stop comes inside a draft.
func TestI11SelfSpeculationIsGreedy(t *testing.T) {
	for name, s := range map[string]setup{"trained": nano(t), "random": unsure(t)} {
		full := s.cache(t)
		want, err := s.w.Generate(full, s.p, 24, llm.Greedy, nil)
		require.NoError(t, err)
		accepted, refused := 0, 0
		for _, skip := range [][]int{Above(1, 5), Above(3, 5), Above(4, 5), {2}, {1, 3}, {2, 3}} {
			for _, gamma := range []int{0, 1, 3, 7} {
				self, err := NewSelf(s.w, skip, gamma)
				require.NoError(t, err)
				c := s.cache(t)
				got, st, err := self.Generate(c, s.p, 24, nil)
				require.NoError(t, err)
				require.Equal(t, want, got, "%s: without %v, %d drafts", name, skip, gamma)
				require.Equal(t, full.Len(), c.Len())
				require.Equal(t, contents(full, s.m.KVDim()), contents(c, s.m.KVDim()))
				require.Equal(t, 23, st.Rounds+st.Accepted, "each round gives its accepted drafts and one more token")
				accepted, refused = accepted+st.Accepted, refused+st.Drafted-st.Accepted
				for _, at := range []int{0, 1, 5} {
					stop := func(id int32) bool { return id == want[at] }
					plain, c2 := s.cache(t), s.cache(t)
					short, err := s.w.Generate(plain, s.p, 24, llm.Greedy, stop)
					require.NoError(t, err)
					got, _, err := self.Generate(c2, s.p, 24, stop)
					require.NoError(t, err)
					require.Equal(t, short, got)
					require.Equal(t, plain.Len(), c2.Len())
				}
			}
		}
		require.Positive(t, refused, name)
		require.Positive(t, accepted, name)
	}
}

// TestPath: with nothing left out it is the model; leaving out all upper layers it is an early exit; in between, layers
// run one behind the other.
func TestPath(t *testing.T) {
	s := unsure(t)
	for _, skip := range [][]int{nil, {3, 4}, {0}, {1, 3}, {0, 1, 2, 3, 4}} {
		p, err := NewPath(s.w, skip)
		require.NoError(t, err)
		got := []llm.Seq{{IDs: s.p, Cache: s.cache(t)}, {IDs: s.p[:2], Cache: s.cache(t)}}
		require.NoError(t, p.Step(got))
		// The same weights as a shorter model.
		short := *s.m
		short.Blocks, short.Layers = nil, 0
		for l, b := range s.m.Blocks {
			if !slices.Contains(skip, l) {
				short.Blocks = append(short.Blocks, b)
				short.Layers++
			}
		}
		short.Hi = short.Layers
		w := short.NewWork(1)
		c, err := short.NewCacheOf(quant.F32, 0, short.Layers, 100)
		require.NoError(t, err)
		want := []llm.Seq{{IDs: s.p, Cache: c, Want: llm.LastLogits}}
		require.NoError(t, w.Forward(0, short.Layers, want))
		require.Equal(t, want[0].Out, got[0].Out, "without %v", skip)
		w.Close()
	}
}

func ExampleRunner() {
	l, err := models.Open("mei-nano")
	if err != nil {
		panic(err)
	}
	work := l.Model.NewWork(1)
	defer work.Close()
	r, err := New(work, Rule{Layers: []int{2, 4}, Measure: MaxProb, Thresholds: []float64{0.9}})
	if err != nil {
		panic(err)
	}
	cache, err := l.Model.NewCache(0, l.Model.Layers, 64)
	if err != nil {
		panic(err)
	}
	seqs := []Seq{{IDs: l.Tokenizer.EncodePrompt("robot 54 , can 44 ; fetch can =>"), Cache: cache}}
	for range 2 {
		if err := r.Step(seqs); err != nil {
			panic(err)
		}
		text := l.Tokenizer.Decode([]int32{seqs[0].Token})
		fmt.Printf("%q after %d layers\n", text, seqs[0].Depth)
		seqs[0].IDs = []int32{seqs[0].Token}
	}
	// Output:
	// "can" after 5 layers
	// " 44" after 2 layers
}
