package reports

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
)

var (
	tag     = regexp.MustCompile(`<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:[^<>"]|"[^"]*")*?)(/?)>`)
	rawText = regexp.MustCompile(`(?s)<(script|style)>.*?</(?:script|style)>`)
	ids     = regexp.MustCompile(`\bid="([^"]*)"`)
	refs    = regexp.MustCompile(`\b(?:href="#|aria-labelledby=")([^"]*)"`)
)

// checkHTML checks that elements nest, that IDs are unique and that every
// reference inside the page leads somewhere.
func checkHTML(t *testing.T, page string) {
	t.Helper()
	body := rawText.ReplaceAllString(page, "")
	require.Equal(t, strings.Count(body, "<"), len(tag.FindAllString(body, -1))+1, "every < but that of the doctype opens a tag")
	var open []string
	for _, m := range tag.FindAllStringSubmatch(body, -1) {
		name := strings.ToLower(m[2])
		switch {
		case m[4] == "/" || slices.Contains([]string{"meta", "br", "hr", "img", "link", "input"}, name):
		case m[1] == "":
			open = append(open, name)
		default:
			require.NotEmpty(t, open, "</%s> without a start", name)
			require.Equal(t, open[len(open)-1], name, "elements nest")
			open = open[:len(open)-1]
		}
	}
	require.Empty(t, open)
	seen := map[string]bool{}
	for _, m := range ids.FindAllStringSubmatch(body, -1) {
		require.False(t, seen[m[1]], "id %s twice", m[1])
		seen[m[1]] = true
	}
	for _, m := range refs.FindAllStringSubmatch(body, -1) {
		for _, id := range strings.Fields(m[1]) {
			require.True(t, seen[id], "nothing has the id %s", id)
		}
	}
}

// formats writes a report in every format, to check that none fails.
func formats(t testing.TB, r *Report) (page, markdown, text string) {
	var h, m, x, j, c bytes.Buffer
	require.NoError(t, r.HTML(&h))
	require.NoError(t, r.Markdown(&m))
	require.NoError(t, r.Text(&x, 120))
	require.NoError(t, r.JSON(&j))
	require.NoError(t, r.CSV(&c))
	require.True(t, json.Valid(j.Bytes()))
	_, err := csv.NewReader(&c).ReadAll()
	require.NoError(t, err, "every line has as many fields")
	return h.String(), m.String(), x.String()
}

func TestPage(t *testing.T) {
	page, _, _ := formats(t, Build(small(t)))
	checkHTML(t, page)
	for _, want := range []string{`<html lang="en">`, `<th scope="col"`, `<th scope="row">`, `<th scope="rowgroup"`, "<caption>", `role="img"`, "<figcaption>",
		"prefers-color-scheme: dark", "@media print", "aria-sort", `Content-Security-Policy" content="default-src &#39;none&#39;`} {
		require.Contains(t, page, want)
	}
	require.NotRegexp(t, `(src|href|url\()\s*=?\s*["']?(https?:)?//`, strings.ReplaceAll(page, "http://www.w3.org", ""), "the page asks nothing of a network")
}

// hostile is text that would do harm wherever it is not escaped.
const hostile = "\x1b[31m</td><img src=x onerror=alert(1)><script>alert(2)</script>\"'`|[a](javascript:alert(3)) {{.}} \u202e=cmd() ../../x\n# h"

// hostileData is a run whose every name is hostile.
func hostileData(t testing.TB) *Data {
	d := NewData()
	run := d.AddRun(hostile, "/tmp/"+hostile, results.Manifest{Command: []string{hostile}, CPU: hostile, Host: map[string]string{hostile: hostile}, Warnings: []string{hostile},
		Files: map[string]results.Digest{hostile: {}, "../../etc/passwd": {}, "javascript:alert(4)": {}}, Quick: true})
	for i, mode := range []string{"measured", "modelled", hostile} {
		c := cell(i, hostile, hostile, mode)
		c.Site, c.Model, c.Suite, c.Contract = hostile, hostile, hostile, hostile
		c.Valid, c.Invalid, c.Warnings = false, []string{hostile}, []string{hostile}
		c.Params = map[string]any{hostile: 1.0}
		bad := request(2, ms, ms)
		bad.Outcome, bad.Err = record.Failed, hostile
		good := request(1, ms, ms)
		good.Spans[0].Node = hostile
		require.NoError(t, d.Add(run, c, seq(good, bad)))
	}
	d.Runs[run].Plan = true
	return d
}

func TestHostileNames(t *testing.T) {
	r := Build(hostileData(t))
	dir := t.TempDir()
	paths, err := r.Write(dir)
	require.NoError(t, err)
	b, err := os.ReadFile(paths.HTML)
	require.NoError(t, err)
	page := string(b)
	checkHTML(t, page)
	_, markdown, text := formats(t, r)
	require.Equal(t, 1, strings.Count(page, "<script"), "only our own script")
	for name, out := range map[string]string{"page": page, "markdown": markdown} {
		require.NotContains(t, out, "<img", name)
		require.NotContains(t, out, `href="javascript`, name)
	}
	require.NotRegexp(t, `[^\\]\]\(javascript`, markdown)
	for name, out := range map[string]string{"page": page, "markdown": markdown, "text": text} {
		require.NotContains(t, out, "\x1b", name)
		require.NotContains(t, out, "\u202e", name)
	}
	require.NotContains(t, page, `passwd"`, "a name that leads out of the folder is no link")
	var csv bytes.Buffer
	require.NoError(t, r.CSV(&csv))
	require.Contains(t, markdown, "NOT COMPARABLE")
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		require.Regexp(t, `^[A-Za-z0-9._/-]*$`, strings.TrimPrefix(path, dir), "names of files are ours")
		return err
	}))
	require.Equal(t, "'=1+1", inert("=1+1"))
}

func TestOddRuns(t *testing.T) {
	failing := func(n int) (rs []*record.Request) {
		for i := range n {
			r := request(i, ms, ms)
			r.Outcome, r.Err = record.Failed, fmt.Sprintf("error %d", i)
			rs = append(rs, r)
		}
		return rs
	}
	instant := request(1, 0, 0) // every time is zero: nothing that a log axis shows
	silent := request(1, ms, ms)
	silent.FirstToken, silent.LastToken, silent.OutputTokens = record.Unset, record.Unset, 0
	unknown := request(1, ms, ms)
	unknown.Spend(record.RadioPart, 0, 0)
	odd := request(1, ms, ms)
	odd.Quality = math.NaN()
	for _, tc := range []struct {
		name string
		rows []*record.Request
		want string
	}{
		{"no request", nil, "no valid cell with requests"},
		{"one request", []*record.Request{request(1, ms, ms)}, "met the limits (TTFT ≤ 100 ms) for all 1 request"},
		{"all failed", failing(30), "no placement met the limits"},
		{"no time at all", []*record.Request{instant, instant}, "for all 2 requests"},
		{"no tokens", []*record.Request{silent}, "no placement met the limits"},
		{"unknown energy", []*record.Request{unknown}, "for all 1 request"},
		{"no quality", []*record.Request{odd}, "for all 1 request"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := NewData()
			run := d.AddRun("", "", results.Manifest{})
			require.NoError(t, d.Add(run, cell(0, "robot", "local", "measured"), seq(tc.rows...)))
			r := Build(d)
			page, _, text := formats(t, r)
			checkHTML(t, page)
			require.Contains(t, r.Answers[0], tc.want)
			for _, out := range []string{page, text} {
				require.NotContains(t, out, "NaN")
				require.NotContains(t, out, "Inf ")
			}
			_, err := r.Write(t.TempDir())
			require.NoError(t, err)
		})
	}
	page, _, _ := formats(t, Build(NewData()))
	checkHTML(t, page)
	broken := func(yield func(*record.Request, error) bool) { yield(nil, errors.New("torn")) }
	require.EqualError(t, NewData().Add(0, cell(0, "a", "b", "measured"), broken), "torn")
}

// From six repeats on, a cell's figure is the median over repeats.
func TestRepeats(t *testing.T) {
	d := NewData()
	run := d.AddRun("", "", results.Manifest{})
	for rep := range 6 {
		c := cell(0, "robot", "local", "measured")
		c.Repeat = rep
		// TTFT p50 of repeat r is (r + 1) × 10 ms: the middle one of three.
		v := time.Duration(rep+1) * 10 * ms
		require.NoError(t, d.Add(run, c, seq(request(0, v-ms, ms), request(1, v, ms), request(2, v+ms, ms))))
	}
	v := newView(d)
	require.Len(t, v.Groups, 1)
	s := summarise(v.Groups[0])
	require.InDelta(t, 0.035, s.ttft50.V, 1e-9) // between 30 and 40 ms
	require.InDelta(t, 0.010, s.ttft50.Lo, 1e-9)
	require.InDelta(t, 0.060, s.ttft50.Hi, 1e-9) // six values: their whole range
	require.Equal(t, 6, s.ttft50.N)
	require.Equal(t, 1.0, s.within.V)
	require.InDelta(t, 0.824, s.within.Lo, 1e-3, "Wilson, 18 of 18: 18 / (18 + 3.84)")
}

// A modelled cell of another run is compared with a measured one only under the
// same terms.
func TestTwinsAcrossRuns(t *testing.T) {
	contract := func(mode, model string, rate int, quick bool) results.Contract {
		return results.Contract{Workload: map[string]any{"rate": rate}, Mode: mode, Model: model, Quick: quick}
	}
	for _, tc := range []struct {
		name     string
		measured results.Contract
		modelled results.Contract
		want     bool
	}{
		{"only mode and model differ", contract("measured", "bytes", 2, false), contract("modelled", "description", 2, false), true},
		{"another rate", contract("measured", "bytes", 2, false), contract("modelled", "bytes", 3, false), false},
		{"a quick run", contract("measured", "bytes", 2, false), contract("modelled", "bytes", 2, true), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := NewData()
			for i, c := range []results.Contract{tc.measured, tc.modelled} {
				run := d.AddRun(fmt.Sprint("run", i), "", results.Manifest{Contracts: []results.Contract{c}, Quick: c.Quick})
				cl := cell(i, "robot", "local", c.Mode)
				var err error
				cl.Contract, err = c.Hash()
				require.NoError(t, err)
				require.NoError(t, d.Add(run, cl, seq(request(1, ms, ms))))
			}
			v := newView(d)
			require.Equal(t, tc.want, v.twin[v.Groups[1]] != nil)
		})
	}
}

// Requests that come in waves are worth less than as many independent ones.
func TestDependence(t *testing.T) {
	d := NewData()
	run := d.AddRun("", "", results.Manifest{})
	var waves, steady []*record.Request
	for i := range 400 {
		waves = append(waves, request(i, time.Duration(20+15*math.Sin(float64(i)/40))*ms, ms))
		steady = append(steady, request(i, time.Duration(20+15*math.Sin(float64(i)*2.4))*ms, ms))
	}
	require.NoError(t, d.Add(run, cell(0, "robot", "local", "measured"), seq(waves...)))
	require.NoError(t, d.Add(run, cell(1, "robot", "offload", "measured"), seq(steady...)))
	require.Greater(t, d.Groups[0].Tau, 10.0)
	require.Equal(t, 1.0, d.Groups[1].Tau)
	b := newBuilder(newView(d))
	require.Contains(t, strings.Join(b.inference(), " "), "In 1 cell successive requests depend on each other")
	wide, narrow := b.sums[d.Groups[0]].ttft50, b.sums[d.Groups[1]].ttft50
	require.Greater(t, wide.Hi-wide.Lo, 2*(narrow.Hi-narrow.Lo))
}

// Labels say what tells cells apart, and no more.
func TestLabels(t *testing.T) {
	add := func(d *Data, index int, edit func(*record.Cell)) {
		c := cell(index, "robot", "split", "modelled")
		edit(&c)
		require.NoError(t, d.Add(0, c, seq()))
	}
	for _, tc := range []struct {
		name  string
		edits []func(*record.Cell)
		want  []string
	}{
		{"one", []func(*record.Cell){func(*record.Cell) {}}, []string{"split"}},
		{"an axis of the suite", []func(*record.Cell){func(c *record.Cell) { c.Name += "/cut=1" }, func(c *record.Cell) { c.Name += "/cut=2" }}, []string{"split cut=1", "split cut=2"}},
		{"sites", []func(*record.Cell){func(c *record.Cell) { c.Site = "a" }, func(c *record.Cell) { c.Site = "b" }}, []string{"split a", "split b"}},
		{"sites that tell models", []func(*record.Cell){func(c *record.Cell) { c.Site, c.Model = "a", "m" }, func(c *record.Cell) { c.Site, c.Model = "b", "n" }}, []string{"split a", "split b"}},
		{"models", []func(*record.Cell){func(c *record.Cell) { c.Model = "m" }, func(c *record.Cell) { c.Model = "n" }}, []string{"split m", "split n"}},
		{"parameters", []func(*record.Cell){func(c *record.Cell) { c.Params = map[string]any{"k": 1.0} }, func(c *record.Cell) { c.Params = map[string]any{"k": 2.0} }}, []string{"split k=1", "split k=2"}},
		{"only the name", []func(*record.Cell){func(c *record.Cell) { c.Name = "first" }, func(c *record.Cell) { c.Name = "second" }}, []string{"split first", "split second"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := NewData()
			d.AddRun("", "", results.Manifest{})
			for i, edit := range tc.edits {
				add(d, i, edit)
			}
			require.Equal(t, tc.want, newView(d).series)
		})
	}
}

// A hundred thousand requests take well under a second to report.
func TestManyRequests(t *testing.T) {
	d := NewData()
	run := d.AddRun("", "", results.Manifest{})
	began := time.Now()
	r := request(0, ms, ms)
	rows := iter.Seq2[*record.Request, error](func(yield func(*record.Request, error) bool) {
		for i := range 100_000 {
			r.ID, r.FirstToken = i, r.Intended+time.Duration(1+i*7919%100_003)*time.Microsecond
			r.LastToken, r.Done = r.FirstToken+3*ms, r.FirstToken+3*ms
			if !yield(r, nil) {
				return
			}
		}
	})
	require.NoError(t, d.Add(run, cell(0, "robot", "local", "measured"), rows))
	report := Build(d)
	for _, f := range report.Figures {
		require.Less(t, len(f.Picture.SVG()), 200_000, "%s is thinned", f.Name)
	}
	require.Less(t, time.Since(began), 5*time.Second)
}

func Example() {
	d := NewData() // or Load("runs/quickstart")
	run := d.AddRun("", "", results.Manifest{})
	c := record.Cell{Suite: "demo", App: "robot", Pipeline: "local", Mode: "measured", Valid: true, Horizon: time.Second, TTFTLimit: 100 * time.Millisecond}
	var r record.Request
	r.Reset(0, 0)
	r.AskedTokens = 1
	r.Spent(record.Compute, "phone", 0, 40*time.Millisecond)
	r.Token(40*time.Millisecond, 1)
	r.Finish(40*time.Millisecond, nil)
	if err := d.Add(run, c, func(yield func(*record.Request, error) bool) { yield(&r, nil) }); err != nil {
		panic(err)
	}
	fmt.Println(Build(d).Answers[0])
	// Output:
	// robot, measured: local met the limits (TTFT ≤ 100 ms) for all 1 request (100 %, 95 % interval [21, 100]) with TTFT p50 40.0 ms and E2E p50 40.0 ms.
}
