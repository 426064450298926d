package profiles

import (
	"net"
	"path/filepath"
)

// RealLink is what a site calls a link that is the real network: the way to a
// node that an agent serves.
const RealLink = "real"

// Agent is where a node's device is, if it is on another machine: a meibench
// agent, and the files by which the two know each other. Measured runs use it;
// in other modes the node is what its Device says.
type Agent struct {
	Address    string `yaml:"address" json:"address"` // HOST:PORT
	Cert       string `yaml:"cert,omitempty" json:"cert,omitempty"`
	Key        string `yaml:"key,omitempty" json:"key,omitempty"`
	CA         string `yaml:"ca,omitempty" json:"ca,omitempty"`
	ServerName string `yaml:"server_name,omitempty" json:"server_name,omitempty"` // in the agent's certificate; default the host of the address
	Insecure   bool   `yaml:"insecure,omitempty" json:"insecure,omitempty"`       // no TLS: an agent on this machine
}

// Beside returns the agent with the paths of its files taken from a folder.
func (a Agent) Beside(dir string) Agent {
	for _, f := range []*string{&a.Cert, &a.Key, &a.CA} {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(dir, *f)
		}
	}
	return a
}

func (p *Place) checkAgent(c *checker, at string) {
	a := p.Agent
	if a == nil {
		return
	}
	at += ".agent"
	if host, port, err := net.SplitHostPort(a.Address); err != nil || host == "" || port == "" {
		c.add(at+".address", "%q: want HOST:PORT, the address that meibench agent listens on", a.Address)
	}
	if given := a.Cert != "" || a.Key != "" || a.CA != ""; given == a.Insecure || given && (a.Cert == "" || a.Key == "" || a.CA == "") {
		c.add(at, "want cert, key and ca, all three (meibench agent certs DIR makes them), or insecure: true for an agent on this machine")
	}
	if p.Served != nil {
		c.add(at, "a node is an agent's or an endpoint's, not both")
	}
}

// checkReal refuses a real link where the network between two nodes is not real.
func (s *SiteSheet) checkReal(c *checker, at string, w Wire) {
	if w.Link != RealLink {
		return
	}
	if w.ExtraRTT != nil {
		c.add(at+".extra_rtt", "a real link is as long as it is: leave extra_rtt out")
	}
	for _, p := range s.Nodes {
		if p.Agent != nil && (p.Name == w.From || p.Name == w.To) {
			return
		}
	}
	c.add(at+".link", "real is the way to a node with an agent; neither %q nor %q has one: name a link profile", w.From, w.To)
}
