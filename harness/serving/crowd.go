package serving

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// crowd is the answers of a server of which only the sum is kept: whole answers
// that have their prompts behind them, on a device that knows sizes only. A step is
// the same for all of them, so what a member got follows from the step at which
// it joined, and steps that nobody disturbs are one event (a stride). The times, the
// joules and the bytes are those of steps run one by one; tests compare the two.
//
// Members leave at the end of their answers, or all at once (disperse) when
// something comes up that a sum cannot tell: a session, an adapter, memory that
// may run short.
type crowd struct {
	dev   hardware.Strider // nil: this server never has a crowd
	alarm *world.Alarm
	held  Held
	who   []*Job // heap: the next to end first

	step    int             // steps taken since the server began
	base    int             // ends holds those of steps base+1, base+2, ...
	ends    []time.Duration // the steps of a stride under way are in it
	context int             // tokens in the caches of all
	energy  int64           // of one member that was there from the start, in nJ
	flop    int64
	blocks  []int // members that take a block in a step, by the step's number modulo the block

	marching bool
	apart    bool // memory ran short, and nobody has left since
	guess    int  // how long the next stride may be
	stride   hardware.Stride
	op       hardware.Op
	now      func() time.Duration
}

// member is what a job keeps of a crowd.
type member struct {
	in           *crowd
	from, until  int // steps before its first token of the crowd, and with its last
	told         int // steps whose tokens were handed to its link
	context      int // tokens in its cache when it joined
	energy, flop int64
}

// firstGuess is the length of the first stride; guesses double while nothing comes
// between and shrink to what came of them otherwise.
const firstGuess = 16

// newCrowd makes the crowd of a server whose world, device and policy allow for one.
func newCrowd(env world.Env, dev hardware.Device, o Options) crowd {
	sim, ok := env.(interface{ NewAlarm() *world.Alarm })
	strider, can := dev.(hardware.Strider)
	if !ok || !can || o.Policy == "slo" || o.Reject {
		return crowd{}
	}
	return crowd{dev: strider, alarm: sim.NewAlarm(), guess: firstGuess, blocks: make([]int, o.Block), now: env.Now}
}

// plain reports whether a job may become a member, now or when its prompt is done.
func (c *crowd) plain(j *Job) bool {
	return !j.session && j.Down != nil && j.Adapter == "" && j.Sample == nil && j.Exit == nil && j.Wire == "" && j.Tokens == nil
}

// gather takes running answers in, or sends everybody out if one of those who run
// cannot be told by a sum.
func (s *Server) gather() {
	c, v := &s.crowd, &s.view
	if c.dev == nil || c.apart || len(v.Running) == 0 {
		return
	}
	for _, j := range v.Running {
		if !c.plain(j) || len(c.who) > 0 && j.Held != c.held || j.Held != v.Running[0].Held {
			s.disperse()
			return
		}
	}
	keep := v.Running[:0]
	for _, j := range v.Running {
		if j.kind == hardware.Decode && j.Left > 0 {
			c.join(j)
			continue
		}
		keep = append(keep, j)
	}
	clear(v.Running[len(keep):])
	v.Running, v.Answers = keep, len(c.who)
}

func (c *crowd) join(j *Job) {
	c.held = j.Held
	j.member = member{in: c, from: c.step, until: c.step + j.Left, told: c.step, context: j.Context, energy: c.energy, flop: c.flop}
	c.context += j.Context
	c.blocks[c.phase(j)]++
	c.who = append(c.who, j)
	for i := len(c.who) - 1; i > 0; {
		up := (i - 1) / 2
		if !c.who[i].sooner(c.who[up]) {
			break
		}
		c.who[i], c.who[up] = c.who[up], c.who[i]
		i = up
	}
}

// phase is when, modulo the block, a member's cache needs one more.
func (c *crowd) phase(j *Job) int {
	b := len(c.blocks)
	return ((j.member.from-j.member.context)%b + b) % b
}

// sooner orders members by the end of their answers, then by entry.
func (j *Job) sooner(o *Job) bool {
	return j.member.until < o.member.until || j.member.until == o.member.until && j.order < o.order
}

func (c *crowd) popped() *Job {
	h := c.who
	top, n := h[0], len(h)-1
	h[0], h[n] = h[n], nil
	h = h[:n]
	c.who = h
	for i := 0; ; {
		m := 2*i + 1
		if m >= n {
			return top
		}
		if m+1 < n && h[m+1].sooner(h[m]) {
			m++
		}
		if !h[m].sooner(h[i]) {
			return top
		}
		h[i], h[m] = h[m], h[i]
		i = m
	}
}

// operation is one step of the crowd alone.
func (c *crowd) operation() hardware.Op {
	return hardware.Op{Kind: hardware.Decode, Model: c.held.Model, Layers: c.held.Span, Crowd: hardware.Crowd{Seqs: len(c.who), Context: c.context}}
}

// growth is the memory that the crowd takes in the step after so many more.
func (s *Server) growth(after int) units.Bytes {
	c := &s.crowd
	if !s.opt.Paged || len(c.who) == 0 {
		return 0
	}
	return units.Bytes(c.blocks[(c.step+after)%len(c.blocks)]*len(c.blocks)) * c.held.perToken()
}

// tight reports whether the next step might leave somebody without memory: who has
// to go is then found one job at a time.
func (s *Server) tight() bool {
	v := &s.view
	if !v.Bounded || !s.opt.Paged || len(s.crowd.who) == 0 {
		return false
	}
	need := s.growth(0)
	for _, j := range v.Running {
		need += v.room(j, j.Context+max(j.Todo, 1)) - j.held
	}
	return need > v.Free
}

// march runs steps of the crowd until the first of its answers ends or something
// comes between; false if it cannot.
func (s *Server) march() bool {
	c, v := &s.crowd, &s.view
	if len(c.who) == 0 || len(v.Running) > 0 || s.queue.Len() > 0 {
		return false
	}
	n := s.undisturbed(min(c.who[0].member.until-c.step, c.guess))
	c.op = c.operation()
	if n == 0 || !c.dev.Plan(&c.op, n, s.poke, &c.stride) {
		return false
	}
	c.ends = append(c.ends, c.stride.Ends...)
	c.marching = true
	end := c.alarm.Sleep(c.stride.Ends[n-1])
	c.marching = false
	k := sort.Search(n, func(i int) bool { return c.stride.Ends[i] >= end }) + 1
	c.ends = c.ends[:len(c.ends)-n+k]
	c.dev.Commit(&c.op, k, &c.stride)
	start := c.stride.Start
	for i := range k {
		s.took(c.stride.Energy[i], c.stride.FLOP[i], len(c.who))
		v.Pace.learn(hardware.Decode, len(c.who), c.stride.Ends[i]-start)
		start = c.stride.Ends[i]
	}
	s.stats.Operations += k
	s.stats.Sequences += k * len(c.who)
	s.stats.Tokens += k * len(c.who)
	s.stats.Largest = max(s.stats.Largest, len(c.who))
	if c.guess = 2 * n; k < n {
		c.guess = max(firstGuess, 2*k)
	}
	v.Now = end
	s.retire()
	return true
}

// undisturbed is how many of the next n steps find memory.
func (s *Server) undisturbed(n int) int {
	if !s.opt.Paged || !s.view.Bounded {
		return n
	}
	need := units.Bytes(0)
	for i := range n {
		if need += s.growth(i); need > s.view.Free {
			return i
		}
	}
	return n
}

// poke ends a stride with the step that is under way.
func (s *Server) poke() {
	c := &s.crowd
	if !c.marching {
		return
	}
	now := c.now()
	ends := c.stride.Ends
	c.alarm.Forward(ends[min(sort.Search(len(ends), func(i int) bool { return ends[i] >= now }), len(ends)-1)])
}

// took books one step of the crowd, which the operation shared with so many
// tokens in all.
func (s *Server) took(e units.Joules, f units.FLOP, tokens int) {
	c := &s.crowd
	if more := s.growth(0); more > 0 {
		s.stats.Taken += more
		if s.view.Bounded {
			s.view.Free -= more
		}
	}
	c.energy += nano(float64(e), 1/float64(tokens))
	c.flop += whole(float64(f), 1/float64(tokens))
	c.context += len(c.who)
	c.step++
}

// stepped is told of an operation that the crowd shared with others.
func (s *Server) stepped(res *hardware.Result, tokens int) {
	c := &s.crowd
	c.ends = append(c.ends, res.Usage.End)
	s.took(res.Usage.Energy, res.Usage.FLOP, tokens)
}

// retire ends the answers that are done.
func (s *Server) retire() {
	c := &s.crowd
	for len(c.who) > 0 && c.who[0].member.until <= c.step {
		j := c.popped()
		s.leave(j)
		s.end(j, nil)
		j.over = false
	}
	s.view.Answers = len(c.who)
	if len(c.ends) > 4096 && len(c.ends) > 4*len(c.who) {
		c.trim()
	}
}

// trim forgets the ends of steps that everybody was told of.
func (c *crowd) trim() {
	least := c.step
	for _, j := range c.who {
		least = min(least, j.member.told)
	}
	n := copy(c.ends, c.ends[least-c.base:])
	c.ends, c.base = c.ends[:n], least
}

// leave makes a member a job of its own again.
func (s *Server) leave(j *Job) {
	c, m := &s.crowd, &j.member
	steps := c.step - m.from
	c.blocks[c.phase(j)]--
	j.Context = m.context + steps
	c.context -= j.Context
	j.Left -= steps
	j.Steps += steps
	j.nano += c.energy - m.energy
	j.flop += c.flop - m.flop
	if steps > 0 {
		j.last = c.ends[c.step-c.base-1]
		j.Joules = min(j.Joules, hardware.Modelled)
	}
	if s.opt.Paged {
		j.held = s.view.room(j, j.Context)
	}
	s.one[0] = hardware.Seq{ID: j.ID, Context: j.Context}
	s.aside = hardware.Op{Model: c.held.Model, Layers: c.held.Span, Seqs: s.one[:]}
	c.dev.Settle(&s.aside)
	j.owed = append(j.owed, m.owed()...)
	m.in = nil
}

// disperse makes everybody a job of its own again.
func (s *Server) disperse() {
	c, v := &s.crowd, &s.view
	if len(c.who) == 0 {
		return
	}
	for i, j := range c.who {
		s.leave(j)
		j.kind, j.seq.Context, j.seq.New, j.seq.Tokens = hardware.Decode, j.Context, 1, nil
		c.who[i] = nil
		v.Running = append(v.Running, j)
	}
	c.who, v.Answers = c.who[:0], 0
	slices.SortFunc(v.Running, func(a, b *Job) int { return cmp.Compare(a.order, b.order) })
}

// owed are the times of tokens made in the crowd and not handed to the link, also
// those of the stride that is under way.
func (m *member) owed() []time.Duration {
	c := m.in
	if c == nil {
		return nil
	}
	return c.ends[m.told-c.base : max(m.told, min(m.until, c.base+len(c.ends)))-c.base]
}

func (m *member) due() (time.Duration, bool) {
	c := m.in
	if c == nil || m.told >= min(m.until, c.base+len(c.ends)) {
		return 0, false
	}
	return c.ends[m.told-c.base], true
}
