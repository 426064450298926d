package board

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/bundle"
	"meibench/harness/ledger"
	"meibench/harness/results"
)

func metric(v, half float64) bundle.Metric {
	lo, hi := v-half, v+half
	return bundle.Metric{Value: v, Low: &lo, High: &hi, N: 6, Unit: "sec"}
}

// claim is a measured cell of the assistant with an E2E p50 of v ± half ms.
func claim(pipeline string, v, half float64, change ...func(*bundle.Claim)) bundle.Claim {
	sum := sha256.Sum256([]byte(pipeline + fmt.Sprint(v)))
	c := bundle.Claim{ID: fmt.Sprintf("%x", sum[:8]), Run: "r", Suite: "s", Cell: pipeline, App: "assistant", Pipeline: pipeline, Site: "this-machine", Model: "mei-small", Mode: "measured",
		Contract: "c1", Runs: 6, Requests: 96, Good: 96, Valid: true,
		Metrics: map[string]bundle.Metric{"e2e_p50": metric(v/1e3, half/1e3), "goodput_share": metric(1, 0), "quality_mean": metric(0.8, 0.02), "ttft_p50": metric(v/2e3, half/2e3)}}
	for _, f := range change {
		f(&c)
	}
	return c
}

func entryOf(name, submitter string, claims ...bundle.Claim) Entry {
	sum := sha256.Sum256([]byte(name + submitter + fmt.Sprint(len(claims), claims[0].ID)))
	return Entry{Bundle: "h1:" + base64.StdEncoding.EncodeToString(sum[:]), Verdict: bundle.Verdict{Tier: bundle.Replayed, Committed: true, Signers: []string{submitter}},
		Manifest: bundle.Manifest{Name: name, Submitter: submitter, Created: "2026-11-23T01:02:03Z", Division: "closed", Licence: "CC-BY-4.0",
			Runs: []bundle.RunInfo{{Path: "runs/r", System: "Board 1", Plan: strings.Repeat("a", 64), Committed: true, Command: []string{"meibench", "run"}}}},
		Summary: bundle.Summary{Claims: claims}}
}

func contracts() map[string]results.Contract {
	terms := results.Contract{Mode: "measured", Model: "abc", Limits: map[string]int64{"e2e_ns": 5e8},
		Workload: map[string]any{"spec": map[string]any{"requests": 16.0}, "app": map[string]any{"limits": []any{map[string]any{"percentile": 0.95}}}}}
	return map[string]results.Contract{"c1": terms}
}

// ranks are "pipeline rank" of the first table, in its order.
func ranks(s *Site) (out []string) {
	for _, r := range s.categories[0].tables[0].rows {
		out = append(out, fmt.Sprintf("%s %d", r.claim.Pipeline, r.rank))
	}
	return out
}

func TestOverlappingIntervalsShareARank(t *testing.T) {
	s := Build(Input{Contracts: contracts(), Entries: []Entry{entryOf("x", "ann", claim("d", 40, 1), claim("c", 23, 2), claim("a", 20, 2), claim("b", 21.5, 1), claim("e", 41.5, 1))}})
	require.Equal(t, []string{"a 1", "b 1", "c 1", "d 4", "e 4"}, ranks(s), "c reaches a, whose interval ends at 22; e overlaps d")
	s = Build(Input{Contracts: contracts(), Entries: []Entry{entryOf("x", "ann", claim("a", 20, 1), claim("b", 21.5, 1), claim("c", 23, 1))}})
	require.Equal(t, []string{"a 1", "b 1", "c 3"}, ranks(s), "c overlaps b, not a: ranks do not creep")
	require.False(t, s.categories[0].tables[0].rows[2].tied)
}

func TestWhoMissesTheLimitsComesLater(t *testing.T) {
	misses := func(c *bundle.Claim) { c.Metrics["goodput_share"] = metric(0.9, 0.01) }
	s := Build(Input{Contracts: contracts(), Entries: []Entry{entryOf("x", "ann", claim("quick", 5, 1, misses), claim("slow", 50, 1), claim("slower", 400, 30, misses))}})
	require.Equal(t, []string{"slow 1", "quick 2", "slower 3"}, ranks(s))
	require.Equal(t, "no", s.categories[0].tables[0].rows[1].view(nil).Meets)
	require.Equal(t, "E2E ≤ 0.5 s for 95 % of requests", strings.ReplaceAll(s.categories[0].tables[0].limits(), "500 ms", "0.5 s"))
}

func TestWhatIsNotRankedStaysWithItsReason(t *testing.T) {
	set := func(name string, m bundle.Metric) func(*bundle.Claim) {
		return func(c *bundle.Claim) { c.Metrics[name] = m }
	}
	few := metric(0.01, 0)
	few.N, few.Low, few.High = 3, nil, nil
	s := Build(Input{Contracts: contracts(), Entries: []Entry{entryOf("x", "ann", claim("good", 50, 1),
		claim("invalid", 1, 0.1, func(c *bundle.Claim) { c.Valid, c.Invalid = false, []string{"late"} }),
		claim("few", 10, 1, set("e2e_p50", few)),
		claim("silly", 2, 0.1, set("quality_mean", metric(0.3, 0.1))),
		claim("near", 60, 1, set("quality_mean", metric(0.75, 0.05))),
		claim("dead", 3, 1, func(c *bundle.Claim) { delete(c.Metrics, "e2e_p50") }))}})
	why := map[string]string{}
	for _, r := range s.categories[0].tables[0].rows {
		why[r.claim.Pipeline] = r.why
		require.Equal(t, r.why == "", r.rank > 0)
	}
	require.Equal(t, map[string]string{"good": "", "near": "", "invalid": "INVALID: late", "few": "3 of 6 runs that an interval needs",
		"silly": "quality 0.3 is below 97 % of the best, 0.8", "dead": "no request ended well"}, why)
	require.Equal(t, "good", s.categories[0].tables[0].rows[0].claim.Pipeline)
}

func TestModelledAndMeasuredNeverShareATable(t *testing.T) {
	modelled := func(c *bundle.Claim) { c.Mode, c.Contract = "modelled", "c2" }
	s := Build(Input{Contracts: contracts(), Entries: []Entry{entryOf("x", "ann", claim("local", 50, 1), claim("local", 60, 1, modelled), claim("split", 70, 1, modelled))}})
	require.Len(t, s.categories, 2)
	for _, c := range s.categories {
		for _, tb := range c.tables {
			for _, r := range tb.rows {
				require.Equal(t, c.Mode, r.claim.Mode)
			}
		}
	}
	twin, alone := s.categories[1].tables[0].rows[0], s.categories[1].tables[0].rows[1]
	require.Equal(t, 1, twin.rank)
	require.InDelta(t, 0.2, twin.twin.E2E, 1e-9)
	require.Contains(t, strings.Join(twin.badges(), " "), "E2E 20.0 %")
	require.Contains(t, alone.why, "its error is not stated", "no badge, no rank")
}

func TestAnotherSubmitterReproduces(t *testing.T) {
	build := func(v float64, submitter, system string, quality float64) *row {
		other := entryOf("y", submitter, claim("local", v, 0.1, func(c *bundle.Claim) { c.Metrics["quality_mean"] = metric(quality, 0.01) }))
		other.Runs[0].System = system
		s := Build(Input{Contracts: contracts(), Entries: []Entry{entryOf("x", "ann", claim("local", 50, 0.1)), other}})
		return s.entries[0].rows[0]
	}
	same := build(52, "bob", "Board 1", 0.8)
	if same.entry.Submitter != "ann" {
		require.Equal(t, []string{"ann"}, same.by)
	} else {
		require.Equal(t, []string{"bob"}, same.by)
	}
	require.Equal(t, bundle.Reproduced, same.tier)
	for name, r := range map[string]*row{"oneself": build(51, "ann", "Board 1", 0.8), "another machine": build(51, "bob", "Board 2", 0.8),
		"too far off": build(53, "bob", "Board 1", 0.8), "other answers": build(51, "bob", "Board 1", 0.7)} {
		require.Empty(t, r.by, name)
		require.Equal(t, bundle.Replayed, r.tier, name)
	}
	copy := build(50, "bob", "Board 1", 0.8)
	require.Empty(t, copy.by, "the same numbers are no second measurement")
	require.Contains(t, strings.Join(copy.badges(), " "), "to the last digit")
	audited := entryOf("x", "ann", claim("local", 50, 1))
	audited.Verdict.Signers = append(audited.Verdict.Signers, "the-auditor")
	s := Build(Input{Entries: []Entry{audited}, Auditors: []string{"the-auditor"}})
	require.Equal(t, bundle.Audited, s.entries[0].rows[0].tier)
}

// whyOf builds a board of one entry after a change and says why its row of a
// pipeline has no rank.
func whyOf(t *testing.T, pipeline string, e Entry, more ...Entry) string {
	for _, c := range Build(Input{Contracts: contracts(), Entries: append(more, e)}).categories {
		for _, tb := range c.tables {
			for _, r := range tb.rows {
				if r.claim.Pipeline == pipeline && r.entry.Name == e.Name {
					return r.why
				}
			}
		}
	}
	t.Fatal("no such row")
	return ""
}

func TestOnlyWhatWasCheckedIsRanked(t *testing.T) {
	modelled := func(c *bundle.Claim) { c.Mode, c.Contract = "modelled", "c2" }
	pair := func(v float64, change ...func(*bundle.Claim)) Entry {
		return entryOf("x", "ann", claim("local", 50, 1, func(c *bundle.Claim) { c.Pipeline, c.Cell = "m", "m" }), claim("m", v, 1, append(change, modelled)...))
	}
	row := func(e Entry) string {
		for _, c := range Build(Input{Contracts: contracts(), Entries: []Entry{e}}).categories {
			if c.Mode == "modelled" {
				return c.tables[0].rows[0].why
			}
		}
		return "none"
	}
	require.Empty(t, row(pair(60)))
	require.Contains(t, row(pair(80)), "off by 60.0 %", "an error that is stated and too large")
	require.Contains(t, row(pair(60, func(c *bundle.Claim) { c.Run = "another" })), "its run holds no measured twin", "a twin of another machine's profile says nothing")
	e := pair(60)
	e.Summary.Claims[0].Runs = leastRuns - 1
	require.Contains(t, row(e), "its run holds no measured twin", "one measured run says little")
	e = pair(60)
	e.Verdict.Tier = bundle.Consistent
	require.Equal(t, "it was not run again", row(e))

	// without a twin, the error that a calibration states is a badge too
	apart := func(stated float64) Entry {
		return pair(60, func(c *bundle.Claim) { c.Run, c.Tier, c.Stated = "another", "fitted", stated })
	}
	require.Empty(t, row(apart(0.05)))
	require.Contains(t, row(apart(0.7)), "off by 70.0 %")
	for _, c := range Build(Input{Contracts: contracts(), Entries: []Entry{apart(0.05)}}).categories {
		if c.Mode == "modelled" {
			require.Contains(t, strings.Join(c.tables[0].rows[0].badges(), "; "), "fitted; error of E2E stated by the calibration in its profile: 5.0 %")
		}
	}

	e = entryOf("x", "ann", claim("local", 50, 1))
	e.Verdict.Tier = bundle.Reported
	require.Equal(t, "verify could not derive it again", whyOf(t, "local", e))
	best := entryOf("best", "bob", claim("local", 51, 1, func(c *bundle.Claim) { c.Metrics["quality_mean"] = metric(1, 0) }))
	require.Contains(t, whyOf(t, "local", entryOf("x", "ann", claim("local", 50, 1)), best), "quality 0.8")
	best.Retracted = "a slip"
	require.Empty(t, whyOf(t, "local", entryOf("x", "ann", claim("local", 50, 1)), best), "what has no rank takes none from others")
}

func TestNamesAreTakenByKnownKeysOnly(t *testing.T) {
	first, second := entryOf("x", "ann", claim("local", 50, 1)), entryOf("x", "ann", claim("local", 40, 1))
	first.Receipt, second.Receipt = receipt(3), receipt(7)
	old := func() *entry { return Build(Input{Entries: []Entry{first, second}}).entries[0] }
	require.NotNil(t, old().next)
	second.Verdict.Signers = nil
	require.Nil(t, old().next, "anyone may call himself ann")
	second.Verdict.Signers, second.Retracted = []string{"ann"}, "a slip"
	require.Nil(t, old().next, "what was taken back takes no place")
	self := entryOf("x", "ann", claim("local", 50, 1))
	require.Equal(t, bundle.Replayed, Build(Input{Entries: []Entry{self}, Auditors: []string{"ann"}}).entries[0].rows[0].tier, "nobody audits himself")
}

func TestDivisionsAreApart(t *testing.T) {
	open := entryOf("y", "bob", claim("local", 40, 1))
	open.Division = "open"
	s := Build(Input{Contracts: contracts(), Entries: []Entry{entryOf("x", "ann", claim("local", 50, 1)), open}})
	require.Len(t, s.categories[0].tables, 2)
	for _, tb := range s.categories[0].tables {
		require.Len(t, tb.rows, 1)
		require.Equal(t, 1, tb.rows[0].rank)
	}
}

func TestNamesOfFilesAndCells(t *testing.T) {
	require.NotEqual(t, fileName("-a"), fileName("\u02da"))
	require.LessOrEqual(t, len(fileName(strings.Repeat("ä", 300))), mostName)
	require.NotEqual(t, fileName(strings.Repeat("ä", 300)), fileName(strings.Repeat("ä", 301)))
	require.Equal(t, []string{"'=1+2", "-0.5", "'@x", "a=b", "", "'-x"}, plainCells([]string{"=1+2", "-0.5", "@x", "a=b", "", "-x"}))
}

func receipt(i int64) *ledger.Receipt { return &ledger.Receipt{Index: i} }

func TestHistoryStays(t *testing.T) {
	first, second, third := entryOf("x", "ann", claim("local", 50, 1)), entryOf("x", "ann", claim("local", 40, 1)), entryOf("x", "bob", claim("local", 45, 1))
	first.Receipt, second.Receipt, third.Receipt = receipt(3), receipt(7), receipt(9)
	third.Retracted = "the fan was broken"
	s := Build(Input{Name: "B", Contracts: contracts(), Entries: []Entry{second, third, first}})
	require.Equal(t, second.Bundle, s.entries[0].next.Bundle)
	require.Nil(t, s.entries[1].next, "bob's entry of the same name is another")
	require.Equal(t, []string{"local 1", "local 0", "local 0"}, ranks(s))
	dir := t.TempDir()
	require.NoError(t, s.Write(dir))
	old := read(t, dir, s.entries[0].page())
	require.Contains(t, old, "superseded")
	require.Contains(t, old, "History of this entry")
	require.Contains(t, old, s.entries[1].id+".html")
	require.Contains(t, read(t, dir, "index.html"), "retracted: the fan was broken")
}

func TestTheLogTellsOfAttempts(t *testing.T) {
	plan := strings.Repeat("a", 64)
	log := []ledger.Entry{{Kind: ledger.Plan, Digest: plan}, {Kind: ledger.Attempt, Of: plan}, {Kind: ledger.Result, Of: plan, Text: "complete"}, {Kind: ledger.Attempt, Of: plan},
		{Kind: ledger.Result, Of: plan, Text: "complete"}, {Kind: ledger.Plan, Digest: "dropped"}, {Kind: ledger.Attempt, Of: "dropped"}}
	s := Build(Input{Name: "B", Contracts: contracts(), Log: log, Checkpoint: "cp", LogKey: "key", Entries: []Entry{entryOf("x", "ann", claim("local", 50, 1))}})
	require.Equal(t, []planUse{{plan, 1, 2, 2, 2}}, s.entries[0].plans)
	require.Contains(t, strings.Join(s.entries[0].rows[0].badges(), " "), "complete 2 times", "best of two shows")
	once := Build(Input{Contracts: contracts(), Log: log[:3], Entries: []Entry{entryOf("x", "ann", claim("local", 50, 1))}})
	require.NotContains(t, strings.Join(once.entries[0].rows[0].badges(), " "), "committed once")
	claimed := entryOf("x", "ann", claim("local", 50, 1))
	require.NotContains(t, strings.Join(Build(Input{Entries: []Entry{claimed}}).entries[0].rows[0].badges(), " "), "plan not committed")
	claimed.Verdict.Committed = false
	require.Contains(t, strings.Join(Build(Input{Entries: []Entry{claimed}}).entries[0].rows[0].badges(), " "), "plan not committed", "a manifest that says so is not enough")
	unlogged := Build(Input{Contracts: contracts(), Log: log[:1], Entries: []Entry{entryOf("x", "ann", claim("local", 50, 1))}})
	require.Contains(t, strings.Join(unlogged.entries[0].rows[0].badges(), " "), "attempted never")
	dir := t.TempDir()
	require.NoError(t, s.Write(dir))
	page := read(t, dir, "log.html")
	require.Contains(t, page[strings.Index(page, "Plans without a bundle"):strings.Index(page, ">Lines<")], "dropped")
	require.Equal(t, "cp", read(t, dir, "log/checkpoint"))
	require.Equal(t, len(log), strings.Count(read(t, dir, "log/entries"), "\n"))
}

func read(t testing.TB, dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(b)
}

func TestSameInputSameBytes(t *testing.T) {
	in := Input{Name: "B", Contracts: contracts(), Entries: []Entry{entryOf("x", "ann", claim("a", 50, 1), claim("b", 51, 1)), entryOf("y", "bob", claim("c", 40, 1))}}
	a, b := t.TempDir(), t.TempDir()
	require.NoError(t, Build(in).Write(a))
	in.Entries[0], in.Entries[1] = in.Entries[1], in.Entries[0]
	require.NoError(t, Build(in).Write(b))
	n := 0
	require.NoError(t, filepath.WalkDir(a, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		name, err := filepath.Rel(a, path)
		require.NoError(t, err)
		require.Equal(t, read(t, a, name), read(t, b, name), name)
		return nil
	}))
	require.GreaterOrEqual(t, n, 6)
}

func TestHostileNamesAreText(t *testing.T) {
	evil := `</script><script>alert(1)</script>"'&` + "`"
	c := claim(evil, 50, 1, func(c *bundle.Claim) {
		c.App, c.Site, c.Model, c.Params = evil+"../../x", evil, evil, map[string]any{evil: evil}
		c.Valid, c.Invalid = false, []string{evil}
	})
	e := entryOf(evil, evil, c)
	e.Title, e.Contact, e.Retracted, e.Licence = evil, evil, evil, evil
	e.Runs[0].System, e.Runs[0].Command = evil, []string{evil}
	e.Verdict.Findings = []bundle.Finding{{Rule: "V1", Severity: bundle.Flag, Text: evil, File: evil, Row: evil}}
	dir := t.TempDir()
	require.NoError(t, Build(Input{Name: evil, Contracts: contracts(), Entries: []Entry{e}, Checkpoint: evil, LogKey: evil, Log: []ledger.Entry{{Kind: ledger.Plan, Digest: evil, Text: evil}}}).Write(dir))
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".html") {
			text := read(t, "", path)
			require.NotContains(t, text, "<script>alert", path)
			require.NotContains(t, text, `</script><script>`, path)
		}
		return err
	}))
	made, err := os.ReadDir(filepath.Join(dir, "categories"))
	require.NoError(t, err)
	require.Len(t, made, 1, "no path out of the folder")
}

func TestCSVHasEveryNumber(t *testing.T) {
	var b strings.Builder
	s := Build(Input{Contracts: contracts(), Entries: []Entry{entryOf("x", "ann", claim("a", 50, 1), claim("b", 60, 1))}})
	require.NoError(t, s.CSV(&b))
	rows, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+2*4)
	require.Equal(t, []string{"1", "", "replayed", "true", "6", "96", "e2e_p50", "sec", "0.05", "0.049", "0.051000000000000004", "6"}, rows[1][10:])
}

// BenchmarkSite1000 writes the pages of 1,000 bundles with 15 cells each.
func BenchmarkSite1000(b *testing.B) {
	in := Input{Name: "B", Contracts: contracts()}
	for i := range 1000 {
		var claims []bundle.Claim
		for k := range 15 {
			claims = append(claims, claim("p"+fmt.Sprint(k), 20+float64(i*k%97), 2))
		}
		in.Entries = append(in.Entries, entryOf(fmt.Sprint("e", i), fmt.Sprint("s", i%50), claims...))
	}
	for b.Loop() {
		require.NoError(b, Build(in).Write(b.TempDir()))
	}
}
