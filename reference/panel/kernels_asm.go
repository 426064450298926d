//go:build (amd64 || arm64) && !purego

package panel

// round8Asm is round8 in assembly.
func round8Asm(x []float32, dst []byte, t, T int) {
	blocks := len(x) / blockColumn
	_ = dst[:blocks*tokenBytes*T]
	quantize8(&x[0], blocks, &dst[4*t], &dst[32*T+4*t], 4*T, tokenBytes*T)
}
