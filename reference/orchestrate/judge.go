package orchestrate

import (
	"cmp"
	"fmt"
	"math"
)

// resource is something that users share: a direction of a cell, or a node.
type resource struct {
	rule  string
	users []int
	flows []Flow
	share []float64 // of all users
}

// flowsOf are the users of every shared resource under a route: the cells' uplinks, their downlinks, and the nodes that divide.
func (in *Instance) flowsOf(d *Decision) (cells, nodes []resource) {
	cells, nodes = make([]resource, 2*len(in.Cells)), make([]resource, len(in.Nodes))
	for u, c := range d.Route {
		if c.Node < 0 {
			continue
		}
		user, cell := &in.Users[u], &in.Cells[in.Users[u].Cell]
		if cell.UpHz > 0 && user.UpBits > 0 {
			cells[2*user.Cell].add(u, Flow{Seconds: user.UpBits / (user.UpEff * cell.UpHz), Rate: user.Rate, Weight: user.Rate, Gain: user.UpEff})
		}
		if cell.DownHz > 0 && user.DownBits > 0 {
			cells[2*user.Cell+1].add(u, Flow{Seconds: user.DownBits / (user.DownEff * cell.DownHz), Rate: user.Rate, Weight: user.Rate, Gain: user.DownEff})
		}
		nodes[c.Node].add(u, Flow{Seconds: in.Service(u, c), Rate: user.Rate, Weight: user.Rate})
	}
	for i := range cells {
		cells[i].rule = in.Bandwidth
		cells[i].share = [...][]float64{d.Up, d.Down}[i%2]
	}
	for i := range nodes {
		nodes[i].rule, nodes[i].share = in.Compute, d.Compute
	}
	return cells, nodes
}

func (r *resource) add(u int, f Flow) { r.users, r.flows = append(r.users, u), append(r.flows, f) }

// divide sets the shares of a resource by its rule; it says false if it is overloaded.
func (r *resource) divide() bool {
	rule := MinSum
	if s, ok := FindShare(r.rule); ok {
		rule = s.Divide
	}
	shares := rule(r.flows)
	if shares == nil && len(r.flows) > 0 {
		return false
	}
	for i, u := range r.users {
		r.share[u] = shares[i]
	}
	return true
}

// rounds of alternation, where a rule looks at what a request spends elsewhere: each share is set for the others as they stand.
const rounds = 4

// Allot sets the decision's shares by the instance's rules; it says false if a resource is overloaded. With minsum, shares are optimal for the
// mean delay given the route: resources do not touch each other. With minmax they are set in turn, each for the rest as it stands.
func (in *Instance) Allot(d *Decision) bool {
	n := len(in.Users)
	d.Up, d.Down, d.Compute = make([]float64, n), make([]float64, n), make([]float64, n)
	cells, nodes := in.flowsOf(d)
	var shared []*resource
	for i := range cells {
		shared = append(shared, &cells[i])
	}
	for i := range nodes {
		if !in.Nodes[i].Batch {
			shared = append(shared, &nodes[i])
		}
	}
	look := false
	for _, r := range shared {
		if !r.divide() {
			return false
		}
		look = look || r.rule == "minmax"
	}
	for range rounds {
		if !look {
			break
		}
		for _, r := range shared {
			delay := in.delays(d)
			for i, u := range r.users {
				r.flows[i].Other = max(0, delay[u]-r.flows[i].Delay(r.share[u]))
			}
			r.divide()
		}
	}
	return true
}

// delays are those of every user; Refusal for the refused.
func (in *Instance) delays(d *Decision) []float64 {
	out := make([]float64, len(in.Users))
	cells, nodes := in.flowsOf(d)
	for u, c := range d.Route {
		user := &in.Users[u]
		switch {
		case c.Node == Refused:
			out[u] = in.Refusal
		case c.Node == OnDevice:
			out[u] = PS(user.Rate/people(user), in.Service(u, c)).Sojourn
		default:
			out[u] = user.Access
			if away := in.Nodes[c.Node].Away; away != nil {
				out[u] += away[user.Cell]
			}
		}
	}
	for i := range cells {
		for k, u := range cells[i].users {
			out[u] += cells[i].flows[k].Delay(cells[i].share[u])
		}
	}
	for i := range nodes {
		busy := in.busy(i, nodes[i].flows)
		for k, u := range nodes[i].users {
			switch {
			case !in.Nodes[i].Batch:
				out[u] += nodes[i].flows[k].Delay(nodes[i].share[u])
			case busy < 1:
				out[u] += nodes[i].flows[k].Seconds / (1 - busy)
			default:
				out[u] = math.Inf(1)
			}
		}
	}
	return out
}

// busy is the share of its capacity that a node works.
func (in *Instance) busy(node int, flows []Flow) float64 {
	gain := 1.0
	if n := &in.Nodes[node]; n.Batch && n.Gain > 0 {
		gain = n.Gain
	}
	return load(flows) / gain
}

// Judge is what a decision comes to, and what it violates, in words; nothing if it is feasible.
func (in *Instance) Judge(d *Decision) (f Figures, faults []string) {
	f = in.figures(d)
	for u, c := range d.Route {
		if why := in.Allowed(u, c); why != "" {
			faults = append(faults, fmt.Sprintf("user %q at %s: %s", in.Users[u].Name, in.place(c), why))
			continue
		}
		if c.Node >= 0 && !d.Placed[c.Node][c.Model] {
			faults = append(faults, fmt.Sprintf("user %q at %s: model %q is not placed there", in.Users[u].Name, in.place(c), in.Models[c.Model].Name))
		}
		if math.IsInf(f.Delay[u], 1) || math.IsNaN(f.Delay[u]) {
			faults = append(faults, fmt.Sprintf("user %q at %s: overloaded: a share or the node cannot keep up with %g requests per second", in.Users[u].Name, in.place(c), in.Users[u].Rate))
		}
	}
	for n, placed := range d.Placed {
		if used := in.bytes(placed); used > in.Nodes[n].Memory {
			faults = append(faults, fmt.Sprintf("node %q: models take %g bytes, it has %g", in.Nodes[n].Name, used, in.Nodes[n].Memory))
		}
	}
	return f, append(faults, in.shareFaults(d)...)
}

func (in *Instance) shareFaults(d *Decision) (faults []string) {
	cells, nodes := in.flowsOf(d)
	for i, r := range append(cells, nodes...) {
		sum, negative := 0.0, false
		for _, u := range r.users {
			sum, negative = sum+r.share[u], negative || r.share[u] < 0
		}
		if sum <= 1+1e-9 && !negative {
			continue
		}
		name := ""
		if i < len(cells) {
			name = fmt.Sprintf("cell %q %s", in.Cells[i/2].Name, [...]string{"up", "down"}[i%2])
		} else {
			name = fmt.Sprintf("node %q", in.Nodes[i-len(cells)].Name)
		}
		faults = append(faults, fmt.Sprintf("%s: shares: want none below 0 and a sum of at most 1, got a sum of %g", name, sum))
	}
	return faults
}

func (in *Instance) place(c Choice) string {
	switch {
	case c.Node == OnDevice:
		return "the device"
	case c.Node >= 0 && c.Node < len(in.Nodes):
		return fmt.Sprintf("node %q", in.Nodes[c.Node].Name)
	}
	return fmt.Sprintf("node %d", c.Node)
}

// bytes of the models placed.
func (in *Instance) bytes(placed []bool) (sum float64) {
	for m, on := range placed {
		if on {
			sum += in.Models[m].Bytes
		}
	}
	return sum
}

// figures are those of a decision whose choices exist.
func (in *Instance) figures(d *Decision) (f Figures) {
	f.Delay = in.delays(d)
	total, served := 0.0, 0.0
	_, nodes := in.flowsOf(d)
	for u, c := range d.Route {
		user := &in.Users[u]
		total += user.Rate
		f.Mean += float64(user.Rate * f.Delay[u])
		f.Worst = max(f.Worst, f.Delay[u])
		if c.Node == Refused {
			f.Refused += user.Rate
			continue
		}
		if user.Deadline == 0 || f.Delay[u] <= user.Deadline {
			f.Goodput += user.Rate
		}
		served += user.Rate
		f.Quality += float64(user.Rate * in.Models[c.Model].Quality)
		n := in.node(u, c)
		f.NodeWeight += float64(user.Rate * n.Weight)
		if c.Node == OnDevice {
			f.power(n, float64(user.Rate*in.Service(u, c))/people(user), people(user))
			continue
		}
		joules := user.UpBits + user.DownBits
		f.Watts += float64(user.Rate * float64(joules*user.JoulesPerBit))
	}
	for n, placed := range d.Placed {
		if in.bytes(placed) > 0 || len(nodes[n].users) > 0 {
			f.power(&in.Nodes[n], in.busy(n, nodes[n].flows), 1)
			f.CostRate += in.Nodes[n].Price
		}
	}
	if total > 0 {
		f.Mean, f.Goodput, f.Refused, f.NodeWeight = f.Mean/total, f.Goodput/total, f.Refused/total, f.NodeWeight/total
	}
	if served > 0 {
		f.Quality /= served
	}
	return f
}

// people of a user.
func people(u *User) float64 { return cmp.Or(u.People, 1) }

// power adds that of so many nodes which are busy for a share of the time.
func (f *Figures) power(n *Node, busy, count float64) {
	watts := count * (n.IdleWatts + float64(max(0, n.BusyWatts-n.IdleWatts)*min(busy, 1)))
	f.Watts += watts
	f.CarbonRate += float64(watts * n.CarbonPerJoule)
}
