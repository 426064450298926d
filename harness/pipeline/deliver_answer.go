package pipeline

import (
	"cmp"
	"slices"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/reference/library"
)

// answer runs the model on the device as it comes.
func (x *order) answer() error {
	if err := x.load(); err != nil {
		return err
	}
	defer x.unload()
	if x.p.progress == "layers" {
		return x.piecewise()
	}
	n := x.first()
	if err := x.await(func() bool { return x.complete(n) }); err != nil {
		return err
	}
	x.transfers(n)
	if err := x.adapt(); err != nil {
		return err
	}
	x.grade()
	op := hardware.Op{Kind: hardware.Prefill, Model: x.p.model, Layers: x.p.model.All(), Seqs: []hardware.Seq{x.prompt()}}
	return alone(x.user.Device, &op, x.req.OutputTokens, x.log, func(out hardware.Out, u hardware.Usage) { emit(x.log, u, out.Token) })
}

// load brings what the device has in storage to memory, unless the same model ran last.
func (x *order) load() error {
	h := x.p.phone(x.req.User)
	if h.ready == x.want {
		return nil
	}
	held := units.Bytes(0)
	for b, c := range x.came {
		if c.here && !x.p.common[b] { // what is resident is in memory already
			held += x.p.lib().Blocks[b].Bytes
		}
	}
	if held == 0 {
		return nil
	}
	res, err := x.user.Device.Run(&hardware.Op{Kind: hardware.Load, Model: x.p.model, Layers: x.p.model.All(), Bytes: held})
	if err != nil {
		return err
	}
	x.log.Spent(record.Compute, "device", res.Usage.Start, res.Usage.End)
	note(x.log, record.DevicePart, res.Usage, 1)
	return nil
}

// prompt is the request as a sequence for the model, with its adapter.
func (x *order) prompt() hardware.Seq {
	return hardware.Seq{ID: int64(x.req.ID), New: x.req.PromptTokens, Tokens: x.req.Prompt, Adapter: x.p.lib().Models[x.want].Adapter}
}

// adapt loads the adapter of the model when it has come, once.
func (x *order) adapt() error {
	name := x.p.lib().Models[x.want].Adapter
	if name == "" || x.adapted {
		return nil
	}
	b := slices.IndexFunc(x.p.lib().Blocks, func(k library.Block) bool { return k.Name == name })
	if !x.has(b) {
		return nil
	}
	file := x.p.stock.payload(b)
	if data := x.came[b].data; data != nil {
		file.Data = data // as it came
	}
	m := x.p.model
	op := hardware.Op{Kind: hardware.Load, Model: m, Layers: m.All(), Bytes: m.AdapterBytes(m.All()), Seqs: []hardware.Seq{{Adapter: name, In: file}}}
	res, err := x.user.Device.Run(&op)
	if err != nil {
		return err
	}
	x.adapted = true
	x.log.Spent(record.Compute, "device", res.Usage.Start, res.Usage.End)
	note(x.log, record.DevicePart, res.Usage, 1)
	return nil
}

// unload drops the adapter from the device's memory.
func (x *order) unload() {
	if x.adapted {
		m := x.p.model
		_, _ = x.user.Device.Run(&hardware.Op{Kind: hardware.Drop, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{Adapter: x.p.lib().Models[x.want].Adapter}}})
	}
}

// transfers accounts the time in which the first n blocks came: to the node near the user, then in line, then by radio.
func (x *order) transfers(n int) {
	var list []came
	for _, b := range x.p.lib().Models[x.want].Blocks[:n] {
		if c := x.came[b]; c.to > 0 {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b came) int { return cmp.Compare(a.to, b.to) })
	for _, c := range list {
		if at := x.log.Reached(); c.ready > at {
			x.log.Spent(record.Transfer, "backhaul", at, c.ready)
		}
		x.log.Spent(record.Transfer, "down", c.from, c.to)
	}
}

// grade notes the quality of what the device answers with, where the library knows it.
func (x *order) grade() {
	m := &x.p.lib().Models[x.want]
	r := len(m.Rungs) - 1
	if r < 0 {
		return
	}
	for r > 0 && !x.complete(m.Rungs[r].Blocks) {
		r--
	}
	x.log.Quality = m.Rungs[r].Quality
}

// piecewise computes the prompt layer by layer as the layers arrive, and answers when all have.
func (x *order) piecewise() error {
	dev, m := x.user.Device, x.p.model
	op := hardware.Op{Kind: hardware.Prefill, Model: m, Seqs: []hardware.Seq{x.prompt()}}
	spans := pieces(m.Layers, x.p.pieces)
	defer func() {
		for _, op.Layers = range spans {
			drop(dev, &op)
		}
	}()
	for made := 1; ; made++ {
		var out hardware.Out
		var used hardware.Usage
		for _, span := range spans {
			if n := x.blocksBelow(span.Hi); made == 1 {
				if err := x.await(func() bool { return x.complete(n) }); err != nil {
					return err
				}
				x.transfers(n)
				if err := x.adapt(); err != nil {
					return err
				}
			}
			op.Layers = span
			res, err := dev.Run(&op)
			if err != nil {
				return err
			}
			out, used = res.Seqs[0], res.Usage
			x.log.Spent(record.Compute, "device", used.Start, used.End)
			note(x.log, record.DevicePart, used, 1)
			op.Seqs[0].Tokens, op.Seqs[0].In = nil, out.Hidden
		}
		if made == 1 {
			x.grade()
		}
		emit(x.log, used, out.Token)
		if out.End || made >= x.req.OutputTokens {
			return nil
		}
		next(&op, out.Token)
	}
}

// pieces cuts layers into so many spans of about equal length.
func pieces(layers, n int) (out []hardware.Span) {
	n = min(n, layers)
	for i := range n {
		out = append(out, hardware.Span{Lo: layers * i / n, Hi: layers * (i + 1) / n})
	}
	return out
}

// blocksBelow is how many of the model's first blocks are needed to compute the layers below hi.
func (x *order) blocksBelow(hi int) int {
	lib := x.p.lib()
	blocks := lib.Models[x.want].Blocks
	if hi >= x.p.model.Layers {
		return len(blocks)
	}
	depth, n := 0, 0
	for _, b := range blocks {
		depth = max(depth, lib.Blocks[b].Hi)
	}
	hi = (hi*depth + x.p.model.Layers - 1) / x.p.model.Layers // a library may be of a model of another depth
	for i, j := range blocks {
		if b := lib.Blocks[j]; b.Lo < b.Hi && b.Lo < hi {
			n = i + 1
		}
	}
	return n
}
