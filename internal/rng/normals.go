package rng

import (
	"sync"

	"meibench/internal/portable"
)

// Normals turns uniform draws into standard normal variates by a table of the
// quantile function, five times as fast as Normal: for noise that is drawn for every
// moment of every user. Between entries it interpolates, off by less than 2e-4 in
// value; in the outer 1/64 on each side it computes the quantile itself.
type Normals struct{ at [cells + 1]float64 }

const (
	cells = 1024 // so that a table of values stays in the nearest cache
	outer = 16   // cells on each side that are not interpolated
)

// NormalTable is the table, made at first use.
var NormalTable = sync.OnceValue(func() *Normals {
	t := &Normals{}
	for i := outer; i <= cells-outer; i++ {
		t.at[i] = portable.NormalQuantile(float64(i) / cells)
	}
	return t
})

// Draw is the next variate of a source: one draw each.
func (t *Normals) Draw(l *Luck) float64 {
	return draw(l, &t.at, nil)
}

// Mapped is a table of f(Z) for a monotone f of a standard normal variate.
type Mapped struct {
	f  func(z float64) float64
	at [cells + 1]float64
}

// Map tabulates f at the quantiles of the normal distribution.
func (t *Normals) Map(f func(z float64) float64) *Mapped {
	m := &Mapped{f: f}
	for i := outer; i <= cells-outer; i++ {
		m.at[i] = f(t.at[i])
	}
	return m
}

// Draw is f of the variate that Normals.Draw would have drawn, interpolated.
func (m *Mapped) Draw(l *Luck) float64 {
	return draw(l, &m.at, m.f)
}

// draw looks a draw up in a table; f is what is tabulated, nil for the normal
// variate itself.
func draw(l *Luck, at *[cells + 1]float64, f func(float64) float64) float64 {
	u := l.Uint64() >> 11 // 53 bits
	i := u >> 43
	if i < outer || i >= cells-outer {
		z := portable.NormalQuantile((float64(u) + 0.5) * 0x1p-53)
		if f != nil {
			z = f(z)
		}
		return z
	}
	a := at[i]
	part := float64(u&(1<<43-1)) * 0x1p-43 // exact
	return a + float64(part*(at[i+1]-a))
}
