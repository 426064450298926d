package orchestrate

import (
	"math"
	"slices"
)

// Flow is what one user asks of a resource that is divided into shares: a cell's bandwidth or a node's processor. With a share x,
// a request takes Seconds / (x - Rate*Seconds): a processor-sharing queue on x of the resource (and M/M/1 if the work is
// exponential). With Rate 0 that is Seconds/x, the time of one transfer at a constant rate.
type Flow struct {
	Seconds float64 // of one request on the whole resource: bits / (bit/s/Hz x Hz), or work / (work/s)
	Rate    float64 // requests per second
	Weight  float64 // in sums; 1 counts every user alike, Rate every request
	Other   float64 // seconds that the request spends elsewhere: counts in the worst case only
	Gain    float64 // bit/s per unit of the resource, for policies that equalise rates; 0 = 1
}

// Load is the share of the resource that a flow keeps busy.
func (f Flow) Load() float64 { return float64(f.Rate * f.Seconds) }

// Delay is a request's time with a share, +Inf if the share is too small.
func (f Flow) Delay(share float64) float64 {
	if f.Seconds == 0 {
		return 0
	}
	if spare := share - f.Load(); spare > 0 {
		return f.Seconds / spare
	}
	return math.Inf(1)
}

// Share is a way to divide a resource among flows: it returns shares that add up to 1, or nil if the flows overload the resource.
// Flows of no work get nothing. Rules that do not look at load may leave a flow with less than it needs: its Delay is +Inf.
type Share struct {
	Name, Doc string
	Divide    func(flows []Flow) []float64
}

// Shares lists the rules by name.
var Shares = []Share{
	{"equal", "every flow alike: proportional fair too, where rates are proportional to bandwidth (Kelly 1997)", Equal},
	{"maxmin", "every flow the same bit/s: the least rate is as large as it can be", MaxMin},
	{"minmax", "finish times are equal: the slowest request is as quick as it can be", MinMax},
	{"minsum", "its load and a part of the rest as the square root of weight and work: the least weighted sum of delays (Kleinrock 1964)", MinSum},
	{"proportional", "as load: utilisation is the same in all; as work where there is no load", Proportional},
}

// Equal gives every flow that has work the same share. Maximising the sum of log rates gives the same: proportional fairness
// differs from it only where a scheduler can pick the moment.
func Equal(flows []Flow) []float64 {
	return normal(flows, func(Flow) float64 { return 1 })
}

// MaxMin gives every flow the same rate: x ~ 1 / Gain.
func MaxMin(flows []Flow) []float64 {
	return normal(flows, func(f Flow) float64 {
		if f.Gain == 0 {
			return 1
		}
		return 1 / f.Gain
	})
}

// Proportional gives shares as load, or as work if nothing arrives.
func Proportional(flows []Flow) []float64 {
	if load(flows) == 0 {
		return normal(flows, func(f Flow) float64 { return f.Seconds })
	}
	return normal(flows, Flow.Load)
}

// normal divides as a weight, among the flows that have work.
func normal(flows []Flow, weight func(Flow) float64) []float64 {
	out := make([]float64, len(flows))
	total := 0.0
	for i, f := range flows {
		if f.Seconds > 0 {
			out[i] = weight(f)
		}
		total += out[i]
	}
	if total == 0 || load(flows) >= 1 {
		if total == 0 && load(flows) == 0 {
			return out
		}
		return nil
	}
	for i := range out {
		out[i] /= total
	}
	return out
}

// load is that of all flows.
func load(flows []Flow) (sum float64) {
	for _, f := range flows {
		sum += f.Load()
	}
	return sum
}

// MinSum minimises the sum of Weight x Delay. With loads r and spare = 1 - sum(r), stationarity of
// w s / (x - r)^2 gives
//
//	x_i = r_i + spare sqrt(w_i s_i) / sum_j sqrt(w_j s_j),   sum w D = (sum_j sqrt(w_j s_j))^2 / spare
//
// which is Kleinrock's capacity assignment (Communication Nets, 1964) with w = rate, and without arrivals the square-root law of
// FDMA. Flows of weight 0 get their load and nothing to spare if others have weight.
func MinSum(flows []Flow) []float64 {
	spare := 1 - load(flows)
	if spare <= 0 {
		return nil
	}
	out := make([]float64, len(flows))
	total := 0.0
	for i, f := range flows {
		out[i] = math.Sqrt(f.Weight * f.Seconds)
		total += out[i]
	}
	for i, f := range flows {
		if total > 0 {
			out[i] = f.Load() + spare*out[i]/total
		}
	}
	return out
}

// MinMax minimises the largest Other + Delay. All flows that have work finish at one time T, the root of
//
//	sum_i (r_i + s_i / (T - o_i)) = 1,   T > max o
//
// found by bisection; without load and other times it is T = sum of seconds and x_i ~ s_i, the FDMA rule of algorithms.md T8.
func MinMax(flows []Flow) []float64 {
	spare := 1 - load(flows)
	if spare <= 0 {
		return nil
	}
	out := make([]float64, len(flows))
	low, work := 0.0, 0.0
	for _, f := range flows {
		if f.Seconds > 0 {
			low, work = max(low, f.Other), work+f.Seconds
		}
	}
	if work == 0 {
		return out
	}
	high := low + work/spare // there every T - o is at least work/spare: the shares add up to at most 1
	for range 200 {
		mid := low + (high-low)/2
		if mid <= low || mid >= high {
			break
		}
		if used(flows, mid) > spare {
			low = mid
		} else {
			high = mid
		}
	}
	total := 0.0
	for i, f := range flows {
		if f.Seconds > 0 {
			out[i] = f.Load() + f.Seconds/(high-f.Other)
		}
		total += out[i]
	}
	for i := range out { // what rounding left
		out[i] /= max(total, 1)
	}
	return out
}

// used is what flows need beyond their load to finish at t.
func used(flows []Flow, t float64) (sum float64) {
	for _, f := range flows {
		if f.Seconds == 0 {
			continue
		}
		if t <= f.Other {
			return math.Inf(1)
		}
		sum += f.Seconds / (t - f.Other)
	}
	return sum
}

// FindShare returns the rule of a name; ok is false if there is none.
func FindShare(name string) (Share, bool) {
	i := slices.IndexFunc(Shares, func(s Share) bool { return s.Name == name })
	if i < 0 {
		return Share{}, false
	}
	return Shares[i], true
}

// Jain is the fairness index of what users get, 1/n to 1 (Jain, Chiu, Hawe 1984). It is 1 of nothing.
func Jain(x []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, v := range x {
		sum += v
		squares += float64(v * v)
	}
	if squares == 0 {
		return 1
	}
	return sum * sum / (float64(len(x)) * squares)
}
