package costmodel

import (
	"fmt"
	"strconv"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// SiteOptions say how a modelled site is built.
type SiteOptions struct {
	Seed     uint64                // of all luck
	Host     *profiles.DeviceSheet // measured profile of this machine, for nodes that name "host"
	Constant bool                  // links without chance: medians only
	Device   Options               // for every device; Seed is taken from above
}

// NewSite builds a site profile from cost models. Users are made on first use;
// everybody's link has fading of its own.
func NewSite(env world.Env, s *profiles.SiteSheet, o SiteOptions) (*hardware.Site, error) {
	o.Device.Seed = o.Seed
	sheets := make([]*profiles.DeviceSheet, len(s.Nodes))
	site := &hardware.Site{Name: s.Name}
	for i, n := range s.Nodes {
		sheet, err := o.sheet(s.Name, n)
		if err != nil {
			return nil, err
		}
		sheets[i] = sheet
		if !n.PerUser {
			site.Nodes = append(site.Nodes, hardware.Node{Name: n.Name, Role: n.Role, Device: New(env, sheet, o.Device)})
		}
	}
	user := s.User()
	var mine *wire
	for _, w := range s.Links {
		x, err := newWire(w)
		if err != nil {
			return nil, fmt.Errorf("site %q: link from %q to %q: %w", s.Name, w.From, w.To, err)
		}
		if w.From == user.Name {
			mine = x
			continue
		}
		up, down := x.links(env, o, w.From+"-"+w.To)
		site.Joins = append(site.Joins, hardware.Join{From: w.From, To: w.To, Link: up}, hardware.Join{From: w.To, To: w.From, Link: down})
	}
	for i, n := range s.Nodes {
		if n.PerUser {
			site.NewUser = func(id int) *hardware.User {
				u := &hardware.User{ID: id, Device: New(env, sheets[i], o.Device)}
				if mine != nil {
					u.Up, u.Down = mine.links(env, o, "user "+strconv.Itoa(id))
				}
				return u
			}
		}
	}
	return site, nil
}

// sheet is the device profile of a node.
func (o *SiteOptions) sheet(site string, n profiles.Place) (*profiles.DeviceSheet, error) {
	if n.Device == profiles.Host {
		if o.Host == nil {
			return nil, fmt.Errorf("site %q: node %q is this machine, whose profile is unknown: run meibench profile first", site, n.Name)
		}
		return o.Host, nil
	}
	sheet, err := profiles.Device(n.Device)
	if err != nil {
		return nil, fmt.Errorf("site %q: node %q: %w", site, n.Name, err)
	}
	return sheet, nil
}

// wire is a two-way link profile made ready, shared by all who have one.
type wire struct {
	up, down *Channel
	profile  *profiles.LinkSheet
}

func newWire(w profiles.Wire) (*wire, error) {
	p, err := profiles.Link(w.Link)
	if err != nil {
		return nil, err
	}
	extra := units.Seconds(value(w.ExtraRTT))
	return &wire{NewChannel(p, Up, extra), NewChannel(p, Down, extra), p}, nil
}

// links are both directions for one owner.
func (w *wire) links(env world.Env, o SiteOptions, owner string) (up, down *Link) {
	lo := LinkOptions{Seed: o.Seed, Name: owner, Radio: NewRadio(w.profile.Radio), Constant: o.Constant}
	return Wrap(env, NewLinkState(w.up, lo)), Wrap(env, NewLinkState(w.down, lo))
}
