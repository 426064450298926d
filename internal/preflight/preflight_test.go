package preflight

import (
	"encoding/json"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
)

// quiet is a machine on which nothing is wrong.
var quiet = map[string]string{
	"proc/loadavg":                              "0.10 0.30 0.50 1/100 42\n",
	"proc/meminfo":                              "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n",
	"proc/stat":                                 "cpu  100 0 100 800 0 0 0 0 7 7\ncpu0 1 1\n",
	"proc/self/cgroup":                          "0::/user.slice/shell\n",
	"proc/self/status":                          "Name:\tx\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\n",
	"proc/sys/user/max_net_namespaces":          "1000\n",
	"sys/fs/cgroup/user.slice/cpu.max":          "max 100000\n",
	"sys/class/powercap/intel-rapl:0/energy_uj": "123\n",
	"sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
	"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor":            "performance\n",
	"sys/devices/system/cpu/cpu1/cpufreq/scaling_governor":            "performance\n",
	"sys/devices/system/cpu/intel_pstate/no_turbo":                    "1\n",
	"sys/kernel/mm/transparent_hugepage/enabled":                      "always [madvise] never\n",
}

// bench is a probe of the quiet machine with some files changed ("" removes one).
func bench(change map[string]string) Probe {
	root := fstest.MapFS{}
	for _, files := range []map[string]string{quiet, change} {
		for name, text := range files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return Probe{
		Root: root, Dir: "runs", Threads: 4,
		Free:  func(string) (units.Bytes, error) { return 10 * units.GiB, nil },
		Timer: func() Timer { return Timer{Step: 30 * time.Nanosecond, Late: 80 * time.Microsecond} },
	}
}

func TestQuietMachine(t *testing.T) {
	lines := bench(nil).Check()
	require.Len(t, lines, len(Table))
	for _, l := range lines {
		require.Equal(t, OK, l.Status, "%+v", l)
		require.Empty(t, l.Fix)
		require.NotEmpty(t, l.Found)
	}
	require.Equal(t, OK, Worst(lines))
}

func TestEachCheckSpeaksUp(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change map[string]string
		check  string
		want   Status
		found  string
	}{
		{"cores differ", map[string]string{"sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n"}, "governor", Warn, "performance, powersave"},
		{"turbo on", map[string]string{"sys/devices/system/cpu/intel_pstate/no_turbo": "0\n"}, "turbo", Warn, "on"},
		{"boost off on AMD", map[string]string{"sys/devices/system/cpu/intel_pstate/no_turbo": "", "sys/devices/system/cpu/cpufreq/boost": "0\n"}, "turbo", OK, "off"},
		{"boost on on AMD", map[string]string{"sys/devices/system/cpu/intel_pstate/no_turbo": "", "sys/devices/system/cpu/cpufreq/boost": "1\n"}, "turbo", Warn, "on"},
		{"somebody compiles", map[string]string{"proc/loadavg": "1.60 0 0 1/1 1\n"}, "load", Warn, "1.60 over the last minute, 4 threads"}, // 0.4 a thread
		{"everybody compiles", map[string]string{"proc/loadavg": "4.40 0 0 1/1 1\n"}, "load", Fail, "4.40 over the last minute, 4 threads"},
		{"little memory", map[string]string{"proc/meminfo": "MemAvailable: 1048576 kB\n"}, "memory", Warn, "1 GiB available"},
		{"no memory", map[string]string{"proc/meminfo": "MemAvailable: 102400 kB\n"}, "memory", Fail, "100 MiB available"},
		{"an old kernel", map[string]string{"proc/meminfo": "MemFree: 102400 kB\n"}, "memory", Warn, "not visible"},
		{"a slow clock", map[string]string{"sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n"}, "clock", Warn, "hpet, steps of 30ns"},
		{"a limit on the group above", map[string]string{"sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n"}, "cgroup quota", Warn, "1.50 CPUs of 4 threads"},
		{"a limit on the root of a container", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, "cgroup quota", Warn, "0.50 CPUs of 4 threads"},
		{"a limit of the first version", map[string]string{"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, "cgroup quota", Warn, "2.00 CPUs of 4 threads"},
		{"no limit of the first version", map[string]string{"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, "cgroup quota", OK, "none"},
		{"a generous limit", map[string]string{"sys/fs/cgroup/user.slice/cpu.max": "800000 100000\n"}, "cgroup quota", OK, "8.00 CPUs of 4 threads"},
		{"no huge pages", map[string]string{"sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]\n"}, "huge pages", Warn, "never"},
		{"an ordinary user", map[string]string{"proc/self/status": "CapEff:\t0000000000000000\n"}, "network namespaces", Warn, "not root"},
		{"a small kernel", map[string]string{"proc/sys/user/max_net_namespaces": ""}, "network namespaces", Warn, "the kernel has none"},
		{"stolen since boot", map[string]string{"proc/stat": "cpu 90 0 0 0 0 0 0 10 0 0\n"}, "steal", Warn, "10.0% now, 10.0% since boot"},
		{"half is stolen", map[string]string{"proc/stat": "cpu 50 0 0 0 0 0 0 50 0 0\n"}, "steal", Fail, "50.0% now, 50.0% since boot"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, l := range bench(tc.change).Check() {
				if l.Name == tc.check {
					require.Equal(t, tc.want, l.Status)
					require.Equal(t, tc.found, l.Found)
					require.Equal(t, tc.want == OK, l.Fix == "", "a fix where there is something to do")
					continue
				}
				require.Equal(t, OK, l.Status, "%+v", l)
			}
		})
	}
}

func line(t *testing.T, p Probe, name string) Line {
	t.Helper()
	for _, l := range p.Check() {
		if l.Name == name {
			return l
		}
	}
	t.Fatalf("no check %q", name)
	return Line{}
}

func TestStealIsCountedOverTheWindow(t *testing.T) {
	p := bench(map[string]string{"proc/stat": "cpu 0 0 0 1000 0 0 0 0 0 0\n"})
	p.Timer = func() Timer {
		p.Root.(fstest.MapFS)["proc/stat"].Data = []byte("cpu 45 0 0 1050 0 0 0 5 0 0\n")
		return Timer{}
	}
	// 5 of 100 ticks in the window, 5 of 1100 since boot
	l := line(t, p, "steal")
	require.Equal(t, "5.0% now, 0.5% since boot", l.Found)
	require.Equal(t, Warn, l.Status)
}

func TestReadings(t *testing.T) {
	for _, tc := range []struct {
		name string
		late time.Duration
		want Status
	}{{"punctual", time.Millisecond, OK}, {"late", 2 * time.Millisecond, Warn}, {"hopeless", 30 * time.Millisecond, Fail}} {
		p := bench(nil)
		p.Timer = func() Timer { return Timer{Late: tc.late} }
		require.Equal(t, tc.want, line(t, p, "timers").Status, tc.name)
	}
	for _, tc := range []struct {
		name string
		free units.Bytes
		err  error
		want Status
	}{
		{"roomy", 2 * units.GiB, nil, OK}, {"tight", 500 * units.MiB, nil, Warn}, {"full", units.MiB, nil, Fail},
		{"another system", 0, errors.ErrUnsupported, Warn}, {"forbidden", 0, fs.ErrPermission, Fail},
	} {
		p := bench(nil)
		p.Free = func(string) (units.Bytes, error) { return tc.free, tc.err }
		require.Equal(t, tc.want, line(t, p, "disk space").Status, tc.name)
	}
}

// forbidden is a tree whose energy counter is there but cannot be read.
type forbidden struct{ fstest.MapFS }

func (f forbidden) Open(name string) (fs.File, error) {
	if name == "sys/class/powercap/intel-rapl:0/energy_uj" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return f.MapFS.Open(name)
}

func (f forbidden) ReadFile(name string) ([]byte, error) {
	return fs.ReadFile(fs.FS(struct{ fs.FS }{f}), name)
}

func TestEnergyCounter(t *testing.T) {
	p := bench(nil)
	p.Root = forbidden{p.Root.(fstest.MapFS)}
	require.Equal(t, "RAPL cannot be read", line(t, p, "energy counter").Found)
	p.Root = fstest.MapFS{}
	require.Equal(t, "no RAPL", line(t, p, "energy counter").Found)
}

// A system that says nothing gets warnings, never a panic and never an ok that
// nobody checked.
func TestASystemThatSaysNothing(t *testing.T) {
	p := bench(nil)
	p.Root = fstest.MapFS{}
	for _, l := range p.Check() {
		switch l.Name {
		case "clock", "disk space", "timers":
			require.Equal(t, OK, l.Status, "%+v", l)
		default:
			require.Equal(t, Warn, l.Status, "%+v", l)
		}
	}
}

func TestThisMachine(t *testing.T) {
	lines := Here(t.TempDir() + "/not/yet/made").Check()
	require.Len(t, lines, len(Table))
	for _, l := range lines {
		t.Logf("%-4v %-18s %s; %s", l.Status, l.Name, l.Found, l.Fix)
	}
	b, err := json.Marshal(lines[0])
	require.NoError(t, err)
	require.Contains(t, string(b), `"status":"`+lines[0].Status.String()+`"`)
	timer := Measure()
	require.Positive(t, timer.Step)
	require.GreaterOrEqual(t, timer.Late, time.Duration(0))
}
