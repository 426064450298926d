//go:build arm64 && !purego

package tensor

// kernels lists the kernels that can run here, slowest first. Every arm64 has what "neon" needs here, float16
// conversion included; package panel asks for the dot product besides, which Armv8.0 and 8.1 lack, and does without.
func kernels() []kernel {
	return []kernel{generic(), {"neon", 16, []int{6, 4, 2, 1}, neonTile, neonTile16, transposeAsm, assembled(), nil}}
}

func neonTile(mr int, a []float32, aRow, aK int, b []float32, bRow, k int, c []float32, cRow int, acc bool) {
	inside(mr, a, aRow, aK, len(b), bRow, k, 16, c, cRow)
	ar, ak, br, cr := aRow*f32Bytes, aK*f32Bytes, bRow*f32Bytes, cRow*f32Bytes
	switch mr {
	case 6:
		neonx6(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 4:
		neonx4(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 2:
		neonx2(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	default:
		neonx1(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	}
}

func neonTile16(mr int, a []float32, aRow, aK int, b []uint16, bRow, k int, c []float32, cRow int, acc bool) {
	inside(mr, a, aRow, aK, len(b), bRow, k, 16, c, cRow)
	ar, ak, br, cr := aRow*f32Bytes, aK*f32Bytes, bRow*2, cRow*f32Bytes
	switch mr {
	case 6:
		neonF16x6(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 4:
		neonF16x4(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	case 2:
		neonF16x2(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	default:
		neonF16x1(&a[0], ar, ak, &b[0], br, k, &c[0], cr, acc)
	}
}
