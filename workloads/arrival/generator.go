package arrival

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"meibench/internal/portable"
	"meibench/internal/rng"
)

// Run is what a specification needs to become a sequence of times.
type Run struct {
	Seed    uint64
	Name    string  // names the luck, beside the seed
	Sources int     // periodic: how many sources tick; at least 1
	Factor  float64 // time compression: gaps are divided by it; 0 means 1
}

// Generator yields arrival times in order. It allocates nothing per arrival.
type Generator struct {
	gap    func(rng.Source) float64 // mean 1
	luck   *rand.Rand
	rate   float64 // arrivals per second of process time
	at     int64   // process time, nanoseconds
	factor float64
	clock  *clock // modulated rate, or nil
	ticks  *ticks // periodic, or nil
}

// Start returns the generator of a valid s; one that is not valid is an error.
func (s Spec) Start(run Run) (*Generator, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if run.Factor == 0 {
		run.Factor = 1
	}
	if !(run.Factor > 0) || math.IsInf(run.Factor, 0) {
		return nil, fmt.Errorf("start arrivals: time compression: want a finite factor > 0, got %g", run.Factor)
	}
	if s.Kind == Periodic {
		return &Generator{factor: run.Factor, ticks: newTicks(s, run)}, nil
	}
	g := &Generator{
		gap:    s.gaps(),
		luck:   rng.Stream(run.Seed, "arrivals", run.Name),
		rate:   s.Rate.Value,
		factor: run.Factor,
	}
	if s.Burst.Given() || s.Day.Given() {
		g.clock = newClock(s, run)
	}
	return g, nil
}

// gaps returns how to draw a gap of mean 1.
func (s Spec) gaps() func(rng.Source) float64 {
	shape := s.Shape.Value
	switch s.Kind {
	case Gamma:
		return func(r rng.Source) float64 { return rng.Gamma(r, shape) / shape }
	case Weibull:
		mean := portable.Gamma(1 + 1/shape)
		return func(r rng.Source) float64 { return rng.Weibull(r, shape) / mean }
	}
	return rng.Exp
}

// Next returns the time of the next arrival since the run began and the source
// it comes from (-1 where the process knows no sources). Times never decrease.
// It returns false once time runs out, after 292 years.
func (g *Generator) Next() (at time.Duration, source int, ok bool) {
	if g.ticks != nil {
		at, source = g.ticks.next()
		return compressed(int64(at), g.factor), source, at < math.MaxInt64
	}
	need := g.gap(g.luck)
	if g.clock == nil {
		g.forward(nanos(need / g.rate))
	} else {
		g.at = g.clock.spend(g.at, need)
	}
	return compressed(g.at, g.factor), -1, g.at < math.MaxInt64
}

func (g *Generator) forward(d int64) {
	if g.at > math.MaxInt64-d {
		g.at = math.MaxInt64
		return
	}
	g.at += d
}

// clock accumulates a rate that changes in steps. A step of the burst process
// is 1/32 of its correlation time: the correlation across a step is then 0.97.
type clock struct {
	rate  float64 // mean rate, 1/s
	burst float64 // current factor
	day   []float64
	hour  int64 // an hour of the run in process time
	start int64 // process time of midnight, <= 0

	luck          *rand.Rand
	x, mu         float64 // logarithm of the factor, its mean
	keep, scatter float64 // x' = mu + keep (x-mu) + scatter Z
	step, next    int64   // nanoseconds; next is where the current step ends
}

const stepsPerCorr = 32

func newClock(s Spec, run Run) *clock {
	c := &clock{rate: s.Rate.Value, burst: 1, next: math.MaxInt64}
	if s.Day.Given() {
		sum := 0.0
		for _, f := range s.Day.Hourly {
			sum += f
		}
		for _, f := range s.Day.Hourly {
			c.day = append(c.day, f*24/sum)
		}
		// A day of the run stays 24 hours however the gaps are compressed.
		c.hour = max(1, min(nanos(3600*run.Factor), math.MaxInt64/64))
		c.start = -int64(s.Day.Start * float64(c.hour))
	}
	if s.Burst.Given() {
		// A lognormal factor of mean 1 and this CV has ln-variance ln(1+CV^2).
		v := portable.Log1p(s.Burst.CV.Value * s.Burst.CV.Value)
		c.luck = rng.Stream(run.Seed, "arrivals", run.Name, "burst")
		c.mu, c.keep = -v/2, portable.Exp(-1.0/stepsPerCorr)
		c.scatter = math.Sqrt(v * (1 - float64(c.keep*c.keep)))
		c.step = max(1, nanos(s.Burst.Corr.Value/stepsPerCorr))
		c.next = c.step
		c.x = c.mu + float64(math.Sqrt(v)*rng.Normal(c.luck)) // stationary from the start
		c.burst = portable.Exp(c.x)
	}
	return c
}

// spend returns the time at which need expected arrivals have accumulated since at.
func (c *clock) spend(at int64, need float64) int64 {
	for at < math.MaxInt64 {
		rate, end := c.rate*c.burst, c.next
		if c.day != nil {
			h := (at - c.start) / c.hour
			rate *= c.day[h%24]
			if e := c.start + (h+1)*c.hour; e > at && e < end {
				end = e
			}
		}
		if room := rate * (float64(end-at) / 1e9); need <= room {
			return min(at+nanos(need/rate), end)
		} else {
			need -= room
		}
		at = end
		if at == c.next {
			c.turn()
		}
	}
	return math.MaxInt64
}

// turn moves the burst process by one step.
func (c *clock) turn() {
	c.x = c.mu + float64(c.keep*(c.x-c.mu)) + float64(c.scatter*rng.Normal(c.luck))
	c.burst = portable.Exp(c.x)
	if c.next > math.MaxInt64-c.step {
		c.next = math.MaxInt64
		return
	}
	c.next += c.step
}

// ticks merges the loops of all sources; a binary heap by time, then source.
type ticks struct {
	heap           []tick
	key            rng.Key
	period, jitter float64 // seconds
	luck           *rng.Luck
}

type tick struct {
	at     time.Duration
	phase  float64
	source int
	count  uint64
}

func newTicks(s Spec, run Run) *ticks {
	t := &ticks{period: s.Period.Value, jitter: s.Jitter.Value, luck: new(rng.Luck),
		key: rng.NewKey(run.Seed, "arrivals", run.Name, "jitter")}
	phases := rng.NewKey(run.Seed, "arrivals", run.Name, "phase")
	for u := range max(run.Sources, 1) {
		k := tick{source: u}
		if s.Phase != Together {
			*t.luck = phases.At(uint64(u))
			k.phase = t.period * t.luck.Float64()
		}
		t.set(&k)
		t.heap = append(t.heap, k)
		for i := u; i > 0 && t.less(i, (i-1)/2); i = (i - 1) / 2 {
			t.swap(i, (i-1)/2)
		}
	}
	return t
}

// set computes when k's current tick happens: phase + count x period + jitter.
func (t *ticks) set(k *tick) {
	s := k.phase + float64(float64(k.count)*t.period)
	if t.jitter > 0 {
		*t.luck = t.key.At(uint64(k.source)<<40 | k.count)
		s += t.jitter * float64(2*t.luck.Float64()-1)
	}
	k.at = time.Duration(nanos(max(0, s)))
}

func (t *ticks) next() (time.Duration, int) {
	k := &t.heap[0]
	at, source := k.at, k.source
	k.count++
	t.set(k)
	for i := 0; ; {
		c := 2*i + 1
		if c >= len(t.heap) {
			break
		}
		if c+1 < len(t.heap) && t.less(c+1, c) {
			c++
		}
		if !t.less(c, i) {
			break
		}
		t.swap(i, c)
		i = c
	}
	return at, source
}

func (t *ticks) less(i, j int) bool {
	a, b := &t.heap[i], &t.heap[j]
	return a.at < b.at || a.at == b.at && a.source < b.source
}

func (t *ticks) swap(i, j int) { t.heap[i], t.heap[j] = t.heap[j], t.heap[i] }
