package endpoint

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// large is a prompt that no socket's buffers hold.
var large = strings.Repeat("me south straight , ", 1<<20)

// A request that the server is slow to read is written in several pieces, in
// order and to the end.
func TestALargePromptArrivesWhole(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(30 * time.Millisecond) // both buffers are full by now
		var body struct{ Prompt string }
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(data, &body)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"text\":\"%x %v\"}],\"usage\":{\"completion_tokens\":1}}\n\ndata: [DONE]\n\n",
			sha256.Sum256([]byte(body.Prompt)), err)
	}))
	t.Cleanup(s.Close)
	a, err := client(t, Config{URL: s.URL, Total: 10 * time.Second}).Complete(t.Context(), Request{Prompt: large, Stream: true})
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%x <nil>", sha256.Sum256([]byte(large))), a.Text)
	require.Greater(t, int(a.Sent), len(large))
}

// deaf accepts connections and never reads.
func deaf(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var open []net.Conn // a connection that nobody holds is closed when it is collected
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			open = append(open, c)
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
		for _, c := range open {
			c.Close()
		}
	})
	return "http://" + ln.Addr().String()
}

// What ends a wait for bytes ends a wait to write them.
func TestAServerThatDoesNotRead(t *testing.T) {
	url := deaf(t)
	_, err := client(t, Config{URL: url, FirstByte: 50 * time.Millisecond}).Complete(t.Context(), Request{Prompt: large, Stream: true})
	require.ErrorIs(t, err, ErrTimeout)
	require.ErrorContains(t, err, "nothing came for 50ms")

	why := errors.New("the run is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	_, err = client(t, Config{URL: url}).Complete(ctx, Request{Prompt: large, Stream: true})
	require.ErrorIs(t, err, why)
}

// pair is a socket and the other end of its connection.
func pair(t *testing.T) (*socket, *net.TCPConn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	peer, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close(); peer.Close() })
	s, err := newSocket(nc)
	require.NoError(t, err)
	return s, peer.(*net.TCPConn)
}

func TestSocketReadsLikeAConnection(t *testing.T) {
	buf := make([]byte, 4)
	s, peer := pair(t)
	require.True(t, s.quiet(buf))
	time.AfterFunc(20*time.Millisecond, func() { _, _ = peer.Write([]byte("abcdef")) })
	k, err := s.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "abcd", string(buf[:k]), "after a wait")
	k, err = s.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "ef", string(buf[:k]))
	require.NoError(t, peer.Close())
	_, err = s.Read(buf)
	require.ErrorIs(t, err, io.EOF)

	s, peer = pair(t)
	require.NoError(t, peer.SetLinger(0))
	require.NoError(t, peer.Close())
	_, err = s.Read(buf)
	require.Error(t, err, "reset")
	require.NotErrorIs(t, err, io.EOF)
}

func TestSocketThatIsNotQuiet(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(*net.TCPConn) error
	}{
		{"closed", (*net.TCPConn).Close},
		{"a byte that nobody asked for", func(c *net.TCPConn) error { _, err := c.Write([]byte("x")); return err }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, peer := pair(t)
			require.NoError(t, tc.do(peer))
			require.Eventually(t, func() bool { return !s.quiet(make([]byte, 1)) }, time.Second, time.Millisecond)
		})
	}
}
