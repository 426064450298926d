package suites

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEmbeddedSuitesParse(t *testing.T) {
	require.Contains(t, Names(), "quickstart")
	for _, name := range Names() {
		s, err := Load(name)
		require.NoError(t, err)
		require.Equal(t, name, s.Name, "a suite is named after its file")
		require.NotEmpty(t, s.Cells)
	}
	s, err := Load("quickstart")
	require.NoError(t, err)
	require.Len(t, s.Cells, 5*3*3) // applications × placements × modes
	require.Equal(t, "app=assistant/pipeline=local/mode=measured", s.Cells[0].Name)
	require.Equal(t, "app=assistant/pipeline=local/mode=emulated", s.Cells[1].Name, "the last axis runs fastest")
}

const small = `
name: x
question: what?
defaults: {app: ar, site: s, model: m, pipeline: split, requests: 3}
matrix:
  cut: [1, 2]
params:
  split: {batch: 4}
`

func TestExpansion(t *testing.T) {
	s, err := Parse("x.yaml", []byte(small))
	require.NoError(t, err)
	require.Equal(t, []Cell{
		{Name: "cut=1", App: "ar", Pipeline: "split", Site: "s", Model: "m", Mode: "modelled", Scale: "task", Users: 1,
			Requests: 3, Repeats: 1, Seed: 1, Params: map[string]any{"cut": 1.0, "batch": 4.0}},
		{Name: "cut=2", App: "ar", Pipeline: "split", Site: "s", Model: "m", Mode: "modelled", Scale: "task", Users: 1,
			Requests: 3, Repeats: 1, Seed: 1, Params: map[string]any{"cut": 2.0, "batch": 4.0}},
	}, s.Cells)
}

func TestConditions(t *testing.T) {
	s, err := Parse("x.yaml", []byte(strings.Replace(small, "matrix:", "by: {cut: {2: {site: far, requests: 9}}}\nmatrix:", 1)))
	require.NoError(t, err)
	require.Equal(t, []string{"s", "far"}, []string{s.Cells[0].Site, s.Cells[1].Site})
	require.Equal(t, []int{3, 9}, []int{s.Cells[0].Requests, s.Cells[1].Requests})
}

func TestOverridesAndNarrowing(t *testing.T) {
	set, err := ParseSet("mode=modelled,emulated")
	require.NoError(t, err)
	one, err := ParseSet("cut=3")
	require.NoError(t, err)
	s, err := Parse("x.yaml", []byte(small), set, one)
	require.NoError(t, err)
	require.Len(t, s.Cells, 2)
	require.Equal(t, "cut=3/mode=modelled", s.Cells[0].Name)
	require.NoError(t, s.Narrow(map[string][]string{"mode": {"emulated"}}))
	require.Len(t, s.Cells, 1)
	require.EqualError(t, s.Narrow(map[string][]string{"app": {"driving"}}),
		`suite "x" has no cell with app driving (have ar; --set app=... replaces them)`)
	app, err := ParseSet("app=robotics")
	require.NoError(t, err)
	s, err = Parse("x.yaml", []byte(small), app)
	require.NoError(t, err)
	require.Equal(t, "cut=1", s.Cells[0].Name, "one value replaces a default and no name changes")
	require.Equal(t, "robotics", s.Cells[0].App)
	for _, bad := range []string{"", "a", "=1", "a="} {
		_, err := ParseSet(bad)
		require.Error(t, err, bad)
	}
}

const inParts = `
name: x
question: what?
defaults: {app: ar, site: s, model: m, mode: modelled, requests: 3}
params: {split: {batch: 4, tail: 1}}
parts:
  - name: placements
    matrix: {pipeline: [local, split]}
  - name: cuts
    question: where?
    defaults: {pipeline: split, requests: 9}
    matrix: {cut: [1, 2]}
    by: {cut: {2: {site: far}}}
    params: {split: {batch: 5}}
`

func TestParts(t *testing.T) {
	s, err := Parse("x.yaml", []byte(inParts))
	require.NoError(t, err)
	base := Cell{Part: "placements", App: "ar", Site: "s", Model: "m", Mode: "modelled", Scale: "task", Users: 1, Requests: 3, Repeats: 1, Seed: 1}
	local, split, one, two := base, base, base, base
	local.Name, local.Pipeline = "part=placements/pipeline=local", "local"
	split.Name, split.Pipeline, split.Params = "part=placements/pipeline=split", "split", map[string]any{"batch": 4.0, "tail": 1.0}
	one.Name, one.Part, one.Pipeline, one.Requests = "part=cuts/cut=1", "cuts", "split", 9
	one.Params = map[string]any{"cut": 1.0, "batch": 5.0, "tail": 1.0}
	two = one
	two.Name, two.Site, two.Params = "part=cuts/cut=2", "far", map[string]any{"cut": 2.0, "batch": 5.0, "tail": 1.0}
	require.Equal(t, []Cell{local, split, one, two}, s.Cells)

	set, err := ParseSet("requests=7")
	require.NoError(t, err)
	all, err := Parse("x.yaml", []byte(inParts), set)
	require.NoError(t, err)
	for _, c := range all.Cells {
		require.Equal(t, 7, c.Requests, "an override holds in every part: %s", c.Name)
	}
	require.NotEqual(t, s.Hash, all.Hash)
	require.NoError(t, s.Narrow(map[string][]string{"part": {"cuts"}}))
	require.Equal(t, []Cell{one, two}, s.Cells)
}

// A part is in the hash: its name, its defaults, its matrix, its parameters.
func TestPartsChangeTheHash(t *testing.T) {
	seen := map[string]string{}
	for _, edit := range [][2]string{{"", ""}, {"cuts", "other"}, {"requests: 9", "requests: 8"}, {"cut: [1, 2]", "cut: [1, 3]"}, {"batch: 5", "batch: 6"}, {"batch: 4", "batch: 3"}} {
		text := strings.Replace(strings.Replace(inParts, edit[0], edit[1], 1), "by: {cut: {2: {site: far}}}", "", 1)
		s, err := Parse("x.yaml", []byte(text))
		require.NoError(t, err)
		require.Empty(t, seen[s.Hash], "%v gives the hash of %v", edit, seen[s.Hash])
		seen[s.Hash] = edit[0] + " "
	}
}

func TestBadParts(t *testing.T) {
	for _, tc := range []struct{ name, edit, by, want string }{
		{"matrix beside parts", "parts:", "matrix: {cut: [1]}\nparts:", "x.yaml: a suite with parts has its matrix"},
		{"no name", "name: placements", "question: q", "parts[0] : a part needs a name"},
		{"same name", "name: cuts", "name: placements", `parts[1] placements: two parts are called "placements"`},
		{"unknown key", "question: where?", "questoin: where?", `x.yaml:10:5: unknown field "questoin"`},
		{"condition on no axis", "{cut: {2:", "{cat: {2:", "parts[1] cuts: by.cat: the matrix has no axis cat"},
		{"cell of a part", "pipeline: split, requests: 9", "mode: guessed", "parts[1] cuts: cells[0] part=cuts/cut=1: pipeline is not set"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(inParts, tc.edit, tc.by, 1)
			require.NotEqual(t, inParts, text)
			_, err := Parse("x.yaml", []byte(text))
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestHashIgnoresComments(t *testing.T) {
	a, err := Parse("a", []byte(small))
	require.NoError(t, err)
	b, err := Parse("b", []byte("# a comment\n"+strings.ReplaceAll(small, "{batch: 4}", "\n    batch:   4")))
	require.NoError(t, err)
	require.Equal(t, a.Hash, b.Hash)
	c, err := Parse("c", []byte(strings.Replace(small, "cut: [1, 2]", "cut: [2, 1]", 1)))
	require.NoError(t, err)
	require.NotEqual(t, a.Hash, c.Hash)
}

func TestBadSuites(t *testing.T) {
	for _, tc := range []struct{ name, edit, by, want string }{
		{"unknown key", "question: what?", "question: what?\nquestoin: x", `unknown field "questoin"`},
		{"duplicate key", "name: x", "name: x\nname: y", "x.yaml:3:1: mapping key \"name\" already defined"},
		{"wrong type", "requests: 3", "requests: many", "want a whole number"},
		{"fraction of a request", "requests: 3", "requests: 2.5", "x.yaml:4:"},
		{"no question", "question: what?", "question: ''", "needs a name and a question"},
		{"unset site", "site: s,", "", "site is not set"},
		{"unknown mode", "cut: [1, 2]", "mode: [guessed]", `unknown mode "guessed"`},
		{"same cell twice", "cut: [1, 2]", "cut: [1, 1]", "two cells"},
		{"axis without values", "cut: [1, 2]", "cut: 1", "want a list"},
		{"alias bomb", "cut: [1, 2]", "cut: &a [1]\n  batch: *a", "aliases, anchors and tags are not allowed"},
		{"condition on no axis", "matrix:", "by: {app: {ar: {site: t}}}\nmatrix:", "by.app: the matrix has no axis app"},
		{"condition of a wrong type", "matrix:", "by: {cut: {1: {site: 3}}}\nmatrix:", "by.cut.1: site: want a name"},
		{"not YAML", "name: x", "name: [", "x.yaml"},
		{"huge product", "cut: [1, 2]", "cut: [" + strings.Repeat("1,", 2000) + "1]\n  batch: [" + strings.Repeat("1,", 2000) + "1]", "more than a million"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(small, tc.edit, tc.by, 1)
			require.NotEqual(t, small, text)
			_, err := Parse("x.yaml", []byte(text))
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, "x.yaml")
		})
	}
	_, err := Load("quickstrat")
	require.ErrorContains(t, err, "unknown suite")
	_, err = Load("./no-such.yaml")
	require.ErrorContains(t, err, "no-such.yaml")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("name: &x y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := Parse("fuzz.yaml", text); err == nil && len(s.Cells) == 0 {
			t.Fatal("a suite without cells was accepted")
		}
	})
}

func TestFind(t *testing.T) {
	with := func(find string, set ...Set) (*Suite, error) {
		return Parse("x.yaml", []byte(strings.Replace(small, "requests: 3}", "requests: 3, find: "+find+"}", 1)), set...)
	}
	s, err := with("{capacity: {}}")
	require.NoError(t, err)
	require.Equal(t, &Capacity{Share: 0.9, Within: 0.05, Seeds: 6}, s.Cells[0].Find)
	s, err = with("{capacity: {share: 0.99, within: 0.1, seeds: 2}}")
	require.NoError(t, err)
	require.Equal(t, &Capacity{Share: 0.99, Within: 0.1, Seeds: 2}, s.Cells[1].Find)
	kept, err := with("{capacity: {share: 0.99}}", Set{"find", []any{"capacity"}})
	require.NoError(t, err)
	require.Equal(t, 0.99, kept.Cells[0].Find.Share)
	off, err := with("{capacity: {}}", Set{"find", []any{"nothing"}})
	require.NoError(t, err)
	require.Nil(t, off.Cells[0].Find)
	plain, err := Parse("x.yaml", []byte(small))
	require.NoError(t, err)
	require.Nil(t, plain.Cells[0].Find)
	require.Equal(t, plain.Hash, off.Hash)
	on, err := Parse("x.yaml", []byte(small), Set{"find", []any{"capacity"}})
	require.NoError(t, err)
	require.Equal(t, 6, on.Cells[0].Find.Seeds)
	require.NotEqual(t, plain.Hash, on.Hash)
	for find, want := range map[string]string{
		"{capacity: {share: 1.5}}":     "find.capacity.share: want a share of requests in (0, 1], got 1.5",
		"{capacity: {share: 0}}":       "find.capacity.share: want a share",
		"{capacity: {within: 0.0001}}": "find.capacity.within: want",
		"{capacity: {seeds: 0}}":       "want a whole number of 1 or more, got 0",
		"{capacity: {seeds: 101}}":     "find.capacity.seeds: want 1 to 100",
		"{capacity: {shares: 0.9}}":    `unknown field "shares"`,
		"{goodput: {}}":                `unknown field "goodput"`,
		"{}":                           "defaults.find: say what",
	} {
		_, err := with(find)
		require.ErrorContains(t, err, want, find)
	}
	_, err = Parse("x.yaml", []byte(small), Set{"find", []any{"gold"}})
	require.ErrorContains(t, err, "want capacity or nothing, got gold")
}
