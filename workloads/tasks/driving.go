package tasks

import (
	"fmt"
	"math/rand/v2"
	"slices"
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

// junction is one situation seen by the driver "me", the first of the vehicles.
type junction struct {
	vehicles []vehicle
	main     []int  // the two arms of the priority road, or none
	light    string // "", "green" or "red", as I see it
	walkers  int    // the arm people are crossing, or -1
}

// drawDriving: may a vehicle go, with one other (1) or two others (2) and a
// straight priority road; with lights, people, sirens and bent priority roads
// (3); the order of three vehicles (4) or four (5) that all want to cross.
func drawDriving(r *rand.Rand, level int) scene {
	j := drawJunction(r, level)
	for level == 3 && j.light == "red" && r.IntN(3) > 0 {
		j = drawJunction(r, level) // red is easy
	}
	text := j.String() + " , " + pick(r, skies)
	return asking(text, j.content(), func(r *rand.Rand) (asked, bool) {
		if level >= 4 {
			return asked{question: "order", answer: j.order()}, true
		}
		// Most vehicles need not wait; of those two in three are passed over, so that "go" alone scores little.
		i := r.IntN(len(j.vehicles))
		for try := 0; try < 2 && j.decide(i) == "go"; try++ {
			i = r.IntN(len(j.vehicles))
		}
		if j.light != "" {
			i = 0 // what the others see is not known
		}
		return asked{question: "may " + j.name(i) + " go", answer: j.decide(i)}, true
	})
}

func drawJunction(r *rand.Rand, level int) junction {
	others := [Levels]int{1, 2, 3, 2, 3}[level-1]
	j := junction{vehicles: []vehicle{{"me", r.IntN(4), r.IntN(3)}}, walkers: -1}
	me := j.vehicles[0].arm
	for _, i := range r.Perm(3)[:others] {
		j.vehicles = append(j.vehicles, vehicle{pick(r, vehicles), (me + i + 1) % 4, r.IntN(3)})
	}
	if level >= 3 && r.IntN(4) == 0 {
		j.vehicles[1+r.IntN(others)].kind = siren
	}
	if level == 3 {
		j.light = pick(r, []string{"", "", "", "green", "green", "red"})
		if r.IntN(3) == 0 {
			j.walkers = r.IntN(4)
		}
	}
	switch a := r.IntN(4); {
	case r.IntN(3) == 0 || j.light != "": // lights overrule signs: none drawn
	case level <= 2:
		j.main = []int{a % 2, a%2 + 2}
	default:
		b := (a + 1 + r.IntN(3)) % 4
		j.main = []int{min(a, b), max(a, b)}
	}
	return j
}

// String names what there is; nothing is said of lights, people or a priority
// road that are not there.
func (j junction) String() string {
	var parts []string
	for _, v := range j.vehicles {
		parts = append(parts, v.String())
	}
	if len(j.main) == 2 {
		parts = append(parts, "main "+arms[j.main[0]]+" "+arms[j.main[1]])
	}
	if j.light != "" {
		parts = append(parts, "light "+j.light)
	}
	if j.walkers >= 0 {
		parts = append(parts, "walkers "+arms[j.walkers])
	}
	return strings.Join(parts, " , ")
}

// content leaves out what does not matter: kinds other than a siren, the
// weather, and the order in which the vehicles are listed.
func (j junction) content() string {
	at := make([]string, 4)
	for _, v := range j.vehicles[1:] {
		at[v.arm] = fmt.Sprint(v.turn, v.kind == siren)
	}
	return fmt.Sprint(j.vehicles[0].arm, j.vehicles[0].turn, at, j.main, j.light, j.walkers)
}

// name is what a vehicle is called in questions and answers: "me", or its arm.
func (j junction) name(i int) string {
	if i == 0 {
		return "me"
	}
	return arms[j.vehicles[i].arm]
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

// yields decides whether vehicle a gives way to b. Rules after the Vienna
// Convention on Road Traffic (1968), articles 6, 16, 18 and 34, in order:
// sirens first; with a green light cross traffic is held; the priority road goes
// before the others; whoever turns left lets oncoming traffic pass; else
// priority to the right.
func (j junction) yields(a, b vehicle) bool {
	opposite := (b.arm+2)%4 == a.arm
	mine, theirs := j.ranks(a.arm), j.ranks(b.arm)
	switch {
	case !conflict(a, b) || a.kind == siren:
		return false
	case b.kind == siren:
		return true
	case j.light == "green" && !opposite:
		return false
	case mine != theirs:
		return theirs
	case opposite:
		return turns[a.turn] == "left"
	default:
		return b.arm == (a.arm+3)%4
	}
}

func (j junction) ranks(arm int) bool {
	return len(j.main) == 2 && (arm == j.main[0] || arm == j.main[1])
}

// around visits the vehicles clockwise from the north.
func (j junction) around(visit func(i int, v vehicle)) {
	for arm := range arms {
		for i, v := range j.vehicles {
			if v.arm == arm {
				visit(i, v)
			}
		}
	}
}

// decide answers for vehicle i: "go", "stop" (my light is red), or "wait" with
// those that go before it, clockwise from the north, then "walkers" if people
// cross the arm it comes from or leaves by.
func (j junction) decide(i int) string {
	v := j.vehicles[i]
	if j.light == "red" {
		return "stop"
	}
	said := []string{"wait"}
	j.around(func(k int, other vehicle) {
		if k != i && j.yields(v, other) {
			said = append(said, j.name(k))
		}
	})
	if j.walkers >= 0 && (j.walkers == v.arm || j.walkers == v.exit()) {
		said = append(said, "walkers")
	}
	if len(said) == 1 {
		return "go"
	}
	return strings.Join(said, " ")
}

// order lets vehicles go in turns: in each, all that yield to nobody who is
// still there, clockwise from the north; "then" parts the turns. If everybody
// yields to somebody it ends in "stuck".
func (j junction) order() string {
	var said []string
	for gone := make([]bool, len(j.vehicles)); slices.Contains(gone, false); {
		var now []int
		j.around(func(i int, v vehicle) {
			free := !gone[i]
			for k, other := range j.vehicles {
				free = free && (gone[k] || k == i || !j.yields(v, other))
			}
			if free {
				now = append(now, i)
			}
		})
		if len(said) > 0 {
			said = append(said, "then")
		}
		if len(now) == 0 {
			return strings.Join(append(said, "stuck"), " ")
		}
		for _, i := range now {
			gone[i], said = true, append(said, j.name(i))
		}
	}
	return strings.Join(said, " ")
}
