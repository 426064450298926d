package record

import (
	"math"
	"time"
)

// pace is the time per output token over the course of a run, to tell the speed of
// a cool device from the one that it keeps up (checklist D8).
type pace struct {
	sum []float64 // s, of TPOT, by intended start in bins of paceBin
	n   []int
}

const (
	paceBin   = 10 * time.Second
	firstBins = 6  // the first minute
	leastBins = 12 // a run shorter than two minutes keeps nothing up
	mostBins  = 1 << 16
)

func (p *pace) add(r *Request) {
	v := TPOTOf(r)
	if r.Outcome != OK || math.IsNaN(v) {
		return
	}
	i := min(int(max(r.Intended, 0)/paceBin), mostBins)
	*grow(&p.sum, i) += v
	*grow(&p.n, i)++
}

// mean is over the requests of bins [from, to).
func (p *pace) mean(from, to int) float64 {
	sum, n := 0.0, 0
	for i := from; i < min(to, len(p.n)); i++ {
		sum, n = sum+p.sum[i], n+p.n[i]
	}
	return over(sum, n)
}

// first is the mean TPOT of the first minute, sustained that of the last quarter of
// a run of two minutes or more.
func (p *pace) first() float64 { return p.mean(0, firstBins) }

func (p *pace) sustained() float64 {
	if len(p.n) < leastBins {
		return math.NaN()
	}
	return p.mean(len(p.n)-len(p.n)/4, len(p.n))
}
