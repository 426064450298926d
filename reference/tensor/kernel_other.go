//go:build !(amd64 || arm64) || purego

package tensor

// kernels lists the kernels that can run here, slowest first.
func kernels() []kernel { return []kernel{generic()} }
