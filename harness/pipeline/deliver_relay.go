package pipeline

import (
	"maps"
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
)

// sidelink is the way from device to device: one block at a time from each sender.
type sidelink struct {
	rate   float64 // bytes per second; 0 = there is none
	delay  time.Duration
	queues map[int]*world.Slots // by sender
	lines  map[int]int          // how many blocks wait for a sender, or are being sent
}

// sidelinkDelay is assumed: a hop of a direct link.
const sidelinkDelay = 5 * time.Millisecond

// peer is the user in the same cell whose device has a block and the fewest waiting for it, the lowest number of equals; -1 = nobody.
func (x *order) peer(b int) int {
	p := x.p
	best, least := -1, 0
	for _, id := range slices.Sorted(maps.Keys(p.phones)) { // looking at a radio may move it on: always in one order
		if id == x.req.User || !p.phones[id].shelf.Has(b) || !p.together(x.user, p.site.User(id)) {
			continue
		}
		line := p.side.lines[id]
		if best < 0 || line < least {
			best, least = id, line
		}
	}
	return best
}

// together reports whether two users are in one cell, in service.
func (p *deliver) together(a, b *hardware.User) bool {
	x, y := a.Down.(hardware.Caster), b.Down.(hardware.Caster)
	return x.Cell() == y.Cell() && x.Rate() > 0 && y.Rate() > 0
}

// relay takes from what the device lacks the blocks that others near it have, and has them sent from device to device.
func (x *order) relay() {
	p := x.p
	if p.side.rate == 0 {
		return
	}
	var rest []int
	for _, b := range x.lacks {
		if from := x.peer(b); from >= 0 {
			p.side.lines[from]++
			p.env.Go("relay", func() { x.fail(x.relayed(b, from)) })
		} else {
			rest = append(rest, b)
		}
	}
	x.lacks = rest
}

// relayed brings a block from another device. Whoever has left the cell, has dropped the block, or sends what is not the block is not
// waited for: it comes from the node.
func (x *order) relayed(b, from int) error {
	p := x.p
	q := p.side.queues[from]
	if q == nil {
		q = world.NewSlots(p.env, 1)
		p.side.queues[from] = q
	}
	q.Acquire()
	start := p.env.Now()
	payload := p.stock.payload(b)
	if p.tamper != nil {
		payload.Data = p.tamper(from, b, payload.Data)
	}
	there := p.phones[from].shelf.Has(b) && p.together(x.user, p.site.User(from))
	if there {
		p.env.Sleep(units.TransferTime(payload.Bytes, p.side.rate))
		there = p.together(x.user, p.site.User(from))
	}
	q.Release()
	p.side.lines[from]--
	if there {
		p.env.Sleep(p.side.delay)
	}
	if x.over {
		return errGivenUp
	}
	if !there || p.stock.verify(b, payload.Data) != nil {
		return x.instead(b)
	}
	x.log.Count(record.RelayedBytes, int64(payload.Bytes))
	c := x.came[b]
	c.data, c.from, c.to, c.here, c.ready = payload.Data, start, p.env.Now(), true, start
	x.came[b] = c
	x.left--
	x.wake.Signal()
	return nil
}

// instead has a block come from the node where the user is after all.
func (x *order) instead(b int) error {
	p := x.p
	if x.node < 0 {
		x.node = p.stock.near(x.user)
	}
	x.lacks, x.held = append(x.lacks, b), append(slices.Clone(x.held), b)
	p.stock.fetch(&x.need, x.node, p.stock.hold(x.node, []int{b}), -1)
	return x.alone([]int{b})
}
