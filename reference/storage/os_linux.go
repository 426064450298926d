//go:build amd64 || arm64

package storage

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const canDrop = true

// dontNeed is POSIX_FADV_DONTNEED.
const dontNeed = 4

func openDirect(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECT, 0)
}

// drop gives cached pages of a file back; 0 bytes stand for all up to the end.
func drop(f *os.File, off, n int64) error {
	if _, _, e := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), uintptr(off), uintptr(n), dontNeed, 0, 0); e != 0 {
		return e
	}
	return nil
}

// Evict drops a file from the page cache, as far as nobody has it mapped or writes to it. [Resident] says what is left.
func Evict(path string) error {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		_ = f.Sync() // pages that are not on disk yet would stay; a file that cannot be synced has none of ours
		err = drop(f, 0, 0)
	}
	if err != nil {
		return fmt.Errorf("drop %s from the page cache: %w", path, err)
	}
	return nil
}

// Resident is how many bytes of a file, in whole pages, the page cache holds (mincore), of how many. A file that this user
// may not write to counts as held entirely: the system tells others nothing.
func Resident(path string) (held, of int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Unknown, 0, fmt.Errorf("look for %s in the page cache: %w", path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, 0, err
	}
	m, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return Unknown, info.Size(), fmt.Errorf("look for %s in the page cache: map: %w", path, err)
	}
	defer syscall.Munmap(m)
	page := int64(os.Getpagesize())
	pages := make([]byte, (info.Size()+page-1)/page)
	if _, _, e := syscall.Syscall(syscall.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(len(m)), uintptr(unsafe.Pointer(unsafe.SliceData(pages)))); e != 0 {
		return Unknown, info.Size(), fmt.Errorf("look for %s in the page cache: mincore: %w", path, e)
	}
	for _, p := range pages {
		held += int64(p&1) * page
	}
	return held, int64(len(pages)) * page, nil
}

// Used reads what the system says of this process so far.
func Used() Usage {
	u := Usage{Unknown, Unknown, Unknown, Unknown, Unknown}
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) == nil {
		u.Minor, u.Major = r.Minflt, r.Majflt
	}
	u.ReadBytes = procField("/proc/self/io", "read_bytes:", 1)
	u.Resident = procField("/proc/self/status", "VmRSS:", 1024)
	u.Peak = procField("/proc/self/status", "VmHWM:", 1024)
	return u
}

// ResetPeak starts Usage.Peak anew and says whether the system did.
func ResetPeak() bool { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) == nil }

func procField(path, name string, unit int64) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return Unknown
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if words := strings.Fields(rest); len(words) > 0 {
				if n, err := strconv.ParseInt(words[0], 10, 64); err == nil {
					return n * unit
				}
			}
		}
	}
	return Unknown
}
