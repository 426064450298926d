package library

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"meibench/internal/rng"
	"meibench/internal/units"
)

// Shape is what builders need of a model: sizes of its parts.
type Shape struct {
	Name    string
	Layers  int
	Embed   units.Bytes // embedding, with the head where both are one
	Layer   units.Bytes // a layer without its experts
	Head    units.Bytes // 0: tied to the embedding
	Adapter units.Bytes // a LoRA adapter for the whole model
	Experts int         // per layer; 0 = dense
	Expert  units.Bytes // one of them, in one layer
	Coarse  float64     // share of the bytes that hold the upper bits of the weights, of a format that can be cut; 0: it cannot
}

// Check says what is wrong with a shape.
func (s Shape) Check() error {
	if s.Layers < 1 || s.Embed <= 0 || s.Layer <= 0 || s.Head < 0 || s.Adapter < 0 || s.Experts < 0 || s.Experts > 0 && s.Expert <= 0 || !(s.Coarse >= 0 && s.Coarse < 1) {
		return fmt.Errorf("library of model %q: impossible sizes: %+v", s.Name, s)
	}
	return nil
}

// builder makes the models of a kind of library.
type builder struct {
	name, doc string
	count     int // of models, unless asked otherwise
	add       func(b *build, n int) error
}

// builders is the table of kinds, sorted by name.
var builders = []builder{
	{"adapters", "LoRA adapters on one backbone", 50, (*build).adapters},
	{"experts", "variants of a mixture of experts that need a quarter of each layer's experts each", 30, (*build).experts},
	{"finetunes", "fine-tunes that share the lowest 60 to 90 % of a backbone's layers, as in TrimCaching (arXiv 2405.03990; the range is assumed)", 50, (*build).finetunes},
	{"ladder", "fine-tunes as in finetunes, each in a coarse form of the upper bits of its weights and in full: the full one is the coarse one and its refinement", 50, (*build).ladder},
	{"mixed", "a third each of adapters, finetunes and ladder", 60, (*build).mixed},
}

// Kinds lists the names that Build knows, each with what it is.
func Kinds() (out [][2]string) {
	for _, b := range builders {
		out = append(out, [2]string{b.name, fmt.Sprintf("%s; %d models unless asked otherwise", b.doc, b.count)})
	}
	return out
}

// MostModels is the largest library that is built.
const MostModels = 10_000

// Build makes a library around a model: kind, or kind:n for n models.
func Build(kind string, s Shape) (*Library, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	name, count, given := strings.Cut(kind, ":")
	i := slices.IndexFunc(builders, func(b builder) bool { return b.name == name })
	if i < 0 {
		var have []string
		for _, b := range builders {
			have = append(have, b.name)
		}
		return nil, fmt.Errorf("unknown kind of library %q (have %s)", name, strings.Join(have, ", "))
	}
	n := builders[i].count
	if given {
		var err error
		if n, err = strconv.Atoi(count); err != nil || n < 1 || n > MostModels {
			return nil, fmt.Errorf("library %q: want 1 to %d models, as %s:%d", kind, MostModels, name, builders[i].count)
		}
	}
	b := &build{shape: s, lib: &Library{Name: kind + " of " + s.Name, Source: builders[i].doc}}
	if err := builders[i].add(b, n); err != nil {
		return nil, fmt.Errorf("library %q: %w", kind, err)
	}
	b.prune()
	return b.lib, b.lib.Check()
}

// build is a library in the making.
type build struct {
	shape Shape
	lib   *Library
	base  []int // blocks of the backbone in order of use: embedding, layers, head
}

func (b *build) block(bytes units.Bytes, lo, hi int, name string, a ...any) int {
	b.lib.Blocks = append(b.lib.Blocks, Block{Name: fmt.Sprintf(name, a...), Bytes: bytes, Lo: lo, Hi: hi})
	return len(b.lib.Blocks) - 1
}

func (b *build) model(family string, blocks []int, rungs []Rung, name string, a ...any) {
	b.lib.Models = append(b.lib.Models, Model{Name: fmt.Sprintf(name, a...), Family: family, Blocks: blocks, Rungs: rungs})
}

// prune leaves out blocks that no model has: layers of a backbone that every fine-tune replaces.
func (b *build) prune() {
	to := make([]int, len(b.lib.Blocks))
	for _, m := range b.lib.Models {
		for _, j := range m.Blocks {
			to[j] = 1
		}
	}
	var kept []Block
	for j, k := range b.lib.Blocks {
		if to[j] == 1 {
			to[j] = len(kept)
			kept = append(kept, k)
		}
	}
	for _, m := range b.lib.Models {
		for i, j := range m.Blocks {
			m.Blocks[i] = to[j]
		}
	}
	b.lib.Blocks = kept
}

// groups are layers [lo, hi) cut into at most so many groups of about equal length.
func groups(lo, hi, most int) (out [][2]int) {
	n := min(most, hi-lo)
	for i := range n {
		out = append(out, [2]int{lo + (hi-lo)*i/n, lo + (hi-lo)*(i+1)/n})
	}
	return out
}

// mostGroups is into how many blocks the layers of a backbone are cut at most: blocks are what is counted, sent and waited for.
const mostGroups = 20

func (b *build) layers(lo, hi int) units.Bytes {
	return units.Bytes(hi-lo) * (b.shape.Layer + units.Bytes(b.shape.Experts)*b.shape.Expert)
}

// backbone is made once.
func (b *build) backbone() []int {
	if b.base == nil {
		b.base = []int{b.block(b.shape.Embed, 0, 0, "embedding")}
		for _, g := range groups(0, b.shape.Layers, mostGroups) {
			b.base = append(b.base, b.block(b.layers(g[0], g[1]), g[0], g[1], "layers %d to %d", g[0], g[1]-1))
		}
		if b.shape.Head > 0 {
			b.base = append(b.base, b.block(b.shape.Head, b.shape.Layers, b.shape.Layers, "head"))
		}
	}
	return b.base
}

func (b *build) adapters(n int) error {
	if b.shape.Adapter == 0 {
		return fmt.Errorf("model %q has no adapters", b.shape.Name)
	}
	for i := range n {
		a := b.block(b.shape.Adapter, 0, 0, "adapter %d", i+1)
		b.model(b.shape.Name, append([]int{a}, b.backbone()...), nil, "adapter %d", i+1)
		b.lib.Models[len(b.lib.Models)-1].Adapter = b.lib.Blocks[a].Name
	}
	return nil
}

// frozen are the lowest blocks of the backbone up to a share drawn from 60 to 90 % of the layers, and where they end.
func (b *build) frozen(luck rng.Source) (blocks []int, end int) {
	share := 0.6 + float64(0.3*rng.Float64(luck))
	for _, j := range b.backbone() {
		if k := b.lib.Blocks[j]; k.Lo == k.Hi && k.Lo == 0 || k.Lo < k.Hi && float64(k.Hi) <= math.Ceil(share*float64(b.shape.Layers)) {
			blocks, end = append(blocks, j), max(end, k.Hi)
		}
	}
	return blocks, end
}

func (b *build) finetunes(n int) error {
	luck := rng.Stream(1, "library", "finetunes")
	for i := range n {
		blocks, end := b.frozen(luck)
		for _, g := range groups(end, b.shape.Layers, 4) {
			blocks = append(blocks, b.block(b.layers(g[0], g[1]), g[0], g[1], "fine-tune %d, layers %d to %d", i+1, g[0], g[1]-1))
		}
		if b.shape.Head > 0 {
			blocks = append(blocks, b.block(b.shape.Head, b.shape.Layers, b.shape.Layers, "fine-tune %d, head", i+1))
		}
		b.model(b.shape.Name, blocks, nil, "fine-tune %d", i+1)
	}
	return nil
}

// ladder cuts every block of fine-tunes in two, the upper bits of the weights and the rest; the coarse ones come first and are a model by
// themselves.
func (b *build) ladder(n int) error {
	if b.shape.Coarse == 0 {
		return fmt.Errorf("the weights of model %q have too few bits to be a model without the lower half: want q8_0 or f16, say", b.shape.Name)
	}
	whole := &build{shape: b.shape, lib: &Library{}}
	if err := whole.finetunes((n + 1) / 2); err != nil {
		return err
	}
	made := map[string]int{}
	half := func(j, part int) int {
		k, name := whole.lib.Blocks[j], whole.lib.Blocks[j].Name+[...]string{", coarse", ", finer"}[part]
		if _, ok := made[name]; !ok {
			coarse := min(max(1, units.Bytes(float64(b.shape.Coarse*float64(k.Bytes))+0.5)), k.Bytes-1)
			made[name] = b.block([...]units.Bytes{coarse, k.Bytes - coarse}[part], k.Lo, [...]int{k.Hi, k.Lo}[part], "%s", name)
		}
		return made[name]
	}
	for i, m := range whole.lib.Models {
		var coarse, all []int
		for _, j := range m.Blocks {
			coarse = append(coarse, half(j, 0))
		}
		b.model(b.shape.Name, coarse, nil, "%s, coarse", m.Name)
		if 2*i+1 == n { // an odd number: the last one's refinement is not wanted
			break
		}
		all = slices.Clone(coarse)
		for _, j := range m.Blocks {
			all = append(all, half(j, 1))
		}
		b.model(b.shape.Name, all, []Rung{{len(coarse), math.NaN()}, {len(all), math.NaN()}}, "%s, full", m.Name)
	}
	return nil
}

func (b *build) mixed(n int) error {
	for _, part := range []struct {
		n   int
		add func(n int) error
	}{{n / 3, b.adapters}, {n / 3, b.finetunes}, {n - n/3*2, b.ladder}} {
		if part.n > 0 {
			if err := part.add(part.n); err != nil {
				return err
			}
		}
	}
	return nil
}

// experts are variants that keep the gate's favourites for their task: popular experts are in many of them.
func (b *build) experts(n int) error {
	if b.shape.Experts == 0 {
		return fmt.Errorf("model %q has no experts", b.shape.Name)
	}
	base := []int{b.block(b.shape.Embed, 0, 0, "embedding")}
	var pool [][]int // by layer
	for l := range b.shape.Layers {
		base = append(base, b.block(b.shape.Layer, l, l+1, "layer %d without experts", l))
		pool = append(pool, make([]int, b.shape.Experts))
	}
	if b.shape.Head > 0 {
		base = append(base, b.block(b.shape.Head, b.shape.Layers, b.shape.Layers, "head"))
	}
	weights := Popularity{S: 0.8}.Weights(b.shape.Experts)
	for i := range n {
		blocks := []int{base[0]}
		for l := range b.shape.Layers {
			blocks = append(blocks, base[1+l])
			for _, e := range favourites(weights, max(1, b.shape.Experts/4), i, l) {
				if pool[l][e] == 0 {
					pool[l][e] = b.block(b.shape.Expert, l, l+1, "layer %d, expert %d", l, e)
				}
				blocks = append(blocks, pool[l][e])
			}
		}
		b.model(b.shape.Name, append(blocks, base[1+b.shape.Layers:]...), nil, "variant %d", i+1)
	}
	return nil
}

// favourites are k of the experts, drawn without replacement by weight.
func favourites(weights []float64, k, variant, layer int) (out []int) {
	luck := rng.NewKey(1, "library", "experts", variant).At(uint64(layer))
	left := slices.Clone(weights)
	for range k {
		sum := 0.0
		for _, w := range left {
			sum += w
		}
		u, e := float64(luck.Float64()*sum), 0
		for e < len(left)-1 && u >= left[e] {
			u -= left[e]
			e++
		}
		for left[e] == 0 {
			e--
		}
		out, left[e] = append(out, e), 0
	}
	slices.Sort(out)
	return out
}
