package radio

import (
	"fmt"
	"math"

	"meibench/internal/portable"
)

// Scheduler is how a cell divides its resource blocks among active users.
type Scheduler uint8

// Schedulers. With constant rates the optimum of the sum of log rates is equal
// resource, so RoundRobin is optimal in that sense; Proportional has in addition
// the gain of serving users while they fade upwards (PFGain).
const (
	RoundRobin   Scheduler = iota // equal resource
	Proportional                  // equal resource at the better moments
	MaxMin                        // equal rate
)

// schedulerNames are in the order of the constants.
var schedulerNames = [...]string{"round-robin", "proportional-fair", "max-min"}

// String is the scheduler's name.
func (s Scheduler) String() string { return schedulerNames[s] }

// ParseScheduler finds a scheduler by its name.
func ParseScheduler(name string) (Scheduler, error) {
	for i, n := range schedulerNames {
		if n == name {
			return Scheduler(i), nil
		}
	}
	return 0, fmt.Errorf("radio: unknown scheduler %q: have round-robin, proportional-fair, max-min", name)
}

// Weight is the weight of a user among the active ones for sharing by weights,
// given the rate it would have alone.
func (s Scheduler) Weight(alone float64) float64 {
	if s == MaxMin && alone > 0 {
		return 1 / alone
	}
	return 1
}

// Shares divides a cell among users by the rates they would have alone: the
// shares add up to 1. A user who has no rate gets nothing.
//
//	round robin, proportional fair: 1/n
//	max-min:                        (1/r_i) / Σ 1/r_j, so that all have the rate 1 / Σ 1/r_j
func (s Scheduler) Shares(alone []float64) []float64 {
	out, sum := make([]float64, len(alone)), 0.0
	for i, r := range alone {
		if r > 0 {
			out[i] = s.Weight(r)
			sum += out[i]
		}
	}
	for i := range out {
		if sum > 0 {
			out[i] /= sum
		}
	}
	return out
}

// DeadlineShares gives each user the least share that moves its bytes in time,
// b_i / (r_i d_i), and divides what is left equally; ok is false if the least
// shares do not fit, and then they are scaled down alike. Bytes per second and
// seconds.
func DeadlineShares(alone, bytes, deadline []float64) (shares []float64, ok bool) {
	shares = make([]float64, len(alone))
	sum := 0.0
	for i := range alone {
		shares[i] = bytes[i] / float64(alone[i]*deadline[i])
		sum += shares[i]
	}
	for i := range shares {
		if sum <= 1 {
			shares[i] += (1 - sum) / float64(len(shares))
		} else {
			shares[i] /= sum
		}
	}
	return shares, sum <= 1
}

// PFGain is what proportional fair scheduling of n alike users under Rayleigh
// fading brings over equal turns, as a factor of the cell's rate: the best of n
// independent exponential channel powers is served in each slot,
//
//	G(n) = E[log2(1 + ρ max(X_1..X_n))] / E[log2(1 + ρ X)],
//
// with ρ the mean SNR as a ratio. E[f(max)] = ∫ f'(x) (1 - (1 - e^-x)^n) dx, by
// Simpson's rule. As ρ goes to 0 it is the harmonic number H_n; it is 1 for one
// user. After the asymptotic analysis of Borst, INFOCOM 2003.
func PFGain(n int, rho float64) float64 {
	if n <= 1 {
		return 1
	}
	return meanLog(n, rho) / meanLog(1, rho)
}

// meanLog is E[ln(1 + ρ max of n exponentials)], substituted x = e^s.
func meanLog(n int, rho float64) float64 {
	const lo, hi, steps = -30.0, 5.0, 1400
	h := (hi - lo) / steps
	sum := 0.0
	for i := 0; i <= steps; i++ {
		x := portable.Exp(lo + float64(float64(i)*h))
		tail := 1 - portable.Exp(float64(float64(n)*portable.Log1p(-portable.Exp(-x))))
		w := 2.0
		switch {
		case i == 0 || i == steps:
			w = 1
		case i%2 == 1:
			w = 4
		}
		sum += float64(float64(w*rho*x/(1+float64(rho*x))) * tail)
	}
	return float64(sum * h / 3)
}

// DCF is a Wi-Fi contention domain in which all stations always have a frame
// (Bianchi, IEEE JSAC 18, 2000, basic access): times in s, sizes in bits, rates
// in bit/s.
type DCF struct {
	Slot, SIFS, DIFS float64
	Propagation      float64
	Header           float64 // s, of PHY and MAC before the payload
	Ack              float64 // s, with its PHY header
	Payload          float64 // bits of a frame
	Rate             float64 // bit/s of the payload
	Window, Stages   int     // least contention window W, and m: the largest is 2^m W
}

// BianchiFHSS are the values of the paper's Table II: 1 Mbit/s, 8184 bits, W 32,
// m 3.
var BianchiFHSS = DCF{Slot: 50e-6, SIFS: 28e-6, DIFS: 128e-6, Propagation: 1e-6, Header: 400e-6, Ack: 240e-6, Payload: 8184, Rate: 1e6, Window: 32, Stages: 3}

// WiFi6 are assumed values of a home: 802.11ax, 80 MHz, two streams, MCS 9, bursts
// of 32 frames of 1500 bytes acknowledged together.
var WiFi6 = DCF{Slot: 9e-6, SIFS: 16e-6, DIFS: 34e-6, Propagation: 1e-7, Header: 64e-6, Ack: 32e-6, Payload: 32 * 12000, Rate: 960.8e6, Window: 16, Stages: 6}

// Attempt solves Bianchi's fixed point for n stations: tau is the probability
// that a station sends in a slot, collision that its frame collides,
//
//	τ = 2(1-2p) / ((1-2p)(W+1) + pW(1-(2p)^m)),   p = 1 - (1-τ)^(n-1)
//
// by bisection: the first falls with p and the second rises with τ. p must not
// meet 1/2 exactly, where the fraction is 0/0; its other form,
// 2 / (1 + W + pW Σ_{k<m} (2p)^k), has no hole.
func (d DCF) Attempt(n int) (tau, collision float64) {
	law := func(p float64) float64 {
		sum, power := 0.0, 1.0
		for range d.Stages {
			sum += power
			power = float64(power * 2 * p)
		}
		w := float64(d.Window)
		return 2 / (1 + w + float64(float64(p*w)*sum))
	}
	lo, hi := 0.0, 1.0
	for range 200 {
		mid := (lo + hi) / 2
		if 1-portable.Pow(1-law(mid), float64(n-1)) > mid {
			lo = mid
		} else {
			hi = mid
		}
	}
	p := (lo + hi) / 2
	if n == 1 {
		p = 0
	}
	return law(p), p
}

// Throughput is the payload that n stations move together, in bit/s: Bianchi's
// equation 13, S = Ps Ptr E[P] / ((1-Ptr) σ + Ptr Ps Ts + Ptr (1-Ps) Tc).
func (d DCF) Throughput(n int) float64 {
	if n <= 0 {
		return 0
	}
	tau, _ := d.Attempt(n)
	return d.throughputAt(n, tau)
}

// Alone is Throughput(1) in closed form: a frame after a mean backoff of (W-1)/2
// slots.
func (d DCF) Alone() float64 {
	ts, _ := d.busy()
	return d.Payload / (float64(float64(d.Window-1)/2*d.Slot) + ts)
}

func (d DCF) throughputAt(n int, tau float64) float64 {
	idle := portable.Pow(1-tau, float64(n))
	one := float64(float64(n) * tau * portable.Pow(1-tau, float64(n-1)))
	ts, tc := d.busy()
	return one * d.Payload / (float64(idle*d.Slot) + float64(one*ts) + float64((1-idle-one)*tc))
}

// busy is how long the channel is taken by a frame that arrives and by one that
// collides (equation 14).
func (d DCF) busy() (success, collision float64) {
	frame := d.Header + d.Payload/d.Rate
	return frame + d.SIFS + d.Propagation + d.Ack + d.DIFS + d.Propagation, frame + d.DIFS + d.Propagation
}

// BestThroughput is what the best attempt rate would reach with many stations
// (equations 27 to 29): K = √(Tc/2σ), S = E[P] / (Ts + σK + Tc (K (e^{1/K} - 1) - 1)).
func (d DCF) BestThroughput() float64 {
	ts, tc := d.busy()
	k := math.Sqrt(tc / (2 * d.Slot))
	return d.Payload / (ts + d.Slot*k + tc*(k*(portable.Exp(1/k)-1)-1))
}
