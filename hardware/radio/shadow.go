package radio

import (
	"math"
	"sync"

	"meibench/internal/portable"
	"meibench/internal/rng"
)

// Field is a standard normal variate for every place of a plane and every
// number of a base, correlated over a distance: shadowing after Gudmundson
// (Electronics Letters 27, 1991), ρ(d) = exp(-d/D).
//
// It is a sum of four grids of keyed normals. Between its points a grid is
// interpolated bilinearly and scaled to unit variance; the grids are 0.3, 0.8,
// 1.6 and 3.2 D wide, and their weights were fitted so that the correlation,
// over all places and directions, is within 0.055 of exp(-d/D) (0.01 in the
// root of the mean square). Places can be asked in any order, and nothing is
// remembered.
type Field struct {
	grids   [len(fieldGrids)]grid
	normals *[1 << fieldBits]float64
}

type grid struct {
	key    rng.Key
	step   float64 // 1/m
	weight float64
}

// fieldGrids are widths in D and shares of the variance.
var fieldGrids = [4]struct{ wide, share float64 }{{0.3, 0.2803}, {0.8, 0.2369}, {1.6, 0.3387}, {3.2, 0.1441}}

const fieldBits = 12

// fieldNormals are the middles of 4096 equally likely slices of the normal
// distribution: a draw is a look-up.
var fieldNormals = sync.OnceValue(func() *[1 << fieldBits]float64 {
	var t [1 << fieldBits]float64
	square := 0.0
	for i := range t {
		t[i] = portable.NormalQuantile((float64(i) + 0.5) / (1 << fieldBits))
		square += float64(t[i] * t[i])
	}
	scale := 1 / math.Sqrt(square/(1<<fieldBits))
	for i := range t {
		t[i] *= scale
	}
	return &t
})

// NewField returns the field of a seed and names with a decorrelation distance
// in m, which must be positive.
func NewField(distance float64, seed uint64, names ...any) *Field {
	if !(distance > 0) {
		panic("radio: a field needs a positive distance")
	}
	f := &Field{normals: fieldNormals()}
	for i, g := range fieldGrids {
		named := append([]any{"radio field", i}, names...)
		f.grids[i] = grid{rng.NewKey(seed, named...), 1 / float64(g.wide*distance), math.Sqrt(g.share)}
	}
	return f
}

// At is the variate of base number who at a place in m. Places within a million
// grid cells of the origin are told apart.
func (f *Field) At(who int, x, y float64) float64 {
	sum := 0.0
	for i := range f.grids {
		g := &f.grids[i]
		sum += float64(g.weight * g.at(f.normals, uint64(who), float64(x*g.step), float64(y*g.step)))
	}
	return sum
}

func (g *grid) at(normals *[1 << fieldBits]float64, who uint64, x, y float64) float64 {
	ix, iy := math.Floor(x), math.Floor(y)
	t, u := x-ix, y-iy
	cx, cy := uint64(int64(ix)), uint64(int64(iy))
	draw := func(i, j uint64) float64 {
		const mask = 1<<22 - 1
		l := g.key.At(who<<44 | (cx+i)&mask<<22 | (cy+j)&mask)
		return normals[l.Uint64()>>(64-fieldBits)]
	}
	a, b := float64((1-t)*(1-u)), float64(t*(1-u))
	c, d := float64((1-t)*u), float64(t*u)
	v := float64(a*draw(0, 0)) + float64(b*draw(1, 0)) + float64(c*draw(0, 1)) + float64(d*draw(1, 1))
	return v / math.Sqrt(float64(a*a)+float64(b*b)+float64(c*c)+float64(d*d))
}
