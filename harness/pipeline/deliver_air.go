package pipeline

import (
	"cmp"
	"slices"

	"meibench/hardware"
	"meibench/internal/units"
)

// air is where an edge node collects the orders of its users, to send once what several of them lack (checklist C6).
type air struct {
	p      *deliver
	node   int
	joined []*order
	open   bool // a round is being collected
}

// air is the node's, made when first used.
func (p *deliver) air(node int) *air {
	if p.airs[node] == nil {
		p.airs[node] = &air{p: p, node: node}
	}
	return p.airs[node]
}

// join puts an order in the round that is being collected.
func (a *air) join(x *order) {
	a.joined = append(a.joined, x)
	if a.open {
		return
	}
	a.open = true
	a.p.env.Go("air", func() {
		a.p.env.Sleep(a.p.window)
		orders := a.joined
		a.joined, a.open = nil, false
		byCell := map[int][]*order{}
		var cells []int
		for _, x := range orders {
			cell := x.user.Down.(hardware.Caster).Cell()
			if byCell[cell] == nil {
				cells = append(cells, cell)
			}
			byCell[cell] = append(byCell[cell], x)
		}
		for _, cell := range cells {
			a.p.env.Go("cast", func() { a.round(byCell[cell]) })
		}
	})
}

// transmission is a block and those who get it at once.
type transmission struct {
	block   int
	members []*order
}

// round sends the users of one cell what they lack: first what more than one lacks, what most lack before the rest, and
// then to each the rest alone.
func (a *air) round(orders []*order) {
	plan := a.plan(orders)
	inCommon := map[*order]map[int]bool{}
	for _, t := range plan {
		for _, x := range t.members {
			if inCommon[x] == nil {
				inCommon[x] = map[int]bool{}
			}
			inCommon[x][t.block] = true
		}
	}
	own := func(x *order) {
		rest := slices.DeleteFunc(slices.Clone(x.lacks), func(b int) bool { return inCommon[x][b] })
		a.p.env.Go("unicast", func() { x.fail(x.alone(rest)) })
	}
	for _, x := range orders {
		if inCommon[x] == nil {
			own(x)
		}
	}
	for _, t := range plan {
		a.send(t)
	}
	for _, x := range orders {
		if inCommon[x] != nil {
			own(x)
		}
	}
}

// plan is what to send to whom in common.
func (a *air) plan(orders []*order) (plan []transmission) {
	byBlock := map[int][]*order{}
	var blocks []int
	for _, x := range orders {
		for _, b := range x.lacks {
			if byBlock[b] == nil {
				blocks = append(blocks, b)
			}
			byBlock[b] = append(byBlock[b], x)
		}
	}
	slices.SortFunc(blocks, func(a, b int) int {
		return cmp.Or(cmp.Compare(len(byBlock[b]), len(byBlock[a])), cmp.Compare(a, b))
	})
	for _, b := range blocks {
		if len(byBlock[b]) > 1 {
			plan = append(plan, transmission{b, byBlock[b]})
		}
	}
	return plan
}

// send transmits a block. Who has left the node is sent it alone, and so is what somebody lacks who leaves meanwhile.
func (a *air) send(t transmission) {
	p := a.p
	var here []*order
	for _, x := range t.members {
		switch {
		case x.failed != nil:
		case p.stock.near(x.user) != a.node:
			p.env.Go("unicast", func() { x.fail(x.alone([]int{t.block})) })
		default:
			here = append(here, x)
		}
	}
	if len(here) == 0 {
		return
	}
	ready, err := p.stock.await(a.node, t.block)
	if err != nil {
		for _, x := range here {
			x.fail(err)
		}
		return
	}
	var others []hardware.Caster
	for _, x := range here {
		c := x.came[t.block]
		c.ready, c.away = ready, true
		x.came[t.block] = c
		others = append(others, x.user.Down.(hardware.Caster))
	}
	ds, lacks, err := others[0].Cast(hardware.Payload{Bytes: p.lib().Blocks[t.block].Bytes}, others[1:])
	for i, x := range here {
		switch {
		case err != nil:
			x.fail(err)
		case lacks[i] == 0:
			x.got(t.block, ds[i], len(here)-1)
		default:
			c := x.came[t.block]
			c.away = false
			x.came[t.block] = c
			x.partly(ds[i], len(here)-1)
			p.env.Go("unicast", func() { x.fail(x.rest(t.block, lacks[i])) })
		}
	}
}

// rest sends what is left of a block to one user.
func (x *order) rest(b int, left units.Bytes) error {
	if err := x.bring(b); err != nil {
		return err
	}
	d, err := x.user.Down.Send(hardware.Payload{Bytes: left})
	if err == nil {
		x.got(b, d, 0)
	}
	return err
}
