package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/grpc/mem"
)

// frame is a message: a head that was written field by field, and after it the
// payloads as they are, without a copy. A frame that was received has it all in head.
type frame struct {
	head  []byte
	blobs [][]byte
}

// raw is the gRPC codec of frames; gRPC's own framing tells where one ends.
type raw struct{}

// Name is the codec's name in the content type.
func (raw) Name() string { return "meibench-frame" }

// Marshal hands the parts of a frame to gRPC.
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("agent codec: %T is not a frame", v)
	}
	out := make(mem.BufferSlice, 0, 1+len(f.blobs))
	out = append(out, mem.SliceBuffer(f.head))
	for _, b := range f.blobs {
		out = append(out, mem.SliceBuffer(b))
	}
	return out, nil
}

// Unmarshal copies a message out of gRPC's buffers once; payloads stay views of
// that copy.
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("agent codec: %T is not a frame", v)
	}
	f.head, f.blobs = data.Materialize(), nil
	return nil
}

// size is the length of the message in bytes.
func (f *frame) size() int {
	n := len(f.head)
	for _, b := range f.blobs {
		n += len(b)
	}
	return n
}

// bytes is the message as one slice, for tests.
func (f *frame) bytes() []byte {
	b := append([]byte(nil), f.head...)
	for _, p := range f.blobs {
		b = append(b, p...)
	}
	return b
}

// writer builds a frame: whole numbers as zigzag varints, floats and tokens in
// little-endian words, payloads at the end.
type writer struct{ frame }

func (w *writer) byte(b byte)     { w.head = append(w.head, b) }
func (w *writer) int(n int)       { w.head = binary.AppendVarint(w.head, int64(n)) }
func (w *writer) int64(n int64)   { w.head = binary.AppendVarint(w.head, n) }
func (w *writer) uint64(n uint64) { w.head = binary.AppendUvarint(w.head, n) }

func (w *writer) bool(b bool) {
	if b {
		w.byte(1)
	} else {
		w.byte(0)
	}
}

func (w *writer) float32(x float32) {
	w.head = binary.LittleEndian.AppendUint32(w.head, math.Float32bits(x))
}

func (w *writer) float64(x float64) {
	w.head = binary.LittleEndian.AppendUint64(w.head, math.Float64bits(x))
}

func (w *writer) string(s string) {
	w.uint64(uint64(len(s)))
	w.head = append(w.head, s...)
}

// count writes a slice's length; nil differs from empty, as a payload's data do.
func (w *writer) count(n int, isNil bool) {
	if isNil {
		w.uint64(0)
		return
	}
	w.uint64(uint64(n) + 1)
}

func (w *writer) blob(b []byte) {
	w.count(len(b), b == nil)
	if len(b) > 0 {
		w.blobs = append(w.blobs, b)
	}
}

func (w *writer) int32s(v []int32) {
	w.count(len(v), v == nil)
	for _, x := range v {
		w.head = binary.LittleEndian.AppendUint32(w.head, uint32(x))
	}
}

func (w *writer) float32s(v []float32) {
	w.count(len(v), v == nil)
	for _, x := range v {
		w.float32(x)
	}
}

func (w *writer) ints(v []int) {
	w.count(len(v), v == nil)
	for _, x := range v {
		w.int(x)
	}
}

var (
	errShort   = errors.New("message ends too early")
	errVarint  = errors.New("number too large")
	errCount   = errors.New("more elements than the message has bytes")
	errRest    = errors.New("bytes left over at the end")
	errRange   = errors.New("number out of range")
	errUnknown = errors.New("unknown kind of message")
)

// reader takes a frame apart. The first error sticks; what is read after it is
// zero. No count is believed beyond the bytes that are there.
type reader struct {
	b     []byte
	err   error
	blobs []wanted
}

// wanted is a payload that lies behind the head.
type wanted struct {
	to *[]byte
	n  int
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail(errShort)
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) bool() bool {
	b := r.byte()
	if b > 1 {
		r.fail(errRange)
	}
	return b == 1
}

func (r *reader) uint64() uint64 {
	v, n := binary.Uvarint(r.b)
	switch {
	case n == 0:
		r.fail(errShort)
		return 0
	case n < 0:
		r.fail(errVarint)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int64() int64 {
	v, n := binary.Varint(r.b)
	switch {
	case n == 0:
		r.fail(errShort)
		return 0
	case n < 0:
		r.fail(errVarint)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int {
	v := r.int64()
	if int64(int(v)) != v {
		r.fail(errRange)
		return 0
	}
	return int(v)
}

func (r *reader) float32() float32 {
	if b := r.take(4); b != nil {
		return math.Float32frombits(binary.LittleEndian.Uint32(b))
	}
	return 0
}

func (r *reader) float64() float64 {
	if b := r.take(8); b != nil {
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
	return 0
}

// count reads a length written by writer.count; each element takes at least
// size bytes.
func (r *reader) count(size int) (n int, isNil bool) {
	v := r.uint64()
	if v == 0 {
		return 0, true
	}
	v--
	if v > uint64(len(r.b)/size) {
		r.fail(errCount)
		return 0, true
	}
	return int(v), false
}

func (r *reader) string() string {
	n := r.uint64()
	if n > uint64(len(r.b)) {
		r.fail(errCount)
		return ""
	}
	return string(r.take(int(n)))
}

func (r *reader) blob(to *[]byte) {
	n, isNil := r.count(1)
	if isNil {
		return
	}
	*to = []byte{}
	if n > 0 {
		r.blobs = append(r.blobs, wanted{to, n})
	}
}

func (r *reader) int32s() []int32 {
	n, isNil := r.count(4)
	if isNil {
		return nil
	}
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(binary.LittleEndian.Uint32(r.take(4)))
	}
	return v
}

func (r *reader) float32s() []float32 {
	n, isNil := r.count(4)
	if isNil {
		return nil
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = r.float32()
	}
	return v
}

func (r *reader) ints() []int {
	n, isNil := r.count(1)
	if isNil {
		return nil
	}
	v := make([]int, n)
	for i := range v {
		v[i] = r.int()
	}
	return v
}

// end hands out the payloads and checks that nothing is missing or left over.
func (r *reader) end() error {
	for _, w := range r.blobs {
		b := r.take(w.n)
		if r.err != nil {
			return r.err
		}
		*w.to = b[:w.n:w.n]
	}
	if r.err == nil && len(r.b) > 0 {
		r.err = errRest
	}
	return r.err
}
