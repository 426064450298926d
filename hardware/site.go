package hardware

import (
	"fmt"
	"sort"
)

// Role is what a node is in the field's three-tier picture.
type Role string

// The three tiers.
const (
	DeviceRole Role = "device"
	EdgeRole   Role = "edge"
	CloudRole  Role = "cloud"
)

// Node is a fixed place that computes.
type Node struct {
	Name   string
	Role   Role
	Device Device
}

// Join is a one-way link between two fixed nodes.
type Join struct {
	From, To string
	Link     Link
}

// User is one person's equipment: a device and the radio that joins it to the
// first edge node of the site, or to the one that serves the cell where the user is.
type User struct {
	ID       int
	Device   Device
	Up, Down Link
	// Near is the node where the radio ends now, as an index of the site's Nodes; nil: the
	// first edge node, always. It may change while a request is under way.
	Near func() int
	// Next is the node where it is likely to end soon, by what the user's radio has
	// measured; ok is false where nothing is known. nil: never.
	Next func() (node int, ok bool)
}

// Site is where pipelines run: users, fixed nodes, links between them. It is a
// small graph; a chain of edge servers, several cells or a cloud behind a
// backhaul are sites, not special code.
type Site struct {
	Name    string
	NewUser func(id int) *User // makes a user's equipment on first use
	Nodes   []Node
	Joins   []Join
	// Meet makes links between nodes that no Join names, the same at every call; nil: there
	// are none. A thousand edge nodes have a million pairs.
	Meet  func(from, to string) (Link, bool)
	users map[int]*User
}

// User returns the equipment of user id, the same at every call.
func (s *Site) User(id int) *User {
	u, ok := s.users[id]
	if !ok {
		if s.users == nil {
			s.users = map[int]*User{}
		}
		u = s.NewUser(id)
		s.users[id] = u
	}
	return u
}

// Users lists the users made so far, by id.
func (s *Site) Users() []*User {
	us := make([]*User, 0, len(s.users))
	for _, u := range s.users {
		us = append(us, u)
	}
	sort.Slice(us, func(i, j int) bool { return us[i].ID < us[j].ID })
	return us
}

// First returns the first node with a role, or an error that says what the
// site has instead.
func (s *Site) First(role Role) (Node, error) {
	var have []string
	for _, n := range s.Nodes {
		if n.Role == role {
			return n, nil
		}
		have = append(have, fmt.Sprintf("%s (%s)", n.Name, n.Role))
	}
	return Node{}, fmt.Errorf("site %q has no %s node (has %v besides the users' devices)", s.Name, role, have)
}

// Between returns the link from one node to another.
func (s *Site) Between(from, to string) (Link, error) {
	for _, j := range s.Joins {
		if j.From == from && j.To == to {
			return j.Link, nil
		}
	}
	if s.Meet != nil {
		if l, ok := s.Meet(from, to); ok {
			return l, nil
		}
	}
	return nil, fmt.Errorf("site %q has no link from %q to %q", s.Name, from, to)
}

// Needs checks that a device offers every operation a pipeline uses.
func Needs(where string, d Device, ks ...Kind) error {
	if d == nil {
		return fmt.Errorf("%s: no device", where)
	}
	spec := d.Spec()
	for _, k := range ks {
		if !spec.Ops.Has(k) {
			return fmt.Errorf("%s: device %q cannot %s: %w", where, spec.Name, k, ErrUnsupported)
		}
	}
	return nil
}
