package probe

import (
	"encoding/json"
	"io/fs"
	"math"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
)

func file(content string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(content)} }

// linux is a made-up machine: four cores, 32 KiB L1, 1 MiB L2, 16 MiB L3 for all.
func linux() fstest.MapFS {
	const cache = "sys/devices/system/cpu/cpu0/cache/"
	return fstest.MapFS{
		"proc/cpuinfo":                   file("processor\t: 0\nmodel name\t: Abacus 9000\nflags\t\t: fpu avx2 hypervisor\n\nprocessor\t: 1\nmodel name\t: other\n"),
		"proc/meminfo":                   file("MemTotal:       16384000 kB\nMemFree:        1 kB\n"),
		cache + "index0/type":            file("Data\n"),
		cache + "index0/level":           file("1\n"),
		cache + "index0/size":            file("32K\n"),
		cache + "index0/shared_cpu_list": file("0\n"),
		cache + "index1/type":            file("Instruction\n"),
		cache + "index1/level":           file("1\n"),
		cache + "index1/size":            file("64K\n"),
		cache + "index2/type":            file("Unified\n"),
		cache + "index2/level":           file("2\n"),
		cache + "index2/size":            file("1024K\n"),
		cache + "index2/shared_cpu_list": file("0,2\n"),
		cache + "index3/type":            file("Unified\n"),
		cache + "index3/level":           file("3\n"),
		cache + "index3/size":            file("16M\n"),
		cache + "index3/shared_cpu_list": file("0-2,7\n"),
	}
}

func TestMachineIsReadFromFiles(t *testing.T) {
	m := ReadMachine(linux())
	require.Equal(t, "Abacus 9000", m.CPU)
	require.Equal(t, units.Bytes(16384000)*units.KiB, m.Memory)
	require.True(t, m.Virtual)
	require.Equal(t, []Cache{{1, 32 * units.KiB, 1}, {2, units.MiB, 2}, {3, 16 * units.MiB, 4}}, m.Caches)
	require.Equal(t, "L3", m.Caches[2].Name())
}

func TestMachineWithoutFilesIsUnknownNotWrong(t *testing.T) {
	m := ReadMachine(fstest.MapFS{"proc/meminfo": file("MemTotal: lots kB\n"), "proc/cpuinfo": file("nothing")})
	require.Contains(t, m.CPU, "unknown")
	require.Zero(t, m.Memory)
	require.Empty(t, m.Caches)
	require.False(t, m.Virtual)
}

func rapl(energy map[string]string) fstest.MapFS {
	f := fstest.MapFS{}
	for zone, name := range map[string]string{"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram", "intel-rapl:1": "psys"} {
		f[powercap+"/"+zone+"/name"] = file(name + "\n")
		f[powercap+"/"+zone+"/max_energy_range_uj"] = file("1000000\n")
		f[powercap+"/"+zone+"/energy_uj"] = file(energy[zone] + "\n")
	}
	return f
}

func TestMeterAddsZonesAndUnderstandsAWrap(t *testing.T) {
	tree := rapl(map[string]string{"intel-rapl:0": "900000", "intel-rapl:0:0": "1", "intel-rapl:0:1": "50", "intel-rapl:1": "7"})
	m, err := NewMeter(tree)
	require.NoError(t, err)
	require.Equal(t, []string{"package-0", "dram"}, m.Zones())
	set := func(zone, uj string) { tree[powercap+"/"+zone+"/energy_uj"] = file(uj + "\n") }

	set("intel-rapl:0", "950000") // + 50 000 µJ
	set("intel-rapl:0:1", "1050") // +  1 000 µJ
	set("intel-rapl:0:0", "99999")
	set("intel-rapl:1", "99999")
	j, err := m.Joules()
	require.NoError(t, err)
	require.InDelta(t, 0.051, float64(j), 1e-12)

	set("intel-rapl:0", "20000") // wraps: 1 000 000 - 950 000 + 20 000 = 70 000 µJ more
	j, err = m.Joules()
	require.NoError(t, err)
	require.InDelta(t, 0.121, float64(j), 1e-12)
}

func TestMeterSaysWhyThereIsNone(t *testing.T) {
	for _, tc := range []struct {
		name string
		tree fs.FS
		want string
	}{
		{"no tree", fstest.MapFS{}, "no RAPL package zone"},
		{"no packages", fstest.MapFS{powercap + "/intel-rapl:0/name": file("psys\n")}, "no RAPL package zone"},
		{"not readable", fstest.MapFS{powercap + "/intel-rapl:0/name": file("package-0\n")}, "read energy of package-0"},
		{"not a number", fstest.MapFS{powercap + "/intel-rapl:0/name": file("package-0\n"), powercap + "/intel-rapl:0/energy_uj": file("\n")}, "invalid syntax"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := NewMeter(tc.tree)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestMeterRefusesAFallThatIsNoWrap(t *testing.T) {
	tree := rapl(map[string]string{"intel-rapl:0": "900000", "intel-rapl:0:0": "1", "intel-rapl:0:1": "50", "intel-rapl:1": "7"})
	tree[powercap+"/intel-rapl:0/max_energy_range_uj"] = file("0\n")
	m, err := NewMeter(tree)
	require.NoError(t, err)
	tree[powercap+"/intel-rapl:0/energy_uj"] = file("5\n")
	_, err = m.Joules()
	require.ErrorContains(t, err, "fell from 900000 to 5")
}

func TestFiguresFromTrials(t *testing.T) {
	best := Figure{}.best([]float64{3, 1, 2})
	require.Equal(t, Figure{Value: 3, N: 3, Low: 2, High: 3}, best)

	hundred := make([]float64, 101)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	typical := Figure{}.typical(hundred)
	require.Equal(t, 50.0, typical.Value)
	require.Equal(t, 40.0, typical.Low) // rank 50 - 0.98·√101 = 40.15, outwards
	require.Equal(t, 60.0, typical.High)

	require.True(t, math.IsNaN(Figure{}.typical(nil).Value))
}

func TestUnknownIsNullInJSON(t *testing.T) {
	p := &prober{}
	p.missing(PowerIdle, "W", "no counters")
	b, err := json.Marshal(p.figures)
	require.NoError(t, err)
	require.JSONEq(t, `[{"name":"power_idle","value":null,"unit":"W","method":"no counters","n":0,"interval":[null,null]}]`, string(b))
}

func TestTogetherRunsEveryoneAtOnce(t *testing.T) {
	ran := make([]bool, 3)
	took := together(3, func(w int) { ran[w] = true; time.Sleep(5 * time.Millisecond) })
	require.Equal(t, []bool{true, true, true}, ran)
	require.GreaterOrEqual(t, took, 5*time.Millisecond)
	require.Less(t, took, 200*time.Millisecond)
}

func TestInterruptedTrialsAreDoubted(t *testing.T) {
	require.Empty(t, (&prober{tried: 100, lost: 5}).doubts())
	require.Empty(t, (&prober{}).doubts())
	require.Contains(t, (&prober{tried: 100, lost: 50}).doubts()[0], "50 % of trials were interrupted")
}

func TestPiecesAreTakenInTurn(t *testing.T) {
	turn := turns(2)
	seen := map[int]int{}
	for range 2 * pieces {
		seen[turn(0)]++
		seen[turn(1)]++
	}
	require.Len(t, seen, 2*pieces, "two workers share nothing")
	for piece, n := range seen {
		require.Equal(t, 2, n, "piece %d", piece)
	}
}

func TestArenaIsLargerThanTheCachesAndSmallerThanTheMemory(t *testing.T) {
	for _, tc := range []struct {
		name   string
		m      Machine
		lo, hi units.Bytes
	}{
		{"four times the last cache", Machine{Memory: 32 * units.GiB, Caches: []Cache{{3, 40 * units.MiB, 8}}}, 159 * units.MiB, 160 * units.MiB},
		{"an eighth of a small memory", Machine{Memory: 256 * units.MiB, Caches: []Cache{{3, 40 * units.MiB, 8}}}, 31 * units.MiB, 32 * units.MiB},
		{"nothing is known", Machine{}, 63 * units.MiB, 64 * units.MiB},
		{"a gigabyte at most", Machine{Caches: []Cache{{3, units.GiB, 8}}}, 1023 * units.MiB, units.GiB},
	} {
		t.Run(tc.name, func(t *testing.T) {
			size := (&prober{o: Options{Threads: 3}, machine: tc.m}).arena()
			require.GreaterOrEqual(t, size, tc.lo)
			require.LessOrEqual(t, size, tc.hi)
		})
	}
}

func TestMeasureQuickly(t *testing.T) {
	if testing.Short() {
		t.Skip("times the machine")
	}
	l, err := Measure(t.Context(), Options{Quick: true, Threads: 2})
	require.NoError(t, err)
	for _, f := range l.Figures {
		t.Logf("%-14s %-16s %d %12.4g %-7s [%.4g, %.4g] n=%d %s", f.Name, f.Detail, f.Threads, f.Value, f.Unit, f.Low, f.High, f.N, f.Method)
		if !math.IsNaN(f.Value) && f.Name != SleepLate && f.Name != PaceLate {
			require.Positive(t, f.Value, f.Name)
		}
	}
	t.Log(l.Took)
	one, ok := l.Best(PeakF32, 1)
	require.True(t, ok)
	require.Greater(t, one.Value, 1e8, "any CPU of this century does 0.1 GFLOP/s")
}
