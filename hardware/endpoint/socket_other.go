//go:build !unix

package endpoint

import "net"

// socket is a connection as it is.
type socket struct{ net.Conn }

func newSocket(nc net.Conn) (*socket, error) { return &socket{nc}, nil }

// quiet takes every connection for quiet: there is no way to look here.
func (s *socket) quiet([]byte) bool { return true }
