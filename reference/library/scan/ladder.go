package scan

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"meibench/internal/rng"
	"meibench/reference/convert"
	"meibench/reference/gguf"
	"meibench/reference/library"
)

// LadderOptions say what a file becomes.
type LadderOptions struct {
	Name    string   // of the library; "" = made of the file's
	Recipes []string // of package convert, each once: the rungs
	Tunes   int      // fine-tunes that keep the file's lowest layers, each in every recipe; 0 = the file alone
}

// mostTunes is the most fine-tunes of a ladder: a library file holds few thousand names.
const mostTunes = 1000

// Ladder is the library of what package convert would make of a GGUF file by several recipes, without converting it. Every tensor has
// the bytes of the type that the recipe chooses for it by its name, shape and layer. Converting one tensor to one type
// gives the same bytes each time, so that recipes share the tensors that take the same type in them; each has a header of its own, of the
// size of the file's (what a recipe changes in it is left out).
//
// Fine-tunes keep the embedding and the lowest 60 to 90 % of the layers, as the kind finetunes of package library does (the range is
// assumed), and have what is above in bytes of their own. The quality of the rungs is not known.
func Ladder(path string, o LadderOptions) (*library.Library, error) {
	if len(o.Recipes) == 0 || o.Tunes < 0 || o.Tunes > mostTunes {
		return nil, fmt.Errorf("ladder of %s: %d recipes, %d fine-tunes: want one or more recipes of %s, and 0 to %d fine-tunes",
			path, len(o.Recipes), o.Tunes, strings.Join(convert.Names(), ", "), mostTunes)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("ladder: %w", err)
	}
	f, err := gguf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("ladder of %s: %w", path, err)
	}
	defer f.Close()
	if len(f.Tensors) == 0 {
		return nil, fmt.Errorf("ladder of %s: no tensors", path)
	}
	name := strings.TrimSuffix(filepath.Base(path), ".gguf")
	var plans []*convert.Plan
	for i, word := range o.Recipes {
		r, err := convert.Find(word)
		if err != nil {
			return nil, fmt.Errorf("ladder of %s: %w", path, err)
		}
		if slices.ContainsFunc(plans, func(p *convert.Plan) bool { return p.Recipe.Name == r.Name }) {
			return nil, fmt.Errorf("ladder of %s: recipe %d is %s again: want each once", path, i+1, r.Name)
		}
		p, err := convert.NewPlan(f, r, false)
		if err != nil {
			return nil, fmt.Errorf("ladder of %s: %w", path, err)
		}
		plans = append(plans, p)
	}
	var models []*model
	for _, t := range tunesOf(f, name, o.Tunes) {
		for _, p := range plans {
			models = append(models, t.model(p, headerBytes(f, info.Size())))
		}
	}
	lib := &library.Library{Name: cmp.Or(o.Name, "ladder of "+name), Source: "types that package convert chooses, tensor by tensor; qualities are not known"}
	if o.Tunes > 0 {
		lib.Source += "; which layers fine-tunes keep is assumed, 60 to 90 %"
	}
	merge(lib, models)
	for _, m := range models {
		entry := library.Model{Name: m.name, Family: name}
		for _, p := range m.parts {
			if n := len(entry.Blocks); n == 0 || entry.Blocks[n-1] != p.block {
				entry.Blocks = append(entry.Blocks, p.block)
			}
		}
		lib.Models = append(lib.Models, entry)
	}
	return lib, lib.Check()
}

// tune is a fine-tune of a file: tensors from layer own on are its own.
type tune struct {
	name string
	own  int
}

func tunesOf(f *gguf.File, name string, n int) []tune {
	if n == 0 {
		return []tune{{name, math.MaxInt}}
	}
	layers := 0
	for _, t := range f.Tensors {
		layers = max(layers, layerOf(t.Name, -1)+1)
	}
	luck := rng.Stream(1, "library", "finetunes")
	var out []tune
	for i := range n {
		share := 0.6 + float64(0.3*rng.Float64(luck))
		out = append(out, tune{fmt.Sprintf("%s fine-tune %d", name, i+1), int(math.Ceil(share * float64(layers)))})
	}
	return out
}

// model is the fine-tune as a plan would write it. What makes a tensor's bytes stands for them: its name, its type and whose it is.
func (t tune) model(p *convert.Plan, header0 int64) *model {
	steps := map[string]convert.Step{}
	for _, s := range p.Steps {
		steps[s.From.Name] = s
	}
	m := &model{name: t.name + " " + p.Recipe.Name, file: p.File, parts: partsOf(p.File)}
	for _, x := range m.parts {
		s, owner := steps[x.name], ""
		if x.layer >= t.own {
			owner = t.name
		}
		x.bytes, x.sum = s.Bytes, sha256.Sum256(fmt.Appendf(nil, "%q %v %q", x.name, s.To, owner))
	}
	first := &part{name: header, layer: -1, bytes: header0, block: -1, sum: sha256.Sum256(fmt.Appendf(nil, "%q %q", header, m.name))}
	m.parts = append([]*part{first}, m.parts...)
	return m
}
