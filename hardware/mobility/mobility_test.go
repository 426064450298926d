package mobility

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func sec(s float64) time.Duration { return time.Duration(s * 1e9) }

var square = Area{Width: 1000, Height: 1000}

func specs() map[string]Spec {
	torus := square
	torus.Torus = true
	return map[string]Spec{
		"static":         {Kind: Static, Area: square},
		"waypoint":       {Kind: Waypoint, Area: square, Speed: Range{1, 15}, Pause: Range{0, 60}},
		"waypoint torus": {Kind: Waypoint, Area: torus, Speed: Range{1, 15}, Pause: Range{20, 20}},
		"gauss-markov":   {Kind: GaussMarkov, Area: square, Memory: 0.9, Step: 1, Deviation: 3},
		"manhattan":      {Kind: Manhattan, Area: square, Speed: Range{5, 15}, Block: 100, Straight: 0.5},
		"hotspot":        {Kind: Hotspot, Spots: []Spot{{0, 0, 30}, {100, 0, 60}, {0, 100, 120}}},
		"trace":          {Kind: Recorded, Paths: []Path{{{0, 0, 0}, {sec(100), 50, 20}, {sec(300), 0, 0}}}},
	}
}

func model(t testing.TB, s Spec, seed uint64) *Model {
	m, err := s.New(seed)
	require.NoError(t, err)
	return m
}

// TestX3TracksAreFunctions: the same seed, user and time give the same place, whatever was asked before, also back in
// time; another seed another way; nobody leaves the area; nobody is faster than the model allows.
func TestX3TracksAreFunctions(t *testing.T) {
	for name, s := range specs() {
		m := model(t, s, 5)
		once, again := m.Track(3), m.Track(3)
		differ := false
		for i := range 3000 {
			at := sec(float64(i) * 0.7)
			x, y := once.At(at)
			if i%7 == 0 {
				u, v := again.At(at)
				require.Equal(t, [2]float64{x, y}, [2]float64{u, v}, "%s at %v", name, at)
			}
			if s.Area.Width > 0 {
				require.True(t, x >= 0 && x <= 1000 && y >= 0 && y <= 1000, "%s: %g %g", name, x, y)
			}
			u, v := model(t, s, 6).Track(3).At(0)
			differ = differ || u != x || v != y
		}
		require.True(t, differ || name == "trace", name)
		x, y := m.Track(3).At(sec(10))
		u, v := once.At(sec(10))
		require.Equal(t, [2]float64{x, y}, [2]float64{u, v}, "%s, back in time", name)
		if s.Speed.Max > 0 && !s.Area.Torus {
			x, y := once.At(0)
			for i := 1; i < 5000; i++ {
				u, v := once.At(sec(float64(i) * 0.1))
				require.LessOrEqual(t, math.Hypot(u-x, v-y), s.Speed.Max*0.1+1e-6, name)
				x, y = u, v
			}
		}
	}
}

// TestX3MeanLeg: 0.5214 R in a square and 0.3826 R on a torus, and legs that are drawn have that mean.
func TestX3MeanLeg(t *testing.T) {
	require.InDelta(t, 0.521405433, Area{Width: 1, Height: 1}.MeanLeg(), 1e-9)
	require.InDelta(t, 0.382597858, Area{Width: 1, Height: 1, Torus: true}.MeanLeg(), 1e-9)
	for _, a := range []Area{square, {Width: 300, Height: 1000}, {Width: 1000, Height: 1000, Torus: true}, {Width: 1000, Height: 200, Torus: true}} {
		m := model(t, Spec{Kind: Waypoint, Area: a, Speed: Range{2, 2}}, 1)
		sum := 0.0
		const n = 40_000
		w := &waypoint{m: m, id: 1 << 32}
		w.begin()
		for range n {
			w.go1()
			sum += math.Hypot(w.dx, w.dy)
		}
		require.InEpsilon(t, a.MeanLeg(), sum/n, 0.01, "%v", a)
	}
}

// TestX3WaypointIsStationary: from time 0 on, the share at rest, the mean speed of those under way, and the density of the
// places are what they are after a long time. On a square the place of a user under way is at (x-1/2)^2 mean 1/10 for
// the leg-average density; here the moments at time 0 are compared with those after ten thousand legs.
func TestX3WaypointIsStationary(t *testing.T) {
	s := Spec{Kind: Waypoint, Area: square, Speed: Range{1, 20}, Pause: Range{10, 50}}
	m := model(t, s, 2)
	leg := s.Area.MeanLeg() * math.Log(20) / 19
	rest := 30 / (30 + leg)
	require.InEpsilon(t, rest, m.rest, 1e-12)
	require.InEpsilon(t, 19/math.Log(20), s.Speed.MeanSpeed(), 1e-12)
	for _, at := range []time.Duration{0, sec(1000), sec(20_000)} {
		still, moving, dist, spread := 0.0, 0.0, 0.0, 0.0
		const n = 20_000
		for u := range n {
			track := m.Track(u)
			x, y := track.At(at)
			v, w := track.At(at + sec(0.01))
			spread += (x - 500) * (x - 500)
			if d := math.Hypot(v-x, w-y) / 0.01; d == 0 {
				still++
			} else {
				moving++
				dist += d
			}
		}
		require.InDelta(t, rest, still/n, 0.011, "%v", at)
		require.InEpsilon(t, s.Speed.MeanSpeed(), dist/moving, 0.03, "%v", at)
		// E[(x-500)^2]: at rest uniform, 1e6/12; under way, with weight of length over the square: from a long walk.
		require.InEpsilon(t, rest*1e6/12+(1-rest)*walkSpread(m), spread/n, 0.03, "%v", at)
	}
}

// walkSpread is the mean of (x-500)^2 along the legs of one long walk: the integral over each leg in closed form, weighted by
// its time.
func walkSpread(m *Model) float64 {
	w := &waypoint{m: m, id: 7 << 50}
	w.begin()
	sum, all := 0.0, 0.0
	for range 30_000 {
		w.go1()
		a, b := w.x-500, w.x+w.dx-500
		took := (w.to - w.from).Seconds()
		sum += took * (a*a + a*b + b*b) / 3
		all += took
	}
	return sum / all
}

// TestX3TorusIsUniform: on a torus nobody prefers the middle.
func TestX3TorusIsUniform(t *testing.T) {
	for _, name := range []string{"waypoint torus", "gauss-markov", "static"} {
		s := specs()[name]
		s.Area.Torus = true
		m := model(t, s, 9)
		var bins [16]float64
		const n = 32_000
		for u := range n {
			x, y := m.Track(u).At(sec(500))
			bins[min(3, int(x/250))*4+min(3, int(y/250))]++
		}
		chi := 0.0
		for _, b := range bins {
			chi += (b - n/16) * (b - n/16) / (n / 16)
		}
		require.Less(t, chi, 37.7, "%s: 15 degrees of freedom, 0.1 %%", name)
	}
}

// TestX3GaussMarkovLaw: variance and correlation of the velocity, and the variance of the distance, of steps taken one by
// one and of many at once.
func TestX3GaussMarkovLaw(t *testing.T) {
	s := Spec{Kind: GaussMarkov, Area: Area{Width: 1e6, Height: 1e6, Torus: true}, Memory: 0.9, Step: 2, Deviation: 3, MeanX: 4, MeanY: -1}
	m := model(t, s, 3)
	const n = 20_000
	velocity := func(g *gaussMarkov, at time.Duration) (x, v float64) { g.At(at); return g.x, g.vx - 4 }
	for _, tc := range []struct {
		gap    float64 // steps
		byStep bool
	}{{1, true}, {5, true}, {40, true}, {128, false}, {1000, false}} {
		var vv, vw, dd, dv, sum float64
		for u := range n {
			g := &gaussMarkov{m: m, id: uint64(u) << 32}
			_, v := velocity(g, 0)
			x0 := g.x
			moved := 0.0
			if tc.byStep {
				for k := 1; k <= int(tc.gap); k++ {
					g.At(sec(2 * float64(k)))
				}
			} else {
				g.At(sec(2 * tc.gap))
			}
			moved = shorter(g.x-x0, 2e6) - 4*2*tc.gap
			moved = shorter(moved, 2e6)
			w := g.vx - 4
			sum, vv, vw, dd, dv = sum+w, vv+w*w, vw+v*w, dd+moved*moved, dv+moved*w
		}
		require.InDelta(t, 0, sum/n, 0.06, "%v", tc)
		require.InEpsilon(t, 9, vv/n, 0.03, "%v", tc)
		require.InDelta(t, 9*math.Pow(0.9, tc.gap), vw/n, 0.2, "%v", tc)
		// Var of sum of u_0..u_{k-1}: sigma^2 dt^2 [k + 2 sum_{i<k} (k-i) alpha^i].
		want, cross := tc.gap, 0.0
		for i := 1; i < int(tc.gap); i++ {
			want += 2 * (tc.gap - float64(i)) * math.Pow(0.9, float64(i))
		}
		for i := 1; i <= int(tc.gap); i++ {
			cross += math.Pow(0.9, float64(i))
		}
		require.InEpsilon(t, 9*4*want, dd/n, 0.04, "%v", tc)
		require.InDelta(t, 9*2*cross, dv/n, 4*math.Sqrt(9*4*want*9/n), "%v", tc)
	}
}

// TestX3ManhattanStaysOnStreets: always on a street, half of the crossings straight on, a quarter each way, and the mean speed
// of the stationary law.
func TestX3ManhattanStaysOnStreets(t *testing.T) {
	for _, torus := range []bool{false, true} {
		s := specs()["manhattan"]
		s.Area.Torus = torus
		m := model(t, s, 4)
		moved, n := 0.0, 0
		for u := range 300 {
			track := m.Track(u)
			x, y := track.At(0)
			for i := 1; i < 400; i++ {
				v, w := track.At(sec(float64(i) * 0.5))
				off := func(v float64) float64 { return math.Abs(v/100 - math.Round(v/100)) }
				require.Less(t, min(off(v), off(w)), 1e-9, "user %d at (%g, %g)", u, v, w)
				if d := math.Abs(v-x) + math.Abs(w-y); d <= 10 {
					moved, n = moved+d, n+1
				}
				x, y = v, w
			}
		}
		require.InEpsilon(t, s.Speed.MeanSpeed()*0.5, moved/float64(n), 0.03)
	}
	m := model(t, specs()["manhattan"], 4)
	w := &manhattan{m: m, id: 5 << 32}
	w.begin()
	blocks, left := 0.0, 0
	const legs = 20_000
	for range legs {
		was := w.dir
		w.turn()
		blocks += math.Round((math.Abs(w.dx) + math.Abs(w.dy)) / 100)
		if w.dir == (was+1)%4 {
			left++
		} else {
			require.Equal(t, (was+3)%4, w.dir)
		}
	}
	require.InDelta(t, 2, blocks/legs, 0.04, "a mean of 1/(1-0.5) blocks to a turn")
	require.InDelta(t, 0.5, float64(left)/legs, 0.015)
}

// TestX3HotspotShares: shares of time are the stays', at time 0 and later; the next place is any other alike.
func TestX3HotspotShares(t *testing.T) {
	m := model(t, specs()["hotspot"], 8)
	for _, at := range []time.Duration{0, sec(1000)} {
		count := map[[2]float64]float64{}
		const n = 30_000
		for u := range n {
			x, y := m.Track(u).At(at)
			count[[2]float64{x, y}]++
		}
		require.InDelta(t, 30.0/210, count[[2]float64{0, 0}]/n, 0.01)
		require.InDelta(t, 60.0/210, count[[2]float64{100, 0}]/n, 0.012)
		require.InDelta(t, 120.0/210, count[[2]float64{0, 100}]/n, 0.013)
	}
}

func TestTracesByHand(t *testing.T) {
	paths, err := ReadCSV("walk.csv", strings.NewReader("user,t,x,y\na,0,0,0\nb,0,5,5\na,10,100,50\na,20,100,0\n"))
	require.NoError(t, err)
	m := model(t, Spec{Kind: Recorded, Paths: paths}, 1)
	a := m.Track(2)
	for _, tc := range [][3]float64{{0, 0, 0}, {5, 50, 25}, {10, 100, 50}, {15, 100, 25}, {500, 100, 0}, {2.5, 25, 12.5}} {
		x, y := a.At(sec(tc[0]))
		require.Equal(t, [2]float64{tc[1], tc[2]}, [2]float64{x, y}, "%v", tc)
	}
	x, y := m.Track(1).At(sec(3))
	require.Equal(t, [2]float64{5, 5}, [2]float64{x, y})

	track := `<gpx><trk><trkseg><trkpt lat="50" lon="8"><time>2026-01-01T00:00:00Z</time></trkpt>
		<trkpt lat="50.001" lon="8.001"><time>2026-01-01T00:00:10Z</time></trkpt></trkseg></trk></gpx>`
	paths, err = ReadGPX("walk.gpx", strings.NewReader(track))
	require.NoError(t, err)
	require.Len(t, paths, 1)
	require.Equal(t, sec(10), paths[0][1].At)
	degree := 6_371_008.8 * math.Pi / 180
	require.InDelta(t, degree*0.001, paths[0][1].Y, 1e-6)
	require.InDelta(t, degree*0.001*math.Cos(50*math.Pi/180), paths[0][1].X, 1e-6)
}

func TestWhatIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"t,x,y\n5,0,0\n4,0,0\n":            "line 3: time goes back: 4s after 5s",
		"t,x,y\n5,0,0\n5,0,0\n":            "time goes back",
		"t,x,y\n-1,0,0\n":                  "want 0 to 1e9",
		"t,x,y\n1,NaN,0\n":                 "want finite metres",
		"t,x,y\n1,a,0\n":                   `"a" is not a number`,
		"x,y\n1,2\n":                       "want t,x,y or user,t,x,y",
		"t,x,y\n":                          "no points",
		"":                                 "read the header",
		"t,x,y\n1,2\n":                     "wrong number of fields",
		"user,t,x,y\na,1,0,0\na,0.5,0,0\n": "time goes back",
	} {
		_, err := ReadCSV("f.csv", strings.NewReader(text))
		require.ErrorContains(t, err, want, text)
	}
	for text, want := range map[string]string{
		"<gpx/>": "no trkpt",
		`<gpx><trk><trkseg><trkpt lat="1" lon="2"/></trkseg></trk></gpx>`:                                                                                                         "point 1",
		`<gpx><trk><trkseg><trkpt lat="91" lon="2"><time>2026-01-01T00:00:00Z</time></trkpt></trkseg></trk></gpx>`:                                                                "want degrees",
		`<gpx><trk><trkseg><trkpt lat="1" lon="2"><time>2026-01-01T00:00:09Z</time></trkpt><trkpt lat="1" lon="2"><time>2026-01-01T00:00:00Z</time></trkpt></trkseg></trk></gpx>`: "time goes back",
	} {
		_, err := ReadGPX("f.gpx", strings.NewReader(text))
		require.ErrorContains(t, err, want, text)
	}
	for want, change := range map[string]func(s *Spec){
		"want sides above 0":     func(s *Spec) { s.Area.Width = 0 },
		"sides above 0 and":      func(s *Spec) { s.Area.Height = math.Inf(1) },
		"slow down for ever":     func(s *Spec) { s.Speed.Min = 0 },
		"min <= max":             func(s *Spec) { s.Pause = Range{5, 4} },
		"unknown model":          func(s *Spec) { s.Kind = "teleport" },
		"memory 1":               func(s *Spec) { *s = specs()["gauss-markov"]; s.Memory = 1 },
		"step 0 s":               func(s *Spec) { *s = specs()["gauss-markov"]; s.Step = 0 },
		"velocity of mean":       func(s *Spec) { *s = specs()["gauss-markov"]; s.MeanX = math.NaN() },
		"no multiple of the":     func(s *Spec) { *s = specs()["manhattan"]; s.Block = 300 },
		"straight 1":             func(s *Spec) { *s = specs()["manhattan"]; s.Straight = 1 },
		"blocks of 0 m":          func(s *Spec) { *s = specs()["manhattan"]; s.Block = 0 },
		"at least two":           func(s *Spec) { *s = specs()["hotspot"]; s.Spots = s.Spots[:1] },
		"with stays of 0 s":      func(s *Spec) { *s = specs()["hotspot"]; s.Spots[1].Dwell = 0 },
		"no path: want at least": func(s *Spec) { *s = Spec{Kind: Recorded} },
	} {
		s := specs()["waypoint"]
		change(&s)
		_, err := s.New(1)
		require.ErrorContains(t, err, want)
	}
}

// TestTracksAreSmallAndLazy: under 200 bytes a user, and a day of idleness costs no more steps than legs.
func TestTracksAreSmallAndLazy(t *testing.T) {
	for _, n := range []uintptr{unsafe.Sizeof(waypoint{}), unsafe.Sizeof(gaussMarkov{}), unsafe.Sizeof(manhattan{}), unsafe.Sizeof(hotspot{}), unsafe.Sizeof(recorded{})} {
		require.Less(t, n, uintptr(200))
	}
	g := model(t, specs()["gauss-markov"], 1).Track(0).(*gaussMarkov)
	g.At(0)
	forwards := 0
	for ; sec(86_400) >= g.until; forwards++ {
		g.forward(sec(86_400))
	}
	require.LessOrEqual(t, forwards, skip+2)
	require.EqualValues(t, 86_401, g.step)
}

func FuzzReadCSV(f *testing.F) {
	f.Add("t,x,y\n0,1,2\n1,2,3\n")
	f.Add("user,t,x,y\na,0,1,2\n")
	f.Fuzz(func(t *testing.T, text string) {
		paths, err := ReadCSV("fuzz", strings.NewReader(text))
		checkPaths(t, paths, err)
	})
}

func FuzzReadGPX(f *testing.F) {
	f.Add(`<gpx><trk><trkseg><trkpt lat="1" lon="2"><time>2026-01-01T00:00:00Z</time></trkpt></trkseg></trk></gpx>`)
	f.Fuzz(func(t *testing.T, text string) {
		paths, err := ReadGPX("fuzz", strings.NewReader(text))
		checkPaths(t, paths, err)
	})
}

// checkPaths: what was read can be walked, and stays finite.
func checkPaths(t *testing.T, paths []Path, err error) {
	if err != nil {
		return
	}
	m := model(t, Spec{Kind: Recorded, Paths: paths}, 1)
	for u := range paths {
		last := time.Duration(-1)
		for _, p := range paths[u] {
			require.Greater(t, p.At, last)
			last = p.At
		}
		x, y := m.Track(u).At(last/2 + 1)
		require.True(t, finite(x, y))
	}
}

func BenchmarkAt(b *testing.B) {
	for _, name := range []string{"waypoint", "gauss-markov", "manhattan", "hotspot", "trace"} {
		m := model(b, specs()[name], 1)
		b.Run(fmt.Sprint(name), func(b *testing.B) {
			track, at := m.Track(0), time.Duration(0)
			for b.Loop() {
				at += time.Millisecond
				track.At(at)
			}
		})
	}
}
