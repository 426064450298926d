package refine

import (
	"bytes"
	"math/bits"

	"meibench/reference/quant"
)

// planes are the bits of one block of a format by plane, the coarsest first: one mask per byte of the block. Each bit is
// in one plane.
//
// Layouts are those of ggml's blocks (see package quant). Of integers the scales are in the first plane, with the upper
// half of the bits:
//
//	F32   16, 8, 8 bits        Q8_0  4, 2, 2 bits of 8 (4.5, 6.5, 8.5 with the scale)
//	F16   8, 4, 4              Q6_K  4, 2 of 6
//	BF16  12, 4                Q5_0 Q5_1 Q5_K  3, 2 of 5;  Q4_0 Q4_1 Q4_K  2, 2 of 4
func planes(t quant.Type) [][]byte {
	whole := func(n int) []byte { return bytes.Repeat([]byte{0xFF}, n) }
	// integers of which the n bytes behind a head are cut by masks.
	cut := func(head, n, tail int, masks ...byte) (ps [][]byte) {
		for i, m := range masks {
			p := make([]byte, head+n+tail)
			if i == 0 {
				copy(p, whole(head))
				copy(p[head+n:], whole(tail))
			}
			copy(p[head:], bytes.Repeat([]byte{m}, n))
			ps = append(ps, p)
		}
		return ps
	}
	switch t {
	case quant.F32:
		return [][]byte{{0, 0, 0xFF, 0xFF}, {0, 0xFF, 0, 0}, {0xFF, 0, 0, 0}}
	case quant.F16:
		return [][]byte{{0, 0xFF}, {0xF0, 0}, {0x0F, 0}}
	case quant.BF16:
		return [][]byte{{0xF0, 0xFF}, {0x0F, 0}}
	case quant.Q8_0:
		return cut(2, 32, 0, 0xF0, 0x0C, 0x03)
	case quant.Q4_0:
		return cut(2, 16, 0, 0xCC, 0x33)
	case quant.Q4_1:
		return cut(4, 16, 0, 0xCC, 0x33)
	case quant.Q5_0:
		return cut(6, 16, 0, 0xCC, 0x33) // the fifth bits are in the head
	case quant.Q5_1:
		return cut(8, 16, 0, 0xCC, 0x33)
	case quant.Q4_K:
		return cut(16, 128, 0, 0xCC, 0x33)
	case quant.Q5_K:
		return cut(48, 128, 0, 0xCC, 0x33)
	case quant.Q6_K:
		return cut(0, 128, 82, 0xCC, 0x33) // upper two bits, scales and scale in the tail
	}
	return [][]byte{whole(t.BlockBytes())}
}

// Coarse is the share of a format's bytes that its coarsest plane has, and how many bits of a weight these are, of how many; a format that
// has one plane gives 1 and 0 bits of 0.
func Coarse(t quant.Type) (share float64, bits, of int) {
	ps := planes(t)
	if len(ps) == 1 {
		return 1, 0, 0
	}
	switch t {
	case quant.F32:
		bits, of = 16, 32
	case quant.F16:
		bits, of = 8, 16
	case quant.BF16:
		bits, of = 12, 16
	case quant.Q8_0:
		bits, of = 4, 8
	case quant.Q6_K:
		bits, of = 4, 6
	case quant.Q5_0, quant.Q5_1, quant.Q5_K:
		bits, of = 3, 5
	default:
		bits, of = 2, 4
	}
	return float64(ones(ps[0])) / float64(8*t.BlockBytes()), bits, of
}

// middle is the value of missing bits that is in the middle of their range: of each run of neighbours the highest one.
func middle(missing byte) byte { return missing &^ (missing >> 1) }

// size is the bytes of a plane of n blocks.
func size(mask []byte, blocks int) int {
	return (ones(mask)*blocks + 7) / 8
}

func ones(mask []byte) (n int) {
	for _, m := range mask {
		n += bits.OnesCount8(m)
	}
	return n
}

// extract appends the masked bits of whole blocks, from low to high within a byte, packed.
func extract(dst, src, mask []byte) []byte {
	t := tables(mask)
	var acc uint64
	n := 0
	for len(src) > 0 {
		for i, m := range t {
			if m == nil {
				continue
			}
			acc |= uint64(m.gather[src[i]]) << n
			if n += m.bits; n >= 32 {
				dst = append(dst, byte(acc), byte(acc>>8), byte(acc>>16), byte(acc>>24))
				acc >>= 32
				n -= 32
			}
		}
		src = src[len(mask):]
	}
	for ; n > 0; n -= 8 {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
}

// insert puts the bits of a plane in their places in whole blocks, keeps those of had, and puts what is missing still at
// the middle. The plane has exactly size(mask, blocks) bytes.
func insert(dst, plane, mask, had []byte) {
	t := tables(mask)
	mid := make([]byte, len(mask))
	for i := range mid {
		mid[i] = middle(^(mask[i] | had[i]))
	}
	var acc uint64
	n := 0
	for len(dst) > 0 {
		for i, m := range t {
			if m == nil {
				dst[i] = dst[i]&had[i] | mid[i]
				continue
			}
			for n < m.bits {
				acc |= uint64(plane[0]) << n
				plane = plane[1:]
				n += 8
			}
			dst[i] = dst[i]&had[i] | m.scatter[acc&(1<<m.bits-1)] | mid[i]
			acc >>= m.bits
			n -= m.bits
		}
		dst = dst[len(mask):]
	}
}

// table moves the bits of one mask.
type table struct {
	bits            int
	gather, scatter [256]byte
}

// tables are those of each byte of a block, nil where the mask is empty.
func tables(mask []byte) []*table {
	made := map[byte]*table{}
	ts := make([]*table, len(mask))
	for i, m := range mask {
		if m != 0 && made[m] == nil {
			made[m] = newTable(m)
		}
		ts[i] = made[m]
	}
	return ts
}

func newTable(mask byte) *table {
	t := &table{bits: bits.OnesCount8(mask)}
	for v := range 256 {
		var low byte
		n := 0
		for b := range 8 {
			if mask>>b&1 == 1 {
				low |= byte(v) >> b & 1 << n
				n++
			}
		}
		t.gather[v] = low
		t.scatter[low] = byte(v) & mask
	}
	return t
}
