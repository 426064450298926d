package profiles

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTracesAreRead(t *testing.T) {
	// three packets in the first 100 ms, none in the second, one in the third: 45 kB/s, 0, 15 kB/s
	tr, err := ReadTrace("m", strings.NewReader("1\n50\n100\n201\n"), "down")
	require.NoError(t, err)
	require.Equal(t, &Trace{Slot: 100 * time.Millisecond, Rates: []float64{45_000, 0, 15_000}}, tr)

	const rates = "time_s,down_bytes_per_s,up_bytes_per_s\n10,1e6,2e5\n10.5,0,3e5\n11,5e5,0\n"
	tr, err = ReadTrace("c", strings.NewReader(rates), "up")
	require.NoError(t, err)
	require.Equal(t, &Trace{Slot: 500 * time.Millisecond, Rates: []float64{2e5, 3e5, 0}}, tr)
}

func TestBadTracesAreRefused(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "bad: no deliveries in it"},
		{"not a number", "1\nx\n", `bad:2:1: want a millisecond of at least 1, got "x"`},
		{"time runs back", "5\n4\n", `bad:2:1: want a millisecond of at least 5, got "4"`},
		{"negative", "-1\n", "bad:1:1:"},
		{"endless", "999999999999\n", "longer than 1048576 slots"},
		{"no such column", "time_s,rate\n1,2\n", "want columns time_s and down_bytes_per_s, got time_s, rate"},
		{"negative rate", "time_s,down_bytes_per_s\n1,2\n2,-3\n", `bad:3:3: want a time and a rate of at least 0, got "2" and "-3"`},
		{"NaN", "time_s,down_bytes_per_s\n1,2\n2,NaN\n", "want a time and a rate"},
		{"one row", "time_s,down_bytes_per_s\n1,2\n", "want at least two rows"},
		{"uneven", "time_s,down_bytes_per_s\n1,2\n2,2\n4,2\n", "off an even spacing"},
		{"standing still", "time_s,down_bytes_per_s\n1,2\n1,2\n", "rows are 0 s apart"},
		{"ragged", "time_s,down_bytes_per_s\n1\n", "wrong number of fields"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ReadTrace("bad", strings.NewReader(tc.text), "down")
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add("1\n50\n100\n201\n")
	f.Add("time_s,down_bytes_per_s\n1,2\n2,3\n")
	f.Add("1,\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		tr, err := ReadTrace("fuzz", strings.NewReader(text), "down")
		if err != nil {
			return
		}
		require.Positive(t, tr.Slot)
		require.NotEmpty(t, tr.Rates)
		for _, r := range tr.Rates {
			require.GreaterOrEqual(t, r, 0.0)
		}
	})
}

// A link profile that names traces next to it has their rates, their digest and,
// scaled, their shape; a broken trace is refused by name and line.
func TestX1LinkProfilesNameTraces(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	sheet, err := builtin.ReadFile("links/lte-bus-nyc-2020.yaml")
	require.NoError(t, err)
	link := func(trace string) (*LinkSheet, error) {
		return LoadLink(write("bus.yaml", string(sheet)+trace))
	}
	write("rates.csv", "time_s,down_bytes_per_s,up_bytes_per_s\n0,1e6,2e5\n1,0,3e5\n")
	write("one.mahi", "1\n50\n100\n201\n")
	plain, err := link("")
	require.NoError(t, err)
	both, err := link("trace: {down: rates.csv, up: rates.csv, source: \"this test\"}\n")
	require.NoError(t, err)
	require.Equal(t, []float64{1e6, 0}, both.Trace.DownRates.Rates)
	require.Equal(t, []float64{2e5, 3e5}, both.Trace.UpRates.Rates)
	require.NotEqual(t, plain.Digest(), both.Digest())
	down, err := link("trace: {down: one.mahi, source: \"this test\"}\n")
	require.NoError(t, err)
	require.Equal(t, 100*time.Millisecond, down.Trace.DownRates.Slot)
	require.Nil(t, down.Trace.UpRates)
	twice := both.With(0, 2*both.Down.Rate.P50.Value)
	require.Equal(t, []float64{2e6, 0}, twice.Trace.DownRates.Rates)
	require.Equal(t, []float64{1e6, 0}, both.Trace.DownRates.Rates)
	before := both.Digest()
	write("rates.csv", "time_s,down_bytes_per_s,up_bytes_per_s\n0,1e6,2e5\n1,5,3e5\n")
	again, err := link("trace: {down: rates.csv, up: rates.csv, source: \"this test\"}\n")
	require.NoError(t, err)
	require.NotEqual(t, before, again.Digest(), "the digest is that of the traces, too")

	write("back.mahi", "5\n4\n")
	write("empty.mahi", "")
	write("dark.csv", "time_s,down_bytes_per_s\n0,0\n1,0\n")
	write("back.csv", "time_s,down_bytes_per_s\n1,5\n0,5\n")
	for trace, want := range map[string]string{
		"{down: back.mahi, source: s}":  "back.mahi:2:1: want a millisecond of at least 5",
		"{down: empty.mahi, source: s}": "no deliveries",
		"{down: dark.csv, source: s}":   "all rates are 0",
		"{down: back.csv, source: s}":   "back.csv: row 2: time goes back from 1 to 0 s",
		"{down: no.csv, source: s}":     "no.csv",
		"{up: one.mahi}":                "source",
		"{source: s}":                   "must name a file",
		"{down: one.mahi, rate: 3}":     "rate",
	} {
		_, err := link("trace: " + trace + "\n")
		require.ErrorContains(t, err, want, trace)
	}
}
