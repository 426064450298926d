// Package library describes what may be cached and delivered: models made of blocks that they share.
//
//	lib := &library.Library{Name: "assistant", Blocks: blocks, Models: models}
//	err := lib.Check()                 // sizes, names, order of dependencies
//	shared := lib.Union([]int{0, 3})   // bytes of models 0 and 3 together, each block once
//	apart := lib.Whole(0) + lib.Whole(3)
//
// The one idea is that a model is nothing but a list of blocks in the order in which it uses them: a backbone and the
// adapter on it, the frozen bottom of a fine-tune and its own top, the coarse bits of a weight and the bits that refine
// them, the experts of a layer. Two models share what they name alike, and whoever places, caches or delivers counts
// blocks. Popularity says which model a request wants.
//
// The package knows sizes and names. It opens no model and places nothing: packages placement, cache and delivery do.
package library

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"

	"meibench/internal/units"
)

// Block is a piece of bytes that is kept or sent as a whole.
type Block struct {
	Name   string      // unique in its library
	Digest string      // SHA-256 of the content in hexadecimal; "" where only the size is known
	Bytes  units.Bytes // > 0
	Lo, Hi int         // layers [Lo, Hi) that it holds or completes; Lo = Hi: none, an embedding say
}

// Rung is a point from which on a model answers: its first Blocks blocks are there.
type Rung struct {
	Blocks  int     // of Model.Blocks, > 0
	Quality float64 // score in [0, 1] of the answers; NaN = not known
}

// Model is a list of blocks.
type Model struct {
	Name   string // unique in its library
	Family string // of variants that run on one backbone; "" = none
	// Blocks are indices of Library.Blocks in the order of use, each once: who has the first n can compute what these hold.
	Blocks []int
	// Adapter is the name of the block that is a LoRA adapter on the other blocks; "" = there is none.
	Adapter string
	// Rungs are where the model becomes usable, and better, ascending in Blocks; the last is the whole model. nil: the whole
	// model alone.
	Rungs []Rung
}

// Library is a set of models over a set of blocks.
type Library struct {
	Name, Source string
	Blocks       []Block
	Models       []Model
	Weights      []float64 // how often each model is asked for, beside the others; nil: not known

	users [][]int // models of each block
}

// Check says what is wrong with a library, naming the model or block, and prepares it for use. It is called once, before
// any other method.
func (l *Library) Check() error {
	if len(l.Models) == 0 {
		return fmt.Errorf("library %q: no models: want at least one", l.Name)
	}
	names := map[string]bool{}
	for i, b := range l.Blocks {
		switch {
		case b.Name == "" || names[b.Name]:
			return fmt.Errorf("library %q: block %d: name %q is empty or taken", l.Name, i, b.Name)
		case b.Bytes <= 0:
			return fmt.Errorf("library %q: block %q: %d bytes: a block holds at least one", l.Name, b.Name, b.Bytes)
		case b.Lo < 0 || b.Hi < b.Lo:
			return fmt.Errorf("library %q: block %q: layers %d to %d: want 0 <= lo <= hi", l.Name, b.Name, b.Lo, b.Hi)
		}
		names[b.Name] = true
	}
	l.users = make([][]int, len(l.Blocks))
	clear(names)
	for i := range l.Models {
		m := &l.Models[i]
		if m.Name == "" || names[m.Name] {
			return fmt.Errorf("library %q: model %d: name %q is empty or taken", l.Name, i, m.Name)
		}
		names[m.Name] = true
		if err := l.checkModel(i, m); err != nil {
			return fmt.Errorf("library %q: model %q: %w", l.Name, m.Name, err)
		}
	}
	if l.Weights != nil && len(l.Weights) != len(l.Models) {
		return fmt.Errorf("library %q: %d weights of %d models", l.Name, len(l.Weights), len(l.Models))
	}
	for i, w := range l.Weights {
		if !(w > 0) || math.IsInf(w, 0) {
			return fmt.Errorf("library %q: model %q: weight %g: want a finite number above 0", l.Name, l.Models[i].Name, w)
		}
	}
	for j, u := range l.users {
		if len(u) == 0 {
			return fmt.Errorf("library %q: block %q belongs to no model: leave it out", l.Name, l.Blocks[j].Name)
		}
	}
	return nil
}

func (l *Library) checkModel(i int, m *Model) error {
	if len(m.Blocks) == 0 {
		return fmt.Errorf("no blocks")
	}
	for _, j := range m.Blocks {
		if j < 0 || j >= len(l.Blocks) {
			return fmt.Errorf("block %d does not exist: there are %d", j, len(l.Blocks))
		}
		if u := l.users[j]; len(u) > 0 && u[len(u)-1] == i {
			return fmt.Errorf("block %q twice", l.Blocks[j].Name)
		}
		l.users[j] = append(l.users[j], i)
	}
	if m.Adapter != "" && !slices.ContainsFunc(m.Blocks, func(j int) bool { return l.Blocks[j].Name == m.Adapter }) {
		return fmt.Errorf("its adapter %q is none of its blocks", m.Adapter)
	}
	before := 0
	for _, r := range m.Rungs {
		if r.Blocks <= before || r.Blocks > len(m.Blocks) {
			return fmt.Errorf("rung at %d blocks: want more than %d and at most %d", r.Blocks, before, len(m.Blocks))
		}
		if r.Quality < 0 || r.Quality > 1 {
			return fmt.Errorf("rung at %d blocks: quality %g: want 0 to 1", r.Blocks, r.Quality)
		}
		before = r.Blocks
	}
	if len(m.Rungs) > 0 && before != len(m.Blocks) {
		return fmt.Errorf("its last rung has %d of %d blocks: want all", before, len(m.Blocks))
	}
	return nil
}

// Offer drops rungs whose quality is below a floor, as a share of the whole model's: bytes that came, and no usable model. Rungs of
// unknown quality stay, and so does the last.
func (m *Model) Offer(floor float64) {
	if len(m.Rungs) == 0 {
		return
	}
	last := len(m.Rungs) - 1
	least, i := floor*m.Rungs[last].Quality, 0
	m.Rungs = slices.DeleteFunc(m.Rungs, func(r Rung) bool {
		i++
		return i <= last && r.Quality < least // NaN is not below anything
	})
}

// Users are the models that block j belongs to, ascending. The slice is the library's own.
func (l *Library) Users(j int) []int { return l.users[j] }

// Find is the index of a model by name, -1 if there is none.
func (l *Library) Find(name string) int {
	return slices.IndexFunc(l.Models, func(m Model) bool { return m.Name == name })
}

// Whole is the size of model i alone.
func (l *Library) Whole(i int) (n units.Bytes) {
	for _, j := range l.Models[i].Blocks {
		n += l.Blocks[j].Bytes
	}
	return n
}

// Union is the size of some models together, every block counted once: g of TrimCaching (arXiv 2405.03990).
func (l *Library) Union(models []int) (n units.Bytes) {
	have := make([]bool, len(l.Blocks))
	for _, i := range models {
		for _, j := range l.Models[i].Blocks {
			if !have[j] {
				have[j] = true
				n += l.Blocks[j].Bytes
			}
		}
	}
	return n
}

// Sizes are the bytes of the whole library: with every model for itself, and with every block once.
func (l *Library) Sizes() (apart, shared units.Bytes) {
	for i := range l.Models {
		apart += l.Whole(i)
	}
	for _, b := range l.Blocks {
		shared += b.Bytes
	}
	return apart, shared
}

// Digest is the SHA-256, in hexadecimal, of what makes the library: names, sizes, order and sharing of blocks.
func (l *Library) Digest() string {
	sum := sha256.New()
	for _, b := range l.Blocks {
		fmt.Fprintf(sum, "block %q %s %d %d %d\n", b.Name, b.Digest, b.Bytes, b.Lo, b.Hi)
	}
	for _, m := range l.Models {
		fmt.Fprintf(sum, "model %q %q %q %v %v\n", m.Name, m.Family, m.Adapter, m.Blocks, m.Rungs)
	}
	if l.Weights != nil {
		fmt.Fprintf(sum, "weights %v\n", l.Weights)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Unshared is the same library with a copy of its blocks for every model: what a cache of whole models sees. Its model i
// is that of l, with one block.
func (l *Library) Unshared() *Library {
	u := &Library{Name: l.Name + " unshared", Source: l.Source, Weights: l.Weights}
	for i, m := range l.Models {
		layers := 0
		for _, j := range m.Blocks {
			layers = max(layers, l.Blocks[j].Hi)
		}
		u.Blocks = append(u.Blocks, Block{Name: m.Name, Bytes: l.Whole(i), Hi: layers})
		quality := math.NaN()
		if n := len(m.Rungs); n > 0 {
			quality = m.Rungs[n-1].Quality
		}
		u.Models = append(u.Models, Model{Name: m.Name, Family: m.Family, Blocks: []int{i}, Rungs: []Rung{{Blocks: 1, Quality: quality}}})
	}
	if err := u.Check(); err != nil {
		panic(err) // of a library that was checked
	}
	return u
}
