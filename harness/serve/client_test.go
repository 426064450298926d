package serve

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// officialClient is the version of the npm package openai that the test uses.
const officialClient = "7.57.0"

// The official client reads what is served as it reads its own service. The test
// needs node, npm and a registry, so it runs only when MEIBENCH_NPM=1 asks for it
// (make clients).
func TestI14OfficialClient(t *testing.T) {
	if os.Getenv("MEIBENCH_NPM") == "" {
		t.Skip("fetches the npm package openai: set MEIBENCH_NPM=1, or run make clients")
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: %v", tool, err)
		}
	}
	dir := t.TempDir()
	fetch := exec.Command("npm", "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "openai@"+officialClient)
	if out, err := fetch.CombinedOutput(); err != nil {
		t.Skipf("npm cannot fetch openai@%s: %v: %s", officialClient, err, out)
	}
	script, err := os.ReadFile("testdata/client.mjs")
	require.NoError(t, err)
	path := filepath.Join(dir, "client.mjs")
	require.NoError(t, os.WriteFile(path, script, 0o644))

	m := nano(t)
	_, url := start(t, Config{Models: []Model{{Name: "nano", Loaded: m}}, Key: "k"})
	p := prompts(1)[0]
	run := exec.Command("node", path, url+"/v1", "nano", p)
	run.Stderr = os.Stderr
	out, err := run.Output()
	require.NoError(t, err)
	var seen struct {
		Models                                      []string
		Whole, Finish, Streamed, Runner, Completion string
		NoModel, TooLong, NoKey                     string
		Roles                                       int
		Usage, StreamUsage                          usage
	}
	require.NoError(t, json.Unmarshal(out, &seen), string(out))
	ids := alone(t, m, nil, p, 24)
	want, n := spelled(m.Tokenizer, ids), usage{len(m.Tokenizer.EncodePrompt(p)), len(ids), len(m.Tokenizer.EncodePrompt(p)) + len(ids)}
	require.Equal(t, []string{"nano"}, seen.Models)
	require.Equal(t, []string{want, want, want, want}, []string{seen.Whole, seen.Streamed, seen.Runner, seen.Completion})
	require.Equal(t, []usage{n, n}, []usage{seen.Usage, seen.StreamUsage})
	require.Equal(t, "stop", seen.Finish)
	require.Equal(t, 1, seen.Roles)
	require.Equal(t, "NotFoundError 404 model_not_found model", seen.NoModel)
	require.Equal(t, "BadRequestError 400 context_length_exceeded messages", seen.TooLong)
	require.Equal(t, "AuthenticationError 401 invalid_api_key null", seen.NoKey)
	require.Eventually(t, func() bool { // the one that hung up has left
		r, err := http.Get(url + "/health")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		var h struct{ Active, Queued int }
		return json.NewDecoder(r.Body).Decode(&h) == nil && h.Active+h.Queued == 0
	}, 5*time.Second, 10*time.Millisecond)
}
