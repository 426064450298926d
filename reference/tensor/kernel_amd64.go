//go:build amd64 && !purego

package tensor

import "golang.org/x/sys/cpu"

// kernels lists the kernels that can run here, slowest first.
func kernels() []kernel {
	have := []kernel{generic()}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		v := assembled()
		have = append(have, kernel{"avx2", 16, []int{6, 4, 2, 1}, avx2Tile, avx2Tile16, transposeAsm, v, nil})
		if cpu.X86.HasAVX512F {
			w := *v
			w.expShift, w.swiglu, w.swigluGrad = expShiftWide, swigluWide, swigluGradWide
			wide := kernel{"avx512", 32, []int{12, 8, 4, 2, 1}, avx512Tile, avx512Tile16, transposeAsm, &w, avx512Narrow}
			have = append(have, wide)
			if cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512VNNI {
				wide.name = "vnni" // the same here; package panel has more to offer
				have = append(have, wide)
			}
		}
	}
	return have
}

func avx2Tile(mr int, a []float32, aRow, aK int, b []float32, bRow, k int, c []float32, cRow int, acc bool) {
	inside(mr, a, aRow, aK, len(b), bRow, k, 16, c, cRow)
	ar, ak, br, cr := aRow*f32Bytes, aK*f32Bytes, bRow*f32Bytes, cRow*f32Bytes
	switch mr {
	case 6:
		avx2x6(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 4:
		avx2x4(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 2:
		avx2x2(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	default:
		avx2x1(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	}
}

func avx2Tile16(mr int, a []float32, aRow, aK int, b []uint16, bRow, k int, c []float32, cRow int, acc bool) {
	inside(mr, a, aRow, aK, len(b), bRow, k, 16, c, cRow)
	ar, ak, br, cr := aRow*f32Bytes, aK*f32Bytes, bRow*2, cRow*f32Bytes
	switch mr {
	case 6:
		avx2F16x6(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 4:
		avx2F16x4(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 2:
		avx2F16x2(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	default:
		avx2F16x1(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	}
}

func avx512Tile(mr int, a []float32, aRow, aK int, b []float32, bRow, k int, c []float32, cRow int, acc bool) {
	inside(mr, a, aRow, aK, len(b), bRow, k, 32, c, cRow)
	ar, ak, br, cr := aRow*f32Bytes, aK*f32Bytes, bRow*f32Bytes, cRow*f32Bytes
	switch mr {
	case 12:
		avx512x12(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 8:
		avx512x8(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 4:
		avx512x4(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 2:
		avx512x2(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	default:
		avx512x1(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	}
}

func avx512Tile16(mr int, a []float32, aRow, aK int, b []uint16, bRow, k int, c []float32, cRow int, acc bool) {
	inside(mr, a, aRow, aK, len(b), bRow, k, 32, c, cRow)
	ar, ak, br, cr := aRow*f32Bytes, aK*f32Bytes, bRow*2, cRow*f32Bytes
	switch mr {
	case 12:
		avx512F16x12(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 8:
		avx512F16x8(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 4:
		avx512F16x4(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 2:
		avx512F16x2(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	default:
		avx512F16x1(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	}
}

func avx512Narrow(mr int, a []float32, aRow, aK int, b []float32, bRow, k int, c []float32, cRow, cols int, acc bool) {
	if cols < 1 || cols > narrow {
		panic("tensor: narrow tile of more than 16 columns, or none")
	}
	inside(mr, a, aRow, aK, len(b), bRow, k, cols, c, cRow)
	ar, ak, br, cr := aRow*f32Bytes, aK*f32Bytes, bRow*f32Bytes, cRow*f32Bytes
	switch mr {
	case 12:
		avx512Narrowx12(&a[0], ar, ak, &b[0], br, k, &c[0], cr, cols, acc)
	case 8:
		avx512Narrowx8(&a[0], ar, ak, &b[0], br, k, &c[0], cr, cols, acc)
	case 4:
		avx512Narrowx4(&a[0], ar, ak, &b[0], br, k, &c[0], cr, cols, acc)
	case 2:
		avx512Narrowx2(&a[0], ar, ak, &b[0], br, k, &c[0], cr, cols, acc)
	default:
		avx512Narrowx1(&a[0], ar, ak, &b[0], br, k, &c[0], cr, cols, acc)
	}
}

// Functions with an exponential take 16 elements at a time, and what is left as those of AVX2 do.

func expShiftWide(out, x []float32, shift float32) (lanes [8]float64) {
	_ = out[:len(x)]
	n := len(x) &^ 15
	if n > 0 {
		expShift16(&out[0], &x[0], n/16, shift, &lanes)
	}
	expShiftRest(out[n:], x[n:], shift, &lanes)
	return lanes
}

func swigluWide(out, gate, up []float32) {
	_, _ = out[:len(gate)], up[:len(gate)]
	n := len(gate) &^ 15
	if n > 0 {
		swiglu16(&out[0], &gate[0], &up[0], n/16)
	}
	if n < len(gate) {
		swigluAsm(out[n:], gate[n:], up[n:])
	}
}

func swigluGradWide(dgate, dup, dout, gate, up []float32) {
	_, _, _, _ = dup[:len(dgate)], dout[:len(dgate)], gate[:len(dgate)], up[:len(dgate)]
	n := len(dgate) &^ 15
	if n > 0 {
		swigluGrad16(&dgate[0], &dup[0], &dout[0], &gate[0], &up[0], n/16)
	}
	if n < len(dgate) {
		swigluGradAsm(dgate[n:], dup[n:], dout[n:], gate[n:], up[n:])
	}
}
