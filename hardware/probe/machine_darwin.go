package probe

import (
	"os"

	"golang.org/x/sys/unix"

	"meibench/internal/units"
)

// hugePages ends the description of a memory measurement.
const hugePages = ""

// hugeWords returns memory for n words.
func hugeWords(n int) (words []uint64, free func()) { return make([]uint64, n), func() {} }

func forget(*os.File) error { return errCached }

// platform fills in what this system answers by sysctl instead of by files.
func (m *Machine) platform() {
	if name, err := unix.Sysctl("machdep.cpu.brand_string"); err == nil {
		m.CPU = name
	}
	if n, err := unix.SysctlUint64("hw.memsize"); err == nil {
		m.Memory = units.Bytes(n)
	}
	for _, c := range []struct {
		level int
		key   string
	}{{1, "hw.perflevel0.l1dcachesize"}, {2, "hw.perflevel0.l2cachesize"}} {
		if n, err := unix.SysctlUint64(c.key); err == nil && n > 0 {
			m.Caches = append(m.Caches, Cache{Level: c.level, Bytes: units.Bytes(n), SharedBy: c.level})
		}
	}
}

// preemptions counts how often this process lost a processor against its will.
func preemptions() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return int64(u.Nivcsw)
}
