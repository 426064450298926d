//go:build (amd64 || arm64) && !purego

package tensor

// pause tells the processor that a loop is waiting: it saves power and leaves the memory bus to others.
func pause()
