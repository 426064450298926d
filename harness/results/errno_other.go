//go:build !unix

package results

import "syscall"

const (
	errNoSpace  = syscall.Errno(112) // ERROR_DISK_FULL
	errReadOnly = syscall.Errno(19)  // ERROR_WRITE_PROTECT
)
