package pipeline

import (
	"fmt"
	"slices"

	"meibench/internal/units"
	"meibench/reference/placement"
)

// planning is how models are placed before they are asked for, by the policies of reference/placement.
type planning struct {
	on       bool
	again    bool // when an epoch has ended
	real     bool // what a plan brings travels
	users    int
	deadline float64 // s
	epoch    int
	hit      float64 // the share of requests that the last plan expects to answer in time
}

func newPlanning(p Params) planning {
	on := slices.ContainsFunc(placement.Policies(), func(q [2]string) bool { return q[0] == p.Name("policy") && q[0] != "random" })
	return planning{on: on, again: p.Name("replan") == "yes", real: p.Name("moves") == "real", users: p.Int("planned_users"), deadline: p.Num("planned_ms") / 1000}
}

// replan places anew if an epoch has ended since.
func (s *stock) replan() error {
	if !s.plan.on || !s.plan.again {
		return nil
	}
	if now := s.wants.at(s.env.Now()); now > s.plan.epoch {
		return s.place(now)
	}
	return nil
}

// place decides for an epoch what each node keeps. What enters a node after the first time is churn; it is there at once, or travels.
func (s *stock) place(epoch int) error {
	if s.wants.demand == nil {
		return fmt.Errorf("policy %s places models by their popularity: want: popularity", s.policy)
	}
	in := &placement.Instance{Lib: s.lib}
	number := map[int]int{} // of each edge node among the servers
	var nodes []int
	for i, d := range s.depots {
		if d != nil {
			number[i] = len(nodes)
			nodes = append(nodes, i)
			in.Room = append(in.Room, s.room)
		}
	}
	if s.cooperate && len(nodes) > 1 {
		if l, err := s.site.Between(s.depots[nodes[0]].name, s.depots[nodes[1]].name); err == nil {
			in.Hop = l.Spec().BytesPerSec
		}
	}
	wants := make([]float32, len(s.lib.Models))
	for i, p := range s.wants.demand.Probabilities(epoch) {
		wants[i] = float32(p)
	}
	for id := range s.plan.users {
		user := s.site.User(id)
		rate := s.reach(user)
		u := placement.User{Wants: wants, Deadline: s.plan.deadline}
		if rate > 0 {
			u.Covers = []placement.Cover{{Server: number[s.near(user)], Rate: rate}}
		}
		in.Users = append(in.Users, u)
	}
	if err := in.Check(); err != nil {
		return err
	}
	p, err := placement.Decide(s.policy, in)
	if err != nil {
		return err
	}
	s.plan.hit, s.plan.epoch = in.Hit(p), epoch
	churn := units.Bytes(0)
	for m, models := range p {
		d := s.depots[nodes[m]]
		had := make([]bool, len(s.lib.Blocks))
		for b := range had {
			had[b] = d.shelf.Has(b)
		}
		added, err := d.shelf.Set(models)
		if err != nil {
			return err
		}
		churn += added
		if s.plan.real && epoch > 0 {
			s.bring(nodes[m], had)
		}
	}
	if epoch > 0 {
		s.churn += churn
	}
	return nil
}

// bring has a node get what a plan has given it and it had not.
func (s *stock) bring(node int, had []bool) {
	d := s.depots[node]
	var lacks []int
	for b := range had {
		if d.shelf.Has(b) && !had[b] && d.transit[b] == nil {
			d.transit[b] = &transit{wake: s.env.NewCond()}
			lacks = append(lacks, b)
		}
	}
	if len(lacks) > 0 {
		s.fetch(&need{want: -1, over: true, node: -1, next: -1}, node, lacks, -1)
	}
}
