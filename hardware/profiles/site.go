package profiles

import (
	"fmt"
	"slices"

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
	Cells   *Cells   `yaml:"cells,omitempty" json:"cells,omitempty"` // in place of the users' link: a radio that moves with them
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
	Others  []string      `yaml:"others,omitempty" json:"others,omitempty"`              // device profiles of further users: see Of
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

// Of is the place of a user: users have Device and Others in turn, round and round.
func (p Place) Of(user int) Place {
	if at := user % (1 + len(p.Others)); at > 0 {
		p.Device = p.Others[at-1]
	}
	return p
}

// Kinds are the nodes of the site, those of users once for each device that users have.
func (s *SiteSheet) Kinds() (out []Place) {
	for _, p := range s.Nodes {
		for i := range 1 + len(p.Others) {
			out = append(out, p.Of(i))
		}
	}
	return out
}

// checkOthers says what is wrong with the devices of further users.
func (p *Place) checkOthers(c *checker, at string) {
	switch {
	case len(p.Others) == 0:
	case !p.PerUser:
		c.add(at+".others", "only the per-user node is one of several devices")
	case len(p.Others) > mostKinds:
		c.add(at+".others", "%d further devices: want at most %d", len(p.Others), mostKinds)
	case p.Device == "" || slices.Contains(append([]string{p.Device}, p.Others...), Host) || slices.Contains(p.Others, ""):
		c.add(at+".others", "all devices must be profiles, none of them missing or %q", Host)
	}
}

const mostKinds = 64

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
		p.checkOthers(c, at)
	}
	if users != 1 {
		c.add("$.nodes", "exactly one node must be per_user: true, got %d", users)
	}
	if s.Cells != nil {
		s.checkCells(c)
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
		if s.Cells != nil && n > 0 {
			c.add("$.links", "the per-user node %q has the radio of cells: remove its link", s.User().Name)
		}
		if n != 1 && s.Cells == nil {
			c.add("$.links", "the per-user node %q must have exactly one link from it, got %d", s.User().Name, n)
		}
	}
}

// Cells are the radio of a site whose users move: hexagonal sites on a torus, an edge
// node at every so many of them, and how people go about. All of it is scenario, not
// figures from outside, so it has no sources; what is left out has the defaults of
// packages hardware/city and hardware/mobility, which name theirs.
type Cells struct {
	Scenario  string  `yaml:"scenario" json:"scenario"`                       // of TR 38.901: umi, uma, inh-open or inh-mixed
	Columns   int     `yaml:"columns" json:"columns"`                         // sites
	Rows      int     `yaml:"rows" json:"rows"`                               // sites; even, so that the torus closes
	Distance  float64 `yaml:"distance" json:"distance"`                       // m between sites
	Sectors   int     `yaml:"sectors,omitempty" json:"sectors,omitempty"`     // cells a site: 1 or 3; 0 = 3
	Frequency float64 `yaml:"frequency,omitempty" json:"frequency,omitempty"` // Hz
	Bandwidth float64 `yaml:"bandwidth,omitempty" json:"bandwidth,omitempty"` // Hz
	Power     float64 `yaml:"power,omitempty" json:"power,omitempty"`         // dBm of a cell
	DownShare float64 `yaml:"down_share,omitempty" json:"down_share,omitempty"`
	Scheduler string  `yaml:"scheduler,omitempty" json:"scheduler,omitempty"` // round-robin, proportional-fair or max-min
	Radio     string  `yaml:"radio,omitempty" json:"radio,omitempty"`         // link profile whose radio states and joules phones have

	Edge     string `yaml:"edge" json:"edge"`                             // node that stands at the sites
	Every    int    `yaml:"every,omitempty" json:"every,omitempty"`       // sites for an edge node; 0 = 1
	Backhaul string `yaml:"backhaul" json:"backhaul"`                     // link profile of each edge node's port to the others
	Core     string `yaml:"core,omitempty" json:"core,omitempty"`         // link profile between each edge node and every cloud node
	Move     Move   `yaml:"move" json:"move"`                             // of users
	Hand     *Hand  `yaml:"handover,omitempty" json:"handover,omitempty"` // absent: the best cell serves at any moment, and changing it costs nothing
}

// Move is how users move. Fields that the model does not use must be left out.
type Move struct {
	Model     string  `yaml:"model" json:"model"`                             // static, waypoint, gauss-markov, manhattan, hotspot or trace
	Slowest   float64 `yaml:"slowest,omitempty" json:"slowest,omitempty"`     // m/s
	Fastest   float64 `yaml:"fastest,omitempty" json:"fastest,omitempty"`     // m/s
	Pause     float64 `yaml:"pause,omitempty" json:"pause,omitempty"`         // s, waypoint: longest rest, drawn from 0 on
	Memory    float64 `yaml:"memory,omitempty" json:"memory,omitempty"`       // gauss-markov: correlation over a second
	Deviation float64 `yaml:"deviation,omitempty" json:"deviation,omitempty"` // m/s, gauss-markov
	Blocks    int     `yaml:"blocks,omitempty" json:"blocks,omitempty"`       // manhattan: along each side
	Spots     int     `yaml:"spots,omitempty" json:"spots,omitempty"`         // hotspot: places, drawn uniformly
	Dwell     float64 `yaml:"dwell,omitempty" json:"dwell,omitempty"`         // s, hotspot: mean stay
	File      string  `yaml:"file,omitempty" json:"file,omitempty"`           // trace: CSV or GPX
}

// Hand is when a radio hands its user over; what is left out is mobility.DefaultA3's.
type Hand struct {
	Offset       *float64 `yaml:"offset,omitempty" json:"offset,omitempty"`             // dB
	Hysteresis   *float64 `yaml:"hysteresis,omitempty" json:"hysteresis,omitempty"`     // dB
	Trigger      *float64 `yaml:"trigger,omitempty" json:"trigger,omitempty"`           // s
	Filter       *int     `yaml:"filter,omitempty" json:"filter,omitempty"`             // k
	Sample       *float64 `yaml:"sample,omitempty" json:"sample,omitempty"`             // s between measurements
	Prepare      *float64 `yaml:"prepare,omitempty" json:"prepare,omitempty"`           // s from report to command
	Interruption *float64 `yaml:"interruption,omitempty" json:"interruption,omitempty"` // s
	Reestablish  *float64 `yaml:"reestablish,omitempty" json:"reestablish,omitempty"`   // s after a radio link failure
}

// MostSites is the largest number of sites of a network.
const MostSites = 100_000

// Edges is how many edge nodes the sites have.
func (n *Cells) Edges() int {
	every := max(n.Every, 1)
	return (n.Columns*n.Rows + every - 1) / every
}

// Copies are the names of the nodes that stand for a place: itself, or one for each of
// the edge nodes of a network of cells.
func (s *SiteSheet) Copies(p Place) []string {
	if s.Cells == nil || s.Cells.Edge != p.Name {
		return []string{p.Name}
	}
	names := make([]string, s.Cells.Edges())
	for i := range names {
		names[i] = fmt.Sprint(p.Name, "-", i+1)
	}
	return names
}

// checkCells says what is impossible in a network of cells; whether scenarios and
// models exist is checked by who builds it.
func (s *SiteSheet) checkCells(c *checker) {
	n := s.Cells
	if n.Columns < 1 || n.Rows < 2 || n.Rows%2 != 0 || n.Columns > MostSites || n.Rows > MostSites || n.Columns*n.Rows > MostSites {
		c.add("$.cells.columns", "%d columns and %d rows of sites: want at least 1, an even number of 2 or more, and at most %d sites", n.Columns, n.Rows, MostSites)
	}
	if !(n.Distance > 0 && n.Distance <= 100_000) {
		c.add("$.cells.distance", "%g m between sites: want above 0 and at most 100,000", n.Distance)
	}
	if n.Sectors != 0 && n.Sectors != 1 && n.Sectors != 3 {
		c.add("$.cells.sectors", "%d: want 1 or 3", n.Sectors)
	}
	if n.Every < 0 {
		c.add("$.cells.every", "%d sites for an edge node: want at least 1", n.Every)
	}
	found := false
	for _, p := range s.Nodes {
		if p.Role != hardware.EdgeRole {
			continue
		}
		if p.Name == n.Edge {
			found = true
		} else {
			c.add("$.cells.edge", "node %q is an edge node too: a site with cells has one, which stands at its sites", p.Name)
		}
		if len(p.Fails) > 0 || p.Device == Host || p.Served != nil || p.Agent != nil {
			c.add("$.cells.edge", "node %q: an edge node of many sites has a device profile, and no outages", p.Name)
		}
	}
	if !found {
		c.add("$.cells.edge", "%q is not an edge node of this site", n.Edge)
	}
	if n.Backhaul == "" {
		c.add("$.cells.backhaul", "is missing: a link profile")
	}
	cloud := slices.ContainsFunc(s.Nodes, func(p Place) bool { return p.Role == hardware.CloudRole })
	if cloud != (n.Core != "") {
		c.add("$.cells.core", "%q: a site with a cloud node needs a link profile there, and one without has none", n.Core)
	}
	for i, w := range s.Links {
		if w.From == n.Edge || w.To == n.Edge {
			c.add(fmt.Sprintf("$.links[%d]", i), "node %q stands at many sites: its links are cells.backhaul and cells.core", n.Edge)
		}
	}
}
