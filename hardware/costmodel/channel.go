package costmodel

import (
	"math"
	"slices"
	"sync"
	"time"

	"meibench/hardware/profiles"
	"meibench/internal/portable"
	"meibench/internal/rng"
	"meibench/internal/units"
)

// Direction is a way along a link.
type Direction uint8

// Up is from the user towards the network, or from a wire's From to its To.
const (
	Up Direction = iota
	Down
)

// String is the direction's name in records and in the keys of its luck.
func (d Direction) String() string {
	if d == Up {
		return "up"
	}
	return "down"
}

// Times of the channel model: how long a rate and a delay stay as they are.
const (
	rateSlot  = time.Second            // the profiles' rates and correlations are of 1 s windows
	delaySlot = 100 * time.Millisecond // jitter; shorter than a fade, longer than a message
	tenths    = int64(rateSlot / delaySlot)
	lossSlots = 10 // in a delaySlot
	lossSlot  = delaySlot / lossSlots
)

// z95 is the 95 % quantile of the standard normal distribution.
const z95 = 1.6448536269514722

// skewed is a lognormal distribution of two halves: it meets a 5, a 50 and a
// 95 % quantile exactly, whatever their skew.
type skewed struct{ median, low, high float64 }

func newSkewed(q profiles.Quantiles) skewed {
	s := skewed{median: q.P50.Value, high: portable.Log(q.P95.Value/q.P50.Value) / z95}
	s.low = s.high // a p5 of 0 is an outage; what is above it mirrors the upper half
	if q.P5.Value > 0 {
		s.low = portable.Log(q.P50.Value/q.P5.Value) / z95
	}
	return s
}

// most is where the normal variates of a channel are cut.
const most = 3

// at is the quantile of the standard normal variate z, which is cut at ±3: one
// second in 741 beyond it would otherwise promise rates nobody measured.
func (s skewed) at(z float64) float64 {
	if z = max(-most, min(most, z)); z < 0 {
		return s.median * portable.Exp(float64(z*s.low))
	}
	return s.median * portable.Exp(float64(z*s.high))
}

// Channel is the law of one direction of a link: the distributions of rate,
// delay, loss and interruption that its profile gives. It is immutable; the
// states of many users may share it.
type Channel struct {
	name      string
	digest    string
	direction Direction
	rate, rtt skewed
	outageZ   float64   // the rate is 0 where z is below; -Inf = never
	memory    []float64 // weights of the noise of this second, the one before, ...
	loss      float64   // per packet
	handover  float64   // per second
	cut       time.Duration
	perByte   float64 // J/B
	costed    bool    // energy is known
	radio     *profiles.Radio
	extra     time.Duration      // one way, for distance
	trace     *Trace             // in place of rate; nil = none
	trips     func() *rng.Mapped // round trips by draws; made at first use
}

// packetBytes is the payload that is lost or arrives as one.
const packetBytes = 1500

// NewChannel prepares one direction of a link profile. extraRTT is added for
// distance.
func NewChannel(p *profiles.LinkSheet, d Direction, extraRTT time.Duration) *Channel {
	dir := p.Up
	if d == Down {
		dir = p.Down
	}
	c := &Channel{
		name: p.Name, digest: p.Digest(), direction: d,
		rate: newSkewed(dir.Rate), rtt: newSkewed(p.RTT), outageZ: math.Inf(-1),
		memory: memoryOf(p.Correlation.Value), loss: p.Loss.Value,
		perByte: value(dir.PerByte), costed: dir.PerByte != nil || p.Radio != nil,
		radio: p.Radio, extra: extraRTT / 2,
	}
	c.trips = sync.OnceValue(func() *rng.Mapped { return rng.NormalTable().Map(c.rtt.at) })
	if dir.Outage != nil && dir.Outage.Value > 0 {
		c.outageZ = portable.NormalQuantile(dir.Outage.Value)
	}
	if t := p.Trace; t != nil && d == Up {
		c.trace = t.UpRates
	} else if t != nil {
		c.trace = t.DownRates
	}
	if h := p.Handover; h != nil {
		c.handover = h.Rate.Value
		c.cut = time.Duration(math.Ceil(h.Interruption.Value * 1e9))
	}
	return c
}

// Fastest is what the channel does at its best: the least time from the last byte
// sent to its arrival, and the largest rate, in bytes per second. Chance is cut
// at both, so nothing passes faster.
func (c *Channel) Fastest() (delay time.Duration, rate float64) {
	rate = c.rate.at(most)
	if c.trace != nil {
		rate = slices.Max(c.trace.Rates)
	}
	return units.Seconds(c.rtt.at(-most)/2) + c.extra, rate
}

// memoryOf gives the moving-average weights of an AR(1) process of unit variance
// with correlation rho, cut where they fall under a hundredth. As a moving
// average, any second can be computed without the ones before it.
func memoryOf(rho float64) []float64 {
	const seconds = 128
	var w []float64
	square := 0.0
	for x := 1.0; x >= 1e-2 && len(w) < seconds; x *= rho {
		w = append(w, x)
		square += float64(x * x)
	}
	for i := range w {
		w[i] /= math.Sqrt(square)
	}
	return w
}

// fade is the standard normal variate of a second: noise of this and earlier
// seconds, keyed by their numbers, so that everybody sees the same weather.
func (c *Channel) fade(w *weather, key rng.Key, slot int64) float64 {
	n := len(c.memory)
	w.reach(key, slot, n)
	z, at := 0.0, w.place(slot)
	for _, weight := range c.memory {
		z += float64(weight * w.noise[at])
		if at--; at < 0 {
			at = n - 1
		}
	}
	return z
}

// weather keeps the noise of the latest seconds: the next second needs one draw
// more, not all of them again.
type weather struct {
	noise   []float64 // of second s at s mod len
	upTo    int64     // noise holds the seconds upTo-len+1 to upTo
	luck    rng.Luck
	normals *rng.Normals
}

// place is where the noise of a second lies.
func (w *weather) place(slot int64) int {
	n := int64(len(w.noise))
	return int((slot%n + n) % n)
}

// reach makes the noise of the n seconds that end with slot.
func (w *weather) reach(key rng.Key, slot int64, n int) {
	from := w.upTo + 1
	if w.noise == nil || slot < w.upTo || slot-w.upTo >= int64(n) {
		from = slot - int64(n) + 1
	}
	if w.noise == nil {
		w.noise, w.normals = make([]float64, n), rng.NormalTable()
	}
	at := w.place(from)
	for k := from; k <= slot; k++ {
		w.luck = key.At(uint64(k))
		w.noise[at] = w.normals.Draw(&w.luck)
		if at++; at == n {
			at = 0
		}
	}
	w.upTo = slot
}

// rateAt is the rate during a second, in bytes per second.
func (c *Channel) rateAt(w *weather, key rng.Key, slot int64) float64 {
	z := c.fade(w, key, slot)
	if z < c.outageZ {
		return 0
	}
	return c.rate.at(z)
}

// interruption is the part of a second lost to a handover, if there is one.
func (c *Channel) interruption(key rng.Key, slot int64) (from, to time.Duration) {
	if c.handover == 0 || c.cut == 0 {
		return 0, 0
	}
	luck := key.At(uint64(slot))
	if luck.Float64() >= c.handover {
		return 0, 0
	}
	from = time.Duration(slot)*rateSlot + time.Duration(float64(rateSlot-c.cut)*luck.Float64())
	return from, from + c.cut
}

// clean is the chance that a message of n bytes would pass without repair in
// each of so many hundredths of a second.
func (c *Channel) clean(bytes float64, slots int64) float64 {
	return portable.Exp(float64(float64(slots) * max(1, math.Ceil(bytes/packetBytes)) * portable.Log1p(-c.loss)))
}

// resends is how many round trips of repair a message of n bytes needs when
// every packet, also a repeated one, is lost with probability loss: the smallest
// r with u < P(at most r) = (1 - loss^(r+1))^packets.
func (c *Channel) resends(u, bytes float64) int {
	packets := max(1, math.Ceil(bytes/packetBytes))
	r, lost := 0, c.loss
	for r < 16 && u >= portable.Exp(float64(packets*portable.Log1p(-lost))) {
		r++
		lost *= c.loss
	}
	return r
}
