// Package convert writes a GGUF file again with its weights in other number formats: the quantiser.
//
// The one idea: a recipe is not one format but a choice per tensor. Which tensors a model is most sensitive to is known
// (the output matrix, attention values, the second matrix of the feed-forward in the first and last layers), so the usual
// recipes spend more bits there; and rows that are no whole number of super-blocks fall back to a format of blocks of 32.
// [NewPlan] makes that choice, exactly as llama-quantize does without an importance matrix, so that a file of a given
// name means the same here and there; its sizes are known before any weight is read. [Plan.Write] then streams tensor
// after tensor through memory that does not grow with the model.
//
//	r, _ := convert.Find("q4_k_m")
//	p, err := convert.NewPlan(file, r, false)
//	err = p.Write(ctx, out, convert.Options{Threads: 2})
//
// What it does not do: importance matrices, and recipes below four bits.
package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"meibench/reference/gguf"
	"meibench/reference/quant"
)

// Options of a conversion.
type Options struct {
	Threads  int                 // at least 1; the bytes do not depend on it
	Progress func(i int, s Step) // called before each tensor, or nil
}

// chunkWeights is how many weights a thread converts at once, up to whole rows: 1 MiB of float32.
const chunkWeights = 1 << 18

// Write writes the converted file. It stops with the context's error between pieces.
func (p *Plan) Write(ctx context.Context, w io.Writer, o Options) error {
	if o.Threads < 1 {
		return fmt.Errorf("convert with %d threads: want at least 1", o.Threads)
	}
	tensors := make([]gguf.TensorData, len(p.Steps))
	workers := make([]worker, o.Threads)
	for i, s := range p.Steps {
		tensors[i] = gguf.TensorData{Name: s.From.Name, Type: s.To, Dims: s.From.Dims, Stream: func(w io.Writer) error {
			if o.Progress != nil {
				o.Progress(i, s)
			}
			return p.stream(ctx, w, s, workers)
		}}
	}
	return gguf.Write(w, p.meta(), tensors)
}

// meta is the file's metadata with the file type that readers show, and without what held for split files.
func (p *Plan) meta() []gguf.KV {
	set := []gguf.KV{{Key: "general.file_type", Value: p.Recipe.FileType}, {Key: "general.quantization_version", Value: uint32(2)}}
	var meta []gguf.KV
	for _, kv := range p.File.KV {
		switch kv.Key {
		case "split.no", "split.count", "split.tensors.count":
			continue
		}
		if i := slices.IndexFunc(set, func(s gguf.KV) bool { return s.Key == kv.Key }); i >= 0 {
			kv = set[i]
			set = slices.Delete(set, i, i+1)
		}
		meta = append(meta, kv)
	}
	return append(meta, set...)
}

// stream writes one tensor, chunk by chunk: as many as there are workers side by side, then all of them in order.
func (p *Plan) stream(ctx context.Context, w io.Writer, s Step, workers []worker) error {
	cols := s.From.Dims[0]
	rows := s.From.Elements() / cols
	per := max(1, chunkWeights/cols)
	src := p.File.Reader(s.From)
	for row := 0; row < rows; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var busy sync.WaitGroup
		var used []*worker
		for i := range workers {
			n := min(per, rows-row)
			if n <= 0 {
				break
			}
			k := &workers[i]
			k.step, k.first, k.rows = s, row, n
			busy.Go(func() { k.err = k.convert(src) })
			used = append(used, k)
			row += n
		}
		busy.Wait()
		for _, k := range used {
			if k.err != nil {
				return k.err
			}
			if _, err := w.Write(k.out); err != nil {
				return err
			}
		}
	}
	return nil
}

// worker converts one chunk of rows at a time in buffers of its own.
type worker struct {
	step        Step
	first, rows int
	in, out     []byte
	values      []float32
	err         error
}

func (k *worker) convert(src io.ReaderAt) error {
	t := k.step.From
	cols := t.Dims[0]
	size, err := t.Type.RowBytes(cols)
	if err != nil {
		return err
	}
	k.in = grow(k.in, size*k.rows)
	if n, err := src.ReadAt(k.in, int64(size)*int64(k.first)); n < len(k.in) {
		return fmt.Errorf("read rows from %d on: %w", k.first, errors.Join(err, io.ErrUnexpectedEOF))
	}
	if t.Type == k.step.To {
		k.out = append(k.out[:0], k.in...)
		return nil
	}
	k.values = grow(k.values, cols*k.rows)
	quant.Decode(t.Type, k.values, k.in)
	size, err = k.step.To.RowBytes(cols)
	if err != nil {
		return err
	}
	k.out = grow(k.out, size*k.rows)
	if err := quant.Encode(k.step.To, k.out, k.values); err != nil {
		return fmt.Errorf("rows from %d on: %w", k.first, err)
	}
	return nil
}

// grow returns a slice of length n, with what it held before of no meaning.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
