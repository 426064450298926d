// Package models ships the project's own reference models, embedded in the
// binary: small decoder-only transformers in GGUF files, trained by
// scripts/trainmodel on the generated tasks of workloads/tasks.
//
//	l, err := models.Open(models.Default)
//	ids := l.Tokenizer.EncodePrompt("me south straight , car east straight , dry ; may me go =>")
//	work := l.Model.NewWork(1)
//
// They exist so that every technique (quantisation, speculation, splitting,
// caching, fine-tuning) shows its real effect on quality. There are three sizes
// of one family, with one tokenizer, so that a small one can draft for a large
// one, learn from it, or give way to it. They know five kinds of generated
// questions and nothing else; README.md in this folder is their card, with
// measured scores.
//
// Files of other models load with Load and Read; the weights of this package
// are read-only like any opened model's.
package models

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"meibench/internal/host"
	"meibench/internal/units"
	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/token"
)

//go:embed mei-base.gguf mei-nano.gguf mei-small.gguf mei-base-*.lora.gguf
var files embed.FS

// Entry names an embedded model.
type Entry struct {
	Name string
	Size string // parameters, for readers
	Doc  string // one line for lists
	file string
}

// Default is the model that commands and suites take when none is named.
const Default = "mei-small"

// Table lists the embedded models, sorted by name.
var Table = []Entry{
	{"mei-base", "5.0 M", "5.0 M parameters, 8 layers, F16, trained on the five generated tasks", "mei-base.gguf"},
	{"mei-nano", "0.31 M", "0.31 M parameters, 5 layers, F16, trained on the five generated tasks", "mei-nano.gguf"},
	{"mei-small", "2.0 M", "2.0 M parameters, 3 layers, F16, trained on the five generated tasks", "mei-small.gguf"},
}

// Loaded is a model with its tokenizer.
type Loaded struct {
	Name      string // of the table, or general.name of the file
	SHA256    string // of the GGUF file, in hexadecimal: the identity of the model in records
	Model     *llm.Model
	Tokenizer *token.Tokenizer
}

// Bytes returns the GGUF file of an embedded model.
func Bytes(name string) ([]byte, error) {
	names := make([]string, len(Table))
	for i, e := range Table {
		if e.Name == name {
			return files.ReadFile(e.file)
		}
		names[i] = e.Name
	}
	return nil, fmt.Errorf("open model %q: unknown, have %s", name, strings.Join(names, ", "))
}

// Open loads an embedded model by name, ready for inference: it is packed, see [llm.Model.Pack].
func Open(name string) (*Loaded, error) {
	data, err := Bytes(name)
	if err != nil {
		return nil, err
	}
	l, err := Read(data, llm.ReadOptions{})
	if err != nil {
		return nil, fmt.Errorf("open model %q: %w", name, err)
	}
	if err := l.Model.Pack(1); err != nil {
		return nil, fmt.Errorf("open model %q: %w", name, err)
	}
	l.Name = name
	return l, nil
}

// Load loads a GGUF file of any supported model from disk, whole and ready for inference; see [llm.Open]. A model that
// takes more memory than the machine has left is refused before anything is loaded.
func Load(path string) (*Loaded, error) { return load(path, host.Available()) }

func load(path string, budget units.Bytes) (*Loaded, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load model: %w", err)
	}
	l, err := from(f, func() (*llm.Model, error) { return llm.OpenFile(f, llm.ReadOptions{Budget: budget}) })
	if err == nil {
		l.SHA256, err = digest(path)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("load model %s: %w", path, err)
	}
	return l, nil
}

// digest is the SHA-256 of a file, in hex.
func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return hex.EncodeToString(sum.Sum(nil)), err
}

// Read loads a model from the bytes of a GGUF file; options may narrow it to a
// span of layers or decode it to F32.
func Read(data []byte, o llm.ReadOptions) (*Loaded, error) {
	l, err := read(bytes.NewReader(data), int64(len(data)), o)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	l.SHA256 = hex.EncodeToString(sum[:])
	return l, nil
}

func read(r io.ReaderAt, size int64, o llm.ReadOptions) (*Loaded, error) {
	f, err := gguf.Read(r, size)
	if err != nil {
		return nil, err
	}
	return from(f, func() (*llm.Model, error) { return llm.FromFile(f, o) })
}

// from reads the tokenizer of a file and then its weights.
func from(f *gguf.File, weights func() (*llm.Model, error)) (*Loaded, error) {
	kv := make(map[string]any, len(f.KV))
	for _, e := range f.KV {
		kv[e.Key] = e.Value
	}
	meta, err := token.FromMap(kv)
	if err != nil {
		return nil, err
	}
	tok, err := token.New(meta)
	if err != nil {
		return nil, err
	}
	m, err := weights()
	if err != nil {
		return nil, err
	}
	if tok.Len() != m.Vocab {
		return nil, fmt.Errorf("the tokenizer has %d tokens but the embedding %d rows", tok.Len(), m.Vocab)
	}
	name, _ := kv["general.name"].(string)
	return &Loaded{Name: name, Model: m, Tokenizer: tok}, nil
}

// Answer generates greedily until the end of text or most tokens, and returns
// the text. The work must be the loaded model's.
func (l *Loaded) Answer(w *llm.Work, prompt string, most int) (string, error) {
	ids := l.Tokenizer.EncodePrompt(prompt)
	c, err := l.Model.NewCache(0, l.Model.Layers, len(ids)+most)
	if err != nil {
		return "", fmt.Errorf("answer: %w", err)
	}
	eos := l.Tokenizer.EOS()
	out, err := w.Generate(c, ids, most, llm.Greedy, func(id int32) bool { return id == eos })
	return l.Tokenizer.Decode(out), err
}
