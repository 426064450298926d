//go:build amd64 && !purego

package probe

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

//go:noescape
func readAVX2(p *byte, stride, turns int) uint32

//go:noescape
func readAVX512(p *byte, stride, turns int) uint32

//go:noescape
func triadAVX2(a, b, c *float32, k float32, turns int)

//go:noescape
func triadAVX512(a, b, c *float32, k float32, turns int)

func fmaAVX2(x, y float32, turns int) float32

func fmaAVX512(x, y float32, turns int) float32

//go:noescape
func dotAVX2(u *uint8, v *int8, turns int) int32

//go:noescape
func dotVNNI256(u *uint8, v *int8, turns int) int32

//go:noescape
func dotVNNI512(u *uint8, v *int8, turns int) int32

// floatLoops lists the versions that run here, slowest first.
func floatLoops() []floats {
	g, _ := portable()
	have := []floats{g}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		have = append(have, floats{"AVX2", reader(readAVX2), triad(triadAVX2), turned(fmaAVX2), 12 * 8})
		if cpu.X86.HasAVX512F {
			have = append(have, floats{"AVX-512", reader(readAVX512), triad(triadAVX512), turned(fmaAVX512), 16 * 16})
		}
	}
	return have
}

// intLoops lists the versions that run here, slowest first.
func intLoops() []ints {
	_, g := portable()
	have := []ints{g}
	if cpu.X86.HasAVX2 {
		have = append(have, ints{"AVX2 VPMADDUBSW", dotter(dotAVX2), 8 * 8})
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasAVXVNNI {
		have = append(have, ints{"AVX-VNNI", dotter(dotVNNI256), 12 * 8})
	}
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512VNNI {
		have = append(have, ints{"AVX512-VNNI", dotter(dotVNNI512), 16 * 16})
	}
	return have
}

// reader, triad, turned and dotter check what assembly cannot.

func reader(f func(p *byte, stride, turns int) uint32) func(b []uint64) uint32 {
	return func(b []uint64) uint32 {
		if len(b) == 0 || len(b)%readUnit != 0 {
			panic("probe: read loop needs a positive multiple of its unit")
		}
		stride := len(b) * 8 / 4
		return f((*byte)(unsafe.Pointer(&b[0])), stride, stride/64)
	}
}

func triad(f func(a, b, c *float32, k float32, turns int)) func(a, b, c []float32, k float32) {
	return func(a, b, c []float32, k float32) {
		if len(a) == 0 || len(a)%triadUnit != 0 || len(b) < len(a) || len(c) < len(a) {
			panic("probe: triad needs three arrays of a positive multiple of its unit")
		}
		f(&a[0], &b[0], &c[0], k, len(a)/triadUnit)
	}
}

func turned(f func(x, y float32, turns int) float32) func(x, y float32, turns int) float32 {
	return func(x, y float32, turns int) float32 { return f(x, y, max(turns, 1)) }
}

func dotter(f func(u *uint8, v *int8, turns int) int32) func(u *[4]uint8, v *[4]int8, turns int) int32 {
	return func(u *[4]uint8, v *[4]int8, turns int) int32 { return f(&u[0], &v[0], max(turns, 1)) }
}
