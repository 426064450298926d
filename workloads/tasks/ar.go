package tasks

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
)

// object is one thing in a scene. Cells are numbered 1 to 9, row by row from
// the top left, as on a telephone.
type object struct {
	color, shape string
	cell         int
}

func (o object) String() string { return fmt.Sprintf("%s %s %d", o.color, o.shape, o.cell) }
func (o object) name() string   { return o.color + " " + o.shape }

var (
	colors = []string{"red", "blue", "green", "white", "black", "yellow"}
	shapes = []string{"cup", "box", "ball", "book", "lamp", "key", "plate", "phone"}
	rows   = []string{"top", "middle", "bottom"}
)

func generateAR(seed uint64, id int) Instance {
	return generate("ar", seed, id, func(r *rand.Rand, d Difficulty) draft {
		scene := drawScene(r, d)
		question, answer := "", ""
		if d == Easy {
			question, answer = easyQuestion(r, scene)
		} else {
			question, answer = hardQuestion(r, scene)
		}
		said := make([]string, len(scene))
		for i, o := range scene {
			said[i] = o.String()
		}
		prompt := "see " + strings.Join(said, " , ") + " ; " + question
		sort.Strings(said) // the same scene listed in another order is the same content
		return draft{prompt, answer, strings.Join(said, ",") + question}
	})
}

// drawScene places 3 or 4 objects of different shapes (easy), or 5 or 6
// different objects that share shapes and colours (hard), in different cells.
func drawScene(r *rand.Rand, d Difficulty) []object {
	n := 3 + r.IntN(2)
	palette, forms := colors, r.Perm(len(shapes))
	if d == Hard {
		n = 5 + r.IntN(2)
	}
	cells, used := r.Perm(9), map[string]bool{}
	var scene []object
	for len(scene) < n {
		o := object{pick(r, palette), shapes[forms[len(scene)]], cells[len(scene)] + 1}
		if d == Hard {
			o.shape = pick(r, shapes)
		}
		if !used[o.name()] {
			used[o.name()] = true
			scene = append(scene, o)
		}
	}
	return scene
}

func easyQuestion(r *rand.Rand, scene []object) (question, answer string) {
	o := pick(r, scene)
	switch r.IntN(4) {
	case 0:
		return "what color is the " + o.shape, o.color
	case 1:
		return "where is the " + o.shape, fmt.Sprint(o.cell)
	case 2:
		return fmt.Sprintf("what is at %d", o.cell), o.name()
	default:
		color := pick(r, colors)
		return "how many are " + color, fmt.Sprint(count(scene, func(o object) bool { return o.color == color }))
	}
}

func hardQuestion(r *rand.Rand, scene []object) (question, answer string) {
	o := pick(r, scene)
	switch r.IntN(4) {
	case 0:
		return "where is the " + o.name(), fmt.Sprint(o.cell)
	case 1:
		return neighbourQuestion(r, scene)
	case 2:
		row := r.IntN(3)
		inRow := func(o object) bool { return (o.cell-1)/3 == row }
		return "how many in the " + rows[row] + " row", fmt.Sprint(count(scene, inRow))
	default:
		same := func(p object) bool { return p.color == o.color && p != o }
		return "how many others have the color of the " + o.name(), fmt.Sprint(count(scene, same))
	}
}

// neighbourQuestion asks what touches an object; two in three have an answer
// other than nothing when the scene allows it.
func neighbourQuestion(r *rand.Rand, scene []object) (question, answer string) {
	sides := []struct {
		says   string
		dx, dy int
	}{{"right of", 1, 0}, {"left of", -1, 0}, {"above", 0, -1}, {"below", 0, 1}}
	for range 3 {
		o, side := pick(r, scene), pick(r, sides)
		question, answer = "what is "+side.says+" the "+o.name(), "nothing"
		x, y := (o.cell-1)%3+side.dx, (o.cell-1)/3+side.dy
		for _, p := range scene {
			if (p.cell-1)%3 == x && (p.cell-1)/3 == y {
				return question, p.name()
			}
		}
	}
	return question, answer
}

func count(scene []object, is func(object) bool) int {
	n := 0
	for _, o := range scene {
		if is(o) {
			n++
		}
	}
	return n
}
