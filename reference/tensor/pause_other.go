//go:build !(amd64 || arm64) || purego

package tensor

import "runtime"

// pause lets others run.
func pause() { runtime.Gosched() }
