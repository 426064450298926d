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
