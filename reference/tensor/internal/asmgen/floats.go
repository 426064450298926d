package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// element is a floating-point format of weights.
type element struct {
	name  string
	bytes int
}

var (
	half   = element{"F16", 2}
	bfloat = element{"BF16", 2}
	single = element{"F32", 4}
)

func (e element) load(m Mem, to VecVirtual) {
	switch e {
	case half:
		VCVTPH2PS(m, to)
	case bfloat:
		VPMOVZXWD(m, to)
		VPSLLD(Imm(16), to, to)
	case single:
		VMOVUPS(m, to)
	}
}

// floating emits out[t, 0:16P] = panels·a[t] for T tokens and k columns: one chain of fused multiply-adds an element.
// a is (k, T); a panel is (k, 16).
func floating(i isa, e element, T, P int) {
	TEXT(fmt.Sprintf("%s%sx%dx%d", i.name, e.name, T, P), NOSPLIT, "func(w *byte, stride int, a *byte, k int, out *float32, ldo int)")
	Pragma("noescape")
	w := []Register{ptr("w")}
	stride := ptr("stride")
	a, k, out, ldo := ptr("a"), ptr("k"), ptr("out"), ptr("ldo")
	for p := 1; p < P; p++ {
		r := GP64()
		LEAQ(Mem{Base: w[p-1], Index: stride, Scale: 1}, r)
		w = append(w, r)
	}
	n := P * i.parts
	var f [][]VecVirtual
	for v := range n {
		f = append(f, i.regs(T))
		for t := range T {
			i.zero(f[v][t])
		}
	}
	x, b := i.regs(n), i.reg()
	row := 16 * e.bytes
	column := func(u int) {
		for v := range n {
			e.load(mem(w[v/i.parts], row*u+v%i.parts*row/i.parts), x[v])
		}
		for t := range T {
			VBROADCASTSS(mem(a, (u*T+t)*4), b)
			for v := range n {
				VFMADD231PS(b, x[v], f[v][t])
			}
		}
	}
	next := func(u int) {
		for p := range w {
			if T == 1 && u > 1 {
				for d := 0; d < row*u; d += 64 {
					PREFETCHT0(mem(w[p], d+2048))
				}
			}
			ADDQ(U32(row*u), w[p])
		}
		ADDQ(U32(4*T*u), a)
	}
	const unroll = 4
	SUBQ(U32(unroll), k)
	JL(LabelRef("rest"))
	Label("loop")
	for u := range unroll {
		column(u)
	}
	next(unroll)
	SUBQ(U32(unroll), k)
	JGE(LabelRef("loop"))
	Label("rest")
	ADDQ(U32(unroll), k)
	JZ(LabelRef("done"))
	Label("single")
	column(0)
	next(1)
	DECQ(k)
	JNZ(LabelRef("single"))
	Label("done")
	i.store(f, out, ldo)
}
