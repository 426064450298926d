package probe

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePages ends the description of a memory measurement.
const hugePages = " in huge pages if the system grants them"

// hugeWords returns memory for n words in huge pages: with small ones the loops
// would measure address translation. free gives it back.
func hugeWords(n int) (words []uint64, free func()) {
	b, err := unix.Mmap(-1, 0, n*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]uint64, n), func() {}
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // a wish
	return unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), n), func() { _ = unix.Munmap(b) }
}

// forget drops a file's cached pages.
func forget(f *os.File) error {
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// platform has nothing to add: everything is in the system's files.
func (m *Machine) platform() {}

// preemptions counts how often this process lost a processor against its will.
func preemptions() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return int64(u.Nivcsw)
}
