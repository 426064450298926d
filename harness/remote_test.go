package harness

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/agent"
	"meibench/hardware/kernel"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/suites"
	"meibench/workloads"
)

const agentEnv = "MEIBENCH_TEST_AGENT"

// TestAgentProcess is no test: it is the agent that startAgent starts.
func TestAgentProcess(t *testing.T) {
	if os.Getenv(agentEnv) == "" {
		t.Skip("only as a child of another test")
	}
	m, err := (&Lab{}).Model("mei-nano")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	env := world.NewReal(ctx)
	d, err := kernel.New(env, kernel.Config{Name: "agent", Models: []kernel.Loaded{m.Loaded()}})
	require.NoError(t, err)
	s, err := agent.NewServer(env, d, agent.ServerConfig{Models: []*hardware.Model{m.Spec}, Credentials: agent.Credentials{Insecure: true}})
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, s.Serve(l))
	_, _ = os.Stdout.WriteString(l.Addr().String() + "\n")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
		cancel()
	}()
	require.ErrorIs(t, env.Run(), context.Canceled)
}

// startAgent runs an agent in a process of its own; kill ends it with SIGKILL.
func startAgent(t *testing.T) (lab *Lab, kill func()) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestAgentProcess$")
	cmd.Env = append(os.Environ(), agentEnv+"=1")
	_, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	kill = func() { _ = cmd.Process.Kill() }
	t.Cleanup(func() { kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	a := profiles.Agent{Address: strings.TrimSpace(line), Insecure: true}
	return &Lab{Host: hostSheet(t), Agents: map[string]profiles.Agent{"edge": a}, Version: "test"}, kill
}

const agentSuite = `
name: away
question: does an agent answer as the machine at home does?
defaults: {site: this-machine, model: mei-nano, mode: measured, scale: task, requests: 8, rate: 40}
matrix:
  app: [robotics]
  pipeline: [local, offload, split]
`

// said runs the cells of a suite and returns what each request was answered.
func said(t *testing.T, lab *Lab, text string) map[string][][]int32 {
	out := map[string][][]int32{}
	for _, c := range parse(t, text).Cells {
		set, err := lab.resolve(c, false)
		require.NoError(t, err)
		a := &arm{cell: c, setup: set, seed: 7}
		cell := a.header()
		all := make([][]int32, c.Requests)
		tr := &trial{lab: lab, arm: a, cell: &cell, progress: silent{}, sink: func(req *workloads.Request, log *record.Request) {
			require.Equal(t, record.OK, log.Outcome, log.Err)
			all[req.ID] = slices.Clone(log.Output)
		}}
		require.NoError(t, tr.run(t.Context(), c.Requests))
		out[c.Pipeline] = all
	}
	return out
}

// TestI14SplitOverAgentSaysTheSame: split and offloaded over an agent in another
// process, answers are token for token those of the device alone.
func TestI14SplitOverAgentSaysTheSame(t *testing.T) {
	lab, _ := startAgent(t)
	away, home := said(t, lab, agentSuite), said(t, &Lab{Host: lab.Host}, agentSuite)
	require.NotEmpty(t, home["local"][0])
	for _, pipe := range []string{"local", "offload", "split"} {
		require.Equal(t, home["local"], away[pipe], pipe)
		require.Equal(t, home["local"], home[pipe], pipe)
	}
}

// TestAgentRunIsRecorded: run.json has who computed and how its clock stands, and
// the way to it shows as transfer, not as compute.
func TestAgentRunIsRecorded(t *testing.T) {
	lab, _ := startAgent(t)
	dir := t.TempDir()
	require.NoError(t, Run(t.Context(), lab, options(t, dir, parse(t, agentSuite))))
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	require.Len(t, set.Manifest.Agents, 1)
	a := set.Manifest.Agents[0]
	m, err := lab.Model("mei-nano")
	require.NoError(t, err)
	require.Equal(t, lab.Agents["edge"].Address, a.Address)
	require.Equal(t, m.Digest, a.Models["mei-nano"])
	require.Positive(t, a.Uncertainty)
	require.Greater(t, a.Samples, 3*10, "three cells")
	require.Greater(t, a.Operations, 16)
	require.Zero(t, a.Failures)
	require.Equal(t, a.Sent+a.Received, a.Payload+a.Setup+a.Framing)
	ways := map[string]int{}
	for i, run := range set.Runs() {
		if run.Cell.Pipeline == "local" {
			continue
		}
		for r, err := range set.Full(i) {
			require.NoError(t, err)
			require.NoError(t, r.Check())
			for _, s := range r.Spans {
				if s.Kind == record.Transfer {
					ways[run.Cell.Pipeline+" "+s.Node]++
				}
			}
		}
	}
	for _, way := range []string{"offload up", "offload down", "split up", "split down"} {
		require.GreaterOrEqual(t, ways[way], 6, "%s: eight requests, of which some stamps may lie too close", way)
	}
}

// killer kills the agent in the middle of a run.
type killer struct {
	silent
	n, after int
	kill     func()
}

func (k *killer) Request(int) {
	if k.n++; k.n == k.after {
		k.kill()
	}
}

// TestAgentKilledInMidRun: kill -9 of the agent makes failed rows that say why,
// the cells after it run too, and nothing hangs.
func TestAgentKilledInMidRun(t *testing.T) {
	lab, kill := startAgent(t)
	dir := t.TempDir()
	o := options(t, dir, parse(t, strings.Replace(agentSuite, "[local, offload, split]", "[offload, split]", 1)))
	o.Progress = &killer{after: 3, kill: kill}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, Run(ctx, lab, o))
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	require.True(t, set.Manifest.Complete)
	ok, failed := 0, 0
	for i := range set.Runs() {
		for r, err := range set.Rows(i) {
			require.NoError(t, err)
			if r.Outcome == record.OK {
				ok++
				continue
			}
			failed++
			require.Contains(t, r.Err, hardware.ErrDown.Error())
			require.Contains(t, r.Err, lab.Agents["edge"].Address)
		}
	}
	require.Equal(t, 16, ok+failed)
	require.GreaterOrEqual(t, ok, 3)
	require.GreaterOrEqual(t, failed, 8, "at least the whole second cell")
	require.Positive(t, set.Manifest.Agents[0].Failures)
}

const agentSite = `
name: two-machines
summary: the edge is another machine
apps: [robotics]
nodes:
  - {name: device, role: device, device: host, per_user: true}
  - {name: edge, role: edge, AGENT}
links:
  - {from: device, to: edge, link: LINK}
`

func TestAgentSites(t *testing.T) {
	const insecure = "agent: {address: '127.0.0.1:1', insecure: true}"
	for _, tc := range []struct{ name, agent, link, mode, want string }{
		{"measured", insecure, "real", "measured", ""},
		{"a shaped link on top", insecure, "wifi6-home", "measured", ""},
		{"modelled without a profile", insecure, "real", "modelled", "mode measured only, not modelled"},
		{"modelled with a profile", insecure + ", device: nvidia-l4", "wifi6-home", "modelled", ""},
		{"modelled with a real link", insecure + ", device: nvidia-l4", "real", "modelled", "is the real network: mode measured only"},
		{"no port", "agent: {address: nowhere, insecure: true}", "real", "measured", "want HOST:PORT"},
		{"no certificates", "agent: {address: '127.0.0.1:1'}", "real", "measured", "want cert, key and ca"},
		{"half of the certificates", "agent: {address: '127.0.0.1:1', cert: a.pem}", "real", "measured", "want cert, key and ca"},
		{"a real link to nobody", "device: host", "real", "measured", "real is the way to a node with an agent"},
		{"certificates that are not there", "agent: {address: '127.0.0.1:1', cert: a.pem, key: a.key, ca: ca.pem}", "real", "measured", "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lab := &Lab{Host: hostSheet(t)}
			dir := t.TempDir()
			site := filepath.Join(dir, "site.yaml")
			text := strings.NewReplacer("AGENT", tc.agent, "LINK", tc.link).Replace(agentSite)
			require.NoError(t, os.WriteFile(site, []byte(text), 0o644))
			s := parse(t, agentSuite, suites.Set{Key: "site", Values: []any{site}}, suites.Set{Key: "mode", Values: []any{tc.mode}},
				suites.Set{Key: "pipeline", Values: []any{"offload"}})
			err := lab.Check(s)
			if err == nil && tc.want == "no such file" {
				err = Run(t.Context(), lab, options(t, filepath.Join(dir, "run"), s))
				require.ErrorContains(t, err, filepath.Join(dir, "a.pem"), "paths are beside the site's file")
			}
			if tc.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.want)
			}
		})
	}
	lab := &Lab{Host: hostSheet(t), Agents: map[string]profiles.Agent{"cloud": {Address: "127.0.0.1:1", Insecure: true}}}
	require.ErrorContains(t, lab.Check(parse(t, agentSuite)), "none of them for agents cloud")
}
