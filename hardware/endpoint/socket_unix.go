//go:build unix && (!linux || race)

package endpoint

import (
	"net"
	"syscall"
)

// socket is a connection that can be looked into.
type socket struct {
	net.Conn
	raw syscall.RawConn
}

func newSocket(nc net.Conn) (*socket, error) {
	raw, err := nc.(syscall.Conn).SyscallConn()
	return &socket{Conn: nc, raw: raw}, err
}

// quiet reports, without waiting, whether there is nothing to read, not even the
// connection's end. It may use p.
func (s *socket) quiet(p []byte) bool {
	quiet := false
	err := s.raw.Read(func(fd uintptr) bool {
		_, err := syscall.Read(int(fd), p)
		quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && quiet
}
