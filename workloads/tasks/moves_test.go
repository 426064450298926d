package tasks

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkRobotics simulates on a map of characters: of the two orders a leg can
// have it takes the first that runs into nothing.
func checkRobotics(t *testing.T, prompt string) string {
	scene, job, _ := strings.Cut(strings.TrimSuffix(prompt, " =>"), " ; ")
	var blocked [7][7]bool // a border of walls around the 5 by 5 squares
	for i := range 7 {
		blocked[0][i], blocked[6][i], blocked[i][0], blocked[i][6] = true, true, true, true
	}
	at := map[string][2]int{}
	for _, part := range strings.Split(scene, " , ") {
		w := strings.Fields(part)
		require.Len(t, w[1], 2)
		square := [2]int{int(w[1][0] - '0'), int(w[1][1] - '0')}
		if at[w[0]] = square; w[0] == "wall" {
			blocked[square[0]][square[1]] = true
		}
	}
	words := strings.Fields(job)
	require.Contains(t, []string{"fetch", "store"}, words[0])
	a, plan := at["robot"], []string{}
	for _, goal := range words[1:] {
		plan = append(append(plan, append([]string{goal}, checkLeg(t, blocked, a, at[goal])...)...), "grab")
		a = at[goal]
		if words[0] == "store" {
			plan = append(append(plan, append([]string{"shelf"}, checkLeg(t, blocked, a, at["shelf"])...)...), "drop")
			a = at["shelf"]
		}
	}
	return strings.Join(plan, " ")
}

func checkLeg(t *testing.T, blocked [7][7]bool, a, b [2]int) []string {
	free := func(corner [2]int) bool {
		for _, leg := range [][2][2]int{{a, corner}, {corner, b}} {
			p := leg[0]
			for p != leg[1] {
				p[0] += sign(leg[1][0] - p[0])
				p[1] += sign(leg[1][1] - p[1])
				if blocked[p[0]][p[1]] {
					return false
				}
			}
		}
		return true
	}
	said := []string{fmt.Sprintf("%d%d", b[0], b[1])}
	across, along := words("east", "west", b[0]-a[0]), words("north", "south", b[1]-a[1])
	if free([2]int{b[0], a[1]}) {
		return append(append(said, across...), along...)
	}
	require.True(t, free([2]int{a[0], b[1]}), "a leg of the reference is blocked both ways")
	return append(append(said, along...), across...)
}

func sign(n int) int { return max(-1, min(1, n)) }

func words(plus, minus string, n int) []string {
	if n == 0 {
		return nil
	}
	return []string{map[bool]string{true: plus, false: minus}[n > 0], fmt.Sprint(max(n, -n))}
}

// Lanes in the plane: x to the east, y to the north, traffic on the right.
// Where I come from a side, I enter on the right half of its road, so from the
// south I enter at x = +1 heading north.
var (
	entries = map[string][2]float64{"south": {1, -3}, "north": {-1, 3}, "east": {3, 1}, "west": {-3, -1}}
	exits   = map[string][2]float64{"south": {-1, -3}, "north": {1, 3}, "east": {3, -1}, "west": {-3, 1}}
	leaves  = map[string]map[string]string{
		"south": {"left": "west", "straight": "north", "right": "east"},
		"north": {"left": "east", "straight": "south", "right": "west"},
		"east":  {"left": "south", "straight": "west", "right": "north"},
		"west":  {"left": "north", "straight": "east", "right": "south"},
	}
	onRight  = map[string]string{"south": "east", "east": "north", "north": "west", "west": "south"}
	opposing = map[string]string{"south": "north", "north": "south", "east": "west", "west": "east"}
)

// crosses tests two straight segments for a proper intersection.
func crosses(a, b, c, d [2]float64) bool {
	side := func(p, q, r [2]float64) bool {
		return (q[0]-p[0])*(r[1]-p[1])-(q[1]-p[1])*(r[0]-p[0]) > 0
	}
	return side(a, b, c) != side(a, b, d) && side(c, d, a) != side(c, d, b)
}

// car is a vehicle as the checkers of driving read it.
type car struct{ kind, from, turn, exit string }

// crossing is a prompt of driving, read without the generator's code.
type crossing struct {
	cars                []car // clockwise from the north
	road, light, people string
	question            string
}

func readCrossing(t *testing.T, prompt string) crossing {
	var c crossing
	scene, question, found := strings.Cut(strings.TrimSuffix(prompt, " =>"), " ; ")
	require.True(t, found, prompt)
	c.question = question
	for _, side := range []string{"north", "east", "south", "west"} {
		for _, part := range strings.Split(scene, " , ") {
			w := strings.Fields(part)
			switch {
			case w[0] == "main":
				c.road = part
			case w[0] == "light":
				c.light = w[1]
			case w[0] == "walkers":
				c.people = w[1]
			case len(w) == 3 && w[1] == side:
				c.cars = append(c.cars, car{w[0], side, w[2], leaves[side][w[2]]})
			}
		}
	}
	return c
}

func (c car) name() string {
	if c.kind == "me" {
		return "me"
	}
	return c.from
}

// first reports whether b goes before a, with geometry in the plane.
func (c crossing) first(b, a car) bool {
	meet := b.exit == a.exit || crosses(entries[a.from], exits[a.exit], entries[b.from], exits[b.exit])
	aMain, bMain := strings.Contains(c.road, a.from), strings.Contains(c.road, b.from)
	facing := opposing[b.from] == a.from
	switch {
	case !meet || a.kind == "ambulance":
		return false
	case b.kind == "ambulance":
		return true
	case c.light == "green" && !facing, aMain && !bMain:
		return false
	case bMain && !aMain:
		return true
	case facing:
		return a.turn == "left"
	}
	return onRight[a.from] == b.from
}

func checkDriving(t *testing.T, prompt string) string {
	c := readCrossing(t, prompt)
	if c.question == "order" {
		return checkOrder(c)
	}
	asked := strings.Fields(c.question)[1]
	answer := "wait"
	for _, a := range c.cars {
		if a.name() != asked {
			continue
		}
		if c.light != "" {
			require.Equal(t, "me", asked, "only my own light is known")
		}
		if c.light == "red" {
			return "stop"
		}
		for _, b := range c.cars {
			if b != a && c.first(b, a) {
				answer += " " + b.name()
			}
		}
		if c.people == a.from || c.people == a.exit {
			answer += " walkers"
		}
	}
	if answer == "wait" {
		return "go"
	}
	return answer
}

// checkOrder removes those that nobody is before, again and again.
func checkOrder(c crossing) string {
	var said []string
	for len(c.cars) > 0 {
		var going []string
		var left []car
		for _, a := range c.cars {
			held := false
			for _, b := range c.cars {
				held = held || a != b && c.first(b, a)
			}
			if held {
				left = append(left, a)
			} else {
				going = append(going, a.name())
			}
		}
		if len(going) == 0 {
			said = append(said, "stuck")
			break
		}
		said = append(said, strings.Join(going, " "))
		c.cars = left
	}
	return strings.Join(said, " then ")
}

// Situations every learner driver knows, decided by hand.
func TestRightOfWay(t *testing.T) {
	for _, tc := range []struct{ name, prompt, want string }{
		{"the one on my right goes first", "me south straight , car east straight , dry ; may me go =>", "wait east"},
		{"the one on my left waits", "me south straight , car west straight , dry ; may me go =>", "go"},
		{"and knows it", "me south straight , car west straight , dry ; may west go =>", "wait me"},
		{"turning left I let oncoming traffic pass", "me south left , car north straight , dry ; may me go =>", "wait north"},
		{"two left turns pass each other", "me south left , car north left , dry ; may me go =>", "go"},
		{"turning right meets nobody who turns right", "me south right , car east right , dry ; may me go =>", "go"},
		{"the priority road goes first", "me south straight , car west straight , main east west , dry ; may me go =>", "wait west"},
		{"on the priority road the right waits", "me south straight , car east straight , main north south , dry ; may me go =>", "go"},
		{"a siren goes first", "me south straight , ambulance west straight , main north south , dry ; may me go =>", "wait west"},
		{"and waits for nobody", "me south straight , ambulance west straight , main north south , dry ; may west go =>", "go"},
		{"red is red", "me south right , light red , dry ; may me go =>", "stop"},
		{"green holds cross traffic", "me south straight , car east straight , light green , dry ; may me go =>", "go"},
		{"people on the arm I turn into", "me south right , light green , walkers east , dry ; may me go =>", "wait walkers"},
		// all three straight on: the east waits for nobody, the south for the east, the west for the south
		{"a chain to the right", "me south straight , car east straight , van west straight , dry ; order =>", "east then me then west"},
		{"four at once", "me south straight , car east straight , van west straight , bus north straight , dry ; order =>", "stuck"},
		{"a siren unties the knot", "me south straight , ambulance east straight , van west straight , bus north straight , dry ; order =>", "east then me then west then north"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.Equal(t, tc.want, checkDriving(t, tc.prompt))
		})
	}
}
