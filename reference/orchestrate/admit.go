package orchestrate

import (
	"cmp"
	"slices"
)

// Request is what admission sees of a request that has come.
type Request struct {
	Now      float64 // seconds since the run began
	Waiting  int     // requests in line, at the replica that it would go to
	Finish   float64 // seconds from now until it would be done there, as far as is known
	Deadline float64 // seconds from now; 0 = none
}

// Admission decides who is let in. The zero value lets everybody in.
type Admission struct {
	Rule  string  // of Admissions; "" = all
	Queue int     // queue: most requests in line
	Rate  float64 // bucket: tokens per second
	Burst float64 // bucket: tokens that it holds
	Slack float64 // slo: what a predicted time is multiplied by; 0 = 1

	tokens, last float64
	begun        bool
}

// Admissions lists the rules by name.
var Admissions = []struct{ Name, Doc string }{
	{"all", "everybody"},
	{"bucket", "a token bucket: a rate, and a burst above it (Turner 1986)"},
	{"queue", "a threshold on the requests in line; the optimal rule where all are worth the same (Naor 1969)"},
	{"slo", "who is predicted to finish within the deadline"},
}

// Admit decides, in order of time, and takes a token where there is a bucket.
func (a *Admission) Admit(r Request) bool {
	switch a.Rule {
	case "bucket":
		if !a.begun {
			a.tokens, a.last, a.begun = a.Burst, r.Now, true
		}
		a.tokens = min(a.Burst, a.tokens+float64((r.Now-a.last)*a.Rate))
		a.last = r.Now
		if a.tokens < 1 {
			return false
		}
		a.tokens--
		return true
	case "queue":
		return r.Waiting < a.Queue
	case "slo":
		return r.Deadline == 0 || float64(r.Finish*cmp.Or(a.Slack, 1)) <= r.Deadline
	}
	return true
}

// Naor is the optimal threshold of an M/M/1 queue whose served requests are each worth a reward and whose requests each cost so much per
// second while they are there: admit while fewer than n are there (Naor 1969). It is the n of the largest long-run gain
//
//	reward x lambda (1 - p_n) - cost x L,   p_k ~ rho^k for k = 0..n
//
// The gain has one maximum in n, so the first n that does not gain is the last that is looked at. Selfish requests, who see the queue and join while
// it pays, would be up to floor(reward mu / cost), which is never less.
func Naor(lambda, mu, reward, cost float64) int {
	best := 0
	for n := 1; Gain(lambda, mu, reward, cost, n) > Gain(lambda, mu, reward, cost, best); n++ {
		best = n
	}
	return best
}

// Gain is the long-run gain per second of such a queue with a threshold.
func Gain(lambda, mu, reward, cost float64, threshold int) float64 {
	rho, weight, total, number := lambda/mu, 1.0, 0.0, 0.0
	for k := 0; k <= threshold; k++ {
		total += weight
		number += float64(float64(k) * weight)
		if k < threshold {
			weight *= rho
		}
	}
	return float64(reward*lambda)*(1-weight/total) - float64(cost*number/total)
}

// Work is a request that is here, with its service time and deadline, in seconds.
type Work struct{ Service, Deadline float64 }

// MostInTime is the largest set of requests that one server can finish within their deadlines, served in order of deadlines: those that are here
// now, one at a time (Moore 1968, Hodgson's rule). It returns their indices, in the order of service.
func MostInTime(ws []Work) []int {
	order := make([]int, len(ws))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(ws[a].Deadline, ws[b].Deadline) })
	var set []int
	now := 0.0
	for _, i := range order {
		set = append(set, i)
		now += ws[i].Service
		if now <= ws[i].Deadline {
			continue
		}
		longest := 0
		for k := range set {
			if ws[set[k]].Service > ws[set[longest]].Service {
				longest = k
			}
		}
		set = slices.Delete(set, longest, longest+1)
		now = 0
		for _, k := range set { // anew, so that rounding does not pile up
			now += ws[k].Service
		}
	}
	return set
}
