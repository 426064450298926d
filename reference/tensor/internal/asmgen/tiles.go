package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// tiles emits package tensor's kernels: the register tiles of products, packing, and element-wise functions.
func tiles() {
	for _, e := range []element{single, half} {
		for _, rows := range []int{1, 2, 4, 6} {
			tile(avx2, "avx2", e, rows)
		}
		for _, rows := range []int{1, 2, 4, 8, 12} {
			tile(vnni, "avx512", e, rows)
		}
	}
	for _, rows := range []int{1, 2, 4, 8, 12} {
		narrowTile(rows)
	}
	transpose8()
	expShift()
	swiglu()
	top()
	halves()
	lanewises()
}

// tile emits one register tile: rows x two vectors of C, one chain of fused multiply-adds per element in the order of
// k. Strides are in bytes; b is (k, two vectors) with rows bRow apart.
func tile(i isa, name string, e element, rows int) {
	b := map[element]string{single: "*float32", half: "*uint16"}[e]
	suffix := map[element]string{single: "", half: "F16"}[e]
	TEXT(fmt.Sprintf("%s%sx%d", name, suffix, rows), NOSPLIT,
		fmt.Sprintf("func(a *float32, aRow, aK int, b %s, bRow, k int, c *float32, cRow int, acc bool)", b))
	Pragma("noescape")
	base := []Register{ptr("a")}
	aRow, aK, bp, bRow, k, c, cRow := ptr("aRow"), ptr("aK"), ptr("b"), ptr("bRow"), ptr("k"), ptr("c"), ptr("cRow")
	acc := Load(Param("acc"), GP8())
	three := GP64()
	LEAQ(Mem{Base: aRow, Index: aRow, Scale: 2}, three)
	for len(base)*3 < rows {
		r := GP64()
		LEAQ(Mem{Base: base[len(base)-1], Index: three, Scale: 1}, r)
		base = append(base, r)
	}
	s := i.regs(2 * rows)
	to := GP64()
	MOVQ(c, to)
	TESTB(acc, acc)
	JZ(LabelRef("zero"))
	for r := range rows {
		VMOVUPS(mem(to, 0), s[2*r])
		VMOVUPS(mem(to, i.bytes()), s[2*r+1])
		ADDQ(cRow, to)
	}
	JMP(LabelRef("loop"))
	Label("zero")
	for _, r := range s {
		i.zero(r)
	}
	x, y := i.regs(2), i.regs(2)
	Label("loop")
	for v := range x {
		e.load(mem(bp, v*i.bytes()*e.bytes/4), x[v])
	}
	for r := range rows {
		m := mem(base[r/3], 0)
		if r%3 > 0 {
			m.Index, m.Scale = aRow, uint8(r%3)
		}
		VBROADCASTSS(m, y[r%2])
		VFMADD231PS(x[0], y[r%2], s[2*r])
		VFMADD231PS(x[1], y[r%2], s[2*r+1])
	}
	for _, r := range base {
		ADDQ(aK, r)
	}
	ADDQ(bRow, bp)
	DECQ(k)
	JNZ(LabelRef("loop"))
	for r := range rows {
		VMOVUPS(s[2*r], mem(c, 0))
		VMOVUPS(s[2*r+1], mem(c, i.bytes()))
		if r < rows-1 {
			ADDQ(cRow, c)
		}
	}
	VZEROUPPER()
	RET()
}

// narrowTile emits the register tile of the columns that a tile of two vectors would waste: rows x cols of C, cols up to 16,
// with the chains of tile. Nothing beyond cols is read or written.
func narrowTile(rows int) {
	TEXT(fmt.Sprintf("avx512Narrowx%d", rows), NOSPLIT, "func(a *float32, aRow, aK int, b *float32, bRow, k int, c *float32, cRow, cols int, acc bool)")
	Pragma("noescape")
	base := []Register{ptr("a")}
	aRow, aK, bp, bRow, k, c, cRow := ptr("aRow"), ptr("aK"), ptr("b"), ptr("bRow"), ptr("k"), ptr("c"), ptr("cRow")
	ones, mask := GP64(), K()
	Load(Param("cols"), RCX)
	MOVQ(U32(1), ones)
	SHLQ(CL, ones)
	DECQ(ones)
	KMOVW(ones.As32(), mask)
	acc := Load(Param("acc"), GP8())
	three := GP64()
	LEAQ(Mem{Base: aRow, Index: aRow, Scale: 2}, three)
	for len(base)*3 < rows {
		r := GP64()
		LEAQ(Mem{Base: base[len(base)-1], Index: three, Scale: 1}, r)
		base = append(base, r)
	}
	s := vnni.regs(rows)
	to := GP64()
	MOVQ(c, to)
	TESTB(acc, acc)
	JZ(LabelRef("zero"))
	for r := range rows {
		VMOVUPS_Z(mem(to, 0), mask, s[r])
		ADDQ(cRow, to)
	}
	JMP(LabelRef("loop"))
	Label("zero")
	for _, r := range s {
		vnni.zero(r)
	}
	x := vnni.reg()
	Label("loop")
	VMOVUPS_Z(mem(bp, 0), mask, x)
	for r := range rows {
		m := mem(base[r/3], 0)
		if r%3 > 0 {
			m.Index, m.Scale = aRow, uint8(r%3)
		}
		VFMADD231PS_BCST(m, x, s[r])
	}
	for _, r := range base {
		ADDQ(aK, r)
	}
	ADDQ(bRow, bp)
	DECQ(k)
	JNZ(LabelRef("loop"))
	for r := range rows {
		VMOVUPS(s[r], mask, mem(c, 0))
		if r < rows-1 {
			ADDQ(cRow, c)
		}
	}
	VZEROUPPER()
	RET()
}

// transpose8 emits the packing kernel: 8 rows x 8n columns of src become 8n rows of 8 in dst.
func transpose8() {
	TEXT("transpose8", NOSPLIT, "func(dst *float32, dstRow int, src *float32, srcRow int, n int)")
	Pragma("noescape")
	dst, dstRow, src, srcRow, n := ptr("dst"), ptr("dstRow"), ptr("src"), ptr("srcRow"), ptr("n")
	three := GP64()
	LEAQ(Mem{Base: srcRow, Index: srcRow, Scale: 2}, three)
	from := []Register{src, GP64(), GP64()}
	LEAQ(Mem{Base: from[0], Index: three, Scale: 1}, from[1])
	LEAQ(Mem{Base: from[1], Index: three, Scale: 1}, from[2])
	row := func(r, disp int) Mem {
		m := mem(from[r/3], disp)
		if r%3 > 0 {
			m.Index, m.Scale = srcRow, uint8(r%3)
		}
		return m
	}
	Label("loop")
	for half := range 2 { // columns 0..3, then 4..7
		r := []VecVirtual{YMM(), YMM(), YMM(), YMM()}
		for j := range r { // low lane row j, high lane row j+4
			VMOVUPS(row(j, 16*half), r[j].AsX())
			VINSERTF128(Imm(1), row(j+4, 16*half), r[j], r[j])
		}
		u := []VecVirtual{YMM(), YMM(), YMM(), YMM()}
		VUNPCKLPS(r[1], r[0], u[0])
		VUNPCKHPS(r[1], r[0], u[1])
		VUNPCKLPS(r[3], r[2], u[2])
		VUNPCKHPS(r[3], r[2], u[3])
		for c := range 4 {
			out := YMM()
			if c%2 == 0 {
				VUNPCKLPD(u[2+c/2], u[c/2], out)
			} else {
				VUNPCKHPD(u[2+c/2], u[c/2], out)
			}
			VMOVUPS(out, mem(dst, 0))
			ADDQ(dstRow, dst)
		}
	}
	for _, r := range from {
		ADDQ(U32(32), r)
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// eight is a constant of eight equal float32, so that it can be a 256-bit memory operand.
func eight(name string, bits uint32) Mem {
	if m, ok := constants()[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for j := range 8 {
		DATA(4*j, U32(bits))
	}
	constants()[name] = m
	return m
}

func real8(name string, v float32) Mem { return eight(name, math.Float32bits(v)) }

// exp8 emits exp(x) with the operations of exp32 of package tensor in the same order, never fused, so that bits agree.
func exp8(x VecVirtual) VecVirtual {
	n, r, p, t := YMM(), YMM(), YMM(), YMM()
	VMULPS(real8("log2e", 1.44269504088896341), x, n)
	VADDPS(real8("round", 3<<22), n, n)
	VSUBPS(real8("round", 3<<22), n, n)
	VMULPS(real8("ln2Hi", 0.693359375), n, r)
	VSUBPS(r, x, r)
	VMULPS(real8("ln2Lo", -2.12194440e-4), n, p)
	VSUBPS(p, r, r)
	VMOVUPS(real8("poly0", 1.9875691500e-4), p)
	for i, c := range []float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		VMULPS(r, p, p)
		VADDPS(real8(fmt.Sprintf("poly%d", i+1), c), p, p)
	}
	VMULPS(r, r, t)
	VMULPS(t, p, p)
	VADDPS(r, p, p)
	VADDPS(real8("ones", 1), p, p)
	VCVTPS2DQ(n, n)
	VPADDD(eight("bias", 127), n, n)
	VPSLLD(Imm(23), n, n)
	VMULPS(n, p, p)
	VCMPPS(Imm(0x11), real8("low", -87), x, t) // x < low gives 0
	VANDNPS(p, t, p)
	VCMPPS(Imm(0x1e), real8("high", 88.3), x, t) // x > high gives +Inf
	VBLENDVPS(t, real8("inf", float32(math.Inf(1))), p, p)
	return p
}

// expShift emits out = exp(x - shift) for 8n elements, and lane i%8 of lanes += out[i] in float64.
func expShift() {
	TEXT("expShift8", NOSPLIT, "func(out, x *float32, n int, shift float32, lanes *[8]float64)")
	Pragma("noescape")
	out, x, n, lanes := ptr("out"), ptr("x"), ptr("n"), ptr("lanes")
	shift, sum := YMM(), []VecVirtual{YMM(), YMM()}
	shiftParam, err := Param("shift").Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(shiftParam.Addr, shift)
	VMOVUPD(mem(lanes, 0), sum[0])
	VMOVUPD(mem(lanes, 32), sum[1])
	Label("loop")
	v := YMM()
	VMOVUPS(mem(x, 0), v)
	VSUBPS(shift, v, v)
	e := exp8(v)
	VMOVUPS(e, mem(out, 0))
	wide := YMM()
	VCVTPS2PD(e.AsX(), wide)
	VADDPD(wide, sum[0], sum[0])
	VEXTRACTF128(Imm(1), e, e.AsX())
	VCVTPS2PD(e.AsX(), wide)
	VADDPD(wide, sum[1], sum[1])
	ADDQ(U32(32), x)
	ADDQ(U32(32), out)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VMOVUPD(sum[0], mem(lanes, 0))
	VMOVUPD(sum[1], mem(lanes, 32))
	VZEROUPPER()
	RET()
}

// swiglu emits out = gate / (1 + exp(-gate)) * up for 8n elements.
func swiglu() {
	TEXT("swiglu8", NOSPLIT, "func(out, gate, up *float32, n int)")
	Pragma("noescape")
	out, gate, up, n := ptr("out"), ptr("gate"), ptr("up"), ptr("n")
	Label("loop")
	g, x := YMM(), YMM()
	VMOVUPS(mem(gate, 0), g)
	VXORPS(eight("sign", 1<<31), g, x)
	e := exp8(x)
	VADDPS(real8("ones", 1), e, e)
	VDIVPS(e, g, e)
	VMULPS(mem(up, 0), e, e)
	VMOVUPS(e, mem(out, 0))
	for _, r := range []Register{gate, up, out} {
		ADDQ(U32(32), r)
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// top emits the largest of 8n elements.
func top() {
	TEXT("top8", NOSPLIT, "func(x *float32, n int) float32")
	Pragma("noescape")
	x, n := ptr("x"), ptr("n")
	m, t := YMM(), XMM()
	VMOVUPS(mem(x, 0), m)
	Label("loop")
	VMAXPS(mem(x, 0), m, m)
	ADDQ(U32(32), x)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VEXTRACTF128(Imm(1), m, t)
	VMAXPS(t, m.AsX(), m.AsX())
	VPERMILPS(Imm(0x4e), m.AsX(), t)
	VMAXPS(t, m.AsX(), m.AsX())
	VPERMILPS(Imm(0xb1), m.AsX(), t)
	VMAXPS(t, m.AsX(), m.AsX())
	Store(m.AsX(), ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// halves emits the conversion of 8n float32 to float16, to nearest even.
func halves() {
	TEXT("halves8", NOSPLIT, "func(dst *uint16, src *float32, n int)")
	Pragma("noescape")
	dst, src, n := ptr("dst"), ptr("src"), ptr("n")
	v := YMM()
	Label("loop")
	VMOVUPS(mem(src, 0), v)
	VCVTPS2PH(Imm(0), v, mem(dst, 0))
	ADDQ(U32(32), src)
	ADDQ(U32(16), dst)
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
