package agent

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
)

const (
	nearIP, farIP = "10.213.17.1", "10.213.17.2"
	roleEnv       = "MEIBENCH_TEST_NETNS"
)

// network makes two network namespaces joined by a pair of interfaces, each of
// which is late by delay; 0 takes no netem. It skips the test where that cannot be
// done.
func network(t *testing.T, delay time.Duration) (near, far string) {
	if os.Geteuid() != 0 {
		t.Skip("not root: network namespaces cannot be made")
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s: %v", tool, err)
		}
	}
	near, far = fmt.Sprintf("mei-a-%d-%d", os.Getpid(), delay), fmt.Sprintf("mei-b-%d-%d", os.Getpid(), delay)
	t.Cleanup(func() {
		for _, ns := range []string{near, far} {
			_ = exec.Command("ip", "netns", "del", ns).Run() // with the interfaces in it; it may not be there
		}
	})
	lines := []string{
		"ip netns add " + near, "ip netns add " + far,
		"ip -n " + near + " link add wire type veth peer name wire netns " + far,
		"ip -n " + near + " addr add " + nearIP + "/24 dev wire", "ip -n " + far + " addr add " + farIP + "/24 dev wire",
		"ip -n " + near + " link set wire up", "ip -n " + far + " link set wire up", "ip -n " + far + " link set lo up",
	}
	if delay > 0 {
		for _, ns := range []string{near, far} {
			lines = append(lines, fmt.Sprintf("tc -n %s qdisc add dev wire root netem delay %s", ns, delay))
		}
	}
	for _, line := range lines {
		f := strings.Fields(line)
		if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
			t.Skipf("this kernel cannot do it: %s: %v: %s", line, err, strings.TrimSpace(string(out)))
		}
	}
	return near, far
}

// TestAgentBetweenNamespaces: between two network namespaces, with TLS, a decode
// step takes its computation and one round trip: with 2 × 20 ms of netem where the
// kernel has it (TestAgentOneRoundTripPerHop makes the same delay itself).
func TestAgentBetweenNamespaces(t *testing.T) {
	const work = 5 * time.Millisecond
	given, _ := time.ParseDuration(os.Getenv("MEIBENCH_TEST_DELAY"))
	switch os.Getenv(roleEnv) {
	case "agent":
		namespaceAgent(t, work)
		return
	case "client":
		namespaceClient(t, given, work)
		return
	}
	for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
		t.Run("delay="+delay.String(), func(t *testing.T) { betweenNamespaces(t, delay) })
	}
}

func betweenNamespaces(t *testing.T, delay time.Duration) {
	near, far := network(t, delay)
	dir := t.TempDir()
	require.NoError(t, WriteCerts(dir, []string{farIP}, time.Now(), time.Hour))
	start := func(ns, role string) *exec.Cmd {
		c := exec.Command("ip", "netns", "exec", ns, os.Args[0], "-test.run=^TestAgentBetweenNamespaces$", "-test.v")
		c.Env = append(os.Environ(), roleEnv+"="+role, "MEIBENCH_TEST_CERTS="+dir, "MEIBENCH_TEST_DELAY="+delay.String())
		return c
	}
	agent := start(far, "agent")
	stdout, err := agent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, agent.Start())
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "ready" {
	}
	out, err := start(near, "client").CombinedOutput()
	require.NoError(t, err, string(out))
	t.Log(string(out))
}

func namespaceAgent(t *testing.T, work time.Duration) {
	m := tiny(t).Spec
	serveOn(t, farIP+":7117", func(env *world.Real) hardware.Device {
		return newFake(env, func(*hardware.Op) { time.Sleep(work) })
	}, ServerConfig{Models: []*hardware.Model{m}, Credentials: serverCert(os.Getenv("MEIBENCH_TEST_CERTS"))})
	fmt.Println("ready")
	time.Sleep(time.Minute) // until it is killed
}

func namespaceClient(t *testing.T, delay, work time.Duration) {
	m := tiny(t).Spec
	cfg := config(farIP+":7117", m)
	cfg.Credentials = InDir(os.Getenv("MEIBENCH_TEST_CERTS"))
	with(t, cfg, func(tt require.TestingT, env *world.Real, d *Device) {
		var sum time.Duration
		const n = 20
		for range n {
			before := env.Now()
			_, err := d.Run(prefill(m, 1, 1))
			require.NoError(tt, err)
			sum += env.Now() - before
		}
		mean := sum / n
		t.Logf("per token %v; computation %v and one round trip %v make %v", mean, work, 2*delay, work+2*delay)
		require.InDelta(tt, float64(work+2*delay), float64(mean), float64(10*time.Millisecond))
	})
}
