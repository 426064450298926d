package board

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"meibench/harness/bundle"
)

// Figures of the rule, which Rule spells out.
const (
	leastRuns   = 6    // of a cell, for a finite interval of the median at 95 %
	qualityGate = 0.97 // of the best quality of the table
	mostError   = 0.5  // of a modelled E2E p50 against the measured one
	sameLatency = 0.05 // ratio up to which another's measurement confirms one
)

// Rule is the rule of ranks, for readers.
func Rule() []string {
	return []string{
		"A table holds cells of one division under one contract: the same workload, data, model, tokenizer, limits, definitions and mode. Measured and modelled cells never share a table, nor closed and open ones.",
		"First come the cells whose requests met all limits in the share that the application needs, by the median over runs; then the others. Within each, the lower median E2E p50 comes first.",
		"Cells that train, whose requests are rounds, are ranked by the median time to their target instead, as MLPerf Training does; what is learned from what, and the target, are the same in a table.",
		"Cells whose 95 % intervals overlap that of the first of their group share its rank.",
		fmt.Sprintf("Not ranked, but listed with the reason: INVALID cells, fewer than %d runs, quality below %d %% of the best of the table with intervals apart, modelled cells that were not run again, without an error (that of a measured twin in their run, or else that of a calibration which their profile states), or off by more than %d %%, what verify could not derive again, cells that missed their training target in a run, superseded and retracted entries.", leastRuns, int(100*qualityGate), int(100*mostError)),
	}
}

// meets says whether a cell met its limits often enough.
type meets uint8

const (
	unlimited meets = iota // there are no limits
	misses
	passes
)

func (m meets) String() string { return [...]string{"no limits", "no", "yes"}[m] }

// order judges the rows of a table and sorts them by rank.
func (t *table) order() {
	best := math.NaN()
	for _, r := range t.rows {
		r.twin = r.findTwin()
		r.meets = t.judge(r)
		if q, ok := r.claim.Metrics[mark(r.claim)]; ok && !trains(r.claim) && r.unranked(math.NaN()) == "" && !(q.Value <= best) {
			best = q.Value
		}
	}
	for _, r := range t.rows {
		r.why = r.unranked(best)
	}
	slices.SortStableFunc(t.rows, func(a, b *row) int {
		return cmp.Or(-cmp.Compare(rankable(a), rankable(b)), -cmp.Compare(a.meets, b.meets), cmp.Compare(a.latency(), b.latency()), cmp.Compare(a.number, b.number))
	})
	t.number()
}

func rankable(r *row) int {
	if r.why == "" {
		return 1
	}
	return 0
}

// number gives ranks to the sorted rows.
func (t *table) number() {
	var lead *row
	for i, r := range t.rows {
		if r.why != "" {
			continue
		}
		m := r.claim.Metrics[clock(r.claim)]
		if lead != nil && lead.meets == r.meets && *m.Low <= *lead.claim.Metrics[clock(r.claim)].High {
			r.rank, r.tied, lead.tied = lead.rank, true, true
			continue
		}
		r.rank, lead = i+1, r
	}
}

// latency is the metric that ranks cells that serve.
const latency = "e2e_p50"

func (r *row) latency() float64 {
	if m, ok := r.claim.Metrics[clock(r.claim)]; ok {
		return m.Value
	}
	return math.Inf(1)
}

func (t *table) judge(r *row) meets {
	if t.need == 0 {
		return unlimited
	}
	if m, ok := r.claim.Metrics["goodput_share"]; ok && m.Value >= t.need {
		return passes
	}
	return misses
}

// unranked says why a row has no rank, "" if it has one. Best is the best quality
// of the table, NaN if there is none.
func (r *row) unranked(best float64) string {
	m, ok := r.claim.Metrics[clock(r.claim)]
	q, scored := r.claim.Metrics[mark(r.claim)]
	short := missed(r.claim)
	switch {
	case r.entry.Retracted != "":
		return "retracted: " + r.entry.Retracted
	case r.entry.next != nil:
		return "superseded by a later entry"
	case r.tier < bundle.Consistent:
		return "verify could not derive it again"
	case !r.claim.Valid:
		return "INVALID: " + strings.Join(r.claim.Invalid, "; ")
	case short != "":
		return short
	case !ok:
		return "no request ended well"
	case m.N < leastRuns || m.Low == nil || m.High == nil:
		return fmt.Sprintf("%d of %d runs that an interval needs", m.N, leastRuns)
	case scored && q.Value < qualityGate*best && (q.High == nil || *q.High < qualityGate*best):
		return fmt.Sprintf("quality %.3g is below %d %% of the best, %.3g", q.Value, int(100*qualityGate), best)
	case r.claim.Mode == "modelled" && r.twin == nil:
		return "its error is not stated: its run holds no measured twin, and its profile no calibration"
	case r.claim.Mode == "modelled" && r.entry.Verdict.Tier < bundle.Replayed:
		return "it was not run again"
	case r.claim.Mode == "modelled" && !(r.twin.E2E <= mostError):
		return fmt.Sprintf("its E2E p50 is off by %s, more than %d %%", percentText(r.twin.E2E), int(100*mostError))
	}
	return ""
}

// twinError is how far a modelled or emulated cell is from the measured cell of
// the same run that differs in the mode only.
type twinError struct {
	TTFT, TPOT, E2E float64 // relative; NaN where one of them has none
	stated          bool    // by the profile's calibration: there is no twin
}

func (r *row) findTwin() *twinError {
	if r.claim.Mode == "measured" {
		return nil
	}
	for _, o := range r.entry.rows {
		a, b := r.claim, o.claim
		if b.Mode != "measured" || !b.Valid || b.Run != a.Run || b.Runs < leastRuns || a.App != b.App || a.Pipeline != b.Pipeline || a.Site != b.Site || a.Model != b.Model || r.label() != o.label() {
			continue
		}
		e := func(name string) float64 {
			x, y := a.Metrics[name], b.Metrics[name]
			if x.N == 0 || y.N == 0 || y.Value == 0 {
				return math.NaN()
			}
			return math.Abs(x.Value/y.Value - 1)
		}
		return &twinError{TTFT: e("ttft_p50"), TPOT: e("tpot_p50"), E2E: e(latency)}
	}
	if r.claim.Mode == "modelled" && r.claim.Stated > 0 {
		return &twinError{TTFT: math.NaN(), TPOT: math.NaN(), E2E: r.claim.Stated, stated: true}
	}
	return nil
}

// reproduced finds measured cells that another submitter confirmed on another
// machine of the same kind: the same terms, cell and system, latency within 5 %
// or overlapping intervals, and quality within its interval.
func (s *Site) reproduced() {
	type same struct{ contract, cell, system string }
	groups := map[same][]*row{}
	var keys []same
	for _, e := range s.entries {
		if e.Retracted != "" || e.next != nil || len(e.Verdict.Signers) == 0 || e.Verdict.Tier < bundle.Consistent {
			continue
		}
		for _, r := range e.rows {
			if r.claim.Mode != "measured" || !r.claim.Valid || r.run.System == "" {
				continue
			}
			k := same{r.claim.Contract, r.claim.Site + "\x00" + r.claim.Model + "\x00" + r.label(), r.run.System}
			if groups[k] == nil {
				keys = append(keys, k)
			}
			groups[k] = append(groups[k], r)
		}
	}
	for _, k := range keys {
		for _, a := range groups[k] {
			for _, b := range groups[k] {
				switch {
				case a.entry == b.entry:
				case copied(a.claim, b.claim):
					a.copies = append(a.copies, b.entry.Name+" by "+b.entry.Submitter)
				case a.entry.Submitter != b.entry.Submitter && confirms(a.claim, b.claim) && !slices.Contains(a.by, b.entry.Submitter):
					a.by = append(a.by, b.entry.Submitter)
					a.tier = max(a.tier, bundle.Reproduced)
				}
			}
		}
	}
}

// copied reports whether two measured cells have the same times to the last digit,
// which no two runs have.
func copied(a, b *bundle.Claim) bool {
	for _, name := range []string{latency, "e2e_p95", "ttft_p50"} {
		x, y := a.Metrics[name], b.Metrics[name]
		if x.N > 0 && y.N > 0 && x.Value != y.Value {
			return false
		}
	}
	return a.Metrics[latency].N > 0 && b.Metrics[latency].N > 0
}

func confirms(a, b *bundle.Claim) bool {
	x, y := a.Metrics[latency], b.Metrics[latency]
	if x.N == 0 || y.N == 0 {
		return false
	}
	ratio := x.Value / y.Value
	near := ratio <= 1+sameLatency && ratio >= 1/(1+sameLatency)
	if !near && !overlap(x, y) {
		return false
	}
	p, q := a.Metrics[mark(a)], b.Metrics[mark(b)]
	return p.N == 0 && q.N == 0 || p.N > 0 && q.N > 0 && (p.Value == q.Value || overlap(p, q))
}

func overlap(a, b bundle.Metric) bool {
	return a.Low != nil && a.High != nil && b.Low != nil && b.High != nil && *a.Low <= *b.High && *b.Low <= *a.High
}

func paramText(v any) string {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return fmt.Sprint(v)
}
