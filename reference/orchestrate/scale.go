package orchestrate

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Fleet is what a scaler sees once a period.
type Fleet struct {
	On, Starting int
	Arrivals     float64 // requests per second in the last period
	Service      float64 // seconds of one request at one replica
	Busy         float64 // share of the replicas' capacity that was used in the last period, 0 to 1
	Waiting      int     // requests in line
}

// Scaler chooses how many replicas should run.
type Scaler struct {
	Rule      string  // of Scalers; "" = fixed
	Min, Max  int     // replicas; 1 <= Min <= Max
	Low, High float64 // reactive: shares of use below and above which one goes or comes
	Target    float64 // target: share of use aimed at, in (0, 1]; 0 = 0.7
	Wait      float64 // erlang: mean wait aimed at, in seconds; 0 = 0.1
	Calm      int     // periods in a row in which fewer must do, before one goes: hysteresis in time

	calm   int
	before float64
	seen   bool
}

// Scalers lists the rules by name.
var Scalers = []struct{ Name, Doc string }{
	{"erlang", "predictive: the fewest replicas that meet a mean wait by Erlang C, at the rate that the last two periods point to"},
	{"fixed", "the most, always"},
	{"reactive", "one more above a share of use, one less below a lower one"},
	{"target", "replicas in use over a target share, rounded up (the rule of Kubernetes' Horizontal Pod Autoscaler)"},
}

// Check refuses settings that make no sense.
func (s *Scaler) Check() error {
	known := slices.ContainsFunc(Scalers, func(r struct{ Name, Doc string }) bool { return r.Name == s.Rule })
	switch {
	case !known && s.Rule != "":
		return fmt.Errorf("orchestrate: unknown rule of scaling %q (have erlang, fixed, reactive, target)", s.Rule)
	case s.Min < 1 || s.Max < s.Min:
		return fmt.Errorf("orchestrate: replicas: want 1 <= min <= max, got %d and %d", s.Min, s.Max)
	case s.Rule == "reactive" && !(0 <= s.Low && s.Low < s.High):
		return fmt.Errorf("orchestrate: reactive scaling: want 0 <= low < high, got %g and %g", s.Low, s.High)
	case bad(s.Target, s.Wait) || s.Target > 1:
		return fmt.Errorf("orchestrate: scaling: want a target in [0, 1] and a wait >= 0 s, got %g and %g", s.Target, s.Wait)
	}
	return nil
}

// Next is how many replicas should be on or starting. It is called once a period.
func (s *Scaler) Next(f Fleet) int {
	have := f.On + f.Starting
	want := s.Max
	switch s.Rule {
	case "reactive":
		want = have
		if f.Busy > s.High || f.Waiting > 0 && f.Busy >= s.High {
			want++
		} else if f.Busy < s.Low {
			want--
		}
	case "target":
		want = int(math.Ceil(float64(f.Busy*float64(f.On))/cmp.Or(s.Target, 0.7) - 1e-9))
		if f.Waiting > f.On {
			want = max(want, have+1) // use cannot exceed 1: a line shows that more is needed
		}
	case "erlang":
		want = s.sized(f)
	}
	want = min(max(want, s.Min), s.Max)
	if want >= have {
		s.calm = 0
		return want
	}
	if s.calm++; s.calm <= s.Calm {
		return have
	}
	s.calm = 0
	return want
}

// sized is Erlang's pool for the rate that will be if it goes on as from the last period to this one; a fall is not believed.
func (s *Scaler) sized(f Fleet) int {
	rate := f.Arrivals
	if s.seen {
		rate += max(0, f.Arrivals-s.before)
	}
	s.before, s.seen = f.Arrivals, true
	if f.Service <= 0 || rate <= 0 {
		return s.Min
	}
	if float64(rate*f.Service) >= float64(s.Max) {
		return s.Max
	}
	n, err := Servers(rate, 1/f.Service, cmp.Or(s.Wait, 0.1))
	if err != nil {
		panic(err) // checked above
	}
	return n
}

// Season is a scaling problem in whole periods: work that comes, replicas that each do one unit of work a period, a start-up delay, and costs.
// Work that is not done waits. Replicas that start cost as those that are on. Going takes no time.
type Season struct {
	Demand  []float64 // units of work that come in each period
	Max     int       // replicas
	Start   int       // periods from the order to the first work
	Replica float64   // cost of one for a period
	Late    float64   // cost of a unit of work that waits at the end of a period
}

// Cost plays a schedule: orders[t] is how many replicas are to be on or starting from period t on. Those that were on longest stay.
func (s *Season) Cost(orders []int) (cost float64) {
	ages := []int{} // periods since each was ordered, oldest first
	backlog := 0.0
	for t, demand := range s.Demand {
		want := min(max(orders[t], 0), s.Max)
		for len(ages) < want {
			ages = append(ages, 0)
		}
		ages = ages[:want]
		ready := 0
		for i := range ages {
			if ages[i] >= s.Start {
				ready++
			}
			ages[i]++
		}
		backlog = max(0, backlog+demand-float64(ready))
		cost += float64(s.Replica*float64(want)) + float64(s.Late*backlog)
	}
	return cost
}

// Best is the cheapest schedule, by trying all; more than Limit are an error. No policy that decides period by period is cheaper.
func (s *Season) Best() (orders []int, cost float64, err error) {
	if n := math.Pow(float64(s.Max+1), float64(len(s.Demand))); n > Limit {
		return nil, 0, fmt.Errorf("orchestrate: best schedule: %d periods of 0 to %d replicas are more than %d schedules: use fewer", len(s.Demand), s.Max, Limit)
	}
	cost = math.Inf(1)
	try := make([]int, len(s.Demand))
	var visit func(t int)
	visit = func(t int) {
		if t == len(try) {
			if c := s.Cost(try); c < cost {
				orders, cost = slices.Clone(try), c
			}
			return
		}
		for try[t] = 0; try[t] <= s.Max; try[t]++ {
			visit(t + 1)
		}
	}
	visit(0)
	return orders, cost, nil
}

// Play lets a scaler run a season. It sees the periods that are over, with work as requests of a tenth of a period.
func (s *Season) Play(sc Scaler) []int {
	orders := make([]int, len(s.Demand))
	have, backlog := sc.Min, 0.0
	started := make([]int, have) // period of each order; those at the start are on
	for i := range started {
		started[i] = -s.Start
	}
	for t, demand := range s.Demand {
		orders[t] = have
		on := 0
		for _, at := range started {
			if t-at >= s.Start {
				on++
			}
		}
		done := min(backlog+demand, float64(on))
		backlog += demand - done
		f := Fleet{On: on, Starting: have - on, Arrivals: demand * 10, Service: 0.1, Waiting: int(backlog * 10)}
		if on > 0 {
			f.Busy = done / float64(on)
		}
		have = sc.Next(f)
		for len(started) < have {
			started = append(started, t+1)
		}
		started = started[:have]
	}
	return orders
}
