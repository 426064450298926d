// Package filelock keeps two processes from writing to one file. The lock is the
// kernel's: it ends with the process, however that ends.
//
//	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
//	if err := filelock.Exclusive(f); errors.Is(err, filelock.ErrHeld) { … }
//
// It is advisory, and on systems without such locks it does nothing: there the
// user must not start two writers on one file.
package filelock

import "errors"

// ErrHeld says that another process has the lock.
var ErrHeld = errors.New("another process is writing to it")
