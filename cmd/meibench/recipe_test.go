package main

import (
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/strictyaml"
)

// workflow is the part of GitHub's format that the recipe uses; any other key is
// an error.
type workflow struct {
	Name string `yaml:"name"`
	On   struct {
		PullRequest any `yaml:"pull_request"`
	} `yaml:"on"`
	Permissions map[string]string `yaml:"permissions"`
	Jobs        map[string]struct {
		RunsOn  string            `yaml:"runs-on"`
		Timeout int               `yaml:"timeout-minutes"`
		Env     map[string]string `yaml:"env"`
		Steps   []struct {
			Name string         `yaml:"name"`
			Uses string         `yaml:"uses"`
			If   string         `yaml:"if"`
			With map[string]any `yaml:"with"`
			Run  string         `yaml:"run"`
		} `yaml:"steps"`
	} `yaml:"jobs"`
}

// Every line of the recipe that calls make names a target and variables that the
// Makefile has; every line that calls meibench parses.
func TestRecipeForGitHubActions(t *testing.T) {
	text, err := os.ReadFile("../../docs/github-actions.yml")
	require.NoError(t, err)
	var w workflow
	require.NoError(t, strictyaml.Decode("github-actions.yml", text, 1<<16, &w))
	makefile, err := os.ReadFile("../../Makefile")
	require.NoError(t, err)
	calls := 0
	for _, job := range w.Jobs {
		for _, step := range job.Steps {
			require.True(t, (step.Run == "") != (step.Uses == ""), step.Name)
			require.NotContains(t, step.Run, "${{", "what a stranger may name is no part of a command: it goes through env")
			for _, line := range strings.Split(strings.TrimSpace(step.Run), "\n") {
				words := strings.Fields(strings.NewReplacer(`"$BASE"`, "HEAD", `>>"$GITHUB_STEP_SUMMARY"`, "").Replace(line))
				switch {
				case len(words) == 0:
					continue
				case words[0] == "make":
					checkMake(t, string(makefile), words[1:])
				case strings.HasPrefix(line, "go run ./cmd/meibench "):
					root := newRoot(&app{out: io.Discard, err: io.Discard})
					c, rest, err := root.Find(words[3:])
					require.NoError(t, err, line)
					require.NotEqual(t, root, c, line)
					require.NoError(t, c.ParseFlags(rest), line)
				default:
					t.Fatalf("%s: no test for this line", line)
				}
				calls++
			}
		}
	}
	require.Equal(t, 4, calls)
}

func checkMake(t *testing.T, makefile string, words []string) {
	require.Regexp(t, "(?m)^"+words[0]+":", makefile)
	for _, w := range words[1:] {
		name, _, ok := strings.Cut(w, "=")
		require.True(t, ok, w)
		require.Regexp(t, regexp.MustCompile(`\$\(`+name+`\)`), makefile)
	}
	if _, err := exec.LookPath("make"); err != nil {
		return
	}
	cmd := exec.Command("make", append([]string{"-n"}, words...)...)
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), `-base "HEAD"`)
	for _, w := range words[1:] {
		_, value, _ := strings.Cut(w, "=")
		require.Contains(t, string(out), value, "%s reaches the command", w)
	}
}
