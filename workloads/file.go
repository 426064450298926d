package workloads

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"meibench/internal/canon"
	"meibench/internal/sourced"
	"meibench/internal/strictyaml"
	"meibench/workloads/arrival"
	"meibench/workloads/length"
	"meibench/workloads/traces"
)

// MaxFile is the largest workload file that is read.
const MaxFile = 1 << 20

// File is a workload file: an application of one's own, or a change of one of
// ours, and how it is run.
//
//	name: night-shift
//	base: healthcare              # take what is not given from here
//	per_user: {value: 0.002, unit: 1/s, source: ward log of May 2025, kind: measured}
//	limits:
//	  - {metric: e2e, percentile: 0.95, bound: {value: 30, unit: s, source: our ward, kind: assumed}}
//	run: {scenario: open, users: 4, requests: 1000, context: 8192}
//
// A section given replaces the section of the base as a whole. Every number of
// an application is {value, unit, source, kind}; the numbers of run are choices
// and stand alone.
type File struct {
	App   App    `json:"app"`
	Spec  Spec   `json:"spec"`
	Trace string `json:"trace,omitempty"` // path of the trace to replay, as written
}

// document is the YAML form; nil means not given.
type document struct {
	Name               string          `yaml:"name"`
	Base               string          `yaml:"base"`
	About              string          `yaml:"about"`
	Task               string          `yaml:"task"`
	Scenario           Scenario        `yaml:"scenario"`
	Privacy            *Privacy        `yaml:"privacy"`
	Arrivals           *arrival.Spec   `yaml:"arrivals"`
	PerUser            *sourced.Number `yaml:"per_user"`
	Prompt             *length.Spec    `yaml:"prompt"`
	Follow             *length.Spec    `yaml:"follow"`
	Output             *length.Spec    `yaml:"output"`
	Rho                *sourced.Number `yaml:"rho"`
	Images             *length.Spec    `yaml:"images"`
	ImageTokens        *length.Spec    `yaml:"image_tokens"`
	BytesPerImageToken *sourced.Number `yaml:"bytes_per_image_token"`
	Sensor             *length.Spec    `yaml:"sensor"`
	SensorKind         string          `yaml:"sensor_kind"`
	BytesPerToken      *sourced.Number `yaml:"bytes_per_token"`
	Turns              *length.Spec    `yaml:"turns"`
	Think              *length.Spec    `yaml:"think"`
	Read               *sourced.Number `yaml:"read"`
	Limits             []Limit         `yaml:"limits"`
	Run                runSection      `yaml:"run"`
}

// runSection holds counts as floats: the YAML reader would cut 2.5 down to 2.
type runSection struct {
	Tier       string   `yaml:"tier"`
	Scenario   Scenario `yaml:"scenario"`
	Scale      Scale    `yaml:"scale"`
	Difficulty string   `yaml:"difficulty"`
	Rate       float64  `yaml:"rate"`
	Users      float64  `yaml:"users"`
	Requests   float64  `yaml:"requests"`
	HorizonS   float64  `yaml:"horizon_s"`
	Context    float64  `yaml:"context"`
	Day        bool     `yaml:"day"`
	Trace      string   `yaml:"trace"`
}

// LoadFile reads a workload file.
func LoadFile(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read workload: %w", err)
	}
	if info.Size() > MaxFile {
		return nil, tooLarge(path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read workload: %w", err)
	}
	return Parse(path, text)
}

func tooLarge(name string, size int64) error {
	return fmt.Errorf("%s: a workload file may have at most %d bytes, this one has %d", name, MaxFile, size)
}

// Parse reads a workload file; name stands in errors, which say file, line,
// column, what is wrong and what would be right, and show the lines.
func Parse(name string, text []byte) (*File, error) {
	if len(text) > MaxFile {
		return nil, tooLarge(name, int64(len(text)))
	}
	tree, err := strictyaml.Parse(name, text, MaxFile)
	if err != nil {
		return nil, err
	}
	var doc document
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&doc); err != nil {
		return nil, strictyaml.Located(name, err)
	}
	at := position{name, text, tree}
	f := &File{Trace: doc.Run.Trace}
	if f.App, err = doc.app(); err != nil {
		return nil, at.of(err)
	}
	if f.Spec, err = doc.Run.spec(&f.App); err != nil {
		return nil, at.of(err)
	}
	// A trial with stand-ins for what a run brings checks the rest.
	trial := Deps{App: &f.App, Tokenizer: standIn{}, Trace: &traces.Trace{Rows: make([]traces.Row, 2)}}
	trial.Trace.Rows[1].At = time.Second
	if _, err := New(f.Spec, trial); err != nil {
		return nil, at.of(err)
	}
	return f, nil
}

// New makes the workload of the file. Deps.App is the file's.
func (f *File) New(deps Deps) (*Workload, error) {
	deps.App = &f.App
	return New(f.Spec, deps)
}

// Canonical is the file as JSON in one form: comments, order and spaces of the
// YAML do not count. It is what identifies the file.
func (f *File) Canonical() ([]byte, error) { return canon.JSON(f) }

type standIn struct{}

// Encode makes one token.
func (standIn) Encode(string) []int32 { return []int32{0} }

// app applies the document to its base.
func (d *document) app() (App, error) {
	var a App
	if d.Base != "" {
		base, err := Lookup(d.Base)
		if err != nil {
			return a, sourced.Within("base", err)
		}
		a = base
		a.Facts = nil // they speak of the base
	}
	a.Name = d.Name
	for _, t := range []struct {
		from string
		to   *string
	}{{d.About, &a.About}, {d.Task, &a.Task}, {d.SensorKind, &a.SensorKind}, {string(d.Scenario), (*string)(&a.Scenario)}} {
		if t.from != "" {
			*t.to = t.from
		}
	}
	replace(d.Privacy, &a.Privacy)
	replace(d.Arrivals, &a.Arrivals)
	for _, n := range []struct{ from, to *sourced.Number }{
		{d.PerUser, &a.PerUser}, {d.Rho, &a.Rho}, {d.BytesPerImageToken, &a.BytesPerImageToken},
		{d.BytesPerToken, &a.BytesPerToken}, {d.Read, &a.Read},
	} {
		replace(n.from, n.to)
	}
	for _, l := range []struct{ from, to *length.Spec }{
		{d.Prompt, &a.Prompt}, {d.Follow, &a.Follow}, {d.Output, &a.Output}, {d.Images, &a.Images},
		{d.ImageTokens, &a.ImageTokens}, {d.Sensor, &a.Sensor}, {d.Turns, &a.Turns}, {d.Think, &a.Think},
	} {
		replace(l.from, l.to)
	}
	if d.Limits != nil {
		a.Limits = d.Limits
	}
	return a, a.Validate()
}

func replace[T any](from, to *T) {
	if from != nil {
		*to = *from
	}
}

func (r *runSection) spec(app *App) (Spec, error) {
	s := Spec{App: app.Name, Tier: r.Tier, Scenario: r.Scenario, Scale: r.Scale, Difficulty: r.Difficulty, Rate: r.Rate, Day: r.Day}
	for _, n := range []struct {
		name string
		from float64
		to   *int
	}{{"users", r.Users, &s.Users}, {"requests", r.Requests, &s.Requests}, {"context", r.Context, &s.Context}} {
		if !(n.from >= 0 && n.from <= 1e12) || n.from != math.Trunc(n.from) {
			return s, sourced.Within("run."+n.name, fmt.Errorf("want a whole number from 0 to 1e12, got %g", n.from))
		}
		*n.to = int(n.from)
	}
	if !(r.HorizonS >= 0 && r.HorizonS <= 1e9) {
		return s, sourced.Within("run.horizon_s", fmt.Errorf("want 0 to 1e9 seconds, got %g", r.HorizonS))
	}
	s.Horizon = duration(r.HorizonS)
	switch scenario := cmp.Or(r.Scenario, app.Scenario); {
	case scenario == Replay && r.Trace == "":
		return s, sourced.Within("run.trace", errors.New("scenario trace needs the path of a trace"))
	case scenario != Replay && r.Trace != "":
		return s, sourced.Within("run.trace", fmt.Errorf("scenario %q replays no trace: remove it, or choose scenario trace", string(scenario)))
	}
	return s, nil
}

// position knows where the fields of a file stand.
type position struct {
	name string
	text []byte
	tree *ast.File
}

// runFields are the fields of a Spec that stand in the section run.
var runFields = [...]string{"context", "day", "difficulty", "rate", "requests", "scale", "scenario", "tier", "users"}

// of puts an error at the place of its field, or of the nearest section that
// exists, and shows the line.
func (p position) of(err error) error {
	var field *sourced.FieldError
	if !errors.As(err, &field) {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	paths := []string{field.Path}
	for _, f := range runFields {
		if field.Path == f && p.find("run."+f) != nil {
			paths = []string{"run." + f}
		}
	}
	if field.Path == "horizon" {
		paths = []string{"run.horizon_s"}
	}
	for path := paths[0]; path != ""; path = parentOf(path) {
		node := p.find(path)
		if node == nil {
			continue
		}
		at := node.GetToken().Position
		return fmt.Errorf("%s:%d:%d: %w\n%s", p.name, at.Line, at.Column, field, p.show(at.Line, at.Column))
	}
	return fmt.Errorf("%s:1:1: %w\n%s", p.name, field, p.show(1, 1))
}

// parentOf drops the last part of a path: limits[0].bound, limits[0], limits.
func parentOf(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}

func (p position) find(path string) ast.Node {
	yp, err := yaml.PathString("$." + path)
	if err != nil {
		return nil
	}
	node, err := yp.FilterFile(p.tree)
	if err != nil || node == nil || node.GetToken() == nil {
		return nil
	}
	return node
}

// show prints a line with the one before and marks a column.
func (p position) show(line, column int) string {
	var b strings.Builder
	lines := strings.Split(string(p.text), "\n")
	for i := max(1, line-1); i <= min(line, len(lines)); i++ {
		mark := " "
		if i == line {
			mark = ">"
		}
		fmt.Fprintf(&b, "%s %3d | %s\n", mark, i, strings.TrimRight(lines[i-1], "\r"))
	}
	return b.String() + strings.Repeat(" ", column+7) + "^"
}
