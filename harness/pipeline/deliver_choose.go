package pipeline

import (
	"cmp"
	"slices"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/units"
	"meibench/reference/delivery"
	"meibench/reference/library"
)

// choosing is where an edge node collects the requests of its users, to give each a model of those that are good enough for it such that
// what goes over the air is least (checklist C6).
type choosing struct {
	p       *deliver
	waiting []*choice
}

type choice struct {
	x    *order
	done bool
	wake world.Cond
}

// goodEnough are, for each model, the models that will do instead of it: itself first, then those of its family that share most with it.
func goodEnough(l *library.Library, choices int) [][]int {
	out := make([][]int, len(l.Models))
	for i := range l.Models {
		common := func(k int) units.Bytes { return l.Whole(i) + l.Whole(k) - l.Union([]int{i, k}) }
		var others []int
		shared := make([]units.Bytes, len(l.Models))
		for k := range l.Models {
			if k != i && l.Models[k].Family == l.Models[i].Family {
				shared[k] = common(k)
				others = append(others, k)
			}
		}
		slices.SortStableFunc(others, func(a, b int) int { return cmp.Compare(shared[b], shared[a]) })
		out[i] = append([]int{i}, others[:min(choices-1, len(others))]...)
	}
	return out
}

// choose waits until the round of the user's node is over, and sets the model that the user gets.
func (x *order) choose() {
	p := x.p
	if p.good == nil || x.user.Down.(hardware.Caster).Rate() <= 0 {
		return
	}
	here := p.stock.near(x.user)
	a := p.choosers[here]
	if a == nil {
		a = &choosing{p: p}
		p.choosers[here] = a
	}
	c := &choice{x: x, wake: p.env.NewCond()}
	if a.waiting = append(a.waiting, c); len(a.waiting) == 1 {
		p.env.Go("choose", a.round)
	}
	for !c.done {
		c.wake.Wait()
	}
}

// exactly is for how many users the best choice is searched for; for more it is made greedily.
const exactly = 6

// round chooses for all who came in a window, cell by cell: a transmission is heard in one.
func (a *choosing) round() {
	p := a.p
	p.env.Sleep(p.window)
	waiting := a.waiting
	a.waiting = nil
	byCell := map[int][]*choice{}
	var cells []int
	for _, c := range waiting {
		cell := c.x.user.Down.(hardware.Caster).Cell()
		if byCell[cell] == nil {
			cells = append(cells, cell)
		}
		byCell[cell] = append(byCell[cell], c)
	}
	for _, cell := range cells {
		var ws []delivery.Wish
		var who []*choice
		for i, c := range byCell[cell] {
			if rate := c.x.user.Down.(hardware.Caster).Rate(); rate > 0 {
				ws, who = append(ws, delivery.Wish{User: i, Rate: rate, Models: p.good[c.x.want]}), append(who, c)
			}
		}
		models, _, err := delivery.Pick(p.lib(), ws, len(ws) <= exactly)
		if err != nil { // a tree that is too large
			models, _, err = delivery.Pick(p.lib(), ws, false)
		}
		for i, c := range who {
			if err != nil {
				c.x.fail(err)
				continue
			}
			c.x.want = models[i]
		}
	}
	for _, c := range waiting {
		c.done = true
		c.wake.Signal()
	}
}
