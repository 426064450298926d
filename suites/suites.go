// Package suites turns a question into a table of cells.
//
// A suite is a strict YAML file: defaults, a matrix that is crossed in the
// order it is written, and parameters. It expands to cells, each of which is
// one thing to run: workload × pipeline × site × model × mode × seed.
//
//	name: quickstart
//	question: Which placement meets each application's limits on this machine?
//	defaults: {site: this-machine, model: mei-small, scale: task, requests: 12}
//	matrix:
//	  app: [assistant, ar]
//	  pipeline: [local, offload, split]
//	  mode: [measured, modelled]
//	by: # what holds where an axis has a value
//	  app: {ar: {site: glasses-wifi-edge}}
//
// The package knows names, not things: whether a pipeline or a site exists is
// checked by whoever runs the suite, before anything runs.
package suites

import (
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"meibench/internal/strictyaml"
)

// MaxFile is the largest suite file that is read.
const MaxFile = 1 << 20

// Modes are the ways to run a cell, in the order they are run.
var Modes = []string{"measured", "emulated", "modelled", "conformance"}

// Suite is a named question and the cells that answer it.
type Suite struct {
	Name     string
	Question string
	Source   string // where the design of the suite comes from
	Text     []byte // the file as read
	Hash     string // SHA-256 over the canonical JSON form: comments do not count
	Cells    []Cell
}

// Cell is one thing to run.
type Cell struct {
	Name     string         `json:"name"` // app=…/pipeline=…/…, unique in the suite
	App      string         `json:"app"`
	Pipeline string         `json:"pipeline"`
	Site     string         `json:"site"`
	Model    string         `json:"model"`
	Mode     string         `json:"mode"`
	Scale    string         `json:"scale"`    // task or field
	Scenario string         `json:"scenario"` // "" = the application's own
	Rate     float64        `json:"rate"`     // requests per second; 0 = the application's own
	Users    int            `json:"users"`
	Requests int            `json:"requests"`
	Warmup   int            `json:"warmup"`
	Repeats  int            `json:"repeats"`
	Seed     uint64         `json:"seed"`
	Trace    string         `json:"trace,omitempty"`
	Small    string         `json:"small,omitempty"`  // the draft or the small model, for pipelines that use two
	RTT      float64        `json:"rtt,omitempty"`    // s, of the users' link instead of its profile's; 0 = the profile's
	Mbps     float64        `json:"mbps,omitempty"`   // of the users' link, both ways, instead of its profile's; 0 = the profile's
	Params   map[string]any `json:"params,omitempty"` // of the pipeline: numbers (float64) and names (string)
	Find     *Capacity      `json:"find,omitempty"`   // look for the capacity, starting at Rate; nil = run at Rate
}

// file is the YAML form.
type file struct {
	Name     string                               `yaml:"name" json:"name"`
	Question string                               `yaml:"question" json:"question"`
	Source   string                               `yaml:"source" json:"source,omitempty"`
	Defaults settings                             `yaml:"defaults" json:"defaults"`
	Matrix   yaml.MapSlice                        `yaml:"matrix" json:"-"`
	Axes     []axis                               `yaml:"-" json:"matrix"`
	By       map[string]map[string]map[string]any `yaml:"by" json:"by,omitempty"` // axis, its value, what then holds
	Params   map[string]map[string]any            `yaml:"params" json:"params,omitempty"`
}

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

//go:embed files/*.yaml
var embedded embed.FS

// Names lists the embedded suites.
func Names() []string {
	files, err := fs.Glob(embedded, "files/*.yaml")
	if err != nil {
		panic(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(path.Base(f), ".yaml"))
	}
	slices.Sort(names)
	return names
}

// Load returns an embedded suite by name, or reads a file if the argument looks
// like a path.
func Load(name string, set ...Set) (*Suite, error) {
	if slices.Contains(Names(), name) {
		text, err := embedded.ReadFile("files/" + name + ".yaml")
		if err != nil {
			return nil, err
		}
		return Parse(name+".yaml", text, set...)
	}
	if !strings.ContainsAny(name, "./\\") {
		return nil, fmt.Errorf("unknown suite %q (have %s; a file needs its path, as ./%s.yaml)", name, strings.Join(Names(), ", "), name)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read suite: %w", err)
	}
	if info.Size() > MaxFile {
		return nil, fmt.Errorf("%s: a suite file may have at most %d bytes, this one has %d", name, MaxFile, info.Size())
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read suite: %w", err)
	}
	return Parse(name, text, set...)
}

// Set overrides a key of a suite: one value replaces it, several make it an
// axis. A pipeline's parameter always becomes an axis, so that names show it.
type Set struct {
	Key    string
	Values []any
}

// ParseSet reads a --set argument, key=value[,value...]; numbers are numbers.
func ParseSet(arg string) (Set, error) {
	key, list, ok := strings.Cut(arg, "=")
	if !ok || key == "" || list == "" {
		return Set{}, fmt.Errorf("--set %s: want key=value[,value...]", arg)
	}
	set := Set{Key: key}
	for _, v := range strings.Split(list, ",") {
		if n, err := strconv.ParseFloat(v, 64); err == nil {
			set.Values = append(set.Values, n)
		} else {
			set.Values = append(set.Values, v)
		}
	}
	return set, nil
}

// override puts a Set in place of the axis or the default of that key, or makes
// it the last axis.
func (f *file) override(set Set) error {
	for _, values := range f.By { // the command line has the last word
		for _, then := range values {
			delete(then, set.Key)
		}
	}
	i := slices.IndexFunc(f.Axes, func(a axis) bool { return a.Key == set.Key })
	if len(set.Values) == 1 {
		params := map[string]any{}
		err := f.Defaults.assign(set.Key, set.Values[0], params)
		if err != nil {
			return fmt.Errorf("--set %s: %w", set.Key, err)
		}
		if len(params) == 0 {
			if i >= 0 {
				f.Axes = slices.Delete(f.Axes, i, i+1)
				delete(f.By, set.Key)
			}
			return nil
		}
	}
	if i < 0 {
		f.Axes = append(f.Axes, axis(set))
	} else {
		f.Axes[i] = axis(set)
	}
	return nil
}

// Parse reads a suite from YAML; where is named in errors. Overrides count as
// part of the suite: they change its hash.
func Parse(where string, text []byte, set ...Set) (*Suite, error) {
	var f file
	if err := strictyaml.Decode(where, text, MaxFile, &f); err != nil {
		return nil, err
	}
	for _, item := range f.Matrix {
		key, _ := item.Key.(string)
		values, ok := item.Value.([]any)
		if !ok || len(values) == 0 {
			return nil, fmt.Errorf("%s: matrix.%s: want a list of values, got %v", where, key, item.Value)
		}
		f.Axes = append(f.Axes, axis{key, values})
	}
	for _, o := range set {
		if err := f.override(o); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
	}
	s := &Suite{Name: f.Name, Question: f.Question, Source: f.Source, Text: text}
	canonical, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	sum := sha256.Sum256(canonical)
	s.Hash = hex.EncodeToString(sum[:])
	if f.Name == "" || f.Question == "" {
		return nil, fmt.Errorf("%s: a suite needs a name and a question", where)
	}
	if f.Defaults.Find != nil && f.Defaults.Find.Capacity == nil {
		return nil, fmt.Errorf("%s: defaults.find: say what: {capacity: {}} takes every default", where)
	}
	if err := f.checkBy(where); err != nil {
		return nil, err
	}
	if err := s.expand(where, f); err != nil {
		return nil, err
	}
	return s, nil
}

// checkBy refuses conditions that can never hold.
func (f *file) checkBy(where string) error {
	for _, key := range slices.Sorted(maps.Keys(f.By)) {
		i := slices.IndexFunc(f.Axes, func(a axis) bool { return a.Key == key })
		if i < 0 {
			return fmt.Errorf("%s: by.%s: the matrix has no axis %s", where, key, key)
		}
	}
	return nil
}

// expand crosses the axes, the last one fastest.
func (s *Suite) expand(where string, f file) error {
	total := 1
	for _, a := range f.Axes {
		if total *= len(a.Values); total > 1_000_000 {
			return fmt.Errorf("%s: the matrix has more than a million cells; use fewer values", where)
		}
	}
	seen := map[string]bool{}
	for i := range total {
		set, rest := f.Defaults, i
		params := map[string]any{}
		var name []string
		picks := make([]int, len(f.Axes))
		for k := len(f.Axes) - 1; k >= 0; k-- {
			picks[k], rest = rest%len(f.Axes[k].Values), rest/len(f.Axes[k].Values)
		}
		for k, a := range f.Axes {
			v := a.Values[picks[k]]
			if err := set.assign(a.Key, v, params); err != nil {
				return fmt.Errorf("%s: matrix.%s[%d]: %w", where, a.Key, picks[k], err)
			}
			name = append(name, fmt.Sprintf("%s=%v", a.Key, v))
			if err := set.assignAll(f.By[a.Key][fmt.Sprint(v)], params); err != nil {
				return fmt.Errorf("%s: by.%s.%v: %w", where, a.Key, v, err)
			}
		}
		c := set.cell(cmp.Or(strings.Join(name, "/"), "cell"))
		for key, v := range f.Params[c.Pipeline] {
			if _, ok := params[key]; ok {
				continue
			}
			if err := param(key, v, params); err != nil {
				return fmt.Errorf("%s: params.%s.%s: %w", where, c.Pipeline, key, err)
			}
		}
		if len(params) > 0 {
			c.Params = params
		}
		if err := c.check(); err != nil {
			return fmt.Errorf("%s: cells[%d] %s: %w", where, i, c.Name, err)
		}
		if seen[c.Name] {
			return fmt.Errorf("%s: two cells are called %q", where, c.Name)
		}
		seen[c.Name] = true
		s.Cells = append(s.Cells, c)
	}
	return nil
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
	case "find":
		return s.look(v)
	case "users":
		return count(&s.Users)
	case "requests":
		return count(&s.Requests)
	case "warmup":
		return count(&s.Warmup)
	case "repeats":
		return count(&s.Repeats)
	case "seed":
		return count(&s.Seed)
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
		Requests: int(cmp.Or(s.Requests, 100)), Warmup: int(s.Warmup), Repeats: int(max(s.Repeats, 1)), Seed: uint64(cmp.Or(s.Seed, 1)), Trace: s.Trace,
		Find: s.Find.capacity(),
	}
}

func (c Cell) check() error {
	for _, f := range []struct{ key, value string }{{"app", c.App}, {"pipeline", c.Pipeline}, {"site", c.Site}, {"model", c.Model}} {
		if f.value == "" {
			return fmt.Errorf("%s is not set, neither in defaults nor in the matrix", f.key)
		}
	}
	switch {
	case !slices.Contains(Modes, c.Mode):
		return fmt.Errorf("unknown mode %q (have %s)", c.Mode, strings.Join(Modes, ", "))
	case c.Scale != "task" && c.Scale != "field":
		return fmt.Errorf("unknown scale %q (have task, field)", c.Scale)
	case !(c.RTT >= 0) || c.RTT > 60:
		return fmt.Errorf("rtt: want 0 to 60 s, got %g", c.RTT)
	case !(c.Mbps >= 0) || c.Mbps > 1e6:
		return fmt.Errorf("mbps: want 0 to 1,000,000 Mbit/s, got %g", c.Mbps)
	case c.Rate < 0 || c.Rate != c.Rate:
		return fmt.Errorf("rate: want 0 or more requests per second, got %g", c.Rate)
	case c.Requests > 1_000_000_000 || c.Repeats > 100_000 || c.Users > 10_000_000:
		return fmt.Errorf("requests, repeats or users are beyond reason: %d, %d, %d", c.Requests, c.Repeats, c.Users)
	}
	return c.Find.check()
}

// Estimate is a rough idea of how long a cell's offered load lasts.
func (c Cell) Estimate(rate float64) time.Duration {
	if c.Rate > 0 {
		rate = c.Rate
	}
	if rate <= 0 {
		return 0
	}
	return time.Duration(float64(c.Requests) / rate * float64(time.Second))
}
