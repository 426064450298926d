package tidy

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func TestRepository(t *testing.T) {
	found, err := Check(os.DirFS("../.."))
	require.NoError(t, err)
	for _, f := range Excuse(found, Exceptions) {
		t.Error(f)
	}
}

// house is a small repository that keeps the rules.
var house = map[string]string{
	"go.mod":               "module toy\n",
	".gitignore":           "/runs/\n*.prof\n",
	"Makefile":             "test: ## all\n\tgo test ./...\n",
	"README.md":            "# A toy\n[this](#a-toy), [code](internal/a/a.go)\n```\n$ meibench run --out x | cat\n$ make test\n```\n",
	"internal/a/a.go":      "// Package a is a toy.\npackage a\n\nimport \"errors\"\n\n// Table is a table.\nvar Table = []struct{ Name string }{{\"x\"}, {Name: \"y\"}}\n\nvar errNo = errors.New(\"no\")\n",
	"cmd/meibench/main.go": "// Command meibench is a toy.\npackage main\n\nimport \"os\"\n\nvar run = command{Use: \"run [SUITE]\"}\n\nfunc main() { flags.StringP(\"out\", \"o\", \"\", \"folder\"); os.Exit(1) }\n",
	"runs/bad.go":          "package",
}

// check runs the rules over the house with one file more.
func check(t *testing.T, name, text string) []string {
	t.Helper()
	fsys := fstest.MapFS{}
	for p, s := range house {
		fsys[p] = &fstest.MapFile{Data: []byte(s)}
	}
	fsys[name] = &fstest.MapFile{Data: []byte(text)}
	found, err := Check(fsys)
	require.NoError(t, err)
	var out []string
	for _, f := range found {
		out = append(out, f.String())
	}
	return out
}

func TestRulesFindWhatBreaksThem(t *testing.T) {
	require.Empty(t, check(t, "go.mod", "module toy\n"), "the house itself is tidy")
	pipe := func(body string) string { return "// Package pipeline is a toy.\npackage pipeline\n" + body }
	b := func(body string) string { return "// Package b is a toy.\npackage b\n" + body }
	for _, tc := range []struct {
		name, file, text string
		want             string // the start of the only finding
	}{
		{"upwards by row", "hardware/world/w.go", "// Package world is a toy.\npackage world\n\nimport _ \"toy/hardware/netem\"\n", "hardware/world/w.go:4: layer: hardware/world (row 1) imports hardware/netem (row 2)"},
		{"upwards by folder", "suites/b.go", "// Package suites is a toy.\npackage suites\n\nimport _ \"toy/harness/record\"\n", "suites/b.go:4: layer: suites/ imports harness/"},
		{"no row", "extra/b.go", b(""), "extra:0: layer: the package is in no row"},
		{"a foreign module", "internal/b/b.go", b("\nimport _ \"example.org/x\"\n"), "internal/b/b.go:4: dependency: internal/b may not import example.org/x"},
		{"the old random package", "internal/b/b_test.go", "package b\n\nimport _ \"math/rand\"\n", "internal/b/b_test.go:3: ban: math/rand: use internal/rng"},
		{"a global draw under another name", "internal/b/b.go", b("\nimport dice \"math/rand/v2\"\n\nfunc f() { dice.IntN(3) }\n"), "internal/b/b.go:6: ban: rand.IntN: use rng.Stream"},
		{"a seed from the clock", "internal/b/b.go", b("\nimport (\n\t\"time\"\n\t\"toy/internal/rng\"\n)\n\nfunc f() { rng.Stream(uint64(time.Now().Unix())) }\n"), "internal/b/b.go:9: seed:"},
		{"exit outside main", "internal/b/b.go", b("\nimport \"os\"\n\nfunc f() { os.Exit(1) }\n"), "internal/b/b.go:6: ban: os.Exit"},
		{"the clock in a pipeline", "harness/pipeline/p.go", pipe("\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n"), "harness/pipeline/p.go:6: ban: time.Sleep: use env.Now"},
		{"a socket in a pipeline", "harness/pipeline/p.go", pipe("\nimport _ \"net/http\"\n"), "harness/pipeline/p.go:4: ban: net/http: use hardware.Link"},
		{"a lock in a pipeline", "harness/pipeline/p.go", pipe("\nimport _ \"sync/atomic\"\n"), "harness/pipeline/p.go:4: ban: sync/atomic"},
		{"a goroutine in a pipeline", "harness/pipeline/p.go", pipe("\nfunc f() { go f() }\n"), "harness/pipeline/p.go:4: process:"},
		{"a channel in a pipeline", "harness/pipeline/p.go", pipe("\nfunc f(c chan int) {}\n"), "harness/pipeline/p.go:4: process:"},
		{"a long function", "internal/b/b.go", b("\nfunc f() {\n" + strings.Repeat("\tf()\n", 69) + "}\n"), "internal/b/b.go:f:4: func: 71, at most 70"},
		{"a long file", "internal/b/b.go", b(strings.Repeat("\n// x\n", 250)), "internal/b/b.go:0: file: 502, at most 500"},
		{"six parameters", "internal/b/b.go", b("\nfunc f(a, b, c, d, e, g int) {}\n"), "internal/b/b.go:f:4: params: 6, at most 5"},
		{"kernels are exempt", "reference/tensor/b.go", "// Package tensor is a toy.\npackage tensor\n\nfunc f(a, b, c, d, e, g int) {}\n", ""},
		{"no package comment", "internal/b/b.go", "package b\n", "internal/b:0: comment: 0 package comments"},
		{"no comment on a method", "internal/b/b.go", b("\n// T is.\ntype T struct{}\n\nfunc (*T) M() {}\n"), "internal/b/b.go:M:7: doc: M is exported"},
		{"a comment on the group is enough", "internal/b/b.go", b("\n// Two.\nconst (\n\tA = 1\n\tB = 2\n)\n"), ""},
		{"init", "internal/b/b.go", b("\nfunc init() {}\n"), "internal/b/b.go:4: init:"},
		{"a variable without a value", "internal/b/b.go", b("\nvar n int\n"), "internal/b/b.go:n:4: var: n has no value"},
		{"a lock for all", "internal/b/b.go", b("\nimport \"sync\"\n\nvar mu = &sync.Mutex{}\n"), "internal/b/b.go:mu:6: var: mu is mutable"},
		{"a cache for all", "internal/b/b.go", b("\nvar m = map[int]int{}\n\nfunc f() { m[1]++ }\n"), "internal/b/b.go:m:6: var: package-level m is written"},
		{"a local of the same name is fine", "internal/b/b.go", b("\nvar m = map[int]int{}\n\nfunc f(m map[int]int) { m[1]++ }\n"), ""},
		{"a sink in a test", "internal/b/b_test.go", "package b\n\nvar sink int\n\nfunc f() { sink = 1 }\n", ""},
		{"another package's variable", "internal/b/b.go", b("\nimport \"toy/internal/a\"\n\nfunc f() { a.Table = nil }\n"), "internal/b/b.go:6: var: toy/internal/a.Table is another package's"},
		{"an unsorted table", "internal/b/b.go", b("\n// Table is.\nvar Table = []struct{ Name string }{{\"y\"}, {\"x\"}}\n"), "internal/b/b.go:Table:5: sorted:"},
		{"a task of nobody", "internal/b/b.go", b("\n// TODO: later\nfunc f() {}\n"), "internal/b/b.go:4: todo: TODO without an owner"},
		{"a task of somebody", "internal/b/b.go", b("\n// TODO(ada): later\nfunc f() {}\n"), ""},
		{"a generated file that does not say so", "internal/b/b.go", b("\n//go:generate go run ./gen b.s\n"), "internal/b/b.s:0: generated:"},
		{"not gofmt's format", "internal/b/b.go", b("\nfunc  f() {}\n"), "internal/b/b.go:0: format:"},
		{"a large file", "internal/b/b.bin", strings.Repeat("x", 1<<20+1), "internal/b/b.bin:0: size:"},
		{"a large file of test data", "internal/b/testdata/b.bin", strings.Repeat("x", 1<<20+1), ""},
		{"a dead link", "docs/b.md", "see [it](../README.md) and\n[that](c.md)", "docs/b.md:2: link: c.md: there is no docs/c.md"},
		{"a dead anchor", "docs/b.md", "[it](../README.md#a-boat)", "docs/b.md:1: link: ../README.md#a-boat: README.md has no such heading"},
		{"an unknown command", "docs/b.md", "```\n$ meibench fly\n```", "docs/b.md:2: command: meibench has no command \"fly\""},
		{"an unknown flag", "docs/b.md", "```\n$ go run ./cmd/meibench run --up\n```", "docs/b.md:2: command: meibench run has no flag --up"},
		{"an unknown target", "docs/b.md", "```\n$ make tea\n```", "docs/b.md:2: command: the Makefile has no target \"tea\""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := check(t, tc.file, tc.text)
			if tc.want == "" {
				require.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			require.True(t, strings.HasPrefix(got[0], tc.want), "want %s, got %s", tc.want, got[0])
		})
	}
}

func TestTooManyFiles(t *testing.T) {
	for _, p := range []string{"internal/a", "workloads"} {
		fsys := fstest.MapFS{"go.mod": {Data: []byte("module toy\n")}}
		for _, name := range strings.Fields("a b c d e f g h i j k l l_linux l_other l_test m") {
			fsys[p+"/"+name+".go"] = &fstest.MapFile{Data: []byte("package a\n")}
		}
		found, err := Check(fsys)
		require.NoError(t, err)
		rules := map[string]int{}
		for _, f := range found {
			rules[f.Rule] = f.Size
		}
		if p == "workloads" {
			require.NotContains(t, rules, "package", "one file per application")
			continue
		}
		require.Equal(t, 13, rules["package"], "a to m; twins and tests do not count")
	}
}

func TestExceptionsMayOnlyShrink(t *testing.T) {
	found := []Finding{{Rule: "func", Where: "a.go:f", Size: 80}}
	allow := []Exception{{"func", "a.go:f", 80, "a state machine reads best in one piece"}}
	require.Empty(t, Excuse(found, allow))
	require.Len(t, Excuse(nil, allow), 1, "not needed any more")
	found[0].Size++
	require.Len(t, Excuse(found, allow), 2, "it grew: the finding and the useless exception")
}
