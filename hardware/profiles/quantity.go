package profiles

import (
	"fmt"
	"math"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"meibench/internal/sourced"
)

// Kind tells how a number came to be known.
type Kind = sourced.Kind

// The four kinds of number. Assumed covers everything that nobody read in a
// source: general knowledge, estimates, arithmetic on estimates.
const (
	Spec     = sourced.Spec
	Measured = sourced.Measured
	Paper    = sourced.Paper
	Assumed  = sourced.Assumed
)

// Quantity is one number from outside: its value in an SI base unit, where it
// comes from and how far to trust it.
type Quantity = sourced.Number

// Quantiles is a distribution by its 5, 50 and 95 % quantiles.
type Quantiles struct {
	P5  Quantity `yaml:"p5" json:"p5"`
	P50 Quantity `yaml:"p50" json:"p50" want:"positive"`
	P95 Quantity `yaml:"p95" json:"p95" want:"positive"`
}

// scaledUnit is a unit people write where a base unit is wanted.
type scaledUnit struct {
	name, base string
	factor     float64
}

// scaledUnits lets a refusal say the right number instead of only "wrong".
var scaledUnits = []scaledUnit{
	{"GB", "B", 1e9}, {"GB/s", "B/s", 1e9}, {"GFLOP/s", "FLOP/s", 1e9}, {"GFLOPS", "FLOP/s", 1e9},
	{"GHz", "1/s", 1e9}, {"GOP/s", "OP/s", 1e9}, {"GOPS", "OP/s", 1e9}, {"Gbit/s", "B/s", 1e9 / 8}, {"Gbps", "B/s", 1e9 / 8},
	{"GiB", "B", 1 << 30}, {"GiB/s", "B/s", 1 << 30},
	{"KiB", "B", 1 << 10}, {"MB", "B", 1e6}, {"MB/s", "B/s", 1e6}, {"Mbit/s", "B/s", 1e6 / 8}, {"Mbps", "B/s", 1e6 / 8},
	{"MiB", "B", 1 << 20}, {"MiB/s", "B/s", 1 << 20},
	{"TFLOP/s", "FLOP/s", 1e12}, {"TFLOPS", "FLOP/s", 1e12}, {"TOP/s", "OP/s", 1e12}, {"TOPS", "OP/s", 1e12},
	{"Wh", "J", 3600}, {"bit/s", "B/s", 1.0 / 8}, {"kB", "B", 1e3}, {"kB/s", "B/s", 1e3}, {"kJ", "J", 1e3}, {"kWh", "J", 3.6e6},
	{"kbit/s", "B/s", 1e3 / 8}, {"km", "m", 1e3}, {"mJ", "J", 1e-3}, {"mJ/B", "J/B", 1e-3}, {"mW", "W", 1e-3},
	{"min", "s", 60}, {"ms", "s", 1e-3}, {"nJ/B", "J/B", 1e-9}, {"nJ/bit", "J/B", 8e-9}, {"ns", "s", 1e-9},
	{"pJ/B", "J/B", 1e-12}, {"pJ/FLOP", "J/FLOP", 1e-12}, {"percent", "1", 0.01}, {"%", "1", 0.01},
	{"per min", "1/s", 1.0 / 60}, {"us", "s", 1e-6},
}

// unitProblem explains why unit is not want and what to write instead.
func unitProblem(value float64, unit, want string) string {
	if unit == want {
		return ""
	}
	if unit == "" {
		return fmt.Sprintf("unit is missing: write unit: %s", want)
	}
	for _, s := range scaledUnits {
		if s.name == unit && s.base == want {
			return fmt.Sprintf("unit %q is not an SI base unit: write value: %s, unit: %s",
				unit, strconv.FormatFloat(value*s.factor, 'g', 6, 64), want)
		}
	}
	return fmt.Sprintf("unit %q does not fit: this number is in %s", unit, want)
}

// problem is one thing wrong at a YAML path.
type problem struct{ path, message string }

// checker collects what is wrong with the quantities of a decoded file.
type checker struct{ problems []problem }

func (c *checker) add(path, format string, args ...any) {
	c.problems = append(c.problems, problem{path, fmt.Sprintf(format, args...)})
}

var (
	quantityType = reflect.TypeFor[Quantity]()
	kindSet      = []Kind{Assumed, Measured, Paper, Spec}
)

// walk checks every Quantity and float under v. A struct tag unit on a field
// holds for everything below it; want narrows the range of the field itself.
func (c *checker) walk(v reflect.Value, path, unit, want string) {
	switch {
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			c.walk(v.Elem(), path, unit, want)
		}
	case v.Type() == quantityType:
		c.quantity(v.Interface().(Quantity), path, unit, want)
	case v.Kind() == reflect.Float64:
		c.number(v.Float(), path, want)
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			c.walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i), unit, want)
		}
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if key == "-" || key == "" {
				continue
			}
			u := unit
			if t := f.Tag.Get("unit"); t != "" {
				u = t
			}
			c.walk(v.Field(i), path+"."+key, u, f.Tag.Get("want"))
		}
	}
}

func (c *checker) quantity(q Quantity, path, unit, want string) {
	if q == (Quantity{}) {
		c.add(path, "missing: write {value: ..., unit: %s, source: ..., kind: spec|measured|paper|assumed}", unit)
		return
	}
	c.number(q.Value, path+".value", want)
	if p := unitProblem(q.Value, q.Unit, unit); p != "" {
		c.add(path+".unit", "%s", p)
	}
	if len(strings.TrimSpace(q.Source)) < 3 {
		c.add(path+".source", "source is missing: say where %g %s was read, or why it is assumed", q.Value, q.Unit)
	}
	if i := sort.Search(len(kindSet), func(i int) bool { return kindSet[i] >= q.Kind }); i == len(kindSet) || kindSet[i] != q.Kind {
		c.add(path+".kind", "kind %q: want spec, measured, paper or assumed", q.Kind)
	}
}

// number checks a bare float: finite, not negative, and within want.
func (c *checker) number(x float64, path, want string) {
	switch {
	case math.IsNaN(x) || math.IsInf(x, 0):
		c.add(path, "must be a finite number, got %g", x)
	case x < 0:
		c.add(path, "must not be negative, got %g", x)
	case want == "positive" && x == 0:
		c.add(path, "must be greater than 0")
	case want == "share" && x > 1:
		c.add(path, "is a share and must lie in 0..1, got %g", x)
	case want == "count" && (x != math.Trunc(x) || x < 1 || x > 1<<31):
		c.add(path, "must be a whole number from 1 up, got %g", x)
	}
}

// ordered checks p5 <= p50 <= p95.
func (c *checker) ordered(q Quantiles, path string) {
	if q.P5.Value > q.P50.Value || q.P50.Value > q.P95.Value {
		c.add(path, "quantiles must not fall: p5 %g, p50 %g, p95 %g", q.P5.Value, q.P50.Value, q.P95.Value)
	}
}
