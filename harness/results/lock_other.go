//go:build !unix

package results

import (
	"os"
	"syscall"
)

const (
	errNoSpace  = syscall.Errno(112) // ERROR_DISK_FULL
	errReadOnly = syscall.Errno(19)  // ERROR_WRITE_PROTECT
)

// lock is for systems with advisory locks; elsewhere the user must not start
// two writers on one folder.
func lock(*os.File) error { return nil }
