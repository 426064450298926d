package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
)

func fake(files map[string]string) fs.FS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func TestServer(t *testing.T) {
	files := map[string]string{
		"proc/cpuinfo":                                             "processor\t: 0\nmodel name\t: AMD EPYC 9B14\nflags\t\t: fpu avx2 hypervisor lm\n\nprocessor\t: 1\nmodel name\t: AMD EPYC 9B14\n",
		"proc/meminfo":                                             "MemTotal:        4096 kB\nMemFree:           12 kB\n",
		"proc/sys/kernel/osrelease":                                "6.1.0-13-amd64\n",
		"sys/class/dmi/id/sys_vendor":                              "Maker\n",
		"sys/class/dmi/id/product_name":                            "Box 9\n",
		"sys/devices/system/cpu/cpu0/cache/index0/level":           "1\n",
		"sys/devices/system/cpu/cpu0/cache/index0/type":            "Data\n",
		"sys/devices/system/cpu/cpu0/cache/index0/size":            "48K\n",
		"sys/devices/system/cpu/cpu0/cache/index3/level":           "3\n",
		"sys/devices/system/cpu/cpu0/cache/index3/type":            "Unified\n",
		"sys/devices/system/cpu/cpu0/cache/index3/size":            "32M\n",
		"sys/devices/system/cpu/cpu0/cache/index3/shared_cpu_list": "0-3\n",
	}
	for i := range 4 { // two cores with two threads each
		dir := fmt.Sprintf("sys/devices/system/cpu/cpu%d/", i)
		files[dir+"topology/physical_package_id"] = "0\n"
		files[dir+"topology/core_id"] = fmt.Sprintln(i / 2)
		files[dir+"cpufreq/scaling_governor"] = []string{"powersave\n", "performance\n"}[i%2]
	}
	build := &debug.BuildInfo{GoVersion: "go1.26.8", Settings: []debug.BuildSetting{
		{Key: "GOAMD64", Value: "v3"}, {Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"},
	}}
	f := Read(fake(files), build)
	require.Equal(t, Facts{
		Commit: "abc+dirty", GoVersion: "go1.26.8", GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, GOAMD64: "v3",
		Machine: "Maker Box 9", Virtual: true, CPU: "AMD EPYC 9B14", Cores: 2, Threads: runtime.NumCPU(),
		Caches: []Cache{{1, "Data", 48 * units.KiB, ""}, {3, "Unified", 32 * units.MiB, "0-3"}},
		Memory: 4 * units.MiB, Kernel: "6.1.0-13-amd64", Governor: "performance,powersave",
	}, f)
	require.Equal(t, map[string]string{
		"os": runtime.GOOS, "threads": fmt.Sprint(runtime.NumCPU()), "virtual": "true", "machine": "Maker Box 9", "cores": "2",
		"memory_bytes": "4194304", "cache_l1_data_bytes": "49152", "cache_l3_unified_bytes": "33554432",
	}, f.More())
}

func TestArmBoard(t *testing.T) {
	f := Read(fake(map[string]string{
		"proc/cpuinfo":           "processor\t: 0\nCPU implementer\t: 0x41\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n",
		"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\x00",
	}), nil)
	require.Equal(t, "Raspberry Pi 5 Model B Rev 1.0", f.Machine)
	require.Equal(t, "implementer 0x41 part 0xd0b variant 0x4 revision 1", f.CPU)
	require.Equal(t, "Raspberry Pi 5 Model B Rev 1.0", f.Processor(), "codes say nothing to people")
	f.Machine = ""
	require.Equal(t, f.CPU, f.Processor(), "codes are better than nothing")
	require.False(t, f.Virtual)
}

func TestNothingToRead(t *testing.T) {
	f := Read(fake(nil), nil)
	require.Equal(t, Facts{GoVersion: runtime.Version(), GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, Threads: runtime.NumCPU()}, f)
}

func TestCommitOfAWorkTree(t *testing.T) {
	for _, tc := range []struct {
		name, head, status string
		err                error
		want               string
	}{
		{"clean", "abc", "", nil, "abc"},
		{"changed", "abc", " M x.go", nil, "abc+dirty"},
		{"no git", "", "", errors.New("not found"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.Equal(t, tc.want, workTree(func(args ...string) (string, error) {
				if args[0] == "status" {
					return tc.status, tc.err
				}
				return tc.head, tc.err
			}))
		})
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	require.True(t, fromGoRun(exe), "a test binary is made like go run's: %s", exe)
	require.False(t, fromGoRun("/usr/local/bin/meibench"))
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]units.Bytes{"32K": 32 * units.KiB, "8M": 8 * units.MiB, "1G": units.GiB, "3 kB": 3 * units.KiB, "7": 7, "9000000000000000000G": 0, "": 0, "x": 0} {
		require.Equal(t, want, bytesOf(text), text)
	}
}

func TestAvailable(t *testing.T) {
	const meminfo = "MemTotal: 4096 kB\nMemAvailable:    2048 kB\n"
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  units.Bytes
	}{
		{"nothing to read", nil, 0},
		{"the system's word", map[string]string{"proc/meminfo": meminfo}, 2 * units.MiB},
		{"no limit", map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "5\n"}, 2 * units.MiB},
		{"a limit with less left", map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": "1048576\n", "sys/fs/cgroup/memory.current": "48576\n"}, 1000000},
		{"a limit with more left", map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": "104857600\n", "sys/fs/cgroup/memory.current": "0\n"}, 2 * units.MiB},
		{"a limit that is exceeded", map[string]string{"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": "10\n", "sys/fs/cgroup/memory.current": "20\n"}, 1},
		{"only a limit", map[string]string{"sys/fs/cgroup/memory.max": "10\n", "sys/fs/cgroup/memory.current": "3\n"}, 7},
	} {
		t.Run(tc.name, func(t *testing.T) { require.Equal(t, tc.want, available(fake(tc.files))) })
	}
	if runtime.GOOS == "linux" {
		require.Positive(t, Available())
	}
}
