package costmodel

import (
	"meibench/hardware"
	"meibench/internal/units"
)

// wholes is the largest sum of whole numbers that float64 keeps exactly.
const wholes = 1 << 53

// stride is what a device knows of a plan that is under way.
type stride struct {
	cut func()
}

// Plan works out steps of a crowd; see hardware.Strider. A device that heats up or
// whose times spread cannot: each step would have to know the ones before it. Nor can
// one that is observed.
func (d *Device) Plan(op *hardware.Op, n int, cut func(), s *hardware.Stride) bool {
	c := op.Crowd
	if d.heat != nil || d.opt.Observe != nil || !d.law.steady(op.Model) || len(op.Seqs) > 0 || op.Kind != hardware.Decode || op.Exit != nil || op.Keep != nil || c.Seqs <= 0 || n <= 0 || !d.slots.TryAcquire() {
		return false
	}
	w := WorkOf(op)
	per := op.Model.KVBytesPerToken(op.Layers)
	grow := units.Bytes(n*c.Seqs) * per
	last := w.FLOP + float64(n)*float64(c.Seqs)*float64(4*op.Layers.Len()*op.Model.Heads*op.Model.HeadDim)
	if _, err := d.mem.hold(op.Model, op.Layers); err != nil || d.mem.limit > 0 && d.mem.used+grow > d.mem.limit || last >= wholes {
		d.slots.Release()
		return false
	}
	d.stride.cut = cut
	now := d.env.Now()
	s.Start, s.Joules = now, hardware.Modelled
	s.Ends, s.Energy, s.FLOP = s.Ends[:0], s.Energy[:0], s.FLOP[:0]
	attention := float64(float64(c.Seqs) * float64(4*op.Layers.Len()*op.Model.Heads*op.Model.HeadDim))
	cold := 0.0
	if d.law.chilled(op.Model, now-d.mood.last) {
		cold = 1
	}
	step := d.law.repeated(op, &w)
	for range n {
		cost := step.cost(op, &w)
		if wake := d.law.Wake(op, cold); wake > 0 {
			cost.Time += wake
			cost.Energy = d.law.energy(cost, cost.Time.Seconds())
		}
		cold = 0
		now += cost.Time
		s.Ends, s.Energy, s.FLOP = append(s.Ends, now), append(s.Energy, cost.Energy), append(s.FLOP, cost.FLOP)
		w.cached += c.Seqs
		w.pairs += float64(c.Seqs)
		w.FLOP += attention
		w.cache(op)
	}
	return true
}

// repeated is a law for passes that differ in context alone.
type repeated struct {
	law               *Law
	fitted            bool
	overhead, weights float64 // s
}

func (l *Law) repeated(op *hardware.Op, w *Work) repeated {
	_, fitted := l.fitted(op, w)
	return repeated{l, fitted, l.overhead(op.Model, op.Layers), float64(w.Moved) / l.weightRate}
}

// cost is workCost, of which the parts are known that do not change.
func (r *repeated) cost(op *hardware.Op, w *Work) Cost {
	if r.fitted {
		return r.law.workCost(op, w)
	}
	memory := r.weights + float64(w.KV)/r.law.kvRate
	return r.law.priced(r.overhead+max(memory, w.FLOP/r.law.flopRate), units.FLOP(w.FLOP), w.Moved+w.KV)
}

// Commit performs the first k planned steps.
func (d *Device) Commit(op *hardware.Op, k int, s *hardware.Stride) {
	d.stride.cut = nil
	d.slots.Release()
	if k == 0 {
		return
	}
	d.mem.used += units.Bytes(k*op.Crowd.Seqs) * op.Model.KVBytesPerToken(op.Layers) // Plan has seen that it fits
	d.mem.peak = max(d.mem.peak, d.mem.used)
	d.busy += s.Ends[k-1] - s.Start
	for _, e := range s.Energy[:k] {
		d.drawn += float64(e)
	}
	d.mood.last, d.mood.cold = s.Ends[k-1], 0
}

// Settle books what sequences of a crowd added to their caches as theirs.
func (d *Device) Settle(op *hardware.Op) {
	i, per := d.mem.holding(op.Model), op.Model.KVBytesPerToken(op.Layers)
	for k := range op.Seqs {
		d.mem.part(op.Seqs[k].ID, i, op.Layers).bytes = units.Bytes(op.Seqs[k].Context) * per
	}
}
