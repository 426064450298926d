// Package route decides which of two or more models answers a question, or writes the next token, and judges such decisions.
//
//	router := route.Fit(features, needsStrong, 1)              // a logistic regression
//	outcomes[i].Score = router.Score(features[i])              // how much the question needs the strong model
//	curve := route.Curve(outcomes)                             // quality against the share sent to it
//	area, at := curve.APGR(), curve.CPT(0.8)                   // RouteLLM's two figures
//	plan, ok := route.Optimise(train, 0.001, route.Limits{})   // a cascade under a budget
//
// Metrics follow the code of RouteLLM (arXiv 2406.18665) and RouterBench (2403.12031). The package asks no model: qualities,
// costs, scores and laws come in as numbers.
package route

import (
	"cmp"
	"math"
	"slices"
)

// Outcome is one question that both models answered.
type Outcome struct {
	Weak, Strong float64 // quality of each answer; 0 or 1 where answers are right or wrong
	Score        float64 // the router's: questions of higher scores go to the strong model first
}

// Point is a share of questions sent to the strong model and the mean quality of all answers.
type Point struct{ Share, Quality float64 }

// Quality is a curve from Share 0, the weak model alone, to Share 1, the strong one alone; straight between its points.
type Quality []Point

// Curve has one point per threshold. Questions of equal score cannot be told apart and go together, so a router that knows nothing is
// the straight line that a random one is in the mean. It panics without outcomes.
func Curve(outcomes []Outcome) Quality {
	if len(outcomes) == 0 {
		panic("route: a curve needs outcomes")
	}
	sorted := slices.Clone(outcomes)
	slices.SortStableFunc(sorted, func(a, b Outcome) int { return cmp.Compare(b.Score, a.Score) })
	var total float64
	for _, o := range sorted {
		total += o.Weak
	}
	n := float64(len(sorted))
	curve := Quality{{0, total / n}}
	for i, o := range sorted {
		total += o.Strong - o.Weak
		if i+1 == len(sorted) || sorted[i+1].Score != o.Score {
			curve = append(curve, Point{float64(i+1) / n, total / n})
		}
	}
	return curve
}

// PGR is the performance gap recovered: how far q lies between the weak (0) and the strong model (1). It is NaN if they are equal.
func (c Quality) PGR(q float64) float64 {
	weak, strong := c[0].Quality, c[len(c)-1].Quality
	return (q - weak) / (strong - weak)
}

// APGR is the mean PGR over all shares: the trapezoids under the curve.
func (c Quality) APGR() (area float64) {
	for i, p := range c[1:] {
		area += float64((p.Share - c[i].Share) * (c.PGR(p.Quality) + c.PGR(c[i].Quality)) / 2)
	}
	return area
}

// CPT is the call-performance threshold: the least share at which PGR reaches y, 0 to 1, on the straight line between points.
func (c Quality) CPT(y float64) float64 {
	for i, p := range c {
		now := c.PGR(p.Quality)
		if now < y {
			continue
		}
		if i == 0 {
			return 0
		}
		before := c.PGR(c[i-1].Quality)
		return c[i-1].Share + float64((p.Share-c[i-1].Share)*(y-before)/(now-before))
	}
	return 1
}

// At is the quality at a share, on the straight line between points.
func (c Quality) At(share float64) float64 {
	for i, p := range c[1:] {
		if share <= p.Share {
			b := c[i]
			return b.Quality + float64((p.Quality-b.Quality)*(share-b.Share)/(p.Share-b.Share))
		}
	}
	return c[len(c)-1].Quality
}

// Oracle sends a question to the strong model if its answer is better: the share sent, and the best mean quality that any
// router can reach. Where answers are right or wrong, quality over the weak model's equals the share.
func Oracle(outcomes []Outcome) (share, quality float64) {
	for _, o := range outcomes {
		if o.Strong > o.Weak {
			share++
		}
		quality += max(o.Weak, o.Strong)
	}
	n := float64(len(outcomes))
	return share / n, quality / n
}

// OracleCurve is the curve of a router that knows all: up to the kink at Oracle's share, flat where both are equal, then down.
func OracleCurve(outcomes []Outcome) Quality {
	known := slices.Clone(outcomes)
	for i, o := range known {
		known[i].Score = o.Strong - o.Weak
	}
	return Curve(known)
}

// Counts is a data set of right and wrong answers, from which all of a binary data set's metrics follow.
type Counts struct {
	Questions, WeakRight, StrongRight int
	OnlyStrong                        int // questions that the strong model alone gets right
}

// Outcomes lists the questions: both right, only the weak, only the strong, none.
func (c Counts) Outcomes() []Outcome {
	both := c.StrongRight - c.OnlyStrong
	onlyWeak := c.WeakRight - both
	none := c.Questions - both - onlyWeak - c.OnlyStrong
	if both < 0 || onlyWeak < 0 || none < 0 {
		panic("route: the counts contradict each other")
	}
	return slices.Concat(
		slices.Repeat([]Outcome{{Weak: 1, Strong: 1}}, both), slices.Repeat([]Outcome{{Weak: 1}}, onlyWeak),
		slices.Repeat([]Outcome{{Strong: 1}}, c.OnlyStrong), slices.Repeat([]Outcome{{}}, none))
}

// Priced is a router at one setting.
type Priced struct{ Cost, Quality float64 }

// AIQ is RouterBench's average improvement in quality: the area under the convex hull of the points, kept from falling, over the span of
// their costs. With one cost it is the best quality.
func AIQ(points []Priced) float64 {
	hull := Hull(points)
	low, high := hull[0].Cost, hull[0].Cost
	for _, p := range points {
		high = max(high, p.Cost)
	}
	last := hull[len(hull)-1]
	if high == low {
		return last.Quality
	}
	area := float64((high - last.Cost) * last.Quality)
	for i, p := range hull[1:] {
		area += float64((p.Cost - hull[i].Cost) * (p.Quality + hull[i].Quality) / 2)
	}
	return area / (high - low)
}

// Hull is the upper convex hull from the cheapest point to the first of best quality, with rising cost and quality. Any point on it can be
// had by a random mix of two routers.
func Hull(points []Priced) (hull []Priced) {
	if len(points) == 0 {
		panic("route: a hull needs points")
	}
	sorted := slices.Clone(points)
	slices.SortFunc(sorted, func(a, b Priced) int {
		return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(b.Quality, a.Quality))
	})
	best := math.Inf(-1)
	for _, p := range sorted {
		if p.Quality <= best {
			continue
		}
		best = p.Quality
		for len(hull) > 1 {
			a, b := hull[len(hull)-2], hull[len(hull)-1]
			if float64((b.Quality-a.Quality)*(p.Cost-a.Cost)) > float64((p.Quality-a.Quality)*(b.Cost-a.Cost)) {
				break
			}
			hull = hull[:len(hull)-1]
		}
		hull = append(hull, p)
	}
	return hull
}
