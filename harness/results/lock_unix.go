//go:build unix

package results

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

const (
	errNoSpace  = syscall.ENOSPC
	errReadOnly = syscall.EROFS
)

// lock keeps a second process from appending to the same journal. The lock is
// the kernel's and ends with the process, however that ends.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("open run %s: another process is writing to it: wait for it, or choose another --out", f.Name())
	}
	return err
}
