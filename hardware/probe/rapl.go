package probe

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"meibench/internal/units"
)

// Meter reads the energy that processor packages and their memory have used,
// from RAPL counters in the powercap tree of Linux. One goroutine at a time.
//
// It adds the packages (whose counters include their cores) and the memory
// zones beside them; psys zones, which include both, are left out.
type Meter struct {
	system fs.FS
	zones  []zone
	total  float64 // µJ since NewMeter
}

type zone struct {
	dir   string
	name  string
	last  uint64 // µJ
	wraps uint64 // the counter starts again from 0 after this many µJ
}

const powercap = "sys/class/powercap"

var zoneName = regexp.MustCompile(`^(package-\d+|dram)$`)

// NewMeter finds the counters of a system (the root folder of a Linux system).
// Its error says why there are none: no such hardware, or no permission to read.
func NewMeter(system fs.FS) (*Meter, error) {
	dirs, err := fs.Glob(system, powercap+"/*rapl*")
	if err != nil {
		return nil, err
	}
	slices.Sort(dirs)
	m := &Meter{system: system}
	for _, dir := range dirs {
		name, _ := fs.ReadFile(system, path.Join(dir, "name")) // without one it is no zone
		z := zone{dir: dir, name: strings.TrimSpace(string(name))}
		if !zoneName.MatchString(z.name) {
			continue
		}
		if z.last, err = m.counter(dir, "energy_uj"); err != nil {
			return nil, fmt.Errorf("read energy of %s: %w", z.name, err)
		}
		if z.wraps, err = m.counter(dir, "max_energy_range_uj"); err != nil {
			return nil, fmt.Errorf("read range of energy counter of %s: %w", z.name, err)
		}
		m.zones = append(m.zones, z)
	}
	if len(m.zones) == 0 {
		return nil, fmt.Errorf("no RAPL package zone under /%s: %w", powercap, fs.ErrNotExist)
	}
	return m, nil
}

func (m *Meter) counter(dir, name string) (uint64, error) {
	b, err := fs.ReadFile(m.system, path.Join(dir, name))
	if err != nil {
		return 0, err
	}
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return strconv.ParseUint(string(b), 10, 64)
}

// Zones names what is added up.
func (m *Meter) Zones() (names []string) {
	for _, z := range m.zones {
		names = append(names, z.name)
	}
	return names
}

// Joules is the energy used since NewMeter. A counter that wrapped once since
// the last call is understood; it takes minutes to wrap, so call at least once a
// minute. A counter whose range is unknown (0) must not fall.
func (m *Meter) Joules() (units.Joules, error) {
	for i := range m.zones {
		z := &m.zones[i]
		now, err := m.counter(z.dir, "energy_uj")
		if err != nil {
			return 0, fmt.Errorf("read energy of %s: %w", z.name, err)
		}
		switch {
		case now >= z.last:
			m.total += float64(now - z.last)
		case z.wraps > z.last:
			m.total += float64(z.wraps - z.last + now)
		default:
			return 0, fmt.Errorf("energy counter of %s fell from %d to %d µJ, but its range is %d", z.name, z.last, now, z.wraps)
		}
		z.last = now
	}
	return units.Joules(m.total / 1e6), nil
}

// power finds what the packages draw at rest and with all threads multiplying.
func (p *prober) power() {
	m, err := NewMeter(p.o.System)
	if err != nil {
		p.missing(PowerIdle, "W", "not measured: "+err.Error())
		p.missing(PowerBusy, "W", "not measured: "+err.Error())
		return
	}
	trials, span := 2, 100*time.Millisecond // counters step once a millisecond
	if !p.o.Quick {
		trials, span = 5, 500*time.Millisecond
	}
	loops := floatLoops()
	l := loops[len(loops)-1]
	var sink atomic.Uint64
	busy := func() {
		together(p.o.Threads, func(int) {
			for began := time.Now(); time.Since(began) < span; {
				sink.Add(uint64(l.fma(0.5, 1, 1<<14)))
			}
		})
	}
	for _, load := range []struct {
		name, method string
		do           func()
	}{
		{PowerIdle, "RAPL %v, this process asleep, median", func() { time.Sleep(span) }},
		{PowerBusy, "RAPL %v, all threads multiplying, median", busy},
	} {
		var watts []float64
		for range trials {
			w, err := m.during(load.do)
			if err != nil {
				p.missing(load.name, "W", "not measured: "+err.Error())
				break
			}
			watts = append(watts, w)
		}
		if len(watts) == trials {
			p.figures = append(p.figures, Figure{Name: load.name, Unit: "W", Method: fmt.Sprintf(load.method, m.Zones())}.typical(watts))
		}
	}
}

// during is the mean power while f runs, in watts.
func (m *Meter) during(f func()) (float64, error) {
	from, err := m.Joules()
	if err != nil {
		return math.NaN(), err
	}
	began := time.Now()
	f()
	to, err := m.Joules()
	took := time.Since(began)
	if err != nil {
		return math.NaN(), err
	}
	if to == from {
		return math.NaN(), fmt.Errorf("energy counters stood still for %v", took)
	}
	return float64(to-from) / took.Seconds(), nil
}
