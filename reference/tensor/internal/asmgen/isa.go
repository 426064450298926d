package main

import (
	"fmt"
	"sync"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// isa is an instruction set. A panel row of 16 float32 lanes takes one register of AVX-512, two of AVX2.
type isa struct {
	name  string // prefix of function names
	wide  bool   // 512-bit registers and VPDPBUSD
	parts int    // registers per 16 lanes
}

var (
	avx2 = isa{"avx2", false, 2}
	vnni = isa{"vnni", true, 1}
)

func (i isa) reg() VecVirtual {
	if i.wide {
		return ZMM()
	}
	return YMM()
}

func (i isa) regs(n int) []VecVirtual {
	r := make([]VecVirtual, n)
	for j := range r {
		r[j] = i.reg()
	}
	return r
}

func (i isa) zero(r VecVirtual) {
	if i.wide {
		VPXORD(r, r, r)
	} else {
		VPXOR(r, r, r)
	}
}

func (i isa) and(a Op, b, to VecVirtual) {
	if i.wide {
		VPANDD(a, b, to)
	} else {
		VPAND(a, b, to)
	}
}

func (i isa) or(a Op, b, to VecVirtual) {
	if i.wide {
		VPORD(a, b, to)
	} else {
		VPOR(a, b, to)
	}
}

func (i isa) load(m Mem, to VecVirtual) {
	if i.wide {
		VMOVDQU64(m, to)
	} else {
		VMOVDQU(m, to)
	}
}

func (i isa) copy(from, to VecVirtual) {
	if i.wide {
		VMOVDQA64(from, to)
	} else {
		VMOVDQA(from, to)
	}
}

// bytes is the number of bytes of a register.
func (i isa) bytes() int { return 64 / i.parts }

func ptr(name string) Register { return Load(Param(name), GP64()) }

func mem(r Register, disp int) Mem { return Mem{Base: r, Disp: disp} }

// constant is a 64-byte constant of one repeated byte.
func constant(b byte) Mem {
	name := fmt.Sprintf("bytes%02x", b)
	if m, ok := constants()[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for j := range 8 {
		v := uint64(b) * 0x0101010101010101
		DATA(8*j, U64(v))
	}
	constants()[name] = m
	return m
}

// ones16 is a 64-byte constant of int16 ones.
func ones16() Mem {
	if m, ok := constants()["ones16"]; ok {
		return m
	}
	m := GLOBL("ones16", RODATA|NOPTR)
	for j := range 8 {
		DATA(8*j, U64(0x0001000100010001))
	}
	constants()["ones16"] = m
	return m
}

// constants are those of the file that is being written.
var constants = sync.OnceValue(func() map[string]Mem { return map[string]Mem{} })

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
