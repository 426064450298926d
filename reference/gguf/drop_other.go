//go:build !linux

package gguf

// dropPages does nothing: the standard library has no such call here, and the system drops clean pages by itself.
func dropPages([]byte) {}
