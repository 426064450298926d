package main

import (
	"math"
)

// fill writes a constant to all lanes of new registers.
func (a *arm64) fill(bits ...uint32) []v {
	list := a.take(len(bits))
	t := a.takeR()
	for i, b := range bits {
		a.op("MOVW $0x%08x, %v", b, t)
		a.do(dupR(list[i], t))
	}
	a.gp = append([]r{t}, a.gp...)
	return list
}

func (a *arm64) reals(values ...float32) []v {
	var bits []uint32
	for _, x := range values {
		bits = append(bits, math.Float32bits(x))
	}
	return a.fill(bits...)
}

// exponential holds the constants of exp32 of package tensor.
type exponential struct {
	log2e, round, ln2Hi, ln2Lo, one, low, high, inf, bias v
	poly                                                  []v
}

func (a *arm64) exponential() exponential {
	c := a.reals(1.44269504088896341, 3<<22, 0.693359375, -2.12194440e-4, 1, -87, 88.3, float32(math.Inf(1)))
	e := exponential{log2e: c[0], round: c[1], ln2Hi: c[2], ln2Lo: c[3], one: c[4], low: c[5], high: c[6], inf: c[7]}
	e.bias = a.fill(127)[0]
	e.poly = a.reals(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
	return e
}

// exp writes p = e^x, x being kept, with the operations of exp32 in the same order, never fused, so that bits agree.
func (a *arm64) exp(e exponential, p, x v) {
	t := a.take(3)
	n, r, s := t[0], t[1], t[2]
	a.do(fmul(n, x, e.log2e), fadd(n, n, e.round), fsub(n, n, e.round))
	a.do(fmul(r, n, e.ln2Hi), fsub(r, x, r), fmul(p, n, e.ln2Lo), fsub(r, r, p))
	a.do(fmul(p, e.poly[0], r), fadd(p, p, e.poly[1]))
	for _, c := range e.poly[2:] {
		a.do(fmul(p, p, r), fadd(p, p, c))
	}
	a.do(fmul(s, r, r), fmul(p, p, s), fadd(p, p, r), fadd(p, p, e.one))
	a.do(fcvtns(n, n), add(n, n, e.bias), shl32(n, n, 23), fmul(p, p, n))
	a.do(fcmgt(s, e.low, x), bic(p, p, s))      // x < low gives 0
	a.do(fcmgt(s, x, e.high), bit(p, e.inf, s)) // x > high gives +Inf
	a.give(t)
}

// vectors writes the element-wise functions, on 8n elements; the functions of the same names for amd64 say what they do.
func (a *arm64) vectors() {
	a.expShift()
	a.swiglu()
	a.top()
	a.narrow()
	a.lanewises()
}

func (a *arm64) expShift() {
	a.begin("expShift8", []string{"out *float32", "x *float32", "n int", "shift float32", "lanes *[8]float64"}, "")
	p := a.paramList("out", "x", "n", "lanes")
	out, x, n, lanes := p[0], p[1], p[2], p[3]
	shift, sum := a.take(1)[0], a.take(4)
	a.op("FMOVS shift+%d(FP), %s", a.offsets["shift"], shift.f())
	a.do(dup(shift, shift, 0))
	for i, s := range sum {
		a.load(16, lanes, 16*i, s)
	}
	e, t := a.exponential(), a.take(3)
	a.loop("loop", n, func() {
		for i := range 2 {
			a.load(16, x, 16*i, t[0])
			a.do(fsub(t[0], t[0], shift))
			a.exp(e, t[1], t[0])
			a.store(16, t[1], out, 16*i)
			a.do(fcvtld(t[2], t[1]), fadd2d(sum[2*i], sum[2*i], t[2]))
			a.do(fcvtld2(t[2], t[1]), fadd2d(sum[2*i+1], sum[2*i+1], t[2]))
		}
		a.op("ADD $32, %v", x)
		a.op("ADD $32, %v", out)
	})
	for i, s := range sum {
		a.store(16, s, lanes, 16*i)
	}
	a.op("RET")
}

func (a *arm64) swiglu() {
	a.begin("swiglu8", []string{"out *float32", "gate *float32", "up *float32", "n int"}, "")
	p := a.paramList("out", "gate", "up", "n")
	e, t := a.exponential(), a.take(3)
	a.loop("loop", p[3], func() {
		for i := range 2 {
			a.load(16, p[1], 16*i, t[0])
			a.do(fneg(t[1], t[0]))
			a.exp(e, t[2], t[1])
			a.load(16, p[2], 16*i, t[1])
			a.do(fadd(t[2], t[2], e.one), fdiv(t[2], t[0], t[2]), fmul(t[2], t[2], t[1]))
			a.store(16, t[2], p[0], 16*i)
		}
		for _, x := range p[:3] {
			a.op("ADD $32, %v", x)
		}
	})
	a.op("RET")
}

func (a *arm64) top() {
	a.begin("top8", []string{"x *float32", "n int"}, "float32")
	p := a.paramList("x", "n")
	m, t := a.take(1)[0], a.take(2)
	a.load(16, p[0], 0, m)
	a.loop("loop", p[1], func() {
		a.load(16, p[0], 0, t[0])
		a.load(16, p[0], 16, t[1])
		a.op("ADD $32, %v", p[0])
		a.do(fmaxnm(t[0], t[0], t[1]), fmaxnm(m, m, t[0]))
	})
	a.do(fmaxnmv(m, m))
	a.op("FMOVS %s, ret+%d(FP)", m.f(), a.offsets["ret"])
	a.op("RET")
}

func (a *arm64) narrow() {
	a.begin("halves8", []string{"dst *uint16", "src *float32", "n int"}, "")
	p := a.paramList("dst", "src", "n")
	t := a.take(3)
	a.loop("loop", p[2], func() {
		a.load(16, p[1], 0, t[0])
		a.load(16, p[1], 16, t[1])
		a.do(fcvtn(t[2], t[0]), fcvtn2(t[2], t[1]))
		a.store(16, t[2], p[0], 0)
		a.op("ADD $32, %v", p[1])
		a.op("ADD $16, %v", p[0])
	})
	a.op("RET")
}

// transpose writes the packing kernel: 8 rows x 8n columns of src become 8n rows of 8 in dst, by squares of 4.
func (a *arm64) transpose() {
	a.begin("transpose8", []string{"dst *float32", "dstRow int", "src *float32", "srcRow int", "n int"}, "")
	p := a.paramList("dst", "dstRow", "src", "srcRow", "n")
	from := a.rows(p[2], p[3], 8)
	x, y := a.take(8), a.take(8)
	a.loop("loop", p[4], func() {
		for half := range 2 { // columns 0..3, then 4..7
			for i, row := range from {
				a.load(16, row, 16*half, x[i])
			}
			for i := 0; i < 8; i += 2 {
				a.do(trn1(y[i], x[i], x[i+1]), trn2(y[i+1], x[i], x[i+1]))
			}
			for i := 0; i < 8; i += 4 { // columns 0 and 2 of two rows meet those of the next two, then 1 and 3
				for c := range 2 {
					a.do(zip1d(x[i+c], y[i+c], y[i+c+2]), zip2d(x[i+c+2], y[i+c], y[i+c+2]))
				}
			}
			for c := range 4 {
				a.store(16, x[c], p[0], 0)
				a.store(16, x[c+4], p[0], 16)
				a.op("ADD %v, %v", p[1], p[0])
			}
		}
		for _, row := range from {
			a.op("ADD $32, %v", row)
		}
	})
	a.op("RET")
}

// quantize writes the rounding of one token's activations, nb blocks of 32, into its place in a tile of tokens; see the
// function of this name for amd64.
func (a *arm64) quantize() {
	a.begin("quantize8", []string{"x *float32", "nb int", "a *byte", "f *byte", "step int", "tile int"}, "")
	p := a.paramList("x", "nb", "a", "f", "step", "tile")
	x, groups, fields, step, tile, to := p[0], p[2], p[3], p[4], p[5], a.takeR()
	c := a.reals(1.0/127, 1, 0x1p-126, 0)
	b, t := a.take(8), a.take(8)
	top, poison, scale, inverse := t[0], t[1], t[2], t[3]
	a.loop("block", p[1], func() {
		for i := range b {
			a.load(16, x, 16*i, b[i])
		}
		a.do(fabs(top, b[0]), fmul(poison, b[0], c[3]))
		for i := 1; i < 8; i++ { // poison: NaN if any x is not finite, for then x·0 is
			a.do(fabs(t[4], b[i]), fmax(top, top, t[4]), fmul(t[5], b[i], c[3]), fadd(poison, poison, t[5]))
		}
		a.do(fmaxv(top, top), fadd(poison, poison, c[3]), fmaxv(poison, poison))
		a.do(fmul(scale, top, c[0]), fdiv(inverse, c[1], scale), fcmgt(t[4], c[2], scale), bic(inverse, inverse, t[4]))
		a.do(fadd(scale, scale, poison))
		for i := range b {
			a.do(fmulE(b[i], b[i], inverse, 0), fcvtns(b[i], b[i]))
		}
		all, lo, hi := t[4], t[5], t[6]
		for i, sum := range []v{lo, hi} {
			a.do(add(sum, b[4*i], b[4*i+1]), add(t[7], b[4*i+2], b[4*i+3]), add(sum, sum, t[7]), addv(sum, sum))
		}
		a.do(add(all, lo, hi))
		a.op("MOVD %v, %v", groups, to)
		for i := 0; i < 8; i += 4 {
			a.do(sqxtn4(b[i], b[i]), sqxtn24(b[i], b[i+1]), sqxtn4(b[i+2], b[i+2]), sqxtn24(b[i+2], b[i+3]))
			a.do(sqxtn8(t[7], b[i]), sqxtn28(t[7], b[i+2]))
			for j := range 4 {
				a.op("VST1 V%d.S[%d], (%v)", int(t[7]), j, to)
				a.op("ADD %v, %v", step, to)
			}
		}
		a.op("MOVD %v, %v", fields, to)
		put := func(x v) {
			a.store(4, x, to, 0)
			a.op("ADD %v, %v", step, to)
		}
		put(scale)
		for _, sum := range []v{all, lo, hi} {
			a.do(neg(t[7], sum))
			put(t[7])
		}
		for _, sum := range []v{all, lo, hi} {
			a.do(scvtf(t[7], sum), fmul(t[7], t[7], scale))
			put(t[7])
		}
		a.op("ADD $128, %v", x)
		a.op("ADD %v, %v", tile, groups)
		a.op("ADD %v, %v", tile, fields)
	})
	a.op("RET")
}

// lanewise emits a function over 8n elements by halves, whose pointers move on by 8 each time; scalars fill a register each.
func (a *arm64) lanewise(name string, pointers, scalars []string, body func(p []r, c []v, at int)) {
	var params []string
	for _, x := range pointers {
		params = append(params, x+" *float32")
	}
	params = append(params, "n int")
	for _, x := range scalars {
		params = append(params, x+" float32")
	}
	a.begin(name, params, "")
	p := a.paramList(append(pointers, "n")...)
	c := a.take(len(scalars))
	for i, x := range scalars {
		a.broadcast(x, c[i])
	}
	a.loop("loop", p[len(pointers)], func() {
		body(p, c, 0)
		body(p, c, 16)
		for _, x := range p[:len(pointers)] {
			a.op("ADD $32, %v", x)
		}
	})
	a.op("RET")
}

// broadcast fills a register with a float32 parameter.
func (a *arm64) broadcast(param string, to v) {
	a.op("FMOVS %s+%d(FP), %s", param, a.offsets[param], to.f())
	a.do(dup(to, to, 0))
}

// lanewises writes the functions of this name for amd64.
func (a *arm64) lanewises() {
	with := func(n int, body func(t []v)) {
		t := a.take(n)
		body(t)
		a.give(t)
	}
	a.lanewise("add8", []string{"out", "x"}, nil, func(p []r, _ []v, at int) {
		with(2, func(t []v) {
			a.load(16, p[0], at, t[0])
			a.load(16, p[1], at, t[1])
			a.do(fadd(t[0], t[0], t[1]))
			a.store(16, t[0], p[0], at)
		})
	})
	a.lanewise("scale8", []string{"x"}, []string{"c"}, func(p []r, c []v, at int) {
		with(1, func(t []v) {
			a.load(16, p[0], at, t[0])
			a.do(fmul(t[0], t[0], c[0]))
			a.store(16, t[0], p[0], at)
		})
	})
	a.lanewise("normScale8", []string{"out", "x", "w"}, []string{"inv"}, func(p []r, c []v, at int) {
		with(2, func(t []v) {
			a.load(16, p[1], at, t[0])
			a.load(16, p[2], at, t[1])
			a.do(fmul(t[0], t[0], c[0]), fmul(t[0], t[0], t[1]))
			a.store(16, t[0], p[0], at)
		})
	})
	a.lanewise("normGrad8", []string{"dx", "dy", "x", "w"}, []string{"r", "k"}, func(p []r, c []v, at int) {
		with(4, func(t []v) {
			for i := range t {
				a.load(16, p[i], at, t[i])
			}
			a.do(fmul(t[3], t[3], c[0]), fmul(t[3], t[3], t[1]), fmul(t[2], t[2], c[1]), fsub(t[3], t[3], t[2]), fadd(t[0], t[0], t[3]))
			a.store(16, t[0], p[0], at)
		})
	})
	a.lanewise("normGradW8", []string{"dw", "dy", "x"}, []string{"r"}, func(p []r, c []v, at int) {
		with(3, func(t []v) {
			for i := range t {
				a.load(16, p[i], at, t[i])
			}
			a.do(fmul(t[1], t[1], t[2]), fmul(t[1], t[1], c[0]), fadd(t[0], t[0], t[1]))
			a.store(16, t[0], p[0], at)
		})
	})
	a.lanewise("softmaxGrad8", []string{"d", "w"}, []string{"mean", "scale"}, func(p []r, c []v, at int) {
		with(2, func(t []v) {
			a.load(16, p[0], at, t[0])
			a.load(16, p[1], at, t[1])
			a.do(fsub(t[0], t[0], c[0]), fmul(t[0], t[0], t[1]), fmul(t[0], t[0], c[1]))
			a.store(16, t[0], p[0], at)
		})
	})
	a.swigluGrad()
	a.adam()
	a.rotate()
	a.gatherRows()
}

func (a *arm64) gatherRows() {
	a.begin("gatherRows", []string{"dst *float32", "src *float32", "srcRow int", "n int", "k int"}, "")
	p := a.paramList("dst", "src", "srcRow", "n", "k")
	dst, src, from, left := p[0], p[1], a.takeR(), a.takeR()
	t := a.take(4)
	a.label("row")
	a.op("MOVD %v, %v", src, from)
	a.op("MOVD %v, %v", p[3], left)
	a.loop("loop", left, func() {
		for i := range t {
			a.load(16, from, 16*i, t[i])
		}
		for i := range t {
			a.store(16, t[i], dst, 16*i)
		}
		a.op("ADD $64, %v", from)
		a.op("ADD $64, %v", dst)
	})
	a.op("ADD %v, %v", p[2], src)
	a.op("SUB $1, %v", p[4])
	a.op("CBNZ %v, row", p[4])
	a.op("RET")
}

func (a *arm64) swigluGrad() {
	a.begin("swigluGrad8", []string{"dgate *float32", "dup *float32", "dout *float32", "gate *float32", "up *float32", "n int"}, "")
	p := a.paramList("dgate", "dup", "dout", "gate", "up", "n")
	e, t := a.exponential(), a.take(5)
	d, g, s, u, one := t[0], t[1], t[2], t[3], e.one
	a.loop("loop", p[5], func() {
		for at := 0; at < 32; at += 16 {
			a.load(16, p[2], at, d)
			a.load(16, p[3], at, g)
			a.do(fneg(u, g))
			a.exp(e, s, u)
			a.load(16, p[4], at, u)
			a.do(fadd(s, one, s), fdiv(s, one, s), fmul(t[4], d, g), fmul(t[4], t[4], s))
			a.do(fmul(d, d, u), fmul(d, d, s), fsub(u, one, s), fmul(u, g, u), fadd(u, one, u), fmul(d, d, u))
			a.store(16, t[4], p[1], at)
			a.store(16, d, p[0], at)
		}
		for _, x := range p[:5] {
			a.op("ADD $32, %v", x)
		}
	})
	a.op("RET")
}

func (a *arm64) adam() {
	scalars := []string{"clip", "b1", "c1", "b2", "c2", "unbias", "eps", "rate", "keep"}
	a.lanewise("adam8", []string{"w", "grad", "m", "v"}, scalars, func(p []r, c []v, at int) {
		clip, b1, c1, b2, c2, unbias, eps, rate, keep := c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8]
		t := a.take(5)
		for i := range p[:4] {
			a.load(16, p[i], at, t[i])
		}
		w, g, m, v, u := t[0], t[1], t[2], t[3], t[4]
		a.do(fmul(g, g, clip), fmul(m, b1, m), fmul(u, c1, g), fadd(m, m, u))
		a.do(fmul(v, b2, v), fmul(u, c2, g), fmul(u, u, g), fadd(v, v, u))
		a.store(16, m, p[2], at)
		a.store(16, v, p[3], at)
		a.do(fmul(v, v, unbias), fsqrt(v, v), fadd(v, v, eps), fmul(m, rate, m), fdiv(m, m, v), fmul(w, keep, w), fsub(w, w, m))
		a.store(16, w, p[0], at)
		a.give(t)
	})
}

func (a *arm64) rotate() {
	a.begin("rotate8", []string{"x *float32", "cs *float32", "n int", "heads int", "sign float32"}, "")
	p := a.paramList("x", "cs", "n", "heads")
	x, cs, n, heads, from, left := p[0], p[1], p[2], p[3], a.takeR(), a.takeR()
	turn, t := a.take(1)[0], a.take(4)
	a.broadcast("sign", t[0])
	a.do(fneg(t[1], t[0]), trn1(turn, t[1], t[0])) // -sign at the first of a pair, sign at the second
	a.label("head")
	a.op("MOVD %v, %v", cs, from)
	a.op("MOVD %v, %v", n, left)
	a.loop("loop", left, func() {
		for at := 0; at < 32; at += 16 {
			a.load(16, x, at, t[0])
			a.load(16, from, at, t[1])
			a.do(trn1(t[2], t[1], t[1]), trn2(t[3], t[1], t[1]), fmul(t[3], t[3], turn), rev64(t[1], t[0]))
			a.do(fmul(t[0], t[0], t[2]), fmul(t[1], t[1], t[3]), fadd(t[0], t[0], t[1]))
			a.store(16, t[0], x, at)
		}
		a.op("ADD $32, %v", x)
		a.op("ADD $32, %v", from)
	})
	a.op("SUB $1, %v", heads)
	a.op("CBNZ %v, head", heads)
	a.op("RET")
}
