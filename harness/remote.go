package harness

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"meibench/hardware"
	"meibench/hardware/agent"
	"meibench/hardware/kernel"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/harness/results"
)

// away is a node whose device is on another machine.
type away struct {
	node   string
	device *agent.Device
}

// Loaded is the model as an agent's device takes it. It has weights.
func (m *Model) Loaded() kernel.Loaded { return m.loaded() }

// withAgents puts the lab's agents in the place of a site's nodes. The way to
// them is the real network.
func (l *Lab) withAgents(s *profiles.SiteSheet, mode string) (*profiles.SiteSheet, error) {
	if len(l.Agents) == 0 || mode != "measured" {
		return s, nil
	}
	with := *s
	with.Nodes, with.Links = slices.Clone(s.Nodes), slices.Clone(s.Links)
	var have []string
	found := 0
	for i := range with.Nodes {
		p := &with.Nodes[i]
		have = append(have, p.Name)
		a, ok := l.Agents[p.Name]
		if !ok {
			continue
		}
		found++
		p.Device, p.Served, p.Agent = "", nil, &a
		for k := range with.Links {
			if w := &with.Links[k]; w.From == p.Name || w.To == p.Name {
				w.Link, w.ExtraRTT = profiles.RealLink, nil
			}
		}
	}
	if found < len(l.Agents) {
		return nil, fmt.Errorf("site %q has nodes %s: none of them for agents %s (--agent NODE=HOST:PORT)", s.Name, strings.Join(have, ", "),
			strings.Join(slices.Sorted(maps.Keys(l.Agents)), ", "))
	}
	return &with, nil
}

// fitsAgents refuses modes in which an agent has no meaning.
func (s *setup) fitsAgents() error {
	if s.cell.Mode == "measured" {
		user := s.site.User().Name
		for _, w := range s.site.Links {
			if w.Link == profiles.RealLink && w.From == user && (s.cell.RTT > 0 || s.cell.Mbps > 0) {
				return fmt.Errorf("site %q: the link from %q is the real network: rtt and mbps have no meaning there", s.site.Name, user)
			}
		}
		return nil
	}
	for _, p := range s.site.Nodes {
		if p.Agent != nil && p.Device == "" {
			return fmt.Errorf("node %q of site %q is an agent on another machine, of which nothing is known but what it measures: mode measured only, not %s (or give the node a device profile too)",
				p.Name, s.site.Name, s.cell.Mode)
		}
	}
	for _, w := range s.site.Links {
		if w.Link == profiles.RealLink {
			return fmt.Errorf("the link from %q to %q of site %q is the real network: mode measured only, not %s", w.From, w.To, s.site.Name, s.cell.Mode)
		}
	}
	return nil
}

// away reports whether a node's device is an agent's in this cell.
func (b *builder) away(p profiles.Place) bool { return p.Agent != nil && b.set.cell.Mode == "measured" }

// agent connects to a node's agent. One that answered earlier in the run may be
// down now: its operations then fail, and the run goes on.
func (b *builder) agent(p profiles.Place) (hardware.Device, error) {
	cfg := agent.Config{Name: p.Name, Address: p.Agent.Address, Models: []*hardware.Model{b.set.model.Spec}, Version: b.lab.Version,
		Credentials: agent.Credentials{Cert: p.Agent.Cert, Key: p.Agent.Key, CA: p.Agent.CA, ServerName: p.Agent.ServerName, Insecure: p.Agent.Insecure}}
	if b.set.small != nil {
		cfg.Models = append(cfg.Models, b.set.small.Spec)
	}
	key := cfg.Address
	for _, m := range cfg.Models {
		key += " " + m.Digest
	}
	if k, ok := b.lab.known[key]; ok {
		cfg.Known = &k
	}
	d, err := agent.Dial(b.env.(*world.Real), cfg)
	if err != nil {
		return nil, err
	}
	if b.lab.known == nil {
		b.lab.known = map[string]agent.Known{}
	}
	b.lab.known[key] = d.Known()
	b.agents = append(b.agents, away{p.Name, d})
	return d, nil
}

// real makes both directions of a link that is the real network.
func (b *builder) real(w profiles.Wire, user int) (up, down hardware.Link, err error) {
	env, ok := b.env.(*world.Real)
	if !ok {
		return nil, nil, fmt.Errorf("link %s to %s is the real network: mode measured only", w.From, w.To)
	}
	name := fmt.Sprint(w.From, " ", user)
	return agent.NewLink(env, name+" up"), agent.NewLink(env, name+" down"), nil
}

// reports says what became known of the agents of a run.
func (b *builder) reports() (list []results.Agent) {
	for _, a := range b.agents {
		p := a.device.Peer()
		t := p.Traffic
		r := results.Agent{Site: b.set.site.Name, Node: a.node, Address: p.Address, Version: p.Version, TLS: p.TLS, Models: map[string]string{},
			Offset: int64(p.Clock.Offset), Uncertainty: int64(p.Clock.Uncertainty), RTT: int64(p.Clock.MinRTT),
			Drift: p.Clock.Drift, DriftUnsure: p.Clock.DriftUnsure, Samples: p.Clock.Samples, Clamped: p.Clamped, FarthestClamp: int64(p.Pulled),
			Operations: t.Ops, Failures: p.Failures, Reconnects: p.Reconnects, Sent: int64(t.Sent), Received: int64(t.Received),
			Payload: int64(t.PayloadSent + t.PayloadRecv), Setup: int64(t.Setup), Framing: int64(t.Framing())}
		for _, m := range p.Models {
			r.Models[m.Name] = m.Digest
		}
		list = append(list, r)
	}
	return list
}
