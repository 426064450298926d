package tasks

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// arms of the junction, clockwise from the north. turns are numbered so that
// arm + turn + 1, modulo 4, is the arm a vehicle leaves by (right-hand traffic).
var (
	arms     = []string{"north", "east", "south", "west"}
	turns    = []string{"left", "straight", "right"}
	vehicles = []string{"car", "bus", "truck", "bike", "van", "taxi"}
	skies    = []string{"dry", "rain", "fog", "snow"}
)

const siren = "ambulance" // under way with its siren on

type vehicle struct {
	kind      string
	arm, turn int
}

func (v vehicle) exit() int      { return (v.arm + v.turn + 1) % 4 }
func (v vehicle) String() string { return v.kind + " " + arms[v.arm] + " " + turns[v.turn] }

// junction is one situation seen by the driver "me".
type junction struct {
	me      vehicle
	others  []vehicle
	main    []int  // the two arms of the priority road, or none
	light   string // "off", "green" or "red", as I see it
	walkers int    // the arm people are crossing, or -1
}

func generateDriving(seed uint64, id int) Instance {
	return generate("driving", seed, id, func(r *rand.Rand, d Difficulty) draft {
		j := drawJunction(r, d)
		// Most situations need no waiting; two in three of those are drawn again, so that "go" alone scores little.
		for j.decide() == "go" && r.IntN(3) > 0 {
			j = drawJunction(r, d)
		}
		return draft{j.String() + " , " + pick(r, skies), j.decide(), j.content()}
	})
}

// drawJunction: easy situations come from the south, meet one or two vehicles,
// and have no lights, sirens or people; the priority road is straight.
func drawJunction(r *rand.Rand, d Difficulty) junction {
	j := junction{me: vehicle{"me", 2, r.IntN(3)}, light: "off", walkers: -1}
	n := 1 + r.IntN(2)
	if d == Hard {
		j.me.arm, n = r.IntN(4), 2+r.IntN(2)
		j.light = pick(r, []string{"off", "off", "off", "green", "green", "red"})
		if r.IntN(3) == 0 {
			j.walkers = r.IntN(4)
		}
	}
	for _, i := range r.Perm(3)[:n] {
		j.others = append(j.others, vehicle{pick(r, vehicles), (j.me.arm + i + 1) % 4, r.IntN(3)})
	}
	if d == Hard && r.IntN(4) == 0 {
		j.others[r.IntN(n)].kind = siren
	}
	switch a := r.IntN(4); {
	case r.IntN(3) == 0 || j.light != "off": // lights overrule signs: none drawn
	case d == Easy:
		j.main = []int{a % 2, a%2 + 2}
	default:
		b := (a + 1 + r.IntN(3)) % 4
		j.main = []int{min(a, b), max(a, b)}
	}
	return j
}

func (j junction) String() string {
	parts := []string{j.me.String()}
	for _, o := range j.others {
		parts = append(parts, o.String())
	}
	road, people := "none", "none"
	if len(j.main) == 2 {
		road = arms[j.main[0]] + " " + arms[j.main[1]]
	}
	if j.walkers >= 0 {
		people = arms[j.walkers]
	}
	return strings.Join(append(parts, "main "+road, "light "+j.light, "walkers "+people), " , ")
}

// content leaves out what does not matter: kinds other than a siren, the
// weather, and the order in which the vehicles are listed.
func (j junction) content() string {
	at := make([]string, 4)
	for _, o := range j.others {
		at[o.arm] = fmt.Sprint(o.turn, o.kind == siren)
	}
	return fmt.Sprint(j.me.arm, j.me.turn, at, j.main, j.light, j.walkers)
}

// conflict reports whether two paths meet. Around the junction, clockwise, each
// arm has its way in (2·arm) and its way out (2·arm+1), because traffic keeps
// right; two paths meet when they leave by the same arm or their chords cross.
func conflict(a, b vehicle) bool {
	if a.exit() == b.exit() {
		return true
	}
	in, out := 2*a.arm, 2*a.exit()+1
	between := func(p int) bool { return (p > min(in, out)) && (p < max(in, out)) }
	return between(2*b.arm) != between(2*b.exit()+1)
}

// yields decides whether I give way to o. Rules after the Vienna Convention on
// Road Traffic (1968), articles 6, 16, 18 and 34, in order: sirens first; with a
// green light cross traffic is held; the priority road goes before the others;
// whoever turns left lets oncoming traffic pass; else priority to the right.
func (j junction) yields(o vehicle) bool {
	opposite := (o.arm+2)%4 == j.me.arm
	mine, theirs := j.ranks(j.me.arm), j.ranks(o.arm)
	switch {
	case !conflict(j.me, o):
		return false
	case o.kind == siren:
		return true
	case j.light == "green" && !opposite:
		return false
	case mine != theirs:
		return theirs
	case opposite:
		return turns[j.me.turn] == "left"
	default:
		return o.arm == (j.me.arm+3)%4
	}
}

func (j junction) ranks(arm int) bool {
	return len(j.main) == 2 && (arm == j.main[0] || arm == j.main[1])
}

// decide answers "go", "stop" (red light), or "wait" with the arms whose
// vehicles go first, clockwise from the north, then "walkers" if people cross
// the arm I come from or leave by.
func (j junction) decide() string {
	if j.light == "red" {
		return "stop"
	}
	said := []string{"wait"}
	for arm := range arms {
		for _, o := range j.others {
			if o.arm == arm && j.yields(o) {
				said = append(said, arms[arm])
			}
		}
	}
	if j.walkers >= 0 && (j.walkers == j.me.arm || j.walkers == j.me.exit()) {
		said = append(said, "walkers")
	}
	if len(said) == 1 {
		return "go"
	}
	return strings.Join(said, " ")
}
