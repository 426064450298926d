package agent

import (
	"net"
	"sync/atomic"

	"meibench/internal/units"
)

// Traffic is what passed between client and agent, counted below gRPC and TLS:
// the bytes of the TCP connection, without the headers of TCP and IP.
type Traffic struct {
	Sent, Received           units.Bytes // on the wire, all of it
	Setup                    units.Bytes // of these, before the first operation: TLS, hello, clock
	PayloadSent, PayloadRecv units.Bytes // what pipelines moved: activations and token ids (4 bytes each), text
	Ops                      int
}

// Framing is what the wire carried beyond payloads and set-up: the heads of
// operations, gRPC, HTTP/2, TLS records, and the pings that watch the clock.
func (t Traffic) Framing() units.Bytes {
	return t.Sent + t.Received - t.Setup - t.PayloadSent - t.PayloadRecv
}

// meter counts the bytes of all connections of a device, or of a server.
type meter struct{ sent, received atomic.Int64 }

// counted is a connection whose bytes are counted.
type counted struct {
	net.Conn
	m *meter
}

// Read counts what arrived.
func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.m.received.Add(int64(n))
	return n, err
}

// Write counts what leaves, before it does: the answer to a message can be here
// before the write of its last bytes returns. What was not written is taken back.
func (c *counted) Write(b []byte) (int, error) {
	c.m.sent.Add(int64(len(b)))
	n, err := c.Conn.Write(b)
	c.m.sent.Add(int64(n - len(b)))
	return n, err
}
