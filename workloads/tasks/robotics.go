package tasks

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// point is a square of the grid; x grows to the east, y to the north, 1 to
// gridSide. It is written as a number of two digits, x first.
type point struct{ x, y int }

func (p point) String() string { return fmt.Sprintf("%d%d", p.x, p.y) }

const gridSide = 5

var items = []string{"cup", "ball", "book", "tool", "can", "bag"}

// world is a robot, things to fetch, the shelf and the walls.
type world struct {
	robot  point
	things map[string]point
	shelf  *point
	walls  []point
}

// roboticsWorlds is what stands on the grid at each level.
var roboticsWorlds = [Levels]struct {
	things, walls int
	shelf         bool
	goals         int // things to fetch, or to put on the shelf if there is one
}{{1, 0, false, 1}, {3, 0, false, 1}, {2, 0, true, 1}, {2, 3, true, 1}, {3, 3, true, 2}}

// drawRobotics: fetch the only thing (1) or one of three (2); put one on the
// shelf (3), with walls in the way (4); put two on the shelf, one by one (5).
func drawRobotics(r *rand.Rand, level int) scene {
	kind := roboticsWorlds[level-1]
	squares := r.Perm(gridSide * gridSide)
	next := func() point {
		s := squares[0]
		squares = squares[1:]
		return point{s%gridSide + 1, s/gridSide + 1}
	}
	w := world{robot: next(), things: map[string]point{}}
	var order []string
	for _, i := range r.Perm(len(items))[:kind.things] {
		order = append(order, items[i])
		w.things[items[i]] = next()
	}
	if kind.shelf {
		shelf := next()
		w.shelf = &shelf
	}
	for range kind.walls {
		w.walls = append(w.walls, next())
	}
	text := w.describe(order)
	sort.Strings(order)
	return asking(text, w.describe(order), func(r *rand.Rand) (asked, bool) {
		var goals []string
		for _, i := range r.Perm(len(order))[:kind.goals] {
			goals = append(goals, order[i])
		}
		plan, ok := w.plan(goals)
		return asked{question: w.verb() + " " + strings.Join(goals, " "), answer: plan}, ok
	})
}

func (w world) verb() string {
	if w.shelf == nil {
		return "fetch"
	}
	return "store"
}

func (w world) describe(order []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "robot %s", w.robot)
	for _, name := range order {
		fmt.Fprintf(&b, " , %s %s", name, w.things[name])
	}
	if w.shelf != nil {
		fmt.Fprintf(&b, " , shelf %s", *w.shelf)
	}
	for _, p := range w.walls {
		fmt.Fprintf(&b, " , wall %s", p)
	}
	return b.String()
}

// A stop is where a leg of a job ends and what is done there.
type stop struct {
	name string
	at   point
	verb string
}

func (w world) stops(goals []string) (list []stop) {
	for _, g := range goals {
		list = append(list, stop{g, w.things[g], "grab"})
		if w.shelf != nil {
			list = append(list, stop{"shelf", *w.shelf, "drop"})
		}
	}
	return list
}

// plan returns the reference. A leg says what it goes to and its square, then runs east
// or west, then north or south; if a wall stands in the way, north or south
// first. Not ok if both are blocked.
func (w world) plan(goals []string) (plan string, ok bool) {
	var said []string
	at := w.robot
	for _, s := range w.stops(goals) {
		steps, ok := w.leg(at, s.at)
		if !ok {
			return "", false
		}
		said = append(append(append(said, s.name, s.at.String()), steps...), s.verb)
		at = s.at
	}
	return strings.Join(said, " "), true
}

func (w world) leg(from, to point) (steps []string, ok bool) {
	across, along := move("east", "west", to.x-from.x), move("north", "south", to.y-from.y)
	for _, steps := range [][]string{append(across[:len(across):len(across)], along...), append(along, across...)} {
		if at, ok := w.walk(from, steps); ok && at == to {
			return steps, true
		}
	}
	return nil, false
}

func move(plus, minus string, n int) []string {
	switch {
	case n > 0:
		return []string{plus, strconv.Itoa(n)}
	case n < 0:
		return []string{minus, strconv.Itoa(-n)}
	}
	return nil
}

// walk follows pairs of direction and count; not ok off the grid, into a wall,
// or if the text is not such pairs.
func (w world) walk(at point, steps []string) (end point, ok bool) {
	heading := map[string]point{"east": {1, 0}, "west": {-1, 0}, "north": {0, 1}, "south": {0, -1}}
	for ; len(steps) >= 2; steps = steps[2:] {
		d, known := heading[steps[0]]
		n, err := strconv.Atoi(steps[1])
		if !known || err != nil || n < 1 || n > gridSide {
			return at, false
		}
		for range n {
			at = point{at.x + d.x, at.y + d.y}
			if min(at.x, at.y) < 1 || max(at.x, at.y) > gridSide {
				return at, false
			}
			for _, wall := range w.walls {
				if at == wall {
					return at, false
				}
			}
		}
	}
	return at, len(steps) == 0
}

// scorePlan gives 1 for the reference and 0.5 for another plan that works.
func scorePlan(in Instance, output string) float64 {
	w, goals, ok := readWorld(in.Prompt)
	switch {
	case Exact(in, output):
		return 1
	case ok && w.works(goals, strings.Fields(output)):
		return 0.5
	}
	return 0
}

// works runs a plan. What it says of a square is not looked at: what counts is
// where it grabs and drops.
func (w world) works(goals, steps []string) bool {
	at := w.robot
	for _, s := range w.stops(goals) {
		n := slices.Index(steps, s.verb)
		if n < 0 {
			return false
		}
		leg := steps[:n]
		if n >= 2 && leg[0] == s.name {
			leg = leg[2:]
		}
		end, ok := w.walk(at, leg)
		if !ok || end != s.at {
			return false
		}
		at, steps = end, steps[n+1:]
	}
	return len(steps) == 0
}

// readWorld parses what drawRobotics wrote.
func readWorld(prompt string) (w world, goals []string, ok bool) {
	text, job, found := strings.Cut(strings.TrimSuffix(prompt, " =>"), " ; ")
	w.things = map[string]point{}
	for _, part := range strings.Split(text, " , ") {
		name, square, _ := strings.Cut(part, " ")
		n, err := strconv.Atoi(square)
		p := point{n / 10, n % 10}
		if err != nil {
			return w, nil, false
		}
		switch name {
		case "robot":
			w.robot = p
		case "shelf":
			w.shelf = &p
		case "wall":
			w.walls = append(w.walls, p)
		default:
			w.things[name] = p
		}
	}
	words := strings.Fields(job)
	if !found || len(words) < 2 {
		return w, nil, false
	}
	for _, g := range words[1:] {
		_, known := w.things[g]
		found = found && known
	}
	return w, words[1:], found
}
