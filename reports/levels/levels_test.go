package levels

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/reports"
)

const ms = time.Millisecond

// folder writes a run: a robot whose ten requests end after 5, 15, ..., 95 ms
// under a limit of 50 ms, and a chat whose first tokens come after 40 and 400 ms.
func folder(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "run")
	run, err := results.Create(dir, results.Manifest{Command: []string{"test"}, Expected: 2})
	require.NoError(t, err)
	write := func(c record.Cell, first []time.Duration) {
		w, err := run.Begin(c)
		require.NoError(t, err)
		for id, d := range first {
			r := new(record.Request)
			r.Reset(id, time.Duration(id)*time.Second)
			r.Released, r.Sent, r.AskedTokens = r.Intended, r.Intended, 1
			r.Token(r.Intended+d, 1)
			r.Finish(r.Intended+d, nil)
			require.NoError(t, w.Row(r))
		}
		require.NoError(t, w.End(c))
	}
	var ten []time.Duration
	for i := range 10 {
		ten = append(ten, time.Duration(10*i+5)*ms)
	}
	write(record.Cell{Index: 0, Suite: "s", Name: "app=robot", App: "robot", Pipeline: "local", Mode: "modelled", Horizon: 9 * time.Second, E2ELimit: 50 * ms}, ten)
	write(record.Cell{Index: 1, Suite: "s", Name: "app=chat", App: "chat", Pipeline: "local", Mode: "modelled", Horizon: 9 * time.Second, TTFTLimit: time.Second}, []time.Duration{40 * ms, 400 * ms})
	require.NoError(t, run.Finish())
	require.NoError(t, run.Close())
	return dir
}

func texts(r reports.Row) (out []string) {
	for _, v := range r.Values {
		out = append(out, v.Text)
	}
	return out
}

// 5 ms is inside 10; 5 and 15 inside 15 and 20; five of ten inside 50. The chat is
// counted to its tokens: one of two inside 50 ms.
func TestTablesOfARun(t *testing.T) {
	data, err := reports.Load(folder(t))
	require.NoError(t, err)
	levels, steady := Levels(data), Steadiness(data)

	require.Equal(t, "robot", levels.Groups[0].Title)
	require.Equal(t, []string{"local", "modelled", "to end", "10.0", "20.0", "20.0", "50.0", "100", "100", "100", "100", "100"}, texts(levels.Groups[0].Rows[0]))
	require.Equal(t, []string{"local", "modelled", "to token", "0", "0", "0", "50.0", "50.0", "50.0", "100", "100", "100"}, texts(levels.Groups[1].Rows[0]))
	require.Equal(t, []string{"≤ 10ms", "≤ 2s"}, []string{levels.Columns[3].Head, levels.Columns[11].Head})

	// The deviation of 5, 15, ..., 95: sqrt(100 x 82.5/9) = 30.3; p99 - p50 = 95 - 45.
	// The last five missed, one burst: log10(10/5) nines.
	require.Equal(t, []string{"local", "modelled", "30.3", "50.0", "–", "–", "1", "5", "5.00", "5", "1.00", "0.301"}, texts(steady.Groups[0].Rows[0]))

	rep := reports.Build(data, Sections(data)...)
	paths, err := rep.Write(t.TempDir())
	require.NoError(t, err)
	for _, path := range []string{paths.HTML, paths.Markdown} {
		page, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, title := range []string{"inside each latency level", "Jitter, bursts of misses", "What 10ms leave of an answer", "can decode an answer of 7 tokens in 10 ms"} {
			require.Contains(t, string(page), title, path)
		}
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 1234.5: "1234", 12.345: "12.3", 0.012345: "0.0123", 3: "3.00"} {
		require.Equal(t, want, number(v, 3))
	}
	require.Equal(t, "99.9", share(0.99999).Text, "not all")
}

// The verdict stands below the table, with the numbers of its fastest row.
func TestBudgetTable(t *testing.T) {
	b, err := Budget(10*ms, []string{"llama-3.2-1b:q4_0", "smollm2-135m:q4_0"})
	require.NoError(t, err)
	require.Len(t, b.Groups, 2)
	require.Greater(t, len(b.Groups[0].Rows), 10)
	require.True(t, strings.HasPrefix(b.Notes[0], "None of "), b.Notes[0])
	require.NotContains(t, b.Notes[1], "None of ")
	for _, r := range b.Groups[0].Rows {
		require.Less(t, r.Values[4].Sort, 7.0, "%v", texts(r))
	}
	_, err = Budget(10*ms, []string{"gpt-9"})
	require.Error(t, err)
}

// TestX9Cost: two runs of a cell, ten requests in all; nodes of one name are summed.
func TestX9Cost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	run, err := results.Create(dir, results.Manifest{Command: []string{"test"}, Expected: 2})
	require.NoError(t, err)
	for rep := range 2 {
		c := record.Cell{Suite: "s", Name: "app=robot", App: "robot", Pipeline: "split", Mode: "modelled", Repeat: rep, Seed: uint64(rep), Horizon: time.Second,
			Nodes: []record.NodeUse{{Name: "phone", Slots: 1, Busy: 100 * ms}, {Name: "edge", Slots: 4, Busy: 3 * time.Second}, {Name: "phone", Slots: 1, Busy: 150 * ms}, {Name: "cloud", Slots: 1}}}
		w, err := run.Begin(c)
		require.NoError(t, err)
		for id := range 5 {
			r := new(record.Request)
			r.Reset(id, time.Duration(id)*ms)
			r.UpBytes, r.DownBytes, r.Quality = 2000, 10, float64(id%2)
			r.Spend(record.DevicePart, 0.5, 1)
			r.Finish(r.Intended+ms, nil)
			require.NoError(t, w.Row(r))
		}
		require.NoError(t, w.End(c))
	}
	require.NoError(t, run.Finish())
	data, err := reports.Load(dir)
	require.NoError(t, err)
	// 6 s and 0.5 s of ten requests; 4 of 10 correct, 500 J and 400 answers.
	require.Equal(t, []string{"split", "modelled", "edge 600 s, phone 50.0 s", "650 s", "2.00 MB", "10.0 kB", "500 J", "0.0500", "400", "1.25 J"}, texts(Cost(data, Grid{360, "test"}).Groups[0].Rows[0]))
}

// TestD8FirstMinuteAndSustained: a device that slows down shows so in the means of
// the first minute and of the last quarter, and a short run keeps nothing up.
func TestD8FirstMinuteAndSustained(t *testing.T) {
	for _, tc := range []struct {
		seconds int
		want    [2]string
	}{{400, [2]string{"20.0", "80.0"}}, {100, [2]string{"20.0", ""}}} {
		data := reports.NewData()
		data.AddRun("", "", results.Manifest{})
		c := record.Cell{Name: "local", App: "assistant", Pipeline: "local", Mode: "modelled", Valid: true, Horizon: time.Duration(tc.seconds) * time.Second, Figures: map[string]float64{"sustained_speed": 0.5}}
		sum := record.NewSummary(&c)
		require.NoError(t, data.Add(0, c, func(yield func(*record.Request, error) bool) {
			for i := range tc.seconds {
				var r record.Request
				at := time.Duration(i) * time.Second
				r.Reset(i, at)
				gap := 20 * time.Millisecond
				if i >= max(60, tc.seconds/2) {
					gap = 80 * time.Millisecond
				}
				r.Released, r.Sent, r.AskedTokens = at, at, 3
				for k := range 3 {
					r.Token(at+time.Duration(k+1)*gap, 1)
				}
				r.Finish(at+3*gap, nil)
				sum.Add(&r)
				if !yield(&r, nil) {
					return
				}
			}
		}))
		g := data.Groups[0]
		g.Values = [][]record.Value{sum.Values()}
		row := texts(Heat(data).Groups[0].Rows[0])
		require.Equal(t, tc.want[0], row[2])
		if tc.want[1] == "" {
			require.Equal(t, "–", row[3])
		} else {
			require.Equal(t, tc.want[1], row[3])
			require.Equal(t, "300 %", row[4])
		}
		require.Equal(t, "50.0", row[5])
	}
}
