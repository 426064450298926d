package predict

import (
	"fmt"
	"math"
	"regexp"
	"sort"
	"strings"
)

// curve is a time measured at several values of one thing (context, prompt
// length, batch), all else equal. Two of its points are known, the others are
// predicted.
type curve struct {
	device, run string
	row         *Row      // one of its rows
	x, t        []float64 // rising x; t in s
	power       []float64 // W, for curves of energy
	joules      []float64 // J per token, measured
}

// curvesOf groups rows by key and sorts each group by x. Rows for which value
// says not ok are left out, and so are groups of fewer than three points.
func curvesOf(rows []Row, c *Catalogue, value func(*Row) (key string, x, t float64, ok bool)) []curve {
	groups := map[string]map[float64]*Row{}
	times := map[*Row]float64{}
	var keys []string
	for i := range rows {
		r := &rows[i]
		k, x, t, ok := value(r)
		if !ok {
			continue
		}
		k = strings.Join([]string{r.Device, r.Accelerator, r.Framework, r.FrameworkVersion, r.Model, r.Quant, k}, "|")
		if groups[k] == nil {
			groups[k] = map[float64]*Row{}
			keys = append(keys, k)
		}
		groups[k][x] = r
		times[r] = t
	}
	var out []curve
	for _, k := range keys {
		g := groups[k]
		if len(g) < 3 {
			continue
		}
		v := curve{}
		for x := range g {
			v.x = append(v.x, x)
		}
		sort.Float64s(v.x)
		for _, x := range v.x {
			r := g[x]
			v.row = r
			v.t = append(v.t, times[r])
			v.power = append(v.power, r.PowerW)
			v.joules = append(v.joules, r.JPerToken)
		}
		v.device, v.run = v.row.Device, runtimeOf(v.row.Framework)
		if s := c.Find(v.device); s != nil {
			v.device = s.Device
		}
		out = append(out, v)
	}
	return out
}

// known are the two points of a curve that a prediction may use.
type known func(x []float64) (a, b int)

func ends(x []float64) (a, b int) { return 0, len(x) - 1 }

// past takes the second point and the last: the first one carries what starting
// costs.
func past(x []float64) (a, b int) { return 1, len(x) - 1 }

// inner takes the points next to the ends, if there are enough.
func inner(x []float64) (a, b int) {
	if len(x) < 4 {
		return ends(x)
	}
	return 1, len(x) - 2
}

// upTo takes the first point and the last one that is at most limit.
func upTo(limit float64) known {
	return func(x []float64) (a, b int) {
		b = len(x) - 1
		for b > 1 && x[b] > limit {
			b--
		}
		return 0, b
	}
}

// shape is a law through two points: f rises with x and says where between the
// two times a third one lies; power of the result is a power law in x.
type shape struct {
	f     func(c *curve, x float64) float64
	power float64
}

func straight(_ *curve, x float64) float64 { return x }

// through is the time at x of the law through points a and b of a curve.
func (s shape) through(c *curve, a, b int, x float64) float64 {
	fa, fb := s.f(c, c.x[a]), s.f(c, c.x[b])
	t := c.t[a] + (c.t[b]-c.t[a])/(fb-fa)*(s.f(c, x)-fa)
	t = max(t, 0.05*min(c.t[a], c.t[b]))
	if s.power == 0 {
		return t
	}
	p := c.t[a] * math.Pow(x/c.x[a], math.Log(c.t[b]/c.t[a])/math.Log(c.x[b]/c.x[a]))
	return math.Exp((1-s.power)*math.Log(t) + s.power*math.Log(p))
}

// errorsOf predicts the other points of a curve.
func (s shape) errorsOf(c *curve, pick known) []float64 {
	a, b := pick(c.x)
	var out []float64
	for i, x := range c.x {
		if i != a && i != b && a != b {
			out = append(out, ape(s.through(c, a, b, x), c.t[i]))
		}
	}
	return out
}

// learnt chooses, for the curves of every device, the shape that was least
// wrong on other devices: of the same runtime if there are any. It returns the
// errors of what it chose.
func learnt(curves []curve, shapes []shape, pick known) []float64 {
	var out []float64
	for i := range curves {
		c := &curves[i]
		var same, all []*curve
		for j := range curves {
			o := &curves[j]
			if o.device == c.device {
				continue
			}
			all = append(all, o)
			if o.run == c.run {
				same = append(same, o)
			}
		}
		if len(same) == 0 {
			same = all
		}
		best, least := shapes[0], math.Inf(1)
		for _, s := range shapes {
			sum, n := 0.0, 0.0
			for _, o := range same {
				for _, e := range s.errorsOf(o, pick) {
					sum += min(e, 1)
					n++
				}
			}
			if n > 0 && sum/n < least {
				best, least = s, sum/n
			}
		}
		out = append(out, best.errorsOf(c, pick)...)
	}
	return out
}

// longestKnown is the longest context that a calibration of the slope measures.
const longestKnown = 32768

// ContextSlope are the errors of decoding times over the context, a straight
// line through the shortest and the longest context of a device and model (at
// most 32,768 tokens).
func ContextSlope(rows []Row, c *Catalogue) Errors {
	curves := curvesOf(rows, c, func(r *Row) (string, float64, float64, bool) {
		return fmt.Sprint(r.Batch, strings.Contains(r.Notes, "batch=")), r.Context, r.Batch / max(r.Decode, 1e-9), r.Decode > 0 && r.Context >= 0 && r.Batch <= 1.01
	})
	var apes []float64
	for i := range curves {
		apes = append(apes, shape{f: straight}.errorsOf(&curves[i], upTo(longestKnown))...)
	}
	return summarise(apes)
}

// PromptCurve are the errors of prefill time per token over the length of the
// prompt, a straight line through the second and the last length: t = N(a + bN).
func PromptCurve(rows []Row, c *Catalogue) Errors {
	curves := curvesOf(rows, c, func(r *Row) (string, float64, float64, bool) {
		ok := r.Prefill > 0 && r.PromptTokens > 0 && !strings.Contains(r.Notes, "batch=") && r.NGPU == 1 && r.Context <= r.PromptTokens
		return "", r.PromptTokens, 1 / max(r.Prefill, 1e-9), ok
	})
	var apes []float64
	for i := range curves {
		apes = append(apes, shape{f: straight}.errorsOf(&curves[i], past)...)
	}
	return summarise(apes)
}

var noteTask = regexp.MustCompile(`task=([^;]+)`)

// batchCurves are step times over the batch of dense models or of experts.
func batchCurves(rows []Row, c *Catalogue, experts bool) []curve {
	return curvesOf(rows, c, func(r *Row) (string, float64, float64, bool) {
		key := fmt.Sprint(r.PromptTokens, r.Context, noteTask.FindString(r.Notes))
		if r.Framework != "vLLM" {
			key += fmt.Sprint(r.GenTokens)
		}
		return key, r.Batch, r.Batch / max(r.Decode, 1e-9), r.Decode > 0 && strings.Contains(r.Notes, "batch=") && (r.ActiveB < r.ParamsB) == experts
	})
}

// DenseBatch are the errors of step times over the batch of dense models from
// the smallest and the largest batch: a straight line, or between a line and a
// power law where a runtime changes its kernels on the way; other devices of
// the runtime say which.
func DenseBatch(rows []Row, c *Catalogue, run string) Errors {
	var shapes []shape
	for _, p := range []float64{0, 0.25, 0.5, 0.75} {
		shapes = append(shapes, shape{straight, p})
	}
	return summarise(learnt(ofRuntime(batchCurves(rows, c, false), run), shapes, ends))
}

// ofRuntime keeps the curves of a runtime; "" keeps all.
func ofRuntime(curves []curve, run string) []curve {
	var out []curve
	for _, c := range curves {
		if run == "" || c.run == run {
			out = append(out, c)
		}
	}
	return out
}

// ExpertBatch are the errors of step times over the batch of mixtures of
// experts, from the smallest and the largest batch, proportional to the
// parameters that the batch touches, E(1-(1-k/E)^B) of E experts, and to a
// share of the active ones for every sequence. Other devices of the runtime
// say how large a share.
func ExpertBatch(rows []Row, c *Catalogue, run string) Errors {
	var shapes []shape
	for _, each := range []float64{0.05, 0.1, 0.2, 0.4} {
		for _, p := range []float64{0, 0.25, 0.5} {
			shapes = append(shapes, shape{func(c *curve, b float64) float64 {
				return coverage(c.row, b) + each*c.row.ActiveB*b
			}, p})
		}
	}
	return summarise(learnt(ofRuntime(batchCurves(rows, c, true), run), shapes, ends))
}

// BatchEnergy are the errors of joules per token over the batch on devices
// whose name holds a text, from two points next to the ends of each curve:
// power rises with the logarithm of the batch, a step's time along a line, and
// a token costs their product over the batch.
func BatchEnergy(rows []Row, c *Catalogue, device string) Errors {
	curves := curvesOf(rows, c, func(r *Row) (string, float64, float64, bool) {
		ok := r.JPerToken > 0 && r.PowerW > 0 && r.Decode > 0 && r.NGPU == 1 && strings.Contains(r.Device, device) && strings.Contains(r.Notes, "batch=")
		return noteTask.FindString(r.Notes), r.Batch, r.Batch / max(r.Decode, 1e-9), ok
	})
	var apes []float64
	for i := range curves {
		v := &curves[i]
		a, b := inner(v.x)
		for k, x := range v.x {
			if k == a || k == b {
				continue
			}
			watts := v.power[a] + (v.power[b]-v.power[a])*math.Log(x/v.x[a])/math.Log(v.x[b]/v.x[a])
			j := watts * shape{f: straight}.through(v, a, b, x) / x
			apes = append(apes, math.Abs(j/v.joules[k]-1))
		}
	}
	return summarise(apes)
}
