package city

import (
	"fmt"
	"slices"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// Cell is the cell that the user is in now.
func (l *link) Cell() int { return l.a.Cell(l.a.net.env.Now()) }

// Rate is what the link would carry with the whole cell, in bytes per second.
func (l *link) Rate() float64 {
	upward, downward := l.a.Rates(l.a.net.env.Now())
	if l.d == up {
		return upward
	}
	return downward
}

// member is one receiver of a transmission.
type member struct {
	l    *link
	w    passing
	left float64 // bytes, with framing
	out  bool    // left the cell, or never was in it
}

// Cast sends a message to several users of one cell in one transmission, as broadcast services of radio networks do:
// each piece at the rate of the worst receiver, without acknowledgements. Receivers' links are busy meanwhile.
func (l *link) Cast(p hardware.Payload, others []hardware.Caster) ([]hardware.Delivery, []units.Bytes, error) {
	env := l.a.net.env
	if err := l.whole(p); err != nil {
		return nil, nil, err
	}
	if l.d != down {
		return nil, nil, fmt.Errorf("%s: only a base can send to many", l.Spec().Name)
	}
	group := make([]*member, 1, len(others)+1)
	group[0] = &member{l: l}
	for _, o := range others {
		k, ok := o.(*link)
		if !ok || k.a.net != l.a.net || k.d != down || slices.ContainsFunc(group, func(m *member) bool { return m.l == k }) {
			return nil, nil, fmt.Errorf("%s: cannot send to %s in one transmission: want other users' links down in the same network", l.Spec().Name, o.Spec().Name)
		}
		group = append(group, &member{l: k})
	}
	l.a.net.gather(group, float64(p.Bytes+costmodel.FrameBytes))
	cell := l.Cell()
	for l.a.net.castPiece(group, cell) {
	}
	ds, lacks := make([]hardware.Delivery, len(group)), make([]units.Bytes, len(group))
	for i, m := range group {
		m.w.sent = env.Now()
		m.l.a.debts.Settle(m.w.sent)
		got := p
		if m.left > 0 {
			lacks[i] = min(p.Bytes, units.Bytes(m.left))
			got.Bytes -= lacks[i]
			got.Data = nil
		}
		ds[i] = m.l.deliver(got, &m.w, nil)
		m.l.gate.Release()
	}
	end := ds[0].Usage.End
	for _, d := range ds {
		end = max(end, d.Usage.End)
	}
	if wait := end - env.Now(); wait > 0 {
		env.Sleep(wait)
	}
	return ds, lacks, nil
}

// gather waits for the links of all receivers, in the order of users, so that two transmissions never wait for each
// other, and for their radios to wake up.
func (n *Network) gather(group []*member, bytes float64) {
	from := n.env.Now()
	byUser := slices.Clone(group)
	slices.SortFunc(byUser, func(a, b *member) int { return a.l.a.id - b.l.a.id })
	for _, m := range byUser {
		m.l.a.debts.Settle(n.env.Now())
		if m.l.gate == nil {
			m.l.gate = world.NewSlots(n.env, 1)
		}
		m.l.gate.Acquire()
	}
	began := n.env.Now()
	wake := began
	for _, m := range group {
		m.w = passing{from: from, began: began}
		m.left = bytes
		wake = max(wake, began+m.l.a.power.Wake(began))
	}
	if wake > began {
		n.env.Sleep(wake - began)
	}
}

// castPiece moves what passes until the next look at the channel to those who are in the cell, and says whether
// anything is left to send to them. The airtime is booked with the first of them.
func (n *Network) castPiece(group []*member, cell int) bool {
	now := n.env.Now()
	worst, left := 0.0, 0.0
	var on []*member
	for _, m := range group {
		if m.out || m.left == 0 {
			continue
		}
		m.l.a.debts.Settle(now)
		if until := m.l.look(now); until > now || m.l.q.rate == 0 || m.l.q.cell != cell {
			m.out = true
			continue
		}
		m.w.q = m.l.q
		if len(on) == 0 || m.l.q.rate < worst {
			worst = m.l.q.rate
		}
		left = max(left, m.left)
		on = append(on, m)
	}
	if len(on) == 0 {
		return false
	}
	share := n.cells[cell].share[down]
	weight := n.c.Scheduler.Weight(worst)
	bytes := min(left, float64(worst*n.c.Step.Seconds()*weight)/float64(share.Load()+weight)+1)
	alone := bytes / worst
	share.Use(alone, weight)
	for _, m := range on {
		m.left = max(0, m.left-bytes)
		m.w.sending += alone
	}
	on[0].w.airtime += alone
	return true
}
