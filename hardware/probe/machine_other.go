//go:build !linux && !darwin

package probe

import "os"

// hugePages ends the description of a memory measurement.
const hugePages = ""

// hugeWords returns memory for n words.
func hugeWords(n int) (words []uint64, free func()) { return make([]uint64, n), func() {} }

func forget(*os.File) error { return errCached }

func (m *Machine) platform() {}

// preemptions is not known on this system.
func preemptions() int64 { return 0 }
