// Package flash runs a model whose feed-forward neurons are in storage: attention, embeddings and norms stay in memory, and of
// each layer's network only the neurons are read that a rule keeps and that are not there from the tokens just before
// (Alizadeh et al. 2023, LLM in a flash).
//
//	err := flash.Write(file, model, flash.Bundled)
//	r, err := flash.Open("model.gguf", "model.neurons", flash.Options{Rule: predictor.Rule(0.3), Window: 4})
//	defer r.Close()
//	answer, err := r.Generate(cache, prompt, 32, llm.Greedy)
//	fmt.Println(r.Stats().PerToken(), r.Stats().HitRatio())
//
// # The one idea: what is computed depends on the rule alone
//
// A token's network is a sum over the kept neurons in ascending order, wherever their rows lie. The window, the budget, hot
// neurons and the layout of the file decide what is read and never what comes out: logits are equal bit for bit, and with
// every neuron kept they are those of the dense engine, where that computes in float32 (models in F32, F16 or BF16).
//
// The tokens of a prompt go one after the other, so that cutting it changes nothing; its neurons fill the window.
//
// What it does not do: read ahead (a layer's neurons are known when its input is), sequences side by side, adapters,
// mixtures; those have package offload.
package flash

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"meibench/internal/units"
	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/panel"
	"meibench/reference/sparse"
	"meibench/reference/storage"
	"meibench/reference/tensor"
)

// Options are how neurons are chosen and kept.
type Options struct {
	Rule    sparse.Rule  // looks at inputs only; nil keeps all neurons
	Window  int          // tokens that an idle neuron stays in memory: 0 none, Forever all
	Budget  units.Bytes  // of neurons in memory: the hot ones, the rest dealt evenly to layers; 0 for room for all
	Hot     [][]bool     // (L, F): neurons that are read once and stay; nil for none. See sparse.Hot
	Readers int          // reads at a time; 0 for one
	Threads int          // that compute; 0 for one
	Mode    storage.Mode // how neurons are read
}

// chunk bounds a read.
const chunk = 1 << 20

// Stats are what happened since Open or ResetStats, hot neurons read by Open aside.
type Stats struct {
	Tokens         int
	Active, Missed int         // neurons that tokens wanted, and those that had to be read
	Reads          int         // of storage
	Bytes, Moved   units.Bytes // asked for, and in whole pages as they moved
	Stall, Compute time.Duration
}

// HitRatio is the share of wanted neurons that were in memory.
func (s Stats) HitRatio() float64 {
	if s.Active == 0 {
		return 0
	}
	return 1 - float64(s.Missed)/float64(s.Active)
}

// PerToken is bytes read per token.
func (s Stats) PerToken() float64 { return float64(s.Bytes) / float64(max(1, s.Tokens)) }

// Runner is an open model. It belongs to one goroutine.
type Runner struct {
	options Options
	layout  Layout
	model   *llm.Model
	pool    *tensor.Pool
	work    *llm.Work
	arena   *panel.Arena
	reader  *storage.Reader
	places  []place
	windows []*window
	shared  []byte // memory of the windows' rows
	tokens  []int  // seen by each layer
	reading *reading

	on              []bool
	active          []int32
	gate, up, turns []float32 // of the active neurons: (n), (n), (n, C)
	resident        units.Bytes
	stats           Stats
	before          [3]int64 // payload, moved and reads at ResetStats
	failed          error
}

// Open loads all of a model but its feed-forward matrices, and the index of its file of neurons; hot neurons are read.
func Open(model, neurons string, o Options) (*Runner, error) {
	r := &Runner{options: o}
	if r.options.Rule == nil {
		r.options.Rule = sparse.All
	}
	if err := r.open(model, neurons); err != nil {
		r.Close()
		return nil, fmt.Errorf("open %s with neurons in %s: %w", model, neurons, err)
	}
	return r, nil
}

func (r *Runner) open(model, neurons string) error {
	o := &r.options
	if o.Window < 0 || o.Budget < 0 || o.Readers < 0 || o.Threads < 0 {
		return fmt.Errorf("window of %d tokens, budget %v, %d readers, %d threads: want none below 0", o.Window, o.Budget, o.Readers, o.Threads)
	}
	if err := r.load(model); err != nil {
		return err
	}
	var err error
	if r.reader, err = storage.Open(neurons, o.Mode); err != nil {
		return err
	}
	f, err := gguf.Read(r.reader, r.reader.Size)
	if err != nil {
		return err
	}
	if r.places, r.layout, err = find(f, r.model.Config); err != nil {
		return err
	}
	r.reading = newReading(r.reader, max(1, o.Readers))
	if err := r.makeRoom(); err != nil {
		return err
	}
	r.on, r.tokens = make([]bool, r.model.FFN), make([]int, r.model.Layers)
	r.pool = tensor.NewPool(max(1, o.Threads))
	r.work = r.model.NewWorkOn(r.pool)
	r.work.Feed = r.feed
	if err := r.readHot(); err != nil {
		return err
	}
	r.ResetStats()
	return nil
}

// load reads and packs everything but feed-forward matrices.
func (r *Runner) load(path string) error {
	f, err := gguf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if r.model, err = llm.FromFile(f, llm.ReadOptions{Bare: true}); err != nil {
		return err
	}
	if !r.model.SwiGLU() {
		return fmt.Errorf("a model of %s with %d experts: want a dense one with SwiGLU", r.model.Arch, r.model.Experts)
	}
	r.arena = panel.NewArena()
	offset := map[string]int64{}
	for _, w := range r.model.Weights() {
		if w.Matrix == nil {
			r.resident += units.Bytes(4 * len(*w.Vector))
			continue
		}
		if strings.Contains(w.Name, ".ffn_") {
			continue
		}
		t, err := f.Tensor(w.Name)
		if err != nil {
			return err
		}
		row, err := t.Type.RowBytes(w.K)
		if err != nil {
			return err
		}
		raw := make([]byte, w.N*row)
		if _, err := f.Reader(t).ReadAt(raw, offset[w.Name]); err != nil {
			return fmt.Errorf("read %s: %w", w.Label(), err)
		}
		offset[w.Name] += int64(len(raw))
		if w.Matrix == &r.model.Embed {
			*w.Matrix = llm.Matrix{Type: t.Type, N: w.N, K: w.K, Data: raw}
			r.resident += units.Bytes(len(raw))
		}
		if w.Matrix != &r.model.Embed || r.model.Tied {
			p, err := panel.Pack(t.Type, w.N, w.K, raw, r.arena)
			if err == nil {
				err = w.Matrix.Use(p)
			}
			if err != nil {
				return fmt.Errorf("pack %s: %w", w.Label(), err)
			}
			r.resident += units.Bytes(p.Bytes())
		}
	}
	return nil
}

// makeRoom makes the windows. Without a window nor hot neurons one layer's rows serve all layers in turn.
func (r *Runner) makeRoom() error {
	o, m := &r.options, r.model
	if o.Hot != nil && len(o.Hot) != m.Layers {
		return fmt.Errorf("hot neurons of %d layers: want %d", len(o.Hot), m.Layers)
	}
	alone := o.Window == 0 && o.Hot == nil
	total := 0
	for l := range r.places {
		size := r.places[l].bytes()
		w := newWindow(m.FFN, o.Window, m.FFN, size)
		hot := 0
		if o.Hot != nil {
			if w.hot = o.Hot[l]; len(w.hot) != m.FFN {
				return fmt.Errorf("hot neurons: layer %d: %d of them: want %d", l, len(w.hot), m.FFN)
			}
			hot = held(w.hot)
		}
		if o.Budget > 0 {
			spare := (int(o.Budget)/size - heldAll(o.Hot)) / m.Layers
			if alone {
				spare = int(o.Budget) / size
			}
			w.capacity = min(m.FFN, hot+spare)
		}
		if w.capacity < max(1, hot) || o.Budget > 0 && int(o.Budget)/size < heldAll(o.Hot) {
			return fmt.Errorf("a budget of %v for neurons of %d bytes, %d of them hot: want room for these and more", o.Budget, size, heldAll(o.Hot))
		}
		r.windows = append(r.windows, w)
		if rows := w.capacity * size; alone {
			total = max(total, rows)
		} else {
			total += rows
		}
	}
	r.shared = r.arena.Take(max(1, total))
	at := 0
	for _, w := range r.windows {
		n := w.capacity * w.row
		w.memory = r.shared[at : at+n : at+n]
		if !alone {
			at += n
		}
	}
	return nil
}

func held(hot []bool) (n int) {
	for _, yes := range hot {
		if yes {
			n++
		}
	}
	return n
}

func heldAll(hot [][]bool) (n int) {
	for _, layer := range hot {
		n += held(layer)
	}
	return n
}

func (r *Runner) readHot() error {
	for l, w := range r.windows {
		var hot []int32
		for n, yes := range w.hot {
			if yes {
				hot = append(hot, int32(n))
			}
		}
		missing, err := w.hold(-1, hot)
		if err == nil {
			err = r.bring(l, missing)
		}
		if err != nil {
			return fmt.Errorf("hot neurons of layer %d: %w", l, err)
		}
	}
	return nil
}

// Close ends threads and closes the file.
func (r *Runner) Close() error {
	if r.pool != nil {
		r.pool.Close()
	}
	var err error
	if r.reader != nil {
		err = r.reader.Close()
	}
	if r.arena != nil {
		r.arena.Free()
	}
	return err
}

// Model is the configuration and all weights but the neurons.
func (r *Runner) Model() *llm.Model { return r.model }

// Layout is how the neurons lie in their file.
func (r *Runner) Layout() Layout { return r.layout }

// Held is the memory of weights: what always stays, and room for neurons.
func (r *Runner) Held() (resident, neurons units.Bytes) {
	return r.resident, units.Bytes(len(r.shared))
}

// Peak is the most memory of neurons that was in use in every layer, summed over layers; of the one that serves all if nothing
// outlives its token.
func (r *Runner) Peak() (n units.Bytes) {
	for _, w := range r.windows {
		if used := units.Bytes(w.most * w.row); r.options.Window == 0 && r.options.Hot == nil {
			n = max(n, used)
		} else {
			n += used
		}
	}
	return n
}

// NeuronBytes is the size of all neurons in the file.
func (r *Runner) NeuronBytes() (n units.Bytes) {
	for l := range r.places {
		n += units.Bytes(r.model.FFN * r.places[l].bytes())
	}
	return n
}

// Stats says what happened so far.
func (r *Runner) Stats() Stats {
	s := r.stats
	s.Bytes, s.Moved = units.Bytes(r.reader.Payload()-r.before[0]), units.Bytes(r.reader.Moved()-r.before[1])
	s.Reads = int(r.reader.Reads() - r.before[2])
	return s
}

// ResetStats begins to count anew.
func (r *Runner) ResetStats() {
	r.stats, r.before = Stats{}, [3]int64{r.reader.Payload(), r.reader.Moved(), r.reader.Reads()}
}

// Forward runs the whole model for one sequence, as [llm.Work.Forward] does; its error is also that of storage, after which
// the runner is of no more use.
func (r *Runner) Forward(s *llm.Seq) error {
	if r.failed != nil {
		return fmt.Errorf("an earlier pass failed: %w", r.failed)
	}
	if s.Adapter != nil {
		return errors.New("the sequence has an adapter: want none where neurons are left out")
	}
	began, stalled := time.Now(), r.stats.Stall
	one := []llm.Seq{*s}
	if err := r.work.Forward(0, r.model.Layers, one); err != nil {
		return err
	}
	*s = one[0]
	r.stats.Tokens += max(len(s.IDs), 0)
	r.stats.Compute += time.Since(began) - (r.stats.Stall - stalled)
	return r.failed
}

// Generate appends so many tokens that pick chooses to a prompt.
func (r *Runner) Generate(c *llm.Cache, prompt []int32, most int, pick func(logits []float32) int32) (answer []int32, err error) {
	s := llm.Seq{IDs: prompt, Cache: c}
	for len(answer) < most {
		if err := r.Forward(&s); err != nil {
			return answer, fmt.Errorf("generate token %d: %w", len(answer), err)
		}
		answer = append(answer, pick(s.Out))
		s.IDs = answer[len(answer)-1:]
	}
	return answer, nil
}
