package traces

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

func sortFloats(x []float64) { slices.Sort(x) }

const (
	rawRates = "0,2,1.5,Gamma,0.4,1.2\n600,0,0,,0,0\n1200,4,1.0,Weibull,0.9,0.25\n"
	sumRates = ratesCSV + "\nchat,0,5\nchat,600,10\ncode,0,1\n"
	clients  = clientsCSV + "\nchat,1,0,3,1.2,Gamma,0.7,0.4\nchat,1,600,1,1,Gamma,1,1\nchat,9,600,6,2,Weibull,0.6,0.1\n"
	dataset  = `{"0": {"text_tokens": "{50: 0.25, 60: 0.75}", "image_count": "{1: 1.0}", "image_tokens": "{256: 1.0}", "output_tokens": "{7: 1.0}", "audio_count": "{0: 1.0}"}, "1200": {"input_tokens": "{5: 1.0}", "output_tokens": "{9: 1.0}"}}`
)

// 2/s for 600 s, nothing for 600 s, 4/s for 600 s: 1200 and 2400 requests, with
// variances of CV^2 times that: 1/0.4 for the gamma gaps, about 1.24 (c = 0.9).
func TestRatesBecomeRequests(t *testing.T) {
	r, err := ReadRates(strings.NewReader(rawRates), "raw", "")
	require.NoError(t, err)
	require.Equal(t, "servegen-raw", r.Format)
	require.Equal(t, 600*time.Second, r.Width)
	tokens, err := ReadTokens(strings.NewReader(dataset), "dataset")
	require.NoError(t, err)
	tr, err := r.Trace(Make{Seed: 1, Tokens: tokens})
	require.NoError(t, err)
	early, _ := slices.BinarySearchFunc(tr.Rows, 600*time.Second, func(r Row, at time.Duration) int { return int(r.At - at) })
	require.InDelta(t, 1200, early, 5*55) // sqrt(1200/0.4) = 55
	require.InDelta(t, 2400, len(tr.Rows)-early, 5*55)
	require.Equal(t, int32(7), tr.Rows[0].Output)
	require.Contains(t, []int32{50 + 256, 60 + 256}, tr.Rows[0].Prompt)
	require.Equal(t, int32(1), tr.Rows[0].Images)
	require.Equal(t, int32(5), tr.Rows[len(tr.Rows)-1].Prompt, "the second window's lengths")
	again, err := r.Trace(Make{Seed: 1, Tokens: tokens})
	require.NoError(t, err)
	require.Equal(t, tr, again)
	part, err := r.Trace(Make{Seed: 1, From: 1200 * time.Second})
	require.NoError(t, err)
	require.LessOrEqual(t, part.Span(), 600*time.Second)
}

func TestRateTables(t *testing.T) {
	r, err := ReadRates(strings.NewReader(sumRates), "sum", "chat")
	require.NoError(t, err)
	require.Len(t, r.Clients, 1)
	require.Equal(t, 10.0, r.Clients[0].Windows[1].Rate)
	r, err = ReadRates(strings.NewReader(clients), "clients", "")
	require.NoError(t, err)
	require.Equal(t, "chat", r.Workload)
	require.Len(t, r.Clients, 2)
	require.Equal(t, Window{Start: 600 * time.Second, Rate: 6, CV: 2, Family: "Weibull", Shape: 0.6}, r.Clients[1].Windows[0])
	tr, err := r.Trace(Make{Seed: 3})
	require.NoError(t, err)
	require.Equal(t, int32(1), tr.Rows[0].Prompt, "no lengths were given")
	users := map[int32]bool{}
	for _, row := range tr.Rows {
		users[row.User] = true
	}
	require.Len(t, users, 2)
}

func TestServeGenErrors(t *testing.T) {
	for _, tc := range []struct{ name, text, workload, want string }{
		{"not a table", "a,b\n", "", "f:1:1: not a ServeGen table"},
		{"several workloads", sumRates, "", "several workloads: choose one of chat, code"},
		{"unknown workload", sumRates, "image", `no rate of workload "image" (have chat, code)`},
		{"negative rate", ratesCSV + "\nchat,0,-1\n", "", `f:2:8: rate: want a finite number >= 0, got "-1"`},
		{"time twice", ratesCSV + "\nchat,0,1\nchat,0,1\n", "", "f:3:1: time of client \"\" does not increase"},
		{"family", "0,1,1,Gamma,1,1\n600,1,1,Pareto,1,1\n", "", `f:2:9: family: want Gamma or Weibull, got "Pareto"`},
		{"shape", "0,1,1,Gamma,0,1\n", "", "f:1:13: shape: want 0.01 to 1e6, got 0"},
		{"fields", ratesCSV + "\nchat,0\n", "", "f:2:1: 2 fields, want 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ReadRates(strings.NewReader(tc.text), "f", tc.workload)
			require.ErrorContains(t, err, tc.want)
		})
	}
	r, err := ReadRates(strings.NewReader(rawRates), "raw", "")
	require.NoError(t, err)
	_, err = r.Trace(Make{From: time.Hour})
	require.ErrorContains(t, err, "want a part of 0 s to 30m0s")
	_, err = r.Trace(Make{MaxRows: 100})
	require.ErrorContains(t, err, "about 3.6e+03 requests, over the limit of 100")
	_, err = r.Trace(Make{From: 600 * time.Second, To: 1200 * time.Second})
	require.ErrorContains(t, err, "none between")
}

func TestTokensErrors(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"not JSON", "{", "want an object of windows"},
		{"empty", "{}", "no window"},
		{"start", `{"noon": {}}`, `window "noon": want its start in seconds`},
		{"unknown field", `{"0": {"smell": "{1: 1.0}"}}`, "unknown field (fields are audio_count"},
		{"not a dictionary", `{"0": {"text_tokens": "50"}}`, "text_tokens: want {size: probability, ...}"},
		{"half a dictionary", `{"0": {"text_tokens": "{50: 0.5}"}}`, "probabilities add up to 0.5, want 1"},
		{"unsorted", `{"0": {"text_tokens": "{5: 0.5, 4: 0.5}"}}`, "pair 1: want increasing sizes, got 4 after 5"},
		{"negative", `{"0": {"text_tokens": "{5: -0.5, 6: 1.5}"}}`, "pair 0: want a probability"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ReadTokens(strings.NewReader(tc.text), "f")
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestProbabilities(t *testing.T) {
	p, err := newPMF("{50: 0.25, 60: 0.75}")
	require.NoError(t, err)
	for _, tc := range []struct {
		u    float64
		want int32
	}{{0, 50}, {0.2499, 50}, {0.25, 60}, {0.9999, 60}} {
		require.Equal(t, tc.want, p.at(tc.u), "u = %g", tc.u)
	}
	luck := new(rng.Luck)
	var none *Tokens
	row := Row{}
	none.draw(&row, luck)
	require.Equal(t, Row{Prompt: 1, Output: 1}, row)
}

// Published summaries: the m-small rate of the first 600 s is 809.76/s; a trace
// made from the clients of mm-image's first hour keeps its rate.
func TestServeGenFiles(t *testing.T) {
	f, err := os.Open(shared(t, "servegen_rate_600s.csv.gz"))
	require.NoError(t, err)
	defer f.Close()
	r, err := ReadRates(f, "rates", "m-small")
	require.NoError(t, err)
	require.Equal(t, 809.76, r.Clients[0].Windows[0].Rate)
	require.Len(t, r.Clients[0].Windows, 2016)
	g, err := os.Open(shared(t, "servegen_clients_day1.csv.gz"))
	require.NoError(t, err)
	defer g.Close()
	r, err = ReadRates(g, "clients", "mm-image")
	require.NoError(t, err)
	require.Len(t, r.Clients, 35)
	want := 0.0
	for _, c := range r.Clients {
		for _, w := range c.Windows {
			if w.Start < time.Hour {
				want += w.Rate * 600
			}
		}
	}
	tr, err := r.Trace(Make{Seed: 1, To: time.Hour})
	require.NoError(t, err)
	require.InEpsilon(t, want, float64(len(tr.Rows)), 0.05)
}
