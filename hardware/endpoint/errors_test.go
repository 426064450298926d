package endpoint

import (
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// A record asks an error for two methods: is it a timeout, was it rejected?
func TestI14ErrorsKnowTheirOutcome(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := "http://" + ln.Addr().String()
	require.NoError(t, ln.Close())
	connect := func(cfg Config, std bool) error {
		c := client(t, cfg)
		if std {
			c.lean, c.std = nil, newTransport(c.cfg)
		}
		_, err := c.Complete(t.Context(), Request{Prompt: "p", Stream: true})
		require.ErrorIs(t, err, ErrConnect)
		return err
	}
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"429", &StatusError{Status: 429}, "rejected"},
		{"503", &StatusError{Status: 503}, "rejected"},
		{"500", &StatusError{Status: 500}, ""},
		{"a limit", ErrTimeout, "timeout"},
		{"broken", ErrBroken, ""},
		{"the limit on connecting", connect(Config{URL: nobody, Connect: 1}, false), "timeout"},
		{"the limit on connecting, net/http", connect(Config{URL: nobody, Connect: 1}, true), "timeout"},
		{"nobody listens", connect(Config{URL: nobody}, false), ""},
		{"nobody listens, net/http", connect(Config{URL: nobody}, true), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := errors.Join(tc.err) // as a device gives it
			var rejected interface{ Rejected() bool }
			var timeout interface{ Timeout() bool }
			got := ""
			switch {
			case errors.As(err, &rejected) && rejected.Rejected():
				got = "rejected"
			case errors.As(err, &timeout) && timeout.Timeout():
				got = "timeout"
			}
			require.Equal(t, tc.want, got, tc.err)
		})
	}
}
