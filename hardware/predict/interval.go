package predict

import (
	"math"
	"sort"
)

// bound is how far measured times of unseen devices lie from the time that the
// prior of their class and type predicts: 80 % lie between lo and hi times it.
type bound struct {
	class, kind, what string // what is decode or prefill
	lo, hi            float64
	rows, devices     int
}

// Interval bounds the time of an operation on a device of which only the class
// and the type (cpu, gpu, npu) are known, as multiples of the time that the
// prior law of hardware/profiles predicts. kind is "decode" or "prefill".
// Nominally 80 % of published rows of devices that the law never saw lie within
// [lo, hi]. ok is false for a class and type without published rows; the bounds
// are then those over all classes, which are wide but honest.
//
// The table behind it is generated from the embedded rows, leaving out one
// device at a time (IntervalTable).
func Interval(class, typ, kind string) (lo, hi float64, ok bool) {
	all := bound{lo: 1, hi: 1}
	for _, b := range intervals {
		if b.what != kind {
			continue
		}
		if b.class == class && b.kind == typ {
			return b.lo, b.hi, true
		}
		if b.class == "" {
			all = b
		}
	}
	return all.lo, all.hi, false
}

// scored is one row predicted by a law that never saw its device.
type scored struct {
	device, group string
	ratio         float64 // measured time over predicted time
}

// otherDevices is how many devices' worth of evidence the residuals of all
// classes weigh in the interval of one: it keeps a class with two agreeing
// devices from promising too much.
const otherDevices = 4

// tail is the share of residuals left out on either side. It is less than the
// 10 % of a nominal 80 % band, because a new device differs from all devices
// seen: with 10 % the bands held 71 % of the decode rows of left-out devices,
// with 7 % they hold 82 %.
const tail = 0.07

// bandOf is the nominal 80 % band of the residuals of a group: quantiles in which every device weighs the same (rows of one device agree
// with each other more than with the next device), and the residuals of the
// other groups weigh as much as otherDevices devices.
func bandOf(all []scored, group string) (lo, hi float64, rows, devices int) {
	perDevice := map[string]float64{}
	mine := map[string]float64{}
	for _, s := range all {
		if s.group == group {
			mine[s.device]++
			rows++
		} else {
			perDevice[s.device]++
		}
	}
	type weighted struct{ v, w float64 }
	var vs []weighted
	total := 0.0
	for _, s := range all {
		w := otherDevices / perDevice[s.device] / float64(max(len(perDevice), 1))
		if s.group == group {
			w = 1 / mine[s.device]
		}
		vs = append(vs, weighted{s.ratio, w})
		total += w
	}
	sort.SliceStable(vs, func(i, j int) bool { return vs[i].v < vs[j].v })
	at := func(q float64) float64 {
		sum := 0.0
		for _, v := range vs {
			if sum += v.w; sum >= q*total {
				return v.v
			}
		}
		return vs[len(vs)-1].v
	}
	if len(vs) == 0 {
		return 1, 1, 0, 0
	}
	return at(tail), at(1 - tail), rows, len(mine)
}

// widest bounds a band: one device far off (a core without vectors) says that
// the class has an outlier, not that any member may be fifty times slower.
const widest = 5

// IntervalTable computes the table of Interval from rows: the laws that
// hardware/profiles ships as priors, fitted without the device they predict.
func IntervalTable(rows []Row, c *Catalogue) []bound {
	var out []bound
	for _, what := range []string{"decode", "prefill"} {
		var all []scored
		if what == "decode" {
			all = decodeResiduals(baselineRows(rows, c))
		} else {
			all = prefillResiduals(prefillRows(rows, c))
		}
		groups := map[string]bool{"": true}
		for _, s := range all {
			groups[s.group] = true
		}
		var names []string
		for g := range groups {
			names = append(names, g)
		}
		sort.Strings(names)
		for _, g := range names {
			b := bound{what: what}
			b.class, b.kind = splitGroup(g)
			b.lo, b.hi, b.rows, b.devices = bandOf(all, g)
			b.lo, b.hi = round3(max(b.lo, 1/widest)), round3(min(b.hi, widest))
			out = append(out, b)
		}
	}
	return out
}

// round3 keeps three significant digits, so that a table is the same on every
// machine.
func round3(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 2-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

func splitGroup(g string) (class, kind string) {
	for i := range g {
		if g[i] == '/' {
			return g[:i], g[i+1:]
		}
	}
	return "", g
}

func typed(s *Spec, kind string) string { return s.Class + "/" + kind }

// decodeResiduals predicts every row with the law of its class and type, or of
// its type where the class has no other device, without its own device.
func decodeResiduals(pts []point) []scored {
	var out []scored
	for i := range pts {
		p := &pts[i]
		var near, far []*point
		for j := range pts {
			q := &pts[j]
			if q.spec == p.spec || q.kind != p.kind {
				continue
			}
			far = append(far, q)
			if q.spec.Class == p.spec.Class {
				near = append(near, q)
			}
		}
		l, ok := robustLine(near)
		if !ok {
			l, ok = robustLine(far)
		}
		if ok {
			out = append(out, scored{p.spec.Device, typed(p.spec, p.kind), p.t / l.at(p.x)})
		}
	}
	return out
}

// prefillRow is a row with a prefill speed and the seconds that its
// multiplications take at the peak.
type prefillRow struct {
	row  *Row
	spec *Spec
	kind string
	x    float64 // s per token at the peak
	t    float64 // s per token, measured
}

// prefillRows are the rows with a prefill speed on one device with a known peak.
func prefillRows(rows []Row, c *Catalogue) []prefillRow {
	var out []prefillRow
	for i := range rows {
		r := &rows[i]
		s := c.Find(r.Device)
		if r.Prefill == 0 || r.NGPU != 1 || r.Batch > 1.01 || s == nil || s.FP16TFLOPS == 0 || r.ParamsB == 0 {
			continue
		}
		out = append(out, prefillRow{r, s, kindOf(r.Accelerator), 2 * r.ActiveB / (1000 * s.FP16TFLOPS), 1 / r.Prefill})
	}
	return out
}

// prefillResiduals predicts every prefill row by the median use of the peak of
// its class and type without its own device.
func prefillResiduals(pts []prefillRow) []scored {
	var out []scored
	for _, p := range pts {
		var near, far []float64
		for _, q := range pts {
			if q.spec == p.spec || q.kind != p.kind {
				continue
			}
			far = append(far, q.t/q.x)
			if q.spec.Class == p.spec.Class {
				near = append(near, q.t/q.x)
			}
		}
		if len(near) < 2 {
			near = far
		}
		if len(near) >= 2 {
			out = append(out, scored{p.spec.Device, typed(p.spec, p.kind), p.t / (p.x * median(near))})
		}
	}
	return out
}
