package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// do runs a command line as a user would and returns what it printed.
func do(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = execute(context.Background(), &o, &e, args)
	return code, o.String(), e.String()
}

func TestExitCodesAndMessages(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	require.NoError(t, os.WriteFile(bad, []byte("name: x\nquestion: y\nmatrx: {}\n"), 0o644))
	broken := filepath.Join(dir, "trace.csv")
	require.NoError(t, os.WriteFile(broken, []byte("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,12,x\n"), 0o644))
	tabs := filepath.Join(dir, "tabs.yaml")
	require.NoError(t, os.WriteFile(tabs, []byte("name: x\n\tlayers 3\n"), 0o644))
	readOnly := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(readOnly, nil, 0o644))
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string // in stderr
	}{
		{"unknown command", []string{"rum"}, 2, "unknown command"},
		{"unknown flag", []string{"run", "--fast"}, 2, "see meibench run --help"},
		{"unknown suite", []string{"run", "quickstrt"}, 2, "quickstart"},
		{"unknown mode", []string{"run", "--mode", "guessed"}, 2, "have measured, emulated, modelled"},
		{"unknown kind", []string{"list", "device"}, 0, ""},
		{"unknown thing", []string{"describe", "asistant"}, 2, `did you mean "assistant"?`},
		{"suite with a typo", []string{"run", bad}, 2, "bad.yaml:3:1: unknown field \"matrx\""},
		{"bad --set", []string{"run", "--set", "rate"}, 2, "want key=value"},
		{"bad shard", []string{"run", "--shard", "3/2"}, 2, "want i/n"},
		{"resume without a folder", []string{"run", "--resume"}, 2, "--resume needs --out"},
		{"resume of something else", []string{"run", "placement", "--resume", "--out", dir}, 4, "is it a folder that meibench run wrote?"},
		{"folder that cannot be made", []string{"run", "placement", "--out", filepath.Join(readOnly, "x"), "-q"}, 4, "file"},
		{"report of nothing", []string{"report", dir}, 2, "run.json"},
		{"trace with a bad number", []string{"trace", "stats", broken}, 2, "trace.csv:2:"},
		{"trace that is not there", []string{"trace", "stats", filepath.Join(dir, "no.csv")}, 2, "no.csv"},
		{"empty file", []string{"validate", readOnly}, 2, "the file is empty"},
		{"broken YAML", []string{"validate", tabs}, 2, "tabs.yaml:2:"},
		{"file of no kind", []string{"validate", broken}, 2, "cannot tell what this is"},
		{"measured on a phone", []string{"run", "placement", "--set", "mode=measured", "--out", filepath.Join(dir, "m")}, 2, "is only a shape"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, _, errOut := do(t, tc.args...)
			require.Equal(t, tc.code, code, errOut)
			require.Contains(t, errOut, tc.want)
			require.LessOrEqual(t, strings.Count(errOut, "\n"), 12, "an error is a message, not a page")
		})
	}
}

func TestListAndDescribeEverything(t *testing.T) {
	code, out, _ := do(t, "list", "--json")
	require.Zero(t, code)
	var items []item
	require.NoError(t, json.Unmarshal([]byte(out), &items))
	n := map[string]int{}
	for _, it := range items {
		n[it.Kind]++
		require.NotEmpty(t, it.Doc, it.Name)
	}
	require.GreaterOrEqual(t, n["device"], 16)
	require.GreaterOrEqual(t, n["link"], 16)
	for _, kind := range []string{"application", "pipeline", "suite", "model", "metric", "site"} {
		require.Positive(t, n[kind], kind)
	}
	for _, it := range items {
		code, out, errOut := do(t, "describe", it.Name, "--json")
		require.Zero(t, code, "%s: %s", it.Name, errOut)
		var ds []description
		require.NoError(t, json.Unmarshal([]byte(out), &ds))
		for _, d := range ds {
			for _, num := range d.Numbers {
				require.NotEmpty(t, num.Source, "%s %s", it.Name, num.Field)
				require.NotEmpty(t, num.Kind, "%s %s", it.Name, num.Field)
			}
		}
	}
}

func TestHelpAndCompletion(t *testing.T) {
	code, out, _ := do(t, "--help")
	require.Zero(t, code)
	require.Contains(t, out, "Exit codes:")
	for _, sh := range []string{"bash", "zsh", "fish", "powershell"} {
		code, out, _ := do(t, "completion", sh)
		require.Zero(t, code)
		require.Contains(t, out, "meibench")
	}
	for _, c := range newRoot(&app{}).Commands() {
		code, out, _ := do(t, c.Name(), "--help")
		require.Zero(t, code)
		require.Contains(t, out, "Usage:", c.Name())
	}
}

func TestTraceCommands(t *testing.T) {
	fixture, err := filepath.Abs("../../workloads/traces/testdata/azure.csv")
	require.NoError(t, err)
	code, out, errOut := do(t, "trace", "stats", fixture, "--json")
	require.Zero(t, code, errOut)
	var stats []map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &stats))
	require.EqualValues(t, 60, stats[0]["Requests"])
	require.Nil(t, stats[0]["Lag1"], "a trace of 23 s has no correlation of minutes")

	scaled := filepath.Join(t.TempDir(), "fast.csv")
	code, _, errOut = do(t, "trace", "scale", fixture, "--factor", "10", "-o", scaled)
	require.Zero(t, code, errOut)
	code, out, errOut = do(t, "trace", "stats", scaled, "--json")
	require.Zero(t, code, errOut)
	var fast []map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &fast))
	require.InEpsilon(t, 10*stats[0]["Rate"].(float64), fast[0]["Rate"].(float64), 1e-6)
	require.InEpsilon(t, stats[0]["GapCV"].(float64), fast[0]["GapCV"].(float64), 1e-6, "burstiness is kept")
}

func TestModelledRunFromTheCommandLine(t *testing.T) {
	t.Chdir(t.TempDir())
	code, out, errOut := do(t, "run", "placement", "--app", "driving", "--repeat", "2", "--set", "requests=50", "--out", "a", "--bench", "a.txt", "-q")
	require.Zero(t, code, errOut)
	require.Contains(t, out, "driving")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Equal(t, "report: "+filepath.Join("a", "report.html"), lines[len(lines)-1], "the path comes last")
	require.FileExists(t, "a/report.html")
	bench, err := os.ReadFile("a.txt")
	require.NoError(t, err)
	require.Contains(t, string(bench), "\ncontract: ")

	code, out, errOut = do(t, "run", "placement", "--app", "driving", "--repeat", "2", "--set", "requests=50", "--out", "b", "--json", "-q")
	require.Zero(t, code, errOut)
	require.True(t, json.Valid([]byte(out)), "stdout is one JSON value")
	same, err := os.ReadFile("b/requests.arrow")
	require.NoError(t, err)
	first, err := os.ReadFile("a/requests.arrow")
	require.NoError(t, err)
	require.Equal(t, first, same)

	code, _, errOut = do(t, "run", "placement", "--app", "driving", "--out", "a", "-q")
	require.Equal(t, exitIncomplete, code)
	require.Contains(t, errOut, "already holds a run")
}

func TestInterruptSaysHowToGoOn(t *testing.T) {
	t.Chdir(t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var o, e bytes.Buffer
	code := execute(ctx, &o, &e, []string{"run", "placement", "--out", "x", "-q"})
	require.Equal(t, exitInterrupted, code, e.String())
	require.Contains(t, e.String(), "--resume")
}

// commands are the lines of a document that start with "$ ".
func commands(t *testing.T, path string) (out []string) {
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^\$ (.+)$`).FindAllStringSubmatch(string(text), -1) {
		out = append(out, m[1])
	}
	return out
}

// TestReadme runs every command of the README, in order, in a folder that looks
// like a fresh clone to them.
func TestReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for half a minute: the default suite is measured in real time")
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	cmds := commands(t, filepath.Join(root, "README.md"))
	require.GreaterOrEqual(t, len(cmds), 12)
	require.Equal(t, []string{"go run ./cmd/meibench run", "go test ./..."}, cmds[:2], "these two open the README")
	dir := t.TempDir()
	for _, link := range []string{"reference", "suites", "workloads"} {
		require.NoError(t, os.Symlink(filepath.Join(root, link), filepath.Join(dir, link)))
	}
	t.Chdir(dir)
	for _, line := range cmds {
		args, ours := strings.CutPrefix(line, "go run ./cmd/meibench ")
		if !ours {
			require.Contains(t, []string{
				"go test ./...", // this very test is part of it
				"go run golang.org/x/perf/cmd/benchstat@latest -filter '/pipeline:split .unit:modelled-ttft-p50-sec' -ignore /cut,/seed old.txt new.txt", // results tests read the text with benchstat's packages
				"go test -run xxx -bench Quickstart -benchtime 1x ./harness",                                                                             // run by .ci/run
			}, line)
			continue
		}
		run := strings.Fields(args)
		if args == "run" { // in full by .ci/run: a minute here would be a minute for everybody
			run = append(run, "--quick")
		}
		t.Run(args, func(t *testing.T) {
			code, _, errOut := do(t, run...)
			if strings.HasPrefix(args, "doctor") && code == exitEnvironment || args == "run" && code == exitGate {
				return // a machine that is not fit to measure says so; that is the command working
			}
			require.Zero(t, code, "%s\n%s", line, errOut)
		})
	}
}

// An error repeats the names that there are where that helps, and says how many where it is a wall.
func TestUnknownNames(t *testing.T) {
	require.EqualError(t, oneOf("fruit", "aple", []string{"apple", "pear"}), `unknown fruit "aple"; did you mean "apple"? (have apple, pear)`)
	code, _, errOut := do(t, "describe", "deliverr")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, `did you mean "deliver"? (`)
	require.Contains(t, errOut, "names are known: meibench list shows them")
	require.Less(t, len(errOut), 300)
}
