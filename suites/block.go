package suites

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// part is one of several blocks of a suite.
type part struct {
	Name     string                    `yaml:"name" json:"name"`
	Question string                    `yaml:"question" json:"question,omitempty"`
	Defaults settings                  `yaml:"defaults" json:"defaults"`
	Matrix   yaml.MapSlice             `yaml:"matrix" json:"-"`
	Axes     []axis                    `yaml:"-" json:"matrix"`
	By       conditions                `yaml:"by" json:"by,omitempty"`
	Params   map[string]map[string]any `yaml:"params" json:"params,omitempty"`
}

// conditions are what holds where an axis has a value: axis, value, settings.
type conditions map[string]map[string]map[string]any

// block is one matrix with all that holds in it, of a suite or of a part.
type block struct {
	where    string // for errors: file, and the part
	part     string // "" = the suite has none
	defaults *settings
	axes     *[]axis
	by       conditions
	params   map[string]map[string]any
}

var partName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// prepare reads the matrices, applies overrides, and returns the blocks.
func (f *file) prepare(where string, set []Set) (blocks []block, err error) {
	if f.Axes, err = axesOf(where, f.Matrix); err != nil {
		return nil, err
	}
	if len(f.Parts) == 0 {
		blocks = []block{{where, "", &f.Defaults, &f.Axes, f.By, f.Params}}
	} else if len(f.Axes) > 0 || len(f.By) > 0 {
		return nil, fmt.Errorf("%s: a suite with parts has its matrix and its conditions (by) in the parts; move them there", where)
	}
	for i := range f.Parts {
		p := &f.Parts[i]
		at := fmt.Sprintf("%s: parts[%d] %s", where, i, p.Name)
		if !partName.MatchString(p.Name) {
			return nil, fmt.Errorf("%s: a part needs a name of small letters, digits and hyphens, got %q", at, p.Name)
		}
		if slices.ContainsFunc(f.Parts[:i], func(q part) bool { return q.Name == p.Name }) {
			return nil, fmt.Errorf("%s: two parts are called %q", at, p.Name)
		}
		if p.Axes, err = axesOf(at, p.Matrix); err != nil {
			return nil, err
		}
		p.Defaults = p.Defaults.over(f.Defaults)
		blocks = append(blocks, block{at, p.Name, &p.Defaults, &p.Axes, p.By, mergeParams(f.Params, p.Params)})
	}
	for _, o := range set {
		for _, b := range blocks {
			if err := b.override(o); err != nil {
				return nil, fmt.Errorf("%s: %w", b.where, err)
			}
		}
	}
	return blocks, nil
}

// axesOf reads a matrix in the order in which it is written.
func axesOf(where string, matrix yaml.MapSlice) (axes []axis, err error) {
	for _, item := range matrix {
		key, _ := item.Key.(string)
		values, ok := item.Value.([]any)
		if !ok || len(values) == 0 {
			return nil, fmt.Errorf("%s: matrix.%s: want a list of values, got %v", where, key, item.Value)
		}
		axes = append(axes, axis{key, values})
	}
	return axes, nil
}

// mergeParams puts the parameters of a part over those of its suite.
func mergeParams(suite, part map[string]map[string]any) map[string]map[string]any {
	out := map[string]map[string]any{}
	for _, from := range []map[string]map[string]any{suite, part} {
		for pipeline, params := range from {
			merged := maps.Clone(out[pipeline])
			if merged == nil {
				merged = map[string]any{}
			}
			maps.Copy(merged, params)
			out[pipeline] = merged
		}
	}
	return out
}

// override puts a Set in place of the axis or the default of that key, or makes
// it the last axis.
func (b block) override(set Set) error {
	for _, values := range b.by { // the command line has the last word
		for _, then := range values {
			delete(then, set.Key)
		}
	}
	i := slices.IndexFunc(*b.axes, func(a axis) bool { return a.Key == set.Key })
	if len(set.Values) == 1 {
		params := map[string]any{}
		err := b.defaults.assign(set.Key, set.Values[0], params)
		if err != nil {
			return fmt.Errorf("--set %s: %w", set.Key, err)
		}
		if len(params) == 0 {
			if i >= 0 {
				*b.axes = slices.Delete(*b.axes, i, i+1)
				delete(b.by, set.Key)
			}
			return nil
		}
	}
	if i < 0 {
		*b.axes = append(*b.axes, axis(set))
	} else {
		(*b.axes)[i] = axis(set)
	}
	return nil
}

// checkBy refuses conditions that can never hold.
func (b block) checkBy() error {
	for _, key := range slices.Sorted(maps.Keys(b.by)) {
		i := slices.IndexFunc(*b.axes, func(a axis) bool { return a.Key == key })
		if i < 0 {
			return fmt.Errorf("%s: by.%s: the matrix has no axis %s", b.where, key, key)
		}
	}
	return nil
}

// expand crosses the axes, the last one fastest.
func (s *Suite) expand(b block) error {
	axes, total := *b.axes, 1
	for _, a := range axes {
		if total *= len(a.Values); total+len(s.Cells) > 1_000_000 {
			return fmt.Errorf("%s: the matrix has more than a million cells; use fewer values", b.where)
		}
	}
	seen := map[string]bool{}
	for i := range total {
		c, err := b.cell(i)
		if err != nil {
			return err
		}
		if err := c.check(); err != nil {
			return fmt.Errorf("%s: cells[%d] %s: %w", b.where, i, c.Name, err)
		}
		if seen[c.Name] {
			return fmt.Errorf("%s: two cells are called %q", b.where, c.Name)
		}
		seen[c.Name] = true
		s.Cells = append(s.Cells, c)
	}
	return nil
}

// cell is the i-th cell of the product.
func (b block) cell(i int) (Cell, error) {
	set, rest, axes := *b.defaults, i, *b.axes
	params := map[string]any{}
	picks := make([]int, len(axes))
	for k := len(axes) - 1; k >= 0; k-- {
		picks[k], rest = rest%len(axes[k].Values), rest/len(axes[k].Values)
	}
	var name []string
	if b.part != "" {
		name = []string{"part=" + b.part}
	}
	for k, a := range axes {
		v := a.Values[picks[k]]
		if err := set.assign(a.Key, v, params); err != nil {
			return Cell{}, fmt.Errorf("%s: matrix.%s[%d]: %w", b.where, a.Key, picks[k], err)
		}
		name = append(name, fmt.Sprintf("%s=%v", a.Key, v))
		if err := set.assignAll(b.by[a.Key][fmt.Sprint(v)], params); err != nil {
			return Cell{}, fmt.Errorf("%s: by.%s.%v: %w", b.where, a.Key, v, err)
		}
	}
	c := set.cell(cmp.Or(strings.Join(name, "/"), "cell"))
	c.Part = b.part
	for key, v := range b.params[c.Pipeline] {
		if _, ok := params[key]; ok {
			continue
		}
		if err := param(key, v, params); err != nil {
			return Cell{}, fmt.Errorf("%s: params.%s.%s: %w", b.where, c.Pipeline, key, err)
		}
	}
	if len(params) > 0 {
		c.Params = params
	}
	return c, nil
}
