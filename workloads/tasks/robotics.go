package tasks

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"
)

// point is a square of the grid; x grows to the east, y to the north, 1 to gridSide.
type point struct{ x, y int }

func (p point) String() string { return fmt.Sprintf("%d %d", p.x, p.y) }

const gridSide = 5

var items = []string{"cup", "ball", "book", "tool", "can", "bag"}

// world is a robot, things to fetch, the shelf and the walls. With a shelf the
// job is to fetch the goal and put it there, else to fetch it.
type world struct {
	robot  point
	things map[string]point
	goal   string
	shelf  *point
	walls  []point
}

func generateRobotics(seed uint64, id int) Instance {
	return generate("robotics", seed, id, func(r *rand.Rand, d Difficulty) draft {
		for {
			w, order := drawWorld(r, d)
			if plan, ok := w.plan(); ok {
				text := w.describe(order)
				sort.Strings(order)
				return draft{text, plan, w.describe(order)}
			}
		}
	})
}

// drawWorld: easy worlds hold two things and no walls; hard ones one or two
// things, a shelf, and two or three walls. All stand on different squares.
func drawWorld(r *rand.Rand, d Difficulty) (world, []string) {
	squares := r.Perm(gridSide * gridSide)
	next := func() point {
		s := squares[0]
		squares = squares[1:]
		return point{s%gridSide + 1, s/gridSide + 1}
	}
	w := world{robot: next(), things: map[string]point{}}
	var order []string
	n := 2
	if d == Hard {
		n = 1 + r.IntN(2)
	}
	for _, i := range r.Perm(len(items))[:n] {
		order = append(order, items[i])
		w.things[items[i]] = next()
	}
	w.goal = pick(r, order)
	if d == Hard {
		shelf := next()
		w.shelf = &shelf
		for range 2 + r.IntN(2) {
			w.walls = append(w.walls, next())
		}
	}
	return w, order
}

func (w world) describe(order []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "robot %s", w.robot)
	for _, name := range order {
		fmt.Fprintf(&b, " , %s %s", name, w.things[name])
	}
	if w.shelf == nil {
		return b.String() + " ; fetch " + w.goal
	}
	fmt.Fprintf(&b, " , shelf %s", *w.shelf)
	for _, p := range w.walls {
		fmt.Fprintf(&b, " , wall %s", p)
	}
	return b.String() + " ; store " + w.goal
}

// plan returns the reference: each leg runs east or west, then north or south;
// if a wall stands in the way, north or south first. Not ok if both are blocked.
func (w world) plan() (plan string, ok bool) {
	steps, ok := w.leg(w.robot, w.things[w.goal])
	steps = append(steps, "grab")
	if ok && w.shelf != nil {
		var more []string
		more, ok = w.leg(w.things[w.goal], *w.shelf)
		steps = append(append(steps, more...), "drop")
	}
	return strings.Join(steps, " "), ok
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
	w, ok := readWorld(in.Prompt)
	switch {
	case Exact(in, output):
		return 1
	case ok && w.works(strings.Fields(output)):
		return 0.5
	}
	return 0
}

func (w world) works(steps []string) bool {
	at := w.robot
	for _, stop := range []struct {
		verb  string
		place *point
	}{{"grab", ptr(w.things[w.goal])}, {"drop", w.shelf}} {
		if stop.place == nil {
			continue
		}
		n := 0
		for n < len(steps) && steps[n] != stop.verb {
			n++
		}
		end, ok := w.walk(at, steps[:n])
		if n == len(steps) || !ok || end != *stop.place {
			return false
		}
		at, steps = end, steps[n+1:]
	}
	return len(steps) == 0
}

func ptr(p point) *point { return &p }

// readWorld parses what describe wrote.
func readWorld(prompt string) (w world, ok bool) {
	scene, job, found := strings.Cut(strings.TrimSuffix(prompt, " =>"), " ; ")
	w.things = map[string]point{}
	for _, part := range strings.Split(scene, " , ") {
		var name string
		var p point
		if n, _ := fmt.Sscanf(part, "%s %d %d", &name, &p.x, &p.y); n != 3 {
			return w, false
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
	_, w.goal, _ = strings.Cut(job, " ")
	_, known := w.things[w.goal]
	return w, found && known
}
