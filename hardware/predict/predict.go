// Package predict says how fast a language model runs on hardware that nobody
// here owns, how sure that is, and how wrong such predictions were on published
// measurements.
//
// The evidence is embedded: measured speeds that other people published
// (data/published_llm_speed.csv) and data sheets (data/device_specs.csv), each
// row with its source (data/README.md). Every figure of accuracy comes from
// predicting a row by a law that never saw the row's device:
//
//	predictions, sum, err := predict.Embedded()                  // the embedded rows, one device left out at a time
//	err = sum.Text(os.Stdout)                                    // errors by class, type, size, ... and the bars
//	lo, hi, ok := predict.Interval("phone_soc", "npu", "decode") // bounds of the prior of that class
//
// Rows of one's own go through a Study: see the accuracy command. Law tells how
// a row is predicted, Baselines the simple models that it is held against.
//
// # What it does not do
//
// It times nothing and simulates nothing: hardware/costmodel turns a law into
// the time of an operation, hardware/fitting fits a law to timings of one's own.
package predict

import (
	"fmt"
	"math"
	"runtime"
	"sort"
	"sync"
)

// Tier says how much was known of a device when it was predicted.
type Tier string

// The four tiers, from what least is known. Rows of a file of published speeds
// are never on the microbenchmark tier: such files hold no measured bandwidth.
const (
	TierPrior          Tier = "prior"          // class, type and data sheet
	TierMicrobenchmark Tier = "microbenchmark" // measured read bandwidth and peak
	TierCalibrated     Tier = "calibrated"     // a few runs on the device
	TierFitted         Tier = "fitted"         // many runs on the device
)

// Speed is a predicted speed with its nominal 80 % interval, tokens/s; 0 means
// not predicted.
type Speed struct{ Value, Lo, Hi float64 }

// Prediction is one row, predicted by a law that never saw its device (or only
// the rows that calibrate it).
type Prediction struct {
	Row     *Row
	Spec    *Spec // nil if unknown
	Tier    Tier
	Plain   bool   // counts in the decode figures: one sequence, short context, one device that holds the weights
	Why     string // what is special about a row that is not plain
	Decode  Speed
	Prefill Speed
	Refused string // why nothing was predicted
}

// ape returns the absolute error relative to the measured value.
func (s Speed) ape(measured float64) float64 { return math.Abs(s.Value/measured - 1) }

// covers reports whether the interval holds the measured value.
func (s Speed) covers(measured float64) bool { return s.Lo <= measured && measured <= s.Hi }

// Study predicts rows of devices that a law has not seen.
type Study struct {
	Catalogue *Catalogue
	Train     []Row // rows to learn from; rows of a device to be predicted are left out of its fold
	Rows      []Row // rows to predict
	Calibrate int   // rows of each device and runtime that the law may see; 0 for none
}

// fold is a device with its rows.
type fold struct {
	spec *Spec
	rows []int
}

// MostCalibration is the largest number of rows that a device is calibrated with.
const MostCalibration = 3

// Run predicts every row. The order is that of the rows; the result depends on
// nothing else.
func (s *Study) Run() ([]Prediction, error) {
	if s.Calibrate < 0 || s.Calibrate > MostCalibration {
		return nil, fmt.Errorf("calibrate with %d rows of a device: want 0 to %d", s.Calibrate, MostCalibration)
	}
	if len(s.Rows) == 0 {
		return nil, fmt.Errorf("no rows to predict: give at least one")
	}
	if len(s.Train) == 0 {
		return nil, fmt.Errorf("predict %d rows: every device to learn from occurs in them, so nothing is left to fit: give fewer devices, or leave one out at a time (no --rows)", len(s.Rows))
	}
	out := s.predict(s.Rows, s.Train)
	s.widen(out)
	return out, nil
}

// predict runs the folds over rows.
func (s *Study) predict(rows, train []Row) []Prediction {
	out := make([]Prediction, len(rows))
	s.each(s.folds(rows), func(f fold) {
		if f.spec == nil {
			for _, i := range f.rows {
				out[i] = Prediction{Row: &rows[i], Tier: TierPrior, Refused: "device in no specification"}
			}
			return
		}
		s.predictDevice(f, rows, train, out)
	})
	return out
}

func (s *Study) folds(rows []Row) []fold {
	at := map[*Spec]int{}
	var out []fold
	for i := range rows {
		spec := s.Catalogue.Find(rows[i].Device)
		k, ok := at[spec]
		if !ok {
			k = len(out)
			at[spec] = k
			out = append(out, fold{spec: spec})
		}
		out[k].rows = append(out[k].rows, i)
	}
	return out
}

// each runs the folds on all cores; they share nothing that changes.
func (s *Study) each(folds []fold, do func(fold)) {
	todo := make(chan fold)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(folds)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for f := range todo {
				do(f)
			}
		}()
	}
	for _, f := range folds {
		todo <- f
	}
	close(todo)
	wg.Wait()
}

// predictDevice fits a law without a device and predicts its rows.
func (s *Study) predictDevice(f fold, rows, train []Row, out []Prediction) {
	var seen []Row
	for i := range train {
		if s.Catalogue.Find(train[i].Device) != f.spec {
			seen = append(seen, train[i])
		}
	}
	tier := TierPrior
	used, ready := s.choose(f, rows)
	if s.Calibrate > 0 {
		tier = TierCalibrated
		for _, i := range f.rows {
			if used[i] {
				r := rows[i]
				r.calibrates = true
				seen = append(seen, r)
			}
		}
	}
	law := Fit(seen, s.Catalogue)
	for _, i := range f.rows {
		p := law.predict(&rows[i], f.spec)
		p.Tier = tier
		switch {
		case s.Calibrate == 0:
		case used[i]:
			p = Prediction{Row: p.Row, Spec: p.Spec, Tier: tier, Refused: usedToCalibrate}
		case !ready[groupOf(&rows[i])] && p.Refused == "":
			p = Prediction{Row: p.Row, Spec: p.Spec, Tier: tier, Refused: fmt.Sprintf("no %d rows of the device and runtime beside it to calibrate with", s.Calibrate)}
		}
		out[i] = p
	}
}

// groupOf is what one calibration is for: a type and a runtime of the device.
func groupOf(r *Row) string { return kindOf(r.Accelerator) + " " + runtimeOf(r.Framework) }

// choose picks the rows that calibrate a device: of each type and runtime the
// middle model (1), the smallest and the largest (2), or all three (3), dense
// models if there are enough. A group
// needs one plain row more than it gives.
func (s *Study) choose(f fold, rows []Row) (used map[int]bool, ready map[string]bool) {
	used, ready = map[int]bool{}, map[string]bool{}
	if s.Calibrate == 0 {
		return used, ready
	}
	groups := map[string][]int{}
	for _, i := range f.rows {
		if plainRow(&rows[i], f.spec) {
			k := groupOf(&rows[i])
			groups[k] = append(groups[k], i)
		}
	}
	for k, g := range groups {
		if len(g) <= s.Calibrate {
			continue
		}
		ready[k] = true
		g = preferDense(rows, g, s.Calibrate)
		sort.SliceStable(g, func(a, b int) bool {
			return rows[g[a]].ActiveB*rows[g[a]].BytesPerWeight < rows[g[b]].ActiveB*rows[g[b]].BytesPerWeight
		})
		for _, at := range [][]int{{len(g) / 2}, {0, len(g) - 1}, {0, len(g) / 2, len(g) - 1}}[s.Calibrate-1] {
			used[g[at]] = true
		}
	}
	return used, ready
}

// preferDense keeps the rows of dense models if there are n of them: what they
// read does not depend on which experts a token meets.
func preferDense(rows []Row, group []int, n int) []int {
	var dense []int
	for _, i := range group {
		if rows[i].ActiveB >= rows[i].ParamsB {
			dense = append(dense, i)
		}
	}
	if len(dense) < n {
		return group
	}
	return dense
}

// plainRow reports whether a row counts in the decode figures, by the recipe of
// the baseline.
func plainRow(r *Row, s *Spec) bool { return whyOdd(r, s) == "" }

func whyOdd(r *Row, s *Spec) string {
	if why := odd(r, s); why != "" {
		return why
	}
	if r.Context > shortContext {
		return "long context"
	}
	if n := threadsOf(r.Accelerator); kindOf(r.Accelerator) == "cpu" && (n == 1 || n == 2) {
		return "few threads"
	}
	return ""
}

// predict predicts what a row measured.
func (l *Law) predict(r *Row, spec *Spec) Prediction {
	p := Prediction{Row: r, Spec: spec, Why: whyOdd(r, spec)}
	p.Plain = p.Why == ""
	if r.Decode == 0 && r.Prefill == 0 {
		p.Refused = "row without a speed"
		return p
	}
	if r.Decode > 0 {
		t, why := l.Step(r, spec)
		if p.Refused = why; why == "" {
			p.Decode.Value = r.Batch / t
		}
	}
	if r.Prefill > 0 {
		t, why := l.PromptToken(r, spec)
		if why == "" {
			p.Prefill.Value = 1 / t
		} else {
			p.Refused = why
		}
	}
	return p
}

// widen gives every prediction its interval: the 80 % band of the errors on
// devices of the training rows, each predicted without itself.
func (s *Study) widen(out []Prediction) {
	inner := out
	if &s.Rows[0] != &s.Train[0] {
		inner = (&Study{Catalogue: s.Catalogue, Train: s.Train, Calibrate: s.Calibrate}).predict(s.Train, s.Train)
	}
	steps, prompts := ratios(inner, func(p *Prediction) (Speed, float64) { return p.Decode, p.Row.Decode }),
		ratios(inner, func(p *Prediction) (Speed, float64) { return p.Prefill, p.Row.Prefill })
	type key struct {
		spec   *Spec
		kind   string
		prompt bool
	}
	bands := map[key][2]float64{}
	band := func(p *Prediction, all []scored, prompt bool) [2]float64 {
		k := key{p.Spec, kindOf(p.Row.Accelerator), prompt}
		if b, ok := bands[k]; ok {
			return b
		}
		var others []scored
		for _, v := range all {
			if v.device != p.Spec.Device {
				others = append(others, v)
			}
		}
		lo, hi, _, _ := bandOf(others, typed(p.Spec, k.kind))
		bands[k] = [2]float64{lo, hi}
		return bands[k]
	}
	for i := range out {
		p := &out[i]
		if p.Decode.Value > 0 {
			b := band(p, steps, false)
			p.Decode.Lo, p.Decode.Hi = p.Decode.Value/b[1], p.Decode.Value/b[0]
		}
		if p.Prefill.Value > 0 {
			b := band(p, prompts, true)
			p.Prefill.Lo, p.Prefill.Hi = p.Prefill.Value/b[1], p.Prefill.Value/b[0]
		}
	}
}

// ratios are measured over predicted times.
func ratios(ps []Prediction, get func(*Prediction) (Speed, float64)) []scored {
	var out []scored
	for i := range ps {
		p := &ps[i]
		if v, measured := get(p); v.Value > 0 && measured > 0 {
			out = append(out, scored{p.Spec.Device, typed(p.Spec, kindOf(p.Row.Accelerator)), v.Value / measured})
		}
	}
	return out
}

// Without returns the rows whose device occurs in none of other: by its name,
// or by the specification that a catalogue finds for it.
func Without(rows, other []Row, catalogues ...*Catalogue) []Row {
	names, specs := map[string]bool{}, map[string]bool{}
	for i := range other {
		names[other[i].Device] = true
		for _, c := range catalogues {
			if s := c.Find(other[i].Device); s != nil {
				specs[s.Device] = true
			}
		}
	}
	var out []Row
	for _, r := range rows {
		keep := !names[r.Device]
		for _, c := range catalogues {
			if s := c.Find(r.Device); s != nil && specs[s.Device] {
				keep = false
			}
		}
		if keep {
			out = append(out, r)
		}
	}
	return out
}

// Embedded studies the embedded rows, one device left out at a time, with the
// table of bars.
func Embedded() ([]Prediction, *Accuracy, error) {
	rows, specs, err := Published()
	if err != nil {
		return nil, nil, err
	}
	c := NewCatalogue(specs)
	var first []Prediction
	var tiers [MostCalibration + 1]Accuracy
	for n := range tiers {
		s := Study{Catalogue: c, Train: rows, Rows: rows, Calibrate: n}
		ps, err := s.Run()
		if err != nil {
			return nil, nil, err
		}
		if n == 0 {
			first = ps
		}
		tiers[n] = Summarise(ps)
	}
	tiers[0].Bars = Bars(rows, c, tiers)
	return first, &tiers[0], nil
}
