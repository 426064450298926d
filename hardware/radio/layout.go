package radio

import (
	"fmt"
	"math"
)

// Point is a place or a displacement in m.
type Point struct{ X, Y float64 }

// Layout is where sites stand. With periods, the plane is a torus: beyond its
// edge the layout begins again, so that no site stands at an edge (wrap-around).
type Layout struct {
	Sites   []Point
	Periods [2]Point // both zero: no wrap-around
}

// hexAt is point (i, j) of the triangular lattice with a distance of 1.
func hexAt(i, j int) Point {
	return Point{float64(i) + 0.5*float64(j), float64(float64(j) * (math.Sqrt(3) / 2))}
}

func (p Point) times(k float64) Point { return Point{float64(p.X * k), float64(p.Y * k)} }

func (p Point) less(q Point) Point { return Point{p.X - q.X, p.Y - q.Y} }

func (p Point) square() float64 { return float64(p.X*p.X) + float64(p.Y*p.Y) }

// HexCluster is a site and rings of sites around it, a distance apart in m, with
// the wrap-around of cellular calibration: 1, 7, 19, 37 ... sites for 0, 1, 2, 3
// rings. The periods are those of a cluster of i² + ij + j² sites with i = rings
// + 1 and j = rings.
func HexCluster(rings int, distance float64) Layout {
	var l Layout
	for j := -rings; j <= rings; j++ {
		for i := -rings; i <= rings; i++ {
			if abs(i+j) <= rings {
				l.Sites = append(l.Sites, hexAt(i, j).times(distance))
			}
		}
	}
	l.Periods = [2]Point{hexAt(rings+1, rings).times(distance), hexAt(-rings, 2*rings+1).times(distance)}
	return l
}

// HexGrid is a torus of columns × rows sites, every second row moved by half a
// distance; the number of rows must be even.
func HexGrid(columns, rows int, distance float64) (Layout, error) {
	if columns < 1 || rows < 2 || rows%2 != 0 || !(distance > 0) {
		return Layout{}, fmt.Errorf("radio: a hexagonal grid of %d x %d sites %g m apart: want at least 1 column, an even number of rows, and a positive distance", columns, rows, distance)
	}
	var l Layout
	for r := range rows {
		for c := range columns {
			l.Sites = append(l.Sites, Point{float64((float64(c) + 0.5*float64(r%2)) * distance), float64(float64(r) * (math.Sqrt(3) / 2) * distance)})
		}
	}
	l.Periods = [2]Point{{float64(columns) * distance, 0}, {0, float64(float64(rows) * (math.Sqrt(3) / 2) * distance)}}
	return l, nil
}

// Wraps reports whether the layout has periods.
func (l *Layout) Wraps() bool { return l.Periods[0] != Point{} }

// lattice gives a place in units of the periods.
func (l *Layout) lattice(p Point) (u, v float64) {
	a, b := l.Periods[0], l.Periods[1]
	det := float64(a.X*b.Y) - float64(a.Y*b.X)
	return (float64(p.X*b.Y) - float64(p.Y*b.X)) / det, (float64(a.X*p.Y) - float64(a.Y*p.X)) / det
}

// From is the displacement from a site to a place, to the site's nearest image.
func (l *Layout) From(site int, p Point) Point {
	d := p.less(l.Sites[site])
	if !l.Wraps() {
		return d
	}
	a, b := l.Periods[0], l.Periods[1]
	u, v := l.lattice(d)
	u, v = math.Round(u), math.Round(v)
	d = Point{d.X - float64(u*a.X) - float64(v*b.X), d.Y - float64(u*a.Y) - float64(v*b.Y)}
	if a.Y == 0 && b.X == 0 {
		return d // a rectangle: rounding is enough
	}
	best := d
	for i := -1.0; i <= 1; i++ {
		for j := -1.0; j <= 1; j++ {
			e := Point{d.X - float64(i*a.X) - float64(j*b.X), d.Y - float64(i*a.Y) - float64(j*b.Y)}
			if e.square() < best.square() {
				best = e
			}
		}
	}
	return best
}

// Area of a layout with wrap-around in m²; 0 without.
func (l *Layout) Area() float64 {
	a, b := l.Periods[0], l.Periods[1]
	return math.Abs(float64(a.X*b.Y) - float64(a.Y*b.X))
}

// Place turns two numbers in [0, 1) into a place of the torus: uniform ones
// into uniform places. Without wrap-around it is the rectangle around the sites.
func (l *Layout) Place(u, v float64) Point {
	if l.Wraps() {
		a, b := l.Periods[0], l.Periods[1]
		return Point{float64(u*a.X) + float64(v*b.X), float64(u*a.Y) + float64(v*b.Y)}
	}
	lo, hi := l.bounds()
	return Point{lo.X + float64(u*(hi.X-lo.X)), lo.Y + float64(v*(hi.Y-lo.Y))}
}

func (l *Layout) bounds() (lo, hi Point) {
	lo, hi = l.Sites[0], l.Sites[0]
	for _, s := range l.Sites {
		lo = Point{min(lo.X, s.X), min(lo.Y, s.Y)}
		hi = Point{max(hi.X, s.X), max(hi.Y, s.Y)}
	}
	return lo, hi
}

// Tiles cut the plane of a layout into tiles and know, for each, the sites
// nearest to its middle: a look-up instead of a search. Places outside a layout
// without wrap-around belong to the tile at its edge.
type Tiles struct {
	layout *Layout
	nu, nv int
	near   int
	sites  []int32 // nu × nv × near
}

// NewTiles prepares the nearest sites of each tile, about four tiles a site.
func NewTiles(l *Layout, near int) *Tiles {
	near = min(near, len(l.Sites))
	side := max(1, int(math.Ceil(2*math.Sqrt(float64(len(l.Sites))))))
	t := &Tiles{layout: l, nu: side, nv: side, near: near}
	order, far := make([]int32, near), make([]float64, near)
	for i := range side {
		for j := range side {
			middle := l.Place((float64(i)+0.5)/float64(side), (float64(j)+0.5)/float64(side))
			for s := range l.Sites { // the nearest so far, nearest first; of equals the first
				d, k := l.From(s, middle).square(), min(s, near)
				for ; k > 0 && d < far[k-1]; k-- {
					if k < near {
						order[k], far[k] = order[k-1], far[k-1]
					}
				}
				if k < near {
					order[k], far[k] = int32(s), d
				}
			}
			t.sites = append(t.sites, order...)
		}
	}
	return t
}

// Near are the sites nearest to the middle of a place's tile, nearest first. The
// slice is the table's own.
func (t *Tiles) Near(p Point) []int32 {
	var u, v float64
	if l := t.layout; l.Wraps() {
		u, v = l.lattice(p)
		u, v = u-math.Floor(u), v-math.Floor(v)
	} else {
		lo, hi := l.bounds()
		u, v = part(p.X, lo.X, hi.X), part(p.Y, lo.Y, hi.Y)
	}
	i, j := min(t.nu-1, int(u*float64(t.nu))), min(t.nv-1, int(v*float64(t.nv)))
	k := (i*t.nv + j) * t.near
	return t.sites[k : k+t.near]
}

func part(x, lo, hi float64) float64 {
	if hi <= lo {
		return 0
	}
	return max(0, min(1, (x-lo)/(hi-lo)))
}

// Bearing is the direction of a displacement in degrees, anticlockwise from
// east, in (-180, 180].
func Bearing(p Point) float64 { return atan2(p.Y, p.X) }

// Depression is the angle in degrees below the horizon of a user at a distance
// in the plane, seen from a base that stands higher by rise.
func Depression(plane, rise float64) float64 { return atan2(rise, plane) }

// Boresights are the directions in degrees of the sectors of a site.
func Boresights(sectors int) []float64 {
	if sectors <= 1 {
		return []float64{0}
	}
	out := make([]float64, sectors)
	for i := range out {
		out[i] = 30 + 360*float64(i)/float64(sectors)
	}
	return out
}

// Home is the image of a place in the torus itself; without wrap-around the
// place.
func (l *Layout) Home(p Point) Point {
	if !l.Wraps() {
		return p
	}
	u, v := l.lattice(p)
	return l.Place(u-math.Floor(u), v-math.Floor(v))
}
