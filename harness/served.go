package harness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meibench/hardware"
	"meibench/hardware/endpoint"
	"meibench/hardware/profiles"
	"meibench/harness/results"
)

// EndpointSite is a site of one server that everybody asks over the real network.
func EndpointSite(name string, served profiles.Served) *profiles.SiteSheet {
	return &profiles.SiteSheet{Name: name, Summary: "an OpenAI-compatible server, asked over the real network",
		Nodes: []profiles.Place{{Name: "user", Role: hardware.DeviceRole, PerUser: true},
			{Name: "server", Role: hardware.EdgeRole, Served: &served}}}
}

// served is a node that is a server. Clients outlive a run of a cell, so that
// its connections are warm in the next.
func (b *builder) served(p profiles.Place) (hardware.Device, error) {
	c, err := b.lab.client(p.Served)
	if err != nil {
		return nil, err
	}
	return endpoint.NewDevice(b.env, p.Name, c)
}

func (l *Lab) client(s *profiles.Served) (*endpoint.Client, error) {
	key, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: extra fields: %w", s.URL, err)
	}
	return l.clients.get(string(key), func() (*endpoint.Client, error) { return endpoint.New(config(s)) })
}

func config(s *profiles.Served) endpoint.Config {
	seconds := func(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }
	return endpoint.Config{URL: s.URL, Model: s.Model, API: endpoint.API(s.API), KeyEnv: s.KeyEnv, Stop: stops(s), Extra: s.Extra, LimitField: s.LimitField,
		Flight: s.Flight, Retries: s.Retries,
		Connect: seconds(s.ConnectS), FirstByte: seconds(s.FirstByteS), Idle: seconds(s.IdleS), Total: seconds(s.TotalS)}
}

// stops are the stop strings: all answers of tasks are one line, and a model
// that goes on to the next is not wrong for it.
func stops(s *profiles.Served) []string {
	if s.Stop == nil {
		return []string{"\n"}
	}
	return s.Stop
}

// fitsServers refuses what cannot be asked of a server.
func (s *setup) fitsServers() error {
	list := s.site.Servers()
	switch {
	case len(list) == 0:
		return nil
	case s.cell.Mode != "measured":
		return fmt.Errorf("node %q of site %q is a real server, of which nothing is known but its answers: mode measured only, not %s", list[0].Name, s.site.Name, s.cell.Mode)
	case s.cell.Pipeline != "endpoint":
		return fmt.Errorf("node %q of site %q is a real server, which gives whole answers only: pipeline endpoint, not %s", list[0].Name, s.site.Name, s.cell.Pipeline)
	case s.cell.RTT > 0 || s.cell.Mbps > 0:
		return fmt.Errorf("site %q: the way to a real server is the real network: rtt and mbps have no meaning there", s.site.Name)
	}
	return nil
}

// servedModel is what the server of a site calls its model, or "".
func servedModel(s *profiles.SiteSheet) string {
	if list := s.Servers(); len(list) > 0 {
		return list[0].Served.Model
	}
	return ""
}

// servedTerms puts into a contract what decides a server's answers: the model
// and how it is asked, not where it runs.
func servedTerms(c *results.Contract, s *profiles.SiteSheet) error {
	list := s.Servers()
	if len(list) == 0 {
		return nil
	}
	c.Model = "served " + list[0].Served.Model
	asked, err := json.Marshal([]any{list[0].Served.API, stops(list[0].Served), list[0].Served.Extra})
	if err != nil {
		return fmt.Errorf("endpoint %s: extra fields: %w", list[0].Served.URL, err)
	}
	sum := sha256.Sum256(asked)
	if c.Data == nil {
		c.Data = map[string]string{}
	}
	c.Data["asked"] = hex.EncodeToString(sum[:])
	return nil
}

// endpoints asks the servers of a run who they are, before anything is measured.
func (l *Lab) endpoints(arms []*arm) (list []results.Endpoint, err error) {
	seen := map[string]bool{}
	for _, a := range arms {
		for _, p := range a.setup.site.Servers() {
			key := a.setup.site.Name + " " + p.Name
			if seen[key] {
				continue
			}
			seen[key] = true
			e, err := l.identify(a.setup.site.Name, p)
			if err != nil {
				return nil, fmt.Errorf("site %q, node %q: %w", a.setup.site.Name, p.Name, err)
			}
			list = append(list, e)
		}
	}
	return list, nil
}

func (l *Lab) identify(site string, p profiles.Place) (e results.Endpoint, err error) {
	c, err := l.client(p.Served)
	if err != nil {
		return e, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	names, server, err := c.Models(ctx)
	var refused *endpoint.StatusError
	if err != nil && !(errors.As(err, &refused) && refused.Status == 404) { // not every server has a list
		return e, err
	}
	if len(names) > 0 && !slices.Contains(names, p.Served.Model) {
		return e, fmt.Errorf("%s does not list a model %q (it has %s)", c.URL(), p.Served.Model, strings.Join(names, ", "))
	}
	api := p.Served.API
	if api == "" {
		api = string(endpoint.Completions)
	}
	return results.Endpoint{Site: site, Node: p.Name, URL: c.URL(), Model: p.Served.Model, API: api, Server: server, Extra: p.Served.Extra}, nil
}

// doubt counts what is questionable in answers.
func (t *trial) doubt(what string) {
	const most = 8 // kinds that are told apart
	if t.doubts == nil {
		t.doubts = map[string]int{}
	}
	if _, known := t.doubts[what]; !known && len(t.doubts) >= most {
		what = "other doubts"
	}
	t.doubts[what]++
}

// doubted are the warnings that come of it.
func (t *trial) doubted() (warnings []string) {
	for _, what := range slices.Sorted(maps.Keys(t.doubts)) {
		warnings = append(warnings, fmt.Sprintf("%d answer(s): %s", t.doubts[what], what))
	}
	return warnings
}
