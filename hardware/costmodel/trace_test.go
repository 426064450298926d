package costmodel

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTracesAreRead(t *testing.T) {
	// three packets in the first 100 ms, none in the second, one in the third: 45 kB/s, 0, 15 kB/s
	tr, err := ReadTrace("m", strings.NewReader("1\n50\n100\n201\n"), Down)
	require.NoError(t, err)
	require.Equal(t, &Trace{Slot: 100 * time.Millisecond, Rates: []float64{45_000, 0, 15_000}}, tr)

	const rates = "time_s,down_bytes_per_s,up_bytes_per_s\n10,1e6,2e5\n10.5,0,3e5\n11,5e5,0\n"
	tr, err = ReadTrace("c", strings.NewReader(rates), Up)
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
			_, err := ReadTrace("bad", strings.NewReader(tc.text), Down)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add("1\n50\n100\n201\n")
	f.Add("time_s,down_bytes_per_s\n1,2\n2,3\n")
	f.Add("1,\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		tr, err := ReadTrace("fuzz", strings.NewReader(text), Down)
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
