package record

import (
	"math"
	"slices"
	"time"
)

// Places is what happened in a run with several edge nodes, added up by time, by
// node and by user, row by row: pages of cities of millions of requests are made
// from it. It is for rows that have a Place.
type Places struct {
	Width  time.Duration // of a bin of time
	Bins   []Bin
	ByNode []Tally // by Place, node 1 first
	ByUser []Tally
	Stalls []float64 // seconds by which hand-overs held answers up, of requests that were
	Moved  int       // requests with a hand-over
	cell   *Cell
}

// Bin is a part of the run's time, by intended starts.
type Bin struct {
	Tally
	Handovers int64
	StallTime time.Duration
	Energy    [NumParts]float64 // J, of what is known
	first     gaps
}

// TTFT is a quantile of the time to the first token, in seconds, to 0.05 %; NaN of none.
func (b *Bin) TTFT(p float64) float64 { return b.first.quantile(p) }

// Tally is a number of requests, of those that met every limit, and the end-to-end
// time of those that ended well.
type Tally struct {
	N, Good, OK int
	E2E         float64 // s, summed
}

func (t *Tally) add(r *Request, good bool) {
	t.N++
	if good {
		t.Good++
	}
	if r.Outcome == OK {
		t.OK++
		t.E2E += (r.Done - r.Intended).Seconds()
	}
}

// Bins of time: at most so many, and fewer where they would hold too few requests.
const (
	maxBins = 96
	minBins = 8
	perBin  = 25 // requests, on average
)

// NewPlaces makes bins of a whole number of seconds for a run of a cell.
func NewPlaces(c *Cell) *Places {
	bins := min(maxBins, max(minBins, c.Facts.Planned/perBin))
	width := max(time.Second, (c.Horizon/time.Duration(bins) + time.Second).Truncate(time.Second))
	return &Places{Width: width, cell: c}
}

// mostStalls is how many stalls are kept of a run.
const mostStalls = 1 << 20

// Add takes in a row. It keeps nothing of r.
func (p *Places) Add(r *Request) {
	good := p.cell.Good(r)
	b := grow(&p.Bins, int(max(r.Intended, 0)/p.Width))
	b.add(r, good)
	b.Handovers += r.Counts[Handovers]
	b.StallTime += time.Duration(r.Counts[StallTime])
	for i, e := range r.Energy {
		if e.Known() {
			b.Energy[i] += float64(e.Joules)
		}
	}
	if r.FirstToken != Unset && r.Outcome == OK {
		b.first.add(r.FirstToken - r.Intended)
	}
	if at := r.Counts[Place]; at > 0 && at < 1<<24 {
		grow(&p.ByNode, int(at-1)).add(r, good)
	}
	if r.User >= 0 && r.User < 1<<26 {
		grow(&p.ByUser, r.User).add(r, good)
	}
	if r.Counts[Handovers] > 0 {
		p.Moved++
	}
	if r.Counts[Stalls] > 0 && len(p.Stalls) < mostStalls {
		p.Stalls = append(p.Stalls, time.Duration(r.Counts[StallTime]).Seconds())
	}
}

func grow[T any](list *[]T, i int) *T {
	if i >= len(*list) {
		*list = append(*list, make([]T, i+1-len(*list))...)
	}
	return &(*list)[i]
}

// Fairness is Jain's index, (Σx)²/(n Σx²), of what is given: 1 = all alike, 1/n =
// one has it all; NaN of nothing (Jain, Chiu, Hawe 1984).
func Fairness(xs []float64) float64 {
	sum, square := 0.0, 0.0
	for _, x := range xs {
		sum, square = sum+x, square+float64(x*x)
	}
	if square == 0 {
		return math.NaN()
	}
	return float64(sum*sum) / float64(float64(len(xs))*square)
}

// UserTimes are the mean end-to-end times of users with an answer, ascending, and
// the share of each user's requests that met every limit, likewise.
func (p *Places) UserTimes() (mean, within []float64) {
	for _, u := range p.ByUser {
		if u.OK > 0 {
			mean = append(mean, u.E2E/float64(u.OK))
		}
		if u.N > 0 {
			within = append(within, float64(u.Good)/float64(u.N))
		}
	}
	slices.Sort(mean)
	slices.Sort(within)
	return mean, within
}
