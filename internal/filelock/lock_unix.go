//go:build unix

package filelock

import (
	"errors"
	"os"
	"syscall"
)

// Exclusive takes the lock of an open file, until it is closed. It does not wait.
func Exclusive(f *os.File) error { return take(f, syscall.LOCK_EX) }

// Shared takes a lock that others may share, until the file is closed. It does not wait.
func Shared(f *os.File) error { return take(f, syscall.LOCK_SH) }

func take(f *os.File, how int) error {
	err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrHeld
	}
	return err
}
