//go:build (amd64 || arm64) && !purego

package tensor

import "math"

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
func assembled() *vector {
	return &vector{expShiftAsm, swigluAsm, topAsm, halvesAsm, addAsm, scaleAsm, normScaleAsm, normGradAsm, normGradWAsm, softmaxGradAsm,
		swigluGradAsm, adamAsm, rotateAsm, gatherAsm}
}

func transposeAsm(dst []float32, dstRow int, src []float32, srcRow, k int) {
	if k < 8 || k%8 != 0 || dstRow < 8 || srcRow < 0 {
		panic("tensor: transpose needs a positive multiple of 8 columns")
	}
	_, _ = dst[(k-1)*dstRow+7], src[7*srcRow+k-1]
	transpose8(&dst[0], dstRow*f32Bytes, &src[0], srcRow*f32Bytes, k/8)
}

func expShiftAsm(out, x []float32, shift float32) (lanes [8]float64) {
	expShiftRest(out, x, shift, &lanes)
	return lanes
}

// expShiftRest goes on with lanes.
func expShiftRest(out, x []float32, shift float32, lanes *[8]float64) {
	_ = out[:len(x)]
	n := len(x) &^ 7
	if n > 0 {
		expShift8(&out[0], &x[0], n/8, shift, lanes)
	}
	if n < len(x) { // the rest among numbers whose exponential is nothing
		var rest [8]float32
		for i := copy(rest[:], x[n:]); i < 8; i++ {
			rest[i] = float32(math.Inf(-1))
		}
		expShift8(&rest[0], &rest[0], 1, shift, lanes)
		copy(out[n:len(x)], rest[:])
	}
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

func addAsm(out, x []float32) {
	_ = out[:len(x)]
	add8(&out[0], &x[0], len(x)/8)
}

func scaleAsm(x []float32, c float32) { scale8(&x[0], len(x)/8, c) }

func normScaleAsm(out, x, w []float32, inv float32) {
	_, _ = out[:len(x)], w[:len(x)]
	normScale8(&out[0], &x[0], &w[0], len(x)/8, inv)
}

func normGradAsm(dx, dy, x, w []float32, r, k float32) {
	_, _, _ = dy[:len(dx)], x[:len(dx)], w[:len(dx)]
	normGrad8(&dx[0], &dy[0], &x[0], &w[0], len(dx)/8, r, k)
}

func normGradWAsm(dw, dy, x []float32, r float32) {
	_, _ = dy[:len(dw)], x[:len(dw)]
	normGradW8(&dw[0], &dy[0], &x[0], len(dw)/8, r)
}

func softmaxGradAsm(d, w []float32, mean, scale float32) {
	_ = w[:len(d)]
	softmaxGrad8(&d[0], &w[0], len(d)/8, mean, scale)
}

func swigluGradAsm(dgate, dup, dout, gate, up []float32) {
	_, _, _, _ = dup[:len(dgate)], dout[:len(dgate)], gate[:len(dgate)], up[:len(dgate)]
	swigluGrad8(&dgate[0], &dup[0], &dout[0], &gate[0], &up[0], len(dgate)/8)
}

func adamAsm(w, grad, m, v []float32, s *AdamStep) {
	_, _, _ = grad[:len(w)], m[:len(w)], v[:len(w)]
	adam8(&w[0], &grad[0], &m[0], &v[0], len(w)/8, s.Clip, s.Beta1, 1-s.Beta1, s.Beta2, 1-s.Beta2, s.Unbias, s.Eps, s.Rate, s.Keep)
}

func rotateAsm(x, cosSin []float32, heads int, sign float32) {
	_ = x[:heads*len(cosSin)]
	rotate8(&x[0], &cosSin[0], len(cosSin)/8, heads, sign)
}

func gatherAsm(dst, src []float32, srcRow, n, k int) {
	if n < 16 || n%16 != 0 || k < 1 || srcRow < 0 {
		panic("tensor: rows to gather must be of a positive multiple of 16")
	}
	_, _ = dst[n*k-1], src[(k-1)*srcRow+n-1]
	gatherRows(&dst[0], &src[0], srcRow*f32Bytes, n/16, k)
}
