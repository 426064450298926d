//go:build unix

package endpoint

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// childServer starts the test binary as a server.
func childServer(b testing.TB, writes int) string {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", childEnv, writes))
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	url, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(b, err)
	return strings.TrimSpace(url)
}

// cpu is the CPU time of this process so far, of all threads, user and system.
func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkClient is what a request of 16 chunks costs the client: cpu-sec/req
// is CPU time of this process by getrusage over requests, the server being a
// process of its own. reqs/cpu-sec is how many requests one core of client could
// make; two cores make twice as many where the server costs nothing.
//
//	writes=19: every event in a write of its own, back to back, as a server that
//	           flushes; writes=1: the whole answer in one write
func BenchmarkClient(b *testing.B) {
	for _, writes := range []int{1, 19} {
		url := childServer(b, writes)
		for _, std := range []bool{false, true} {
			for _, conc := range []int{1, 32} {
				tool := map[bool]string{false: "lean", true: "nethttp"}[std]
				b.Run(fmt.Sprintf("client=%s/chunks=16/writes=%d/conc=%d", tool, writes, conc), func(b *testing.B) {
					c := client(b, Config{URL: url, Model: "scripted", API: Chat})
					if std {
						c.lean, c.std = nil, newTransport(c.cfg)
					}
					drive(b, c, conc)
				})
			}
		}
	}
}

// BenchmarkFloor is what the same stream costs a lone reader that only writes
// the same request and reads until the last bytes have come: no HTTP, no JSON, no
// deadline, no stamp. That is the part of a lone client's cost that no code of
// ours can save.
//
//	reader=netconn: Go's net.Conn; reader=socket: what Client reads with;
//	reader=blocking: read(2) on a socket in blocking mode, as in C
func BenchmarkFloor(b *testing.B) {
	for _, writes := range []int{1, 19} {
		url := childServer(b, writes)
		for _, reader := range []string{"netconn", "socket", "blocking"} {
			b.Run(fmt.Sprintf("reader=%s/chunks=16/writes=%d", reader, writes), func(b *testing.B) {
				c := client(b, Config{URL: url, Model: "scripted", API: Chat})
				r := benchRequest()
				q := &query{method: "POST", path: "/chat/completions", stream: true}
				q.body = c.shape.body(nil, &r)
				request := append(c.lean.appendHead(nil, q), q.body...)
				rw := floor(b, c.lean.addr, reader)
				buf := make([]byte, 64<<10)
				repeat(b, 1, func() error { return exchange(rw, request, buf) })
			})
		}
	}
}

// floor connects.
func floor(b *testing.B, addr, reader string) io.ReadWriter {
	nc, err := net.Dial("tcp", addr)
	require.NoError(b, err)
	b.Cleanup(func() { nc.Close() })
	switch reader {
	case "socket":
		s, err := newSocket(nc)
		require.NoError(b, err)
		return s
	case "blocking":
		f, err := nc.(*net.TCPConn).File()
		require.NoError(b, err)
		b.Cleanup(func() { f.Close() })
		return blocking(f.Fd()) // Fd sets the mode
	}
	return nc
}

type blocking int

func (fd blocking) Read(p []byte) (int, error)  { return syscall.Read(int(fd), p) }
func (fd blocking) Write(p []byte) (int, error) { return syscall.Write(int(fd), p) }

// exchange writes a request and reads to the last chunk.
func exchange(rw io.ReadWriter, request, buf []byte) error {
	if _, err := rw.Write(request); err != nil {
		return err
	}
	for w := 0; !bytes.HasSuffix(buf[:w], []byte("\r\n0\r\n\r\n")); {
		k, err := rw.Read(buf[w:])
		if err != nil || k <= 0 {
			return fmt.Errorf("after %d bytes: %d, %w", w, k, err)
		}
		w += k
	}
	return nil
}

func benchRequest() Request {
	return Request{Prompt: strings.Repeat("me south straight , car east straight , dry ; ", 4), Limit: 16, Stream: true}
}

func drive(b *testing.B, c *Client, conc int) {
	r := benchRequest()
	repeat(b, conc, func() error {
		a, err := c.Complete(context.Background(), r)
		if err == nil && (a.Tokens != 16 || len(a.Chunks) != 17) {
			err = fmt.Errorf("%d tokens in %d chunks", a.Tokens, len(a.Chunks))
		}
		return err
	})
}

// repeat asks b.N times and reports the CPU time.
func repeat(b *testing.B, conc int, ask func() error) {
	require.NoError(b, ask())
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	var next atomic.Int64
	var wait sync.WaitGroup
	for range conc {
		wait.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := ask(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	used := cpu() - before
	b.StopTimer()
	b.ReportMetric(used.Seconds()/float64(b.N), "cpu-sec/req")
	b.ReportMetric(float64(b.N)/used.Seconds(), "reqs/cpu-sec")
}

// BenchmarkChunk reads the JSON of one event.
func BenchmarkChunk(b *testing.B) {
	data := []byte(`{"id":"c-1","object":"chat.completion.chunk","created":1700000000,"model":"scripted","choices":[{"index":0,"delta":{"content":" x"},"logprobs":null,"finish_reason":null}]}`)
	for _, slow := range []bool{false, true} {
		b.Run(fmt.Sprintf("reader=%s", map[bool]string{false: "scan", true: "json"}[slow]), func(b *testing.B) {
			t := texts{}
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				t.cut(0, 0)
				if slow {
					_, _ = t.slow(data)
				} else {
					_, _ = t.read(data)
				}
			}
		})
	}
}
