//go:build unix

package filelock

import (
	"errors"
	"os"
	"syscall"
)

// Exclusive takes the lock of an open file, until it is closed. It does not wait.
func Exclusive(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrHeld
	}
	return err
}
