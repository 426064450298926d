//go:build !linux

package panel

// mapMemory takes ordinary memory: large pages are the system's own affair here.
func mapMemory(n int) (memory []byte, release func([]byte)) { return make([]byte, n), nil }
