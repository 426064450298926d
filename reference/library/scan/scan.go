// Package scan finds what model files have in common and makes a library of it.
//
//	lib, err := scan.Files([]string{"base.gguf", "chat.gguf", "code.gguf"}, scan.Options{})
//	apart, shared := lib.Sizes()
//
// Tensors are the same if their type, shape and bytes are, whatever they are called: their SHA-256 tells. Blocks are the longest runs of
// tensors of a layer, in the order of use, that the same models have one after another, so that whoever keeps or sends a model counts
// few of them. What a file holds besides (its header with the tokenizer) is a block too. LoRA adapters are blocks on a base.
//
// Files are read as streams, once for the tensors' digests and once for those of the blocks; no tensor is held in memory.
package scan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"meibench/internal/units"
	"meibench/reference/gguf"
	"meibench/reference/library"
)

// Options of a scan.
type Options struct {
	Name string // of the library; "" = scanned files
	Base string // name of the model that adapters go on, as the files are called; "" = the only one that is no adapter
}

// part is a tensor of a file, or what lies before the first of them.
type part struct {
	name  string
	layer int // -1: before all layers; the number of layers: behind them
	bytes int64
	read  func() io.Reader
	sum   [32]byte
	block int // of the library; -1 = none yet
}

// header is the name of what lies before a file's tensors; it cannot be that of one.
const header = "header "

// model is a file.
type model struct {
	name    string
	file    *gguf.File
	raw     *os.File
	adapter bool
	parts   []*part // in order of use
}

// Files scans GGUF files. A file is called by its name without folders and ".gguf".
func Files(paths []string, o Options) (*library.Library, error) {
	var models []*model
	defer func() {
		for _, m := range models {
			_ = m.file.Close() // read only
			_ = m.raw.Close()
		}
	}()
	for _, path := range paths {
		m, err := open(path)
		if m != nil {
			models = append(models, m)
		}
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(models[:len(models)-1], func(x *model) bool { return x.name == m.name }) {
			return nil, fmt.Errorf("scan %s: another file is called %q too: want different names", path, m.name)
		}
	}
	if len(models) == 0 {
		return nil, fmt.Errorf("scan: no files: want one at least")
	}
	if err := digest(models); err != nil {
		return nil, err
	}
	lib := &library.Library{Name: cmp.Or(o.Name, "scanned files"), Source: fmt.Sprintf("tensors of %d files, equal by SHA-256", len(models))}
	base, err := baseOf(models, o.Base)
	if err != nil {
		return nil, err
	}
	merge(lib, models)
	for i, m := range models {
		entry := library.Model{Name: m.name}
		add := func(parts []*part) {
			for _, p := range parts {
				if n := len(entry.Blocks); n == 0 || !slices.Contains(entry.Blocks, p.block) {
					entry.Blocks = append(entry.Blocks, p.block)
				}
			}
		}
		if m.adapter {
			entry.Family = models[base].name
			add(models[base].parts)
			if b := m.parts[0].block; !slices.ContainsFunc(m.parts, func(p *part) bool { return p.block != b }) {
				entry.Adapter = lib.Blocks[b].Name
			}
		}
		add(models[i].parts)
		lib.Models = append(lib.Models, entry)
	}
	if err := sign(lib, models); err != nil {
		return nil, err
	}
	return lib, lib.Check()
}

// open reads the index of a file.
func open(path string) (*model, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", path, err)
	}
	raw, err := os.Open(path)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("scan %s: %w", path, err)
	}
	m := &model{name: strings.TrimSuffix(filepath.Base(path), ".gguf"), file: f, raw: raw}
	if kind, err := gguf.Value[string](f, "general.type"); err == nil {
		m.adapter = kind == "adapter"
	}
	m.parts = partsOf(f)
	if len(f.Tensors) == 0 {
		return m, fmt.Errorf("scan %s: no tensors", path)
	}
	if !m.adapter {
		info, err := raw.Stat()
		if err != nil {
			return m, fmt.Errorf("scan %s: %w", path, err)
		}
		end := headerBytes(f, info.Size())
		m.parts = append([]*part{{name: header, layer: -1, bytes: end, block: -1, read: func() io.Reader { return io.NewSectionReader(raw, 0, end) }}}, m.parts...)
	}
	return m, nil
}

// partsOf are the tensors of a file in the order of use.
func partsOf(f *gguf.File) (parts []*part) {
	layers := 0
	for _, t := range f.Tensors {
		layers = max(layers, layerOf(t.Name, -1)+1)
	}
	for _, t := range f.Tensors {
		parts = append(parts, &part{name: t.Name, layer: layerOf(t.Name, layers), bytes: t.Bytes, block: -1,
			read: func() io.Reader { return f.Reader(t) }})
	}
	slices.SortStableFunc(parts, func(a, b *part) int { return cmp.Compare(a.layer, b.layer) })
	return parts
}

// headerBytes is what lies before the first tensor of a file of a size: all of it where its tensors are in the files behind it.
func headerBytes(f *gguf.File, size int64) int64 {
	end := size
	for _, t := range f.Tensors {
		if t.Part == 0 {
			end = min(end, t.Offset)
		}
	}
	return end
}

// layerOf is the layer of a tensor by its name, -1 for those that come first, and behind for those that come last.
func layerOf(name string, behind int) int {
	if l, _, ok := gguf.LayerOf(name); ok && l < 1<<20 {
		return l
	}
	if strings.HasPrefix(name, "output") {
		return behind
	}
	return -1
}

// twoAtATime runs jobs on two goroutines and returns an error of one; after that what is left is skipped.
func twoAtATime(jobs []func() error) error {
	work, errs := make(chan func() error), make([]error, 2)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for job := range work {
				if errs[i] == nil {
					errs[i] = job()
				}
			}
		})
	}
	for _, job := range jobs {
		work <- job
	}
	close(work)
	wg.Wait()
	return cmp.Or(errs...)
}

// digest hashes all parts.
func digest(models []*model) error {
	var jobs []func() error
	for _, m := range models {
		for i, p := range m.parts {
			jobs = append(jobs, func() error {
				h := sha256.New()
				if p.name != header {
					t := m.tensor(i)
					fmt.Fprintf(h, "%v %v\n", t.Type, t.Dims)
				}
				n, err := io.Copy(h, p.read())
				if err == nil && n != p.bytes {
					err = io.ErrUnexpectedEOF
				}
				if err != nil {
					return fmt.Errorf("scan %s: tensor %q: %d of %d bytes: %w", m.name, p.name, n, p.bytes, err)
				}
				h.Sum(p.sum[:0])
				return nil
			})
		}
	}
	return twoAtATime(jobs)
}

// tensor is that of a part.
func (m *model) tensor(i int) gguf.Tensor {
	t, err := m.file.Tensor(m.parts[i].name)
	if err != nil {
		panic(err) // the part was made from it
	}
	return t
}

// baseOf is the model that adapters go on, -1 if there are no adapters.
func baseOf(models []*model, name string) (int, error) {
	base, adapters, others := -1, 0, 0
	for i, m := range models {
		switch {
		case m.adapter:
			adapters++
		case name == "" || m.name == name:
			base = i
			others++
		}
	}
	switch {
	case adapters == 0:
		return -1, nil
	case base < 0 && name != "":
		return -1, fmt.Errorf("scan: adapters go on model %q, which is none of the files", name)
	case base < 0:
		return -1, fmt.Errorf("scan: %d adapters and no model that they go on: want its file too", adapters)
	case others > 1:
		return -1, fmt.Errorf("scan: %d adapters and %d models: say which one they go on", adapters, others)
	}
	return base, nil
}

// at is where a model has a part.
type at struct{ model, part int }

// merge makes the blocks: of parts that follow one another in all models that have the first.
func merge(lib *library.Library, models []*model) {
	where := map[string][]at{} // by digest and how often the model had it before
	keys := make([][]string, len(models))
	for i, m := range models {
		seen := map[[32]byte]int{}
		for k, p := range m.parts {
			key := fmt.Sprint(p.sum, seen[p.sum])
			seen[p.sum]++
			keys[i] = append(keys[i], key)
			where[key] = append(where[key], at{i, k})
		}
	}
	names := map[string]int{}
	for i, m := range models {
		for k := 0; k < len(m.parts); {
			if m.parts[k].block >= 0 {
				k++
				continue
			}
			n := 1
			owners := where[keys[i][k]]
			for k+n < len(m.parts) && m.parts[k+n].block < 0 && follows(models, keys, owners, keys[i][k+n], n) && len(where[keys[i][k+n]]) == len(owners) && n < mostRun(m, k) {
				n++
			}
			lib.Blocks = append(lib.Blocks, blockOf(m, k, n, names))
			for _, o := range owners {
				for j := range n {
					models[o.model].parts[o.part+j].block = len(lib.Blocks) - 1
				}
			}
			k += n
		}
	}
}

// mostRun keeps what comes before the layers, each layer, and what comes behind them apart: progress is counted in blocks. An
// adapter is one.
func mostRun(m *model, k int) int {
	if m.adapter {
		return len(m.parts)
	}
	n := 1
	for k+n < len(m.parts) && m.parts[k+n].layer == m.parts[k].layer && m.parts[k].name != header {
		n++
	}
	return n
}

// follows reports whether a part is the n-th behind the first in every model that has that.
func follows(models []*model, keys [][]string, owners []at, key string, n int) bool {
	for _, o := range owners {
		if o.part+n >= len(models[o.model].parts) || keys[o.model][o.part+n] != key || models[o.model].parts[o.part+n].block >= 0 {
			return false
		}
	}
	return true
}

// blockOf describes n parts from the k-th on.
func blockOf(m *model, k, n int, names map[string]int) library.Block {
	first, last := m.parts[k], m.parts[k+n-1]
	b := library.Block{Name: strings.TrimSpace(m.name + " " + first.name)}
	if n > 1 {
		b.Name += " to " + last.name
	}
	if names[b.Name]++; names[b.Name] > 1 {
		b.Name += fmt.Sprint(" ", names[b.Name])
	}
	if !m.adapter {
		b.Lo = max(0, first.layer)
		b.Hi = b.Lo
		if behind := m.parts[len(m.parts)-1].layer; first.layer >= 0 && (first.layer < behind || layerOf(first.name, -1) >= 0) {
			b.Hi = last.layer + 1
		}
	}
	for _, p := range m.parts[k : k+n] {
		b.Bytes += units.Bytes(p.bytes)
	}
	return b
}

// sign reads the blocks' content, where it is first, for their digests.
func sign(lib *library.Library, models []*model) error {
	done := make([]bool, len(lib.Blocks))
	var jobs []func() error
	for _, m := range models {
		for k := 0; k < len(m.parts); {
			b, from := m.parts[k].block, k
			for k < len(m.parts) && m.parts[k].block == b {
				k++
			}
			if done[b] {
				continue
			}
			done[b] = true
			own := m.parts[from:k]
			jobs = append(jobs, func() error {
				h := sha256.New()
				for _, p := range own {
					if n, err := io.Copy(h, p.read()); err != nil || n != p.bytes {
						return fmt.Errorf("scan %s: tensor %q changed while it was read: %d of %d bytes: %w", m.name, p.name, n, p.bytes, cmp.Or(err, io.ErrUnexpectedEOF))
					}
				}
				lib.Blocks[b].Digest = hex.EncodeToString(h.Sum(nil))
				return nil
			})
		}
	}
	return twoAtATime(jobs)
}
