package offload

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/panel"
	"meibench/reference/storage"
)

// ExpertOptions are how the experts of a mixture are kept.
type ExpertOptions struct {
	Cached int    // k, experts of each layer that stay in memory; 1 at least
	Policy string // see [Policies]; "" is lru
	// Guess fetches ahead: the gate of the next layer is put to the state that enters this layer's experts, and the experts
	// that it chooses are read while this layer computes (Eliseev and Mazur 2023, section 3.2).
	Guess bool
	// Foresight fetches ahead too, in place of Guess: while a layer computes, the experts that the next Ahead layers are likely to
	// choose are read, as many of each as a token uses. Policy aware lets those go that it thinks least likely.
	Foresight Foresight
	Ahead     int // layers; 0 = nothing is fetched, for policy aware alone
}

// Experts is a cache of k experts per layer. Who is in is decided in the order of the computation, so that hits and misses do
// not depend on speed; only the reading runs beside it.
type Experts struct {
	clock
	// Counts since Open or ResetStats. An expert that a layer asks for is a hit if the cache holds it or is reading it already.
	Hits, Misses   int
	Fetched        int           // guessed experts that were read
	Guessed, Right int           // experts that were guessed, and those of them that the layer then chose
	Chosen         int           // distinct experts that layers of passes chose: Hits + Misses
	Stall          time.Duration // waiting for experts
	Bytes          units.Bytes   // (Misses + Fetched) experts
	ExpertBytes    units.Bytes   // of one expert in the file
	options        ExpertOptions
	s              *Stream
	layers         []*expertLayer
	arena          *panel.Arena
	orders         chan *loading
	done           sync.WaitGroup
	once           sync.Once
	failure        error
	seen           []bool // experts that the present layer chose
	counted        []bool // those of them that were asked for
	guess          []float64
	chose          func(layer, row int, chosen []int32, share []float32) // the caller's Route
}

// expertLayer is the cache of one layer.
type expertLayer struct {
	units   []*unit
	policy  Policy
	in      map[int]*loading // by expert: there, or on the way
	free    [][]byte
	gate    []float32 // (E, C) of the router, for guesses
	guessed []bool
}

// loading is an expert on its way, and then there.
type loading struct {
	u      *unit
	memory []byte
	ready  chan struct{}
	panels []*panel.Matrix
	err    error
}

// prepareExperts makes the cache of a mixture.
func (s *Stream) prepareExperts(list map[int][]*unit) error {
	o := s.options.Experts
	if o == nil {
		return nil
	}
	m := s.model
	if m.Experts == 0 {
		return fmt.Errorf("a cache of experts: the model has none: leave it out")
	}
	if o.Cached < 1 || o.Cached > m.Experts {
		return fmt.Errorf("a cache of %d experts per layer: want 1 to all %d", o.Cached, m.Experts)
	}
	x := &Experts{options: *o, s: s, seen: make([]bool, m.Experts), counted: make([]bool, m.Experts), guess: make([]float64, m.Experts), arena: panel.NewArena()}
	x.options.Policy = cmp.Or(o.Policy, "lru")
	for l := range m.Layers {
		p, err := x.policy(l)
		if err != nil {
			return err
		}
		e := &expertLayer{units: list[l], policy: p, in: map[int]*loading{}, guessed: make([]bool, m.Experts)}
		if o.Guess {
			if e.gate, err = s.gateOf(l); err != nil {
				return err
			}
		}
		x.layers = append(x.layers, e)
		x.ExpertBytes = max(x.ExpertBytes, units.Bytes(e.units[0].file))
	}
	s.experts = x
	return nil
}

// policy is that of a layer's cache.
func (x *Experts) policy(layer int) (Policy, error) {
	f := x.options.Foresight
	switch {
	case x.options.Guess && f != nil:
		return nil, errors.New("a cache of experts: a guess by gates and a foresight at once: give one of them")
	case x.options.Ahead < 0 || x.options.Ahead > 0 && f == nil:
		return nil, fmt.Errorf("a cache of experts: to fetch %d layers ahead: want 0 or more, and a foresight", x.options.Ahead)
	case x.options.Policy != awarePolicy:
		return NewPolicy(x.options.Policy)
	case f == nil:
		return nil, errors.New("a cache of experts: policy aware goes by a foresight: give one")
	}
	return &aware{newRecency(false), func(e int) float64 { return f.Score(layer, e) }}, nil
}

// gateOf reads the weights of a router.
func (s *Stream) gateOf(l int) ([]float32, error) {
	m := s.model
	t, err := s.file.Tensor(fmt.Sprintf("blk.%d.ffn_gate_inp.weight", l))
	if err != nil {
		return nil, err
	}
	raw := make([]byte, t.Bytes)
	if err := s.file.ReadTensor(raw, t); err != nil {
		return nil, err
	}
	row, gate := len(raw)/m.Experts, make([]float32, m.Experts*m.Dim)
	router := llm.Matrix{Type: t.Type, N: m.Experts, K: m.Dim, Data: raw}
	for e := range m.Experts {
		if row > 0 {
			router.ReadRow(gate[e*m.Dim:(e+1)*m.Dim], e, 0)
		}
	}
	return gate, nil
}

func (x *Experts) each() (n int64) {
	for _, e := range x.layers {
		for _, u := range e.units {
			n = max(n, u.memory)
		}
	}
	return n
}

// room is the memory of the cache and of the gates for guesses.
func (x *Experts) room() units.Bytes {
	n := int64(len(x.layers)*x.options.Cached) * x.each()
	for _, e := range x.layers {
		n += int64(4 * len(e.gate))
	}
	return units.Bytes(n)
}

func (x *Experts) all() (list []*unit) {
	for _, e := range x.layers {
		list = append(list, e.units...)
	}
	return list
}

func (x *Experts) staging() int { return storage.NewBuffer(stageBytes(x.all())).Size() }

// attach takes the memory, starts the reader and takes the place of the experts in the work.
func (x *Experts) attach(s *Stream) {
	size := int(x.each())
	for _, e := range x.layers {
		for range x.options.Cached {
			e.free = append(e.free, x.arena.Take(size))
		}
	}
	x.orders = make(chan *loading, 2*x.options.Cached*len(x.layers)+4)
	buffer := storage.NewBuffer(stageBytes(x.all()))
	x.done.Go(func() {
		for o := range x.orders {
			o.panels, o.err = x.fill(s.reader, buffer, o.u, o.memory)
			close(o.ready)
		}
	})
	s.work.Route, s.work.Remote = x.route, x.remote
}

func (x *Experts) close() {
	x.once.Do(func() {
		if x.orders != nil {
			close(x.orders)
			x.done.Wait()
		}
		x.arena.Free()
	})
}

// OnRoute hands every choice of a router to f as well, which may change it as [llm.Work.Route] may: for traces, and for tests that
// decide the routing themselves.
func (x *Experts) OnRoute(f func(layer, row int, chosen []int32, share []float32)) { x.chose = f }

// HitRatio is hits among what layers asked for.
func (x *Experts) HitRatio() float64 {
	if x.Chosen == 0 {
		return 0
	}
	return float64(x.Hits) / float64(x.Chosen)
}

func (x *Experts) reset() {
	x.Hits, x.Misses, x.Fetched, x.Guessed, x.Right, x.Chosen, x.Stall, x.Bytes = 0, 0, 0, 0, 0, 0, 0, 0
	x.read.Store(0)
	x.packed.Store(0)
}

func (x *Experts) err() error { return x.failure }

// route notes which experts a layer will ask for.
func (x *Experts) route(layer, row int, chosen []int32, share []float32) {
	if x.chose != nil {
		x.chose(layer, row, chosen, share)
	}
	if row == 0 {
		clear(x.seen)
		clear(x.counted)
	}
	for _, e := range chosen {
		if e >= 0 {
			x.seen[e] = true
			if x.options.Foresight != nil {
				x.options.Foresight.Note(layer, int(e))
			}
		}
	}
}

// remote brings an expert before the engine runs it here: it never runs it itself. While it runs, the layer's next one is
// on its way.
func (x *Experts) remote(layer, expert int, out, in []float32, T int) bool {
	e := x.layers[layer]
	first := !slices.Contains(x.counted, true)
	if first {
		x.judge(e)
	}
	o := x.ask(e, expert, expert)
	if next, ok := x.after(expert); ok && x.options.Cached > 1 {
		x.ask(e, next, expert)
	}
	if x.options.Guess && layer+1 < len(x.layers) {
		x.fetch(x.layers[layer+1], in, T)
	}
	if first {
		for next := layer + 1; next < min(layer+1+x.options.Ahead, len(x.layers)); next++ {
			x.foresee(next)
		}
	}
	began := time.Now()
	<-o.ready
	x.Stall += time.Since(began)
	x.s.stats.Stall += time.Since(began)
	if o.err == nil {
		o.err = o.u.enter(o.panels)
	}
	if o.err != nil {
		if x.failure == nil {
			x.failure = fmt.Errorf("expert %d: %w", expert, o.err)
		}
		clear(out)
		return true // nothing to run: the pass ends with the failure
	}
	return false
}

// judge counts how many guesses were right.
func (x *Experts) judge(e *expertLayer) {
	for i, g := range e.guessed {
		if g {
			x.Guessed++
			if x.seen[i] {
				x.Right++
			}
		}
	}
	clear(e.guessed)
}

// after is the next expert that the layer asks for.
func (x *Experts) after(expert int) (int, bool) {
	for e := expert + 1; e < len(x.seen); e++ {
		if x.seen[e] {
			return e, true
		}
	}
	return 0, false
}

// ask is an access of the present layer, counted once per expert and pass.
func (x *Experts) ask(e *expertLayer, expert, busy int) *loading {
	if x.counted[expert] {
		return e.in[expert]
	}
	x.counted[expert] = true
	x.Chosen++
	e.policy.Use(expert)
	if o := e.in[expert]; o != nil {
		x.Hits++
		return o
	}
	x.Misses++
	return x.bring(e, expert, busy)
}

// bring makes room for an expert and orders it. busy does not leave.
func (x *Experts) bring(e *expertLayer, expert, busy int) *loading {
	var memory []byte
	if n := len(e.free); n > 0 {
		memory, e.free = e.free[n-1], e.free[:n-1]
	} else {
		v := e.policy.Victim(func(c int) bool { return c != busy })
		old := e.in[v]
		<-old.ready // still on its way: a guess that was wrong
		old.u.leave()
		memory = old.memory
		delete(e.in, v)
		e.policy.Left(v)
	}
	o := &loading{u: e.units[expert], memory: memory, ready: make(chan struct{})}
	e.in[expert] = o
	e.policy.Added(expert)
	x.Bytes += units.Bytes(o.u.file)
	x.orders <- o
	return o
}

// fetch guesses what the next layer will choose for each of T states, and orders what is not there; no more than the cache holds.
func (x *Experts) fetch(next *expertLayer, in []float32, T int) {
	m := x.s.model
	for t := range T {
		row := in[t*m.Dim : (t+1)*m.Dim]
		for i := range x.guess {
			x.guess[i] = dot(next.gate[i*m.Dim:(i+1)*m.Dim], row)
		}
		for range m.ExpertsUsed {
			best := 0
			for i, v := range x.guess {
				if v > x.guess[best] {
					best = i
				}
			}
			x.guess[best] = math.Inf(-1)
			if next.guessed[best] {
				continue
			}
			if held(next.guessed) >= x.options.Cached {
				return
			}
			next.guessed[best] = true
			if next.in[best] == nil {
				x.Fetched++
				x.fetchOne(next, best)
			}
		}
	}
}

// foresee orders what a layer is likely to choose and has not got; no more than the cache holds.
func (x *Experts) foresee(layer int) {
	next := x.layers[layer]
	for _, e := range x.options.Foresight.Likely(layer, min(x.s.model.ExpertsUsed, x.options.Cached)) {
		if next.guessed[e] || held(next.guessed) >= x.options.Cached {
			continue
		}
		next.guessed[e] = true
		if next.in[e] == nil {
			x.Fetched++
			x.fetchOne(next, e)
		}
	}
}

func held(guessed []bool) (n int) {
	for _, g := range guessed {
		if g {
			n++
		}
	}
	return n
}

// fetchOne lets an expert in that nobody guessed leave.
func (x *Experts) fetchOne(next *expertLayer, expert int) {
	if len(next.free) == 0 {
		v := next.policy.Victim(func(c int) bool { return !next.guessed[c] })
		old := next.in[v]
		<-old.ready
		old.u.leave()
		next.free = append(next.free, old.memory)
		delete(next.in, v)
		next.policy.Left(v)
	}
	x.bring(next, expert, -1)
}

// dot is the sum of products, rounded one by one: guesses are the same on every machine.
func dot(a, b []float32) (sum float64) {
	for i, v := range a {
		sum += float64(float64(v) * float64(b[i]))
	}
	return sum
}
