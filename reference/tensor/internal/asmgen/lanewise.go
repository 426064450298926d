package main

import (
	"fmt"
	"math"
	"strings"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Bytes of a register.
const (
	ymm  = 32
	wide = 64
)

// lanewise emits a function over n registers of elements, to which pointers move on; scalars fill a register each.
func lanewise(bytes int, name string, pointers, scalars []string, body func(p []Register, c []VecVirtual)) {
	signature := fmt.Sprintf("func(%s *float32, n int", strings.Join(pointers, ", "))
	if len(scalars) > 0 {
		signature += fmt.Sprintf(", %s float32", strings.Join(scalars, ", "))
	}
	TEXT(name, NOSPLIT, signature+")")
	Pragma("noescape")
	var p []Register
	for _, x := range pointers {
		p = append(p, ptr(x))
	}
	n := ptr("n")
	var c []VecVirtual
	for _, x := range scalars {
		c = append(c, broadcast(x))
	}
	Label("loop")
	body(p, c)
	for _, x := range p {
		ADDQ(U32(bytes), x)
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// broadcast fills a register with a float32 parameter.
func broadcast(param string) VecVirtual {
	v := YMM()
	p, err := Param(param).Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(p.Addr, v)
	return v
}

// load8 is eight elements at a pointer, in a new register.
func load8(p Register) VecVirtual {
	v := YMM()
	VMOVUPS(mem(p, 0), v)
	return v
}

// lanewises emits the functions without a sum in them: products and sums are rounded one by one, in the order of the Go code.
func lanewises() {
	lanewise(ymm, "add8", []string{"out", "x"}, nil, func(p []Register, _ []VecVirtual) {
		v := load8(p[0])
		VADDPS(mem(p[1], 0), v, v)
		VMOVUPS(v, mem(p[0], 0))
	})
	lanewise(ymm, "scale8", []string{"x"}, []string{"c"}, func(p []Register, c []VecVirtual) {
		v := YMM()
		VMULPS(mem(p[0], 0), c[0], v)
		VMOVUPS(v, mem(p[0], 0))
	})
	lanewise(ymm, "normScale8", []string{"out", "x", "w"}, []string{"inv"}, func(p []Register, c []VecVirtual) {
		v := YMM()
		VMULPS(mem(p[1], 0), c[0], v)
		VMULPS(mem(p[2], 0), v, v)
		VMOVUPS(v, mem(p[0], 0))
	})
	lanewise(ymm, "normGrad8", []string{"dx", "dy", "x", "w"}, []string{"r", "k"}, func(p []Register, c []VecVirtual) {
		v, kx := YMM(), YMM()
		VMULPS(mem(p[3], 0), c[0], v)
		VMULPS(mem(p[1], 0), v, v)
		VMULPS(mem(p[2], 0), c[1], kx)
		VSUBPS(kx, v, v)
		VADDPS(mem(p[0], 0), v, v)
		VMOVUPS(v, mem(p[0], 0))
	})
	lanewise(ymm, "normGradW8", []string{"dw", "dy", "x"}, []string{"r"}, func(p []Register, c []VecVirtual) {
		v := load8(p[1])
		VMULPS(mem(p[2], 0), v, v)
		VMULPS(c[0], v, v)
		VADDPS(mem(p[0], 0), v, v)
		VMOVUPS(v, mem(p[0], 0))
	})
	lanewise(ymm, "softmaxGrad8", []string{"d", "w"}, []string{"mean", "scale"}, func(p []Register, c []VecVirtual) {
		v := load8(p[0])
		VSUBPS(c[0], v, v)
		VMULPS(mem(p[1], 0), v, v)
		VMULPS(c[1], v, v)
		VMOVUPS(v, mem(p[0], 0))
	})
	swigluGrad()
	adam()
	rotate()
	gatherRows()
	wides()
}

// gatherRows emits the packing of k rows of 16n elements, which lie apart in src and side by side in dst.
func gatherRows() {
	TEXT("gatherRows", NOSPLIT, "func(dst, src *float32, srcRow, n, k int)")
	Pragma("noescape")
	dst, src, srcRow, n, k := ptr("dst"), ptr("src"), ptr("srcRow"), ptr("n"), ptr("k")
	from, left := GP64(), GP64()
	Label("row")
	MOVQ(src, from)
	MOVQ(n, left)
	Label("loop")
	for half := range 2 {
		v := YMM()
		VMOVUPS(mem(from, 32*half), v)
		VMOVUPS(v, mem(dst, 32*half))
	}
	ADDQ(U32(64), from)
	ADDQ(U32(64), dst)
	DECQ(left)
	JNZ(LabelRef("loop"))
	ADDQ(srcRow, src)
	DECQ(k)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// swigluGrad emits dup = d·g·s and dgate = d·up·s·(1 + g·(1-s)), s = 1/(1 + exp(-g)).
func swigluGrad() {
	lanewise(ymm, "swigluGrad8", []string{"dgate", "dup", "dout", "gate", "up"}, nil, func(p []Register, _ []VecVirtual) {
		d, g, t := load8(p[2]), load8(p[3]), YMM()
		VXORPS(eight("sign", 1<<31), g, t)
		avx2.swigluGradTail(p, d, g, exp8(t))
	})
}

// swigluGradTail goes on from e = exp(-g).
func (i isa) swigluGradTail(p []Register, d, g, e VecVirtual) {
	one, s, t := i.reg(), i.reg(), i.reg()
	VBROADCASTSS(real8("ones", 1), one)
	VADDPS(one, e, e)
	VDIVPS(e, one, s)
	VMULPS(g, d, t)
	VMULPS(s, t, t)
	VMULPS(mem(p[4], 0), d, d)
	VMOVUPS(t, mem(p[1], 0))
	VMULPS(s, d, d)
	VSUBPS(s, one, t)
	VMULPS(t, g, t)
	VADDPS(t, one, t)
	VMULPS(t, d, d)
	VMOVUPS(d, mem(p[0], 0))
}

// adam emits a step of AdamW; c1 and c2 are 1 - b1 and 1 - b2.
func adam() {
	scalars := []string{"clip", "b1", "c1", "b2", "c2", "unbias", "eps", "rate", "keep"}
	lanewise(ymm, "adam8", []string{"w", "grad", "m", "v"}, scalars, func(p []Register, c []VecVirtual) {
		clip, b1, c1, b2, c2, unbias, eps, rate, keep := c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8]
		g, m, v, t := load8(p[1]), YMM(), YMM(), YMM()
		VMULPS(clip, g, g)
		VMULPS(mem(p[2], 0), b1, m)
		VMULPS(g, c1, t)
		VADDPS(t, m, m)
		VMOVUPS(m, mem(p[2], 0))
		VMULPS(mem(p[3], 0), b2, v)
		VMULPS(g, c2, t)
		VMULPS(g, t, t)
		VADDPS(t, v, v)
		VMOVUPS(v, mem(p[3], 0))
		VMULPS(unbias, v, v)
		VSQRTPS(v, v)
		VADDPS(eps, v, v)
		VMULPS(m, rate, m)
		VDIVPS(v, m, m)
		VMULPS(mem(p[0], 0), keep, t)
		VSUBPS(m, t, t)
		VMOVUPS(t, mem(p[0], 0))
	})
}

// rotate emits the rotation of neighbours, for heads of 8n channels: x0·cos - sign·x1·sin, x1·cos + sign·x0·sin. cs is (4n, 2).
func rotate() {
	TEXT("rotate8", NOSPLIT, "func(x, cs *float32, n, heads int, sign float32)")
	Pragma("noescape")
	x, cs, n, heads, sign := ptr("x"), ptr("cs"), ptr("n"), ptr("heads"), broadcast("sign")
	turn := YMM() // -sign at the first of a pair, sign at the second
	VXORPS(eight("sign", 1<<31), sign, turn)
	VBLENDPS(Imm(0xaa), sign, turn, turn)
	from, left := GP64(), GP64()
	Label("head")
	MOVQ(cs, from)
	MOVQ(n, left)
	Label("loop")
	v, cos, sin, swapped := load8(x), YMM(), YMM(), YMM()
	VMOVSLDUP(mem(from, 0), cos)
	VMOVSHDUP(mem(from, 0), sin)
	VMULPS(turn, sin, sin)
	VPERMILPS(Imm(0xb1), v, swapped)
	VMULPS(cos, v, v)
	VMULPS(sin, swapped, swapped)
	VADDPS(swapped, v, v)
	VMOVUPS(v, mem(x, 0))
	ADDQ(U32(32), x)
	ADDQ(U32(32), from)
	DECQ(left)
	JNZ(LabelRef("loop"))
	DECQ(heads)
	JNZ(LabelRef("head"))
	VZEROUPPER()
	RET()
}

// exp16 is exp8 on 16 elements.
func exp16(x VecVirtual) VecVirtual {
	n, r, p, t, mask := ZMM(), ZMM(), ZMM(), ZMM(), K()
	VMULPS_BCST(real8("log2e", 1.44269504088896341), x, n)
	VADDPS_BCST(real8("round", 3<<22), n, n)
	VSUBPS_BCST(real8("round", 3<<22), n, n)
	VMULPS_BCST(real8("ln2Hi", 0.693359375), n, r)
	VSUBPS(r, x, r)
	VMULPS_BCST(real8("ln2Lo", -2.12194440e-4), n, p)
	VSUBPS(p, r, r)
	VMULPS_BCST(real8("poly0", 1.9875691500e-4), r, p)
	for i, c := range []float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		if i > 0 {
			VMULPS(r, p, p)
		}
		VADDPS_BCST(real8(fmt.Sprintf("poly%d", i+1), c), p, p)
	}
	VMULPS(r, r, t)
	VMULPS(t, p, p)
	VADDPS(r, p, p)
	VADDPS_BCST(real8("ones", 1), p, p)
	VCVTPS2DQ(n, n)
	VPADDD_BCST(eight("bias", 127), n, n)
	VPSLLD(Imm(23), n, n)
	VMULPS(n, p, p)
	VCMPPS_BCST(Imm(0x15), real8("low", -87), x, mask) // all but x < low, which gives 0
	VMOVUPS_Z(p, mask, p)
	VCMPPS_BCST(Imm(0x1e), real8("high", 88.3), x, mask) // x > high gives +Inf
	VBLENDMPS_BCST(real8("inf", float32(math.Inf(1))), p, mask, p)
	return p
}

// wides emit the functions with an exponential on 16n elements: half as many instructions wait for each other at a time.
func wides() {
	lanewise(wide, "swiglu16", []string{"out", "gate", "up"}, nil, func(p []Register, _ []VecVirtual) {
		g, x := ZMM(), ZMM()
		VMOVUPS(mem(p[1], 0), g)
		VPXORD_BCST(eight("sign", 1<<31), g, x)
		e := exp16(x)
		VADDPS_BCST(real8("ones", 1), e, e)
		VDIVPS(e, g, e)
		VMULPS(mem(p[2], 0), e, e)
		VMOVUPS(e, mem(p[0], 0))
	})
	lanewise(wide, "swigluGrad16", []string{"dgate", "dup", "dout", "gate", "up"}, nil, func(p []Register, _ []VecVirtual) {
		d, g, t := ZMM(), ZMM(), ZMM()
		VMOVUPS(mem(p[2], 0), d)
		VMOVUPS(mem(p[3], 0), g)
		VPXORD_BCST(eight("sign", 1<<31), g, t)
		vnni.swigluGradTail(p, d, g, exp16(t))
	})
	TEXT("expShift16", NOSPLIT, "func(out, x *float32, n int, shift float32, lanes *[8]float64)")
	Pragma("noescape")
	out, x, n, lanes := ptr("out"), ptr("x"), ptr("n"), ptr("lanes")
	shift, sum := ZMM(), ZMM()
	shiftParam, err := Param("shift").Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(shiftParam.Addr, shift)
	VMOVUPD(mem(lanes, 0), sum)
	Label("loop")
	v, double := ZMM(), ZMM()
	VMOVUPS(mem(x, 0), v)
	VSUBPS(shift, v, v)
	e := exp16(v)
	VMOVUPS(e, mem(out, 0))
	VCVTPS2PD(e.AsY(), double)
	VADDPD(double, sum, sum)
	VEXTRACTF64X4(Imm(1), e, e.AsY())
	VCVTPS2PD(e.AsY(), double)
	VADDPD(double, sum, sum)
	ADDQ(U32(64), x)
	ADDQ(U32(64), out)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VMOVUPD(sum, mem(lanes, 0))
	VZEROUPPER()
	RET()
}
