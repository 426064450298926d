//go:build (amd64 || arm64) && !purego

package tensor

// pause tells the processor that a loop is waiting: it saves power and leaves the memory bus to others.
func pause()

// f32Bytes turns strides in elements into the strides in bytes that assembly wants.
const f32Bytes = 4

// inside panics before assembly would read or write outside a slice.
func inside(mr int, a []float32, aRow, aK, b, bRow, k, nr int, c []float32, cRow int) {
	if k < 1 || aRow < 0 || aK < 0 || bRow < 0 || cRow < 0 || b < (k-1)*bRow+nr {
		panic("tensor: tile with a non-positive length, a negative stride or a short matrix")
	}
	_, _ = a[(mr-1)*aRow+(k-1)*aK], c[(mr-1)*cRow+nr-1]
}

// assembled is the element-wise functions of this architecture.
func assembled() *vector { return &vector{expShiftAsm, swigluAsm, topAsm, halvesAsm} }

func transposeAsm(dst []float32, dstRow int, src []float32, srcRow, k int) {
	if k < 8 || k%8 != 0 || dstRow < 8 || srcRow < 0 {
		panic("tensor: transpose needs a positive multiple of 8 columns")
	}
	_, _ = dst[(k-1)*dstRow+7], src[7*srcRow+k-1]
	transpose8(&dst[0], dstRow*f32Bytes, &src[0], srcRow*f32Bytes, k/8)
}

func expShiftAsm(out, x []float32, shift float32) (lanes [8]float64) {
	_ = out[:len(x)]
	expShift8(&out[0], &x[0], len(x)/8, shift, &lanes)
	return lanes
}

func swigluAsm(out, gate, up []float32) {
	_, _ = out[:len(gate)], up[:len(gate)]
	swiglu8(&out[0], &gate[0], &up[0], len(gate)/8)
}

func topAsm(x []float32) float32 { return top8(&x[0], len(x)/8) }

func halvesAsm(dst []uint16, src []float32) {
	_ = dst[:len(src)]
	halves8(&dst[0], &src[0], len(src)/8)
}
