package pipeline

import (
	"meibench/hardware"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/reference/placement"
)

// source is the nearest other edge node by number that has a block, the one preferred first; -1 if none has.
func (s *stock) source(node, b, prefer int) int {
	if prefer >= 0 && prefer != node && s.has(prefer, b) {
		return prefer
	}
	for d := 1; d < len(s.depots); d++ {
		for _, at := range [...]int{node - d, node + d} {
			if at >= 0 && at < len(s.depots) && s.depots[at] != nil && s.has(at, b) {
				return at
			}
		}
	}
	return -1
}

// fetch brings blocks to a node, from each source one after another in order.
func (s *stock) fetch(x *need, node int, blocks []int, prefer int) {
	bySource := map[string][]int{}
	var names []string
	for _, b := range blocks {
		from := s.from(node, b, prefer)
		if bySource[from] == nil {
			names = append(names, from)
		}
		bySource[from] = append(bySource[from], b)
	}
	for _, from := range names {
		s.env.Go("fetch", func() { s.carry(x, from, node, bySource[from]) })
	}
}

// from is the server that a node gets a block from, the preferred one if it has it.
func (s *stock) from(node, b, prefer int) string {
	if s.quickest && (prefer < 0 || prefer == node || !s.has(prefer, b)) {
		return s.soonest(node, b)
	}
	if s.cooperate || prefer >= 0 {
		if at := s.source(node, b, prefer); at >= 0 && (s.cooperate || at == prefer) {
			return s.depots[at].name
		}
	}
	return s.cloud
}

// soonest is the server from which a block would be at a node first, behind what is on its way from there; it is taken to be on its way
// from now on. Blocks of one size that are asked for one after another are so shared among sources that the last comes as early
// as it can.
func (s *stock) soonest(node, b int) string {
	now, to := s.env.Now(), s.depots[node].name
	var tiers []placement.Tier
	add := func(from string) {
		if l, err := s.site.Between(from, to); err == nil {
			spec := l.Spec()
			queue := max(s.busy[[2]string{from, to}]-now, 0) + spec.Delay
			tiers = append(tiers, placement.Tier{Name: from, Queue: queue.Seconds(), Rate: spec.BytesPerSec})
		}
	}
	if s.cooperate {
		for at, d := range s.depots {
			if d != nil && at != node && s.has(at, b) {
				add(d.name)
			}
		}
	}
	add(s.cloud)
	size := float64(s.lib.Blocks[b].Bytes)
	at, _, err := placement.Quickest(tiers, size)
	if err != nil { // no way there: carrying it says so
		return s.cloud
	}
	way := [2]string{tiers[at].Name, to}
	s.busy[way] = max(s.busy[way], now) + units.Seconds(size/tiers[at].Rate)
	return tiers[at].Name
}

// carry moves blocks from a server to a node, one behind the other.
func (s *stock) carry(x *need, from string, node int, blocks []int) {
	link, err := s.site.Between(from, s.depots[node].name)
	var stream hardware.Stream
	if err == nil {
		stream = link.Open()
		for _, b := range blocks {
			stream.Write(s.payload(b))
		}
		stream.Close(nil)
	}
	for _, b := range blocks {
		if err == nil {
			var d hardware.Delivery
			if d, _, err = stream.Read(); err == nil {
				err = s.verify(b, d.Payload.Data)
			}
			if err == nil {
				s.moved += d.Payload.Bytes
				x.count(record.BackhaulBytes, int64(d.Payload.Bytes))
			}
		}
		s.came(x, node, b, err)
	}
}
