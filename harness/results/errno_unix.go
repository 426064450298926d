//go:build unix

package results

import "syscall"

const (
	errNoSpace  = syscall.ENOSPC
	errReadOnly = syscall.EROFS
)
