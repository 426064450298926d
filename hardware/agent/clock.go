package agent

import (
	"sync"
	"time"
)

// Offset relates two clocks that are never set: the agent's and this world's.
// Source of the method: Mills, RFC 5905, §8 (four stamps) and the rule that the
// quickest round trip is the most trustworthy one (§10, clock filter).
type Offset struct {
	Offset      time.Duration // agent's clock - this world's clock, by the sample that is trusted now
	Uncertainty time.Duration // half of that sample's round trip, plus what the clocks may have drifted since
	RTT         time.Duration // of that sample, without the agent's own time
	MinRTT      time.Duration // of all samples
	Drift       float64       // of the agent's clock against this one, parts per million
	DriftUnsure float64       // parts per million; 0 with Drift 0: not observed for long enough
	Samples     int
}

const (
	wander   = 10_000 // clocks are taken to drift by at most 1 part in 10,000 (assumed; quartz does 1 in 50,000)
	keepBest = 256
	settled  = time.Second // drift is not told from shorter observation
)

// sample is one round trip: its middle on this clock, the offset it shows, and
// how long it took. The true offset lies within offset ± rtt/2.
type sample struct{ at, offset, rtt time.Duration }

// unsure bounds the error of a sample's offset at another time.
func (s sample) unsure(at time.Duration) time.Duration {
	age := at - s.at
	if age < 0 {
		age = -age
	}
	return s.rtt/2 + age/wander
}

// clock collects round trips. It may be used by several goroutines.
type clock struct {
	mu      sync.Mutex
	samples []sample // the latest, a ring
	next    int
	count   int
	first   sample // the quickest of the first second
	minRTT  time.Duration
}

// add takes the four stamps of a round trip: sent and received on this clock,
// arrived and left on the agent's. Stamps that no causal order explains are not used.
func (c *clock) add(sent, arrived, left, received time.Duration) {
	s := sample{at: sent + (received-sent)/2, offset: ((arrived - sent) + (left - received)) / 2, rtt: (received - sent) - (left - arrived)}
	if s.rtt < 0 || left < arrived {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == 0 || s.rtt < c.minRTT {
		c.minRTT = s.rtt
	}
	if c.count == 0 || s.at-c.first.at < settled && s.rtt < c.first.rtt {
		c.first = s
	}
	c.count++
	if len(c.samples) < keepBest {
		c.samples = append(c.samples, s)
		return
	}
	c.samples[c.next] = s
	c.next = (c.next + 1) % keepBest
}

// best is the sample that binds the offset at a time most tightly.
func (c *clock) best(at time.Duration) (best sample, ok bool) {
	for _, s := range c.samples {
		if !ok || s.unsure(at) < best.unsure(at) {
			best, ok = s, true
		}
	}
	return best, ok
}

// offset is the agent's clock minus this one at a time.
func (c *clock) offset(at time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, _ := c.best(at)
	return s.offset
}

// report describes the clocks as seen at a time.
func (c *clock) report(at time.Duration) Offset {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.best(at)
	if !ok {
		return Offset{}
	}
	o := Offset{Offset: s.offset, Uncertainty: s.unsure(at), RTT: s.rtt, MinRTT: c.minRTT, Samples: c.count}
	if span := s.at - c.first.at; span >= settled {
		o.Drift = float64(s.offset-c.first.offset) / float64(span) * 1e6
		o.DriftUnsure = float64(s.rtt/2+c.first.rtt/2) / float64(span) * 1e6
	}
	return o
}

// mapper brings the stamps of one call onto this clock.
type mapper struct {
	offset       time.Duration
	lo, hi       time.Duration // handed over, result received
	clamped      int
	farthestPull time.Duration
}

// stamp maps one time and pulls it into the call if it lies outside.
func (m *mapper) stamp(agent time.Duration) time.Duration {
	t := agent - m.offset
	in := min(max(t, m.lo), m.hi)
	if in != t {
		m.clamped++
		m.farthestPull = max(m.farthestPull, max(in-t, t-in))
	}
	return in
}
