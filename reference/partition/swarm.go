package partition

import (
	"fmt"
	"math"
	"slices"
)

// Server is a member of a swarm that serves blocks [Start, End) of a model, as in Petals (Borzunov et al., ACL 2023).
type Server struct {
	Start, End   int
	BlocksPerSec float64
	Full         bool // has no room for another cache
}

// Costs of a hop beside half a round trip, as in Petals' own router.
const (
	HopSec  = 0.018 // to pack and unpack a message
	FullSec = 10.0  // penalty for a server that is full
)

// Coverage is the throughput of each block: the sum over the servers that hold it.
func Coverage(blocks int, servers []Server) []float64 {
	out := make([]float64, blocks)
	for _, s := range servers {
		for b := s.Start; b < s.End; b++ {
			out[b] += s.BlocksPerSec
		}
	}
	return out
}

// ChooseBlocks is the start at which a server that holds slots blocks helps most: where the throughputs of the blocks, from the
// weakest up, are least; the first among equals.
func ChooseBlocks(coverage []float64, slots int) (start int) {
	var least []float64
	for at := 0; at+slots <= len(coverage); at++ {
		window := slices.Sorted(slices.Values(coverage[at : at+slots]))
		if least == nil || slices.Compare(window, least) < 0 {
			start, least = at, window
		}
	}
	return start
}

// Rebalances says whether server self should move: it leaves, chooses anew, the others then move in turn until nobody wants to,
// and the weakest block's throughput now is under quality (0.75 in Petals) of what it is then. If a block would be left without
// a server while self moves, it stays. The others move in the order in which they stand, where Petals draws an order.
func Rebalances(blocks int, servers []Server, self int, quality float64) bool {
	now := slices.Min(Coverage(blocks, servers))
	after := slices.Clone(servers)
	if alone := slices.Delete(slices.Clone(servers), self, self+1); slices.Min(Coverage(blocks, alone)) <= 0 {
		return false
	}
	if !move(blocks, after, self) {
		return false
	}
	for range len(servers) { // moves can go in circles
		moved := false
		for i := range after {
			moved = move(blocks, after, i) || moved
		}
		if !moved {
			break
		}
	}
	then := slices.Min(Coverage(blocks, after))
	return now < float64(quality*then)
}

// move lets server i choose its blocks anew and says whether it changed them.
func move(blocks int, servers []Server, i int) bool {
	s := &servers[i]
	others := Coverage(blocks, slices.Delete(slices.Clone(servers), i, i+1))
	start := ChooseBlocks(others, s.End-s.Start)
	changed := start != s.Start
	s.Start, s.End = start, start+s.End-s.Start
	return changed
}

// Hop is a server on a route and the blocks that it runs.
type Hop struct{ Server, Start, End int }

// Route is the quickest chain of servers through all blocks and its seconds a token. A server once entered runs to its end. rttSec has
// one row more than there are servers, the last one for the client. The graph of (server, block entered at) has no circles, so
// one pass in order of blocks settles every node, as Dijkstra's algorithm would.
//
//	rttSec: (servers+1, servers+1)
func Route(blocks int, servers []Server, rttSec [][]float64) ([]Hop, float64, error) {
	type node struct {
		sec          float64
		from, before int // server and block at which it was entered
	}
	client := len(servers)
	best := make([][]node, blocks+1) // by block entered at, then by server; blocks: the result is back at the client
	for b := range best {
		best[b] = slices.Repeat([]node{{sec: math.Inf(1)}}, client+1)
	}
	relax := func(b, to int, n node) {
		if n.sec < best[b][to].sec {
			best[b][to] = n
		}
	}
	reach := func(b, from, before int, sec float64) {
		if b == blocks {
			relax(b, client, node{sec + rttSec[from][client]/2, from, before})
			return
		}
		for to, s := range servers {
			if s.Start <= b && b < s.End {
				relax(b, to, node{sec + hopSec(s, rttSec[from][to]), from, before})
			}
		}
	}
	reach(0, client, 0, 0)
	for b := range blocks {
		for s, n := range best[b][:client] {
			if !math.IsInf(n.sec, 1) {
				reach(servers[s].End, s, b, n.sec+float64(servers[s].End-b)/servers[s].BlocksPerSec)
			}
		}
	}
	last := best[blocks][client]
	if math.IsInf(last.sec, 1) {
		return nil, 0, fmt.Errorf("route through a swarm: no chain of servers covers blocks 0 to %d: wait for a server to join or to move", blocks-1)
	}
	var hops []Hop
	for s, b := last.from, last.before; s != client; {
		hops = append([]Hop{{s, b, servers[s].End}}, hops...)
		s, b = best[b][s].from, best[b][s].before
	}
	return hops, last.sec, nil
}

func hopSec(s Server, rttSec float64) float64 {
	sec := rttSec/2 + HopSec
	if s.Full {
		sec += FullSec
	}
	return sec
}

// ExtraChainSec and ExtraStarSec are what a step through n servers gains in time when every round trip grows by moreSec: n + 1
// half trips if the servers hand on to each other, n whole ones if each answers the client.
func ExtraChainSec(n int, moreSec float64) float64 { return float64(float64(n+1) / 2 * moreSec) }

// ExtraStarSec is the other end of the bracket, see ExtraChainSec.
func ExtraStarSec(n int, moreSec float64) float64 { return float64(float64(n) * moreSec) }
