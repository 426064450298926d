package flash

import (
	"fmt"
	"io"
	"math"
	"slices"

	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

// Layout is how neurons lie in their file.
type Layout int

const (
	// Bundled has the three rows of a neuron together: one read brings it.
	Bundled Layout = iota
	// Apart has three matrices, as other files do, but for Down, whose columns lie as rows: three reads.
	Apart
)

// String names a layout as reports do.
func (l Layout) String() string { return [...]string{"bundled", "apart"}[l] }

// parts are the rows of a neuron, in order: of Gate, of Up, and a column of Down.
const parts = 3

// Names of tensors in a file of neurons, by layer.
var (
	bundleName = "blk.%d.ffn_neurons.weight"
	apartNames = [parts]string{"blk.%d.ffn_gate.weight", "blk.%d.ffn_up.weight", "blk.%d.ffn_down_turned.weight"}
)

// TypeOf is the type in which a model's neurons are kept: its own if that has no blocks, else F32, because a column of Down is
// no row of blocks. Values are the same.
func TypeOf(t quant.Type) quant.Type {
	if t == quant.F16 || t == quant.BF16 {
		return t
	}
	return quant.F32
}

// Write writes the neurons of a model's feed-forward networks as a GGUF file of their own.
func Write(w io.Writer, m *llm.Model, layout Layout) error {
	if !m.SwiGLU() || m.Lo != 0 || m.Hi != m.Layers {
		return fmt.Errorf("write neurons of %s, layers [%d, %d) of %d, %d experts: want a whole dense model with SwiGLU", m.Arch, m.Lo, m.Hi, m.Layers, m.Experts)
	}
	if layout != Bundled && layout != Apart {
		return fmt.Errorf("write neurons: layout %d: want flash.Bundled or Apart", int(layout))
	}
	var list []gguf.TensorData
	for l := range m.Layers {
		t := TypeOf(m.Blocks[l].Up.Type)
		if layout == Bundled {
			list = append(list, gguf.TensorData{Name: fmt.Sprintf(bundleName, l), Type: t, Dims: []int{parts * m.Dim, m.FFN},
				Data: func() ([]byte, error) { return encode(m, l, []int{0, 1, 2}) }})
			continue
		}
		for part, name := range apartNames {
			list = append(list, gguf.TensorData{Name: fmt.Sprintf(name, l), Type: t, Dims: []int{m.Dim, m.FFN},
				Data: func() ([]byte, error) { return encode(m, l, []int{part}) }})
		}
	}
	meta := []gguf.KV{{Key: "general.architecture", Value: "mei-neurons"}, {Key: "mei-neurons.layout", Value: layout.String()}}
	if err := gguf.Write(w, meta, list); err != nil {
		return fmt.Errorf("write neurons: %w", err)
	}
	return nil
}

// encode is the rows of every neuron of a layer, of the parts given.
func encode(m *llm.Model, l int, which []int) ([]byte, error) {
	b, C, F := &m.Blocks[l], m.Dim, m.FFN
	down := make([]float32, F*C) // turned
	if slices.Contains(which, 2) {
		row := make([]float32, F)
		for c := range C {
			b.Down.ReadRow(row, c, 0)
			for f, v := range row {
				down[f*C+c] = v
			}
		}
	}
	t := TypeOf(b.Up.Type)
	size, err := t.RowBytes(C)
	if err != nil {
		return nil, err
	}
	out, row := make([]byte, F*len(which)*size), make([]float32, C)
	at := 0
	for f := range F {
		for _, part := range which {
			switch part {
			case 0:
				b.Gate.ReadRow(row, f, 0)
			case 1:
				b.Up.ReadRow(row, f, 0)
			default:
				copy(row, down[f*C:(f+1)*C])
			}
			if err := quant.Encode(t, out[at:at+size], row); err != nil {
				return nil, fmt.Errorf("layer %d, neuron %d: %w", l, f, err)
			}
			at += size
		}
	}
	return out, nil
}

// place is where a layer's neurons are in the file.
type place struct {
	layout Layout
	typ    quant.Type
	row    int // bytes of one of the three rows
	at     [parts]int64
}

// find looks up and checks the neurons of a model in an open file.
func find(f *gguf.File, c llm.Config) ([]place, Layout, error) {
	name, err := gguf.Value[string](f, "mei-neurons.layout")
	if err != nil {
		return nil, 0, err
	}
	layout := Layout(slices.Index([]string{Bundled.String(), Apart.String()}, name))
	if layout < 0 {
		return nil, 0, fmt.Errorf("neurons lie %.20q: want bundled or apart", name)
	}
	places := make([]place, c.Layers)
	for l := range places {
		p := place{layout: layout}
		names, width := apartNames[:], c.Dim
		if layout == Bundled {
			names, width = []string{bundleName}, parts*c.Dim
		}
		for i, name := range names {
			t, err := f.Tensor(fmt.Sprintf(name, l))
			if err != nil {
				return nil, 0, err
			}
			if len(t.Dims) != 2 || t.Dims[0] != width || t.Dims[1] != c.FFN || TypeOf(t.Type) != t.Type || i > 0 && t.Type != p.typ {
				return nil, 0, fmt.Errorf("tensor %s is %v of %v: want [%d %d] of F16, BF16 or F32: the file is another model's", t.Name, t.Dims, t.Type, width, c.FFN)
			}
			p.typ, p.at[i] = t.Type, t.Offset
		}
		if p.row, err = p.typ.RowBytes(c.Dim); err != nil {
			return nil, 0, err
		}
		places[l] = p
	}
	return places, layout, nil
}

// bytes is the size of a neuron.
func (p *place) bytes() int { return parts * p.row }

// span is bytes of the file that one read brings: neurons [lo, hi), all their parts or one.
type span struct {
	lo, hi, part int // part is -1 for all
}

// spans cuts sorted neurons into runs of neighbours, none above so many bytes.
func (p *place) spans(list []span, neurons []int32, most int) []span {
	size := p.bytes()
	if p.layout == Apart {
		size = p.row
	}
	per := max(1, most/size)
	for i := 0; i < len(neurons); {
		j := i + 1
		for j < len(neurons) && neurons[j] == neurons[j-1]+1 && j-i < per {
			j++
		}
		lo, hi := int(neurons[i]), int(neurons[j-1])+1
		if p.layout == Bundled {
			list = append(list, span{lo, hi, -1})
		} else {
			for part := range parts {
				list = append(list, span{lo, hi, part})
			}
		}
		i = j
	}
	return list
}

// where is a span's place in the file.
func (p *place) where(s span) (off int64, n int) {
	if s.part < 0 {
		return p.at[0] + int64(s.lo)*int64(p.bytes()), (s.hi - s.lo) * p.bytes()
	}
	return p.at[s.part] + int64(s.lo)*int64(p.row), (s.hi - s.lo) * p.row
}

// Forever is a window that forgets nothing.
const Forever = math.MaxInt32
