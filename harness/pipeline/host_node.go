package pipeline

import (
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/reference/placement"
	"meibench/reference/shelf"
)

// hostNode is an edge node with models in memory, and a line of requests for whose models it has yet to make room there.
type hostNode struct {
	p        *host
	number   int
	name     string
	dev      hardware.Device
	memory   *shelf.Shelf
	adapters map[string]bool // loaded on the device
	line     []*guest        // in order of arrival; what their models lack in memory is in storage
	active   int             // requests that are being answered
	wake     world.Cond
	rate     float64 // bytes per second from storage to memory
	pace     float64 // seconds of the node for a request that has its model, as they went
}

// guest is a request at a node.
type guest struct {
	need
	deadline time.Duration // 0 = none
	came     time.Duration // its turn
	in       bool          // its model is in memory and stays
	again    bool          // blocks left memory and storage meanwhile
	failed   error
	wake     world.Cond
	loading  time.Duration // of its model, for it
	context  float64       // examples that the model had
}

// loadRate is what the device says of itself, or a guess until a load has been seen.
func (n *hostNode) loadRate() float64 {
	const some = 1 << 30
	if e, ok := estimator(n.dev); ok {
		if t := e.Estimate(&hardware.Op{Kind: hardware.Load, Bytes: some}).Seconds(); t > 0 {
			return some / t
		}
	}
	return 1e9
}

// lacks are the blocks of a model that are not in memory.
func (n *hostNode) lacks(m int) []int {
	return slices.DeleteFunc(n.memory.Lacks(m), func(b int) bool { return n.p.common[b] })
}

// size is what blocks take together.
func (n *hostNode) size(blocks []int) (sum units.Bytes) {
	for _, b := range blocks {
		sum += n.p.stock.lib.Blocks[b].Bytes
	}
	return sum
}

// enter blocks until a request's model is in memory, where it stays until the request leaves.
func (n *hostNode) enter(g *guest) error {
	p := n.p
	s := &p.stock
	if len(n.lacks(g.want)) == 0 {
		g.log.Count(record.MemoryHits, 1)
	} else {
		g.log.Count(record.MemoryMisses, 1)
	}
	for first := true; ; first = false {
		g.lacks = n.lacks(g.want)
		g.held, g.again = g.lacks, false
		var err error
		if first {
			err = s.request(&g.need, n.number)
		} else {
			s.fetch(&g.need, n.number, s.hold(n.number, g.lacks), -1)
		}
		asked := p.env.Now()
		for _, b := range g.lacks {
			if err == nil {
				_, err = s.await(n.number, b)
			}
		}
		if now := p.env.Now(); now > asked {
			g.log.Spent(record.Transfer, "backhaul", asked, now)
		}
		if err != nil {
			s.release(&g.need)
			return err
		}
		n.line = append(n.line, g)
		n.wake.Signal()
		for !g.in && !g.again && g.failed == nil {
			g.wake.Wait()
		}
		s.release(&g.need)
		if !g.again {
			return g.failed
		}
	}
}

// leave ends a request.
func (n *hostNode) leave(g *guest) {
	learn(&n.pace, (n.p.env.Now()-g.came).Seconds()/float64(n.active))
	n.memory.Unpin(g.want)
	n.active--
	n.wake.Signal()
}

// run brings models to memory as the order of the line says, one after another.
func (n *hostNode) run() {
	for {
		m := n.pick()
		if m < 0 {
			n.wake.Wait()
			continue
		}
		lacks := n.lacks(m)
		switch {
		case len(lacks) == 0:
			n.memory.Put(m) // if others had all its blocks, it is a model of its own now
			n.admit(m)
		case slices.ContainsFunc(lacks, func(b int) bool { return !n.p.stock.has(n.number, b) }):
			n.dismiss(m, func(g *guest) { g.again = true })
		default:
			n.load(m, lacks)
		}
	}
}

// pick is the model to serve next, -1 if nobody waits or there is no room for what is next.
func (n *hostNode) pick() int {
	if len(n.line) == 0 {
		return -1
	}
	next := n.line[0].want
	switch n.p.order {
	case "resident":
		for _, g := range n.line {
			if len(n.lacks(g.want)) == 0 && n.memory.Fits(g.want) {
				return g.want
			}
		}
	case "partial":
		return n.partial()
	}
	if !n.memory.Fits(next) {
		return -1
	}
	return next
}

// partial is the model that serves the most requests per second of loading and serving, of those for which there is room; only
// requests that can still meet their deadlines count, if any can.
func (n *hostNode) partial() int {
	now := n.p.env.Now()
	best, at := 0.0, -1
	oldest := -1
	for i, g := range n.line {
		if slices.ContainsFunc(n.line[:i], func(o *guest) bool { return o.want == g.want }) || !n.memory.Fits(g.want) {
			continue
		}
		if oldest < 0 {
			oldest = g.want
		}
		load := float64(n.size(n.lacks(g.want))) / n.rate
		tasks := 0
		for _, o := range n.line[i:] {
			if done := now + units.Seconds(load+float64(n.pace*float64(tasks+1))); o.want == g.want && tasks < n.p.batch && (o.deadline == 0 || done <= o.deadline) {
				tasks++
			}
		}
		if rate := placement.PerSecond(tasks, load, n.pace); tasks > 0 && rate > best {
			best, at = rate, g.want
		}
	}
	if at < 0 {
		return oldest
	}
	return at
}

// admit lets requests of a model in memory go on: of the line, all; in turn, the first.
func (n *hostNode) admit(m int) {
	left := n.line[:0]
	for i, g := range n.line {
		if g.want != m || n.p.order == "fifo" && i > 0 {
			left = append(left, g)
			continue
		}
		g.context = n.memory.Context(m)
		g.log.Count(record.FreshContext, int64(1000*g.context))
		n.memory.Ask(m)
		n.memory.Pin(m)
		n.active++
		g.in, g.came = true, n.p.env.Now()
		g.wake.Signal()
	}
	clear(n.line[len(left):])
	n.line = left
}

// dismiss takes the requests of a model out of the line.
func (n *hostNode) dismiss(m int, why func(g *guest)) {
	n.line = slices.DeleteFunc(n.line, func(g *guest) bool {
		if g.want == m {
			why(g)
			g.wake.Signal()
		}
		return g.want == m
	})
}

// load brings a model to memory for the first in line who wants it.
func (n *hostNode) load(m int, lacks []int) {
	i := slices.IndexFunc(n.line, func(g *guest) bool { return g.want == m })
	g := n.line[i]
	n.memory.Put(m)
	n.memory.Pin(m)
	n.trim()
	used, err := n.bring(m, lacks)
	n.memory.Unpin(m)
	if err != nil {
		n.memory.Remove(m)
		n.trim()
		n.dismiss(m, func(g *guest) { g.failed = err })
		return
	}
	n.p.switches++
	size := n.size(lacks)
	if t := used.End - used.Start; t > 0 {
		n.rate += (float64(size)/t.Seconds() - n.rate) / 4
	}
	g.loading = used.End - used.Start
	g.log.Count(record.LoadTime, int64(g.loading))
	g.log.Count(record.LoadBytes, int64(size))
	note(g.log, record.EdgePart, used, 1)
	for _, o := range n.line {
		if o.want == m {
			o.log.Spent(record.Compute, n.name, used.Start, used.End)
		}
	}
}

// trim drops adapters from the device that have left memory.
func (n *hostNode) trim() {
	lib := n.p.stock.lib
	for i, m := range lib.Models {
		if m.Adapter == "" || !n.adapters[m.Adapter] || n.memory.Has(n.p.adapterBlock(i)) {
			continue
		}
		delete(n.adapters, m.Adapter)
		shape := n.p.variants[i].Model
		_, _ = n.dev.Run(&hardware.Op{Kind: hardware.Drop, Model: shape, Layers: shape.All(), Seqs: []hardware.Seq{{Adapter: m.Adapter}}})
	}
}

// bring runs the loads of what memory lacks of a model: its adapter, and the rest.
func (n *hostNode) bring(m int, lacks []int) (total hardware.Usage, err error) {
	shape, adapter := n.p.variants[m].Model, n.p.stock.lib.Models[m].Adapter
	total.Start, total.Joules = n.p.env.Now(), hardware.Modelled
	add := func(op hardware.Op) {
		if err != nil {
			return
		}
		var res hardware.Result
		if res, err = n.dev.Run(&op); err == nil {
			total.Energy += res.Usage.Energy
			total.Joules = min(total.Joules, res.Usage.Joules)
			total.FLOP += res.Usage.FLOP
		}
	}
	rest := lacks
	if adapter != "" {
		b := n.p.adapterBlock(m)
		if slices.Contains(lacks, b) {
			rest = slices.DeleteFunc(slices.Clone(lacks), func(x int) bool { return x == b })
			add(hardware.Op{Kind: hardware.Load, Model: shape, Layers: shape.All(), Bytes: shape.AdapterBytes(shape.All()), Seqs: []hardware.Seq{{Adapter: adapter, In: n.p.stock.payload(b)}}})
			n.adapters[adapter] = err == nil
		}
	}
	if size := n.size(rest); size > 0 {
		add(hardware.Op{Kind: hardware.Load, Model: shape, Layers: shape.All(), Bytes: size})
	}
	total.End = n.p.env.Now()
	return total, err
}

// adapterBlock is the block that is a model's adapter.
func (p *host) adapterBlock(m int) int {
	lib := p.stock.lib
	i := slices.IndexFunc(lib.Models[m].Blocks, func(b int) bool { return lib.Blocks[b].Name == lib.Models[m].Adapter })
	return lib.Models[m].Blocks[i]
}
