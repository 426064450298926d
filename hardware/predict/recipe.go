package predict

import (
	"math"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// point is a decode row with what a law needs to know of it.
type point struct {
	row  *Row
	spec *Spec
	kind string  // cpu, gpu, npu
	run  string  // runtime: the first word of the framework
	x    float64 // s, weight bytes read per token over the peak bandwidth
	t    float64 // s per token, measured
}

var (
	wordANE    = regexp.MustCompile(`(?i)\bane\b`)
	threadsRun = regexp.MustCompile(`(?:tg |CPU (?:[A-Z0-9]+ )?)([0-9]+) threads`)
)

// kindOf is the type of the accelerator that a row names: "npu", "cpu" or "gpu".
func kindOf(accelerator string) string {
	a := strings.ToLower(accelerator)
	switch {
	case strings.Contains(a, "npu") || wordANE.MatchString(a):
		return "npu"
	case strings.HasPrefix(a, "cpu"):
		return "cpu"
	}
	return "gpu"
}

// threadsOf is the number of threads that decoded, 0 if the row does not say.
func threadsOf(accelerator string) int {
	if m := threadsRun.FindStringSubmatch(accelerator); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return 0
}

var promptRun = regexp.MustCompile(`pp ([0-9]+) threads`)

// promptThreads is the number of threads that prefilled, 0 if the row does not
// say.
func promptThreads(accelerator string) int {
	if m := promptRun.FindStringSubmatch(accelerator); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return threadsOf(accelerator)
}

func runtimeOf(framework string) string {
	if f := strings.Fields(framework); len(f) > 0 {
		return f[0]
	}
	return ""
}

// odd says why a decode row is none of the plain ones (one sequence, one
// device, dense reading of weights that fit), by the recipe of the baseline;
// "" if it is plain.
func odd(r *Row, s *Spec) string {
	switch {
	case r.Decode == 0:
		return "no decode speed"
	case r.Batch > 1.01:
		return "batch"
	case r.NGPU != 1:
		return "several devices"
	case s == nil || s.BandwidthGBs == 0:
		return "no bandwidth"
	case r.BytesPerWeight == 0 || r.ParamsB == 0:
		return "no bytes per weight"
	case strings.Contains(r.Notes, "sparse"):
		return "sparse"
	case strings.Contains(r.Notes, "sustained"):
		return "sustained"
	case r.Accelerator == "GPU/CPU" || r.Accelerator == "system":
		return "mixed devices"
	case perLayer(r):
		return "per-layer embeddings"
	case s.MemoryGB > 0 && r.ParamsB*r.BytesPerWeight > s.MemoryGB:
		return "does not fit"
	}
	return ""
}

// perLayer reports whether most of a model's parameters are per-layer
// embeddings that are looked up, not multiplied (Gemma-3n and its kin).
func perLayer(r *Row) bool {
	for _, s := range []string{"PLE", "effective_b"} {
		if strings.Contains(r.Notes, s) {
			return true
		}
	}
	for _, s := range []string{"E2B", "E4B", "Gemma3n"} {
		if strings.Contains(r.Model, s) {
			return true
		}
	}
	return false
}

// Context up to which a row counts as short, tokens.
const shortContext = 2048

// baselineRows are the rows of the published baseline: plain, short context,
// full threads.
func baselineRows(rows []Row, c *Catalogue) []point {
	var out []point
	for i := range rows {
		r := &rows[i]
		s := c.Find(r.Device)
		if odd(r, s) != "" || r.Context > shortContext {
			continue
		}
		kind := kindOf(r.Accelerator)
		if n := threadsOf(r.Accelerator); kind == "cpu" && (n == 1 || n == 2) {
			continue
		}
		out = append(out, point{r, s, kind, runtimeOf(r.Framework), r.ActiveB * r.BytesPerWeight / s.BandwidthGBs, 1 / r.Decode})
	}
	return out
}

// line is seconds per token = slope*x + t0; slope is one over the efficiency.
type line struct{ slope, t0 float64 }

func (l line) at(x float64) float64 { return float64(l.slope*x) + l.t0 }

// robustLine fits seconds per token over x by relative residuals, re-weighted
// to be close to least absolute relative error; t0 is at least 0. It needs four
// points.
func robustLine(pts []*point) (line, bool) {
	if len(pts) < 4 {
		return line{}, false
	}
	w := make([]float64, len(pts))
	for i := range w {
		w[i] = 1
	}
	var l line
	for range 20 {
		var aa, ab, bb, a1, b1 float64
		for i, p := range pts {
			a, b := p.x/p.t, 1/p.t
			v := w[i] * w[i]
			aa += v * a * a
			ab += v * a * b
			bb += v * b * b
			a1 += v * a
			b1 += v * b
		}
		det := aa*bb - ab*ab
		if det <= 1e-12*aa*bb {
			l = line{a1 / aa, 0}
		} else {
			l = line{(a1*bb - b1*ab) / det, (b1*aa - a1*ab) / det}
		}
		for i, p := range pts {
			w[i] = 1 / math.Sqrt(max(math.Abs(l.at(p.x)/p.t-1), 0.02))
		}
	}
	l.t0 = max(l.t0, 0)
	return l, l.slope > 0
}

// medianEff is the line without t0 through the median efficiency; it needs two
// points.
func medianEff(pts []*point) (line, bool) {
	if len(pts) < 2 {
		return line{}, false
	}
	eff := make([]float64, len(pts))
	for i, p := range pts {
		eff[i] = p.x / p.t
	}
	return line{1 / median(eff), 0}, true
}

// median of v, which is sorted.
func median(v []float64) float64 {
	sort.Float64s(v)
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

// Errors are absolute percentage errors of n predictions: the median and the
// 90 % point (element floor(0.9 n) - 1 of the sorted ones), in percent.
type Errors struct {
	N      int     `json:"n"`
	Median float64 `json:"median_ape"`
	P90    float64 `json:"p90_ape"`
}

func summarise(apes []float64) Errors {
	if len(apes) == 0 {
		return Errors{}
	}
	v := append([]float64{}, apes...)
	m := median(v)
	at := max(int(math.Floor(0.9*float64(len(v))))-1, 0)
	return Errors{len(v), 100 * m, 100 * v[at]}
}

// ape is the absolute error of a predicted time relative to the measured speed.
func ape(predicted, measured float64) float64 { return math.Abs(measured/predicted - 1) }

// leaveOut predicts every point from its group without the points that hide
// takes away, and returns the errors of those that could be predicted.
func leaveOut(pts []point, group func(*point) string, fit func([]*point) (line, bool), hide func(a, b *point) bool) []float64 {
	groups := map[string][]*point{}
	for i := range pts {
		k := group(&pts[i])
		groups[k] = append(groups[k], &pts[i])
	}
	var apes []float64
	for i := range pts {
		p := &pts[i]
		var rest []*point
		for _, q := range groups[group(p)] {
			if !hide(p, q) {
				rest = append(rest, q)
			}
		}
		if l, ok := fit(rest); ok {
			apes = append(apes, ape(l.at(p.x), p.t))
		}
	}
	return apes
}

func sameRow(a, b *point) bool    { return a.row == b.row }
func sameDevice(a, b *point) bool { return a.spec == b.spec }

// Baseline is one line of the published table of simple models.
type Baseline struct {
	Name string
	What string
	Errors
}

// Baselines computes the simple models M0 to M9 and C2 of the public recipe on
// rows: what any better model is to be held against.
func Baselines(rows []Row, c *Catalogue) []Baseline {
	pts := baselineRows(rows, c)
	all := func(*point) string { return "" }
	class := func(p *point) string { return p.spec.Class }
	typed := func(p *point) string { return p.spec.Class + "/" + p.kind }
	ran := func(p *point) string { return p.spec.Device + "/" + p.kind + "/" + p.run }
	roofline := func([]*point) (line, bool) { return line{1, 0}, true }
	out := []Baseline{}
	add := func(name, what string, apes []float64) {
		out = append(out, Baseline{name, what, summarise(apes)})
	}
	add("C2", "two runs on the device and runtime", twoRuns(pts, ran))
	add("M0", "spec-sheet roofline", leaveOut(pts, all, roofline, sameRow))
	add("M1 LODO", "one efficiency", leaveOut(pts, all, medianEff, sameDevice))
	add("M1 LOO", "one efficiency", leaveOut(pts, all, medianEff, sameRow))
	add("M2 LODO", "efficiency per class", leaveOut(pts, class, medianEff, sameDevice))
	add("M2 LOO", "efficiency per class", leaveOut(pts, class, medianEff, sameRow))
	add("M3 LODO", "efficiency per class and type", leaveOut(pts, typed, medianEff, sameDevice))
	add("M3 LOO", "efficiency per class and type", leaveOut(pts, typed, medianEff, sameRow))
	add("M7 LODO", "efficiency and overhead per class and type", leaveOut(pts, typed, robustLine, sameDevice))
	add("M7 LOO", "efficiency and overhead per class and type", leaveOut(pts, typed, robustLine, sameRow))
	add("M9 LOO", "efficiency and overhead per device, type and runtime", leaveOut(pts, ran, robustLine, sameRow))
	return out
}

// twoRuns draws the line through the smallest and the largest model of a group
// and predicts the others.
func twoRuns(pts []point, group func(*point) string) []float64 {
	groups := map[string][]*point{}
	var names []string
	for i := range pts {
		k := group(&pts[i])
		if groups[k] == nil {
			names = append(names, k)
		}
		groups[k] = append(groups[k], &pts[i])
	}
	var apes []float64
	for _, k := range names {
		g := groups[k]
		sort.SliceStable(g, func(i, j int) bool { return g[i].x < g[j].x })
		l, ok := lineThrough(g[0], g[len(g)-1])
		if !ok {
			continue
		}
		for _, p := range g[1 : len(g)-1] {
			apes = append(apes, ape(l.at(p.x), p.t))
		}
	}
	return apes
}

// lineThrough draws a line through two points; a negative t0 becomes 0, and a
// line that does not rise is replaced by the mean efficiency of the two.
func lineThrough(a, b *point) (line, bool) {
	if b.x <= a.x {
		return line{}, false
	}
	l := line{slope: (b.t - a.t) / (b.x - a.x)}
	l.t0 = a.t - l.slope*a.x
	if l.t0 < 0 || l.slope <= 0 {
		l = line{slope: (a.t/a.x + b.t/b.x) / 2}
	}
	return l, true
}
