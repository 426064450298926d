// Package mobility says where users are, and when a radio hands them over: random
// waypoint, Gauss-Markov, streets of a Manhattan grid, hotspots, standing still,
// and recorded tracks; and the A3 event with its timers as a pure state machine.
//
//	m, err := mobility.Spec{Kind: mobility.Waypoint, Area: mobility.Area{Width: 2000, Height: 2000},
//		Speed: mobility.Range{Min: 1, Max: 15}, Pause: mobility.Range{Max: 60}}.New(seed)
//	track := m.Track(7)             // of user 7
//	x, y := track.At(90 * time.Second)
//
// The one idea: a track is a function of seed, user and time that is worked out
// forwards, leg by leg, when somebody asks. A leg's luck is keyed by user and
// number, so nobody's questions change anybody's way; a user whom nobody asks costs
// nothing. Every model starts in its stationary law, so that there is no slow-down
// of random waypoint in the first hour (Yoon, Liu and Noble 2003; Navidi and Camp
// 2004) and no warm-up to cut off.
//
// Times and places are metres and the run's clock. Floats are rounded step by step,
// so a track has the same bits on every machine. What it does not do: no heights, no
// obstacles, no groups; users do not meet; idle users do not change cells.
package mobility

import (
	"fmt"
	"math"
	"slices"
	"time"

	"meibench/internal/rng"
)

// Track is where one user is. Asking forwards costs a few nanoseconds within a
// leg and one draw for each leg passed; asking back costs the way from the start.
// A track is for one goroutine.
type Track interface {
	// At is the place at a time since the run began, in metres.
	At(t time.Duration) (x, y float64)
}

// Kind names a model.
type Kind string

// The models.
const (
	Static      Kind = "static"       // stands still, anywhere in the area
	Waypoint    Kind = "waypoint"     // random waypoint with pauses (Johnson and Maltz 1996)
	GaussMarkov Kind = "gauss-markov" // velocity with memory (Liang and Haas 1999)
	Manhattan   Kind = "manhattan"    // streets and crossings (UMTS 30.03, annex B)
	Hotspot     Kind = "hotspot"      // jumps between places, EdgeCloudSim's nomadic mode
	Recorded    Kind = "trace"        // tracks from a file
)

// Kinds lists the models in order of their names.
var Kinds = [...]Kind{GaussMarkov, Hotspot, Manhattan, Static, Recorded, Waypoint}

// Area is where users may be. At its edges they turn back, or come in again on the
// other side if it is a torus.
type Area struct {
	X, Y          float64 // its corner, m
	Width, Height float64 // m
	Torus         bool
}

// Range is an interval of values, all alike.
type Range struct{ Min, Max float64 }

// Spot is a place where people stay.
type Spot struct {
	X, Y  float64 // m
	Dwell float64 // s, mean stay; stays are exponential
}

// Spec describes a model. Fields that its kind does not use must be zero.
type Spec struct {
	Kind  Kind
	Area  Area
	Speed Range // m/s; waypoint and manhattan: of a leg, Min above 0
	Pause Range // s; waypoint: at the end of a leg

	Memory    float64 // gauss-markov: alpha, correlation of the velocity over a Step, in [0, 1)
	Step      float64 // s, gauss-markov: how often the velocity changes
	Deviation float64 // m/s, gauss-markov: standard deviation of each component of the velocity
	MeanX     float64 // m/s, gauss-markov: mean velocity
	MeanY     float64

	Block    float64 // m, manhattan: between crossings; sides of the area are multiples of it
	Straight float64 // manhattan: probability of going on at a crossing; the rest is shared by left and right

	Spots []Spot // hotspot: at least two
	Paths []Path // trace: user u has path u modulo their number
}

// Model makes the tracks of all users.
type Model struct {
	s    Spec
	key  rng.Key
	rest float64 // waypoint: share of time in pauses
	gm   [skip + 1]leap
	cum  []float64 // hotspot: share of time in spots up to each
}

// New checks a description and makes its model.
func (s Spec) New(seed uint64) (*Model, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("mobility %s: %w", s.Kind, err)
	}
	m := &Model{s: s, key: rng.NewKey(seed, "mobility", string(s.Kind))}
	switch s.Kind {
	case Waypoint:
		pause := (s.Pause.Min + s.Pause.Max) / 2
		m.rest = pause / (pause + float64(s.Area.MeanLeg()*s.Speed.meanInverse()))
	case GaussMarkov:
		for n := range m.gm {
			m.gm[n] = s.leap(n)
		}
	case Hotspot:
		sum := 0.0
		for _, p := range s.Spots {
			sum += p.Dwell
			m.cum = append(m.cum, sum)
		}
	}
	return m, nil
}

// Track returns the way of a user, from the start of the run.
func (m *Model) Track(user int) Track {
	id := uint64(user) << 32
	switch m.s.Kind {
	case Waypoint:
		return &waypoint{m: m, id: id}
	case GaussMarkov:
		return &gaussMarkov{m: m, id: id}
	case Manhattan:
		return &manhattan{m: m, id: id}
	case Hotspot:
		return &hotspot{m: m, id: id}
	case Recorded:
		return &recorded{path: m.s.Paths[user%len(m.s.Paths)]}
	}
	l := m.key.At(id)
	x, y := m.s.Area.somewhere(&l)
	return static{x, y}
}

type static struct{ x, y float64 }

func (s static) At(time.Duration) (x, y float64) { return s.x, s.y }

// check says what is wrong.
func (s Spec) check() error {
	if !slices.Contains(Kinds[:], s.Kind) {
		return fmt.Errorf("unknown model of movement (have %v)", Kinds)
	}
	a := s.Area
	switch {
	case s.Kind == Recorded || s.Kind == Hotspot:
	case !finite(a.X, a.Y, a.Width, a.Height) || a.Width <= 0 || a.Height <= 0 || a.Width > 1e7 || a.Height > 1e7:
		return fmt.Errorf("area of %g m by %g m at (%g, %g): want sides above 0 and at most 1e7", a.Width, a.Height, a.X, a.Y)
	}
	switch s.Kind {
	case Waypoint:
		return s.checkWaypoint()
	case GaussMarkov:
		return s.checkGaussMarkov()
	case Manhattan:
		return s.checkManhattan()
	case Hotspot:
		return s.checkHotspot()
	case Recorded:
		if len(s.Paths) == 0 {
			return fmt.Errorf("no path: want at least one")
		}
	}
	return nil
}

// checkSpeed refuses legs that never end: with a least speed of 0 the mean speed of
// random waypoint decays to 0 (Yoon, Liu and Noble 2003).
func (s Spec) checkSpeed() error {
	if v := s.Speed; !finite(v.Min, v.Max) || v.Min < leastSpeed || v.Max < v.Min || v.Max > 1000 {
		return fmt.Errorf("speed from %g to %g m/s: want %g <= min <= max <= 1000 (a least speed of 0 would let users slow down for ever)", v.Min, v.Max, leastSpeed)
	}
	return nil
}

// leastSpeed, in m/s, of models with legs.
const leastSpeed = 0.01

func finite(v ...float64) bool {
	for _, x := range v {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return false
		}
	}
	return true
}

// somewhere is a place drawn uniformly.
func (a Area) somewhere(l *rng.Luck) (x, y float64) {
	x = a.X + float64(l.Float64()*a.Width)
	return x, a.Y + float64(l.Float64()*a.Height)
}

// fold brings a place of the unbounded plane into the area: a way that is folded is
// one that turns back at the edges, or comes in again on the other side.
func (a Area) fold(x, y float64) (float64, float64) {
	if a.Torus {
		return a.X + wrap(x-a.X, a.Width), a.Y + wrap(y-a.Y, a.Height)
	}
	return a.X + mirror(x-a.X, a.Width), a.Y + mirror(y-a.Y, a.Height)
}

func wrap(v, side float64) float64 {
	if v >= 0 && v < side {
		return v
	}
	v = math.Mod(v, side)
	if v < 0 {
		v += side
	}
	return v
}

func mirror(v, side float64) float64 {
	if v >= 0 && v <= side {
		return v
	}
	if v = wrap(v, 2*side); v > side {
		return 2*side - v
	}
	return v
}

// draw is uniform in a range.
func (r Range) draw(l *rng.Luck) float64 { return r.Min + float64(l.Float64()*(r.Max-r.Min)) }

// nanos is seconds as time, saturating.
func nanos(s float64) time.Duration {
	if ns := math.Floor(float64(s*1e9) + 0.5); ns < math.MaxInt64/4 {
		return time.Duration(ns)
	}
	return math.MaxInt64 / 4
}

// between is how far the time is from one moment to another, in [0, 1].
func between(t, from, to time.Duration) float64 {
	if to <= from {
		return 1
	}
	return float64(t-from) / float64(to-from)
}
