// Package length draws sizes: tokens of prompts and answers, turns of a
// session, images of a request, seconds of thought.
//
// A distribution is described as data (Spec), compiled once (Dist), and sampled
// by inverse transform, so that one uniform number gives one size and the same
// request keeps its size under every pipeline:
//
//	d, err := length.Spec{Kind: length.Table, Table: "azure23_conv/output_tokens"}.Compile("token")
//	n := d.Count(u, 1) // u uniform in [0, 1), at least one token
//
// No parametric family fits real token lengths well (Kolmogorov-Smirnov
// distances of 0.03 to 0.2; templates make spikes), hence the tables: 101
// percentiles of published traces, embedded with their licences in NOTICE.md.
// Between percentiles a table interpolates; above the 99th it bends so that the
// mean is the published one.
//
// Joint draws a prompt and an answer with a Gaussian copula: almost independent
// in chat, strongly correlated in summarisation. The package knows no prompts'
// text; see workloads/tasks for that.
package length

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"meibench/internal/portable"
	"meibench/internal/sourced"
)

// Kind names a family of distributions.
type Kind string

// Families of distributions.
const (
	Constant    Kind = "constant"    // always Value
	Exponential Kind = "exponential" // of the given Mean
	Geometric   Kind = "geometric"   // on 1, 2, 3, ... of the given Mean
	LogNormal   Kind = "lognormal"   // exp(Mu + Sigma Z) x Factor
	Quantiles   Kind = "quantiles"   // through the given Points
	Table       Kind = "table"       // an embedded table by its name
)

// Kinds lists the families in order of their names.
var Kinds = [...]Kind{Constant, Exponential, Geometric, LogNormal, Quantiles, Table}

// Spec describes a distribution. Fields that do not belong to the kind must be
// left out. The unit of the sizes is the caller's: tokens, turns, seconds.
type Spec struct {
	Kind   Kind           `json:"kind" yaml:"kind"`
	Value  sourced.Number `json:"value,omitzero" yaml:"value"`   // constant
	Mean   sourced.Number `json:"mean,omitzero" yaml:"mean"`     // exponential, geometric
	Mu     sourced.Number `json:"mu,omitzero" yaml:"mu"`         // lognormal: mean of ln x
	Sigma  sourced.Number `json:"sigma,omitzero" yaml:"sigma"`   // lognormal: standard deviation of ln x
	Factor sourced.Number `json:"factor,omitzero" yaml:"factor"` // lognormal, optional: tokens per word, say
	Points Points         `json:"points,omitzero" yaml:"points"` // quantiles
	Table  string         `json:"table,omitempty" yaml:"table"`  // table: source/field; see Tables
}

// Points are quantiles: at probability P[i] the size is V[i].
type Points struct {
	P      []float64    `json:"p" yaml:"p"` // from 0 to 1, increasing
	V      []float64    `json:"v" yaml:"v"` // never decreasing, none negative
	Source string       `json:"source" yaml:"source"`
	Kind   sourced.Kind `json:"kind" yaml:"kind"`
}

// Given reports whether any part of the points was set.
func (p Points) Given() bool { return p.P != nil || p.V != nil || p.Source != "" || p.Kind != "" }

// IsZero reports that no points were given, so that JSON leaves them out.
func (p Points) IsZero() bool { return !p.Given() }

// Given reports whether a distribution was described at all.
func (s Spec) Given() bool {
	return s.Kind != "" || len(s.given()) > 0
}

// IsZero reports that nothing was described, so that JSON leaves it out.
func (s Spec) IsZero() bool { return !s.Given() }

// given names the fields that are set, in the order of the struct.
func (s Spec) given() []string {
	var fields []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"value", s.Value.Given()}, {"mean", s.Mean.Given()}, {"mu", s.Mu.Given()}, {"sigma", s.Sigma.Given()},
		{"factor", s.Factor.Given()}, {"points", s.Points.Given()}, {"table", s.Table != ""},
	} {
		if f.set {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// fieldsOf says which fields a kind has.
func fieldsOf(k Kind) string {
	switch k {
	case Constant:
		return "value"
	case Exponential, Geometric:
		return "mean"
	case LogNormal:
		return "mu sigma factor"
	case Quantiles:
		return "points"
	case Table:
		return "table"
	}
	return ""
}

// Validate says what is wrong with s, whose sizes are in unit: a
// *sourced.FieldError.
func (s Spec) Validate(unit string) error {
	allowed := strings.Fields(fieldsOf(s.Kind))
	if len(allowed) == 0 {
		return sourced.Within("kind", fmt.Errorf("unknown distribution %q (have %v)", string(s.Kind), Kinds))
	}
	for _, f := range s.given() {
		if !strings.Contains(" "+strings.Join(allowed, " ")+" ", " "+f+" ") {
			return sourced.Within(f, fmt.Errorf("a %s distribution has none: remove it (it has %v)", s.Kind, allowed))
		}
	}
	switch s.Kind {
	case Constant:
		return sourced.Within("value", s.Value.NonNegative(unit))
	case Exponential:
		return sourced.Within("mean", s.Mean.Positive(unit))
	case Geometric:
		return sourced.Within("mean", s.validateGeometric(unit))
	case LogNormal:
		return s.validateLogNormal()
	case Quantiles:
		return sourced.Within("points", s.Points.validate())
	}
	_, err := lookup(s.Table)
	return sourced.Within("table", err)
}

func (s Spec) validateGeometric(unit string) error {
	err := s.Mean.Positive(unit)
	if err == nil && s.Mean.Value < 1 {
		err = fmt.Errorf("value: a geometric distribution starts at 1, so its mean is at least 1, got %g", s.Mean.Value)
	}
	return err
}

func (s Spec) validateLogNormal() error {
	if err := sourced.Within("mu", s.Mu.Check("1")); err != nil {
		return err
	}
	if err := sourced.Within("sigma", s.Sigma.NonNegative("1")); err != nil {
		return err
	}
	if math.Abs(s.Mu.Value) > 40 || s.Sigma.Value > 10 {
		return sourced.Within("mu", fmt.Errorf("value: want |mu| <= 40 and sigma <= 10 (they are of ln x), got %g and %g", s.Mu.Value, s.Sigma.Value))
	}
	if s.Factor.Given() {
		return sourced.Within("factor", s.Factor.Positive(s.Factor.Unit))
	}
	return nil
}

func (p Points) validate() error {
	if len(p.P) < 2 || len(p.P) != len(p.V) {
		return fmt.Errorf("want as many sizes v as probabilities p, at least two, got %d and %d", len(p.V), len(p.P))
	}
	if p.P[0] != 0 || p.P[len(p.P)-1] != 1 {
		return sourced.Within("p", fmt.Errorf("want probabilities from 0 to 1, got %g to %g", p.P[0], p.P[len(p.P)-1]))
	}
	for i := range p.P {
		if i > 0 && !(p.P[i] > p.P[i-1]) {
			return sourced.Within("p", fmt.Errorf("item %d: probabilities must increase, got %g after %g", i, p.P[i], p.P[i-1]))
		}
		if !(p.V[i] >= 0) || math.IsInf(p.V[i], 0) || i > 0 && p.V[i] < p.V[i-1] {
			return sourced.Within("v", fmt.Errorf("item %d: want finite sizes >= 0 that never decrease, got %g", i, p.V[i]))
		}
	}
	return sourced.Number{Value: 1, Unit: "1", Source: p.Source, Kind: p.Kind}.Check("1")
}

// Numbers lists every number of s with its source, under names that begin with
// prefix; a table or points show as their mean.
func (s Spec) Numbers(prefix, unit string) []sourced.Named {
	if !s.Given() {
		return nil
	}
	var out []sourced.Named
	for _, n := range []sourced.Named{
		{Name: "value", Number: s.Value}, {Name: "mean", Number: s.Mean}, {Name: "mu", Number: s.Mu},
		{Name: "sigma", Number: s.Sigma}, {Name: "factor", Number: s.Factor},
	} {
		if n.Given() {
			out = append(out, sourced.Named{Name: prefix + n.Name, Number: n.Number})
		}
	}
	d, err := s.Compile(unit)
	if err != nil {
		return out
	}
	if s.Points.Given() {
		out = append(out, sourced.Named{Name: prefix + "points.mean",
			Number: sourced.Number{Value: d.Mean(), Unit: unit, Source: s.Points.Source, Kind: s.Points.Kind}})
	}
	if t, err := lookup(s.Table); err == nil {
		out = append(out, sourced.Named{Name: prefix + s.Table + ".mean",
			Number: sourced.Number{Value: d.Mean(), Unit: unit, Source: t.source, Kind: t.kind}})
	}
	return out
}

// Compile turns a description into a distribution to sample.
func (s Spec) Compile(unit string) (*Dist, error) {
	if err := s.Validate(unit); err != nil {
		return nil, err
	}
	switch s.Kind {
	case Constant:
		return &Dist{kind: Constant, a: s.Value.Value}, nil
	case Exponential:
		return &Dist{kind: Exponential, a: s.Mean.Value}, nil
	case Geometric:
		// log of the probability of going on, 1 - 1/mean; -Inf for a mean of 1
		return &Dist{kind: Geometric, a: s.Mean.Value, b: portable.Log1p(-1 / s.Mean.Value)}, nil
	case LogNormal:
		mu := s.Mu.Value
		if s.Factor.Given() {
			mu += portable.Log(s.Factor.Value)
		}
		return &Dist{kind: LogNormal, a: mu, b: s.Sigma.Value}, nil
	case Quantiles:
		return &Dist{kind: Quantiles, p: s.Points.P, v: s.Points.V, bend: 1}, nil
	case Table:
		t, err := lookup(s.Table)
		if err != nil {
			return nil, err
		}
		return t.dist(), nil
	}
	return nil, errors.New("length: unreachable kind")
}
