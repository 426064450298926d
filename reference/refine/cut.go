package refine

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"meibench/internal/units"
	"meibench/reference/gguf"
	"meibench/reference/library"
)

// Piece is some of the bits of the tensors of a layer, or the head.
type Piece struct {
	Label  string // such as "head", "coarse embedding", "bits 2 of layer 7"
	Rung   int    // -1: the head
	Lo, Hi int    // layers [Lo, Hi) that it holds or completes, as in library.Block
	Bytes  units.Bytes

	tensors []int // of the layout
}

// Ladder is a file cut into pieces: the head, then all layers coarsely, then the bits that refine them.
type Ladder struct {
	Pieces []Piece // in the order in which they are useful
	Rungs  int
	SHA256 string // of the file, in hexadecimal

	r io.ReaderAt
	layout
}

// layout is where the bits of a file belong.
type layout struct {
	size    int64
	tensors []place // ascending by offset
}

// place is a tensor in the file.
type place struct {
	gguf.Tensor
	planes [][]byte
	layer  int // -1: before the layers
}

// prefix is the bytes before the first tensor.
func (l *layout) prefix() int64 {
	if len(l.tensors) == 0 {
		return l.size
	}
	return l.tensors[0].Offset
}

// gaps calls f for each run of bytes after the prefix that belongs to no tensor: padding.
func (l *layout) gaps(f func(from, to int64) error) error {
	at := l.prefix()
	for _, t := range l.tensors {
		if t.Offset > at {
			if err := f(at, t.Offset); err != nil {
				return err
			}
		}
		at = t.Offset + t.Bytes
	}
	if at < l.size {
		return f(at, l.size)
	}
	return nil
}

// newLayout sorts the tensors of a file.
func newLayout(f *gguf.File, size int64) (layout, int, error) {
	l := layout{size: size}
	layers := 0
	for _, t := range f.Tensors {
		p := place{Tensor: t, planes: planes(t.Type), layer: -1}
		if len(t.Dims) == 1 {
			p.planes = [][]byte{bytes.Repeat([]byte{0xFF}, t.Type.BlockBytes())} // norms and biases: few, and they decide much
		}
		switch n, _, ok := gguf.LayerOf(t.Name); {
		case ok && n < len(f.Tensors):
			p.layer = n
			layers = max(layers, n+1)
		case strings.HasPrefix(t.Name, "blk."):
			return l, 0, fmt.Errorf("refine: tensor %q: want the number of a layer below %d", t.Name, len(f.Tensors))
		case !strings.HasPrefix(t.Name, "token_") && !strings.HasPrefix(t.Name, "position_"):
			p.layer = math.MaxInt // norm and head
		}
		l.tensors = append(l.tensors, p)
	}
	slices.SortFunc(l.tensors, func(a, b place) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := 1; i < len(l.tensors); i++ {
		if a := l.tensors[i-1]; a.Offset+a.Bytes > l.tensors[i].Offset {
			return l, 0, fmt.Errorf("refine: tensors %q and %q overlap in the file", a.Name, l.tensors[i].Name)
		}
	}
	return l, layers, nil
}

// pieces are the parts of a ladder in order, but for the bytes of the head, and the number of rungs.
func (l *layout) pieces(layers int) ([]Piece, int) {
	rungs := 1
	byLayer := make([][]int, layers+2)
	for i, t := range l.tensors {
		rungs = max(rungs, len(t.planes))
		at := min(t.layer, layers) + 1
		byLayer[at] = append(byLayer[at], i)
	}
	all := []Piece{{Label: "head", Rung: -1}}
	for rung := range rungs {
		for layer := -1; layer <= layers; layer++ {
			p := Piece{Rung: rung, Lo: max(0, layer), Hi: min(layer+1, layers)}
			what := fmt.Sprintf("layer %d", layer)
			switch layer {
			case -1:
				what, p.Hi = "the embedding", 0
			case layers:
				what = "the head"
			}
			p.Label = "coarse " + strings.TrimPrefix(what, "the ")
			if rung > 0 {
				p.Label = fmt.Sprintf("bits %d of %s", rung, what)
			}
			for _, i := range byLayer[layer+1] {
				if t := &l.tensors[i]; rung < len(t.planes) {
					p.tensors = append(p.tensors, i)
					p.Bytes += units.Bytes(t.planeBytes(rung))
				}
			}
			if p.Bytes > 0 {
				all = append(all, p)
			}
		}
	}
	return all, rungs
}

// planeBytes is the size of a plane of a tensor.
func (t *place) planeBytes(plane int) int {
	return size(t.planes[plane], int(t.Bytes)/t.Type.BlockBytes())
}

// Cut reads a GGUF file, which stays with the reader. It reads all of it once, for its digest.
func Cut(r io.ReaderAt, size int64) (*Ladder, error) {
	f, err := gguf.Read(r, size)
	if err != nil {
		return nil, fmt.Errorf("refine: %w", err)
	}
	l := &Ladder{r: r}
	var layers int
	if l.layout, layers, err = newLayout(f, size); err != nil {
		return nil, err
	}
	l.Pieces, l.Rungs = l.pieces(layers)
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(r, 0, size)); err != nil {
		return nil, fmt.Errorf("refine: digest of the file: %w", err)
	}
	l.SHA256 = hex.EncodeToString(sum.Sum(nil))
	head, err := l.head()
	l.Pieces[0].Bytes = units.Bytes(len(head))
	return l, err
}

const (
	magic     = "mlad"
	headFixed = 4 + 8 + sha256.Size + 8 // magic, size, digest, length of the prefix
)

// head is the piece that has all that is no weight:
//
//	"mlad", size of the file (8 bytes, little endian), its SHA-256 (32), length of what follows (8), the bytes before the
//	first tensor, and the bytes between tensors and behind the last
func (l *Ladder) head() ([]byte, error) {
	digest, err := hex.DecodeString(l.SHA256)
	if err != nil {
		return nil, err
	}
	b := binary.LittleEndian.AppendUint64([]byte(magic), uint64(l.size))
	b = append(b, digest...)
	b = binary.LittleEndian.AppendUint64(b, uint64(l.prefix()))
	add := func(from, to int64) error {
		at := len(b)
		b = append(b, make([]byte, to-from)...)
		_, err := l.r.ReadAt(b[at:], from)
		if err != nil && (err != io.EOF || to != l.size) {
			return fmt.Errorf("refine: bytes %d to %d of the file: %w", from, to, err)
		}
		return nil
	}
	if err := add(0, l.prefix()); err != nil {
		return nil, err
	}
	return b, l.gaps(add)
}

// Data is the content of piece i.
func (l *Ladder) Data(i int) ([]byte, error) {
	if i == 0 {
		return l.head()
	}
	p := l.Pieces[i]
	b := make([]byte, 0, p.Bytes)
	for _, k := range p.tensors {
		t := &l.tensors[k]
		raw := make([]byte, t.Bytes)
		if _, err := l.r.ReadAt(raw, t.Offset); err != nil && err != io.EOF {
			return nil, fmt.Errorf("refine: tensor %q: %w", t.Name, err)
		}
		b = extract(b, raw, t.planes[p.Rung])
	}
	return b, nil
}

// Library is a library of one model whose blocks are the pieces, with their digests. Quality has the scores of the rungs;
// nil: not known.
func (l *Ladder) Library(name string, quality []float64) (*library.Library, error) {
	if quality != nil && len(quality) != l.Rungs {
		return nil, fmt.Errorf("refine: %d scores for %d rungs", len(quality), l.Rungs)
	}
	lib := &library.Library{Name: name, Source: "planes of bits of the file " + l.SHA256}
	m := library.Model{Name: name}
	for i, p := range l.Pieces {
		data, err := l.Data(i)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		lib.Blocks = append(lib.Blocks, library.Block{Name: name + ": " + p.Label, Digest: hex.EncodeToString(sum[:]), Bytes: p.Bytes, Lo: p.Lo, Hi: p.Hi})
		m.Blocks = append(m.Blocks, i)
		if p.Rung >= 0 && (i+1 == len(l.Pieces) || l.Pieces[i+1].Rung > p.Rung) {
			r := library.Rung{Blocks: i + 1, Quality: math.NaN()}
			if quality != nil {
				r.Quality = quality[p.Rung]
			}
			m.Rungs = append(m.Rungs, r)
		}
	}
	lib.Models = []library.Model{m}
	return lib, lib.Check()
}
