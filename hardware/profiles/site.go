package profiles

import (
	"fmt"

	"meibench/hardware"
)

// SiteSheet is the profile of a place where pipelines run: which devices it has and
// which links join them.
type SiteSheet struct {
	Name    string   `yaml:"name" json:"name"`
	Summary string   `yaml:"summary" json:"summary"`
	Apps    []string `yaml:"apps" json:"apps"` // applications it is apt for
	Nodes   []Place  `yaml:"nodes" json:"nodes"`
	Links   []Wire   `yaml:"links" json:"links"`
}

// Place is a node of a site. Exactly one place is per user: everybody brings
// their own. Device is the name of a device profile, or "host" for the machine
// the run is on, whose measured profile is given when the site is built. A user
// who only asks endpoints may have none.
type Place struct {
	Name    string        `yaml:"name" json:"name"`
	Role    hardware.Role `yaml:"role" json:"role"` // device, edge or cloud
	Device  string        `yaml:"device" json:"device"`
	PerUser bool          `yaml:"per_user,omitempty" json:"per_user,omitempty"`
	Fails   []Outage      `yaml:"fails,omitempty" json:"fails,omitempty"`                // in order of time, apart from each other
	Charge  float64       `yaml:"charge,omitempty" json:"charge,omitempty" want:"share"` // of the users' batteries at the start; 0 = full. Part of the scenario: no source
	Served  *Served       `yaml:"endpoint,omitempty" json:"endpoint,omitempty"`          // in place of Device: a real server
	Agent   *Agent        `yaml:"agent,omitempty" json:"agent,omitempty"`                // the device is on another machine, in measured runs
}

// Outage is a time in which a node is down: it answers nothing, and what it had
// in memory for its sequences is lost. It is part of the scenario, not a figure
// from outside, so it has no source.
type Outage struct {
	At  float64 `yaml:"at" json:"at"`   // s since the start of the run, at least 0
	For float64 `yaml:"for" json:"for"` // s, greater than 0
}

// Wire joins two places by a link profile, both ways: up from From to To.
type Wire struct {
	From     string    `yaml:"from" json:"from"`
	To       string    `yaml:"to" json:"to"`
	Link     string    `yaml:"link" json:"link"`
	ExtraRTT *Quantity `yaml:"extra_rtt,omitempty" json:"extra_rtt,omitempty" unit:"s"` // distance on top of the profile
}

// Digest is the SHA-256 that identifies the site file; the profiles it names
// have digests of their own.
func (s *SiteSheet) Digest() string { return digest(s) }

// User is the place that every user has one of.
func (s *SiteSheet) User() Place {
	for _, p := range s.Nodes {
		if p.PerUser {
			return p
		}
	}
	panic("profiles: a checked site has a per_user node")
}

// UsesHost reports whether some node is the machine the run is on.
func (s *SiteSheet) UsesHost() bool {
	for _, p := range s.Nodes {
		if p.Device == Host {
			return true
		}
	}
	return false
}

// checkFails says what is wrong with the outages of a node.
func (p *Place) checkFails(c *checker, at string) {
	if p.PerUser && len(p.Fails) > 0 {
		c.add(at+".fails", "the per-user node cannot fail: nobody is left to serve; let another node fail")
	}
	end := 0.0
	for i, f := range p.Fails {
		if !(f.At >= end && f.At < mostSeconds && f.For > 0 && f.For < mostSeconds) {
			c.add(fmt.Sprintf("%s.fails[%d]", at, i), "at %g for %g s: want seconds from %g on, and for more than 0 and less than %g, in order and apart", f.At, f.For, end, float64(mostSeconds))
		}
		end = f.At + f.For
	}
}

// mostSeconds is the longest time that a scenario may speak of: ten years.
const mostSeconds = 3.2e8

func (s *SiteSheet) title() string { return s.Name }

func (s *SiteSheet) check(c *checker) {
	users := 0
	known := map[string]bool{}
	for i, p := range s.Nodes {
		at := fmt.Sprintf("$.nodes[%d]", i)
		if p.Name == "" || known[p.Name] {
			c.add(at+".name", "node names must be given and unique, got %q", p.Name)
		}
		known[p.Name] = true
		switch p.Role {
		case hardware.DeviceRole, hardware.EdgeRole, hardware.CloudRole:
		default:
			c.add(at+".role", "role %q: want device, edge or cloud", p.Role)
		}
		p.checkServed(c, at)
		p.checkAgent(c, at)
		if p.Device == "" && p.Served == nil && p.Agent == nil && !s.bare(p) {
			c.add(at+".device", "is missing: a device profile or %q", Host)
		}
		if p.PerUser {
			users++
		}
		p.checkFails(c, at)
	}
	if users != 1 {
		c.add("$.nodes", "exactly one node must be per_user: true, got %d", users)
	}
	for i, w := range s.Links {
		at := fmt.Sprintf("$.links[%d]", i)
		if !known[w.From] || !known[w.To] || w.From == w.To {
			c.add(at, "joins %q to %q: both must be different nodes of this site", w.From, w.To)
		}
		s.checkWay(c, i)
		s.checkReal(c, at, w)
		if w.Link == "" {
			c.add(at+".link", "is missing: a link profile")
		}
	}
	if users == 1 && len(s.Nodes)-len(s.Servers()) > 1 {
		n := 0
		for _, w := range s.Links {
			if w.From == s.User().Name {
				n++
			}
		}
		if n != 1 {
			c.add("$.links", "the per-user node %q must have exactly one link from it, got %d", s.User().Name, n)
		}
	}
}
