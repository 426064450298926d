package stats

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// ComparePaired compares runs that belong together, old[i] with new[i], such as
// two runs of the same seed: what the seed does to both cancels. Positive values.
// The ratio is the median of the geometric means of all pairs of ratios, the
// p-value that of Wilcoxon's signed ranks, exact up to 60 pairs also where ranks
// tie (pairs without a difference are left out), and the interval inverts that
// test. Six pairs are the least that can ever show a difference at 0.05.
func ComparePaired(old, new []float64, rule Rule) (Effect, error) {
	if err := positive(old, new); err != nil {
		return Effect{}, err
	}
	return paired(old, new, byRatio(), rule)
}

// ComparePairedDifference is ComparePaired for values that may be zero or
// negative, with the scale of CompareDifference.
func ComparePairedDifference(old, new []float64, scale float64, rule Rule) (Effect, error) {
	if err := finite(old, new, scale); err != nil {
		return Effect{}, err
	}
	return paired(old, new, byDifference(scale), rule)
}

func paired(old, new []float64, by change, rule Rule) (Effect, error) {
	n := len(old)
	if len(new) != n {
		return Effect{}, fmt.Errorf("compare pairs: %d old and %d new runs", n, len(new))
	}
	rule = rule.orDefault()
	e := Effect{NOld: n, NNew: n, Test: SignedRank, rule: rule, Lo: by.least, Hi: math.Inf(1), Spread: math.NaN()}
	changes := make([]float64, n)
	for i := range changes {
		changes[i] = by.of(new[i], old[i])
	}
	walsh := make([]float64, 0, n*(n+1)/2)
	for i, a := range changes {
		for _, b := range changes[i:] {
			walsh = append(walsh, by.mid(a, b))
		}
	}
	slices.Sort(walsh)
	m := len(walsh)
	e.Ratio = (walsh[(m-1)/2] + walsh[m/2]) / 2
	e.P = signedRank(deviations(changes, by))
	if k := criticalW(n, rule.Alpha); k >= 0 {
		e.Lo, e.Hi = walsh[k], walsh[m-1-k]
	} else {
		e.Warnings = append(e.Warnings, fmt.Sprintf("need >= %d pairs to detect a difference at alpha level %v", fewestPairs(rule.Alpha), rule.Alpha))
	}
	if n > 1 {
		e.Spread = math.Sqrt(squares(changes, by.drift) / float64(n-1))
	}
	e.judge(e.P)
	return e, nil
}

// deviation is how far a change is from none, and to which side.
type deviation struct {
	size float64
	up   bool
}

func deviations(changes []float64, by change) (out []deviation) {
	for _, c := range changes {
		if c != 1 {
			out = append(out, deviation{by.size(c), c > 1})
		}
	}
	return out
}

const mostExactPairs = 60

// signedRank is the two-sided p-value of Wilcoxon's signed-rank test (1945),
// given the ranks: under the null each deviation is up or down like a coin. Tied
// sizes share their mean rank. By normal approximation above 60 pairs.
func signedRank(ds []deviation) float64 {
	slices.SortStableFunc(ds, func(a, b deviation) int { return cmp.Compare(a.size, b.size) })
	ranks := make([]int, len(ds)) // doubled, to be whole
	w, total, sq := 0, 0, 0.0
	for i := 0; i < len(ds); {
		j := i
		for j < len(ds) && ds[j].size == ds[i].size {
			j++
		}
		for k := i; k < j; k++ {
			ranks[k] = i + 1 + j
			total += ranks[k]
			sq += float64(ranks[k]) * float64(ranks[k])
			if ds[k].up {
				w += ranks[k]
			}
		}
		i = j
	}
	if len(ds) == 0 {
		return 1
	}
	low := min(w, total-w)
	if len(ds) > mostExactPairs {
		z := (float64(low) + 1 - float64(total)/2) / (math.Sqrt(sq) / 2)
		return min(1, math.Erfc(-min(z, 0)/math.Sqrt2))
	}
	p := 0.0
	for s, share := range sumsOf(ranks) {
		if s <= low {
			p += share
		}
	}
	return min(1, 2*p)
}

// sumsOf is the distribution of the sum of those ranks whose coin shows heads:
// entry s is the probability of a sum of s.
func sumsOf(ranks []int) []float64 {
	total := 0
	for _, r := range ranks {
		total += r
	}
	dist := make([]float64, total+1)
	dist[0] = 1
	for _, r := range ranks {
		for s := total; s >= 0; s-- {
			dist[s] /= 2
			if s >= r {
				dist[s] += dist[s-r] / 2
			}
		}
	}
	return dist
}

// criticalW is the largest k with P(W <= k) <= alpha/2 for n pairs without ties,
// -1 if even P(W = 0) is larger.
func criticalW(n int, alpha float64) int {
	if n > mostExactPairs {
		m := float64(n)
		return int(math.Floor(m*(m+1)/4 - 0.5 + Normal(alpha/2)*math.Sqrt(m*(m+1)*(2*m+1)/24)))
	}
	ranks := make([]int, n)
	for i := range ranks {
		ranks[i] = i + 1
	}
	sum := 0.0
	for k, share := range sumsOf(ranks) {
		if sum += share; sum > alpha/2 {
			return k - 1
		}
	}
	return n * (n + 1) / 2
}
