package pipeline

import (
	"fmt"
	"math"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
)

// edges are the servers of a site's edge nodes, each started when it is first used:
// a thousand that nobody asks cost nothing.
type edges struct {
	who     string
	env     world.Env
	site    *hardware.Site
	options serving.Options
	held    serving.Held
	first   int               // index of the first edge node
	servers []*serving.Server // by index of the node; nil = not started
}

// start starts the server of the first edge node, where what is wrong with a model
// or a device shows. Every edge node must offer needs, or Prefill and Decode.
func (e *edges) start(needs ...hardware.Kind) (*edges, error) {
	if len(needs) == 0 {
		needs = []hardware.Kind{hardware.Prefill, hardware.Decode}
	}
	who, site := e.who, e.site
	e.first, e.servers = -1, make([]*serving.Server, len(site.Nodes))
	for i := range site.Nodes {
		n := &site.Nodes[i]
		if n.Role != hardware.EdgeRole {
			continue
		}
		if e.first < 0 {
			e.first = i
		}
		if err := hardware.Needs("pipeline "+who+": edge", n.Device, needs...); err != nil {
			return nil, err
		}
	}
	if e.first < 0 {
		_, err := site.First(hardware.EdgeRole)
		return nil, err
	}
	_, err := e.at(e.first)
	return e, err
}

// at is the server of a node.
func (e *edges) at(node int) (*serving.Server, error) {
	if node < 0 || node >= len(e.servers) || e.site.Nodes[node].Role != hardware.EdgeRole {
		return nil, fmt.Errorf("pipeline %s: site %q has no edge node of number %d", e.who, e.site.Name, node)
	}
	if e.servers[node] == nil {
		s, err := serving.New(e.env, e.site.Nodes[node], e.options, e.held)
		if err != nil {
			return nil, err
		}
		e.servers[node] = s
	}
	return e.servers[node], nil
}

// near is the edge node where a user's radio ends now.
func (e *edges) near(user *hardware.User) int {
	if user.Near == nil {
		return e.first
	}
	return user.Near()
}

// of is the server of that node; the record notes it where there are cells.
func (e *edges) of(user *hardware.User, log *record.Request) (*serving.Server, error) {
	node := e.near(user)
	if user.Near != nil {
		log.Counts[record.Place] = int64(node) + 1
	}
	return e.at(node)
}

// Figures are those of all servers together.
func (e *edges) Figures() map[string]float64 {
	sum, operations, sequences := map[string]float64{}, 0, 0
	for _, s := range e.servers {
		if s == nil {
			continue
		}
		for name, v := range s.Figures() {
			if name == "batch_max" {
				sum[name] = math.Max(sum[name], v)
			} else {
				sum[name] += v
			}
		}
		st := s.Stats()
		operations, sequences = operations+st.Operations, sequences+st.Sequences
	}
	sum["batch_mean"] = float64(sequences) / float64(max(operations, 1))
	return sum
}
