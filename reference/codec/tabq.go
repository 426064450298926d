package codec

import (
	"encoding/binary"
	"fmt"
	"math"
)

// TabQ splits each row at a threshold, as OPSC does (arXiv 2511.04002; the thresholds are ours): numbers larger in magnitude than Threshold
// times the row's root mean square go beside as index and float32, and the rest is an integer code with as few bits, 2
// to 8, as keep its root mean square error within Tolerance of the row's. 8 bits are taken if no number of bits does.
//
// A row is bits (1 byte), number of outliers (4), lo and step (4 each), the packed integers, the outliers. At most
// dim/Threshold² numbers can be outliers, which bounds a row's length: see Bytes.
type TabQ struct{ Threshold, Tolerance float64 }

const tabqHead = 13

// Name is "tabq".
func (TabQ) Name() string { return "tabq" }

// Bytes is the largest length that rows can take: 8 bits and as many outliers as there can be.
func (c TabQ) Bytes(tokens, dim int) int {
	return tokens * (tabqHead + dim + c.mostOutliers(dim)*(indexBytes(dim)+4))
}

func (c TabQ) mostOutliers(dim int) int {
	return int(min(float64(dim), float64(dim)/float64(c.Threshold*c.Threshold)))
}

// Encode implements Codec.
func (c TabQ) Encode(dst []byte, x []float32, dim int) []byte {
	rows(x, dim)
	for ; len(x) > 0; x = x[dim:] {
		dst = c.row(dst, x[:dim])
	}
	return dst
}

func (c TabQ) row(dst []byte, row []float32) []byte {
	var square float64
	for _, v := range row {
		square += float64(float64(v) * float64(v))
	}
	rms := math.Sqrt(square / float64(len(row)))
	limit := float64(c.Threshold * rms)
	lo, hi := math.Inf(1), math.Inf(-1)
	outliers := 0
	for _, v := range row {
		if f := float64(v); math.Abs(f) > limit {
			outliers++
		} else {
			lo, hi = min(lo, f), max(hi, f)
		}
	}
	switch {
	case !(rms-rms == 0): // some number is not finite
		lo, hi, outliers = math.NaN(), math.NaN(), 0
	case lo > hi: // all are outliers: Threshold is under 1
		lo, hi = 0, 0
	}
	g := c.grid(row, lo, hi, limit, float64(c.Tolerance*rms))
	dst = append(dst, byte(g.bits))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(outliers))
	dst = putFloat(putFloat(dst, g.lo), g.step)
	dst = g.pack(dst, row)
	for i, v := range row {
		if outliers > 0 && math.Abs(float64(v)) > limit {
			dst = appendIndex(dst, i, len(row))
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
		}
	}
	return dst
}

// grid takes the fewest bits whose error on the numbers within limit is at most allowed.
func (c TabQ) grid(row []float32, lo, hi, limit, allowed float64) grid {
	for bits := 2; bits < 8; bits++ {
		g := newGrid(lo, hi, bits)
		var square float64
		for _, v := range row {
			if f := float64(v); math.Abs(f) <= limit {
				d := f - float64(g.value(g.index(v)))
				square += float64(d * d)
			}
		}
		if math.Sqrt(square/float64(len(row))) <= allowed {
			return g
		}
	}
	return newGrid(lo, hi, 8)
}

// Decode implements Codec. It refuses rows that are cut, have other than 2 to 8 bits, or have outliers that Encode cannot
// have written.
func (c TabQ) Decode(dst []float32, wire []byte, dim int) ([]float32, error) {
	if dim < 1 {
		return dst, fmt.Errorf("decode tabq: dim is %d: want at least 1", dim)
	}
	start := len(dst)
	for n := 0; len(wire) > 0; n++ {
		size, err := c.rowSize(wire, dim)
		if err == nil {
			dst, err = c.decodeRow(dst, wire[:size], dim)
		}
		if err != nil {
			return dst[:start], fmt.Errorf("decode tabq: row %d: %w", n, err)
		}
		wire = wire[size:]
	}
	return dst, nil
}

// rowSize is the length of the row that wire starts with.
func (c TabQ) rowSize(wire []byte, dim int) (int, error) {
	if len(wire) < tabqHead {
		return 0, fmt.Errorf("%d bytes are left: want a head of %d; the message was cut", len(wire), tabqHead)
	}
	bits, outliers := int(wire[0]), binary.LittleEndian.Uint32(wire[1:])
	if bits < 2 || bits > 8 {
		return 0, fmt.Errorf("%d bits a number: want 2 to 8; the bytes are not from this codec", bits)
	}
	if most := c.mostOutliers(dim); int64(outliers) > int64(most) {
		return 0, fmt.Errorf("%d outliers: want at most %d in a row of %d; the bytes are not from this codec", outliers, most, dim)
	}
	size := tabqHead + packedBytes(dim, bits) + int(outliers)*(indexBytes(dim)+4)
	if size > len(wire) {
		return 0, fmt.Errorf("it takes %d bytes and %d are left: the message was cut", size, len(wire))
	}
	return size, nil
}

func (c TabQ) decodeRow(dst []float32, wire []byte, dim int) ([]float32, error) {
	g := grid{lo: float(wire[5:]), step: float(wire[9:]), bits: int(wire[0])}
	if err := g.check(); err != nil {
		return dst, err
	}
	from, packed := len(dst), packedBytes(dim, g.bits)
	dst, err := g.unpack(dst, wire[tabqHead:tabqHead+packed], dim)
	if err != nil {
		return dst, err
	}
	return dst, placeOutliers(dst[from:], wire[tabqHead+packed:])
}
