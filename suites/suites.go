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
// What one matrix cannot say, parts can: a list of such blocks, each with a name,
// whose defaults come on top of those of the suite. The first part asks the
// suite's question; the others are sweeps that explain the answer.
//
//	parts:
//	  - {name: placements, matrix: {pipeline: [local, offload, split]}}
//	  - {name: cuts, defaults: {pipeline: split}, matrix: {cut: [1, 2, 3]}}
//
// The package knows names, not things: whether a pipeline or a site exists is
// checked by whoever runs the suite, before anything runs.
package suites

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

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
	Name     string         `json:"name"`           // app=…/pipeline=…/…, unique in the suite
	Part     string         `json:"part,omitempty"` // of the suite, if it has parts
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
	Library  string         `json:"library,omitempty"`  // models that requests ask for, for pipelines that cache and deliver them
	Pool     int            `json:"pool,omitempty"`     // different questions that people ask, task requests; 0 = each its own
	Preamble int            `json:"preamble,omitempty"` // tokens that every prompt begins with, field requests
	Small    string         `json:"small,omitempty"`    // the draft or the small model, for pipelines that use two
	RTT      float64        `json:"rtt,omitempty"`      // s, of the users' link instead of its profile's; 0 = the profile's
	Mbps     float64        `json:"mbps,omitempty"`     // of the users' link, both ways, instead of its profile's; 0 = the profile's
	Params   map[string]any `json:"params,omitempty"`   // of the pipeline: numbers (float64) and names (string)
	Rows     string         `json:"rows,omitempty"`     // what of each request is written down: "" = all, or "brief": no spans, and of the tokens the first and the last
	Day      bool           `json:"day,omitempty"`      // the application's day curve modulates the rate
	Find     *Capacity      `json:"find,omitempty"`     // look for the capacity, starting at Rate; nil = run at Rate
}

// file is the YAML form: one block, or several as parts.
type file struct {
	Name     string                    `yaml:"name" json:"name"`
	Question string                    `yaml:"question" json:"question"`
	Source   string                    `yaml:"source" json:"source,omitempty"`
	Defaults settings                  `yaml:"defaults" json:"defaults"`
	Matrix   yaml.MapSlice             `yaml:"matrix" json:"-"`
	Axes     []axis                    `yaml:"-" json:"matrix"`
	By       conditions                `yaml:"by" json:"by,omitempty"`
	Params   map[string]map[string]any `yaml:"params" json:"params,omitempty"`
	Parts    []part                    `yaml:"parts" json:"parts,omitempty"`
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

// Parse reads a suite from YAML; where is named in errors. Overrides count as
// part of the suite: they change its hash.
func Parse(where string, text []byte, set ...Set) (*Suite, error) {
	var f file
	if err := strictyaml.Decode(where, text, MaxFile, &f); err != nil {
		return nil, err
	}
	blocks, err := f.prepare(where, set)
	if err != nil {
		return nil, err
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
	for _, b := range blocks {
		if find := b.defaults.Find; find != nil && find.Capacity == nil {
			return nil, fmt.Errorf("%s: defaults.find: say what: {capacity: {}} takes every default", b.where)
		}
		if err := b.checkBy(); err != nil {
			return nil, err
		}
		if err := s.expand(b); err != nil {
			return nil, err
		}
	}
	return s, nil
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
	case c.Rows != "" && c.Rows != "brief":
		return fmt.Errorf("rows: want full or brief, got %q", c.Rows)
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
