package workloads

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/workloads/traces"
)

const nightShift = `# comments are welcome
name: night-shift
base: healthcare
per_user: {value: 0.002, unit: 1/s, source: ward log of May 2025, kind: measured}
limits:
  - {metric: e2e, percentile: 0.95, bound: {value: 30, unit: s, source: our ward, kind: assumed}}
run: {scenario: open, users: 4, requests: 1000, context: 8192}
`

const ownApplication = `name: kiosk
about: questions at a station
task: assistant
scenario: server
privacy: {class: public, zone: cloud, source: operator, kind: assumed}
arrivals:
  kind: gamma
  rate: {value: 1, unit: 1/s, source: unit, kind: assumed}
  shape: {value: 0.5, unit: "1", source: counter of one week, kind: measured}
per_user: {value: 0.01, unit: 1/s, source: counter of one week, kind: measured}
prompt:
  kind: quantiles
  points: {p: [0, 0.5, 1], v: [4, 12, 60], source: transcripts, kind: measured}
output: {kind: constant, value: {value: 40, unit: token, source: a sentence or two, kind: assumed}}
bytes_per_token: {value: 4.5, unit: B/token, source: English, kind: assumed}
limits:
  - metric: ttft
    percentile: 0.99
    bound: {value: 1, unit: s, source: operator, kind: spec}
run: {rate: 2, horizon_s: 600}
`

func TestParse(t *testing.T) {
	f, err := Parse("night.yaml", []byte(nightShift))
	require.NoError(t, err)
	require.Equal(t, 0.002, f.App.PerUser.Value)
	require.Equal(t, healthcare.Prompt, f.App.Prompt, "taken from the base")
	require.Len(t, f.App.Limits, 1)
	w, err := f.New(Deps{})
	require.NoError(t, err)
	require.Equal(t, 30*time.Second, w.Limits().E2E.Duration())
	require.InEpsilon(t, 0.008, w.Rate(), 1e-12) // 4 x 0.002
	require.Equal(t, "night-shift", collect(w.Requests(1))[0].App)

	f, err = Parse("kiosk.yaml", []byte(ownApplication))
	require.NoError(t, err)
	w, err = f.New(Deps{})
	require.NoError(t, err)
	all := collect(w.Requests(1))
	require.InDelta(t, 1200, len(all), 5*35)
	require.Equal(t, 40, all[0].OutputTokens)
}

// Comments, order and spaces do not change what a file is; numbers do.
func TestCanonicalForm(t *testing.T) {
	form := func(text string) string {
		f, err := Parse("x.yaml", []byte(text))
		require.NoError(t, err)
		b, err := f.Canonical()
		require.NoError(t, err)
		return string(b)
	}
	lines := strings.Split(strings.TrimSpace(nightShift), "\n")
	shuffled := strings.Join([]string{lines[6], "", "base:   healthcare  # where from", lines[3], lines[4], lines[5], "name: night-shift"}, "\n")
	require.Equal(t, form(nightShift), form(shuffled))
	require.NotEqual(t, form(nightShift), form(strings.Replace(nightShift, "0.002", "0.003", 1)))
}

func TestParseErrors(t *testing.T) {
	change := func(from, to string) string {
		require.Contains(t, ownApplication, from)
		return strings.Replace(ownApplication, from, to, 1)
	}
	for _, tc := range []struct{ name, text, want string }{
		{"unknown key", change("about:", "abuot:"), `w.yaml:2:1: unknown field "abuot"`},
		{"unknown nested key", change("shape:", "shapes:"), `w.yaml:9:3: unknown field "shapes"`},
		{"duplicate key", change("about: ", "name: again\nabout: "), `w.yaml:2:1: mapping key "name" already defined at [1:1]`},
		{"wrong type", change("value: 0.5", "value: half"), "w.yaml:9:18: cannot unmarshal string into Go struct field"},
		{"negative", change("value: 40", "value: -40"), "w.yaml:14:"},
		{"negative says so", change("value: 40", "value: -40"), "output.value: value: want >= 0, got -40"},
		{"missing source", change("source: transcripts, ", ""), "points: source is missing"},
		{"missing source of a bound", change("source: operator, kind: spec", "kind: spec"), "w.yaml:19:12: limits[0].bound: source is missing: say where 1 s comes from"},
		{"unknown kind of source", change("kind: spec", "kind: hearsay"), `limits[0].bound: kind: want spec, measured, paper or assumed, got "hearsay"`},
		{"wrong unit", change("value: 1, unit: s", "value: 1000, unit: ms"), `unit: want "s", got "ms": convert the value to s`},
		{"missing section", change("output:", "# output:"), "w.yaml:1:1: output: is missing: describe it, or take it from a base"},
		{"unknown base", "name: x\nbase: fridge\n", `w.yaml:2:7: base: unknown application "fridge" (have ar,`},
		{"no name", "base: ar\nrun: {requests: 1}\n", "w.yaml:1:1: name: want a name"},
		{"endless", "name: x\nbase: ar\n", "requests: neither requests nor horizon is set"},
		{"half a request", "name: x\nbase: ar\nrun: {requests: 2.5}\n", "w.yaml:3:17: run.requests: want a whole number from 0 to 1e12, got 2.5"},
		{"negative users", "name: x\nbase: ar\nrun: {requests: 1, users: -3}\n", "want a whole number from 0 to 1e12, got -3"},
		{"negative rate", "name: x\nbase: ar\nrun:\n  requests: 1\n  rate: -2\n", "w.yaml:5:9: rate: want a finite number >= 0"},
		{"negative horizon", "name: x\nbase: ar\nrun: {horizon_s: -1}\n", "run.horizon_s: want 0 to 1e9 seconds, got -1"},
		{"unknown scenario", "name: x\nbase: ar\nrun: {requests: 1, scenario: chaos}\n", `w.yaml:3:30: scenario: unknown scenario "chaos"`},
		{"trace without a path", "name: x\nbase: ar\nrun: {scenario: trace}\n", "run.trace: scenario trace needs the path of a trace"},
		{"path without a trace", "name: x\nbase: ar\nrun: {requests: 1, trace: a.csv}\n", "run.trace: scenario \"open\" replays no trace"},
		{"alias", "name: &n x\nbase: *n\n", "aliases, anchors and tags are not allowed here: write the value out"},
		{"tag", "name: !!str x\n", "w.yaml:1:7: aliases, anchors and tags"},
		{"two documents", "name: x\n---\nname: y\n", "2 documents: a file holds one"},
		{"empty", "", "the file is empty"},
		{"only a comment", "# nothing\n", "the file is empty"},
		{"not YAML", "name: [x\n", "w.yaml:1:"},
		{"a list", "- 1\n- 2\n", "w.yaml:1:1"},
		{"deep", strings.Repeat("[", 10_000), "w.yaml:1:1: nested too deeply"},
		{"deep on one line", strings.Repeat("- ", 10_000), "w.yaml:1:1: nested too deeply"},
		{"many keys", strings.Repeat("a: 1\n", 20_000), "w.yaml:5001:1: more than 10000 keys"}, // two a line
		{"many items", "a: [" + strings.Repeat("1,", 20_000) + "1]", "more than 10000 keys, items, lines and marks"},
		{"too large", strings.Repeat("#", MaxFile+1), "at most 1048576 bytes, this one has 1048577"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("w.yaml", []byte(tc.text))
			require.ErrorContains(t, err, tc.want)
			require.Contains(t, err.Error(), "w.yaml")
		})
	}
}

func TestParseShowsTheLine(t *testing.T) {
	_, err := Parse("w.yaml", []byte(strings.Replace(nightShift, "unit: 1/s", "unit: 1/h", 1)))
	require.EqualError(t, err, `w.yaml:4:11: per_user: unit: want "1/s", got "1/h": convert the value to 1/s
    3 | base: healthcare
>   4 | per_user: {value: 0.002, unit: 1/h, source: ward log of May 2025, kind: measured}
                  ^`)
}

func TestLoadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.yaml")
	require.NoError(t, os.WriteFile(path, []byte(nightShift), 0o600))
	f, err := LoadFile(path)
	require.NoError(t, err)
	require.Equal(t, "night-shift", f.App.Name)
	require.NoError(t, os.WriteFile(path, make([]byte, MaxFile+1), 0o600))
	_, err = LoadFile(path)
	require.ErrorContains(t, err, "at most 1048576 bytes")
	_, err = LoadFile(path + ".none")
	require.ErrorContains(t, err, "read workload")
}

// Whatever the bytes, the loader ends with a workload that can be run or with
// an error that names the file.
func FuzzParse(f *testing.F) {
	f.Add([]byte(nightShift))
	f.Add([]byte(ownApplication))
	f.Add([]byte("name: x\nbase: ar\nrun: {requests: 3, scenario: trace, trace: t}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Parse("fuzz.yaml", text)
		if err != nil {
			require.Contains(t, err.Error(), "fuzz.yaml")
			return
		}
		_, err = file.Canonical()
		require.NoError(t, err)
		w, err := file.New(Deps{Tokenizer: letters{}, Trace: &traces.Trace{Rows: make([]traces.Row, 2)}})
		if err != nil {
			return // a rate for a trace of no extent
		}
		n := 0
		for r := range w.Requests(1) {
			require.GreaterOrEqual(t, r.PromptTokens, 0)
			if n++; n == 20 {
				break
			}
		}
	})
}

func ExampleParse() {
	f, err := Parse("night.yaml", []byte("name: night\nbase: healthcare\nrun: {scenario: server, rate: 0.5, requests: 2}\n"))
	if err != nil {
		panic(err)
	}
	w, err := f.New(Deps{})
	if err != nil {
		panic(err)
	}
	fmt.Println(w.Rate(), w.Spec().Users, w.App().Privacy.Zone)
	// Output: 0.5 1 premises
}
