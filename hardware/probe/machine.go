package probe

import (
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"meibench/internal/host"
	"meibench/internal/units"
)

// Machine says what the machine is.
type Machine struct {
	CPU      string      `json:"cpu"` // the maker's name for it
	OS       string      `json:"os"`
	Arch     string      `json:"arch"`
	Cores    int         `json:"cores"`        // that this process may use
	Memory   units.Bytes `json:"memory_bytes"` // 0 = unknown
	Caches   []Cache     `json:"caches"`       // data caches of one core, from level 1
	Governor string      `json:"governor"`     // frequency governor, "" if unknown
	Virtual  bool        `json:"virtual"`      // the system says it is a guest
}

// Cache is a data cache as one core sees it.
type Cache struct {
	Level    int         `json:"level"`
	Bytes    units.Bytes `json:"bytes"`
	SharedBy int         `json:"shared_by"` // cores of this machine that share it
}

// Name is L1, L2, ...
func (c Cache) Name() string { return fmt.Sprintf("L%d", c.Level) }

// ReadMachine reads what the machine is from the system's files (the root
// folder of a Linux system) and, on other systems, from system calls.
func ReadMachine(system fs.FS) Machine {
	f := host.Read(system, nil)
	m := Machine{CPU: f.Processor(), OS: f.GOOS, Arch: f.GOARCH, Cores: runtime.GOMAXPROCS(0),
		Memory: f.Memory, Governor: f.Governor, Virtual: f.Virtual}
	if m.CPU == "" {
		m.CPU = "unknown " + f.GOARCH + " processor"
	}
	for _, c := range f.Caches {
		if c.Kind != "Instruction" && c.Level > 0 && c.Size > 0 {
			m.Caches = append(m.Caches, Cache{Level: c.Level, Bytes: c.Size, SharedBy: cpus(c.Shared)})
		}
	}
	slices.SortFunc(m.Caches, func(a, b Cache) int { return a.Level - b.Level })
	m.platform()
	return m
}

// cpus counts a list such as 0-3,8.
func cpus(list string) (n int) {
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, span := strings.Cut(part, "-")
		a, err := strconv.Atoi(lo)
		if err != nil {
			continue
		}
		b := a
		if span {
			if b, err = strconv.Atoi(hi); err != nil {
				continue
			}
		}
		n += max(b-a+1, 0)
	}
	return n
}
