package offload

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"meibench/internal/units"
	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/panel"
	"meibench/reference/quant"
	"meibench/reference/storage"
)

// matrix is a matrix, or a run of its rows, in the file.
type matrix struct {
	into *llm.Matrix // where it is used
	typ  quant.Type
	n, k int
	at   int64 // in the file
	row  int   // bytes of a row there
}

func (m *matrix) fileBytes() int64 { return int64(m.n) * int64(m.row) }
func (m *matrix) memoryBytes() int64 {
	return int64((panel.PackedBytes(m.typ, m.n, m.k) + 63) / 64 * 64)
}

// unit is what is read, kept and dropped as one: a layer, a run of head rows, or an expert.
type unit struct {
	layer    int // L for the head
	lo, hi   int // rows of the head
	matrices []matrix

	file, memory int64
	pinned       bool

	slot   []byte // memory of its own, if pinned
	panels []*panel.Matrix
}

func (u *unit) add(m matrix) {
	u.matrices = append(u.matrices, m)
	u.file += m.fileBytes()
	u.memory += m.memoryBytes()
}

// enter makes products read the panels, leave takes them away.
func (u *unit) enter(panels []*panel.Matrix) error {
	for i := range u.matrices {
		if err := u.matrices[i].into.Use(panels[i]); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) leave() {
	for i := range u.matrices {
		_ = u.matrices[i].into.Use(nil) // nil fits every matrix
	}
}

// cut makes units of the model's matrices.
func (s *Stream) cut() error {
	m := s.model
	all := make([]*unit, m.Layers)
	for l := range all {
		all[l] = &unit{layer: l}
	}
	experts := map[int][]*unit{}
	offset := map[string]int64{}
	for _, w := range m.Weights() {
		if w.Matrix == nil {
			s.plan.Vectors += units.Bytes(4 * len(*w.Vector))
			continue
		}
		t, err := s.file.Tensor(w.Name)
		if err != nil {
			return err
		}
		row, err := t.Type.RowBytes(w.K)
		if err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		x := matrix{w.Matrix, t.Type, w.N, w.K, t.Offset + offset[w.Name], row}
		offset[w.Name] += x.fileBytes()
		layer := -1
		if strings.HasPrefix(w.Name, "blk.") {
			n, _, ok := gguf.LayerOf(w.Name)
			if !ok {
				return fmt.Errorf("tensor %.60q: want the number of a layer", w.Name)
			}
			layer = n
		}
		switch {
		case layer >= 0 && w.Expert && s.options.Experts != nil:
			if len(experts[layer]) <= w.Part {
				experts[layer] = append(experts[layer], &unit{layer: layer})
			}
			experts[layer][w.Part].add(x)
		case layer >= 0:
			all[layer].add(x)
		default: // the embedding is read by rows
			if w.Name == "token_embd.weight" {
				s.embed = t
			}
		}
	}
	if err := s.cutHead(&all); err != nil {
		return err
	}
	s.units = all
	for _, u := range all {
		s.plan.File += units.Bytes(u.file)
	}
	return s.prepareExperts(experts)
}

// cutHead adds runs of rows of the head, each no larger in memory than the largest layer; 32 rows are two panels.
func (s *Stream) cutHead(all *[]*unit) error {
	m := s.model
	name := "output.weight"
	if m.Tied {
		name = "token_embd.weight"
	}
	t, err := s.file.Tensor(name)
	if err != nil {
		return err
	}
	row, err := t.Type.RowBytes(m.Dim)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	head := *m
	head.Tied, head.Lo, head.Hi, head.Embed, head.Blocks = false, m.Layers, m.Layers, llm.Matrix{}, make([]llm.Block, m.Layers)
	s.head = &head
	largest := int64(0)
	for _, u := range *all {
		largest = max(largest, u.memory)
	}
	per := max(32, int(largest/int64(panel.PackedBytes(t.Type, 32, m.Dim)))*32)
	for lo := 0; lo < m.Vocab; lo += per {
		u := &unit{layer: m.Layers, lo: lo, hi: min(lo+per, m.Vocab)}
		u.add(matrix{&head.Head, t.Type, u.hi - lo, m.Dim, t.Offset + int64(lo)*int64(row), row})
		*all = append(*all, u)
	}
	return nil
}

// rowBytes is the size of a row of the embedding.
func (s *Stream) rowBytes() int { return int(s.embed.Bytes) / s.model.Vocab }

// clock counts what a reading goroutine does, in nanoseconds.
type clock struct{ read, packed atomic.Int64 }

// fill reads a unit and packs it into memory, piece by piece.
func (c *clock) fill(r *storage.Reader, b *storage.Buffer, u *unit, memory []byte) ([]*panel.Matrix, error) {
	panels := make([]*panel.Matrix, 0, len(u.matrices))
	for i := range u.matrices {
		m := &u.matrices[i]
		size := panel.PackedBytes(m.typ, m.n, m.k)
		p, err := panel.Over(m.typ, m.n, m.k, memory[:size:size])
		if err != nil {
			return nil, err
		}
		if err := c.fillMatrix(r, b, m, memory[:size]); err != nil {
			return nil, err
		}
		panels, memory = append(panels, p), memory[m.memoryBytes():]
	}
	return panels, nil
}

func (c *clock) fillMatrix(r *storage.Reader, b *storage.Buffer, m *matrix, memory []byte) error {
	began := time.Now()
	clear(memory)
	c.packed.Add(int64(time.Since(began)))
	per := max(1, stage/m.row/32) * 32 // whole pairs of panels
	for lo := 0; lo < m.n; lo += per {
		n := min(per, m.n-lo)
		began := time.Now()
		rows, err := r.Read(b, m.at+int64(lo)*int64(m.row), n*m.row)
		if err != nil {
			return err
		}
		read := time.Now()
		size := panel.PackedBytes(m.typ, n, m.k)
		part, err := panel.Over(m.typ, n, m.k, memory[:size:size])
		if err != nil {
			return err
		}
		part.PackRows(0, part.Panels(), rows)
		memory = memory[size:]
		c.read.Add(int64(read.Sub(began)))
		c.packed.Add(int64(time.Since(read)))
	}
	return nil
}

// stageBytes is what the staging buffer must take: a piece of the widest matrix.
func stageBytes(list []*unit) int {
	most := stage
	for _, u := range list {
		for i := range u.matrices {
			most = max(most, 32*u.matrices[i].row)
		}
	}
	return most
}
