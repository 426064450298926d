package suites

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml/ast"
)

// settings are what a block sets for its cells.
type settings struct {
	App      string  `yaml:"app" json:"app,omitempty"`
	Pipeline string  `yaml:"pipeline" json:"pipeline,omitempty"`
	Site     string  `yaml:"site" json:"site,omitempty"`
	Model    string  `yaml:"model" json:"model,omitempty"`
	Small    string  `yaml:"small" json:"small,omitempty"`
	RTT      float64 `yaml:"rtt" json:"rtt,omitempty"`
	Mbps     float64 `yaml:"mbps" json:"mbps,omitempty"`
	Mode     string  `yaml:"mode" json:"mode,omitempty"`
	Scale    string  `yaml:"scale" json:"scale,omitempty"`
	Scenario string  `yaml:"scenario" json:"scenario,omitempty"`
	Rate     float64 `yaml:"rate" json:"rate,omitempty"`
	Users    whole   `yaml:"users" json:"users,omitempty"`
	Requests whole   `yaml:"requests" json:"requests,omitempty"`
	Warmup   whole   `yaml:"warmup" json:"warmup,omitempty"`
	Repeats  whole   `yaml:"repeats" json:"repeats,omitempty"`
	Seed     whole   `yaml:"seed" json:"seed,omitempty"`
	Trace    string  `yaml:"trace" json:"trace,omitempty"`
	Library  string  `yaml:"library" json:"library,omitempty"`
	Pool     whole   `yaml:"pool" json:"pool,omitempty"`         // different questions that people ask, task requests
	Preamble whole   `yaml:"preamble" json:"preamble,omitempty"` // tokens that every prompt begins with, field requests
	Rows     string  `yaml:"rows" json:"rows,omitempty"`
	Day      bool    `yaml:"day" json:"day,omitempty"` // the application's day curve modulates the rate
	Find     *find   `yaml:"find" json:"find,omitempty"`
}

// whole is a count; the YAML reader alone would cut 2.5 down to 2.
type whole int64

// UnmarshalYAML accepts only a positive whole number.
func (w *whole) UnmarshalYAML(node ast.Node) error {
	n, err := strconv.ParseInt(node.String(), 10, 64)
	if err != nil || n < 1 {
		at := node.GetToken().Position
		return fmt.Errorf("[%d:%d] want a whole number of 1 or more, got %s", at.Line, at.Column, node)
	}
	*w = whole(n)
	return nil
}

type axis struct {
	Key    string `json:"key"`
	Values []any  `json:"values"`
}

// over puts settings over others: what is not set comes from base.
func (s settings) over(base settings) settings {
	return settings{
		App: cmp.Or(s.App, base.App), Pipeline: cmp.Or(s.Pipeline, base.Pipeline), Site: cmp.Or(s.Site, base.Site),
		Model: cmp.Or(s.Model, base.Model), Small: cmp.Or(s.Small, base.Small), RTT: cmp.Or(s.RTT, base.RTT), Mbps: cmp.Or(s.Mbps, base.Mbps),
		Mode: cmp.Or(s.Mode, base.Mode), Scale: cmp.Or(s.Scale, base.Scale), Scenario: cmp.Or(s.Scenario, base.Scenario),
		Rate: cmp.Or(s.Rate, base.Rate), Users: cmp.Or(s.Users, base.Users), Requests: cmp.Or(s.Requests, base.Requests),
		Warmup: cmp.Or(s.Warmup, base.Warmup), Repeats: cmp.Or(s.Repeats, base.Repeats), Seed: cmp.Or(s.Seed, base.Seed), Trace: cmp.Or(s.Trace, base.Trace), Library: cmp.Or(s.Library, base.Library),
		Pool: cmp.Or(s.Pool, base.Pool), Preamble: cmp.Or(s.Preamble, base.Preamble),
		Find: cmp.Or(s.Find, base.Find), Day: s.Day || base.Day, Rows: cmp.Or(s.Rows, base.Rows),
	}
}

// assign sets one key from a matrix or from --set; a name it does not know is a
// parameter of the pipeline.
func (s *settings) assign(key string, v any, params map[string]any) error {
	text := func(to *string) error {
		t, ok := v.(string)
		if !ok {
			return fmt.Errorf("want a name, got %v", v)
		}
		*to = t
		return nil
	}
	number, isNumber := toFloat(v)
	count := func(to *whole) error {
		if !isNumber || number != float64(int(number)) || number < 1 {
			return fmt.Errorf("want a whole number of 1 or more, got %v", v)
		}
		*to = whole(number)
		return nil
	}
	switch key {
	case "app":
		return text(&s.App)
	case "pipeline":
		return text(&s.Pipeline)
	case "site":
		return text(&s.Site)
	case "model":
		return text(&s.Model)
	case "small":
		return text(&s.Small)
	case "mode":
		return text(&s.Mode)
	case "scale":
		return text(&s.Scale)
	case "scenario":
		return text(&s.Scenario)
	case "trace":
		return text(&s.Trace)
	case "library":
		return text(&s.Library)
	case "rows":
		return text(&s.Rows)
	case "find":
		return s.look(v)
	case "day":
		on, ok := v.(bool)
		if !ok && v != "true" && v != "false" {
			return fmt.Errorf("want true or false, got %v", v)
		}
		s.Day = on || v == "true"
		return nil
	}
	if to := map[string]*whole{"users": &s.Users, "requests": &s.Requests, "pool": &s.Pool, "preamble": &s.Preamble, "warmup": &s.Warmup, "repeats": &s.Repeats, "seed": &s.Seed}[key]; to != nil {
		return count(to)
	}
	if to := map[string]*float64{"rate": &s.Rate, "rtt": &s.RTT, "mbps": &s.Mbps}[key]; to != nil {
		if !isNumber {
			return fmt.Errorf("want a number, got %v", v)
		}
		*to = number
		return nil
	}
	return param(key, v, params)
}

// param sets a parameter of a pipeline: a number, or one of the names that it knows.
func param(key string, v any, params map[string]any) error {
	if n, ok := toFloat(v); ok {
		params[key] = n
		return nil
	}
	if _, ok := v.(string); !ok {
		return fmt.Errorf("want a number or a name, got %v", v)
	}
	params[key] = v
	return nil
}

// assignAll sets several keys, in order of their names.
func (s *settings) assignAll(m map[string]any, params map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if err := s.assign(key, m[key], params); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

func toFloat(v any) (float64, bool) {
	switch n := v.(type) {
	case float64:
		return n, true
	case uint64:
		return float64(n), true
	case int64:
		return float64(n), true
	case int:
		return float64(n), true
	}
	return 0, false
}

func (s settings) cell(name string) Cell {
	return Cell{
		Name: name, App: s.App, Pipeline: s.Pipeline, Site: s.Site, Model: s.Model, Small: s.Small, RTT: s.RTT, Mbps: s.Mbps, Mode: cmp.Or(s.Mode, "modelled"),
		Scale: cmp.Or(s.Scale, "task"), Scenario: s.Scenario, Rate: s.Rate, Users: int(max(s.Users, 1)),
		Requests: int(cmp.Or(s.Requests, 100)), Warmup: int(s.Warmup), Repeats: int(max(s.Repeats, 1)), Seed: uint64(cmp.Or(s.Seed, 1)), Trace: s.Trace, Library: s.Library,
		Pool: int(s.Pool), Preamble: int(s.Preamble), Find: s.Find.capacity(), Day: s.Day, Rows: rows(s.Rows),
	}
}

// rows is what a cell writes of its requests; full is the default and has no name.
func rows(s string) string {
	if s == "full" {
		return ""
	}
	return s
}
