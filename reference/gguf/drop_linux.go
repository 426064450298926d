package gguf

import "syscall"

// dropPages gives pages of a read-only file mapping back; the data stays in the system's cache and in the file.
func dropPages(b []byte) {
	if len(b) > 0 {
		_ = syscall.Madvise(b, syscall.MADV_DONTNEED) // a hint: nothing depends on it
	}
}
