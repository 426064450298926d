// Package capacity finds the largest request rate at which a system keeps its
// promises: by doubling until a rate fails, then by bisection in the logarithm
// of the rate. It knows rates and shares, nothing else; whoever calls it runs
// the requests.
//
//	r, err := capacity.Find(capacity.Options{Share: 0.9, Within: 0.05, Start: 2}, func(rate float64) (float64, error) {
//		return shareOfRequestsWithinLimits(rate) // same seed at every rate: common random numbers
//	})
//	fmt.Println(r.Lo, r.Hi) // passed at Lo, failed at Hi, Hi/Lo <= 1.05
//	all := capacity.Over([]capacity.Result{r, ...}) // one search per seed
//
// A larger rate need not be worse: a radio that sleeps between requests wakes
// up for each. The search looks beside what it found, goes on where a rate above
// a failure passes, and keeps what contradicts as Dips.
//
// The shape (double, then bisect, on validity) is that of MLPerf LoadGen's
// search for the Server scenario. The package does not say why a rate failed,
// and a capacity of n requests is not that of a stream without end: a queue that
// grows slowly needs requests to show.
package capacity

import (
	"fmt"
	"math"
	"slices"
)

// Options say what to look for.
type Options struct {
	Share  float64 // of requests that must meet all limits, in (0, 1]
	Within float64 // the search ends at Hi <= (1+Within) Lo; in [0.001, 1]
	Start  float64 // first rate, requests per second, > 0
}

// Bounds of the search.
const (
	mostDoublings = 20  // then the answer is "at least"
	mostRate      = 1e6 // likewise: requests are a microsecond apart
	mostHalvings  = 14  // then one request alone misses, as far as anybody can tell
	lookUp        = 4   // doublings above the start where everything below failed
	mostRestarts  = 3   // times that a pass above a failure is followed up
	beside        = 1.25
)

// Probe is one rate and what came of it.
type Probe struct {
	Rate  float64 // requests per second
	Share float64 // that met all limits
	Met   bool    // Share >= Options.Share
}

// Result is what a search found.
type Result struct {
	// Lo is the largest rate known to pass, 0 if none does. Hi is the smallest
	// known rate above Lo that fails, +Inf if none failed.
	Lo, Hi float64
	Probes []Probe // in the order made
	Dips   []Probe // failures below Lo: the rate at which limits hold is no interval from 0
}

// Check refuses options without meaning.
func (o Options) Check() error {
	switch {
	case !(o.Share > 0 && o.Share <= 1):
		return fmt.Errorf("share: want a share of requests in (0, 1], got %g", o.Share)
	case !(o.Within >= 0.001 && o.Within <= 1):
		return fmt.Errorf("within: want a relative width from 0.001 to 1, got %g", o.Within)
	case !(o.Start > 0) || math.IsInf(o.Start, 0):
		return fmt.Errorf("start: want a positive rate, got %g", o.Start)
	}
	return nil
}

// search is one under way.
type search struct {
	o     Options
	share func(float64) (float64, error)
	r     Result
}

// Find looks for the largest rate that meets the share. It asks share of one
// rate at a time and stops at its first error.
func Find(o Options, share func(rate float64) (float64, error)) (Result, error) {
	if err := o.Check(); err != nil {
		return Result{}, fmt.Errorf("capacity: %w", err)
	}
	s := &search{o: o, share: share, r: Result{Hi: math.Inf(1)}}
	err := s.bracket()
	for restart := 0; err == nil && s.r.Lo > 0 && !math.IsInf(s.r.Hi, 0); restart++ {
		if err = s.bisect(); err != nil || restart == mostRestarts {
			break
		}
		var above bool
		if above, err = s.try(s.r.Hi * beside); err != nil || !above {
			break
		}
		err = s.climb(s.r.Lo)
	}
	if err == nil && s.r.Lo > 0 {
		_, err = s.try(s.r.Lo / beside)
	}
	s.dips()
	return s.r, err
}

// try asks one rate and moves the ends of the bracket.
func (s *search) try(rate float64) (met bool, err error) {
	share, err := s.share(rate)
	if err != nil {
		return false, err
	}
	if !(share >= 0 && share <= 1) {
		return false, fmt.Errorf("capacity: the share at %g requests/s is %g: want 0 to 1", rate, share)
	}
	met = share >= s.o.Share
	s.r.Probes = append(s.r.Probes, Probe{rate, share, met})
	s.settle()
	return met, nil
}

// settle is the bracket that the probes leave: the largest pass, and the
// smallest failure above it.
func (s *search) settle() {
	s.r.Lo, s.r.Hi = 0, math.Inf(1)
	for _, p := range s.r.Probes {
		if p.Met {
			s.r.Lo = max(s.r.Lo, p.Rate)
		}
	}
	for _, p := range s.r.Probes {
		if !p.Met && p.Rate > s.r.Lo {
			s.r.Hi = min(s.r.Hi, p.Rate)
		}
	}
}

// bracket finds a rate that passes and, above it, one that fails.
func (s *search) bracket() error {
	met, err := s.try(s.o.Start)
	if err != nil {
		return err
	}
	if met {
		return s.climb(s.o.Start)
	}
	for k := 1; k <= mostHalvings; k++ {
		if met, err = s.try(math.Ldexp(s.o.Start, -k)); err != nil || met {
			return err
		}
	}
	for k := 1; k <= lookUp; k++ {
		if met, err = s.try(math.Ldexp(s.o.Start, k)); err != nil {
			return err
		}
		if met {
			return s.climb(math.Ldexp(s.o.Start, k))
		}
	}
	return nil
}

// climb doubles from a rate that passes until one fails.
func (s *search) climb(from float64) error {
	for k := 1; k <= mostDoublings && s.r.Lo < mostRate; k++ {
		if met, err := s.try(math.Ldexp(from, k)); err != nil || !met {
			return err
		}
	}
	return nil
}

// bisect halves the bracket in the logarithm until it is narrow.
func (s *search) bisect() error {
	for s.r.Lo > 0 && s.r.Hi > s.r.Lo*(1+s.o.Within) {
		mid := math.Sqrt(s.r.Lo * s.r.Hi)
		if mid <= s.r.Lo || mid >= s.r.Hi {
			return nil
		}
		if _, err := s.try(mid); err != nil {
			return err
		}
	}
	return nil
}

// dips are the failures below the largest pass.
func (s *search) dips() {
	for _, p := range s.r.Probes {
		if !p.Met && p.Rate < s.r.Lo {
			s.r.Dips = append(s.r.Dips, p)
		}
	}
}

// Estimate is what several searches say together, one per seed.
type Estimate struct {
	// Rate is the median of the searches' Lo. Lo and Hi are the smallest Lo and
	// the largest Hi: between them lies the median over all seeds with probability
	// 1 - 2^(1-n), 96.9 % for 6, whatever its distribution.
	Rate, Lo, Hi float64
	Probes       int
	Dips         int  // probes that contradict a single threshold
	AtLeast      bool // some search met no rate that fails: Hi is +Inf
}

// Over combines searches. It panics of none.
func Over(rs []Result) Estimate {
	los := make([]float64, 0, len(rs))
	e := Estimate{Lo: math.Inf(1)}
	for _, r := range rs {
		los = append(los, r.Lo)
		e.Lo, e.Hi = min(e.Lo, r.Lo), max(e.Hi, r.Hi)
		e.Probes, e.Dips = e.Probes+len(r.Probes), e.Dips+len(r.Dips)
	}
	slices.Sort(los)
	e.Rate = los[(len(los)-1)/2]
	e.AtLeast = math.IsInf(e.Hi, 1)
	return e
}
