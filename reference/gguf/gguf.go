// Package gguf reads and writes GGUF, the file format of llama.cpp models: a header, typed metadata, a table of
// tensors, and their data.
//
// The one idea: trust nothing, load nothing. [Read] checks every length against the bytes that are left before it
// allocates, so a hostile file of n bytes costs memory in proportion to n and never a panic; tensor data stays in
// the file until [File.View] or [File.ReadTensor] asks for it, so a node of a split model reads only its own layers.
//
// [Open] maps a file on disk, or the several files that a large model comes in; [Read] takes any reader, such as an
// embedded file. It reads versions 2 and 3, little endian, and writes version 3. What it does not do: decode weights
// (package quant) or interpret keys (package llm).
// Source: docs/gguf.md of ggml.
package gguf

import (
	"errors"
	"fmt"

	"meibench/reference/quant"
)

// Limits of the format as llama.cpp reads it, and two of our own that no real file comes near.
const (
	magic            = "GGUF"
	maxDims          = 4       // GGML_MAX_DIMS
	maxNameBytes     = 63      // GGML_MAX_NAME less its final zero, for tensors
	maxKeyBytes      = 65535   // docs/gguf.md
	maxDepth         = 4       // of nested arrays; real files use one level
	maxAlignment     = 1 << 20 // real files use 32
	defaultAlignment = 32
)

// ErrMissing is wrapped by getters when a key or a tensor is not in the file.
var ErrMissing = errors.New("not in the file")

// SyntaxError is malformed input, with the place where it was noticed.
type SyntaxError struct {
	Offset int64  // byte offset in the file
	Key    string // metadata key or tensor name, or "" in the header
	Msg    string // what is wrong, and what to do
}

func (e *SyntaxError) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("gguf: offset %d: %s", e.Offset, e.Msg)
	}
	return fmt.Sprintf("gguf: offset %d: %q: %s", e.Offset, e.Key, e.Msg)
}

// KV is one metadata entry. The type of Value is one of uint8, int8, uint16, int16, uint32, int32, uint64, int64,
// float32, float64, bool, string, a slice of one of these, or []any for an array of arrays.
type KV struct {
	Key   string
	Value any
}

// Tensor describes one tensor. Dims are in the order of the file: Dims[0] is contiguous, so a weight matrix (N, K)
// has Dims {K, N}.
type Tensor struct {
	Name   string
	Type   quant.Type
	Dims   []int
	Offset int64 // from the start of the file
	Bytes  int64
	Part   int // which file of a model that is split over several, from 0
}

// Elements is the number of weights.
func (t Tensor) Elements() int {
	n := 1
	for _, d := range t.Dims {
		n *= d
	}
	return n
}

// File is the index of a GGUF file; tensor data stays behind its reader. Until Close, its methods may be called from
// several goroutines at once.
type File struct {
	Version   int
	Alignment int
	KV        []KV     // in file order, keys are unique
	Tensors   []Tensor // in file order, names are unique

	parts   []part
	keys    map[string]int
	tensors map[string]int
}

// Get returns the value of a key.
func (f *File) Get(key string) (any, bool) {
	i, ok := f.keys[key]
	if !ok {
		return nil, false
	}
	return f.KV[i].Value, true
}

// Uint returns an integer of any width that is not negative.
func (f *File) Uint(key string) (uint64, error) {
	v, ok := f.Get(key)
	if !ok {
		return 0, fmt.Errorf("gguf: key %q: %w", key, ErrMissing)
	}
	var i int64
	switch v := v.(type) {
	case uint8:
		return uint64(v), nil
	case uint16:
		return uint64(v), nil
	case uint32:
		return uint64(v), nil
	case uint64:
		return v, nil
	case int8:
		i = int64(v)
	case int16:
		i = int64(v)
	case int32:
		i = int64(v)
	case int64:
		i = v
	default:
		return 0, wrongType(key, v, "an integer")
	}
	if i < 0 {
		return 0, fmt.Errorf("gguf: key %q: %d is negative", key, i)
	}
	return uint64(i), nil
}

// Float returns a float32 or float64.
func (f *File) Float(key string) (float64, error) {
	switch v, ok := f.Get(key); v := v.(type) {
	case float32:
		return float64(v), nil
	case float64:
		return v, nil
	default:
		if !ok {
			return 0, fmt.Errorf("gguf: key %q: %w", key, ErrMissing)
		}
		return 0, wrongType(key, v, "a float")
	}
}

// Value returns a key as exactly the type T, one of those listed at [KV].
func Value[T any](f *File, key string) (T, error) {
	var zero T
	v, ok := f.Get(key)
	if !ok {
		return zero, fmt.Errorf("gguf: key %q: %w", key, ErrMissing)
	}
	t, ok := v.(T)
	if !ok {
		return zero, wrongType(key, v, fmt.Sprintf("%T", zero))
	}
	return t, nil
}

func wrongType(key string, v any, want string) error {
	return fmt.Errorf("gguf: key %q holds %T, want %s", key, v, want)
}

// Tensor finds a tensor by name.
func (f *File) Tensor(name string) (Tensor, error) {
	i, ok := f.tensors[name]
	if !ok {
		return Tensor{}, fmt.Errorf("gguf: tensor %q: %w", name, ErrMissing)
	}
	return f.Tensors[i], nil
}
