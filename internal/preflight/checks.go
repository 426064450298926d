package preflight

import (
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"meibench/internal/units"
)

// Entry is one check.
type Entry struct {
	Name  string
	Doc   string // why it matters
	check func(*machine) Line
}

// Table lists the checks, sorted by name.
var Table = []Entry{
	{"cgroup quota", "a container's CPU limit stops all threads in the middle of a kernel", checkQuota},
	{"clock", "latencies are differences of clock readings", checkClock},
	{"disk space", "a run that cannot write its journal is lost", checkDisk},
	{"energy counter", "without one, energy of the CPU is modelled, not measured", checkEnergy},
	{"governor", "a governor that follows the load lets the clock rise during a run", checkGovernor},
	{"huge pages", "weights in 2 MiB pages make kernels 5 to 8 percent faster", checkHuge},
	{"load", "other programs take cores, caches and memory bandwidth", checkLoad},
	{"memory", "a machine that swaps measures its disk", checkMemory},
	{"network namespaces", "kernel-level link emulation needs one; the built-in links do not", checkNetns},
	{"steal", "a hypervisor that runs other guests makes every figure late", checkSteal},
	{"timers", "late timers make open-loop arrivals late", checkTimers},
	{"turbo", "a boost that ends with the heat makes the first minute the fastest", checkTurbo},
}

// The budgets. Late timers: harness runs are invalid beyond 1 ms at the 99th
// percentile, and a run sleeps coarsely and spins for the last 2 ms.
const (
	warnLate   = time.Millisecond
	failLate   = 20 * time.Millisecond
	coarseStep = time.Microsecond
	warnLoad   = 0.25 // of a thread, on average
	failLoad   = 1.0
	warnSteal  = 0.01
	failSteal  = 0.10
	warnMemory = 2 * units.GiB
	failMemory = 256 * units.MiB
	warnDisk   = units.GiB
	failDisk   = 64 * units.MiB
)

func checkGovernor(m *machine) Line {
	found := m.each("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
	switch {
	case len(found) == 0:
		return good("not visible").warn("a virtual machine cannot set it: repeat runs, and compare within one session")
	case len(found) == 1 && found[0] == "performance":
		return good("performance")
	}
	return good("%s", strings.Join(found, ", ")).warn("sudo cpupower frequency-set -g performance")
}

func checkTurbo(m *machine) Line {
	if off, ok := m.text("sys/devices/system/cpu/intel_pstate/no_turbo"); ok {
		if off == "1" {
			return good("off")
		}
		return good("on").warn("echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo")
	}
	if on, ok := m.text("sys/devices/system/cpu/cpufreq/boost"); ok {
		if on == "0" {
			return good("off")
		}
		return good("on").warn("echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost")
	}
	return good("not visible").warn("the host or the firmware decides: report the first minute and the rest apart")
}

func checkLoad(m *machine) Line {
	text, _ := m.text("proc/loadavg")
	first, _, _ := strings.Cut(text, " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return good("not visible").warn("close other programs")
	}
	l := good("%.2f over the last minute, %d threads", load, m.Threads)
	const fix = "close other programs, or wait until the average over a minute has fallen; see top"
	switch per := load / float64(max(m.Threads, 1)); {
	case per > failLoad:
		return l.fail(fix)
	case per > warnLoad:
		return l.warn(fix)
	}
	return l
}

func checkMemory(m *machine) Line {
	text, _ := m.text("proc/meminfo")
	free, ok := available(text)
	l := good("%v available", free)
	switch {
	case !ok:
		return good("not visible").warn("see that the model fits in memory twice")
	case free < failMemory:
		return l.fail("close other programs, or take a smaller model")
	case free < warnMemory:
		return l.warn("small models only: weights, KV cache and a copy while loading must fit")
	}
	return l
}

// available reads MemAvailable of /proc/meminfo.
func available(meminfo string) (units.Bytes, bool) {
	for line := range strings.Lines(meminfo) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemAvailable:" && f[2] == "kB" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return units.Bytes(n) * units.KiB, err == nil
		}
	}
	return 0, false
}

func checkDisk(m *machine) Line {
	free, err := m.Free(m.Dir)
	l := good("%v free for %s", free, m.Dir)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return good("not visible").warn("see that " + m.Dir + " has a gigabyte free")
	case err != nil:
		return good("%v", err).fail("choose a folder that exists with --out")
	case free < failDisk:
		return l.fail("free some space, or choose another disk with --out")
	case free < warnDisk:
		return l.warn("long runs write gigabytes: free some space, or choose another disk with --out")
	}
	return l
}

func checkTimers(m *machine) Line {
	l := good("a sleep of 1 ms ends %v late or less, 99 times of 100", m.timer.Late.Round(time.Microsecond))
	const fix = "measured runs spin to stay on time; leave one core free, and avoid power saving and emulators"
	switch {
	case m.timer.Late > failLate:
		return l.fail(fix)
	case m.timer.Late > warnLate:
		return l.warn(fix)
	}
	return l
}

func checkClock(m *machine) Line {
	source, ok := m.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
	if !ok {
		source = "unknown source"
	}
	l := good("%s, steps of %v", source, m.timer.Step)
	if m.timer.Step > coarseStep || source == "hpet" || source == "acpi_pm" {
		return l.warn("echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource, or boot with tsc=reliable")
	}
	return l
}

func checkSteal(m *machine) Line {
	if !m.before.Known || !m.after.Known {
		return good("not visible").warn("run on hardware of your own to be sure")
	}
	share, all := m.after.Since(m.before)
	ever, _ := m.after.Since(Ticks{})
	if all == 0 { // the window was shorter than a tick
		share = ever
	}
	l := good("%.1f%% now, %.1f%% since boot", 100*share, 100*ever)
	const fix = "other guests run on this host: take a dedicated machine, or repeat at another hour; runs with more than 1% are marked"
	switch {
	case share > failSteal:
		return l.fail(fix)
	case share > warnSteal || ever > warnSteal:
		return l.warn(fix)
	}
	return l
}

// Ticks is the CPU line of /proc/stat: clock ticks that other guests of the
// host took, of all.
type Ticks struct {
	steal, all uint64
	Known      bool
}

// Since is the share of time stolen since an earlier reading, and all ticks
// since then; 0 of 0 if the kernel counted back.
func (s Ticks) Since(before Ticks) (share float64, all uint64) {
	if s.all <= before.all || s.steal < before.steal { // some kernels count back
		return 0, 0
	}
	all = s.all - before.all
	return float64(s.steal-before.steal) / float64(all), all
}

// ReadTicks sums user nice system idle iowait irq softirq steal (proc_stat(5));
// guest time is already within user time.
func ReadTicks(root fs.FS) (s Ticks) {
	b, _ := fs.ReadFile(root, "proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return Ticks{}
	}
	for i, text := range f[1:9] {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return Ticks{}
		}
		s.all += n
		if i == 7 {
			s.steal = n
		}
	}
	s.Known = true
	return s
}

func checkEnergy(m *machine) Line {
	files, _ := fs.Glob(m.Root, "sys/class/powercap/intel-rapl:[0-9]*/energy_uj")
	if len(files) == 0 {
		return good("no RAPL").warn("energy will be modelled and marked so; on boards with a meter give its readings")
	}
	for _, f := range files {
		if _, err := fs.ReadFile(m.Root, f); err != nil {
			return good("RAPL cannot be read").warn("sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj (until the next boot)")
		}
	}
	return good("RAPL, %d domains", len(files))
}

func checkHuge(m *machine) Line {
	const file = "sys/kernel/mm/transparent_hugepage/enabled"
	text, ok := m.text(file)
	_, rest, _ := strings.Cut(text, "[")
	chosen, _, _ := strings.Cut(rest, "]")
	switch {
	case !ok || chosen == "":
		return good("not visible").warn("nothing: compare kernels on one machine only")
	case chosen == "never":
		return good("never").warn("echo madvise | sudo tee /" + file)
	}
	return good("%s", chosen)
}

// checkQuota reads the limits of this process' own group and of those above it.
func checkQuota(m *machine) Line {
	quota, found := quotaV1(m)
	group, known := m.text("proc/self/cgroup")
	for line := range strings.Lines(group) {
		dir, v2 := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		for d := dir; v2; d = path.Dir(d) {
			if q, ok := quotaV2(m, path.Join("sys/fs/cgroup", d, "cpu.max")); ok && (!found || q < quota) {
				quota, found = q, true
			}
			if d == "." || d == "" {
				break
			}
		}
	}
	switch {
	case !found && !known:
		return good("not visible").warn("see that the process may use all threads")
	case !found:
		return good("none")
	}
	l := good("%.2f CPUs of %d threads", quota, m.Threads)
	if quota < float64(m.Threads) {
		return l.warn("lift the limit (docker run without --cpus), or run with GOMAXPROCS below it")
	}
	return l
}

func quotaV2(m *machine, file string) (cpus float64, ok bool) {
	text, _ := m.text(file)
	f := strings.Fields(text)
	if len(f) != 2 || f[0] == "max" {
		return 0, false
	}
	return ratio(f[0], f[1])
}

func quotaV1(m *machine) (cpus float64, ok bool) {
	quota, _ := m.text("sys/fs/cgroup/cpu/cpu.cfs_quota_us")
	period, _ := m.text("sys/fs/cgroup/cpu/cpu.cfs_period_us")
	return ratio(quota, period)
}

func ratio(a, b string) (float64, bool) {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return x / y, errX == nil && errY == nil && x > 0 && y > 0
}

// checkNetns looks for the right to make a network namespace and shape its links:
// the capabilities of root (capabilities(7): 12 is net admin, 21 is sys admin).
func checkNetns(m *machine) Line {
	const netAdmin, sysAdmin = 1 << 12, 1 << 21
	const fix = "the built-in links need nothing; for tc and netem run as root"
	if _, ok := m.text("proc/self/status"); !ok {
		return good("not visible").warn(fix)
	}
	text, _ := m.text("proc/self/status")
	_, rest, _ := strings.Cut(text, "CapEff:")
	bits, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	caps, err := strconv.ParseUint(bits, 16, 64)
	_, namespaces := m.text("proc/sys/user/max_net_namespaces")
	switch {
	case err == nil && caps&netAdmin != 0 && caps&sysAdmin != 0 && namespaces:
		return good("root may make them")
	case !namespaces:
		return good("the kernel has none").warn(fix)
	}
	return good("not root").warn(fix)
}
