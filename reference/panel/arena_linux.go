package panel

import "syscall"

// mapMemory maps zeroed memory and asks for large pages; without them, or when mapping fails, memory works all the same.
func mapMemory(n int) (memory []byte, release func([]byte)) {
	memory, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return make([]byte, n), nil
	}
	_ = syscall.Madvise(memory, syscall.MADV_HUGEPAGE) // refused where large pages are off: only slower
	return memory, func(m []byte) { _ = syscall.Munmap(m) }
}
