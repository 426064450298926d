package probe

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

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
	m := Machine{CPU: "unknown " + runtime.GOARCH + " processor", OS: runtime.GOOS, Arch: runtime.GOARCH, Cores: runtime.GOMAXPROCS(0)}
	if name := field(system, "proc/cpuinfo", "model name"); name != "" {
		m.CPU = name
	} else if name := text(system, "proc/device-tree/model"); name != "" { // boards with Arm cores
		m.CPU = name
	}
	m.Virtual = slices.Contains(strings.Fields(field(system, "proc/cpuinfo", "flags")), "hypervisor")
	m.Memory = size(strings.TrimSpace(strings.TrimSuffix(field(system, "proc/meminfo", "MemTotal"), "kB")) + "K")
	m.Governor = text(system, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
	indices, _ := fs.Glob(system, "sys/devices/system/cpu/cpu0/cache/index*")
	for _, dir := range indices {
		c := Cache{Bytes: size(text(system, path.Join(dir, "size"))), SharedBy: cpus(text(system, path.Join(dir, "shared_cpu_list")))}
		c.Level, _ = strconv.Atoi(text(system, path.Join(dir, "level")))
		if text(system, path.Join(dir, "type")) != "Instruction" && c.Level > 0 && c.Bytes > 0 {
			m.Caches = append(m.Caches, c)
		}
	}
	slices.SortFunc(m.Caches, func(a, b Cache) int { return a.Level - b.Level })
	m.platform()
	return m
}

// text is the content of a small file, "" if there is none.
func text(system fs.FS, name string) string {
	b, err := fs.ReadFile(system, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(b), "\x00\n"))
}

// field is the first value of a key in a file of "key : value" lines.
func field(system fs.FS, name, key string) string {
	b, err := fs.ReadFile(system, name)
	if err != nil {
		return ""
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		if k, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// size reads 32K, 1024K, 16M; 0 if it is none.
func size(s string) units.Bytes {
	unit := units.Bytes(1)
	switch {
	case strings.HasSuffix(s, "K"):
		unit = units.KiB
	case strings.HasSuffix(s, "M"):
		unit = units.MiB
	case strings.HasSuffix(s, "G"):
		unit = units.GiB
	}
	n, err := strconv.ParseInt(strings.TrimRight(s, "KMG"), 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return 0
	}
	return units.Bytes(n) * unit
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
