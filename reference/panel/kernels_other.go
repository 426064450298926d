//go:build !(amd64 || arm64) || purego

package panel

// vectorKernels has none to offer: products run in plain Go.
func vectorKernels(string) *kernels { return nil }
