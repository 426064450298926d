package flash

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
	"meibench/reference/sparse"
	"meibench/reference/storage"
)

func shape(arch string) llm.Config {
	return llm.Config{Arch: arch, Layers: 3, Dim: 64, Heads: 4, KVHeads: 2, HeadDim: 16, FFN: 100, Vocab: 200, Context: 64}
}

// files writes a random model and its neurons in both layouts.
func files(t testing.TB, c llm.Config, typ quant.Type) (model string, neurons [2]string) {
	m, err := llm.New(c, 7)
	require.NoError(t, err)
	if typ != quant.F32 {
		m, err = m.As(typ)
		require.NoError(t, err)
	}
	dir := t.TempDir()
	put := func(name string, write func(f *os.File) error) string {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		require.NoError(t, err)
		require.NoError(t, write(f))
		require.NoError(t, f.Close())
		return path
	}
	model = put("model", func(f *os.File) error { return m.Write(f) })
	for i, layout := range []Layout{Bundled, Apart} {
		neurons[i] = put(layout.String(), func(f *os.File) error { return Write(f, m, layout) })
	}
	return model, neurons
}

// drawn keeps a drawn set of neurons for each input, so that it is the same for every way of running: three quarters of them from
// the set of a few, so that there is something to find in the window.
func drawn(share float64) sparse.Rule {
	return func(layer int, x, _, _ []float32, on []bool) {
		key := uint64(layer)
		for _, v := range x[:4] {
			key = key*31 + uint64(int64(v*1000))
		}
		r := rng.Stream(key, "drawn")
		for i := range on {
			p := share / 2
			if i%4 == layer%4 {
				p = min(1, 2.5*share)
			}
			on[i] = r.Float64() < p
		}
		on[0] = true
	}
}

// counted adds up what a rule wanted.
func counted(rule sparse.Rule, active *int, seen map[[2]int]bool) sparse.Rule {
	return func(layer int, x, g, u []float32, on []bool) {
		rule(layer, x, g, u, on)
		for i, yes := range on {
			if yes {
				*active++
				seen[[2]int{layer, i}] = true
			}
		}
	}
}

var prompt = []int32{3, 9, 27, 81, 43}

// drive is all logits of a prompt and of steps with given tokens.
func drive(t testing.TB, m *llm.Model, forward func(*llm.Seq) error) (all []float32) {
	c, err := m.NewCache(0, m.Layers, 20)
	require.NoError(t, err)
	s := llm.Seq{IDs: prompt, Cache: c, Want: llm.AllLogits}
	for i := range 12 {
		require.NoError(t, forward(&s))
		all = append(all, s.Out...)
		s.IDs = []int32{int32(i * 7)}
	}
	return all
}

func open(t testing.TB, model, neurons string, o Options) *Runner {
	r, err := Open(model, neurons, o)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

func dense(t testing.TB, path string) []float32 {
	m, err := llm.Open(path, llm.ReadOptions{})
	require.NoError(t, err)
	defer m.Close()
	w := m.NewWork(1)
	defer w.Close()
	return drive(t, m, func(s *llm.Seq) error {
		one := []llm.Seq{*s}
		err := w.Forward(0, m.Layers, one)
		*s = one[0]
		return err
	})
}

// TestD5EveryNeuronIsDense: with no rule, and with one that keeps all, logits are those of the dense engine bit for bit, for every
// type that it computes in float32; of a model with blocks, which rounds activations, the neurons are exact and the logits near.
func TestD5EveryNeuronIsDense(t *testing.T) {
	odd := shape(llm.Llama)
	odd.FFN, odd.Tied = 101, true // SwiGLU's last elements are not in a vector
	for _, c := range []llm.Config{shape(llm.Llama), shape(llm.Qwen2), shape(llm.Phi3), odd} {
		for _, typ := range []quant.Type{quant.F32, quant.F16, quant.BF16} {
			model, neurons := files(t, c, typ)
			want := dense(t, model)
			for _, path := range neurons {
				for _, o := range []Options{{}, {Rule: sparse.Oracle(1)}, {Window: 2, Threads: 2}, {Window: Forever, Readers: 3}} {
					r := open(t, model, path, o)
					require.Equal(t, want, drive(t, r.Model(), r.Forward), "%s %v %+v", c.Arch, typ, o)
				}
			}
		}
	}
	c := shape(llm.Llama)
	c.FFN = 128
	model, neurons := files(t, c, quant.Q8_0)
	want := dense(t, model)
	r := open(t, model, neurons[0], Options{})
	require.Equal(t, quant.F32, r.places[0].typ)
	got := drive(t, r.Model(), r.Forward)
	for i := range want {
		require.InDelta(t, want[i], got[i], 0.05)
	}
}

// TestD5OnlyTheSetCounts: for one rule, logits are equal bit for bit and stay those of a dense pass with the others set to zero,
// whatever the window, the budget, the hot neurons, the layout and the readers; bytes are misses times the size of a neuron; and a
// longer window, or more hot neurons, never misses more.
func TestD5OnlyTheSetCounts(t *testing.T) {
	model, neurons := files(t, shape(llm.Llama), quant.F16)
	m, err := llm.Open(model, llm.ReadOptions{})
	require.NoError(t, err)
	defer m.Close()
	w := m.NewWork(1)
	defer w.Close()
	sparse.NewTally(drawn(0.2), 0.2).Attach(w)
	want := drive(t, m, func(s *llm.Seq) error {
		one := []llm.Seq{*s}
		err := w.Forward(0, m.Layers, one)
		*s = one[0]
		return err
	})
	require.NotEqual(t, want, dense(t, model))
	hot := make([][]bool, 3)
	for l := range hot {
		hot[l] = make([]bool, 100)
		for i := range 30 {
			hot[l][3*i] = true
		}
	}
	const size = 3 * 64 * 2
	for i, path := range neurons {
		before := 1 << 30
		for _, o := range []Options{{}, {Window: 1}, {Window: 3, Readers: 3}, {Window: Forever, Mode: storage.Dropped},
			{Hot: hot, Window: 3, Threads: 2}, {Hot: hot}, {Window: Forever, Budget: 3 * 60 * size}, {Hot: hot, Window: Forever, Budget: 3 * 75 * size}} {
			active, seen := 0, map[[2]int]bool{}
			o.Rule = counted(drawn(0.2), &active, seen)
			r := open(t, model, path, o)
			require.Equal(t, want, drive(t, r.Model(), r.Forward), "%+v", o)
			s := r.Stats()
			require.Equal(t, active, s.Active)
			require.Equal(t, len(prompt)+11, s.Tokens)
			require.Equal(t, units.Bytes(s.Missed*size), s.Bytes)
			require.GreaterOrEqual(t, s.Moved, s.Bytes)
			require.LessOrEqual(t, r.Peak(), roomOf(r))
			if o.Window == Forever && o.Budget == 0 {
				require.Equal(t, s.Bytes, r.Peak(), "what was read is there")
			}
			_, room := r.Held()
			switch {
			case o.Budget > 0 && o.Hot != nil:
				require.Equal(t, room, o.Budget)
				require.Positive(t, s.Missed)
			case o.Budget > 0:
				require.LessOrEqual(t, room, o.Budget)
				require.Greater(t, s.Missed, len(seen), "a row that left comes again")
			case o.Hot == nil && o.Window == 0:
				require.Equal(t, s.Active, s.Missed)
				require.Equal(t, units.Bytes(100*size), room, "one layer's rows serve all")
			case o.Hot == nil && o.Window == Forever:
				require.Equal(t, len(seen), s.Missed, "each neuron once")
			}
			if o.Hot == nil && o.Budget == 0 {
				require.LessOrEqual(t, s.Missed, before)
				before = s.Missed
			}
			if i == 1 {
				require.Zero(t, s.Reads%3, "three rows that lie apart")
			}
		}
	}
}

func roomOf(r *Runner) units.Bytes {
	_, room := r.Held()
	return room
}

// TestD5BundlesAreOneRead: neurons that nobody neighbours take one read each where they are bundled and three where not, and all
// neurons of a layer take one.
func TestD5BundlesAreOneRead(t *testing.T) {
	model, neurons := files(t, shape(llm.Llama), quant.F16)
	odd := func(_ int, _, _, _ []float32, on []bool) {
		for i := range on {
			on[i] = i%2 == 1
		}
	}
	for i, parts := range []int{1, 3} {
		r := open(t, model, neurons[i], Options{Rule: odd})
		drive(t, r.Model(), r.Forward)
		s := r.Stats()
		require.Equal(t, s.Missed*parts, s.Reads)
		r = open(t, model, neurons[i], Options{})
		drive(t, r.Model(), r.Forward)
		require.Equal(t, r.Stats().Tokens*3*parts, r.Stats().Reads, "a layer is one run")
	}
	p := place{layout: Bundled, row: 10}
	require.Equal(t, []span{{1, 3, -1}, {3, 4, -1}, {7, 8, -1}}, p.spans(nil, []int32{1, 2, 3, 7}, 60), "60 bytes are two neurons")
}

// TestD5WindowMatchesAList: rows, evictions and misses are those of a plain list of when each neuron was last active, over drawn
// sequences, and the rows that stay keep their content.
func TestD5WindowMatchesAList(t *testing.T) {
	for seed := range 60 {
		r := rng.Stream(uint64(seed), "window")
		const F = 24
		keep, capacity := r.IntN(5), 8+r.IntN(17)
		w := newWindow(F, keep, capacity, 1)
		w.memory = make([]byte, capacity)
		last := map[int32]int{} // the list
		for token := range 60 {
			var active []int32
			for n := range int32(F) {
				if r.IntN(4) == 0 && len(active) < 8 {
					active = append(active, n)
				}
			}
			for n, at := range last {
				if at < token-keep || keep == 0 {
					delete(last, n)
				}
			}
			var want []int32
			for _, n := range active {
				if _, ok := last[n]; !ok {
					want = append(want, n)
				}
				last[n] = token
			}
			for len(last) > capacity {
				victim := int32(-1)
				for n := range int32(F) {
					if at, ok := last[n]; ok && at < token && (victim < 0 || at < last[victim]) {
						victim = n
					}
				}
				delete(last, victim)
			}
			got, err := w.hold(token, active)
			require.NoError(t, err)
			require.Equal(t, want, append([]int32(nil), got...))
			for _, n := range got {
				w.at(int(w.slot[n]))[0] = byte(n)
			}
			require.Len(t, w.ids, len(last))
			for n := range last {
				require.Equal(t, byte(n), w.at(int(w.slot[n]))[0])
			}
		}
	}
}

func TestD5FlashRefusals(t *testing.T) {
	model, neurons := files(t, shape(llm.Llama), quant.F16)
	other := shape(llm.Llama)
	other.FFN = 64
	foreign, _ := files(t, other, quant.F16)
	for want, f := range map[string]func() (*Runner, error){
		"none below 0":        func() (*Runner, error) { return Open(model, neurons[0], Options{Window: -1}) },
		"another model's":     func() (*Runner, error) { return Open(foreign, neurons[0], Options{}) },
		"mei-neurons.layout":  func() (*Runner, error) { return Open(model, model, Options{}) },
		"of 1 layers: want 3": func() (*Runner, error) { return Open(model, neurons[0], Options{Hot: make([][]bool, 1)}) },
		"0 of them: want 100": func() (*Runner, error) { return Open(model, neurons[0], Options{Hot: make([][]bool, 3)}) },
		"of them hot: want room": func() (*Runner, error) {
			all := make([]bool, 100)
			sparse.All(0, nil, nil, nil, all)
			return Open(model, neurons[0], Options{Hot: [][]bool{all, all, all}, Budget: 384 * 299})
		},
		"no such file or dire": func() (*Runner, error) { return Open(model, "none", Options{}) },
	} {
		_, err := f()
		require.ErrorContains(t, err, want)
	}
	r := open(t, model, neurons[0], Options{Window: 2, Budget: 3 * 20 * 384})
	c, err := r.Model().NewCache(0, 3, 8)
	require.NoError(t, err)
	require.ErrorContains(t, r.Forward(&llm.Seq{IDs: []int32{1}, Cache: c, Adapter: &llm.Adapter{}}), "want none")
	require.ErrorContains(t, r.Forward(&llm.Seq{IDs: []int32{1}, Cache: c}), "the window has 20 rows")
	require.ErrorContains(t, r.Forward(&llm.Seq{IDs: []int32{1}, Cache: c}), "earlier pass failed")

	r = open(t, model, neurons[1], Options{})
	require.NoError(t, os.Truncate(neurons[1], 4096))
	require.Error(t, r.Forward(&llm.Seq{IDs: []int32{1}, Cache: c}))
	moe := shape(llm.Llama)
	moe.Experts, moe.ExpertsUsed, moe.ExpertFFN = 4, 2, 32
	mixed, err := llm.New(moe, 1)
	require.NoError(t, err)
	require.ErrorContains(t, Write(nil, mixed, Bundled), "want a whole dense model")
	require.ErrorContains(t, Write(nil, &llm.Model{Config: shape(llm.Llama), Hi: 3}, Layout(2)), "flash.Bundled or Apart")
}

// TestD5LadderIsBytesOverBandwidth: without a cost per read a rung's time of reading is its bytes over the speed of storage; each
// rung reads no more than the one above; all neurons active, none in the window and rows apart cost what dense does.
func TestD5LadderIsBytesOverBandwidth(t *testing.T) {
	s := Shape{Layers: 32, FFN: 11008, Neuron: 3 * 4096 * 2, Others: 4 * units.GiB, Active: 0.1, Fresh: 0.03, PerRun: 1.2, Parts: 3, HotHits: 0.8}
	steps, err := s.Ladder()
	require.NoError(t, err)
	free, law := Law{PerSec: 2e9, MemoryPerSec: 5e10}, Law{PerSec: 2e9, PerRead: 1e-5, MemoryPerSec: 5e10}
	for i, step := range steps {
		require.InDelta(t, float64(step.Bytes)/2e9, free.ReadSec(step.Bytes, step.Reads), 1e-12)
		require.InDelta(t, free.TokenSec(step)+step.Reads*1e-5, law.TokenSec(step), 1e-9)
		if i > 0 {
			require.LessOrEqual(t, step.Bytes, steps[i-1].Bytes, step.Name)
			require.Less(t, free.TokenSec(step), free.TokenSec(steps[i-1])+1e-12, step.Name)
		}
	}
	require.InDelta(t, 3, steps[3].Reads/steps[4].Reads, 1e-9)
	s.Active, s.Fresh = 1, 1
	whole, err := s.Ladder()
	require.NoError(t, err)
	require.Equal(t, whole[1].Bytes, whole[3].Bytes)
	require.Equal(t, whole[1].Used, whole[3].Used)
	s.Fresh, s.Active = 0.5, 0.4
	_, err = s.Ladder()
	require.ErrorContains(t, err, "no more fresh than active")
	require.InDelta(t, 0.5, TwoUnits(10, 4, 20, 10), 1e-12)
	require.InDelta(t, 0.4, TwoUnits(1, 4, 20, 10), 1e-12)
}

// TestD5StudyShowsItsLadder: each way of running costs what the way above saves: fewer bytes with a rule, with a window, fewer reads
// with bundles; the same logits by rule; and a budget that does not hold one token's neurons is refused by name.
func TestD5StudyShowsItsLadder(t *testing.T) {
	model, _ := files(t, shape(llm.Llama), quant.F16)
	counts := make([][]int, 3)
	for l := range counts {
		for i := range 100 {
			counts[l] = append(counts[l], 100-i)
		}
	}
	names := 0
	// As many neurons as Keep says, most of them the same for neighbours.
	rule := func() sparse.Rule {
		return func(layer int, x, _, _ []float32, on []bool) {
			shift := int(abs(x[0])*100) % 7
			for i := range on {
				on[i] = (i*37+shift)%100 < 20
			}
		}
	}
	s := Study{Model: model, Dir: t.TempDir(), Rule: rule, Keep: 0.2, Counts: counts, Window: 3, Budgets: []float64{0.1, 0.5}, Texts: [][]int32{prompt, prompt, {7, 8, 9, 10}},
		Tokens: 8, Threads: 1, Readers: 1, Progress: func(int, int, string) { names++ }}
	rows, err := s.Measure()
	require.NoError(t, err)
	require.Len(t, rows, 10)
	require.Equal(t, names, len(rows))
	const size = 3 * 64 * 2
	require.EqualValues(t, 300*size, rows[0].PerToken)
	require.Zero(t, rows[1].PerToken)
	require.EqualValues(t, 60*size, rows[2].PerToken)
	require.Less(t, rows[3].PerToken, rows[2].PerToken)
	require.InDelta(t, rows[3].PerToken, rows[4].PerToken, 1e-9)
	require.InDelta(t, rows[3].Reads, 3*rows[4].Reads, 1e-9)
	require.EqualValues(t, 300*size, rows[1].Room)
	for i, r := range rows {
		if i == 6 || i == 7 {
			require.NotEmpty(t, r.Refused)
			continue
		}
		require.Empty(t, r.Refused)
		require.True(t, r.Same, r.Way)
		require.Equal(t, 8, r.Tokens)
		require.Positive(t, r.PerSec)
		if i > 7 {
			require.LessOrEqual(t, r.Room, int64(150*size))
			require.Positive(t, r.PerToken)
		}
	}
	s.Texts = s.Texts[:1]
	_, err = s.Measure()
	require.ErrorContains(t, err, "want two")
}

func abs(x float32) float32 { return max(x, -x) }
