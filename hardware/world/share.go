package world

import (
	"math"
	"time"

	"meibench/internal/portable"
)

// Share is a resource that all who use it share at once, by weight: processor
// sharing, and with unequal weights discriminatory processor sharing. A cell of
// a radio network is one, and so is a disk or a processor that takes turns so
// quickly that nobody waits.
//
//	cell := world.NewShare(env)
//	cell.Use(0.2, 1) // 0.2 s if alone, 0.4 s beside another who stays as long
//
// Work is counted in seconds of the whole resource. While n flows are in
// service, flow i progresses at weight_i / Σ weights of the resource's rate.
//
// The one idea: virtual time. It advances at rate / Σ weights, so a flow that
// joins at virtual time v is done at v + work/weight, whoever joins or leaves
// meanwhile; flows stand in a heap by that. Only the first of them sleeps,
// and the others wait to be told: a flow costs O(log n) and about two events. A
// flow is done at the first whole nanosecond at which it has had its work.
//
// What it does not do: a fixed share wakes its sleepers by their own clocks, so
// its rate must not rise under them; NewAdjustableShare can, at the price of one
// or two events more a flow.
type Share struct {
	env        Env
	rate       float64
	gain       func(n int) float64
	adjustable bool

	v      float64       // virtual time, seconds per unit of weight; 0 whenever nobody is in service
	last   time.Duration // of v
	weight float64       // of all in service
	heap   []*flow
	seq    uint64
	held   time.Duration // Take has the resource until then
	alarm  uint64        // number of the process that watches an adjustable share
	spare  []*flow

	busy   time.Duration
	on     bool // busy since the latest fold
	since  time.Duration
	lately float64
}

type flow struct {
	finish float64 // virtual
	weight float64
	seq    uint64
	done   bool
	cond   Cond
}

// NewShare returns an idle resource of rate 1: work of a second takes a second.
func NewShare(env Env) *Share { return &Share{env: env, rate: 1} }

// NewGainShare returns a resource whose rate is gain(n) while n flows are in
// service. gain(n)/n must not rise with n, and all weights must be 1.
func NewGainShare(env Env, gain func(n int) float64) *Share {
	return &Share{env: env, rate: 1, gain: gain}
}

// NewAdjustableShare returns a resource whose rate may be set while it is in use.
func NewAdjustableShare(env Env, rate float64) *Share {
	s := &Share{env: env, adjustable: true}
	s.SetRate(rate)
	return s
}

// recentTime is how far Recent looks back; forgotten is what it takes for nothing.
const (
	recentTime = time.Second
	forgotten  = 1e-6
)

// Use blocks until the resource has done work, at least 0, in seconds of the
// whole resource, for a flow of the given weight, which must be positive.
func (s *Share) Use(work, weight float64) {
	if !(work >= 0) || math.IsInf(work, 0) || !(weight > 0) || math.IsInf(weight, 0) {
		panic("world: a share needs finite work of at least 0 and a positive weight")
	}
	if s.gain != nil && weight != 1 {
		panic("world: a share with a gain needs weights of 1")
	}
	if work == 0 {
		return
	}
	now := s.env.Now()
	s.advance(now)
	f := s.join(now, work, weight)
	if s.adjustable {
		if s.heap[0] == f {
			s.watch()
		}
		for !f.done {
			f.cond.Wait()
		}
		s.spare = append(s.spare, f)
		return
	}
	for {
		if s.heap[0] != f {
			f.cond.Wait()
		} else if d := s.left(now); d > 0 {
			s.env.Sleep(d)
		} else {
			break
		}
		now = s.env.Now()
		s.advance(now)
	}
	s.leave(now)
	if len(s.heap) > 0 {
		s.heap[0].cond.Signal() // or it sleeps by its own clock and hears nothing
	}
	s.spare = append(s.spare, f)
}

// Take occupies the whole resource for work of its own, before everybody else
// in service and after what was taken before, and returns when that begins and
// ends. It does not block: it is for messages too small to be worth two events.
func (s *Share) Take(work float64) (from, to time.Duration) {
	if !(work >= 0) || !(s.rate > 0) {
		panic("world: take needs work of at least 0 and a resource that moves")
	}
	now := s.env.Now()
	s.advance(now)
	from = max(now, s.held)
	s.held = from + ceil(work/s.speed(1))
	if s.held > now {
		s.turn(now, true)
	}
	if s.adjustable && len(s.heap) > 0 {
		s.watch()
	}
	return from, s.held
}

// SetRate changes the rate of an adjustable resource from now on: at least 0; 0
// stops it.
func (s *Share) SetRate(rate float64) {
	if !s.adjustable || !(rate >= 0) || math.IsInf(rate, 0) {
		panic("world: only an adjustable share changes its rate, to at least 0")
	}
	s.advance(s.env.Now())
	s.rate = rate
	if len(s.heap) > 0 {
		s.watch()
	}
}

// Flows is how many flows are in service.
func (s *Share) Flows() int { return len(s.heap) }

// Load is the sum of the weights in service.
func (s *Share) Load() float64 { return s.weight }

// Busy is how long the resource has been in use until now.
func (s *Share) Busy() time.Duration {
	s.advance(s.env.Now())
	return s.busy
}

// Recent is the share of time in use lately: the past counts by exp(-age/1 s).
func (s *Share) Recent() float64 {
	now := s.env.Now()
	s.advance(now)
	s.fold(now)
	return s.lately
}

func (s *Share) speed(n int) float64 {
	if s.gain == nil {
		return s.rate
	}
	return float64(s.rate * s.gain(n))
}

// advance moves virtual time to now. Held time is nobody's progress.
func (s *Share) advance(now time.Duration) {
	if now == s.last {
		return
	}
	if n := len(s.heap); n > 0 {
		s.busy += now - s.last
		if from := max(s.last, s.held); now > from {
			s.v += float64((now-from).Seconds()*s.speed(n)) / s.weight
		}
	} else {
		s.busy += max(0, min(now, s.held)-s.last)
		if s.on && s.held <= now {
			s.turn(max(s.held, s.since), false)
		}
	}
	s.last = now
}

// turn notes that the resource comes into use, or goes out of it.
func (s *Share) turn(at time.Duration, on bool) {
	if s.on != on {
		s.fold(at)
		s.on = on
	}
}

func (s *Share) fold(at time.Duration) {
	if !s.on && s.lately < forgotten {
		s.lately, s.since = 0, at
		return
	}
	old := portable.Exp(-(at - s.since).Seconds() / recentTime.Seconds())
	s.lately = float64(s.lately * old)
	if s.on {
		s.lately += 1 - old
	}
	s.since = at
}

// left is how long the first flow still takes if nothing changes. A thousandth
// of a nanosecond is rounding.
func (s *Share) left(now time.Duration) time.Duration {
	x := float64((s.heap[0].finish-s.v)*s.weight) / s.speed(len(s.heap))
	return max(0, s.held-now) + ceil(x)
}

func ceil(seconds float64) time.Duration {
	ns := math.Ceil(float64(seconds*1e9) - 1e-3)
	if ns <= 0 {
		return 0
	}
	if !(ns < math.MaxInt64/2) {
		return math.MaxInt64 / 2
	}
	return time.Duration(ns)
}

func (s *Share) join(now time.Duration, work, weight float64) *flow {
	var f *flow
	if n := len(s.spare); n > 0 {
		f, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		f = &flow{cond: s.env.NewCond()}
	}
	if len(s.heap) == 0 {
		s.v, s.weight = 0, 0
		s.turn(now, true)
	}
	s.seq++
	f.finish, f.weight, f.seq, f.done = s.v+float64(work/weight), weight, s.seq, false
	s.weight += weight
	s.push(f)
	return f
}

// leave takes the first flow out.
func (s *Share) leave(now time.Duration) *flow {
	f := s.pop()
	s.weight -= f.weight
	if len(s.heap) == 0 && s.held <= now {
		s.turn(now, false)
	}
	return f
}

// watch starts a process that ends flows of an adjustable share on time. The
// one before notices that it is not asked any more.
func (s *Share) watch() {
	s.alarm++
	mine := s.alarm
	s.env.Serve("share", func() {
		for mine == s.alarm && len(s.heap) > 0 {
			now := s.env.Now()
			s.advance(now)
			if s.rate == 0 {
				return // SetRate will watch again
			}
			if d := s.left(now); d > 0 {
				s.env.Sleep(d)
				continue
			}
			f := s.leave(now)
			f.done = true
			f.cond.Signal()
		}
	})
}

func (f *flow) before(g *flow) bool {
	return f.finish < g.finish || f.finish == g.finish && f.seq < g.seq
}

func (s *Share) push(f *flow) {
	s.heap = append(s.heap, f)
	h, i := s.heap, len(s.heap)-1
	for i > 0 && f.before(h[(i-1)/2]) {
		h[i] = h[(i-1)/2]
		i = (i - 1) / 2
	}
	h[i] = f
}

func (s *Share) pop() *flow {
	h, n := s.heap, len(s.heap)-1
	top, f := h[0], h[n]
	h[n] = nil
	s.heap = h[:n]
	if n == 0 {
		return top
	}
	i := 0
	for {
		c := 2*i + 1
		if c >= n {
			break
		}
		if c+1 < n && h[c+1].before(h[c]) {
			c++
		}
		if !h[c].before(f) {
			break
		}
		h[i], i = h[c], c
	}
	h[i] = f
	return top
}
