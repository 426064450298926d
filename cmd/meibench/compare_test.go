package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCompareAndPlanOfRepeats(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	run := func(name string, more ...string) {
		ran(t, append([]string{"run", "placement", "-q", "--no-report", "--app", "driving", "--repeat", "3", "--set", "requests=40", "--bench", at(name + ".txt"), "--out", at(name)}, more...)...)
	}
	run("a")
	run("b")
	run("other", "--set", "users=7")
	out := ran(t, "compare", at("a"), at("b"))
	require.Contains(t, out, "no difference shown (identical)")
	require.NotContains(t, out, "cannot tell", "modelled cells are exact")
	require.Equal(t, strings.ReplaceAll(out, ", "+at("a"), ""), out)
	require.Contains(t, ran(t, "compare", at("a.txt"), at("b")), "identical", "benchmark text and run folders are alike")
	require.Contains(t, ran(t, "compare", at("a"), at("b"), "--md", "--changed"), "| cell | metric |")
	require.Contains(t, ran(t, "compare", at("a"), at("b"), "--json", "--metric", "e2e_p50"), `"verdict":"no difference shown"`)
	refusedWith(t, 2, "the contracts differ in workload.spec.users", "compare", at("a"), at("other"))
	refusedWith(t, 2, `did you mean "e2e_p50"?`, "compare", at("a"), at("b"), "--metric", "e2e50")
	refusedWith(t, 2, "OLD and NEW", "compare", at("a"))
	refusedWith(t, 2, "--band 5x", "compare", at("a"), at("b"), "--band", "5x")
	refusedWith(t, 2, "no such file", "compare", at("a"), at("none"))

	manifest, err := os.ReadFile(filepath.Join(at("b"), "run.json"))
	require.NoError(t, err)
	writeFile(t, filepath.Join(at("b"), "run.json"), []byte(strings.Replace(string(manifest), `"finished"`, `"was"`, 1)))
	refusedWith(t, 4, "meibench run --resume", "compare", at("a"), at("b"))
	refusedWith(t, 4, "meibench run --resume", "plan", at("b"), "--change", "3%")
	slow := at("slow.txt")
	writeFile(t, at("fast.txt"), []byte(strings.Repeat("BenchmarkF 1 100 ns/op\n", 5)+"BenchmarkF 1 101 ns/op\n"))
	writeFile(t, slow, []byte(strings.Repeat("BenchmarkF 1 150 ns/op\n", 5)+"BenchmarkF 1 151 ns/op\n"))
	refusedWith(t, 1, "1 figure(s) got slower or worse", "compare", at("fast.txt"), slow)
	require.Contains(t, ran(t, "compare", at("fast.txt"), slow, "--no-gate"), "slower")
	require.Contains(t, ran(t, "compare", slow, at("fast.txt")), "faster")

	require.Equal(t, "48 runs of a cell on each side\n", ran(t, "plan", "--change", "3%", "--spread", "5%"))
	require.Contains(t, ran(t, "plan", at("fast.txt"), "--change", "1%"), "for all of them: --repeat")
	require.Contains(t, ran(t, "plan", at("a"), "--change", "0.03"), "any difference shows at once")
	refusedWith(t, 2, "--change says which difference", "plan", at("a"))
	refusedWith(t, 2, "name runs whose spread is taken", "plan", "--change", "3%")
	refusedWith(t, 2, "name the suites to plan", "plan")
}
