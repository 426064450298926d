package pipeline

import (
	"meibench/hardware"
	"meibench/internal/units"
	"meibench/reference/orchestrate"
)

// instance is the problem as it is observed: groups of users as users, replicas as
// nodes that batch, tokens as work.
func (p *orchestrator) instance() orchestrate.Instance {
	rs := p.rs
	m := rs.held.Model
	in := orchestrate.Instance{Refusal: 60, Want: p.want, Bandwidth: p.rule, Cells: []orchestrate.Cell{{Name: "cell", UpHz: p.cell}},
		Models: []orchestrate.Model{{Name: m.Name, Bytes: float64(m.WeightBytes(m.All())), PromptWork: 1, OutputWork: 1}}}
	prompt, output := max(rs.typicalPrompt(), 1), max(rs.typicalOutput(), 1)
	for _, r := range rs.list {
		_, gain := rs.solo(r, prompt, output)
		n := p.node(r.node.Device, prompt, output)
		n.Name, n.Cloud, n.Batch, n.Gain, n.Price, n.Down = r.node.Name, r.node.Role == hardware.CloudRole, true, gain, 1, r.state == dead
		size := units.Bytes(0)
		if rs.asked > 0 {
			size = units.Bytes(rs.prompts / rs.asked * 4)
		}
		n.Away = []float64{(rs.roads.time(rs.door, r.place, size) + rs.roads.time(r.place, rs.door, units.Bytes(rs.tokenBytes))).Seconds()}
		if w, ok := r.node.Device.(interface{ CostWeight() float64 }); ok {
			n.Weight = w.CostWeight()
		}
		in.Nodes = append(in.Nodes, n)
	}
	for i := range p.groups {
		in.Users = append(in.Users, p.asked(i, prompt, output))
	}
	return in
}

// asked is a group as a user of the instance. A group that nobody asked for has a rate
// that decides nothing.
func (p *orchestrator) asked(i, prompt, output int) orchestrate.User {
	g, any := &p.groups[i], p.rs.site.User(0)
	u := orchestrate.User{Name: [...]string{"0", "1", "2", "3", "4", "5"}[i], Rate: max(g.rate, 1e-6), UpEff: 1, DownEff: 1,
		Prompt: float64(prompt), Output: float64(output), Deadline: g.deadline.Seconds(), Class: p.class, People: float64(max(len(g.users), 1))}
	size := units.Bytes(0)
	if g.seen > 0 {
		u.Prompt, size = float64(g.prompt)/float64(g.seen), units.Bytes(g.bytes/g.seen)
		u.UpBits = 8 * float64(size)
	}
	u.Access = (across(any.Up, size) + across(any.Down, units.Bytes(p.rs.tokenBytes))).Seconds()
	if p.able() {
		u.Device = p.node(any.Device, prompt, output)
	}
	return u
}

// node is how quick a device is, in tokens per second.
func (p *orchestrator) node(dev hardware.Device, prompt, output int) orchestrate.Node {
	per := p.pacesOf(dev, prompt, output)
	n := orchestrate.Node{Memory: float64(dev.Spec().Memory)}
	if n.Memory == 0 {
		n.Memory = 1e18 // no limit
	}
	if per[0] > 0 && per[1] > 0 {
		n.PromptRate, n.OutputRate = 1/per[0], 1/per[1]
	}
	return n
}

// pacesOf are seconds per prompt token and per output token: a modelled device's word, or a
// short probe, once.
func (p *orchestrator) pacesOf(dev hardware.Device, prompt, output int) [2]float64 {
	m := p.rs.held.Model
	if e, ok := estimator(dev); ok {
		op := hardware.Op{Kind: hardware.Prefill, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: prompt}}}
		first := e.Estimate(&op).Seconds() / float64(prompt)
		op.Kind, op.Seqs[0] = hardware.Decode, hardware.Seq{Context: prompt + output/2, New: 1}
		return [2]float64{first, e.Estimate(&op).Seconds()}
	}
	if per, ok := p.pace[dev]; ok {
		return per
	}
	p.pace[dev] = [2]float64{} // whoever comes while it is probed
	const tokens = 16
	op := hardware.Op{Kind: hardware.Prefill, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{ID: -1, New: tokens, Tokens: make([]int32, tokens)}}}
	var per [2]float64
	if res, err := dev.Run(&op); err == nil {
		per[0] = (res.Usage.End - res.Usage.Start).Seconds() / tokens
		next(&op, 0)
		if res, err := dev.Run(&op); err == nil {
			per[1] = (res.Usage.End - res.Usage.Start).Seconds()
		}
	}
	drop(dev, &op)
	if per[1] == 0 {
		delete(p.pace, dev) // it was down: ask again
		return per
	}
	p.pace[dev] = per
	return per
}
