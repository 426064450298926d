package stats

import "math"

// MostRuns is where Plan stops counting: as many runs as nobody makes.
const MostRuns = math.MaxInt32

// Plan is how many runs a side show a true relative change with a given power,
// by Noether's formula for the U test (1987): spread is the standard deviation
// of the logarithm of the values, about their coefficient of variation. At
// least as many as can show anything at alpha, four at 0.05, and no more where
// even so few runs of both sides lie apart with that power. MostRuns if no number
// does.
func Plan(change, spread, alpha, power float64) int {
	q := shifted(change, spread, 2)
	if !(q > 0) {
		return MostRuns
	}
	least := fewestRuns(alpha)
	if 1-float64(least*least)*(0.5-q) >= power {
		return least // at most so many of the least*least comparisons may go wrong, and the sides then lie apart
	}
	return needed(least, 6*q*q, alpha, power)
}

// PlanPaired is how many pairs of runs show a true relative change with a given
// power, by Noether's formula for signed ranks: spread is the standard deviation
// of the logarithm of a pair's ratio. At least six at 0.05.
func PlanPaired(change, spread, alpha, power float64) int {
	// P(the mean of two log ratios > 0).
	q := shifted(change, spread, 0.5)
	if !(q > 0) {
		return MostRuns
	}
	least := fewestPairs(alpha)
	if math.Pow(shifted(change, spread, 1)+0.5, float64(least)) >= power {
		return least // all go one way
	}
	return needed(least, 3*q*q, alpha, power)
}

// shifted is P(X > 0) - 1/2 of a normal X with mean log(1+|change|) and variance
// ratio × spread²: 2 for a new less an old value, 1/2 for the mean of two.
func shifted(change, spread, ratio float64) float64 {
	switch shift := math.Log1p(math.Abs(change)); {
	case !(shift > 0) || !(spread >= 0):
		return 0
	case spread == 0:
		return 0.5
	default:
		return 0.5*math.Erfc(-shift/(spread*math.Sqrt(2*ratio))) - 0.5
	}
}

func needed(least int, info, alpha, power float64) int {
	z := Normal(1-alpha/2) + Normal(power)
	n := math.Ceil(float64(z*z) / info)
	if !(n < MostRuns) {
		return MostRuns
	}
	return max(least, int(n))
}

// fewestRuns is the least number of runs a side whose U test can reach alpha:
// the two orders in which the sides lie apart, of n out of 2n.
func fewestRuns(alpha float64) int {
	orders := 1.0 // (2n over n)
	for n := 1; ; n++ {
		orders *= float64(2*(2*n-1)) / float64(n)
		if 2/orders <= alpha || n == 1000 {
			return n
		}
	}
}

// fewestPairs is the least number of pairs whose signed ranks can reach alpha:
// all up, or all down.
func fewestPairs(alpha float64) int {
	n := 1
	for p := 1.0; p > alpha && n < 1000; p /= 2 {
		n++
	}
	return n
}

// More is how many further runs a side (pairs, if paired) would probably settle
// an unclear effect among so many that are judged together; at least 1. It
// takes the observed spread for the true one. Where the observed change is
// beyond the band, it is the change to be shown; within the band, its distance
// to the band's edge is, down to a quarter of the band. With one run a side
// nothing is known of the spread, and More counts up to what can be tested.
func (e Effect) More(family int, power float64) int {
	alpha := e.rule.Alpha / float64(max(1, family))
	have, plan, least := min(e.NOld, e.NNew), Plan, fewestRuns(alpha)
	if e.Test == SignedRank {
		plan, least = PlanPaired, fewestPairs(alpha)
	}
	if math.IsNaN(e.Spread) {
		return max(1, least-have)
	}
	shift := e.Ratio
	if shift < 1 && shift > 0 {
		shift = 1 / shift
	}
	shift, band := math.Abs(shift-1), e.rule.Band
	if shift <= band {
		shift = max(band-shift, band/4)
	}
	n := plan(shift, e.Spread, alpha, power)
	if n == MostRuns {
		return n
	}
	return max(1, n-have)
}
