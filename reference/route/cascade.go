package route

import (
	"cmp"
	"slices"
)

// Answers is what every service would have answered to every question of a training split.
type Answers struct {
	Quality [][]float64 // (questions, services) 0 to 1
	Score   [][]float64 // (questions, services) how good the answer looks, from a scorer that does not see the truth
	Cost    [][]float64 // (questions, services)
}

// Cascade asks services in turn and stops at the first whose answer scores over its threshold; the last one's answer is taken as it is
// (FrugalGPT, TMLR 2024).
type Cascade struct {
	Order     []int     // services
	Threshold []float64 // of all but the last
}

// Stop is the place in Order at which the cascade stops; score(i) is that of the answer of Order[i], asked for only if needed.
func (c Cascade) Stop(score func(i int) float64) int {
	for i, t := range c.Threshold {
		if score(i) > t {
			return i
		}
	}
	return len(c.Order) - 1
}

// Mean is the cascade's mean quality and cost, and the share of questions that reached its last service.
func (c Cascade) Mean(a Answers) (quality, cost, last float64) {
	n := float64(len(a.Quality))
	for q := range a.Quality {
		stop := c.Stop(func(i int) float64 { return a.Score[q][c.Order[i]] })
		for _, s := range c.Order[:stop+1] {
			cost += a.Cost[q][s]
		}
		quality += a.Quality[q][c.Order[stop]]
		if stop == len(c.Order)-1 {
			last++
		}
	}
	return quality / n, cost / n, last / n
}

// Limits bounds the search of Optimise; zero values mean 3 services and 20 thresholds.
type Limits struct{ Services, Thresholds int }

// Optimise is the cascade of best mean quality on the split whose mean cost is at most budget, the cheaper among equals. It tries
// all orders of up to limits.Services services, and as thresholds of each that many scores evenly spaced among those that occur,
// or all if there are fewer. ok is false if no cascade is cheap enough.
func Optimise(train Answers, budget float64, limits Limits) (best Cascade, ok bool) {
	most, grid := cmp.Or(limits.Services, 3), cmp.Or(limits.Thresholds, 20)
	services := len(train.Quality[0])
	candidates := make([][]float64, services)
	for s := range candidates {
		candidates[s] = train.thresholds(s, grid)
	}
	var bestQuality, bestCost float64
	var grow func(c Cascade)
	grow = func(c Cascade) {
		if quality, cost, _ := c.Mean(train); cost <= budget && (!ok || quality > bestQuality || quality == bestQuality && cost < bestCost) {
			best = Cascade{slices.Clone(c.Order), slices.Clone(c.Threshold)}
			bestQuality, bestCost, ok = quality, cost, true
		}
		if len(c.Order) == most {
			return
		}
		for _, t := range candidates[c.Order[len(c.Order)-1]] {
			for s := range services {
				if !slices.Contains(c.Order, s) {
					grow(Cascade{append(c.Order, s), append(c.Threshold, t)})
				}
			}
		}
	}
	for s := range services {
		grow(Cascade{Order: []int{s}})
	}
	return best, ok
}

// thresholds are scores of service s at even ranks; the top one, above which no answer lies, is among them.
func (a Answers) thresholds(s, grid int) (out []float64) {
	var scores []float64
	for _, row := range a.Score {
		scores = append(scores, row[s])
	}
	slices.Sort(scores)
	scores = slices.Compact(scores)
	n := min(grid, len(scores))
	for i := 1; i <= n; i++ {
		out = append(out, scores[i*len(scores)/n-1])
	}
	return out
}
