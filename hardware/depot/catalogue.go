// Package depot delivers model blocks for real: a node serves them over HTTP,
// a client fetches, verifies and keeps them on disk, and builds the model file.
//
//	node := depot.NewNode(depot.NodeConfig{})
//	m, err := node.Add("mei-small", bytes.NewReader(gguf), int64(len(gguf)))
//	srv := depot.NewServer(node) // HTTP/1.1 and HTTP/2, both in the clear
//
//	store, err := depot.OpenStore("cache", 1<<30)
//	c := &depot.Client{Sources: []string{"http://127.0.0.1:8090"}, Store: store}
//	err = c.Fetch(ctx, m, "model.gguf", nil)
//
// The one idea: a block is named by the SHA-256 of its bytes, and nothing is used before its digest has been checked,
// whether it came from a node or from the disk. The blocks of a model cover its GGUF file without a gap and stand in the
// order in which the model uses them, so that a prefix of them is of use.
//
// Who may ask is the business of whoever serves the node: over TLS with certificates, as the verb does. A catalogue is believed about
// which blocks a model has; whoever does not trust the node compares the SHA-256 of the file.
package depot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"meibench/reference/gguf"
)

// Limits of what is believed of outside bytes.
const (
	MostCatalogue = 64 << 20 // bytes of a catalogue
	MostModels    = 10_000   // models in it
	MostBlocks    = 100_000  // blocks of a model
	MostBlock     = 64 << 20 // bytes of a block
)

// Block is a range of a model's file.
type Block struct {
	Digest string `json:"digest"` // SHA-256 of its bytes, 64 hexadecimal digits in lower case
	Offset int64  `json:"offset"` // where it lies in the file
	Bytes  int64  `json:"bytes"`  // 1 to [MostBlock]
	Layer  int    `json:"layer"`  // -1: header, embedding and what else layers need; the number of layers: norm and head
}

// Model is a GGUF file as blocks in order of use.
type Model struct {
	Name   string  `json:"name"`
	SHA256 string  `json:"sha256"` // of the whole file
	Bytes  int64   `json:"bytes"`  // of the whole file
	Blocks []Block `json:"blocks"`
}

// Catalogue is what a node serves.
type Catalogue struct {
	Models []Model `json:"models"`
}

var (
	hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)
	safeName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
)

// ParseCatalogue reads a catalogue and refuses what it does not know, what is too large, and models whose blocks do not
// cover their file exactly once.
func ParseCatalogue(data []byte) (*Catalogue, error) {
	if len(data) > MostCatalogue {
		return nil, fmt.Errorf("catalogue: %d bytes, at most %d", len(data), MostCatalogue)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	c := &Catalogue{}
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("catalogue: bytes after its end")
	}
	if len(c.Models) > MostModels {
		return nil, fmt.Errorf("catalogue: %d models, at most %d", len(c.Models), MostModels)
	}
	seen := map[string]bool{}
	for i := range c.Models {
		m := &c.Models[i]
		if err := m.Check(); err != nil {
			return nil, fmt.Errorf("catalogue: %w", err)
		}
		if seen[m.Name] {
			return nil, fmt.Errorf("catalogue: model %s is there twice", m.Name)
		}
		seen[m.Name] = true
	}
	return c, nil
}

// Find returns a model by name; the error lists what there is.
func (c *Catalogue) Find(name string) (*Model, error) {
	var have []string
	for i := range c.Models {
		if c.Models[i].Name == name {
			return &c.Models[i], nil
		}
		have = append(have, c.Models[i].Name)
	}
	return nil, fmt.Errorf("model %q is not in the catalogue: have %s", name, strings.Join(have, ", "))
}

// Check tells whether names, digests and sizes make sense and the blocks cover the file without gap or overlap.
func (m *Model) Check() error {
	switch {
	case !safeName.MatchString(m.Name):
		return fmt.Errorf("model %q: want a name of letters, digits, dots, dashes, underscores", m.Name)
	case !hexDigest.MatchString(m.SHA256):
		return fmt.Errorf("model %s: sha256 %q: want 64 hexadecimal digits", m.Name, m.SHA256)
	case len(m.Blocks) == 0 || len(m.Blocks) > MostBlocks:
		return fmt.Errorf("model %s: %d blocks, want 1 to %d", m.Name, len(m.Blocks), MostBlocks)
	}
	for i, b := range m.Blocks {
		if !hexDigest.MatchString(b.Digest) || b.Bytes < 1 || b.Bytes > MostBlock || b.Offset < 0 || b.Layer < -1 {
			return fmt.Errorf("model %s, block %d: digest %q, offset %d, %d bytes, layer %d: want 64 hexadecimal digits, 0 or more, 1 to %d, -1 or more",
				m.Name, i, b.Digest, b.Offset, b.Bytes, b.Layer, MostBlock)
		}
		if i > 0 && b.Layer < m.Blocks[i-1].Layer {
			return fmt.Errorf("model %s, block %d: layer %d after layer %d: want order of use", m.Name, i, b.Layer, m.Blocks[i-1].Layer)
		}
	}
	at := int64(0)
	for _, b := range inFile(m.Blocks) {
		if b.Offset != at {
			return fmt.Errorf("model %s: a block starts at byte %d where the one before ends at %d: want neither gap nor overlap", m.Name, b.Offset, at)
		}
		at += b.Bytes
	}
	if at != m.Bytes {
		return fmt.Errorf("model %s: its blocks have %d bytes, the file %d", m.Name, at, m.Bytes)
	}
	return nil
}

func inFile(blocks []Block) []Block {
	out := slices.Clone(blocks)
	slices.SortFunc(out, func(a, b Block) int {
		switch {
		case a.Offset < b.Offset:
			return -1
		case a.Offset > b.Offset:
			return 1
		}
		return 0
	})
	return out
}

// Cut makes the blocks of a GGUF file: ranges between borders of tensors, none of two layers, in order of use.
func Cut(name string, r io.ReaderAt, size int64) (*Model, error) {
	f, err := gguf.Read(r, size)
	if err != nil {
		return nil, fmt.Errorf("cut %s: %w", name, err)
	}
	m := &Model{Name: name, Bytes: size}
	layers := 0
	for _, t := range f.Tensors {
		layers = max(layers, layerOf(t.Name, 0)+1)
	}
	tensors := slices.Clone(f.Tensors)
	slices.SortFunc(tensors, func(a, b gguf.Tensor) int { return int(min(1, max(-1, a.Offset-b.Offset))) })
	from, layer := int64(0), -1
	add := func(to int64) {
		for from < to {
			n := min(to-from, MostBlock)
			m.Blocks = append(m.Blocks, Block{Offset: from, Bytes: n, Layer: layer})
			from += n
		}
	}
	for i, t := range tensors {
		l := layerOf(t.Name, layers)
		if l != layer || i == 0 || t.Offset+t.Bytes-from > MostBlock { // the header is a block of its own
			add(t.Offset)
			layer = l
		}
	}
	add(size)
	whole := sha256.New()
	for i := range m.Blocks {
		b := &m.Blocks[i]
		sum := sha256.New()
		if _, err := io.Copy(io.MultiWriter(sum, whole), io.NewSectionReader(r, b.Offset, b.Bytes)); err != nil {
			return nil, fmt.Errorf("cut %s: %w", name, err)
		}
		b.Digest = hex.EncodeToString(sum.Sum(nil))
	}
	m.SHA256 = hex.EncodeToString(whole.Sum(nil))
	slices.SortStableFunc(m.Blocks, func(a, b Block) int { return a.Layer - b.Layer })
	return m, m.Check()
}

// layerOf is the layer of a tensor by its name, -1 for those that come first, and layers for those that come last.
func layerOf(name string, layers int) int {
	if l, _, ok := gguf.LayerOf(name); ok && l < MostBlocks {
		return l
	}
	if strings.HasPrefix(name, "output") {
		return layers
	}
	return -1
}
