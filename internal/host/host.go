// Package host says what machine and what build a run was made with.
//
// The one idea: everything is parsed from a file tree (os.DirFS("/") in life, a
// fake one in tests), so that a Raspberry Pi, a laptop and a rented server are
// all testable anywhere. What a system does not tell is left empty; nothing is
// guessed, and nothing that names a person or a host is read.
//
//	f := host.Here()
//	manifest.CPU, manifest.Kernel, manifest.Governor = f.CPU, f.Kernel, f.Governor
//	manifest.Host = f.More()
//
// It reads Linux' /proc and /sys. On other systems only the build is known.
package host

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"meibench/internal/units"
)

// Facts describe a machine and the program that runs on it.
type Facts struct {
	Commit    string // with "+dirty" where the source was changed, "" where unknown
	GoVersion string
	GOOS      string
	GOARCH    string
	GOAMD64   string // "" but on amd64; v3 lets the compiler fuse x*y+z

	Machine  string // what the maker calls it
	Virtual  bool   // a hypervisor runs below
	CPU      string // model; on Arm the implementer and part codes
	Cores    int    // physical; 0 = unknown
	Threads  int    // that this process may use
	Caches   []Cache
	Memory   units.Bytes
	Kernel   string // release
	Governor string // of the CPU frequency, joined by "," where cores differ
}

// Cache is one cache that the first core uses.
type Cache struct {
	Level  int
	Kind   string // Data, Instruction or Unified
	Size   units.Bytes
	Shared string // the list of threads that share it, as in "0-3"
}

// Here reads this machine and this program.
func Here() Facts {
	build, _ := debug.ReadBuildInfo()
	f := Read(os.DirFS("/"), build)
	if exe, err := os.Executable(); err == nil && f.Commit == "" && fromGoRun(exe) {
		f.Commit = workTree(git)
	}
	return f
}

// Read parses a file tree with /proc and /sys; build may be nil.
func Read(root fs.FS, build *debug.BuildInfo) Facts {
	t := tree{root}
	cpu := t.text("proc/cpuinfo")
	f := Facts{
		GoVersion: runtime.Version(), GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, Threads: runtime.NumCPU(),
		Machine: t.machine(), CPU: cpuModel(cpu), Cores: t.cores(), Caches: t.caches(),
		Virtual: slices.Contains(strings.Fields(field(cpu, "flags")), "hypervisor"),
		Kernel:  t.text("proc/sys/kernel/osrelease"), Governor: t.governor(),
		Memory: bytesOf(field(t.text("proc/meminfo"), "MemTotal")),
	}
	if build != nil {
		set := map[string]string{}
		for _, s := range build.Settings {
			set[s.Key] = s.Value
		}
		f.GoVersion, f.GOAMD64, f.Commit = build.GoVersion, set["GOAMD64"], set["vcs.revision"]
		if set["vcs.modified"] == "true" {
			f.Commit += "+dirty"
		}
	}
	return f
}

// More is what a manifest has no field of its own for.
func (f Facts) More() map[string]string {
	m := map[string]string{"os": f.GOOS, "threads": strconv.Itoa(f.Threads), "virtual": strconv.FormatBool(f.Virtual)}
	put := func(key, value string) {
		if value != "" && value != "0" {
			m[key] = value
		}
	}
	put("machine", f.Machine)
	put("cores", strconv.Itoa(f.Cores))
	put("memory_bytes", strconv.FormatInt(int64(f.Memory), 10))
	for _, c := range f.Caches {
		put(fmt.Sprintf("cache_l%d_%s_bytes", c.Level, strings.ToLower(c.Kind)), strconv.FormatInt(int64(c.Size), 10))
	}
	return m
}

// Processor names the processor for people: its model, or the board's name where
// an Arm core has only codes.
func (f Facts) Processor() string {
	if strings.HasPrefix(f.CPU, armCodes) && f.Machine != "" || f.CPU == "" {
		return f.Machine
	}
	return f.CPU
}

// fromGoRun reports whether the program was built by go run or go test, which
// stamp no commit but run in the source's own folder.
func fromGoRun(exe string) bool {
	return strings.Contains(filepath.ToSlash(exe), "/go-build")
}

func git(args ...string) (string, error) {
	out, err := exec.Command("git", append([]string{"--no-optional-locks"}, args...)...).Output()
	return strings.TrimSpace(string(out)), err
}

// workTree asks git for the commit of the current folder.
func workTree(git func(args ...string) (string, error)) string {
	commit, err := git("rev-parse", "HEAD")
	if err != nil {
		return ""
	}
	if changes, err := git("status", "--porcelain"); err != nil || changes != "" {
		commit += "+dirty"
	}
	return commit
}

// tree reads small text files.
type tree struct{ fs.FS }

// Available is the memory that a program could still take: what the system says, or what is left of the limit of this
// control group if that is less. 0 where neither can be read.
func Available() units.Bytes { return available(os.DirFS("/")) }

func available(root fs.FS) units.Bytes {
	t := tree{root}
	free := bytesOf(field(t.text("proc/meminfo"), "MemAvailable"))
	limit, used := t.text("sys/fs/cgroup/memory.max"), t.text("sys/fs/cgroup/memory.current")
	if limit == "" || used == "" || limit == "max" {
		return free
	}
	left := max(1, bytesOf(limit)-bytesOf(used))
	if free == 0 {
		return left
	}
	return min(free, left)
}

// text is a file's content without white space and NULs around it, "" if it
// cannot be read.
func (t tree) text(name string) string {
	b, err := fs.ReadFile(t.FS, name)
	if err != nil {
		return ""
	}
	return strings.Trim(string(b), " \t\n\x00")
}

func (t tree) machine() string {
	if name := t.text("proc/device-tree/model"); name != "" {
		return name
	}
	vendor, name := t.text("sys/class/dmi/id/sys_vendor"), t.text("sys/class/dmi/id/product_name")
	return strings.TrimSpace(vendor + " " + name)
}

// cores counts the distinct pairs of package and core.
func (t tree) cores() int {
	ids, _ := fs.Glob(t.FS, "sys/devices/system/cpu/cpu[0-9]*/topology/core_id")
	seen := map[string]bool{}
	for _, id := range ids {
		seen[t.text(path.Join(path.Dir(id), "physical_package_id"))+"/"+t.text(id)] = true
	}
	return len(seen)
}

func (t tree) caches() (out []Cache) {
	levels, _ := fs.Glob(t.FS, "sys/devices/system/cpu/cpu0/cache/index[0-9]*/level")
	for _, l := range levels {
		dir := path.Dir(l)
		level, _ := strconv.Atoi(t.text(l))
		out = append(out, Cache{
			Level: level, Kind: t.text(dir + "/type"), Size: bytesOf(t.text(dir + "/size")), Shared: t.text(dir + "/shared_cpu_list"),
		})
	}
	return out
}

func (t tree) governor() string {
	files, _ := fs.Glob(t.FS, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
	var all []string
	for _, f := range files {
		all = append(all, t.text(f))
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ",")
}

// armCodes begins the name of a processor that has only codes.
const armCodes = "implementer "

// cpuModel reads /proc/cpuinfo: x86 has a name, Arm has codes (MIDR_EL1).
func cpuModel(cpuinfo string) string {
	if name := field(cpuinfo, "model name"); name != "" {
		return name
	}
	implementer, part := field(cpuinfo, "CPU implementer"), field(cpuinfo, "CPU part")
	if implementer == "" {
		return ""
	}
	return fmt.Sprintf(armCodes+"%s part %s variant %s revision %s", implementer, part, field(cpuinfo, "CPU variant"), field(cpuinfo, "CPU revision"))
}

// field is the value of the first line "key : value".
func field(text, key string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// bytesOf reads the kernel's sizes: "32K", "8M", "3969372 kB".
func bytesOf(text string) units.Bytes {
	end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(text)
	}
	n, err := strconv.ParseInt(text[:end], 10, 64)
	if err != nil || n > 1<<40 { // hostile: times GiB it would overflow
		return 0
	}
	switch strings.TrimSpace(text[end:]) {
	case "K", "kB":
		return units.Bytes(n) * units.KiB
	case "M":
		return units.Bytes(n) * units.MiB
	case "G":
		return units.Bytes(n) * units.GiB
	}
	return units.Bytes(n)
}
