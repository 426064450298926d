package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/results"
	"meibench/internal/preflight"
	"meibench/reference/panel"
	"meibench/reference/tensor"
)

// asProgram makes the test binary be meibench: the kernel is chosen once in a process, so a test of that needs its own.
const asProgram = "MEIBENCH_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// forced runs a command line with MEIBENCH_CPU set.
func forced(t *testing.T, kernel string, args ...string) (code int, out, errOut string) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	var o, e bytes.Buffer
	c := exec.Command(self, args...)
	c.Env = append(os.Environ(), asProgram+"=1", "MEIBENCH_CPU="+kernel)
	c.Stdout, c.Stderr = &o, &e
	var exit *exec.ExitError
	if err := c.Run(); !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return c.ProcessState.ExitCode(), o.String(), e.String()
}

func TestForcedKernelIsRecorded(t *testing.T) {
	have := tensor.Kernels()
	best := have[len(have)-1]
	for _, tc := range []struct{ name, ask, runs, warning string }{
		{"forced", "generic", "generic", ""},
		{"cannot be had", "abacus", best, `MEIBENCH_CPU="abacus": this build and CPU have only`},
		{"not asked for", "", best, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			code, _, errOut := forced(t, tc.ask, "run", "placement", "--mode", "modelled", "--repeat", "1", "--set", "requests=5", "--no-report", "--quiet", "--out", dir)
			require.Zero(t, code, errOut)
			text, err := os.ReadFile(filepath.Join(dir, results.ManifestFile))
			require.NoError(t, err)
			var m results.Manifest
			require.NoError(t, json.Unmarshal(text, &m))
			require.Equal(t, tc.runs, m.Host["kernels"])
			require.Equal(t, panel.IntegerKernel(tc.runs), m.Host["integer_kernels"])
			if tc.warning == "" {
				require.NotContains(t, errOut, "MEIBENCH_CPU")
			} else {
				require.Contains(t, errOut, "warning: choose kernel "+tc.warning)
			}
		})
	}
}

func TestDoctorSaysWhichKernel(t *testing.T) {
	code, out, _ := forced(t, "abacus", "doctor", "--json")
	require.Contains(t, []int{0, exitEnvironment}, code, "this machine may be unfit for another reason")
	var lines []map[string]string
	require.NoError(t, json.Unmarshal([]byte(out), &lines))
	last := lines[len(lines)-1]
	require.Equal(t, "kernels", last["name"])
	require.Equal(t, "warn", last["status"])
	require.Contains(t, last["fix"], "abacus")

	have := []string{"generic", "avx2", "vnni"}
	for _, tc := range []struct {
		name string
		have []string
		err  error
		want preflight.Status
		fix  string
	}{
		{"vnni", have, nil, preflight.OK, ""},
		{"avx2", have, nil, preflight.Warn, "slower"},
		{"vnni", have, errors.New("no such kernel"), preflight.Warn, "no such kernel"},
		{"generic", have[:1], nil, preflight.Warn, "plain Go"},
	} {
		l := kernelLine(tc.name, tc.have, tc.err)
		require.Equal(t, tc.want, l.Status)
		require.Contains(t, l.Fix, tc.fix)
		require.Contains(t, l.Found, tc.name)
	}
}
