// Package arrival says when requests come: seeded arrival processes whose times
// are a pure function of a specification, a seed and a name.
//
// A process is described as data, so that it can be printed, hashed and read
// from a file, and is turned into a Generator that yields one time after the
// other:
//
//	spec := arrival.Spec{Kind: arrival.Gamma, Rate: rate, Shape: k}
//	g, err := spec.Start(arrival.Run{Seed: 1, Name: "chat"})
//	for at, _, ok := g.Next(); ok; at, _, ok = g.Next() { ... }
//
// Poisson, gamma and Weibull processes are renewal processes: gaps are
// independent, with a mean of 1/Rate. Burst multiplies their rate by a lognormal
// Ornstein-Uhlenbeck process of mean 1 (bursts of a chosen size and duration, a
// smooth relative of the Markov-modulated Poisson process), Day by 24 hourly
// factors. A modulated process is the renewal process run on the clock of the
// accumulated rate, so that the gaps keep their family. Periodic is the control
// loop: every source ticks with a period, a phase and jitter.
//
// To offer a process at another rate, compress its time (Run.Factor). Thinning a
// bursty process would make it Poisson; compression keeps its shape, and the
// factor is recorded beside the result. Only Day keeps its length: people sleep
// at night however many they are.
//
// Times are integer nanoseconds. Each gap is rounded to the nearest nanosecond
// before it is added, so that errors of the last bit in a logarithm do not add
// up. Processes in which an arrival depends on a completion (closed loops) are
// not here: see workloads.Driver.
package arrival

import (
	"errors"
	"fmt"
	"math"
	"time"

	"meibench/internal/sourced"
)

// Kind names a family of arrival processes.
type Kind string

// Families of arrival processes.
const (
	Poisson  Kind = "poisson"  // exponential gaps
	Gamma    Kind = "gamma"    // gamma gaps of shape k; coefficient of variation 1/sqrt(k)
	Weibull  Kind = "weibull"  // Weibull gaps of shape c; under 1 long silences and dense bursts
	Periodic Kind = "periodic" // control loops, one per source
)

// Kinds lists the families in order of their names.
var Kinds = [...]Kind{Gamma, Periodic, Poisson, Weibull}

// Spec describes an arrival process. Fields that do not belong to the kind must
// be left out.
type Spec struct {
	Kind   Kind           `json:"kind" yaml:"kind"`
	Rate   sourced.Number `json:"rate,omitzero" yaml:"rate"`     // mean arrivals per second over all sources; not for periodic
	Shape  sourced.Number `json:"shape,omitzero" yaml:"shape"`   // gamma k or Weibull c
	Burst  Burst          `json:"burst,omitzero" yaml:"burst"`   // optional, not for periodic
	Day    Day            `json:"day,omitzero" yaml:"day"`       // optional, not for periodic
	Period sourced.Number `json:"period,omitzero" yaml:"period"` // periodic: seconds between ticks of one source
	Jitter sourced.Number `json:"jitter,omitzero" yaml:"jitter"` // periodic: ticks move by up to this many seconds either way
	Phase  Phase          `json:"phase,omitempty" yaml:"phase"`  // periodic: how the sources start; default spread
}

// Phase says how the sources of a periodic process start.
type Phase string

// Phases of periodic sources.
const (
	Spread   Phase = "spread"   // uniformly over the first period
	Together Phase = "together" // all at time zero
)

// Burst modulates a rate by exp(X), X an Ornstein-Uhlenbeck process.
type Burst struct {
	CV   sourced.Number `json:"cv" yaml:"cv"`     // coefficient of variation of the rate
	Corr sourced.Number `json:"corr" yaml:"corr"` // seconds in which the correlation of X falls to 1/e
}

// Given reports whether a burst was described.
func (b Burst) Given() bool { return b.CV.Given() || b.Corr.Given() }

// Day modulates a rate by the hour. It is scaled to a mean of 1.
type Day struct {
	Hourly []float64    `json:"hourly" yaml:"hourly"` // 24 factors, hour 0 first
	Start  float64      `json:"start" yaml:"start"`   // hour of day at which the run begins, [0, 24)
	Source string       `json:"source" yaml:"source"`
	Kind   sourced.Kind `json:"kind" yaml:"kind"`
}

// Given reports whether a day curve was described.
func (d Day) Given() bool { return d.Hourly != nil || d.Source != "" || d.Kind != "" || d.Start != 0 }

// IsZero reports that no day curve was described, so that JSON leaves it out.
func (d Day) IsZero() bool { return !d.Given() }

// Validate says what is wrong with s: a *sourced.FieldError.
func (s Spec) Validate() error {
	switch s.Kind {
	case Poisson, Gamma, Weibull:
		return s.validateRenewal()
	case Periodic:
		return s.validatePeriodic()
	}
	return sourced.Within("kind", fmt.Errorf("unknown arrival process %q (have %v)", string(s.Kind), Kinds))
}

func (s Spec) validateRenewal() error {
	if err := sourced.Within("rate", s.Rate.Positive("1/s")); err != nil {
		return err
	}
	if r := s.Rate.Value; r < 1e-9 || r > 1e9 {
		return sourced.Within("rate", fmt.Errorf("value: want 1e-9 to 1e9 arrivals per second, got %g", r))
	}
	if s.Kind == Poisson {
		if err := s.refuse("shape", s.Shape.Given()); err != nil {
			return err
		}
	} else if err := s.validateShape(); err != nil {
		return err
	}
	if s.Burst.Given() {
		if err := sourced.Within("burst", s.Burst.validate(s.Rate.Value)); err != nil {
			return err
		}
	}
	if s.Day.Given() {
		if err := sourced.Within("day", s.Day.validate()); err != nil {
			return err
		}
	}
	return errors.Join(s.refuse("period", s.Period.Given()), s.refuse("jitter", s.Jitter.Given()), s.refuse("phase", s.Phase != ""))
}

// A shape under 0.05 has a coefficient of variation over 4: gamma gaps then
// underflow and Weibull means overflow long before they are of use.
const minShape = 0.05

func (s Spec) validateShape() error {
	err := s.Shape.Positive("1")
	if err == nil && s.Shape.Value < minShape {
		err = fmt.Errorf("value: want >= %g, got %g", minShape, s.Shape.Value)
	}
	return sourced.Within("shape", err)
}

func (s Spec) validatePeriodic() error {
	if err := sourced.Within("period", s.Period.Positive("s")); err != nil {
		return err
	}
	if s.Period.Value < 1e-6 {
		return sourced.Within("period", fmt.Errorf("value: want at least 1e-6 s, got %g", s.Period.Value))
	}
	if s.Jitter.Given() {
		if err := sourced.Within("jitter", s.Jitter.NonNegative("s")); err != nil {
			return err
		}
		if 2*s.Jitter.Value >= s.Period.Value {
			return sourced.Within("jitter", fmt.Errorf("value: want under half the period of %g s, so that ticks keep their order, got %g", s.Period.Value, s.Jitter.Value))
		}
	}
	switch s.Phase {
	case "", Spread, Together:
	default:
		return sourced.Within("phase", fmt.Errorf("want spread or together, got %q", string(s.Phase)))
	}
	return errors.Join(s.refuse("rate", s.Rate.Given()), s.refuse("shape", s.Shape.Given()),
		s.refuse("burst", s.Burst.Given()), s.refuse("day", s.Day.Given()))
}

func (s Spec) refuse(field string, given bool) error {
	if !given {
		return nil
	}
	return sourced.Within(field, fmt.Errorf("a %s process has none: remove it", s.Kind))
}

// A rate that changes a thousand times between two arrivals cannot be seen in
// them and would cost a thousand steps each.
func (b Burst) validate(rate float64) error {
	if err := sourced.Within("cv", b.CV.NonNegative("1")); err != nil {
		return err
	}
	if b.CV.Value > 100 {
		return sourced.Within("cv", fmt.Errorf("value: want at most 100, got %g", b.CV.Value))
	}
	if err := sourced.Within("corr", b.Corr.Positive("s")); err != nil {
		return err
	}
	if low := 1e-3 / rate; b.Corr.Value < low || b.Corr.Value < 1e-6 {
		return sourced.Within("corr", fmt.Errorf("value: want at least a thousandth of the mean gap (%g s) and 1e-6 s, got %g", low, b.Corr.Value))
	}
	return nil
}

func (d Day) validate() error {
	if len(d.Hourly) != 24 {
		return sourced.Within("hourly", fmt.Errorf("want 24 factors, one an hour, got %d", len(d.Hourly)))
	}
	sum := 0.0
	for i, f := range d.Hourly {
		if !(f >= 0) || math.IsInf(f, 0) {
			return sourced.Within("hourly", fmt.Errorf("hour %d: want a finite factor >= 0, got %g", i, f))
		}
		sum += f
	}
	if sum == 0 {
		return sourced.Within("hourly", errors.New("all factors are 0: nothing would ever arrive"))
	}
	if !(d.Start >= 0 && d.Start < 24) {
		return sourced.Within("start", fmt.Errorf("want an hour in [0, 24), got %g", d.Start))
	}
	return sourced.Number{Value: 1, Unit: "1", Source: d.Source, Kind: d.Kind}.Check("1")
}

// MeanRate is the mean number of arrivals per second over all sources, before
// compression.
func (s Spec) MeanRate(sources int) float64 {
	if s.Kind == Periodic {
		return float64(max(sources, 1)) / s.Period.Value
	}
	return s.Rate.Value
}

// Numbers lists every number of s with its source, under names that begin with
// prefix.
func (s Spec) Numbers(prefix string) []sourced.Named {
	var out []sourced.Named
	add := func(name string, n sourced.Number) {
		if n.Given() {
			out = append(out, sourced.Named{Name: prefix + name, Number: n})
		}
	}
	add("rate", s.Rate)
	add("shape", s.Shape)
	add("burst.cv", s.Burst.CV)
	add("burst.corr", s.Burst.Corr)
	if s.Day.Given() {
		add("day.peak_over_mean", sourced.Number{Value: s.Day.peak(), Unit: "1", Source: s.Day.Source, Kind: s.Day.Kind})
	}
	add("period", s.Period)
	add("jitter", s.Jitter)
	return out
}

func (d Day) peak() float64 {
	top, sum := 0.0, 0.0
	for _, f := range d.Hourly {
		top, sum = max(top, f), sum+f
	}
	return top * float64(len(d.Hourly)) / sum
}

// nanos rounds seconds to the nearest nanosecond and saturates.
func nanos(s float64) int64 {
	ns := math.Floor(float64(s*1e9) + 0.5)
	if !(ns < math.MaxInt64) {
		return math.MaxInt64
	}
	return int64(ns)
}

// compressed maps a time of the process to a time of the run.
func compressed(at int64, factor float64) time.Duration {
	if factor == 1 {
		return time.Duration(at)
	}
	return time.Duration(nanos(float64(at) / 1e9 / factor))
}
