// Package tensor holds the arithmetic of a transformer, one operation per file, on plain float32 slices.
//
// # The one idea: one chain per element
//
// Every matrix product here, whatever its shape, layout, thread count or number of rows in the call, computes
// an output element as ONE chain of multiply-adds in the order of the inner dimension:
//
//	s = 0 (or the old value); for k = 0..K-1 { s = s + a[k]*b[k] }
//
// Vector registers hold different elements, never parts of one sum. So a token's result does not depend on
// which other tokens share its batch, a prompt may be prefilled in pieces, and a model may be split between
// machines, all without changing one bit. The tests of package llm rest on this.
// Blocking over k keeps the chain too, because storing a float32 and loading it again is exact.
//
// # Kernels
//
// Kernels are "avx2", "avx512" and "vnni" on amd64 and "neon" on arm64 (fused multiply-add; equal bits to each other, on
// both architectures; "vnni" differs from "avx512" in package panel only) and "generic" (plain Go, every product rounded
// before it is added, so equal bits on every architecture). The best one is chosen once;
// MEIBENCH_CPU=generic|avx2|avx512|vnni|neon forces one, the build tag purego removes the assembly, and [Kernel] reports
// what runs.
//
// # Threads
//
// A [Pool] owns worker goroutines and their scratch memory. Work is divided statically by output rows or
// columns, so bits do not depend on the number of workers. Operations allocate nothing once warm.
//
// What it does not do: no autograd (the products needed by a backward pass are here, their composition is
// not), no broadcasting, no other element type (package quant decodes others to float32 on the way in).
package tensor

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"meibench/reference/quant"
)

//go:generate go -C internal/asmgen run . -file tiles -out ../../tiles_amd64.s -stubs ../../tiles_amd64.go -pkg tensor
//go:generate go -C internal/asmgen run . -neon tiles -dir ../..

// kernel is one implementation of the register tile at the heart of every product.
type kernel struct {
	name string
	nr   int   // columns of a tile; packed panels of B are (K, nr)
	mrs  []int // tile heights, descending, ending in 1

	// tile computes c = a·b, or c += a·b if acc.
	// a: (mr, k), element (i, j) at a[i*aRow+j*aK]; b: (k, nr), row j at b[j*bRow]; c: (mr, nr), row i at c[i*cRow].
	tile func(mr int, a []float32, aRow, aK int, b []float32, bRow, k int, c []float32, cRow int, acc bool)

	// tile16 is tile for b in float16.
	tile16 func(mr int, a []float32, aRow, aK int, b []uint16, bRow, k int, c []float32, cRow int, acc bool)

	// transpose packs 8 rows x k columns, k a multiple of 8: dst[j*dstRow+i] = src[i*srcRow+j]. May be nil.
	transpose func(dst []float32, dstRow int, src []float32, srcRow, k int)

	vector *vector // element-wise functions, or nil for plain Go

	// narrow is tile for up to 16 columns, beyond which it reads and writes nothing. May be nil.
	narrow func(mr int, a []float32, aRow, aK int, b []float32, bRow, k int, c []float32, cRow, cols int, acc bool)
}

// vector is the functions that work element by element, on a positive multiple of 8 elements; expShift takes any positive
// number. They perform the operations of the plain Go versions in the same order, unfused, so their bits are those of every
// kernel.
type vector struct {
	expShift func(out, x []float32, shift float32) (lanes [8]float64) // out = exp(x-shift); lane i%8 sums out[i]
	swiglu   func(out, gate, up []float32)
	top      func(x []float32) float32
	halves   func(dst []uint16, src []float32) // to nearest even

	add         func(out, x []float32)
	scale       func(x []float32, c float32)
	normScale   func(out, x, w []float32, inv float32)             // out = x·inv·w
	normGrad    func(dx, dy, x, w []float32, r, k float32)         // dx += r·w·dy - k·x
	normGradW   func(dw, dy, x []float32, r float32)               // dw += dy·x·r
	softmaxGrad func(d, w []float32, mean, scale float32)          // d = w·(d-mean)·scale
	swigluGrad  func(dgate, dup, dout, gate, up []float32)         // see SwiGLUGrad
	adam        func(w, grad, m, v []float32, s *AdamStep)         // see AdamStep
	rotate      func(x, cosSin []float32, heads int, sign float32) // neighbours; all heads alike
	gather      func(dst, src []float32, srcRow, n, k int)         // k rows of n, a multiple of 16, side by side in dst
}

// Kernels lists the kernels that this build and this CPU can run, slowest first.
func Kernels() []string {
	var names []string
	for _, k := range kernels() {
		names = append(names, k.name)
	}
	return names
}

// Kernel names the kernel that [NewPool] uses, one of [Kernels].
func Kernel() string { return chosen().kernel.name }

// KernelErr says why the kernel that MEIBENCH_CPU asks for is not the one that runs, or is nil.
func KernelErr() error { return chosen().err }

type choice struct {
	kernel kernel
	err    error
}

// chosen reads MEIBENCH_CPU once: a process runs one kernel, so that its numbers can carry its name.
var chosen = sync.OnceValue(func() *choice {
	k, err := choose(os.Getenv("MEIBENCH_CPU"), kernels())
	return &choice{k, err}
})

// choose returns the kernel called name, or the last of have if name is empty or cannot be had.
func choose(name string, have []kernel) (kernel, error) {
	best := have[len(have)-1]
	if name == "" {
		return best, nil
	}
	var names []string
	for _, k := range have {
		if k.name == name {
			return k, nil
		}
		names = append(names, k.name)
	}
	return best, fmt.Errorf("choose kernel MEIBENCH_CPU=%q: this build and CPU have only %s; running %s (unset it or name one of these)",
		name, strings.Join(names, ", "), best.name)
}

// generic is the portable kernel: 2 x 4 sums in registers at a time.
func generic() kernel {
	return kernel{name: "generic", nr: 16, mrs: []int{2, 1}, tile: genericTile, tile16: genericTile16}
}

func genericTile(mr int, a []float32, aRow, aK int, b []float32, bRow, k int, c []float32, cRow int, acc bool) {
	for j := 0; j < 16; j += 4 {
		if mr == 2 {
			generic2x4(a, aRow, aK, b[j:], bRow, k, c[j:], cRow, acc)
		} else {
			generic1x4(a, aK, b[j:], bRow, k, c[j:], acc)
		}
	}
}

// genericTile16 widens a few rows of b at a time; a chain that is stored and loaded again keeps its bits.
func genericTile16(mr int, a []float32, aRow, aK int, b []uint16, bRow, k int, c []float32, cRow int, acc bool) {
	const rows = 16
	var wide [rows * 16]float32
	for j := 0; j < k; j += rows {
		n := min(rows, k-j)
		for r := range n {
			for i, h := range b[(j+r)*bRow : (j+r)*bRow+16] {
				wide[r*16+i] = quant.F16ToF32(h)
			}
		}
		genericTile(mr, a[j*aK:], aRow, aK, wide[:], 16, n, c, cRow, acc || j > 0)
	}
}

func generic2x4(a []float32, aRow, aK int, b []float32, bRow, k int, c []float32, cRow int, acc bool) {
	c0, c1 := c[:4:4], c[cRow:cRow+4:cRow+4]
	var s00, s01, s02, s03, s10, s11, s12, s13 float32
	if acc {
		s00, s01, s02, s03 = c0[0], c0[1], c0[2], c0[3]
		s10, s11, s12, s13 = c1[0], c1[1], c1[2], c1[3]
	}
	for p := range k {
		x, y := a[p*aK], a[aRow+p*aK]
		v := b[p*bRow : p*bRow+4 : p*bRow+4]
		// The conversions forbid fusing, so arm64 and amd64 agree bit for bit.
		s00 += float32(x * v[0])
		s01 += float32(x * v[1])
		s02 += float32(x * v[2])
		s03 += float32(x * v[3])
		s10 += float32(y * v[0])
		s11 += float32(y * v[1])
		s12 += float32(y * v[2])
		s13 += float32(y * v[3])
	}
	c0[0], c0[1], c0[2], c0[3] = s00, s01, s02, s03
	c1[0], c1[1], c1[2], c1[3] = s10, s11, s12, s13
}

func generic1x4(a []float32, aK int, b []float32, bRow, k int, c []float32, acc bool) {
	c = c[:4:4]
	var s0, s1, s2, s3 float32
	if acc {
		s0, s1, s2, s3 = c[0], c[1], c[2], c[3]
	}
	for p := range k {
		x := a[p*aK]
		v := b[p*bRow : p*bRow+4 : p*bRow+4]
		s0 += float32(x * v[0])
		s1 += float32(x * v[1])
		s2 += float32(x * v[2])
		s3 += float32(x * v[3])
	}
	c[0], c[1], c[2], c[3] = s0, s1, s2, s3
}
