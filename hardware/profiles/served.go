package profiles

import (
	"fmt"
	"net/url"

	"meibench/hardware"
)

// Served is a node that is a server with an OpenAI-compatible protocol, asked
// over the real network. It runs in mode measured only.
//
//   - {name: server, role: edge, endpoint: {url: "http://10.0.0.7:8000", model: qwen2.5-1.5b, api: chat}}
type Served struct {
	URL        string         `yaml:"url" json:"url"`                                     // http or https, without a password
	Model      string         `yaml:"model" json:"model"`                                 // as the server calls it
	API        string         `yaml:"api,omitempty" json:"api,omitempty"`                 // completions (default) or chat
	KeyEnv     string         `yaml:"key_env,omitempty" json:"key_env,omitempty"`         // environment variable with the bearer key
	Stop       []string       `yaml:"stop,omitempty" json:"stop,omitempty"`               // default: a line's end, since all answers of tasks are one line
	Extra      map[string]any `yaml:"extra,omitempty" json:"extra,omitempty"`             // more fields of the request's body
	LimitField string         `yaml:"limit_field,omitempty" json:"limit_field,omitempty"` // default max_tokens
	Flight     int            `yaml:"flight,omitempty" json:"flight,omitempty"`           // most requests at once; default 256
	Retries    int            `yaml:"retries,omitempty" json:"retries,omitempty"`         // of refused requests; default none
	ConnectS   float64        `yaml:"connect_s,omitempty" json:"connect_s,omitempty"`     // timeouts in seconds; 0 = the client's defaults
	FirstByteS float64        `yaml:"first_byte_s,omitempty" json:"first_byte_s,omitempty"`
	IdleS      float64        `yaml:"idle_s,omitempty" json:"idle_s,omitempty"` // between two arrivals
	TotalS     float64        `yaml:"total_s,omitempty" json:"total_s,omitempty"`
}

// Servers lists the nodes of a site that are endpoints.
func (s *SiteSheet) Servers() (list []Place) {
	for _, p := range s.Nodes {
		if p.Served != nil {
			list = append(list, p)
		}
	}
	return list
}

// bare reports whether a place is a user who only asks: nobody computes there.
func (s *SiteSheet) bare(p Place) bool {
	return p.PerUser && p.Served == nil && p.Device == "" && len(s.Servers()) > 0
}

func (p *Place) checkServed(c *checker, at string) {
	v := p.Served
	if v == nil {
		return
	}
	at += ".endpoint"
	u, err := url.Parse(v.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		c.add(at+".url", "want an address such as http://localhost:8080")
	case u.User != nil || u.RawQuery != "":
		c.add(at+".url", "leave password and query out of the address: a key comes from the environment variable key_env")
	}
	if v.Model == "" {
		c.add(at+".model", "is missing: the server's name of the model (GET /v1/models lists them)")
	}
	if v.API != "" && v.API != "completions" && v.API != "chat" {
		c.add(at+".api", "%q: want completions or chat", v.API)
	}
	if v.Flight < 0 || v.Retries < 0 || v.Retries > 10 || min(v.ConnectS, v.FirstByteS, v.IdleS, v.TotalS) < 0 {
		c.add(at, "flight, retries (at most 10) and timeouts must not be negative")
	}
	if p.Device != "" || p.PerUser || p.Role == hardware.DeviceRole {
		c.add(at, "an endpoint is a fixed edge or cloud node without a device of its own")
	}
}

// checkWay refuses a modelled link to a node that the real network leads to.
func (s *SiteSheet) checkWay(c *checker, i int) {
	for _, p := range s.Servers() {
		if w := s.Links[i]; w.From == p.Name || w.To == p.Name {
			c.add(fmt.Sprintf("$.links[%d]", i), "node %q is an endpoint: the way to it is the real network, leave the link out", p.Name)
		}
	}
}
