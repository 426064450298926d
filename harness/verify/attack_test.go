package verify

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"meibench/harness"
	"meibench/harness/bundle"
	"meibench/harness/ledger"
	"meibench/harness/plan"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/canon"
	"meibench/suites"
)

// truncate takes the last token of an answer away.
func truncate(r *record.Request) {
	last := len(r.Chunks) - 1
	for last > 0 && r.Chunks[last].Tokens == 0 {
		last--
	}
	r.Chunks = r.Chunks[:last]
	r.OutputTokens--
	r.LastToken = r.Chunks[last-1].At
}

// attack is an edit of the rows of a pipeline in a mode, and the rule that must
// refuse it.
type attack struct {
	name, rule string
	edit
}

type edit struct {
	mode, pipeline string
	row            func(r *record.Request)
}

func attacksOnTimes() []attack {
	return []attack{
		{"cached answers, all", "V040", edit{"measured", "local", func(r *record.Request) { squeeze(r, 1e-4) }}},
		{"cached answers, every other", "V040", edit{"measured", "local", func(r *record.Request) {
			if r.ID%2 == 1 {
				squeeze(r, 1e-4)
			}
		}}},
		{"cached answers of emulated runs", "V040", edit{"emulated", "local", func(r *record.Request) { squeeze(r, 1e-5) }}},
		{"a link faster than light", "V045", edit{"measured", "offload", func(r *record.Request) { squeeze(r, 0.05) }}},
		{"a split that sends nothing", "V045", edit{"measured", "split", func(r *record.Request) { squeeze(r, 0.05) }}},
		{"bytes that were not sent", "V045", edit{"measured", "offload", func(r *record.Request) { r.UpBytes = 1 }}},
		{"truncated outputs", "V051", edit{"measured", "local", truncate}},
		{"more tokens than there were", "V024", edit{"measured", "local", func(r *record.Request) {
			r.OutputTokens, r.AskedTokens = r.OutputTokens+1, r.AskedTokens+1
			r.Chunks[len(r.Chunks)-1].Tokens++
		}}},
	}
}

func attacksOnAnswers() []attack {
	return []attack{
		{"another answer of the same length", "V050", edit{"measured", "offload", func(r *record.Request) { r.OutputHash ^= 1 }}},
		{"answers without their hash", "V050", edit{"measured", "offload", func(r *record.Request) { r.OutputHash = 0 }}},
		{"quality", "V053", edit{"measured", "split", func(r *record.Request) { r.Quality = 1 - r.Quality }}},
		{"shorter prompts", "V024", edit{"measured", "local", func(r *record.Request) { r.PromptTokens-- }}},
		{"fewer tokens asked for", "V024", edit{"measured", "local", func(r *record.Request) { r.AskedTokens += 5 }}},
		{"a laxer deadline", "V024", edit{"measured", "local", func(r *record.Request) { r.Deadline += time.Hour }}},
		{"energy halved", "V047", edit{"measured", "local", func(r *record.Request) { r.Energy[record.DevicePart].Joules /= 2 }}},
		{"energy beyond the device", "V047", edit{"measured", "local", func(r *record.Request) { r.Energy[record.DevicePart].Joules *= 1000 }}},
		{"a slow answer called cancelled", "V054", edit{"measured", "local", func(r *record.Request) {
			if r.ID == 3 {
				r.Outcome, r.Err, r.Quality = record.Cancelled, "by the user", math.NaN()
			}
		}}},
		{"a failure without a reason", "V021", edit{"measured", "local", func(r *record.Request) { r.Outcome = record.Failed }}},
		{"an error that is ok", "V021", edit{"measured", "local", func(r *record.Request) { r.Err = "edge: out of memory" }}},
	}
}

// Attacks on measured rows. Each builds on one honest run, lies in one thing and
// repairs everything that is written beside it.
func TestAttacksOnMeasuredRows(t *testing.T) {
	honest := run(t, measuredSuite)
	for _, a := range slices.Concat(attacksOnTimes(), attacksOnAnswers()) {
		t.Run(a.name, func(t *testing.T) {
			o := Options{Rerun: None}
			if strings.HasPrefix(a.rule, "V05") { // what only the model knows
				o.Rerun = All
			}
			refused(t, verdict(t, edited(t, honest, a.mode, a.pipeline, a.row), o), a.rule)
		})
	}
}

// slowest is the place of the row that took longest.
func slowest(rows []*record.Request) (worst int) {
	for i, r := range rows {
		if r.Done-r.Intended > rows[worst].Done-rows[worst].Intended {
			worst = i
		}
	}
	return worst
}

// attackOnRun is an edit of all measured rows of a cell.
type attackOnRun struct {
	name, rule string
	edit       func(rows []*record.Request) []*record.Request
}

func attacksOnSchedules() []attackOnRun {
	return []attackOnRun{
		{"nothing", "", func(rows []*record.Request) []*record.Request { return rows }},
		{"the slowest row dropped", "V025", func(rows []*record.Request) []*record.Request {
			i := slowest(rows)
			return slices.Delete(rows, i, i+1)
		}},
		{"the slowest row dropped and the others renumbered", "V023", func(rows []*record.Request) []*record.Request {
			rows = slices.Delete(rows, 1, 2)
			for i, r := range rows {
				r.ID = i
			}
			return rows
		}},
		{"the last row dropped", "V025", func(rows []*record.Request) []*record.Request { return rows[:len(rows)-1] }},
		{"a row too many", "V025", func(rows []*record.Request) []*record.Request {
			more := *rows[0]
			more.ID = len(rows)
			return append(rows, &more)
		}},
		{"coordinated omission: intended shifted to released", "V023", func(rows []*record.Request) []*record.Request {
			for _, r := range rows {
				r.Intended = r.Released
				r.Spans = slices.DeleteFunc(r.Spans, func(s record.Span) bool { return s.End <= r.Intended })
				if len(r.Spans) > 0 {
					r.Spans[0].Start = r.Intended
				}
			}
			return rows
		}},
		{"time scaled by 0.9", "V023", func(rows []*record.Request) []*record.Request {
			for _, r := range rows {
				move(r, func(d time.Duration) time.Duration { return d * 9 / 10 })
			}
			return rows
		}},
	}
}

// Attacks on which rows there are and on clocks.
func TestAttacksOnSchedulesAndClocks(t *testing.T) {
	honest := run(t, measuredSuite)
	for _, a := range attacksOnSchedules() {
		t.Run(a.name, func(t *testing.T) {
			dir := forge(t, honest, func(c *record.Cell, rows []*record.Request) []*record.Request {
				if c.Mode == "measured" {
					rows = a.edit(rows)
					facts(c, rows)
				}
				return rows
			})
			v := verdict(t, dir, Options{Rerun: None})
			if a.rule == "" {
				require.Empty(t, errorsOf(v), "forging nothing leaves an honest run")
				return
			}
			refused(t, v, a.rule)
		})
	}
}

// Attacks on what a cell says of itself.
func TestAttacksOnCells(t *testing.T) {
	honest := run(t, measuredSuite)
	cell := func(edit func(c *record.Cell)) string {
		return forge(t, honest, func(c *record.Cell, rows []*record.Request) []*record.Request {
			if c.Mode == "measured" {
				edit(c)
			}
			return rows
		})
	}
	for _, tc := range []struct {
		name, rule string
		edit       func(c *record.Cell)
	}{
		{"horizon stretched", "V036", func(c *record.Cell) { c.Horizon /= 2 }},
		{"offered fewer", "V036", func(c *record.Cell) { c.Facts.Offered-- }},
		{"planned fewer", "V036", func(c *record.Cell) { c.Facts.Planned-- }},
		{"planned span", "V036", func(c *record.Cell) { c.Facts.PlannedSpan++ }},
		{"lateness", "V042", func(c *record.Cell) { c.Facts.LateP99 = 1 }},
		{"a run shorter than its rows", "V041", func(c *record.Cell) { c.Facts.MonoTook, c.Facts.WallTook, c.Wall = 1, 1, 1 }},
		{"wall time", "V036", func(c *record.Cell) { c.Wall *= 2 }},
		{"limits relaxed", "V026", func(c *record.Cell) { c.E2ELimit *= 10 }},
		{"another model's name", "V026", func(c *record.Cell) { c.Model = "mei-small" }},
		{"another contract", "V026", func(c *record.Cell) { c.Contract = "abc" }},
		{"another pipeline", "V026", func(c *record.Cell) { c.Pipeline = "local" }},
		{"busier than it can be", "V046", func(c *record.Cell) { c.Nodes[0].Busy = 1000 * time.Hour }},
		{"less busy than the energy says", "V047", func(c *record.Cell) {
			for i := range c.Nodes {
				c.Nodes[i].Busy /= 2
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { refused(t, verdict(t, cell(tc.edit), Options{Rerun: None}), tc.rule) })
	}
	t.Run("INVALID turned valid", func(t *testing.T) {
		bad := forge(t, honest, func(c *record.Cell, rows []*record.Request) []*record.Request {
			if c.Mode == "emulated" {
				c.Facts.PauseP99, c.Facts.StealKnown, c.Facts.StealShare = 0, true, 0.5
			}
			return rows
		})
		v := verdict(t, bad, Options{Rerun: None})
		require.Empty(t, errorsOf(v), "an INVALID run that says so is honest")
		patch(t, bad, results.CellsFile, [2]string{`"Valid":false`, `"Valid":true `})
		refused(t, verdict(t, bad, Options{Rerun: None}), "V037")
		reasons := `"Invalid":["host steal 50%: want <= 1%"]`
		patch(t, bad, results.CellsFile, [2]string{reasons, fmt.Sprintf("%-*s", len(reasons), `"Invalid":[]`)})
		refused(t, verdict(t, bad, Options{Rerun: None}), "V037")
	})
}

// Attacks on files that are derived from rows, and on rows below the level of a
// writer.
func TestAttacksOnFiles(t *testing.T) {
	honest := run(t, modelledSuite)
	for _, tc := range []struct {
		name, rule string
		spoil      func(dir string)
	}{
		{"bench.txt edited", "V033", func(dir string) { patch(t, dir, results.BenchFile, [2]string{"-p50-sec", "-p51-sec"}) }},
		{"a byte changed", "V002", func(dir string) {
			f := filepath.Join(dir, results.BenchFile)
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(f, append(b, '\n'), 0o644))
		}},
		{"a table cut off", "V010", func(dir string) {
			f := filepath.Join(dir, results.SpansFile)
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(f, b[:len(b)/2], 0o644))
		}},
		{"a unit changed", "V011", func(dir string) {
			patch(t, dir, results.RequestsFile, [2]string{"FLOP", "FL0P"})
		}},
		{"no plan", "V010", func(dir string) { require.NoError(t, os.Remove(filepath.Join(dir, plan.File))) }},
		{"another commit", "", func(dir string) { manifest(t, dir, func(m *results.Manifest) { m.Commit = "abc+dirty" }) }},
		{"a run that goes on", "V010", func(dir string) { manifest(t, dir, func(m *results.Manifest) { m.Finished = nil }) }},
		{"an incomplete run", "V020", func(dir string) { manifest(t, dir, func(m *results.Manifest) { m.Complete = false }) }},
		{"fewer rows said", "V013", func(dir string) { manifest(t, dir, func(m *results.Manifest) { m.Rows-- }) }},
		{"another contract", "V026", func(dir string) { manifest(t, dir, func(m *results.Manifest) { m.Contract = "abc" }) }},
		{"another model", "V026", func(dir string) {
			manifest(t, dir, func(m *results.Manifest) { m.Models["llama-3.2-1b:q4_0"] = "abc" })
		}},
		{"another suite", "V026", func(dir string) { manifest(t, dir, func(m *results.Manifest) { m.SuiteHash = "abc" }) }},
		{"other seeds said", "V022", func(dir string) { manifest(t, dir, func(m *results.Manifest) { m.Seeds = []string{"1"} }) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "spoiled")
			require.NoError(t, os.CopyFS(dir, os.DirFS(honest)))
			tc.spoil(dir)
			v := verdict(t, dir, Options{Rerun: None, Strict: tc.rule == ""})
			if tc.rule == "" {
				tc.rule = "V070"
			}
			refused(t, v, tc.rule)
		})
	}
}

// A modelled row may not differ by a nanosecond, a microjoule or a byte.
func TestAttacksOnModelledRows(t *testing.T) {
	honest := run(t, modelledSuite)
	for name, edit := range map[string]func(r *record.Request){
		"a nanosecond": func(r *record.Request) {
			if r.ID == 7 {
				r.Done++
				r.Spans[len(r.Spans)-1].End++
			}
		},
		"energy":  func(r *record.Request) { r.Energy[record.DevicePart].Joules *= 0.999 },
		"bytes":   func(r *record.Request) { r.DownBytes++ },
		"memory":  func(r *record.Request) { r.PeakBytes-- },
		"counter": func(r *record.Request) { r.Count(record.Retries, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := edited(t, honest, "modelled", "split", edit)
			v := verdict(t, dir, Options{})
			refused(t, v, "V060")
			require.Equal(t, bundle.Consistent, verdict(t, dir, Options{Rerun: None}).Tier, "nothing but a replay can tell")
		})
	}
}

// The model that ran is not the one that the plan names.
func TestAttackOfTheSwappedModel(t *testing.T) {
	local := suites.Set{Key: "pipeline", Values: []any{"local"}}
	claimed := run(t, measuredSuite, local, suites.Set{Key: "model", Values: []any{"mei-small"}})
	ran := run(t, measuredSuite, local)
	other, err := results.Read(ran)
	require.NoError(t, err)
	defer other.Close()
	at := indexOf(other)
	dir := forge(t, claimed, func(c *record.Cell, rows []*record.Request) []*record.Request {
		i := at[results.KeyOf(c)]
		c.Nodes, c.Facts, c.Wall, c.ClientCPU = other.Runs()[i].Cell.Nodes, other.Runs()[i].Cell.Facts, other.Runs()[i].Cell.Wall, other.Runs()[i].Cell.ClientCPU
		return rowsOf(t, other, i)
	})
	v := verdict(t, dir, Options{Rerun: All})
	require.Equal(t, bundle.Refused, v.Tier)
	found := map[string]bool{}
	for _, f := range errorsOf(v) {
		found[f.Rule] = true
	}
	require.True(t, found["V050"] || found["V051"] || found["V053"], "%v", errorsOf(v))
}

// Seeds, repeats and plans.
func TestAttacksOnPlans(t *testing.T) {
	honest := run(t, modelledSuite)
	less := func(c *record.Cell, rows []*record.Request) []*record.Request {
		if c.Repeat == 1 {
			return nil
		}
		return rows
	}
	replan := func(dir string, edit func(p *plan.Plan)) string {
		p, err := plan.Read(dir)
		require.NoError(t, err)
		edit(p)
		require.NoError(t, p.Write(filepath.Join(dir, plan.File)))
		return dir
	}
	once := func(p *plan.Plan) {
		for i := range p.Suites[0].Cells {
			p.Suites[0].Cells[i].Repeats = 1
		}
	}
	refused(t, verdict(t, replan(forge(t, honest, func(_ *record.Cell, rows []*record.Request) []*record.Request { return rows }), once), Options{}), "V020")
	refused(t, verdict(t, forge(t, honest, less), Options{}), "V020")

	t.Run("another seed", func(t *testing.T) {
		other := run(t, modelledSuite, suites.Set{Key: "seed", Values: []any{5.0}})
		b, err := os.ReadFile(filepath.Join(honest, plan.File))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(other, plan.File), b, 0o644))
		refused(t, verdict(t, other, Options{}), "V022")
	})
	t.Run("best of two, with the plan made to fit", func(t *testing.T) {
		dir := replan(forge(t, honest, less), once)
		set, err := results.Read(dir)
		require.NoError(t, err)
		seeds := map[uint64]bool{}
		for _, r := range set.Runs() {
			seeds[r.Cell.Seed] = true
		}
		require.NoError(t, set.Close())
		manifest(t, dir, func(m *results.Manifest) { m.Expected, m.Complete, m.Seeds = len(set.Runs()), true, []string{"1"} })
		v := verdict(t, dir, Options{})
		require.Empty(t, errorsOf(v), "without a log nobody can tell")
		require.False(t, v.Committed)
		require.Contains(t, Line("x", &v), "plan not committed")

		log, err := ledger.Create(t.TempDir(), "board.example")
		require.NoError(t, err)
		p, err := plan.Read(honest)
		require.NoError(t, err)
		r, err := plan.Commit(log, p)
		require.NoError(t, err)
		require.NoError(t, r.Write(filepath.Join(dir, plan.ReceiptFile)))
		for _, logs := range [][]note.Verifier{nil, {log.Verifier()}} {
			refused(t, verdict(t, dir, Options{Logs: logs}), "V004")
		}
	})
}

// docs/verify.md says that this cannot be seen.
func TestWhatVerifyCannotSee(t *testing.T) {
	const share = 0.95
	dir := forge(t, run(t, measuredSuite), func(c *record.Cell, rows []*record.Request) []*record.Request {
		if c.Mode != "measured" || c.Pipeline != "local" {
			return rows
		}
		for _, r := range rows {
			squeeze(r, share)
			r.Energy[record.DevicePart].Joules *= share
		}
		for i := range c.Nodes {
			c.Nodes[i].Busy = time.Duration(float64(c.Nodes[i].Busy) * share)
		}
		return rows
	})
	v := verdict(t, dir, Options{})
	require.Empty(t, errorsOf(v))
	require.Equal(t, bundle.Replayed, v.Tier)
}

// A log shows what a receipt alone does not: other tries, and other results.
func TestLogsShowOtherAttempts(t *testing.T) {
	log, err := ledger.Create(t.TempDir(), "board.example")
	require.NoError(t, err)
	s, err := suites.Parse("test.yaml", []byte(modelledSuite))
	require.NoError(t, err)
	lab := &harness.Lab{Host: host(t)}
	o := harness.Options{Suites: []*suites.Suite{s}, Command: []string{"meibench", "run"}, Progress: silent{}, Now: time.Now}
	p, err := lab.Plan(o)
	require.NoError(t, err)
	o.Receipt, err = plan.Commit(log, p)
	require.NoError(t, err)
	require.NoError(t, o.Receipt.Begin(log))
	o.Out = filepath.Join(t.TempDir(), "run")
	require.NoError(t, harness.Run(context.Background(), lab, o))
	set, err := results.Read(o.Out)
	require.NoError(t, err)
	defer set.Close()
	tables, err := canon.Hash(set.Manifest.Files)
	require.NoError(t, err)

	full := Options{Ledgers: []*ledger.Log{log}, Rerun: None}
	v := verdict(t, o.Out, full)
	require.Empty(t, errorsOf(v))
	require.True(t, v.Committed)
	require.Contains(t, Line("x", &v), "committed before the run")
	require.NotEqual(t, uint64(1), set.Runs()[0].Cell.Seed, "the seed is the log's")
	require.NoError(t, o.Receipt.End(log, "other", "complete"))
	refused(t, verdict(t, o.Out, full), "V004")
	require.NoError(t, o.Receipt.End(log, tables, "complete"))
	require.Empty(t, errorsOf(verdict(t, o.Out, full)))

	_, err = plan.Commit(log, p)
	require.NoError(t, err)
	full.Strict = true
	refused(t, verdict(t, o.Out, full), "V007")

	other, err := ledger.Create(t.TempDir(), "board.example")
	require.NoError(t, err)
	refused(t, verdict(t, o.Out, Options{Ledgers: []*ledger.Log{other}, Rerun: None}), "V004")
	honest, err := os.ReadFile(filepath.Join(o.Out, plan.ReceiptFile))
	require.NoError(t, err)
	shopped := run(t, modelledSuite) // with the seed of its choice, and a receipt beside it
	require.NoError(t, os.WriteFile(filepath.Join(shopped, plan.ReceiptFile), honest, 0o644))
	refused(t, verdict(t, shopped, Options{Rerun: None}), "V022")
}

// little is a number as a table has it.
func little(x uint64) string { return string(binary.LittleEndian.AppendUint64(nil, x)) }

// Numbers changed in the tables themselves, below any writer: a metric, and an
// event whose spans then no longer add up.
func TestAttacksOnBytesOfTables(t *testing.T) {
	dir := run(t, modelledSuite)
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	metric := math.NaN()
	for _, v := range set.Runs()[0].Values {
		if v.Metric.Name == "makespan" {
			metric = v.V
		}
	}
	done := rowsOf(t, set, 0)[5].Done
	v := verdict(t, dir, Options{Rerun: None})
	require.Empty(t, errorsOf(v))
	require.True(t, slices.ContainsFunc(v.Findings, func(f bundle.Finding) bool {
		return f.Rule == "V031" && f.Severity == bundle.Flag && strings.Contains(f.Text, "p99 of 12 requests; 459 are needed")
	}), "percentiles of a few are marked: %v", v.Findings)

	spoiled := filepath.Join(t.TempDir(), "metric")
	require.NoError(t, os.CopyFS(spoiled, os.DirFS(dir)))
	patch(t, spoiled, results.CellsFile, [2]string{little(math.Float64bits(metric)), little(math.Float64bits(metric * 0.99))})
	v = verdict(t, spoiled, Options{Rerun: None})
	refused(t, v, "V030")
	require.Contains(t, errorsOf(v)[0].Text, "makespan is")

	spoiled = filepath.Join(t.TempDir(), "event")
	require.NoError(t, os.CopyFS(spoiled, os.DirFS(dir)))
	patch(t, spoiled, results.RequestsFile, [2]string{little(uint64(done)), little(uint64(done - 1))})
	v = verdict(t, spoiled, Options{Rerun: None})
	refused(t, v, "V034")
	require.Contains(t, errorsOf(v)[0].Row, "seed 1 repeat 0")
	require.Contains(t, errorsOf(v)[0].Text, "request 5")
}
