package panel

import (
	"encoding/binary"
	"math"

	"meibench/reference/quant"
)

// Activations are laid out in tiles: the tokens that one kernel call takes, at most 12.
//
// An integer tile of T tokens holds, per block of 32 columns: 8 groups of T times 4 quants, then rows of T values each:
// the scale, the negated sums of all quants and of both halves of 16 (int32), and scale·sum of the same three.
// A float tile is (K, T).
const (
	tokenBytes  = 32 + 7*4 // of one token and block
	scaleField  = 0
	negSum      = 1 // then both halves
	realSum     = 4 // then both halves
	blockColumn = 32
)

// tile is a run of tokens and the place of their activations.
type tile struct{ from, T, at int }

// tiles cuts T tokens into tiles of the heights given, largest first, ending in 1; size is the bytes of one token.
func tiles(dst []tile, T, size int, heights []int) []tile {
	dst = dst[:0]
	h := 0
	for from := 0; from < T; {
		for heights[h] > T-from {
			h++
		}
		dst = append(dst, tile{from, heights[h], from * size})
		from += heights[h]
	}
	return dst
}

// round8 rounds token t's activations into a tile: what every kernel multiplies.
//
//	x: (K), K a multiple of 32; dst: the tile
//
// scale = max|x|/127 and q = x/scale to nearest even; a block below the normal range becomes zero, and one with an
// infinity or NaN gets a NaN for its scale.
func round8(x []float32, dst []byte, t, T int) {
	put := func(at int, v uint32) { binary.LittleEndian.PutUint32(dst[at:], v) }
	for ; len(x) > 0; x, dst = x[blockColumn:], dst[tokenBytes*T:] {
		scale, inverse := quant.Scale8(x[:blockColumn])
		var sums [2]int32
		for s := range 8 {
			var group uint32
			for i, v := range x[4*s : 4*s+4] {
				q := int32(max(-128, min(127, math.RoundToEven(float64(float32(v*inverse))))))
				sums[s/4] += q
				group |= uint32(uint8(q)) << (8 * i)
			}
			put((s*T+t)*4, group)
		}
		field := func(i int) int { return 32*T + (i*T+t)*4 }
		put(field(scaleField), math.Float32bits(scale))
		for i, sum := range [...]int32{sums[0] + sums[1], sums[0], sums[1]} {
			put(field(negSum+i), uint32(-sum))
			put(field(realSum+i), math.Float32bits(float32(sum)*scale))
		}
	}
}

// transpose writes token t of a float tile.
func transpose(x []float32, dst []byte, t, T int) {
	for k, v := range x {
		binary.LittleEndian.PutUint32(dst[(k*T+t)*4:], math.Float32bits(v))
	}
}
