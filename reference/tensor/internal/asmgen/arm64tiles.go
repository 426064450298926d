package main

import "fmt"

// neonTiles writes package tensor's kernels for arm64.
func neonTiles() *arm64 {
	a := &arm64{pkg: "tensor"}
	for _, e := range []element{single, half} {
		for _, rows := range []int{1, 2, 4, 6} {
			a.tile(e, rows)
		}
	}
	a.transpose()
	a.vectors()
	return a
}

// tile writes one register tile, rows x 16; see the function tile of tiles.go.
func (a *arm64) tile(e element, rows int) {
	suffix, b := "", "b *float32"
	if e == half {
		suffix, b = "F16", "b *uint16"
	}
	a.begin(fmt.Sprintf("neon%sx%d", suffix, rows), []string{"a *float32", "aRow int", "aK int", b, "bRow int", "k int", "c *float32", "cRow int", "acc bool"}, "")
	p := a.paramList("a", "aRow", "aK", "b", "bRow", "k", "c", "cRow")
	aRow, aK, bp, bRow, k, cRow := p[1], p[2], p[3], p[4], p[5], p[7]
	base, c := a.rows(p[0], aRow, rows), a.rows(p[6], cRow, rows)
	s := a.take(4 * rows)
	acc := a.takeR()
	a.op("MOVBU acc+%d(FP), %v", a.offsets["acc"], acc)
	a.op("CBZ %v, zero", acc)
	for i, x := range s {
		a.load(16, c[i/4], i%4*16, x)
	}
	a.op("B loop")
	a.label("zero")
	for _, x := range s {
		a.do(movi(x, 0))
	}
	x, y := a.take(4), a.take(2)
	a.loop("loop", k, func() {
		a.row(e, bp, 0, x)
		a.op("ADD %v, %v", bRow, bp)
		for i, from := range base {
			a.load(4, from, 0, y[i%2])
			a.op("ADD %v, %v", aK, from)
			for j := range x {
				a.do(fmlaE(s[4*i+j], x[j], y[i%2], 0))
			}
		}
	})
	for i, x := range s {
		a.store(16, x, c[i/4], i%4*16)
	}
	a.op("RET")
}
