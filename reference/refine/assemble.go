package refine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"meibench/internal/units"
	"meibench/reference/gguf"
	"meibench/reference/llm"
)

// Assembly is a file that is coming.
type Assembly struct {
	Pieces []Piece // what there is to come, with the head first
	Rungs  int

	layout
	file   []byte
	digest [sha256.Size]byte
	got    []bool
	left   []int // pieces that each rung lacks
	next   []int // by tensor: the plane that it needs next
}

// bytesAfter is a reader of a file of which only the beginning is there.
type bytesAfter []byte

func (b bytesAfter) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(b).ReadAt(p, at)
}

// Assemble begins a file with its head (piece 0 of a ladder), which says how large the file will be: at most the given
// size, which is what it takes in memory. Errors: a head that is too short, of another kind or inconsistent, and a file
// that is too large.
func Assemble(head []byte, most units.Bytes) (*Assembly, error) {
	if len(head) < headFixed || string(head[:4]) != magic {
		return nil, fmt.Errorf("refine: head of %d bytes: want %q and at least %d bytes: fetch it again", len(head), magic, headFixed)
	}
	fileSize := binary.LittleEndian.Uint64(head[4:])
	if fileSize > uint64(most) {
		return nil, fmt.Errorf("refine: the head speaks of a file of %d bytes: at most %d are allowed", fileSize, most)
	}
	prefix, body := binary.LittleEndian.Uint64(head[headFixed-8:]), head[headFixed:]
	if prefix > uint64(len(body)) || prefix > fileSize {
		return nil, fmt.Errorf("refine: the head has %d bytes of an index of %d: fetch it again", len(body), prefix)
	}
	f, err := gguf.Read(bytesAfter(body[:prefix]), int64(fileSize))
	if err != nil {
		return nil, fmt.Errorf("refine: index in the head: %w", err)
	}
	a := &Assembly{digest: [sha256.Size]byte(head[12:])}
	var layers int
	if a.layout, layers, err = newLayout(f, int64(fileSize)); err != nil {
		return nil, err
	}
	if a.prefix() != int64(prefix) {
		return nil, fmt.Errorf("refine: the head has %d bytes before the first tensor, its index says %d", prefix, a.prefix())
	}
	gaps := int64(0)
	a.gaps(func(from, to int64) error { gaps += to - from; return nil })
	if int64(len(body)) != int64(prefix)+gaps {
		return nil, fmt.Errorf("refine: the head has %d bytes between tensors, want %d: fetch it again", int64(len(body))-int64(prefix), gaps)
	}
	a.begin(body, layers)
	a.Pieces[0].Bytes = units.Bytes(len(head))
	return a, nil
}

func (a *Assembly) begin(body []byte, layers int) {
	a.file = make([]byte, a.size)
	body = body[copy(a.file[:a.prefix()], body):]
	a.gaps(func(from, to int64) error {
		body = body[copy(a.file[from:to], body):]
		return nil
	})
	a.Pieces, a.Rungs = a.pieces(layers)
	a.got, a.left = make([]bool, len(a.Pieces)), make([]int, a.Rungs)
	a.got[0] = true
	for _, p := range a.Pieces[1:] {
		a.left[p.Rung]++
	}
	a.next = make([]int, len(a.tensors))
}

// Add puts piece i in its place. The pieces of a layer come in the order of their rungs; of different layers, in any
// order. Errors, which leave the file as it was: a piece that does not exist, came before, has another size, or refines
// what is not there. With the last piece the file is compared with the digest in the head; if it differs, what came was
// tampered with or belongs to another file, and the assembly is of no use.
func (a *Assembly) Add(i int, data []byte) error {
	if i < 0 || i >= len(a.Pieces) {
		return fmt.Errorf("refine: piece %d: there are %d", i, len(a.Pieces))
	}
	p := a.Pieces[i]
	switch {
	case a.got[i]:
		return fmt.Errorf("refine: piece %d, %s: is there already", i, p.Label)
	case units.Bytes(len(data)) != p.Bytes:
		return fmt.Errorf("refine: piece %d, %s: %d bytes, want %d: fetch it again", i, p.Label, len(data), p.Bytes)
	}
	for _, k := range p.tensors {
		if a.next[k] != p.Rung {
			return fmt.Errorf("refine: piece %d, %s: tensor %q lacks plane %d: add that first", i, p.Label, a.tensors[k].Name, a.next[k])
		}
	}
	for _, k := range p.tensors {
		t := &a.tensors[k]
		n := t.planeBytes(p.Rung)
		insert(a.file[t.Offset:t.Offset+t.Bytes], data[:n], t.planes[p.Rung], t.had(p.Rung))
		data = data[n:]
		a.next[k]++
	}
	a.got[i] = true
	a.left[p.Rung]--
	if a.Rung() == a.Rungs-1 && sha256.Sum256(a.file) != a.digest {
		return fmt.Errorf("refine: all %d pieces are there and the file's SHA-256 is not %s: a piece was damaged or is of another file; fetch all again",
			len(a.Pieces), hex.EncodeToString(a.digest[:]))
	}
	return nil
}

// had are the bits of the planes before one.
func (t *place) had(plane int) []byte {
	had := make([]byte, t.Type.BlockBytes())
	for _, mask := range t.planes[:plane] {
		for i, m := range mask {
			had[i] |= m
		}
	}
	return had
}

// Rung is the highest rung of which all pieces are there, and all of those below; -1: none.
func (a *Assembly) Rung() int {
	for rung, left := range a.left {
		if left > 0 {
			return rung - 1
		}
	}
	return a.Rungs - 1
}

// File is the file as it stands: missing bits in the middle of their range, tensors of which nothing came zero. It changes
// with Add.
func (a *Assembly) File() []byte { return a.file }

// Model is the model as it stands, ready to run; it does not change with later pieces. Error: no rung is complete.
func (a *Assembly) Model() (*llm.Model, error) {
	if a.Rung() < 0 {
		return nil, fmt.Errorf("refine: no rung is complete yet: %d pieces of the first are missing", a.left[0])
	}
	m, err := llm.Read(bytes.NewReader(a.file), a.size, llm.ReadOptions{})
	if err != nil {
		return nil, fmt.Errorf("refine: %w", err)
	}
	return m, m.Pack(1)
}
