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
func (o object) row() int       { return (o.cell - 1) / 3 }
func (o object) column() int    { return (o.cell - 1) % 3 }

var (
	colors = []string{"red", "blue", "green", "white", "black", "yellow"}
	shapes = []string{"cup", "box", "ball", "book", "lamp", "key", "plate", "phone"}
	rows   = []string{"top", "middle", "bottom"}
)

// arSizes is the number of objects by level: a range.
var arSizes = [Levels][2]int{{2, 3}, {3, 4}, {5, 6}, {6, 7}, {7, 8}}

func drawAR(r *rand.Rand, level int) scene {
	size := arSizes[level-1]
	view := drawView(r, size[0]+r.IntN(size[1]-size[0]+1), level >= 3)
	said := make([]string, len(view))
	for i, o := range view {
		said[i] = o.String()
	}
	text := "see " + strings.Join(said, " , ")
	sort.Strings(said) // the same objects listed in another order are the same content
	return asking(text, strings.Join(said, ","), func(r *rand.Rand) (asked, bool) {
		question, answer := askAR(r, level, view)
		q := asked{question: question, answer: answer}
		if strings.HasPrefix(question, cellQuestion) {
			q.level = 3 // whatever the scene: what is asked for stands before what is known
		}
		return q, true
	})
}

// drawView places n different objects in different cells; shapes differ too,
// unless objects may share them.
func drawView(r *rand.Rand, n int, share bool) []object {
	forms, cells, used := r.Perm(len(shapes)), r.Perm(9), map[string]bool{}
	var view []object
	for len(view) < n {
		o := object{pick(r, colors), shapes[forms[len(view)]], cells[len(view)] + 1}
		if share {
			o.shape = pick(r, shapes)
		}
		if !used[o.name()] {
			used[o.name()] = true
			view = append(view, o)
		}
	}
	return view
}

func askAR(r *rand.Rand, level int, view []object) (question, answer string) {
	switch level {
	case 1:
		return lookUpQuestion(r, view, r.IntN(3))
	case 2:
		if r.IntN(4) == 0 {
			return colorCount(r, view)
		}
		return lookUpQuestion(r, view, r.IntN(3))
	case 3:
		return sharedQuestion(r, view)
	case 4:
		return relationQuestion(r, view)
	}
	return twoStepQuestion(r, view)
}

// lookUpQuestion is answered by one object, which its shape or cell names. The
// answer begins with that name, as one says "the cup: red".
func lookUpQuestion(r *rand.Rand, view []object, kind int) (question, answer string) {
	o := pick(r, view)
	switch kind {
	case 0:
		return "what color is the " + o.shape, o.shape + " " + o.color
	case 1:
		return "where is the " + o.shape, fmt.Sprint(o.shape, " ", o.cell)
	}
	return fmt.Sprint(cellQuestion, o.cell), fmt.Sprint(o.cell, " ", o.name())
}

const cellQuestion = "what is at "

func colorCount(r *rand.Rand, view []object) (question, answer string) {
	color := pick(r, colors)
	return "how many are " + color, fmt.Sprint(color, " ", count(view, func(o object) bool { return o.color == color }))
}

// sharedQuestion needs colour and shape together, or goes over the whole scene.
func sharedQuestion(r *rand.Rand, view []object) (question, answer string) {
	o := pick(r, view)
	switch r.IntN(4) {
	case 0:
		return fmt.Sprint(cellQuestion, o.cell), fmt.Sprint(o.cell, " ", o.name())
	case 1:
		return colorCount(r, view)
	case 2:
		row := r.IntN(3)
		return "how many in the " + rows[row] + " row", fmt.Sprint(count(view, func(o object) bool { return o.row() == row }))
	}
	return "where is the " + o.name(), fmt.Sprint(o.name(), " ", o.cell)
}

// relationQuestion starts from one object and asks about others.
func relationQuestion(r *rand.Rand, view []object) (question, answer string) {
	o := pick(r, view)
	switch r.IntN(3) {
	case 0:
		same := func(p object) bool { return p.color == o.color && p != o }
		return "how many others have the color of the " + o.name(), fmt.Sprint(count(view, same))
	case 1:
		same := func(p object) bool { return p.row() == o.row() && p != o }
		return "how many others in the row of the " + o.name(), fmt.Sprint(count(view, same))
	}
	return neighbourQuestion(r, view)
}

// twoStepQuestion moves from an object to its neighbour and on from there.
func twoStepQuestion(r *rand.Rand, view []object) (question, answer string) {
	for range 8 {
		o, first, second := pick(r, view), pick(r, sides), pick(r, sides)
		p, ok := first.of(o, view)
		if !ok || second.dx == -first.dx && second.dy == -first.dy {
			continue // there and back again asks nothing
		}
		if r.IntN(2) == 0 {
			return "what color is " + first.says + " the " + o.name(), p.color
		}
		question, answer = "what is "+second.says+" what is "+first.says+" the "+o.name(), "nothing"
		if q, ok := second.of(p, view); ok {
			answer = q.name()
		}
		return question, answer
	}
	return neighbourQuestion(r, view)
}

// A side is a direction in which an object may have a neighbour.
type side struct {
	says   string
	dx, dy int
}

var sides = []side{{"right of", 1, 0}, {"left of", -1, 0}, {"above", 0, -1}, {"below", 0, 1}}

func (s side) of(o object, view []object) (neighbour object, ok bool) {
	for _, p := range view {
		if p.column() == o.column()+s.dx && p.row() == o.row()+s.dy {
			return p, true
		}
	}
	return object{}, false
}

// neighbourQuestion asks what touches an object; two in three have an answer
// other than nothing when the scene allows it.
func neighbourQuestion(r *rand.Rand, view []object) (question, answer string) {
	for range 3 {
		o, s := pick(r, view), pick(r, sides)
		question, answer = "what is "+s.says+" the "+o.name(), "nothing"
		if p, ok := s.of(o, view); ok {
			return question, p.name()
		}
	}
	return question, answer
}

func count(view []object, is func(object) bool) int {
	n := 0
	for _, o := range view {
		if is(o) {
			n++
		}
	}
	return n
}
