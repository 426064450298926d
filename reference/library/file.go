package library

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"meibench/internal/strictyaml"
	"meibench/internal/units"
)

// MaxFile is the largest library file that is read, in bytes.
const MaxFile = 4 << 20

// mostBytes is the largest size: up to it every whole number is a float64, as which the reader gives it.
const mostBytes = 1 << 53

// document is a library as people write it.
//
//	name: wards
//	source: our files of May 2026
//	blocks:
//	  - {name: base, bytes: 770000000, layers: [0, 16]}
//	  - {name: cardiology adapter, bytes: 8400000}
//	models:
//	  - {name: base, blocks: [base]}
//	  - {name: cardiology, needs: [base], blocks: [cardiology adapter], adapter: cardiology adapter, weight: 3}
type document struct {
	Name   string      `yaml:"name"`
	Source string      `yaml:"source,omitempty"`
	Zipf   *float64    `yaml:"zipf,omitempty"` // exponent of popularity by the order of the models, in place of weights
	Blocks []blockText `yaml:"blocks"`
	Models []modelText `yaml:"models"`
}

type blockText struct {
	Name   string `yaml:"name"`
	Bytes  size   `yaml:"bytes"`
	SHA256 string `yaml:"sha256,omitempty"`
	Layers []int  `yaml:"layers,omitempty,flow"` // [lo, hi): those that it holds or completes
}

// size is a whole number of bytes; the reader alone would cut 2.5 down to 2.
type size float64

// MarshalYAML writes it without a point.
func (s size) MarshalYAML() (any, error) { return int64(s), nil }

type modelText struct {
	Name    string     `yaml:"name"`
	Family  string     `yaml:"family,omitempty"`
	Needs   []string   `yaml:"needs,omitempty,flow"`  // models whose blocks come first
	Blocks  []string   `yaml:"blocks,omitempty,flow"` // its own, in order of use
	Adapter string     `yaml:"adapter,omitempty"`
	Rungs   []rungText `yaml:"rungs,omitempty"`
	Weight  *float64   `yaml:"weight,omitempty"` // how often it is asked for, beside the others'
}

type rungText struct {
	Upto    string   `yaml:"upto"`              // the last block that it has
	Quality *float64 `yaml:"quality,omitempty"` // in [0, 1]
}

// Load reads a library from a file.
func Load(path string) (*Library, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > MaxFile {
		return nil, fmt.Errorf("%s: %d bytes: at most %d are read", path, info.Size(), MaxFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

// Parse reads a library from text; errors name the place or the model. It has been checked.
func Parse(name string, text []byte) (*Library, error) {
	var d document
	if err := strictyaml.Decode(name, text, MaxFile, &d); err != nil {
		return nil, err
	}
	l, err := d.library()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

func (d *document) library() (*Library, error) {
	l := &Library{Name: d.Name, Source: d.Source}
	if d.Name == "" {
		return nil, fmt.Errorf("library without a name: want name: WORD")
	}
	number, sum := map[string]int{}, units.Bytes(0)
	for _, b := range d.Blocks {
		block, err := b.block()
		if err != nil {
			return nil, fmt.Errorf("library %q: block %q: %w", d.Name, b.Name, err)
		}
		if _, ok := number[b.Name]; ok {
			return nil, fmt.Errorf("library %q: block %q is there twice", d.Name, b.Name)
		}
		number[b.Name] = len(l.Blocks)
		l.Blocks = append(l.Blocks, block)
		if sum += block.Bytes; sum > mostBytes {
			return nil, fmt.Errorf("library %q: block %q: with those before together they have more than %d bytes", d.Name, b.Name, mostBytes)
		}
	}
	if err := d.once(); err != nil {
		return nil, fmt.Errorf("library %q: %w", d.Name, err)
	}
	for i := range d.Models {
		m, err := d.model(i, number)
		if err != nil {
			return nil, fmt.Errorf("library %q: model %q: %w", d.Name, d.Models[i].Name, err)
		}
		l.Models = append(l.Models, m)
	}
	if err := d.popularity(l); err != nil {
		return nil, fmt.Errorf("library %q: %w", d.Name, err)
	}
	return l, l.Check()
}

// once refuses models of one name before needs are resolved by name.
func (d *document) once() error {
	seen := map[string]bool{}
	for _, m := range d.Models {
		if seen[m.Name] {
			return fmt.Errorf("model %q is there twice", m.Name)
		}
		seen[m.Name] = true
	}
	return nil
}

// popularity is that of the models, as numbers or by a law.
func (d *document) popularity(l *Library) error {
	for i := range d.Models {
		w := d.Models[i].Weight
		switch {
		case w == nil:
			continue
		case !(*w > 0) || math.IsInf(*w, 0):
			return fmt.Errorf("model %q: weight %g: want a finite number above 0", d.Models[i].Name, *w)
		}
		l.Weights = append(l.Weights, *w)
	}
	n := len(l.Weights)
	switch {
	case n > 0 && d.Zipf != nil:
		return fmt.Errorf("zipf and weights: want one of them")
	case n > 0 && n < len(l.Models):
		return fmt.Errorf("%d of %d models have a weight: want all or none", n, len(l.Models))
	case d.Zipf != nil:
		if !(*d.Zipf >= 0 && *d.Zipf <= 10) {
			return fmt.Errorf("zipf %g: want 0 to 10", *d.Zipf)
		}
		l.Weights = Popularity{S: *d.Zipf}.Weights(len(l.Models))
	}
	return nil
}

func (b *blockText) block() (Block, error) {
	out := Block{Name: b.Name, Digest: b.SHA256, Bytes: units.Bytes(b.Bytes)}
	if n := float64(b.Bytes); !(n >= 1 && n <= mostBytes) || n != math.Trunc(n) {
		return out, fmt.Errorf("%g bytes: want a whole number of 1 to %d", n, mostBytes)
	}
	if b.SHA256 != "" && (len(b.SHA256) != 64 || strings.Trim(b.SHA256, "0123456789abcdef") != "") {
		return out, fmt.Errorf("sha256 %q: want 64 hexadecimal digits in lower case", b.SHA256)
	}
	switch len(b.Layers) {
	case 0:
	case 2:
		out.Lo, out.Hi = b.Layers[0], b.Layers[1]
	default:
		return out, fmt.Errorf("layers %v: want [first, behind the last]", b.Layers)
	}
	return out, nil
}

// model resolves what a model needs, and its blocks.
func (d *document) model(i int, number map[string]int) (Model, error) {
	t := &d.Models[i]
	m := Model{Name: t.Name, Family: t.Family, Adapter: t.Adapter}
	order, err := d.order(i, nil, nil)
	if err != nil {
		return m, err
	}
	own := len(m.Blocks)
	for _, k := range order {
		if k == i {
			own = len(m.Blocks)
		}
		seen := map[string]bool{}
		for _, name := range d.Models[k].Blocks {
			j, ok := number[name]
			switch {
			case !ok:
				return m, fmt.Errorf("block %q does not exist", name)
			case seen[name] || k == i && slices.Contains(m.Blocks[:own], j):
				return m, fmt.Errorf("block %q twice", name)
			}
			seen[name] = true
			if !slices.Contains(m.Blocks, j) { // two models that it needs may share it
				m.Blocks = append(m.Blocks, j)
			}
		}
	}
	for _, r := range t.Rungs {
		at := slices.IndexFunc(m.Blocks, func(j int) bool { return d.Blocks[j].Name == r.Upto })
		if at < 0 {
			return m, fmt.Errorf("rung up to block %q, which it does not have", r.Upto)
		}
		quality := math.NaN()
		if r.Quality != nil {
			if quality = *r.Quality; math.IsNaN(quality) {
				return m, fmt.Errorf("rung up to block %q: quality is no number: leave it out where it is not known", r.Upto)
			}
		}
		m.Rungs = append(m.Rungs, Rung{at + 1, quality})
	}
	return m, nil
}

// order are the models that model i needs, each behind what it needs itself, and model i.
func (d *document) order(i int, path []string, done []int) ([]int, error) {
	t := &d.Models[i]
	if at := slices.Index(path, t.Name); at >= 0 {
		return nil, fmt.Errorf("models need each other: %s", strings.Join(append(path[at:], t.Name), " needs "))
	}
	path = append(path, t.Name)
	for _, name := range t.Needs {
		k := slices.IndexFunc(d.Models, func(m modelText) bool { return m.Name == name })
		if k < 0 {
			return nil, fmt.Errorf("needs model %q, which does not exist", name)
		}
		if slices.Contains(done, k) {
			continue
		}
		var err error
		if done, err = d.order(k, path, done); err != nil {
			return nil, err
		}
	}
	return append(done, i), nil
}

// Text writes a library as Parse reads it, every model with all its blocks; a library that is too long for a file is an error.
func (l *Library) Text() ([]byte, error) {
	d := document{Name: l.Name, Source: l.Source}
	for _, b := range l.Blocks {
		t := blockText{Name: b.Name, Bytes: size(b.Bytes), SHA256: b.Digest}
		if b.Lo != 0 || b.Hi != 0 {
			t.Layers = []int{b.Lo, b.Hi}
		}
		d.Blocks = append(d.Blocks, t)
	}
	for i, m := range l.Models {
		t := modelText{Name: m.Name, Family: m.Family, Adapter: m.Adapter}
		for _, j := range m.Blocks {
			t.Blocks = append(t.Blocks, l.Blocks[j].Name)
		}
		for _, r := range m.Rungs {
			rung := rungText{Upto: l.Blocks[m.Blocks[r.Blocks-1]].Name}
			if q := r.Quality; !math.IsNaN(q) {
				rung.Quality = &q
			}
			t.Rungs = append(t.Rungs, rung)
		}
		if l.Weights != nil {
			t.Weight = &l.Weights[i]
		}
		d.Models = append(d.Models, t)
	}
	text, err := strictyaml.Encode(d)
	if err != nil {
		return nil, err
	}
	if len(text) > MaxFile {
		return nil, fmt.Errorf("library %q: its text has %d bytes: at most %d are read", l.Name, len(text), MaxFile)
	}
	if err := strictyaml.Bound("text of library "+l.Name, string(text)); err != nil {
		return nil, err
	}
	return text, nil
}
