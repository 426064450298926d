package pipeline

import (
	"meibench/hardware"
	"meibench/internal/units"
	"meibench/reference/delivery"
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
		if a.p.good == nil { // else those who chose together come together
			a.p.env.Sleep(a.p.window)
		} else {
			a.p.env.Sleep(1)
		}
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

// round sends the users of one cell what they lack, as a plan of package reference/delivery says: what several hear
// together one after another, and what is for one user beside that.
func (a *air) round(orders []*order) {
	var rs []delivery.Request
	for i, x := range orders {
		rate := x.user.Down.(hardware.Caster).Rate()
		if rate <= 0 { // out of service now: it waits for its turn alone
			a.p.env.Go("unicast", func() { x.fail(x.alone(x.lacks)) })
			continue
		}
		rs = append(rs, delivery.Request{User: i, Rate: rate, Blocks: x.lacks})
	}
	plan, err := delivery.Make(a.p.lib(), rs, delivery.Options{Scheme: a.p.cast})
	if err != nil {
		for _, r := range rs {
			orders[r.User].fail(err)
		}
		return
	}
	for _, t := range plan.Sent {
		if len(t.Members) == 1 {
			x := orders[rs[t.Members[0]].User]
			a.p.env.Go("unicast", func() { x.fail(x.alone(t.Blocks)) })
			continue
		}
		var members []*order
		for _, m := range t.Members {
			members = append(members, orders[rs[m].User])
		}
		for _, b := range t.Blocks {
			a.send(transmission{b, members})
		}
	}
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
	ds, lacks, err := others[0].Cast(p.stock.payload(t.block), others[1:])
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
		d.Payload.Data = x.p.stock.payload(b).Data // what came before, and the rest
		x.got(b, d, 0)
	}
	return err
}
