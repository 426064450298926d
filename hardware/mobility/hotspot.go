package mobility

import (
	"fmt"
	"math"
	"sort"
	"time"

	"meibench/internal/rng"
)

func (s Spec) checkHotspot() error {
	if len(s.Spots) < 2 {
		return fmt.Errorf("%d places: want at least two to move between", len(s.Spots))
	}
	for i, p := range s.Spots {
		if !finite(p.X, p.Y, p.Dwell) || !(p.Dwell >= 1e-3) || p.Dwell > 1e7 || math.Abs(p.X) > 1e7 || math.Abs(p.Y) > 1e7 {
			return fmt.Errorf("place %d at (%g, %g) with stays of %g s: want finite metres within 1e7, and 0.001 to 1e7 s", i, p.X, p.Y, p.Dwell)
		}
	}
	return nil
}

// hotspot stays at a place for an exponential time of the place's mean and is then at
// another one at once, each alike: EdgeCloudSim's NomadicMobility (Sonmez, Ozgovde
// and Ersoy 2018).
type hotspot struct {
	m          *Model
	id         uint64
	leg        uint64
	spot       int
	from, next time.Duration
}

func (h *hotspot) At(t time.Duration) (x, y float64) {
	if h.leg == 0 || t < h.from {
		h.begin()
	}
	for t >= h.next {
		l := h.m.key.At(h.id | h.leg)
		h.leg++
		to := int(l.Float64() * float64(len(h.m.s.Spots)-1))
		if to >= h.spot {
			to++
		}
		h.spot, h.from = to, h.next
		h.stay(&l)
	}
	p := &h.m.s.Spots[h.spot]
	return p.X, p.Y
}

// begin puts the user at a place with a weight of its stays; how long a stay still
// lasts has no memory.
func (h *hotspot) begin() {
	l := h.m.key.At(h.id)
	cum := h.m.cum
	u := l.Float64() * cum[len(cum)-1]
	h.spot = min(sort.Search(len(cum), func(i int) bool { return cum[i] > u }), len(cum)-1)
	h.leg, h.from = 1, 0
	h.stay(&l)
}

func (h *hotspot) stay(l *rng.Luck) {
	h.next = h.from + max(1, nanos(h.m.s.Spots[h.spot].Dwell*rng.Exp(l)))
}
