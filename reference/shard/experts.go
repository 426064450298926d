package shard

import (
	"fmt"
	"math"

	"meibench/internal/units"
	"meibench/reference/llm"
)

// Experts puts the experts of a mixture on nodes. The root runs everything else, sends each token's state to the nodes of
// the experts that it chose, and adds what comes back, in the order of experts: with Drop 0 its logits are those of one node,
// bit for bit.
type Experts struct {
	Owner   []int     // node of each expert; -1 is the root itself
	Seconds []float64 // of each node: time for one token there and back, link included

	// Drop leaves out an expert whose share of the token per second is below this fraction of the best of those chosen: 0
	// drops nothing, 1 keeps the best only. What is left is scaled up to the shares that were. The root's experts cost
	// nothing and stay. The ratio is WDMoE's weight-to-latency ratio; this rule with it is assumed.
	Drop float64

	// Counts since Attach.
	Sent    units.Bytes // states to nodes and back, in F32
	Chosen  int         // (token, layer, expert) that routers chose
	Dropped int         // of these
	Wait    float64     // s: Σ over calls and layers of the slowest node's time for its tokens

	nodes []*llm.Work
	busy  []float64 // of each node in the present layer
	weigh []float64
}

// Attach makes a Work run its mixture on nodes. Each node has a Work of its own (llm.Work.Expert) on the same weights; the
// same Work may stand for several. Setting the root's Route and Remote to nil undoes it.
func (e *Experts) Attach(root *llm.Work, nodes []*llm.Work) error {
	m := root.Model
	if len(e.Owner) != m.Experts || m.Experts == 0 || len(e.Seconds) != len(nodes) || !(e.Drop >= 0 && e.Drop <= 1) {
		return fmt.Errorf("expert parallel: %d owners for %d experts, %d times for %d nodes, drop below %g: want one each, and 0 to 1",
			len(e.Owner), m.Experts, len(e.Seconds), len(nodes), e.Drop)
	}
	for i, n := range e.Owner {
		if n < -1 || n >= len(nodes) {
			return fmt.Errorf("expert parallel: expert %d is on node %d, want -1 to %d", i, n, len(nodes)-1)
		}
	}
	for i, s := range e.Seconds {
		if !(s > 0) || math.IsInf(s, 0) {
			return fmt.Errorf("expert parallel: node %d takes %g s a token, want more than 0", i, s)
		}
	}
	e.nodes, e.busy, e.weigh = nodes, make([]float64, len(nodes)), make([]float64, m.ExpertsUsed)
	root.Route, root.Remote = e.route, e.remote
	return nil
}

// route counts, and drops what is not worth its time.
func (e *Experts) route(layer, row int, chosen []int32, share []float32) {
	if row == 0 {
		e.Flush()
	}
	e.Chosen += len(chosen)
	if e.Drop == 0 {
		return
	}
	best := 0.0
	for i, c := range chosen {
		e.weigh[i] = math.Inf(1)
		if n := e.Owner[c]; n >= 0 {
			e.weigh[i] = float64(share[i]) / e.Seconds[n]
			best = max(best, e.weigh[i])
		}
	}
	var all, left float32
	for i := range chosen {
		all += share[i]
		if e.weigh[i] < float64(e.Drop*best) {
			chosen[i] = -1
			e.Dropped++
			continue
		}
		left += share[i]
	}
	if left < all && left > 0 {
		for i := range share {
			share[i] *= all / left
		}
	}
}

// remote runs an expert where it lives. The state crosses as a copy, as it would on a link.
func (e *Experts) remote(layer, expert int, out, x []float32, T int) bool {
	n := e.Owner[expert]
	if n < 0 {
		return false
	}
	e.Sent += units.Bytes(2 * 4 * len(x))
	e.busy[n] += float64(float64(T) * e.Seconds[n])
	e.nodes[n].Expert(layer, expert, out, append([]float32(nil), x...), T)
	return true
}

// Flush ends the layer that is being counted, so that Wait is complete; call it before reading Wait.
func (e *Experts) Flush() {
	slowest := 0.0
	for i, b := range e.busy {
		slowest = max(slowest, b)
		e.busy[i] = 0
	}
	e.Wait += slowest
}
