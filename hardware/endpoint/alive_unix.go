//go:build unix

package endpoint

import (
	"net"
	"syscall"
	"time"
)

// rawOf is the socket under a connection, or nil.
func rawOf(nc net.Conn) syscall.RawConn {
	if s, ok := nc.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// alive looks, without waiting, whether the server has closed an idle
// connection or sent what nobody asked for. A request on such a connection would
// fail through no fault of the answer's.
func (n *conn) alive() bool {
	if n.raw == nil {
		return true
	}
	n.nc.SetDeadline(time.Time{})
	quiet := false
	err := n.raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, err := syscall.Read(int(fd), one[:])
		quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && quiet
}
