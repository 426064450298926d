package codec

import (
	"fmt"
	"math"
)

// Clip is a law that an integer codec assumes of a row to choose the range it covers.
type Clip int

// The laws. None covers a row from its least to its largest number. Gauss and Laplace cut the tails where the mean square
// error of cutting and of rounding together is least for that law (Banner et al. 2018, ACIQ; PipeEdge's clamp).
const (
	None Clip = iota
	Gauss
	Laplace
)

// Affine writes each number as an integer of Bits bits, 2 to 8: x is about lo + q step, with lo and step of the row as
// float32 ahead of the packed integers, so a row takes ceil(dim Bits / 8) + 8 bytes.
//
// A number inside the range comes back within step/2, plus the rounding of the answer to float32. Numbers that Clip cuts off
// come back as the end of the range.
type Affine struct {
	Bits int
	Clip Clip
}

// Name is "int" and the bits, and the law if there is one: "int4", "int4-laplace".
func (c Affine) Name() string {
	return fmt.Sprintf("int%d%s", c.Bits, [...]string{None: "", Gauss: "-gauss", Laplace: "-laplace"}[c.Clip])
}

// Bytes is exact.
func (c Affine) Bytes(tokens, dim int) int { return tokens * (8 + packedBytes(dim, c.Bits)) }

// Encode implements Codec.
func (c Affine) Encode(dst []byte, x []float32, dim int) []byte {
	if c.Bits < 2 || c.Bits > 8 {
		panic("codec: an integer codec has 2 to 8 bits")
	}
	rows(x, dim)
	for ; len(x) > 0; x = x[dim:] {
		row := x[:dim]
		lo, hi := c.span(row)
		g := newGrid(lo, hi, c.Bits)
		dst = putFloat(putFloat(dst, g.lo), g.step)
		dst = g.pack(dst, row)
	}
	return dst
}

// Decode implements Codec. It refuses ranges that Encode cannot have written and padding bits that are set.
func (c Affine) Decode(dst []float32, wire []byte, dim int) ([]float32, error) {
	if err := wholeRows(c.Bytes(1, dim), wire, dim); err != nil {
		return dst, fmt.Errorf("decode %s: %w", c.Name(), err)
	}
	start, size := len(dst), c.Bytes(1, dim)
	for n := 0; len(wire) > 0; n, wire = n+1, wire[size:] {
		g := grid{lo: float(wire), step: float(wire[4:]), bits: c.Bits}
		if err := g.check(); err != nil {
			return dst[:start], fmt.Errorf("decode %s: row %d: %w", c.Name(), n, err)
		}
		var err error
		if dst, err = g.unpack(dst, wire[8:size], dim); err != nil {
			return dst[:start], fmt.Errorf("decode %s: row %d: %w", c.Name(), n, err)
		}
	}
	return dst, nil
}

// span is the range of the row that the integers cover; NaN if a number is not finite.
func (c Affine) span(row []float32) (lo, hi float64) {
	lo, hi = bounds(row)
	if c.Clip == None || !(hi > lo) {
		return lo, hi
	}
	n := float64(len(row))
	var mean, spread float64
	for _, v := range row {
		mean += float64(v)
	}
	mean /= n
	for _, v := range row {
		d := float64(v) - mean
		if c.Clip == Laplace {
			spread += math.Abs(d)
		} else {
			spread += float64(d * d)
		}
	}
	spread /= n
	if c.Clip == Gauss {
		spread = math.Sqrt(spread)
	}
	reach := float64(ClipFactor(c.Clip, c.Bits) * spread)
	return float64(float32(max(lo, mean-reach))), min(hi, mean+reach)
}

// bounds is the least and the largest number; NaN, NaN if one is not finite.
func bounds(row []float32) (lo, hi float64) {
	least, most := row[0], row[0]
	for _, v := range row {
		if v-v != 0 { // NaN or an infinity
			return math.NaN(), math.NaN()
		}
		least, most = min(least, v), max(most, v)
	}
	return float64(least), float64(most)
}

// grid is lo, lo + step, ... lo + (2^bits - 1) step; lo and step are float32 values.
type grid struct {
	lo, step float64
	bits     int
}

// newGrid covers lo to hi. The step is rounded up to a float32, so that the last point does not fall short of hi.
func newGrid(lo, hi float64, bits int) grid {
	exact := (hi - lo) / float64(int(1)<<bits-1)
	step := float32(exact)
	if float64(step) < exact {
		step = math.Nextafter32(step, math.MaxFloat32)
	}
	return grid{lo, float64(step), bits}
}

// check refuses what newGrid never makes.
func (g grid) check() error {
	broken := math.IsNaN(g.lo) && math.IsNaN(g.step) // a row that was not finite
	finite := g.lo-g.lo == 0 && g.step-g.step == 0 && g.step >= 0
	if !broken && !finite {
		return fmt.Errorf("its range starts at %g in steps of %g: want finite numbers and no step under 0; the bytes are not from this codec", g.lo, g.step)
	}
	return nil
}

// index is the grid point next to v; ends beyond the grid.
func (g grid) index(v float32) uint64 {
	if !(g.step > 0) {
		return 0
	}
	q := math.RoundToEven((float64(v) - g.lo) / g.step)
	return uint64(max(0, min(q, float64(int(1)<<g.bits-1))))
}

// value is the grid point q as a float32, kept finite.
func (g grid) value(q uint64) float32 {
	v := g.lo + float64(float64(q)*g.step)
	switch {
	case v > math.MaxFloat32:
		return math.MaxFloat32
	case v < -math.MaxFloat32:
		return -math.MaxFloat32
	}
	return float32(v)
}

func packedBytes(dim, bits int) int { return (dim*bits + 7) / 8 }

// pack appends the indices of a row, the first in the lowest bits.
func (g grid) pack(dst []byte, row []float32) []byte {
	var held uint64
	have := 0
	for _, v := range row {
		held |= g.index(v) << have
		for have += g.bits; have >= 8; have -= 8 {
			dst = append(dst, byte(held))
			held >>= 8
		}
	}
	if have > 0 {
		dst = append(dst, byte(held))
	}
	return dst
}

// unpack appends dim numbers from packed bytes.
func (g grid) unpack(dst []float32, packed []byte, dim int) ([]float32, error) {
	var held uint64
	have, mask := 0, uint64(1)<<g.bits-1
	for range dim {
		for ; have < g.bits; have += 8 {
			held |= uint64(packed[0]) << have
			packed = packed[1:]
		}
		dst = append(dst, g.value(held&mask))
		held >>= g.bits
		have -= g.bits
	}
	if held != 0 {
		return dst, fmt.Errorf("padding bits after the last number are set: the bytes are not from this codec")
	}
	return dst, nil
}
