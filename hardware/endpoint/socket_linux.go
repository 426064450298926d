//go:build linux && !race

package endpoint

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// socket reads and writes a connection without telling Go's scheduler of each
// system call. The calls never block, so it need not know. Where it does know,
// the first call after a wait wakes the scheduler's watching thread, which then
// wakes itself some times more for nothing. That was 10 to 28 % of the CPU time of
// a lone stream of 16 chunks, by how busy the machine was, and a third of the time
// from a server's write to our stamp. To wait is still the scheduler's part, with
// its deadlines.
//
// The race detector learns from Go's own calls that what a server in the same
// process did before it wrote lies before what a client does after it read, so
// under it a connection is read as on other systems.
type socket struct {
	raw         syscall.RawConn
	read, write func(fd uintptr) bool // kept, or each use would make them
	p           []byte                // to read into or write from
	k           int
	err         error
}

func newSocket(nc net.Conn) (*socket, error) {
	raw, err := nc.(syscall.Conn).SyscallConn()
	s := &socket{raw: raw}
	s.read = func(fd uintptr) bool { return s.call(syscall.SYS_READ, fd) }
	s.write = func(fd uintptr) bool { return s.call(syscall.SYS_WRITE, fd) }
	return s, err
}

// call is false where the socket is not ready.
func (s *socket) call(trap, fd uintptr) bool {
	for {
		k, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(s.p))), uintptr(len(s.p)))
		switch errno {
		case 0:
			s.k, s.err = int(k), nil
			return true
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		}
		s.k, s.err = 0, errno
		return true
	}
}

// Read reads what there is; it waits if there is nothing.
func (s *socket) Read(p []byte) (int, error) {
	s.p = p
	if err := s.raw.Read(s.read); err != nil {
		return 0, err
	}
	if s.k == 0 && s.err == nil {
		return 0, io.EOF
	}
	return s.k, s.err
}

// Write writes all of p.
func (s *socket) Write(p []byte) (n int, err error) {
	for n < len(p) {
		s.p = p[n:]
		if err := s.raw.Write(s.write); err != nil {
			return n, err
		}
		if s.err != nil {
			return n, s.err
		}
		n += s.k
	}
	return n, nil
}

// quiet reports, without waiting, whether there is nothing to read, not even the
// connection's end. It may use p.
func (s *socket) quiet(p []byte) bool {
	s.p = p
	ready := true
	err := s.raw.Read(func(fd uintptr) bool {
		ready = s.read(fd)
		return true
	})
	return err == nil && !ready
}
