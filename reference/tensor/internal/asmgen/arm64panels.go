package main

import "fmt"

var productParams = []string{"w *byte", "stride int", "a *byte", "n int", "out *float32", "ldo int"}

// neonPanels writes package panel's kernels for arm64.
func neonPanels() *arm64 {
	a := &arm64{pkg: "panel"}
	for _, f := range formats {
		for _, s := range []struct{ tokens, panels int }{{1, 2}, {2, 1}, {4, 1}} {
			a.integer(f, s.tokens, s.panels)
		}
	}
	for _, e := range []element{half, bfloat, single} {
		for _, s := range []struct{ tokens, panels int }{{1, 2}, {2, 1}, {4, 1}, {6, 1}} {
			a.floating(e, s.tokens, s.panels)
		}
	}
	a.quantize()
	return a
}

// pointers loads the parameters of a product: the places of panels, and the rest.
func (a *arm64) pointers(P int) (w []r, act, n, out, ldo r) {
	w = []r{a.param("w")}
	stride := a.param("stride")
	for p := 1; p < P; p++ {
		w = append(w, a.takeR())
		a.op("ADD %v, %v, %v", stride, w[p-1], w[p])
	}
	return w, a.param("a"), a.param("n"), a.param("out"), a.param("ldo")
}

// rows lists where the output of each token starts.
func (a *arm64) rows(out, ldo r, T int) []r {
	list := []r{out}
	for t := 1; t < T; t++ {
		list = append(list, a.takeR())
		a.op("ADD %v, %v, %v", ldo, list[t-1], list[t])
	}
	return list
}

// product holds the registers of one integer product while it is written. Sums of a token and panel are four vectors.
type product struct {
	*arm64
	format
	T, P   int
	w      []r   // per panel: the block
	head   []r   // per panel: the superblock
	act    r     // activations
	out    []r   // per token
	f      [][]v // per token: 4P sums in float32; nil if they stay in memory, because registers are too few
	acc    [][]v // per token: 4P sums in int32
	low    []v   // 0x0f
	mask   []v   // of high bits, or 0x80
	strip  int   // vectors of weights in flight
	groups []v   // activations: group s of token t is lane (s·T+t)%4 of register (s·T+t)/4
}

// integer writes the kernel of the contract stated at the function integer of panels.go. The dot product wants signed
// weights: 8-bit quants flip their top bit and need no offset; smaller ones are positive as they are.
func (a *arm64) integer(f format, T, P int) {
	a.begin(fmt.Sprintf("neon%sx%dx%d", f.name, T, P), productParams, "")
	k := &product{arm64: a, format: f, T: T, P: P, strip: 4}
	w, act, n, out, ldo := a.pointers(P)
	k.w, k.act, k.out = w, act, a.rows(out, ldo, T)
	for range T {
		k.acc = append(k.acc, a.take(4*P))
	}
	if T*P <= 2 {
		for range T {
			k.f = append(k.f, a.take(4*P))
		}
	} else {
		k.strip = 2
	}
	k.zero()
	k.constants()
	if f.head == 0 {
		a.loop("block", n, k.block)
	} else {
		k.superblocks(n)
	}
	for t, row := range k.f {
		for i, x := range row {
			a.store(16, x, k.out[t], 16*i)
		}
	}
	a.op("RET")
}

// zero clears the float sums.
func (k *product) zero() {
	if k.f == nil {
		for i := range 4 * k.P {
			for _, out := range k.out {
				if i == 0 && out == k.out[0] {
					k.do(movi(k.acc[0][0], 0))
				}
				k.store(16, k.acc[0][0], out, 16*i)
			}
		}
	}
	for _, row := range k.f {
		for _, x := range row {
			k.do(movi(x, 0))
		}
	}
}

func (k *product) constants() {
	switch k.bits {
	case 8:
		k.mask = k.take(1)
		k.do(movi(k.mask[0], 0x80))
		return
	case 5, 6:
		k.mask = k.take(1)
		k.do(movi(k.mask[0], byte(1<<(k.bits-4)-1)<<4))
	}
	k.low = k.take(1)
	k.do(movi(k.low[0], 0x0f))
}

func (k *product) superblocks(n r) {
	blocks := k.takeR()
	for range k.P {
		k.head = append(k.head, k.takeR())
	}
	k.loop("super", n, func() {
		for p, w := range k.w {
			k.op("MOVD %v, %v", w, k.head[p])
			k.op("ADD $%d, %v", k.format.head, w)
		}
		k.op("MOVD $8, %v", blocks)
		k.loop("block", blocks, k.block)
	})
}

// block writes 32 columns.
func (k *product) block() {
	for h := range k.halves {
		k.startSums(h)
		from, to := 0, 8
		if k.halves == 2 {
			from, to = 4*h, 4*h+4
		}
		k.groups = k.take(2 * k.T)
		for i := from * k.T / 4; i < to*k.T/4; i++ {
			k.load(16, k.act, 16*i, k.groups[i])
		}
		for v0 := 0; v0 < 4*k.P; v0 += k.strip {
			k.columns(v0, from, to)
		}
		k.give(k.groups)
		k.scaleAndAdd(h)
	}
	for _, w := range k.w {
		k.op("ADD $%d, %v", k.format.block(), w)
	}
	k.op("ADD $%d, %v", tokenBytes*k.T, k.act)
}

// startSums sets the sums to -offset·Σa where quants are stored with an offset, else to zero.
func (k *product) startSums(h int) {
	if k.shift == 0 || k.bits == 8 {
		for _, row := range k.acc {
			for _, x := range row {
				k.do(movi(x, 0))
			}
		}
		return
	}
	which := negSum
	if k.halves == 2 {
		which = negSumLow + h
	}
	t := k.take(1)
	k.load(4*k.T, k.act, field(k.T, which), t[0])
	k.do(shl32(t[0], t[0], k.shift))
	for i, row := range k.acc {
		for _, x := range row {
			k.do(dup(x, t[0], i))
		}
	}
	k.give(t)
}

// columns multiplies groups [from, to) of a strip of vectors.
func (k *product) columns(v0, from, to int) {
	x, y, t := k.take(k.strip), k.take(k.strip), k.take(1)
	each := func(s int, q []v, prepare func(i int)) {
		for i := range q {
			prepare(i)
		}
		for token := range k.T {
			for i := range q {
				at := s*k.T + token
				k.do(sdotE(k.acc[token][v0+i], q[i], k.groups[at/4], at%4))
			}
		}
	}
	read := func(s int, to []v) {
		for i := range to {
			k.load(16, k.w[(v0+i)/4], k.quantsAt()+64*s+(v0+i)%4*16, to[i])
		}
	}
	if k.bits == 8 {
		for s := from; s < to; s++ {
			read(s, x)
			each(s, x, func(i int) { k.do(eor(x[i], x[i], k.mask[0])) })
			x, y = y, x // the next loads need not wait
		}
	} else {
		for s := range 4 { // byte j of row s holds group s in its low and group s+4 in its high half
			read(s, y)
			if from <= s {
				each(s, x, func(i int) {
					k.do(and(x[i], y[i], k.low[0]))
					k.high(v0+i, s, x[i], t[0])
				})
			}
			if s+4 < to {
				each(s+4, y, func(i int) {
					k.do(ushr8(y[i], y[i], 4))
					k.high(v0+i, s+4, y[i], t[0])
				})
			}
		}
	}
	k.give(x, y, t)
}

// high ors the high bits of group s into x; see panels.go for where they lie.
func (k *product) high(vector, s int, x, t v) {
	if k.bits == 4 {
		return
	}
	plane, from := 0, s
	if k.bits == 6 {
		plane, from = s/4, 2*(s%4)
	}
	k.load(16, k.w[vector/4], k.highAt()+64*plane+vector%4*16, t)
	if from < 4 {
		k.do(shl8(t, t, 4-from))
	} else if from > 4 {
		k.do(ushr8(t, t, from-4))
	}
	k.do(and(t, t, k.mask[0]), orr(x, x, t))
}

// scaleAndAdd ends a half: f += scale·(acc·scaleOfA), f -= min·(scaleOfA·Σa).
func (k *product) scaleAndAdd(h int) {
	which := realSum
	if k.halves == 2 {
		which = realSumLow + h
	}
	scaleOfA, sumOfA, scales, mins := k.take(1), k.take(1), k.take(4), []v(nil)
	k.load(4*k.T, k.act, field(k.T, scaleField), scaleOfA[0])
	if k.min {
		mins = k.take(4)
		k.load(4*k.T, k.act, field(k.T, which), sumOfA[0])
	}
	f := k.take(4)
	for p := range k.P {
		k.loadScales(p, h*k.scaleBytes(), 0, scales, f)
		if k.min {
			k.loadScales(p, k.minsAt()+h*k.scaleBytes(), 32, mins, f)
		}
		for t := range k.T {
			acc, sum := k.acc[t][4*p:4*p+4], f
			if k.f != nil {
				sum = k.f[t][4*p : 4*p+4]
			}
			for i := range 4 {
				if k.f == nil {
					k.load(16, k.out[t], 64*p+16*i, sum[i])
				}
				k.do(scvtf(acc[i], acc[i]), fmulE(acc[i], acc[i], scaleOfA[0], t))
			}
			for i := range 4 {
				k.do(fmla(sum[i], scales[i], acc[i]))
			}
			for i := range mins {
				k.do(fmlsE(sum[i], mins[i], sumOfA[0], t))
			}
			if k.f == nil {
				for i, x := range sum {
					k.store(16, x, k.out[t], 64*p+16*i)
				}
			}
		}
	}
	k.give(scaleOfA, sumOfA, scales, mins, f)
}

// loadScales loads the 16 scales (or mins) at disp of panel p's block; those of superblocks are multiplied by the float16
// at byte super of the head. t is scratch.
func (k *product) loadScales(p, disp, super int, to, t []v) {
	switch k.scale {
	case halfScale:
		k.row(half, k.w[p], disp, to)
		return
	case floatScale:
		k.row(single, k.w[p], disp, to)
		return
	}
	k.load(16, k.w[p], disp, to[3])
	if k.scale == int8Scale {
		k.do(sxtl8(to[0], to[3]), sxtl28(to[2], to[3]))
	} else {
		k.do(uxtl8(to[0], to[3]), uxtl28(to[2], to[3]))
	}
	k.do(sxtl24(to[1], to[0]), sxtl4(to[0], to[0]), sxtl24(to[3], to[2]), sxtl4(to[2], to[2]))
	k.row(half, k.head[p], super, t)
	for i := range to {
		k.do(scvtf(to[i], to[i]), fmul(to[i], to[i], t[i]))
	}
}

// floating writes out[t, 0:16P] = panels·a[t]: one chain of fused multiply-adds an element, in the order of columns.
func (a *arm64) floating(e element, T, P int) {
	a.begin(fmt.Sprintf("neon%sx%dx%d", e.name, T, P), productParams, "")
	w, act, n, out, ldo := a.pointers(P)
	rows := a.rows(out, ldo, T)
	var f [][]v
	for t := range T {
		f = append(f, a.take(4*P))
		for _, x := range f[t] {
			a.do(movi(x, 0))
		}
	}
	unroll := 4
	if T > 4 {
		unroll = 2 // registers
	}
	x, y := a.take(4), a.take(max(1, unroll*T/4))
	size := 16 * e.bytes // of a column of a panel
	columns := func(count int) {
		left := 4 * T * count
		for i := 0; left > 0; i++ { // 16 bytes at a time, then what is left
			bytes := map[bool]int{true: 16, false: left}[left >= 16]
			a.load(bytes, act, 16*i, y[i])
			left -= bytes
		}
		for u := range count {
			for p := range P {
				a.row(e, w[p], size*u, x)
				for t := range T {
					for i := range 4 {
						a.do(fmlaE(f[t][4*p+i], x[i], y[(u*T+t)/4], (u*T+t)%4))
					}
				}
			}
		}
		for p := range P {
			a.op("ADD $%d, %v", size*count, w[p])
		}
		a.op("ADD $%d, %v", 4*T*count, act)
	}
	a.op("SUBS $%d, %v", unroll, n)
	a.op("BLT rest")
	a.label("loop")
	columns(unroll)
	a.op("SUBS $%d, %v", unroll, n)
	a.op("BGE loop")
	a.label("rest")
	a.op("ADDS $%d, %v", unroll, n)
	a.op("BEQ done")
	a.loop("single", n, func() { columns(1) })
	a.label("done")
	for t, row := range f {
		for i, s := range row {
			a.store(16, s, rows[t], 16*i)
		}
	}
	a.op("RET")
}
