package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// quantize emits the rounding of one token's activations, nb blocks of 32, into place t of a tile of T tokens (a points
// at the token's first group, f at its first field; tile is the size of a block of the tile, step is 4T).
// See quantizeGeneric of package panel, whose bits these are.
func quantize() {
	TEXT("quantize8", NOSPLIT, "func(x *float32, nb int, a, f *byte, step, tile int)")
	Pragma("noescape")
	x, nb, a, f, step, tile := ptr("x"), ptr("nb"), ptr("a"), ptr("f"), ptr("step"), ptr("tile")
	r := rounding{v: []VecVirtual{YMM(), YMM(), YMM(), YMM()}, t: YMM(), d: XMM()}
	to := GP64()
	Label("block")
	for i := range r.v {
		VMOVUPS(mem(x, 32*i), r.v[i])
	}
	r.scale()
	lo, hi := r.sums()
	MOVQ(a, to)
	r.pack(to, step)
	MOVQ(f, to)
	VMOVSS(r.d, mem(to, 0))
	ADDQ(step, to)
	all, zero, n := XMM(), XMM(), XMM()
	VPADDD(lo, hi, all)
	VPXOR(zero, zero, zero)
	for _, sum := range []Register{all, lo, hi} {
		VPSUBD(sum, zero, n)
		VMOVD(n, mem(to, 0))
		ADDQ(step, to)
	}
	for i, sum := range []Register{all, lo, hi} {
		VCVTDQ2PS(sum, n)
		VMULSS(r.d, n, n)
		VMOVSS(n, mem(to, 0))
		if i < 2 {
			ADDQ(step, to)
		}
	}
	ADDQ(U32(128), x)
	ADDQ(tile, a)
	ADDQ(tile, f)
	DECQ(nb)
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}

// rounding is a block of 32 activations in registers: floats, and after scale quants in their place.
type rounding struct {
	v []VecVirtual
	t VecVirtual // scratch
	d VecVirtual // the scale
}

// fold reduces the lanes of a register to the first.
func (r *rounding) fold(v VecVirtual, op func(a Op, b, c Op)) {
	VEXTRACTF128(Imm(1), v, r.t.AsX())
	op(r.t.AsX(), v.AsX(), v.AsX())
	VPERMILPS(Imm(0x4e), v.AsX(), r.t.AsX())
	op(r.t.AsX(), v.AsX(), v.AsX())
	VPERMILPS(Imm(0xb1), v.AsX(), r.t.AsX())
	op(r.t.AsX(), v.AsX(), v.AsX())
}

// scale finds the scale and rounds: top = max |x|; poison = sum of x times 0, which is NaN if any x is not finite. A
// scale below the smallest normal number has no usable inverse: all quants become zero.
func (r *rounding) scale() {
	top, poison, abs := YMM(), YMM(), YMM()
	VPCMPEQD(abs, abs, abs)
	VPSRLD(Imm(1), abs, abs)
	VANDPS(abs, r.v[0], top)
	for i := 1; i < 4; i++ {
		VANDPS(abs, r.v[i], r.t)
		VMAXPS(r.t, top, top)
	}
	VXORPS(poison, poison, poison)
	for i := range r.v {
		VXORPS(r.t, r.t, r.t)
		VMULPS(r.t, r.v[i], r.t)
		VADDPS(r.t, poison, poison)
	}
	r.fold(top, func(a Op, b, c Op) { VMAXPS(a, b, c) })
	r.fold(poison, func(a Op, b, c Op) { VADDPS(a, b, c) })
	inv, tiny := XMM(), XMM()
	VMULSS(scalar("over127", 1.0/127), top.AsX(), r.d)
	VMOVSS(scalar("one", 1), inv)
	VDIVSS(r.d, inv, inv)
	VMOVSS(scalar("tiny", 0x1p-126), tiny)
	VCMPSS(Imm(2), r.d, tiny, tiny) // tiny <= d
	VANDPS(tiny, inv, inv)
	VADDSS(poison.AsX(), r.d, r.d)
	VBROADCASTSS(inv, r.t)
	for i := range r.v {
		VMULPS(r.t, r.v[i], r.v[i])
		VCVTPS2DQ(r.v[i], r.v[i])
	}
}

// sums adds the quants of both halves.
func (r *rounding) sums() (lo, hi Register) {
	sum := func(a, b VecVirtual) Register {
		s := YMM()
		VPADDD(a, b, s)
		VEXTRACTI128(Imm(1), s, r.t.AsX())
		VPADDD(r.t.AsX(), s.AsX(), s.AsX())
		VPSHUFD(Imm(0x4e), s.AsX(), r.t.AsX())
		VPADDD(r.t.AsX(), s.AsX(), s.AsX())
		VPSHUFD(Imm(0xb1), s.AsX(), r.t.AsX())
		VPADDD(r.t.AsX(), s.AsX(), s.AsX())
		return s.AsX()
	}
	return sum(r.v[0], r.v[1]), sum(r.v[2], r.v[3])
}

// pack stores the quants as bytes, a group of four every step bytes. Packs mix lanes; a permutation of dwords restores
// the order of groups.
func (r *rounding) pack(to, step Register) {
	q := r.v[0]
	VPACKSSDW(r.v[1], q, q)
	VPACKSSDW(r.v[3], r.v[2], r.v[2])
	VPACKSSWB(r.v[2], q, q)
	VPERMD(q, order(), q)
	for i := range 8 {
		if i == 4 {
			VEXTRACTI128(Imm(1), q, q.AsX())
		}
		VPEXTRD(Imm(uint64(i%4)), q.AsX(), mem(to, 0))
		if i < 7 {
			ADDQ(step, to)
		}
	}
}

// scalar is a float32 constant in memory.
func scalar(name string, v float32) Mem {
	if m, ok := constants()[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	DATA(0, F32(v))
	constants()[name] = m
	return m
}

// order undoes the lane mixing of two packs.
func order() VecVirtual {
	m, ok := constants()["order"]
	if !ok {
		m = GLOBL("order", RODATA|NOPTR)
		for i, v := range []uint32{0, 4, 1, 5, 2, 6, 3, 7} {
			DATA(4*i, U32(v))
		}
		constants()["order"] = m
	}
	r := YMM()
	VMOVDQU(m, r)
	return r
}
