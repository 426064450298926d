package gguf

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"meibench/reference/quant"
)

// TensorData is a tensor to write. Dims are in the order of the file, see [Tensor].
type TensorData struct {
	Name string
	Type quant.Type
	Dims []int
	Data func() ([]byte, error) // its encoded bytes, asked for once when their turn comes

	// Stream writes the encoded bytes piece by piece, in place of Data, for tensors that memory should not hold whole.
	Stream func(w io.Writer) error
}

// Bytes adapts a slice to TensorData.Data.
func Bytes(b []byte) func() ([]byte, error) { return func() ([]byte, error) { return b, nil } }

// Write writes a version 3 file: metadata and tensors in the order given, equal bytes for equal input.
// The alignment is that of general.alignment if meta has it, else 32.
func Write(w io.Writer, meta []KV, tensors []TensorData) error {
	align, err := writeAlignment(meta)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	b := le.AppendUint32([]byte(magic), 3)
	b = le.AppendUint64(b, uint64(len(tensors)))
	b = le.AppendUint64(b, uint64(len(meta)))
	if b, err = appendMeta(b, meta); err != nil {
		return err
	}
	b, sizes, err := appendTable(b, tensors, align)
	if err != nil {
		return err
	}
	if _, err := w.Write(appendPad(b, len(b), align)); err != nil {
		return fmt.Errorf("gguf: write header: %w", err)
	}
	for i, t := range tensors {
		err := t.write(w, sizes[i])
		if err == nil {
			_, err = w.Write(appendPad(nil, sizes[i], align))
		}
		if err != nil {
			return fmt.Errorf("gguf: write tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// write writes the data of one tensor, which must have size bytes.
func (t TensorData) write(w io.Writer, size int) error {
	c := &counter{w: w, left: size}
	if t.Stream != nil {
		if err := t.Stream(c); err != nil {
			return err
		}
	} else {
		data, err := t.Data()
		if err != nil {
			return err
		}
		if len(data) != size {
			return fmt.Errorf("has %d bytes, want %d for %v %v", len(data), size, t.Type, t.Dims)
		}
		if _, err := c.Write(data); err != nil {
			return err
		}
	}
	if c.left != 0 {
		return fmt.Errorf("has %d bytes, want %d for %v %v", size-c.left, size, t.Type, t.Dims)
	}
	return nil
}

// counter passes on at most left bytes.
type counter struct {
	w    io.Writer
	left int
}

func (c *counter) Write(b []byte) (int, error) {
	if len(b) > c.left {
		return 0, fmt.Errorf("has %d bytes more than its type and shape need", len(b)-c.left)
	}
	n, err := c.w.Write(b)
	c.left -= n
	return n, err
}

func writeAlignment(meta []KV) (int, error) {
	for _, kv := range meta {
		if kv.Key == "general.alignment" {
			a, ok := kv.Value.(uint32)
			if !ok || a == 0 || a&(a-1) != 0 || a > maxAlignment {
				return 0, fmt.Errorf("gguf: write: general.alignment is %v (%T), want a uint32 power of two up to %d", kv.Value, kv.Value, maxAlignment)
			}
			return int(a), nil
		}
	}
	return defaultAlignment, nil
}

func appendMeta(b []byte, meta []KV) ([]byte, error) {
	seen := map[string]bool{}
	for _, kv := range meta {
		if kv.Key == "" || len(kv.Key) > maxKeyBytes || seen[kv.Key] {
			return nil, fmt.Errorf("gguf: write: key %q is empty, too long or appears twice", kv.Key)
		}
		seen[kv.Key] = true
		b, _, _ = appendValue(b, kv.Key)
		value, typ, err := appendValue(nil, kv.Value)
		if err != nil {
			return nil, fmt.Errorf("gguf: write: key %q: %w", kv.Key, err)
		}
		b = append(binary.LittleEndian.AppendUint32(b, typ), value...)
	}
	return b, nil
}

func appendTable(b []byte, tensors []TensorData, align int) ([]byte, []int, error) {
	le := binary.LittleEndian
	seen := map[string]bool{}
	var sizes []int
	offset := 0
	for _, t := range tensors {
		if t.Name == "" || len(t.Name) > maxNameBytes || seen[t.Name] || len(t.Dims) == 0 || len(t.Dims) > maxDims {
			return nil, nil, fmt.Errorf("gguf: write: tensor %q %v: want a unique name of 1 to %d bytes and 1 to %d dimensions",
				t.Name, t.Dims, maxNameBytes, maxDims)
		}
		seen[t.Name] = true
		size, err := t.Type.RowBytes(t.Dims[0])
		if err != nil {
			return nil, nil, fmt.Errorf("gguf: write: tensor %q: %w", t.Name, err)
		}
		b, _, _ = appendValue(b, t.Name)
		b = le.AppendUint32(b, uint32(len(t.Dims)))
		for i, d := range t.Dims {
			if d < 1 {
				return nil, nil, fmt.Errorf("gguf: write: tensor %q: dimensions %v, want all positive", t.Name, t.Dims)
			}
			if i > 0 {
				if size > math.MaxInt/2/d {
					return nil, nil, fmt.Errorf("gguf: write tensor %q: %v %v is too large", t.Name, t.Type, t.Dims)
				}
				size *= d
			}
			b = le.AppendUint64(b, uint64(d))
		}
		b = le.AppendUint64(le.AppendUint32(b, uint32(t.Type)), uint64(offset))
		sizes = append(sizes, size)
		offset += (size + align - 1) / align * align
	}
	return b, sizes, nil
}

// appendPad appends zeros that bring n up to a multiple of align.
func appendPad(b []byte, n, align int) []byte {
	return append(b, make([]byte, (align-n%align)%align)...)
}
