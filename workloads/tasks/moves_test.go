package tasks

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkRobotics simulates on a map of characters: of the four orders a plan can
// have it takes the first that runs into nothing.
func checkRobotics(t *testing.T, prompt string) string {
	scene, job, _ := strings.Cut(strings.TrimSuffix(prompt, " =>"), " ; ")
	var blocked [7][7]bool // a border of walls around the 5 by 5 squares
	for i := range 7 {
		blocked[0][i], blocked[6][i], blocked[i][0], blocked[i][6] = true, true, true, true
	}
	at := map[string][2]int{}
	for _, part := range strings.Split(scene, " , ") {
		var name string
		var x, y int
		_, err := fmt.Sscanf(part, "%s %d %d", &name, &x, &y)
		require.NoError(t, err)
		if at[name] = [2]int{x, y}; name == "wall" {
			blocked[x][y] = true
		}
	}
	verb, goal, _ := strings.Cut(job, " ")
	stops, verbs := [][2]int{at["robot"], at[goal]}, []string{"grab"}
	if verb == "store" {
		stops, verbs = append(stops, at["shelf"]), append(verbs, "drop")
	}
	var plan []string
	for i, v := range verbs {
		a, b := stops[i], stops[i+1]
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
		across, along := words("east", "west", b[0]-a[0]), words("north", "south", b[1]-a[1])
		if free([2]int{b[0], a[1]}) {
			plan = append(append(plan, across...), along...)
		} else {
			require.True(t, free([2]int{a[0], b[1]}), prompt)
			plan = append(append(plan, along...), across...)
		}
		plan = append(plan, v)
	}
	return strings.Join(plan, " ")
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

// checkDriving decides from the text with geometry in the plane.
func checkDriving(t *testing.T, prompt string) string {
	parts := strings.Split(strings.TrimSuffix(prompt, " =>"), " , ")
	value := func(key string) string {
		for _, p := range parts {
			if v, ok := strings.CutPrefix(p, key+" "); ok {
				return v
			}
		}
		require.Fail(t, "no "+key, prompt)
		return ""
	}
	road, light, people := value("main"), value("light"), value("walkers")
	if light == "red" {
		return "stop"
	}
	me := strings.Fields(value("me"))
	myExit := leaves[me[0]][me[1]]
	before := map[string]bool{}
	for _, p := range parts[1:] {
		w := strings.Fields(p)
		if len(w) != 3 || w[0] == "main" {
			continue
		}
		from, exit := w[1], leaves[w[1]][w[2]]
		meet := exit == myExit || crosses(entries[me[0]], exits[myExit], entries[from], exits[exit])
		iAmMain, theyAreMain := strings.Contains(road, me[0]), strings.Contains(road, from)
		facing := opposing[from] == me[0]
		switch {
		case !meet:
		case w[0] == "ambulance":
			before[from] = true
		case light == "green" && !facing:
		case iAmMain && !theyAreMain:
		case theyAreMain && !iAmMain:
			before[from] = true
		case facing:
			before[from] = me[1] == "left"
		default:
			before[from] = onRight[me[0]] == from
		}
	}
	answer := "wait"
	for _, side := range []string{"north", "east", "south", "west"} {
		if before[side] {
			answer += " " + side
		}
	}
	if people == me[0] || people == myExit {
		answer += " walkers"
	}
	if answer == "wait" {
		return "go"
	}
	return answer
}

// Situations every learner driver knows, decided by hand.
func TestRightOfWay(t *testing.T) {
	for _, tc := range []struct{ name, prompt, want string }{
		{"the one on my right goes first", "me south straight , car east straight , main none , light off , walkers none , dry =>", "wait east"},
		{"the one on my left waits", "me south straight , car west straight , main none , light off , walkers none , dry =>", "go"},
		{"turning left I let oncoming traffic pass", "me south left , car north straight , main none , light off , walkers none , dry =>", "wait north"},
		{"two left turns pass each other", "me south left , car north left , main none , light off , walkers none , dry =>", "go"},
		{"turning right meets nobody who turns right", "me south right , car east right , main none , light off , walkers none , dry =>", "go"},
		{"the priority road goes first", "me south straight , car west straight , main east west , light off , walkers none , dry =>", "wait west"},
		{"on the priority road the right waits", "me south straight , car east straight , main north south , light off , walkers none , dry =>", "go"},
		{"a siren goes first", "me south straight , ambulance west straight , main north south , light off , walkers none , dry =>", "wait west"},
		{"red is red", "me south right , main none , light red , walkers none , dry =>", "stop"},
		{"green holds cross traffic", "me south straight , car east straight , main none , light green , walkers none , dry =>", "go"},
		{"people on the arm I turn into", "me south right , main none , light green , walkers east , dry =>", "wait walkers"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.Equal(t, tc.want, checkDriving(t, tc.prompt))
			require.Equal(t, tc.want, readJunction(t, tc.prompt).decide())
		})
	}
}

// readJunction parses a prompt into the generator's type, to run its rules.
func readJunction(t *testing.T, prompt string) junction {
	j := junction{walkers: -1, light: "off"}
	index := func(list []string, w string) int {
		for i, v := range list {
			if v == w {
				return i
			}
		}
		require.Equal(t, "none", w)
		return -1
	}
	for _, p := range strings.Split(strings.TrimSuffix(prompt, " =>"), " , ") {
		switch w := strings.Fields(p); {
		case w[0] == "me":
			j.me = vehicle{"me", index(arms, w[1]), index(turns, w[2])}
		case w[0] == "main" && len(w) == 3:
			j.main = []int{index(arms, w[1]), index(arms, w[2])}
		case w[0] == "light":
			j.light = w[1]
		case w[0] == "walkers":
			j.walkers = index(arms, w[1])
		case len(w) == 3:
			j.others = append(j.others, vehicle{w[0], index(arms, w[1]), index(turns, w[2])})
		}
	}
	return j
}
