package verify

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meibench/harness/record"
	"meibench/harness/results"
)

// tally is what the rows of one run of a cell say together.
type tally struct {
	rows, missed       int
	intended, released extent
	done               extent
	lag                []time.Duration
	hashed             int // rows that know the hash of their answer
	joules             [record.NumParts]float64
	unknown            [record.NumParts]bool
}

// extent is the first and the last of some times.
type extent struct{ lo, hi time.Duration }

func (e *extent) add(t time.Duration, first bool) {
	if first {
		e.lo, e.hi = t, t
	}
	e.lo, e.hi = min(e.lo, t), max(e.hi, t)
}

// rows reads all rows once and checks all that follows from them.
func (k *check) rows(f *folder) {
	runs := f.set.Runs()
	lines := make([]results.Line, 0, len(runs))
	for i := range runs {
		run := &runs[i]
		key := results.KeyOf(&run.Cell)
		a := f.arms[key]
		if a != nil {
			k.header(f, a, &run.Cell)
		}
		sum := record.NewSummary(&run.Cell)
		t, err := k.walk(f, i, a, sum)
		if err != nil {
			k.broken(f, key, err)
			continue
		}
		f.sound[key] = true
		k.facts(f, run, a, t)
		values := sum.Values()
		k.values(f, run, values)
		lines = append(lines, results.Line{Cell: &run.Cell, Rows: t.rows, Values: values})
	}
	if len(lines) == len(runs) {
		k.bench(f, lines)
	}
	k.clocks(f, runs)
}

// broken says which kind of thing stopped the reading of rows.
func (k *check) broken(f *folder, key results.Key, err error) {
	rule := "V034"
	if strings.Contains(err.Error(), "read "+f.dir) {
		rule = "V010"
	}
	k.rep.say(rule, f.in(results.RequestsFile, key.String()), "%s", plain(err, f.dir))
}

// walk reads the rows of run i.
func (k *check) walk(f *folder, i int, a *arm, sum *record.Summary) (*tally, error) {
	c := &f.set.Runs()[i].Cell
	key := results.KeyOf(c).String()
	t := &tally{}
	var sched *follower
	var phys *physics
	if a != nil && a.terms != nil {
		sched, phys = k.follower(f, a, c), k.physics(a, c)
		phys.plan = sched.plan
	}
	last := -1
	for r, err := range f.set.Full(i) {
		if err != nil {
			return nil, err
		}
		at := f.in(results.RequestsFile, fmt.Sprintf("%s request %d", key, r.ID))
		if r.ID <= last {
			k.rep.say("V025", at, "comes after request %d: rows are in order of their numbers, each once", last)
		}
		last = r.ID
		k.ended(at, c, r)
		if sched != nil {
			sched.row(at, r)
		}
		if phys != nil {
			phys.row(k, at, r)
		}
		sum.Add(r)
		t.add(c, r)
	}
	if sched != nil {
		sched.end(f.in(results.RequestsFile, key), t.rows)
	}
	if phys != nil {
		phys.end(k, f.in(results.CellsFile, key), c, t)
	}
	return t, nil
}

func (t *tally) add(c *record.Cell, r *record.Request) {
	first := t.rows == 0
	t.rows++
	if r.Outcome != record.OK {
		t.missed++
	}
	t.intended.add(r.Intended, first)
	t.released.add(r.Released, first)
	t.done.add(r.Done, first)
	if c.Mode == "measured" {
		t.lag = append(t.lag, r.Released-r.Intended)
	}
	if r.OutputHash != 0 {
		t.hashed++
	}
	for p, e := range r.Energy {
		t.joules[p] += float64(e.Joules)
		t.unknown[p] = t.unknown[p] || e.Unknown || e.Source == 0
	}
}

// ended checks how a request says that it ended.
func (k *check) ended(at spot, c *record.Cell, r *record.Request) {
	switch {
	case r.Outcome == record.OK && r.Err != "":
		k.rep.say("V021", at, "is ok and has the error %q", r.Err)
	case r.Outcome != record.OK && r.Err == "":
		k.rep.say("V021", at, "is %s and does not say why", r.Outcome)
	case r.Outcome == record.OK && r.AskedTokens > 0 && r.OutputTokens == 0 && !c.Trains():
		k.rep.say("V021", at, "is ok, was asked for %d tokens and gave none", r.AskedTokens)
	case r.Released == record.Unset:
		k.rep.say("V034", at, "was never released")
	}
}

// facts compares what a cell says of itself with its rows, and judges it.
func (k *check) facts(f *folder, run *results.CellRun, a *arm, t *tally) {
	c, fa := &run.Cell, &run.Cell.Facts
	at := f.in(results.CellsFile, results.KeyOf(c).String())
	for _, x := range []struct {
		what      string
		says, has any
	}{
		{"requests", run.Rows, t.rows}, {"offered requests", fa.Offered, t.rows}, {"dropped requests", fa.Dropped, 0},
		{"planned span", fa.PlannedSpan, t.intended.hi - t.intended.lo}, {"offered span", fa.OfferedSpan, t.released.hi - t.released.lo},
		{"horizon", c.Horizon, t.intended.hi},
	} {
		if x.says != x.has {
			k.rep.say("V036", at, "%s: the cell says %v, its rows %v", x.what, x.says, x.has)
		}
	}
	if a != nil && a.terms != nil && fa.Planned != a.terms.Planned {
		k.rep.say("V036", at, "planned requests: the cell says %d, the plan %d", fa.Planned, a.terms.Planned)
	}
	if late := record.Late(slices.Clone(t.lag)); c.Mode == "measured" && fa.LateP99 != late {
		k.rep.say("V042", at, "p99 of lateness: the cell says %v, its rows %v", fa.LateP99, late)
	}
	if c.Mode == "measured" && (fa.MonoTook <= 0 || c.Wall != fa.MonoTook) {
		k.rep.say("V036", at, "wall time %v, its facts %v", c.Wall, fa.MonoTook)
	}
	reasons := c.Judge()
	for _, why := range reasons {
		if !slices.Contains(c.Invalid, why) {
			k.rep.say("V037", at, "is INVALID: %s; the cell does not say so", why)
		}
	}
	if c.Valid != (len(c.Invalid) == 0 && len(reasons) == 0) {
		k.rep.say("V037", at, "valid is %v with %d reason(s) against it", c.Valid, max(len(c.Invalid), len(reasons)))
	}
}

// floors are the least samples with which a quantile may be claimed: of so many,
// one lies beyond it with 99 %.
var floors = []struct {
	metric string
	least  int
}{{"p95", 90}, {"p99", 459}}

// values compares the metrics of the table of cells with those of the rows.
func (k *check) values(f *folder, run *results.CellRun, values []record.Value) {
	at := f.in(results.CellsFile, results.KeyOf(&run.Cell).String())
	for i, v := range values {
		if w := run.Values[i].V; w != v.V && !(math.IsNaN(w) && math.IsNaN(v.V)) {
			k.rep.say("V030", at, "%s is %v, its rows give %v", v.Metric.Name, w, v.V)
		}
	}
	for _, q := range floors {
		if run.Rows < q.least {
			k.rep.say("V031", at, q.metric+" of %d requests; %d are needed to claim it with 99 %% confidence", run.Rows, q.least)
		}
	}
}

// bench compares bench.txt with what the rows give.
func (k *check) bench(f *folder, lines []results.Line) {
	at := f.in(results.BenchFile, "")
	have, err := os.ReadFile(filepath.Join(f.dir, results.BenchFile))
	if err != nil {
		k.rep.say("V010", at, "%s", plain(err, f.dir))
		return
	}
	var want bytes.Buffer
	if err := results.WriteBench(&want, lines); err != nil {
		k.rep.say("V033", at, "%s", err)
		return
	}
	if bytes.Equal(have, want.Bytes()) {
		return
	}
	a, b := strings.Split(string(have), "\n"), strings.Split(want.String(), "\n")
	for i := range max(len(a), len(b)) {
		if x, y := line(a, i), line(b, i); x != y {
			at.row = fmt.Sprintf("line %d", i+1)
			k.rep.say("V033", at, "%s; the rows give %s", around(x, y), around(y, x))
			return
		}
	}
}

func line(s []string, i int) string {
	if i < len(s) {
		return s[i]
	}
	return ""
}

// around is the part of a line where it begins to differ from another.
func around(s, other string) string {
	i := 0
	for i < len(s) && i < len(other) && s[i] == other[i] {
		i++
	}
	from := max(0, i-20)
	return fmt.Sprintf("%q", s[from:min(len(s), i+30)])
}

// clocks holds the times of rows, runs and folder against each other.
func (k *check) clocks(f *folder, runs []results.CellRun) {
	m := f.set.Manifest
	var sum time.Duration
	for i := range runs {
		sum += runs[i].Cell.Wall
		if w := runs[i].Cell.Wall; w < 0 || w > 365*24*time.Hour {
			k.rep.say("V041", f.in(results.CellsFile, results.KeyOf(&runs[i].Cell).String()), "took %v", w)
			return
		}
	}
	if m.Finished == nil {
		return
	}
	const slack = time.Second
	if took := m.Finished.Sub(m.Started); sum > took+slack {
		k.rep.say("V041", f.in(results.ManifestFile, ""), "the runs of cells took %v, the folder %v from its start to its end", sum, took)
	}
}

// span reports how long rows took from the first release on.
func (t *tally) span() time.Duration { return t.done.hi - t.released.lo }
