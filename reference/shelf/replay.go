package shelf

import (
	"math"

	"meibench/internal/units"
	"meibench/reference/library"
)

// Stats is what came of a list of requests.
type Stats struct {
	Requests, Hits  int
	Bytes, HitBytes units.Bytes // of the models asked for, and what of these blocks was here
	Churn           units.Bytes // that entered the shelf
}

// HitRatio is the share of requests whose whole model was here.
func (s Stats) HitRatio() float64 { return float64(s.Hits) / float64(max(s.Requests, 1)) }

// ByteHitRatio is the share of the bytes asked for that were here.
func (s Stats) ByteHitRatio() float64 { return float64(s.HitBytes) / float64(max(s.Bytes, 1)) }

// Clairvoyant is the policy that knows what will be asked: what is wanted latest goes (Belady 1966). It has the most hits of all
// that keep every newcomer where all models are equal in size and share nothing; else it is a yardstick, and not a bound.
const Clairvoyant = "belady"

// Replay asks a shelf for models one after another; what is missing comes.
func Replay(l *library.Library, room units.Bytes, policy string, asked []int) (Stats, error) {
	real := policy
	if policy == Clairvoyant {
		real = "lru"
	}
	s, err := New(l, room, real, 1)
	if err != nil {
		return Stats{}, err
	}
	if policy == Clairvoyant {
		s.after = future(len(l.Models), asked, s)
	}
	st := Stats{Requests: len(asked)}
	for _, m := range asked {
		for _, b := range l.Models[m].Blocks {
			size := l.Blocks[b].Bytes
			st.Bytes += size
			if s.Has(b) {
				st.HitBytes += size
			}
		}
		if s.Ask(m) {
			st.Hits++
		}
		st.Churn += s.Put(m)
	}
	return st, nil
}

// future says when a model is asked for next after the shelf's present request; never is very late.
func future(models int, asked []int, s *Shelf) func(m int) int {
	at := make([][]int, models)
	for i, m := range asked {
		at[m] = append(at[m], i)
	}
	return func(m int) int {
		for len(at[m]) > 0 && at[m][0] < s.clock { // request number clock-1 is the present one
			at[m] = at[m][1:]
		}
		if len(at[m]) == 0 {
			return math.MaxInt32
		}
		return at[m][0]
	}
}
