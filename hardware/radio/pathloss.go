package radio

import (
	"fmt"
	"math"

	"meibench/internal/portable"
)

// Scenario is a propagation environment of TR 38.901.
type Scenario struct {
	Name        string
	BaseHeight  float64    // m, the one its calibration uses
	UserHeight  float64    // m
	MinDistance float64    // m in the plane: the formulas hold from here
	Sigma       [2]float64 // dB, standard deviation of shadowing: NLOS, LOS
	Memory      [2]float64 // m, decorrelation distance of shadowing: NLOS, LOS (Table 7.5-6)
	SightMemory float64    // m, decorrelation distance of line of sight (Table 7.6.3.1-2)

	kind kind
}

type kind uint8

const (
	indoorMixed kind = iota
	indoorOpen
	macro
	micro
)

// The scenarios (TR 38.901 Tables 7.2-1, 7.2-2, 7.4.1-1, 7.5-6).
var (
	InHMixed = Scenario{"inh-mixed", 3, 1, 1, [2]float64{8.03, 3}, [2]float64{6, 10}, 10, indoorMixed}
	InHOpen  = Scenario{"inh-open", 3, 1, 1, [2]float64{8.03, 3}, [2]float64{6, 10}, 10, indoorOpen}
	UMa      = Scenario{"uma", 25, 1.5, 35, [2]float64{6, 4}, [2]float64{50, 37}, 50, macro}
	UMi      = Scenario{"umi", 10, 1.5, 10, [2]float64{7.82, 4}, [2]float64{13, 10}, 50, micro}
)

// Table has the scenarios by name.
var Table = []Scenario{InHMixed, InHOpen, UMa, UMi}

// Lookup finds a scenario by its name.
func Lookup(name string) (Scenario, error) {
	have := ""
	for _, s := range Table {
		if s.Name == name {
			return s, nil
		}
		have += " " + s.Name
	}
	return Scenario{}, fmt.Errorf("radio: unknown scenario %q: have%s", name, have)
}

// Law is the path loss of a scenario at a carrier and two heights, prepared for
// many distances.
type Law struct {
	near, far, nlos line
	base, user      float64 // m
	breakpoint      float64 // m in the plane; +Inf = none
	rise            float64 // m, difference of heights
	kind            kind
	tall            float64 // C'(hUT) of the line of sight in UMa
	min             float64
}

// line is a + b lg d3D.
type line struct{ a, b float64 }

func (l line) at(lgd float64) float64 { return l.a + float64(l.b*lgd) }

// Law prepares the path loss for a carrier in Hz, and the heights of base and
// user in m. The environment height of the breakpoint is 1 m (Table 7.4.1-1,
// note 1; for users above 13 m in UMa the report draws it by chance).
func (s Scenario) Law(carrier, base, user float64) Law {
	f := float64(20 * lg(carrier/1e9))
	l := Law{base: base, user: user, rise: base - user, kind: s.kind, breakpoint: math.Inf(1), min: s.MinDistance}
	switch s.kind {
	case indoorMixed, indoorOpen:
		l.near = line{32.4 + f, 17.3}
		l.far = l.near
		l.nlos = line{17.30 + float64(24.9*lg(carrier/1e9)), 38.3}
		return l
	case macro:
		l.near = line{28.0 + f, 22}
		l.far = line{28.0 + f, 40}
		l.nlos = line{13.54 + f - float64(0.6*(user-1.5)), 39.08}
		if user > 13 {
			l.tall = portable.Pow((min(user, 23)-13)/10, 1.5)
		}
	case micro:
		l.near = line{32.4 + f, 21}
		l.far = line{32.4 + f, 40}
		l.nlos = line{22.4 + float64(21.3*lg(carrier/1e9)) - float64(0.3*(user-1.5)), 35.3}
	}
	l.breakpoint = 4 * (base - 1) * (user - 1) * carrier / lightSpeed
	bend := 9.0
	if s.kind == micro {
		bend = 9.5
	}
	l.far.a -= float64(bend * lg(float64(l.breakpoint*l.breakpoint)+float64(l.rise*l.rise)))
	return l
}

// Breakpoint is the distance in the plane, in m, beyond which the loss in sight
// grows with the fourth power; +Inf indoors.
func (l Law) Breakpoint() float64 { return l.breakpoint }

// lgDistance is the decimal logarithm of the distance in space.
func (l Law) lgDistance(plane float64) float64 {
	plane = max(plane, l.min)
	return float64(0.5 * lg(float64(plane*plane)+float64(l.rise*l.rise)))
}

// Loss is the path loss in dB at a distance in the plane in m, without shadowing
// (TR 38.901 Table 7.4.1-1). Distances below the scenario's least count as it.
func (l Law) Loss(sight bool, plane float64) float64 {
	d := l.lgDistance(plane)
	los := l.near
	if plane > l.breakpoint {
		los = l.far
	}
	if sight {
		return los.at(d)
	}
	return max(los.at(d), l.nlos.at(d))
}

// Sight is the probability of line of sight at a distance in the plane in m
// (TR 38.901 Table 7.4.2-1).
func (l Law) Sight(plane float64) float64 {
	d := plane
	switch l.kind {
	case indoorOpen:
		switch {
		case d <= 5:
			return 1
		case d <= 49:
			return portable.Exp(-(d - 5) / 70.8)
		}
		return float64(0.54 * portable.Exp(-(d-49)/211.7))
	case indoorMixed:
		switch {
		case d <= 1.2:
			return 1
		case d < 6.5:
			return portable.Exp(-(d - 1.2) / 4.7)
		}
		return float64(0.32 * portable.Exp(-(d-6.5)/32.6))
	}
	if d <= 18 {
		return 1
	}
	scale := 36.0
	if l.kind == macro {
		scale = 63
	}
	near := 18 / d
	p := near + float64(portable.Exp(-d/scale)*(1-near))
	if l.tall > 0 {
		p = float64(p * (1 + float64(l.tall*1.25*(d/100)*(d/100)*(d/100)*portable.Exp(-d/150))))
	}
	return min(1, p)
}

// Penetration is the loss in dB of a signal on its way into a building and
// inside m of it, and its standard deviation (TR 38.901 §7.4.3.1, Tables 7.4.3-1
// and 7.4.3-2): through standard glass and concrete, or through coated glass.
func Penetration(carrier, inside float64, coated bool) (loss, sigma float64) {
	f := carrier / 1e9
	concrete := 5 + 4*f
	if coated {
		glass := 23 + 0.3*f
		return 5 - DB(float64(0.7*Ratio(-glass))+float64(0.3*Ratio(-concrete))) + 0.5*inside, 6.5
	}
	glass := 2 + 0.2*f
	return 5 - DB(float64(0.3*Ratio(-glass))+float64(0.7*Ratio(-concrete))) + 0.5*inside, 4.4
}

// Compat is the channel that papers about model caching at the edge use in place
// of a propagation model: P γ d^-α over thermal noise (TrimCaching, arXiv
// 2405.03990; its figures are the reader's to check: see docs/radio.md). It has
// no shadowing and no interference and promises several times the rates that are
// measured.
type Compat struct {
	Power     float64 // dBm
	Antenna   float64 // γ, a factor
	Exponent  float64 // α
	Bandwidth float64 // Hz of the base
	Active    float64 // probability that a user asks: the band is split by what is expected
	Range     float64 // m; no service beyond
}

// TrimCaching has the assumed defaults of Compat.
var TrimCaching = Compat{Power: 43, Antenna: 1, Exponent: 4, Bandwidth: 400e6, Active: 0.5, Range: 275}

// BitsPerSec is the expected rate of one of n users at a distance in m: band and
// power are split over the n·Active that are expected to ask, at least one.
func (c Compat) BitsPerSec(distance float64, n int) float64 {
	if distance > c.Range {
		return 0
	}
	users := max(1, float64(n)*c.Active)
	snr := Ratio(c.Power-ThermalDBmPerHz) * c.Antenna * portable.Pow(max(1, distance), -c.Exponent) / c.Bandwidth
	return c.Bandwidth / users * portable.Log1p(snr) / math.Ln2
}
