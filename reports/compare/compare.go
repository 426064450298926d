// Package compare says what changed between two sets of runs, and how sure that
// is.
//
//	old, err := compare.Load("runs/a")          // run folders, or benchmark text
//	new, err := compare.Load("runs/b", "runs/c")
//	c, err := compare.Compare(old, new, compare.Options{})
//	err = c.Text(os.Stdout)
//
// The unit of inference is the run of a cell: one value per repeat and seed.
// Where six or more seeds are on both sides, runs of equal seeds are compared in
// pairs, by Wilcoxon's signed ranks: what a seed does to both sides cancels.
// Otherwise samples are compared by the Mann-Whitney test of
// golang.org/x/perf/benchmath, so that medians, ratios and p-values are those of
// benchstat. What a seed fixes (modelled cells) is compared exactly, seed by seed.
// All tests of a comparison are one family (Holm). A difference inside the
// practical band counts as none.
//
// Runs under different contracts are not compared: the error names the field.
package compare

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"meibench/harness/record"
	"meibench/harness/stats"
)

// Options say what is compared, and when a difference counts.
type Options struct {
	stats.Rule
	Metrics []string // names of record.Metrics or units of benchmark text; nil = Headline
	All     bool     // every metric that both sides have
	Pair    Pairing
	Common  bool    // leave cells under different contracts out instead of refusing
	Power   float64 // of the advice how many runs are needed; 0 = 0.8
}

// Pairing says whether runs of equal seeds are compared with each other.
type Pairing uint8

// Pairings. Auto pairs where six or more seeds, the fewest that can show anything
// at 0.05, are on both sides: that depends on the design of the runs, never on
// their values.
const (
	Auto Pairing = iota
	Always
	Never
)

// Headline is what is compared unless other metrics are named. Cells have those that say something of them: the last four are of
// training, whose requests are rounds.
func Headline() []string {
	return []string{"ttft_p50", "tpot_p50", "e2e_p50", "e2e_p95", "goodput_share", "energy_per_request", "quality_mean",
		"score_final", "loss_final", "round_up_bytes", "round_down_bytes"}
}

// Words of verdicts.
const (
	Faster    = "faster"
	Slower    = "slower"
	Better    = "better"
	Worse     = "worse"
	Higher    = "higher"
	Lower     = "lower"
	NoneShown = "no difference shown"
	NotJudged = "not judged"
)

// Comparison is what came out.
type Comparison struct {
	Old      []string `json:"old"` // what was compared
	New      []string `json:"new"`
	Alpha    float64  `json:"alpha"`
	Band     float64  `json:"band"`
	Family   int      `json:"family"` // tests that were corrected for each other
	Pairs    []Pair   `json:"pairs"`
	OnlyOld  []string `json:"only_old,omitempty"` // cells that one side lacks
	OnlyNew  []string `json:"only_new,omitempty"`
	Unequal  []string `json:"unequal,omitempty"` // cells under different contracts that were left out
	Warnings []string `json:"warnings,omitempty"`
}

// Pair is one metric of one cell on both sides.
type Pair struct {
	Cell     string  `json:"cell"`
	Metric   string  `json:"metric"`
	Unit     string  `json:"unit"` // as benchmark text has it
	Old      Sample  `json:"old"`
	New      Sample  `json:"new"`
	Ratio    *number `json:"ratio"` // new over old; null where it cannot be said
	Low      *number `json:"low"`
	High     *number `json:"high"`
	P        *number `json:"p"`                    // of the test alone; null where there was none
	Adjusted *number `json:"p_adjusted"`           // over the family
	Diff     *number `json:"difference,omitempty"` // new less old, in the unit, where there are zeros and so no ratio
	DiffLow  *number `json:"difference_low,omitempty"`
	DiffHigh *number `json:"difference_high,omitempty"`
	Test     string  `json:"test"`
	Verdict  string  `json:"verdict"`
	Needs    int     `json:"needs,omitempty"` // more runs a side
	Note     string  `json:"note,omitempty"`

	better record.Better
	effect stats.Effect
	soon   *stats.Effect // of pairs too few to be judged, to plan more; nil where there are none
	scale  float64       // of a difference; 0 of a ratio
	tested bool          // in the family
	exact  bool
}

// number is a float64 of a JSON document, where infinities are null.
type number = float64

// Sample is one side of a pair.
type Sample struct {
	Median float64  `json:"median"`
	Low    *number  `json:"low"` // 95 % order-statistic interval; null where it has no end
	High   *number  `json:"high"`
	N      int      `json:"n"`
	Why    []string `json:"invalid,omitempty"` // runs that are INVALID and left out
}

// Refusal says that two sides must not be compared.
type Refusal struct {
	Cell  string
	Field string // "workload.rate: 2 -> 3"
	More  int    // other cells likewise
}

// Error names the field.
func (r *Refusal) Error() string {
	more := ""
	if r.More > 0 {
		more = fmt.Sprintf(", and %d other cells differ too", r.More)
	}
	return fmt.Sprintf("%s: the contracts differ in %s%s: what was asked differs, so the answers cannot be compared (--common compares the rest)", r.Cell, r.Field, more)
}

// Compare compares two sides.
func Compare(old, new *Side, o Options) (*Comparison, error) {
	o.Alpha, o.Band, o.Power = cmp.Or(o.Alpha, 0.05), cmp.Or(o.Band, 0.01), cmp.Or(o.Power, 0.8)
	c := &Comparison{Old: old.Names, New: new.Names, Alpha: o.Alpha, Band: o.Band, Warnings: differences(old, new)}
	var refused *Refusal
	for _, name := range old.order {
		a, b := old.cells[name], new.cells[name]
		if b == nil {
			c.OnlyOld = append(c.OnlyOld, name)
			continue
		}
		if a.contract != b.contract {
			c.Unequal = append(c.Unequal, name)
			if refused == nil {
				refused = &Refusal{Cell: name, Field: field(old, new, a.contract, b.contract)}
			}
			continue
		}
		for _, unit := range units(a, b, o) {
			p, err := pair(a, b, unit, o)
			if err != nil {
				return nil, err
			}
			if p.Old.N+p.New.N > 0 || len(p.Old.Why)+len(p.New.Why) > 0 {
				c.Pairs = append(c.Pairs, p)
			}
		}
	}
	for _, name := range new.order {
		if old.cells[name] == nil {
			c.OnlyNew = append(c.OnlyNew, name)
		}
	}
	if refused != nil && !o.Common {
		refused.More = len(c.Unequal) - 1
		return nil, refused
	}
	if len(c.Pairs) == 0 {
		return nil, errors.New("nothing to compare: " + c.nothing())
	}
	c.settle(o)
	return c, nil
}

// nothing says why no cell is on both sides.
func (c *Comparison) nothing() string {
	switch {
	case len(c.Unequal) > 0:
		return "every cell that both sides have is under different contracts"
	case len(c.OnlyOld) > 0 && len(c.OnlyNew) > 0:
		return fmt.Sprintf("no cell is on both sides (old has %s, new has %s)", c.OnlyOld[0], c.OnlyNew[0])
	}
	return "no metric is on both sides; --all takes every one"
}

// field names the first field in which two contracts differ.
func field(old, new *Side, a, b string) string {
	x, ok := old.terms[a]
	y, ok2 := new.terms[b]
	if !ok || !ok2 {
		return fmt.Sprintf("something that benchmark text does not name (%.12s -> %.12s; compare the run folders)", a, b)
	}
	if d := diff(x, y); d != "" {
		return d
	}
	return fmt.Sprintf("their hash (%.12s -> %.12s)", a, b)
}

// units are those to compare, in the order of the options.
func units(a, b *cell, o Options) (out []string) {
	if o.All {
		for _, u := range slices.Sorted(maps.Keys(a.metrics)) {
			if b.metrics[u] != nil {
				out = append(out, u)
			}
		}
		return out
	}
	wanted := o.Metrics
	if wanted == nil {
		wanted = Headline()
	}
	for _, name := range wanted {
		for _, u := range spellings(name) {
			if a.metrics[u] != nil && b.metrics[u] != nil && !slices.Contains(out, u) {
				out = append(out, u)
			}
		}
	}
	if out == nil && o.Metrics == nil && !a.ours { // text of go test: whatever it has
		o.All = true
		return units(a, b, o)
	}
	return out
}

// spellings are the units that a name may stand for.
func spellings(name string) []string {
	out := []string{name, modelled + name}
	if m, ok := record.Lookup(name); ok {
		out = append(out, m.Bench, modelled+m.Bench)
	}
	return out
}

const modelled = "modelled-"

// word is the verdict of a rise or a fall, by what the metric is.
func (p *Pair) word(up bool) string {
	seconds := strings.HasSuffix(p.Unit, "sec") || strings.HasSuffix(p.Unit, "sec/op")
	switch {
	case seconds && p.better == record.Lower || seconds && p.better == record.Neither:
		return pick(up, Slower, Faster)
	case p.better == record.Lower:
		return pick(up, Worse, Better)
	case p.better == record.Higher:
		return pick(up, Better, Worse)
	}
	return pick(up, Higher, Lower)
}

func pick(up bool, yes, no string) string {
	if up {
		return yes
	}
	return no
}

// Worse is how many pairs got worse: a gate fails on the first.
func (c *Comparison) Worse() (n int) {
	for i := range c.Pairs {
		if v := c.Pairs[i].Verdict; v == Slower || v == Worse {
			n++
		}
	}
	return n
}

func finite(v float64) *number {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func sample(xs []float64, why []string) Sample {
	s := Sample{N: len(xs), Why: why, Median: 0}
	if len(xs) == 0 {
		return s
	}
	m := stats.Median(xs, 0.95)
	s.Median, s.Low, s.High = m.Center, finite(m.Lo), finite(m.Hi)
	return s
}

func metricName(unit string) string {
	for _, m := range record.Metrics() {
		if m.Bench != "" && (m.Bench == unit || modelled+m.Bench == unit) {
			return m.Name
		}
	}
	return unit
}
