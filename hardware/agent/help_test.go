package agent

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/kernel"
	"meibench/hardware/world"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/llm"
)

// tiny is a random model of four layers, known by a digest.
func tiny(t testing.TB) kernel.Loaded {
	const dim = 32
	c := llm.Config{Arch: llm.Llama, Layers: 4, Dim: dim, Heads: 4, KVHeads: 2, FFN: 3 * dim, Vocab: 97, Context: 128}
	w, err := llm.New(c, 5)
	require.NoError(t, err)
	params, err := w.Params()
	require.NoError(t, err)
	for _, p := range params {
		for i := range p.Data {
			if p.N > 1 { // fresh weights are so small that the model repeats its last word
				p.Data[i] *= 10
			}
		}
	}
	return kernel.Loaded{Spec: &hardware.Model{Name: "tiny", Layers: 4, Dim: dim, Heads: 4, KVHeads: 2, HeadDim: dim / 4, FFN: 3 * dim, Vocab: 97,
		BytesPerWeight: 4, KVBytes: 4, Digest: strings.Repeat("5a", 32)}, Weights: w, End: -1}
}

// words is the start of one fixed random text.
func words(n int) []int32 {
	r := rng.Stream(9, "words")
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(97))
	}
	return ids
}

// fake is a device whose every operation is what a test wants it to be.
type fake struct {
	env   *world.Real
	slots *world.Slots
	do    func(op *hardware.Op) // off the turn
	mu    sync.Mutex
	kept  map[int64]bool // sequences on the device
	ran   []hardware.Kind
}

func newFake(env *world.Real, do func(*hardware.Op)) *fake {
	return &fake{env: env, slots: world.NewSlots(env, 2), do: do, kept: map[int64]bool{}}
}

func (f *fake) Spec() hardware.DeviceSpec {
	return hardware.DeviceSpec{Name: "fake", Slots: 2, Ops: hardware.Set(hardware.Prefill, hardware.Decode, hardware.Drop), Time: hardware.Measured}
}

func (f *fake) Run(op *hardware.Op) (hardware.Result, error) {
	f.slots.Acquire()
	defer f.slots.Release()
	f.note(op)
	res := hardware.Result{Usage: hardware.Usage{Start: f.env.Now(), Time: hardware.Measured}}
	if f.do != nil && op.Kind != hardware.Drop {
		f.env.Outside(func() { f.do(op) })
	}
	res.Usage.End = f.env.Now()
	for i := range op.Seqs {
		res.Seqs = append(res.Seqs, hardware.Out{Token: 7, Hidden: op.Seqs[i].In})
	}
	return res, nil
}

func (f *fake) note(op *hardware.Op) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ran = append(f.ran, op.Kind)
	for _, s := range op.Seqs {
		if op.Kind == hardware.Drop {
			delete(f.kept, s.ID)
		} else {
			f.kept[s.ID] = true
		}
	}
}

func (f *fake) holds() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.kept)
}

func (f *fake) count(k hardware.Kind) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.ran {
		if r == k {
			n++
		}
	}
	return n
}

// host runs an agent in this process until the test ends or stop is called.
type host struct {
	addr string
	env  *world.Real
	srv  *Server
	stop func()
}

// serve starts an agent whose device is made in its world.
func serve(t testing.TB, device func(env *world.Real) hardware.Device, cfg ServerConfig, edit ...func(*Server)) *host {
	return serveOn(t, "127.0.0.1:0", device, cfg, edit...)
}

func serveOn(t testing.TB, addr string, device func(env *world.Real) hardware.Device, cfg ServerConfig, edit ...func(*Server)) *host {
	ctx, cancel := context.WithCancel(context.Background())
	env := world.NewReal(ctx)
	if cfg.Credentials == (Credentials{}) {
		cfg.Credentials.Insecure = true
	}
	cfg.Version = "test"
	s, err := NewServer(env, device(env), cfg)
	require.NoError(t, err)
	for _, e := range edit {
		e(s)
	}
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	require.NoError(t, s.Serve(l))
	ended := background(env)
	h := &host{addr: l.Addr().String(), env: env, srv: s}
	var once sync.Once
	h.stop = func() { once.Do(func() { cancel(); <-ended }) }
	t.Cleanup(h.stop)
	return h
}

// background runs a world beside the test.
func background(env *world.Real) chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = env.Run() // ends with the cancellation
	}()
	return ended
}

// kernels makes the device of an agent that computes.
func kernels(t testing.TB, m kernel.Loaded, memory units.Bytes) func(env *world.Real) hardware.Device {
	return func(env *world.Real) hardware.Device {
		d, err := kernel.New(env, kernel.Config{Name: "host", Models: []kernel.Loaded{m}, Slots: 2, Memory: memory})
		require.NoError(t, err)
		t.Cleanup(d.Close)
		return d
	}
}

// config is a client's of an agent on this machine.
func config(addr string, m *hardware.Model) Config {
	return Config{Name: "edge", Address: addr, Models: []*hardware.Model{m}, Credentials: Credentials{Insecure: true}, Version: "test"}
}

// with runs a body as a process of a world with a client in it.
func with(t testing.TB, cfg Config, body func(t require.TestingT, env *world.Real, d *Device)) {
	t.Helper()
	env := world.NewReal(t.Context())
	d, err := Dial(env, cfg)
	require.NoError(t, err)
	within(t, env, func(t require.TestingT) { body(t, env, d) })
}

// inside is a test as a process sees it: FailNow would end a goroutine that has
// the turn, so it panics instead.
type inside struct{ testing.TB }

type failedTest struct{}

// FailNow ends the process.
func (inside) FailNow() { panic(failedTest{}) }

// within runs a process that may use require, and its world to the end.
func within(t testing.TB, env *world.Real, body func(t require.TestingT)) {
	t.Helper()
	defer func() {
		v := recover()
		if crash, ok := v.(*world.Crash); ok && crash.Value == (failedTest{}) {
			t.FailNow()
		}
		if v != nil {
			panic(v)
		}
	}()
	env.Go("test", func() { body(inside{t}) })
	require.NoError(t, env.Run())
}

// prefill is an operation on one sequence.
func prefill(m *hardware.Model, id int64, n int) *hardware.Op {
	return &hardware.Op{Kind: hardware.Prefill, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{ID: id, New: n, Tokens: words(n)}}}
}

// decode turns an operation into the decode step after it.
func decode(op *hardware.Op, token int32) {
	op.Kind = hardware.Decode
	s := &op.Seqs[0]
	s.Context, s.New, s.Tokens = s.Context+s.New, 1, []int32{token}
}

// child runs an agent in a process of its own and returns its address.
func child(t *testing.T) (addr string, cmd *exec.Cmd) {
	cmd = exec.Command(os.Args[0], "-test.run=^TestAgentProcess$")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line), cmd
}

const childEnv = "MEIBENCH_TEST_AGENT"

// TestAgentProcess is no test: it is the agent that child starts.
func TestAgentProcess(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		t.Skip("only as a child of another test")
	}
	m := tiny(t)
	h := serve(t, kernels(t, m, 0), ServerConfig{Models: []*hardware.Model{m.Spec}})
	_, _ = os.Stdout.WriteString(h.addr + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
}

// proxy forwards a TCP connection with a delay each way, and can stall or cut it.
type proxy struct {
	addr    string
	mu      sync.Mutex
	conns   []net.Conn
	stalled chan struct{} // closed: nothing passes any more
}

// newProxy listens and forwards to an address; each byte is late by up or down.
func newProxy(t testing.TB, to string, up, down time.Duration) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{addr: l.Addr().String(), stalled: make(chan struct{})}
	t.Cleanup(func() { _ = l.Close(); p.cut() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			go p.pump(in, out, up)
			go p.pump(out, in, down)
		}
	}()
	return p
}

type late struct {
	at   time.Time
	data []byte
}

// pump reads, waits until the bytes are due, and writes.
func (p *proxy) pump(from, to net.Conn, delay time.Duration) {
	line := make(chan late, 4096)
	go func() {
		defer close(line)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if n > 0 {
				line <- late{time.Now().Add(delay), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for l := range line {
		time.Sleep(time.Until(l.at))
		select {
		case <-p.stalled:
			continue // swallowed
		default:
		}
		if _, err := to.Write(l.data); err != nil {
			break
		}
	}
	_ = to.Close()
}

func (p *proxy) stall() { close(p.stalled) }

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}
