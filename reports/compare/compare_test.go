package compare

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchmath"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/harness/stats"
	"meibench/internal/rng"
)

// made is a run folder with cells of some pipelines whose requests take about so
// long, with a spread over repeats.
type made struct {
	mode      string
	repeats   int
	mean      time.Duration
	spread    float64
	rate      float64 // of the contract
	pipelines []string
	seed      uint64 // of the luck
	invalid   int    // repeats that are INVALID
}

func (m made) write(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "run")
	terms := results.Contract{Workload: map[string]any{"name": "w", "rate": m.rate}, Mode: m.mode, Model: "m"}
	hash, err := terms.Hash()
	require.NoError(t, err)
	run, err := results.Create(dir, results.Manifest{Contracts: []results.Contract{terms}, Expected: len(m.pipelines) * m.repeats, CPU: "c"})
	require.NoError(t, err)
	for i, p := range m.pipelines {
		for rep := range m.repeats {
			luck := rng.Stream(m.seed, p, rep)
			factor := math.Exp(m.spread * luck.NormFloat64())
			c := record.Cell{Index: i, Suite: "s", Name: p, App: "assistant", Pipeline: p, Site: "home", Model: "m", Mode: m.mode, Seed: uint64(100 + rep), Repeat: rep,
				Contract: hash, Horizon: time.Second, TTFTLimit: time.Second, Wall: 30 * time.Second}
			if rep < m.invalid {
				c.Invalid = []string{"the lid was open"}
			}
			w, err := run.Begin(c)
			require.NoError(t, err)
			for id := range 20 {
				var r record.Request
				r.Reset(id, time.Duration(id)*time.Millisecond)
				r.AskedTokens, r.PromptTokens = 2, 1
				took := time.Duration(float64(m.mean) * factor * (1 + float64(id)/100))
				r.Spent(record.Compute, "n", r.Intended, r.Intended+took)
				r.Token(r.Intended+took/2, 1)
				r.Token(r.Intended+took, 1)
				r.Finish(r.Intended+took, nil)
				require.NoError(t, w.Row(&r))
			}
			require.NoError(t, w.End(c))
		}
	}
	require.NoError(t, run.Finish())
	return dir
}

func side(t *testing.T, paths ...string) *Side {
	s, err := Load(paths...)
	require.NoError(t, err)
	return s
}

func measured(seed uint64, mean time.Duration, spread float64, repeats int, pipelines ...string) made {
	return made{mode: "measured", repeats: repeats, mean: mean, spread: spread, rate: 2, pipelines: pipelines, seed: seed}
}

// verdicts are "pipeline metric verdict".
func verdicts(c *Comparison) map[string]string {
	out := map[string]string{}
	for _, p := range c.Pairs {
		pipe := regexp.MustCompile(`pipeline=(\w+)`).FindStringSubmatch(p.Cell)[1]
		out[pipe+" "+p.Metric] = p.Verdict
	}
	return out
}

func TestVerdicts(t *testing.T) {
	old := side(t, measured(1, 100*time.Millisecond, 0.02, 10, "a").write(t))
	for name, tc := range map[string]struct {
		new  made
		want string // of E2E p50
	}{
		"faster":        {measured(2, 50*time.Millisecond, 0.02, 10, "a"), Faster},
		"slower":        {measured(3, 150*time.Millisecond, 0.02, 10, "a"), Slower},
		"small, spread": {measured(4, 101*time.Millisecond, 0.2, 6, "a"), "cannot tell: needs "},
		"the same":      {measured(1, 100*time.Millisecond, 0.02, 10, "a"), NoneShown},
	} {
		c, err := Compare(old, side(t, tc.new.write(t)), Options{Metrics: []string{"e2e_p50", "goodput_share"}})
		require.NoError(t, err)
		v := verdicts(c)
		require.Contains(t, v["a e2e_p50"], tc.want, name)
		require.Equal(t, NoneShown, v["a goodput_share"], "%s: all 1 on both sides", name)
		if tc.want == Slower {
			require.Equal(t, 1, c.Worse())
		} else {
			require.Zero(t, c.Worse())
		}
	}
	tight := side(t, measured(5, 100*time.Millisecond, 0.0005, 10, "a").write(t))
	c, err := Compare(tight, side(t, measured(6, 100*time.Millisecond, 0.0005, 10, "a").write(t)), Options{Metrics: []string{"e2e_p50"}})
	require.NoError(t, err)
	require.Equal(t, NoneShown, c.Pairs[0].Verdict)
	require.Contains(t, c.Pairs[0].Note, "within the band")
}

// TestGoodputThatFallsIsWorse: a metric where more is better.
func TestGoodputThatFallsIsWorse(t *testing.T) {
	c, err := Compare(side(t, measured(1, 900*time.Millisecond, 0.01, 8, "a").write(t)), side(t, measured(2, 2200*time.Millisecond, 0.01, 8, "a").write(t)), Options{Metrics: []string{"goodput_share"}})
	require.NoError(t, err)
	require.Equal(t, Worse, c.Pairs[0].Verdict)
	require.Contains(t, c.Pairs[0].Note, "zeros")
	require.Nil(t, c.Pairs[0].Ratio)
}

func TestUnequalContractsAreRefusedByName(t *testing.T) {
	a, m := measured(1, time.Second, 0.1, 4, "a", "b"), measured(1, time.Second, 0.1, 4, "a", "b")
	m.rate = 3
	_, err := Compare(side(t, a.write(t)), side(t, m.write(t)), Options{})
	var r *Refusal
	require.ErrorAs(t, err, &r)
	require.Equal(t, "workload.rate: 2 -> 3", r.Field)
	require.Equal(t, 1, r.More)
	_, err = Compare(side(t, a.write(t)), side(t, m.write(t)), Options{Common: true})
	require.ErrorContains(t, err, "under different contracts")
	_, err = Load(a.write(t), m.write(t))
	require.ErrorContains(t, err, "another contract", "one side of two kinds")
	_, err = Compare(side(t, filepath.Join(a.write(t), results.BenchFile)), side(t, m.write(t)), Options{})
	require.ErrorAs(t, err, &r, "text knows the hash only")
	require.Contains(t, r.Field, "does not name")
}

func TestModelledCellsAreExact(t *testing.T) {
	m := made{mode: "modelled", repeats: 3, mean: 100 * time.Millisecond, spread: 0.5, rate: 2, pipelines: []string{"a"}, seed: 1}
	same := side(t, m.write(t))
	c, err := Compare(same, side(t, m.write(t)), Options{})
	require.NoError(t, err)
	require.Zero(t, c.Family, "nothing is left to chance")
	for _, p := range c.Pairs {
		require.Equal(t, NoneShown, p.Verdict)
		require.Equal(t, "identical", p.Note)
	}
	m.mean = 102 * time.Millisecond
	c, err = Compare(same, side(t, m.write(t)), Options{Metrics: []string{"e2e_p50"}})
	require.NoError(t, err)
	require.Equal(t, Slower, c.Pairs[0].Verdict, "one of three runs is enough, seed by seed")
	require.InDelta(t, 1.02, *c.Pairs[0].Ratio, 1e-6)
	m.mean = 100500 * time.Microsecond
	c, err = Compare(same, side(t, m.write(t)), Options{Metrics: []string{"e2e_p50"}})
	require.NoError(t, err)
	require.Equal(t, NoneShown, c.Pairs[0].Verdict)
	require.Contains(t, c.Pairs[0].Note, "within the band")
	m.seed = 9
	c, err = Compare(same, side(t, m.write(t)), Options{Metrics: []string{"e2e_p50"}})
	require.NoError(t, err)
	require.Less(t, *c.Pairs[0].Low, 0.9)
	require.Greater(t, *c.Pairs[0].High, 1.1)
	require.Equal(t, Slower, c.Pairs[0].Verdict, "a seed that got worse is not averaged away by one that got better")
	require.Regexp(t, "^[12] of 3 seeds; [12] the other way$", c.Pairs[0].Note)
	require.Equal(t, 1, c.Worse())
	m.seed = 1
	c, err = Compare(same, side(t, filepath.Join(m.write(t), results.BenchFile)), Options{Metrics: []string{"e2e_p50"}})
	require.NoError(t, err)
	require.Equal(t, "exact", c.Pairs[0].Test, "benchmark text has the seeds in its names")
}

func TestPairsOfSeedsSeeMore(t *testing.T) {
	old, new := measured(1, 100*time.Millisecond, 0.5, 10, "a"), measured(1, 104*time.Millisecond, 0.5, 10, "a")
	a, b := side(t, old.write(t)), side(t, new.write(t))
	o := Options{Metrics: []string{"e2e_p50"}}
	c, err := Compare(a, b, o)
	require.NoError(t, err)
	require.Equal(t, Slower, c.Pairs[0].Verdict)
	require.Equal(t, "signed ranks of pairs", c.Pairs[0].Test)
	o.Pair = Never
	c, err = Compare(a, b, o)
	require.NoError(t, err)
	require.Contains(t, c.Pairs[0].Verdict, "cannot tell")

	// Five seeds are too few for pairs, and one more would do: the spread of pairs
	// is small. The spread over seeds alone would ask for far more.
	old.repeats, new.repeats = 5, 5
	o.Pair = Auto
	c, err = Compare(side(t, old.write(t)), side(t, new.write(t)), o)
	require.NoError(t, err)
	require.Equal(t, "Mann-Whitney", c.Pairs[0].Test)
	require.Equal(t, "cannot tell: needs 1 more run", c.Pairs[0].Verdict)

	for name, s := range map[string][2]*Side{
		"one run of unknown seed a side":        {side(t, filepath.Join(old.write(t), results.BenchFile)), side(t, filepath.Join(new.write(t), results.BenchFile))},
		"one line of benchmark text is no pair": {side(t, old.write(t)), side(t, filepath.Join(new.write(t), results.BenchFile))},
	} {
		c, err := Compare(s[0], s[1], o)
		require.NoError(t, err)
		require.Equal(t, "Mann-Whitney", c.Pairs[0].Test, name)
	}
	text := filepath.Join(t.TempDir(), "seedless.txt")
	require.NoError(t, os.WriteFile(text, []byte("BenchmarkF 1 100 ns/op\n"), 0o644))
	_, err = Compare(side(t, text), side(t, text), Options{Pair: Always})
	require.ErrorContains(t, err, "no seed is on both sides")
}

// A metric with zeros has a difference, no ratio; too few runs are too few for
// it as well, however far apart they are.
func TestZeros(t *testing.T) {
	few := func(repeats int, d time.Duration) *Side { return side(t, measured(1, d, 0.01, repeats, "a").write(t)) }
	c, err := Compare(few(2, 900*time.Millisecond), few(2, 2200*time.Millisecond), Options{Metrics: []string{"goodput_share"}})
	require.NoError(t, err)
	require.Contains(t, c.Pairs[0].Verdict, "cannot tell: needs", "1 against 0 in two runs is not \"no difference\"")
	require.Equal(t, -1.0, *c.Pairs[0].Diff)
	c, err = Compare(few(6, 2200*time.Millisecond), few(6, 2200*time.Millisecond), Options{Metrics: []string{"goodput_share"}})
	require.NoError(t, err)
	require.Equal(t, NoneShown, c.Pairs[0].Verdict, "0 against 0 in six")
}

func TestUnfinishedRunsAreRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	run, err := results.Create(dir, results.Manifest{Expected: 3})
	require.NoError(t, err)
	_, err = Load(dir)
	require.ErrorIs(t, err, results.ErrUnfinished)
	require.NoError(t, run.Finish())
	_, err = Load(dir)
	require.ErrorIs(t, err, results.ErrUnfinished)
	require.ErrorContains(t, err, "it holds 0 of 3 runs of cells: go on with it by meibench run --resume")
}

func TestInvalidRunsAreLeftOutAndNamed(t *testing.T) {
	m := measured(1, 100*time.Millisecond, 0.02, 6, "a")
	m.invalid = 2
	c, err := Compare(side(t, measured(2, 50*time.Millisecond, 0.02, 6, "a").write(t)), side(t, m.write(t)), Options{Metrics: []string{"e2e_p50"}})
	require.NoError(t, err)
	require.Equal(t, 4, c.Pairs[0].New.N)
	var b bytes.Buffer
	require.NoError(t, c.Text(&b, false))
	require.Contains(t, b.String(), "the lid was open")
	m.invalid = 6
	c, err = Compare(side(t, measured(2, 50*time.Millisecond, 0.02, 6, "a").write(t)), side(t, m.write(t)), Options{Metrics: []string{"e2e_p50"}})
	require.NoError(t, err)
	require.Equal(t, NotJudged, c.Pairs[0].Verdict)
}

func TestTheFamilyIsCorrected(t *testing.T) {
	// One cell alone shows at p = 0.029 with four runs a side; among six it cannot.
	one := func(pipes ...string) *Comparison {
		c, err := Compare(side(t, measured(1, 100*time.Millisecond, 0.01, 4, pipes...).write(t)), side(t, measured(2, 200*time.Millisecond, 0.01, 4, pipes...).write(t)), Options{Metrics: []string{"e2e_p50"}})
		require.NoError(t, err)
		return c
	}
	require.Equal(t, Slower, one("a").Pairs[0].Verdict)
	many := one("a", "b", "c", "d", "e", "f")
	require.Equal(t, 6, many.Family)
	require.Contains(t, many.Pairs[0].Verdict, "cannot tell: needs")
	p := &many.Pairs[0]
	require.InDelta(t, 6**p.P, *p.Adjusted, 1e-9)
	whole := Question{Change: *p.Ratio - 1, Tests: 6}.Repeats(p.effect.Spread)
	require.Equal(t, whole-4, p.Needs, "what a plan for six tests asks for, less what is there")
	require.Greater(t, whole, Question{Change: *p.Ratio - 1}.Repeats(p.effect.Spread))
}

func TestCellsOfOneSideAreNamed(t *testing.T) {
	c, err := Compare(side(t, measured(1, time.Second, 0.1, 4, "a", "b").write(t)), side(t, measured(1, time.Second, 0.1, 4, "b", "c").write(t)), Options{})
	require.NoError(t, err)
	require.Len(t, c.OnlyOld, 1)
	require.Contains(t, c.OnlyOld[0], "pipeline=a")
	require.Contains(t, c.OnlyNew[0], "pipeline=c")
	var b bytes.Buffer
	require.NoError(t, c.Text(&b, false))
	require.Contains(t, b.String(), "all cells: site=home model=m mode=measured")
	require.Contains(t, b.String(), "only in old: Assistant pipeline=a")
	for _, line := range strings.Split(b.String(), "\n") {
		require.LessOrEqual(t, len([]rune(line)), 130, line)
	}
	b.Reset()
	require.NoError(t, c.Markdown(&b, true))
	require.NotContains(t, b.String(), "| Assistant", "nothing changed")
	b.Reset()
	require.NoError(t, c.JSON(&b))
	var back Comparison
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	require.Len(t, back.Pairs, len(c.Pairs))
}

func TestTextOfGoTest(t *testing.T) {
	write := func(ns ...int) string {
		var b strings.Builder
		b.WriteString("goos: linux\npkg: example.org/x\n")
		for _, n := range ns {
			fmt.Fprintf(&b, "BenchmarkF-2 100 %d ns/op 10 B/op\n", n)
		}
		path := filepath.Join(t.TempDir(), "b.txt")
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
		return path
	}
	c, err := Compare(side(t, write(100, 101, 102, 103, 104)), side(t, write(80, 81, 82, 83, 84)), Options{})
	require.NoError(t, err)
	require.Equal(t, "example.org/x.F-2", c.Pairs[0].Cell)
	found := map[string]string{}
	for _, p := range c.Pairs {
		found[p.Metric] = p.Verdict
	}
	require.Equal(t, map[string]string{"sec/op": Faster, "B/op": NoneShown}, found)
	for name, text := range map[string]string{"no benchmark result": "PASS\n", "missing units": "BenchmarkX 1 1 ns/op 2\n"} {
		path := filepath.Join(t.TempDir(), "bad.txt")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		_, err := Load(path)
		require.ErrorContains(t, err, name)
	}
	_, err = Load(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Load()
	require.ErrorContains(t, err, "empty")
}

// TestPromisedPowerHolds plans for a change and then looks how often it is seen.
func TestPromisedPowerHolds(t *testing.T) {
	const spread, change, tries = 0.05, 0.06, 1500
	n := Question{Change: change}.Repeats(spread)
	require.Greater(t, n, 4)
	seen := 0
	for i := range tries {
		luck := rng.Stream(7, "power", i)
		old, new := make([]float64, n), make([]float64, n)
		for k := range old {
			old[k], new[k] = math.Exp(spread*luck.NormFloat64()), (1+change)*math.Exp(spread*luck.NormFloat64())
		}
		if e, err := stats.Compare(old, new, stats.Rule{}); err == nil && e.P <= 0.05 {
			seen++
		}
	}
	require.GreaterOrEqual(t, float64(seen)/tries, 0.78, "%d runs", n)
	require.LessOrEqual(t, float64(seen)/tries, 0.9, "%d runs: a plan that asks for far too many is no plan", n)
}

func TestNeeds(t *testing.T) {
	s := side(t, measured(1, 100*time.Millisecond, 0.1, 8, "a").write(t))
	needs := Needs(s, []string{"e2e_p50", "goodput_share"}, Question{Change: 0.05})
	require.Len(t, needs, 2)
	require.Greater(t, needs[0].Repeats, 8)
	require.InDelta(t, float64(needs[0].Repeats), *needs[0].Minutes, 1e-6, "two sides of half a minute")
	require.LessOrEqual(t, needs[1].Repeats, 6, "no spread at all")
	more := Needs(s, []string{"e2e_p50"}, Question{Change: 0.05, Tests: 20})
	require.Greater(t, more[0].Repeats, needs[0].Repeats)
	exact := Needs(side(t, made{mode: "modelled", repeats: 2, mean: time.Second, rate: 2, pipelines: []string{"a"}}.write(t)), []string{"e2e_p50"}, Question{Change: 0.05})
	require.Equal(t, 1, exact[0].Repeats)
	alone := Needs(side(t, measured(1, time.Second, 0.1, 1, "a").write(t)), []string{"e2e_p50"}, Question{Change: 0.05})
	require.Contains(t, alone[0].Note, "one run")
	var b bytes.Buffer
	require.NoError(t, WriteNeeds(&b, needs, Question{Change: 0.05}))
	require.Contains(t, b.String(), "to show a change of 5 %")
	require.Contains(t, b.String(), fmt.Sprintf("--repeat %d", needs[0].Repeats))
}

// TestBenchstatAgrees runs the unmodified benchstat on the benchmark text of two
// runs: medians, intervals, ratios and p-values are ours to the digits it prints.
func TestBenchstatAgrees(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "benchstat")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", tool, "golang.org/x/perf/cmd/benchstat").CombinedOutput(); err != nil {
		t.Skipf("benchstat cannot be built here: %s", out)
	}
	check := func(t *testing.T, a, b string, least int) {
		c, err := Compare(side(t, a), side(t, b), Options{All: true, Pair: Never})
		require.NoError(t, err)
		rows := benchstat(t, tool, a, b)
		for _, row := range rows {
			agrees(t, c, row)
		}
		require.GreaterOrEqual(t, len(rows), least)
		require.Equal(t, len(rows), len(c.Pairs), "benchstat has no row that we have not, and we none that it has not")
	}
	for _, tc := range []struct {
		mode     string
		old, new int
	}{{"measured", 10, 10}, {"measured", 5, 8}, {"measured", 3, 3}, {"modelled", 1, 1}} {
		old := made{mode: tc.mode, repeats: tc.old, mean: 100 * time.Millisecond, spread: 0.05, rate: 2, pipelines: []string{"a", "b"}, seed: 1}
		new := old
		new.mean, new.seed, new.repeats = 112*time.Millisecond, 9, tc.new
		check(t, filepath.Join(old.write(t), results.BenchFile), filepath.Join(new.write(t), results.BenchFile), 40)
	}
	bench := func(name string, factor float64) string {
		var b strings.Builder
		b.WriteString("goos: linux\npkg: x\n")
		for rep := range 7 {
			fmt.Fprintf(&b, "BenchmarkSum/n=8-4 100 %d ns/op %d B/op 0 allocs/op\n", int(1000*factor)+17*rep*rep%29, 64*(rep%2))
			fmt.Fprintf(&b, "BenchmarkDot-4 100 %d ns/op 128 B/op 2 allocs/op\n", 500+rep)
		}
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
		return path
	}
	check(t, bench("old.txt", 1), bench("new.txt", 1.1), 6)
}

// statRow is a row of benchstat's CSV.
type statRow struct{ unit, name, old, oldCI, new, newCI, delta, p string }

func benchstat(t *testing.T, tool, old, new string) (out []statRow) {
	cmd := exec.Command(tool, "-format", "csv", old, new)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	text, err := cmd.Output()
	require.NoError(t, err, errs.String())
	r := csv.NewReader(bytes.NewReader(text))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	require.NoError(t, err)
	unit := ""
	for _, f := range rows {
		if len(f) >= 6 && f[0] == "" && f[2] == "CI" {
			unit = f[1]
		}
		if len(f) == 7 && f[0] != "" && f[0] != "geomean" {
			out = append(out, statRow{unit, f[0], f[1], f[2], f[3], f[4], f[5], f[6]})
		}
	}
	return out
}

// agrees compares a row of benchstat with our pair.
func agrees(t *testing.T, c *Comparison, row statRow) {
	name := seedPart.ReplaceAllString(row.name, "")
	i := slices.IndexFunc(c.Pairs, func(p Pair) bool { return p.Unit == row.unit && strings.TrimPrefix(p.Cell, "x.") == name })
	require.GreaterOrEqual(t, i, 0, "we have no %s of %s", row.unit, row.name)
	p := &c.Pairs[i]
	oldV, newV := parse(t, row.old), parse(t, row.new)
	require.Equal(t, oldV, p.Old.Median, row)
	require.Equal(t, newV, p.New.Median, row)
	delta := benchmath.Comparison{P: 0, Alpha: 0.05}
	if p.P != nil {
		delta.P, delta.N1, delta.N2 = *p.P, p.Old.N, p.New.N
		require.Equal(t, delta.String(), row.p, row)
		require.Equal(t, row.oldCI, interval(p.Old), row)
		require.Equal(t, row.newCI, interval(p.New), row)
	} else {
		require.Equal(t, "exact", p.Test)
		require.Equal(t, fmt.Sprintf("n=%d", p.Old.N), row.p, row)
	}
	require.Equal(t, row.delta, delta.FormatDelta(p.Old.Median, p.New.Median), row)
	if p.Ratio != nil && strings.ContainsAny(row.delta, "+-") {
		require.Equal(t, row.delta, fmt.Sprintf("%+.2f%%", (*p.Ratio-1)*100), "the ratio that we print is the one that benchstat prints")
	}
}

func parse(t *testing.T, s string) float64 {
	v, err := strconv.ParseFloat(s, 64)
	require.NoError(t, err)
	return v
}

// interval is a sample's as benchstat prints it: the farther end, relative.
func interval(s Sample) string {
	if s.Low == nil || s.High == nil {
		return "∞"
	}
	if *s.Low == s.Median && s.Median == *s.High {
		return "0%"
	}
	if s.Median == 0 || *s.Low <= 0 {
		return "?" // it gives no interval across zero
	}
	far := max(s.Median-*s.Low, *s.High-s.Median)
	return fmt.Sprintf("%.0f%%", 100*far/s.Median)
}
