package orchestrate

import (
	"fmt"
	"math"

	"meibench/internal/portable"
)

// Queue is what a queue does in the long run. Times are in seconds, Number counts requests in the system, waiting or served.
// Number = arrival rate x Sojourn (Little 1961) holds by construction.
type Queue struct{ Load, Wait, Sojourn, Number float64 }

// MM1 is a queue with one server, Poisson arrivals at rate lambda and exponential service at rate mu, both 1/s, first come, first
// served. An overloaded queue (lambda >= mu) waits for ever: +Inf.
func MM1(lambda, mu float64) Queue { return MG1(lambda, 1/mu, 2/mu/mu) }

// MD1 is the same with a service that always takes so many seconds.
func MD1(lambda, service float64) Queue { return MG1(lambda, service, service*service) }

// MG1 is the same with any service: its mean and its second moment, in s and s^2 (Pollaczek 1930, Khinchine 1932):
//
//	W = lambda E[S^2] / (2 (1 - rho))
func MG1(lambda, mean, second float64) Queue {
	rho := float64(lambda * mean)
	if rho >= 1 {
		return Queue{rho, math.Inf(1), math.Inf(1), math.Inf(1)}
	}
	w := lambda * second / (2 * (1 - rho))
	return Queue{rho, w, w + mean, lambda * (w + mean)}
}

// PS is a queue whose server shares itself evenly among all who are there: mean sojourn S/(1-rho) whatever the law of the service
// (Kleinrock 1976). Wait is what sharing adds.
func PS(lambda, mean float64) Queue {
	rho := float64(lambda * mean)
	if rho >= 1 {
		return Queue{rho, math.Inf(1), math.Inf(1), math.Inf(1)}
	}
	t := mean / (1 - rho)
	return Queue{rho, t - mean, t, lambda * t}
}

// ErlangB is the share of requests that find all c servers busy and go away, at an offered load of a erlangs, by the recursion
// B(c) = a B(c-1) / (c + a B(c-1)).
func ErlangB(a float64, c int) float64 {
	b := 1.0
	for k := 1; k <= c; k++ {
		ab := float64(a * b)
		b = ab / (float64(k) + ab)
	}
	return b
}

// ErlangC is the share of requests that find all c servers busy and wait (Erlang 1917); 1 if they are overloaded.
func ErlangC(a float64, c int) float64 {
	if a >= float64(c) {
		return 1
	}
	b := ErlangB(a, c)
	return float64(c) * b / (float64(c) - float64(a*(1-b)))
}

// MMC is a queue with c servers, each of rate mu: W = C(c, a) / (c mu - lambda).
func MMC(lambda, mu float64, c int) Queue {
	load := lambda / (mu * float64(c))
	if load >= 1 {
		return Queue{load, math.Inf(1), math.Inf(1), math.Inf(1)}
	}
	w := ErlangC(lambda/mu, c) / (float64(mu*float64(c)) - lambda)
	return Queue{load, w, w + 1/mu, lambda * (w + 1/mu)}
}

// MMCTail is the share of requests that wait longer than t seconds in such a queue: C(c, a) exp(-(c mu - lambda) t).
func MMCTail(lambda, mu float64, c int, t float64) float64 {
	if lambda >= mu*float64(c) {
		return 1
	}
	return ErlangC(lambda/mu, c) * portable.Exp(-float64((float64(mu*float64(c))-lambda)*t))
}

// Servers is the smallest number of servers of rate mu with which requests wait at most so many seconds in the mean. It is 1
// without arrivals. A rate or a wait that is not positive is an error.
func Servers(lambda, mu, wait float64) (int, error) {
	if !(mu > 0) || !(wait > 0) || !(lambda >= 0) || math.IsInf(lambda, 1) {
		return 0, fmt.Errorf("orchestrate: size a pool: want arrivals >= 0, service rate > 0 and wait > 0, got %g/s, %g/s and %g s", lambda, mu, wait)
	}
	return atLeast(lambda, mu, func(c int) bool { return MMC(lambda, mu, c).Wait <= wait }), nil
}

// ServersTail is the smallest number with which at most a share of requests, in (0, 1), waits longer than t seconds.
func ServersTail(lambda, mu, t, share float64) (int, error) {
	if !(mu > 0) || !(t >= 0) || !(lambda >= 0) || !(share > 0 && share < 1) || math.IsInf(lambda, 1) {
		return 0, fmt.Errorf("orchestrate: size a pool: want arrivals >= 0, service rate > 0, wait >= 0 and a share in (0, 1), got %g/s, %g/s, %g s and %g", lambda, mu, t, share)
	}
	return atLeast(lambda, mu, func(c int) bool { return MMCTail(lambda, mu, c, t) <= share }), nil
}

// atLeast counts up from the least number of servers that is not overloaded.
func atLeast(lambda, mu float64, enough func(c int) bool) int {
	c := int(lambda/mu) + 1
	for !enough(c) {
		c++
	}
	return c
}
