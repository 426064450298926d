package pipeline

import (
	"time"

	"meibench/hardware"
	"meibench/internal/units"
	"meibench/reference/partition"
)

// placed is a chain's problem in the terms of package partition: seconds and bytes.
// What a stage takes whatever its length counts as part of the hand-over to it,
// where a partitioner adds up; at the source it belongs to the first layer.
type placed struct {
	compute [][]float64 // layers × places
	out     []float64   // bytes after each layer
	rates   [][]float64 // bytes per second between places, hand-overs included
	need    []float64
	memory  []float64
}

// placedOver states the problem for some of the places.
func (p *chain) placedOver(places []int) placed {
	n, size := p.model.Layers, p.size
	x := placed{out: make([]float64, n)}
	for l := range n {
		row := make([]float64, len(places))
		for j, place := range places {
			row[j] = p.costs.layer[place][l].Seconds()
			switch {
			case l == 0 && j == 0:
				row[j] += p.costs.fixed[place].Seconds()
			case l == n-1: // the token's way home instead of a last hand-over
				row[j] += p.roads.time(place, 0, units.Bytes(p.tokenBytes)).Seconds()
			}
		}
		x.compute = append(x.compute, row)
		if l < n-1 {
			x.out[l] = float64(size)
		}
		x.need = append(x.need, float64(p.need(hardware.Span{Lo: l, Hi: l + 1})))
	}
	for _, from := range places {
		row := make([]float64, len(places))
		for j, to := range places {
			took := p.roads.time(from, to, size) + p.costs.fixed[to]
			row[j] = float64(size) / max(took, time.Nanosecond).Seconds()
		}
		x.rates = append(x.rates, row)
		x.memory = append(x.memory, p.memory(from))
	}
	return x
}

// memory is what a place has; a lot if it has no limit.
func (p *chain) memory(place int) float64 {
	if m := p.roads.devs[place].Spec().Memory; m > 0 {
		return float64(m)
	}
	return 1e18
}

// latency is EdgeShard's plan for one request: any layer anywhere.
func latency(p *chain, places []int) ([]stage, error) {
	x := p.placedOver(places)
	where, _, err := partition.Cluster{ComputeSec: x.compute, Out: x.out, BytesPerSec: x.rates, Need: x.need, Memory: x.memory}.LatencyDP()
	if err != nil {
		return nil, err
	}
	var out []stage
	for l, j := range where {
		if n := len(out); n > 0 && out[n-1].place == places[j] {
			out[n-1].span.Hi++
			continue
		}
		out = append(out, stage{places[j], hardware.Span{Lo: l, Hi: l + 1}})
	}
	return out, nil
}

// fleet takes every place for a type of its own.
func (p *chain) fleet(places []int) partition.Fleet {
	x := p.placedOver(places)
	f := partition.Fleet{ComputeSec: x.compute, Out: x.out, BytesPerSec: x.rates, Need: x.need, Memory: x.memory}
	for range places {
		f.Count = append(f.Count, 1)
	}
	return f
}

// throughput is EdgeShard's plan for many requests: the slowest stage or
// hand-over is as quick as can be.
func throughput(p *chain, places []int) ([]stage, error) {
	stages, _, err := p.fleet(places).Throughput()
	return named(stages, func(t int) int { return places[t] }), err
}

// linguaLinked is the pipeline of least latency in which every place has one run of layers.
func linguaLinked(p *chain, places []int) ([]stage, error) {
	stages, _, err := p.fleet(places).Latency()
	return named(stages, func(t int) int { return places[t] }), err
}

// pipeEdge is the plan for throughput over types of machines: nodes with the same
// profile are alike, and the links between two types as slow as their slowest.
func pipeEdge(p *chain, places []int) ([]stage, error) {
	kinds := [][]int{{0}} // the device is a kind of its own; of the others the first stands for all
	for j, place := range places[1:] {
		k := 1
		for ; k < len(kinds); k++ {
			if p.alike(places[kinds[k][0]], place) {
				break
			}
		}
		if k == len(kinds) {
			kinds = append(kinds, nil)
		}
		kinds[k] = append(kinds[k], j+1)
	}
	x := p.placedOver(places)
	f := partition.Fleet{Out: x.out, Need: x.need}
	for _, row := range x.compute {
		var of []float64
		for _, k := range kinds {
			of = append(of, row[k[0]])
		}
		f.ComputeSec = append(f.ComputeSec, of)
	}
	for _, from := range kinds {
		var row []float64
		for _, to := range kinds {
			row = append(row, slowest(x.rates, from, to))
		}
		f.BytesPerSec = append(f.BytesPerSec, row)
		f.Memory, f.Count = append(f.Memory, x.memory[from[0]]), append(f.Count, len(from))
	}
	stages, _, err := f.Throughput()
	return named(stages, func(t int) int {
		j := kinds[t][0]
		kinds[t] = kinds[t][1:]
		return places[j]
	}), err
}

// alike reports whether two nodes are machines of one type.
func (p *chain) alike(a, b int) bool {
	x, y := p.roads.devs[a].Spec(), p.roads.devs[b].Spec()
	return x.Memory == y.Memory && x.Digest == y.Digest && p.costs.stage(a, p.model.All()) == p.costs.stage(b, p.model.All())
}

// slowest rate between machines of two types.
func slowest(rates [][]float64, from, to []int) float64 {
	least := 1e30
	for _, i := range from {
		for _, j := range to {
			if i != j {
				least = min(least, rates[i][j])
			}
		}
	}
	return least
}

// petals lets the nodes choose blocks one after the other, each as many as its
// memory holds, and takes the quickest route. The device has the first layer, as
// a Petals client has the embedding.
func petals(p *chain, places []int) ([]stage, error) {
	blocks := p.model.Layers - 1
	if len(places) == 1 || blocks == 0 {
		return even(p, places[:1])
	}
	var servers []partition.Server
	for _, place := range places[1:] {
		slots := 0
		for slots < blocks && float64(p.need(hardware.Span{Lo: p.model.Layers - slots - 1, Hi: p.model.Layers})) <= p.memory(place) {
			slots++
		}
		if slots == 0 {
			servers = append(servers, partition.Server{BlocksPerSec: 1})
			continue
		}
		start := partition.ChooseBlocks(partition.Coverage(blocks, servers), slots)
		span := hardware.Span{Lo: start + 1, Hi: start + 1 + slots}
		rate := float64(slots) / p.costs.stage(place, span).Seconds()
		servers = append(servers, partition.Server{Start: start, End: start + slots, BlocksPerSec: rate})
	}
	size := p.size
	order := append(places[1:len(places):len(places)], 0) // the client comes last
	rtt := make([][]float64, len(order))
	for i, a := range order {
		for _, b := range order {
			rtt[i] = append(rtt[i], (p.roads.time(a, b, size) + p.roads.time(b, a, size)).Seconds())
		}
	}
	hops, _, err := partition.Route(blocks, servers, rtt)
	if err != nil {
		return nil, err
	}
	out := []stage{{0, hardware.Span{Lo: 0, Hi: 1}}}
	for _, h := range hops {
		out = append(out, stage{order[h.Server], hardware.Span{Lo: h.Start + 1, Hi: h.End + 1}})
	}
	return out, nil
}

// named turns stages of types into stages of places.
func named(stages []partition.Stage, place func(t int) int) (out []stage) {
	for _, s := range stages {
		out = append(out, stage{place(s.Type), hardware.Span{Lo: s.Lo, Hi: s.Hi}})
	}
	return out
}
