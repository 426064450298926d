// Package preflight says whether a machine is fit to measure on, and what to do
// where it is not.
//
// The one idea: a check is a pure function of a file tree and of a few readings
// (free space, timers), so every machine that ever spoiled a run can be a test.
// Check returns lines; printing them is the command's business.
//
//	for _, l := range preflight.Here("runs").Check() {
//		fmt.Println(l.Status, l.Name, l.Found, l.Fix)
//	}
//
// A line fails only where numbers would be wrong or the run would not end; it
// warns where they would be noisy, or where the system does not say. The checks
// read Linux' /proc and /sys; elsewhere most lines warn that they cannot tell.
package preflight

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"meibench/internal/units"
)

// Status is the verdict of a check.
type Status uint8

// The verdicts, from good to bad.
const (
	OK Status = iota
	Warn
	Fail
)

// String is the word that the user sees.
func (s Status) String() string { return [...]string{"ok", "warn", "fail"}[s] }

// MarshalText writes the word, for JSON.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Line is the outcome of one check.
type Line struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Found  string `json:"found"`
	Fix    string `json:"fix,omitempty"` // "" where there is nothing to do
}

// Timer is what sleeping and reading the clock cost on a machine.
type Timer struct {
	Step time.Duration // smallest difference that two readings show
	Late time.Duration // 99th percentile of how late a sleep of 1 ms ends
}

// Probe is a machine to look at.
type Probe struct {
	Root    fs.FS // with proc/ and sys/
	Dir     string
	Threads int                                   // that this process may use
	Free    func(dir string) (units.Bytes, error) // space for runs
	Timer   func() Timer
}

// Here is this machine; runs go to dir.
func Here(dir string) Probe {
	return Probe{Root: os.DirFS("/"), Dir: dir, Threads: runtime.NumCPU(), Free: freeSpace, Timer: Measure}
}

// Check makes all checks, in the order of Table. It takes about half a second,
// in which timers are measured and stolen time is counted.
func (p Probe) Check() []Line {
	m := &machine{Probe: p, before: ReadTicks(p.Root)}
	m.timer = p.Timer()
	m.after = ReadTicks(p.Root)
	var out []Line
	for _, e := range Table {
		l := e.check(m)
		l.Name = e.Name
		out = append(out, l)
	}
	return out
}

// Worst is the worst verdict among some lines.
func Worst(lines []Line) Status {
	worst := OK
	for _, l := range lines {
		worst = max(worst, l.Status)
	}
	return worst
}

// Measure reads the clock and sleeps, 300 times 1 ms.
func Measure() Timer {
	step := time.Duration(1 << 62)
	for range 1000 {
		a := time.Now()
		b := time.Now()
		for b.Equal(a) {
			b = time.Now()
		}
		step = min(step, b.Sub(a))
	}
	late := make([]time.Duration, 300)
	for i := range late {
		a := time.Now()
		time.Sleep(time.Millisecond)
		late[i] = time.Since(a) - time.Millisecond
	}
	slices.Sort(late)
	return Timer{Step: step, Late: late[len(late)*99/100]}
}

// machine is a probe with its readings.
type machine struct {
	Probe
	timer         Timer
	before, after Ticks
}

// text is a file's content without white space around it; ok is false where it
// cannot be read or is empty.
func (m *machine) text(name string) (string, bool) {
	b, err := fs.ReadFile(m.Root, name)
	text := strings.TrimSpace(string(b))
	return text, err == nil && text != ""
}

// each returns the distinct contents of the files that match, sorted.
func (m *machine) each(pattern string) (out []string) {
	files, _ := fs.Glob(m.Root, pattern)
	for _, f := range files {
		if text, ok := m.text(f); ok {
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func good(format string, args ...any) Line { return Line{Found: fmt.Sprintf(format, args...)} }

func (l Line) warn(fix string) Line { l.Status, l.Fix = Warn, fix; return l }
func (l Line) fail(fix string) Line { l.Status, l.Fix = Fail, fix; return l }
