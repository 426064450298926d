package orchestrate

import "slices"

// Availability is the share of a time in which a node that fails every up seconds in the mean, and is down for down seconds, works.
func Availability(up, down float64) float64 { return up / (up + down) }

// AnyOf is the availability of n alike and independent nodes of which k must work: the binomial tail.
func AnyOf(k, n int, each float64) (sum float64) {
	for i := k; i <= n; i++ {
		term := 1.0
		for j := range i {
			term = term * float64(n-j) / float64(j+1)
		}
		for range i {
			term *= each
		}
		for range n - i {
			term *= 1 - each
		}
		sum += term
	}
	return sum
}

// Recover is the decision after nodes have died: those who were there choose again, the others stay where they are unless a search over all
// helps more than it moves. Loads lists the models that must be loaded, node by node; they take bytes over the nodes' loading rates.
type Recover struct {
	Decision Decision
	Loads    []Load
}

// Load is a model to be brought to a node.
type Load struct{ Node, Model int }

// Reroute lets only the users of dead nodes choose again, among what is placed and their devices: nothing is loaded, nobody else is moved, shares
// are set anew. It is what can be done at once.
func Reroute(in *Instance, d Decision) Recover {
	return repair(in, d, func(s *search, c Choice) bool { return c.Node < 0 || d.Placed[c.Node][c.Model] })
}

// Replace lets them choose among all places, and then improves the whole: what can be done once models have been loaded.
func Replace(in *Instance, d Decision) Recover {
	r := repair(in, d, func(*search, Choice) bool { return true })
	r.Decision = Local(in, r.Decision)
	r.Loads = Loads(d, r.Decision)
	return r
}

func repair(in *Instance, d Decision, allow func(*search, Choice) bool) Recover {
	s := newSearch(in)
	route := slices.Clone(d.Route)
	var lost []int
	for u, c := range route {
		if in.Allowed(u, c) != "" {
			route[u] = Choice{Refused, 0}
			lost = append(lost, u)
		}
	}
	s.at = Decision{Route: route}
	s.score, s.mean = s.value(&s.at)
	for moved := true; moved; {
		moved = false
		for _, u := range lost {
			for _, c := range s.choices[u] {
				if c != s.at.Route[u] && allow(s, c) && s.try(s.with(c, u)) {
					moved = true
				}
			}
		}
	}
	out := s.done()
	return Recover{Decision: out, Loads: Loads(d, out)}
}

// Loads lists what is placed after a decision and was not before, by node and model.
func Loads(before, after Decision) (out []Load) {
	for n, placed := range after.Placed {
		for m, on := range placed {
			if on && (before.Placed == nil || !before.Placed[n][m]) {
				out = append(out, Load{n, m})
			}
		}
	}
	return out
}
