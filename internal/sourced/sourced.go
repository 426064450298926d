// Package sourced holds numbers that came from outside the project together
// with where they came from: a value never travels without its unit, its source
// and the kind of that source.
//
//	ttft := sourced.Number{Value: 2, Unit: "s", Source: "MLPerf inference rules, Llama-3.1-8B", Kind: sourced.Spec}
//	if err := ttft.Check("s"); err != nil { ... }
//
// Units are SI base units, spelled as text: "s", "1/s", "B", "B/s", "token",
// "1" for a ratio. A unit mismatch is an error, never a conversion, so that a
// table reads the same everywhere.
package sourced

import (
	"fmt"
	"math"
)

// Kind says how a number is known.
type Kind string

// Kinds of sources. A number that was only remembered is Assumed.
const (
	Spec     Kind = "spec"     // a standard, a data sheet, a rule book
	Measured Kind = "measured" // computed from a data set or measured by us
	Paper    Kind = "paper"    // published by somebody who measured it
	Assumed  Kind = "assumed"  // chosen; reports mark it
)

// Number is a value from outside. The zero Number means "not given".
type Number struct {
	Value  float64 `json:"value" yaml:"value"`
	Unit   string  `json:"unit" yaml:"unit"`
	Source string  `json:"source" yaml:"source"`
	Kind   Kind    `json:"kind" yaml:"kind"`
}

// Named is a number with the name it is listed under.
type Named struct {
	Name string `json:"name"`
	Number
}

// Given reports whether n was set at all.
func (n Number) Given() bool { return n != Number{} }

// Check returns what is wrong with n, which must be finite, in the given unit,
// and say where it comes from.
func (n Number) Check(unit string) error {
	switch {
	case math.IsNaN(n.Value) || math.IsInf(n.Value, 0):
		return fmt.Errorf("value: want a finite number, got %g", n.Value)
	case n.Unit != unit:
		return fmt.Errorf("unit: want %q, got %q: convert the value to %s", unit, n.Unit, unit)
	case n.Source == "":
		return fmt.Errorf("source is missing: say where %g %s comes from (document, data set, or who assumed it and why)", n.Value, n.Unit)
	}
	switch n.Kind {
	case Spec, Measured, Paper, Assumed:
		return nil
	}
	return fmt.Errorf("kind: want spec, measured, paper or assumed, got %q", string(n.Kind))
}

// Positive is Check for a number that must be over zero.
func (n Number) Positive(unit string) error {
	return n.atLeast(unit, math.SmallestNonzeroFloat64, "> 0")
}

// NonNegative is Check for a number that must not be under zero.
func (n Number) NonNegative(unit string) error { return n.atLeast(unit, 0, ">= 0") }

func (n Number) atLeast(unit string, low float64, want string) error {
	if err := n.Check(unit); err != nil {
		return err
	}
	if n.Value < low {
		return fmt.Errorf("value: want %s, got %g", want, n.Value)
	}
	return nil
}

// String shows the number with its unit and marks it if it is assumed.
func (n Number) String() string {
	s := fmt.Sprintf("%.6g", n.Value)
	if n.Unit != "" && n.Unit != "1" {
		s += " " + n.Unit
	}
	if n.Kind == Assumed {
		s += " (assumed)"
	}
	return s
}

// FieldError is an error in one field of a nested structure. Path is written
// as in a file: "arrivals.rate". Loaders turn it into a line and a column.
type FieldError struct {
	Path string
	Err  error
}

// Error is the path, then what is wrong with it.
func (e *FieldError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *FieldError) Unwrap() error { return e.Err }

// Within says that err, if any, happened in a field; paths of nested fields are
// joined with dots.
func Within(field string, err error) error {
	if err == nil {
		return nil
	}
	if inner, ok := err.(*FieldError); ok {
		return &FieldError{field + "." + inner.Path, inner.Err}
	}
	return &FieldError{field, err}
}
