package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/harness/stats"
	"meibench/internal/canon"
	"meibench/reference/models"
	"meibench/suites"
)

// The oracle: medians by sorting the values that the tables of cells hold, and
// intervals that are the extremes of six values (0.97 of order statistics).
func TestSummariseIsMediansOverRuns(t *testing.T) {
	r := opened(t, made(t, filepath.Join(t.TempDir(), "a"), spec{cells: 2, repeats: 6, requests: 40}), "a")
	s, err := Summarise([]*Run{r})
	require.NoError(t, err)
	require.Equal(t, SummaryFormat, s.Schema)
	require.Len(t, s.Claims, 2, "seeds and repeats are the sample of a claim")
	for i, c := range s.Claims {
		require.Equal(t, 6, c.Runs)
		require.Equal(t, 240, c.Requests)
		require.True(t, c.Valid)
		sample := map[string][]float64{}
		for _, run := range r.Set.Runs() {
			if run.Cell.Index == i {
				for _, v := range run.Values {
					if !math.IsNaN(v.V) {
						sample[v.Metric.Name] = append(sample[v.Metric.Name], v.V)
					}
				}
			}
		}
		require.Len(t, c.Metrics, len(sample))
		for name, vs := range sample {
			slices.Sort(vs)
			m := c.Metrics[name]
			require.Len(t, vs, m.N)
			n := len(vs)
			if n%2 == 1 {
				require.Equal(t, vs[n/2], m.Value, "%s: one of the values, to the last bit", name)
			}
			require.InDelta(t, stats.Median(vs, confidence).Center, m.Value, 1e-12*math.Abs(m.Value), name)
			if n == 6 {
				require.Equal(t, []float64{vs[0], vs[5]}, []float64{*m.Low, *m.High}, name)
			}
		}
	}
	require.Positive(t, s.Claims[0].Good)
	require.Less(t, s.Claims[0].Good, 240, "some failed, some were late")
	require.NotEqual(t, s.Claims[0].ID, s.Claims[1].ID)
	require.Len(t, s.Claims[0].ID, 16)
}

func TestMiddleIsExact(t *testing.T) {
	for n := 1; n < 40; n += 2 {
		sample := make([]float64, n)
		for i := range sample {
			sample[i] = 0.1 * float64((i*7)%n)
		}
		sorted := slices.Sorted(slices.Values(sample))
		m := middle(sample, "s")
		require.Equal(t, sorted[n/2], m.Value)
		require.True(t, n < 6 || slices.Contains(sample, *m.Low) && slices.Contains(sample, *m.High))
	}
	require.Equal(t, 0.25, middle([]float64{0.1, 0.2, 0.3, 0.9}, "s").Value)
}

func TestSummariseHasNoIntervalOfFewRuns(t *testing.T) {
	r := opened(t, made(t, filepath.Join(t.TempDir(), "a"), spec{cells: 1, repeats: 2, requests: 5}), "a")
	s, err := Summarise([]*Run{r})
	require.NoError(t, err)
	m := s.Claims[0].Metrics["ttft_p50"]
	require.Nil(t, m.Low)
	require.Nil(t, m.High)
	require.Equal(t, 2, m.N)
	require.Equal(t, "sec", m.Unit)
}

func TestSummariseDoesNotDependOnTheOrderOfRuns(t *testing.T) {
	dir := t.TempDir()
	a := opened(t, made(t, filepath.Join(dir, "a"), spec{cells: 2, repeats: 2, requests: 5}), "a")
	b := opened(t, made(t, filepath.Join(dir, "b"), spec{cells: 1, repeats: 3, requests: 5}), "b")
	one, err := Summarise([]*Run{a, b})
	require.NoError(t, err)
	two, err := Summarise([]*Run{b, a})
	require.NoError(t, err)
	j1, err := canon.JSON(one)
	require.NoError(t, err)
	j2, err := canon.JSON(two)
	require.NoError(t, err)
	require.Equal(t, string(j1), string(j2))
	require.Equal(t, []string{"runs/a", "runs/a", "runs/b"}, []string{one.Claims[0].Run, one.Claims[1].Run, one.Claims[2].Run})
}

func TestSummariseCountsInvalidRunsAndSaysSo(t *testing.T) {
	r := opened(t, made(t, filepath.Join(t.TempDir(), "a"), spec{cells: 1, repeats: 3, requests: 5, cell: func(c *record.Cell) {
		if c.Repeat == 1 {
			c.Facts.Dropped = 1
		}
	}}), "a")
	m, s, err := Derive([]*Run{r}, Manifest{Name: "n"})
	require.NoError(t, err)
	require.False(t, s.Claims[0].Valid)
	require.NotEmpty(t, s.Claims[0].Invalid)
	require.Equal(t, 3, s.Claims[0].Metrics["ttft_p50"].N, "an invalid run is not left out: that would be a choice")
	require.Equal(t, Attempts{Cells: 3, Done: 3, Invalid: 1, Requests: 15, Missed: m.Attempts.Missed}, m.Attempts)
	require.Positive(t, m.Attempts.Missed)
}

func TestClaimsRefuseAMixture(t *testing.T) {
	var l Claims
	c := cell(0, 0)
	require.NoError(t, l.Add("runs/a", &c, Figures{}))
	c.Contract = "def"
	require.ErrorContains(t, l.Add("runs/a", &c, Figures{}), "put together from several runs")
	require.NoError(t, l.Add("runs/b", &c, Figures{}), "another run may have other terms")
}

func TestDeriveSaysWhyADivisionIsOpen(t *testing.T) {
	dir := t.TempDir()
	r := opened(t, made(t, filepath.Join(dir, "a"), spec{cells: 1, repeats: 1, requests: 3, manifest: func(m *results.Manifest) {
		m.Commit, m.Profiles = "c0ffee+dirty", map[string]string{"device host": "1", "site home": "2"}
		m.Endpoints = []results.Endpoint{{URL: "http://x"}}
	}}), "a")
	m, _, err := Derive([]*Run{r}, Manifest{Name: "n"})
	require.NoError(t, err)
	require.Equal(t, OpenDivision, m.Division)
	require.Equal(t, []string{"runs/a: model m is not one that meibench ships", "runs/a: servers answered (endpoint)", "runs/a: site home is not as meibench ships it",
		"runs/a: suite 5d is not one that meibench ships, or was overridden", "runs/a: the program was built from changed source"}, m.Open)
	require.Equal(t, "A CPU, 2 cores, 2.0 GiB, amd64", m.Runs[0].System)
	require.Equal(t, "modelled", m.Mode)
	b := opened(t, made(t, filepath.Join(dir, "b"), spec{cells: 1, repeats: 1, requests: 3}), "b")
	late := time.Date(2100, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	b.Set.Manifest.Finished = &late
	for _, runs := range [][]*Run{{r, b}, {b, r}} {
		m, _, err = Derive(runs, Manifest{Name: "n"})
		require.NoError(t, err)
		require.Equal(t, "2100-01-02T02:04:05Z", m.Created, "the end of the last run")
	}
}

func TestTheClosedDivisionIsWhatMeibenchShips(t *testing.T) {
	suite, err := suites.Load("quickstart")
	require.NoError(t, err)
	data, err := models.Bytes(models.Default)
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	shape, err := profiles.Model("llama-3.2-1b:q4_0")
	require.NoError(t, err)
	site, err := profiles.Site("phone-5g-edge")
	require.NoError(t, err)
	closed := func(m *results.Manifest) {
		m.SuiteHash = suite.Hash
		m.Models = map[string]string{models.Default: hex.EncodeToString(sum[:]), "llama-3.2-1b:q4_0": shape.Digest}
		m.Profiles = map[string]string{"device host": "of this machine", "site phone-5g-edge": site.Digest()}
	}
	for name, c := range map[string]struct {
		change func(m *results.Manifest)
		want   string
	}{
		"closed":         {func(*results.Manifest) {}, ""},
		"no commit":      {func(m *results.Manifest) { m.Commit = "" }, "did not know its commit"},
		"quick":          {func(m *results.Manifest) { m.Quick = true }, "NOT COMPARABLE"},
		"other suite":    {func(m *results.Manifest) { m.SuiteHash += "+00" }, "suite 00"},
		"other model":    {func(m *results.Manifest) { m.Models["llama-3.2-1b:q4_0"] = "00" }, "model llama"},
		"renamed model":  {func(m *results.Manifest) { m.Models["mei-nano"] = m.Models[models.Default] }, "model mei-nano"},
		"other site":     {func(m *results.Manifest) { m.Profiles["site phone-5g-edge"] = "00" }, "site phone-5g-edge"},
		"a server":       {func(m *results.Manifest) { m.Endpoints = []results.Endpoint{{}} }, "endpoint"},
		"another device": {func(m *results.Manifest) { m.Agents = []results.Agent{{}} }, "agent"},
	} {
		t.Run(name, func(t *testing.T) {
			r := opened(t, made(t, filepath.Join(t.TempDir(), "a"), spec{cells: 1, repeats: 1, requests: 3, manifest: func(m *results.Manifest) { closed(m); c.change(m) }}), "a")
			m, _, err := Derive([]*Run{r}, Manifest{})
			require.NoError(t, err)
			if c.want == "" {
				require.Equal(t, ClosedDivision, m.Division, m.Open)
				return
			}
			require.Equal(t, OpenDivision, m.Division)
			require.Len(t, m.Open, 1)
			require.Contains(t, m.Open[0], c.want)
		})
	}
}
