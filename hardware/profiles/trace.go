package profiles

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Trace is a measured series of rates. It repeats from its start when it ends.
type Trace struct {
	Slot  time.Duration // how long each rate holds; positive
	Rates []float64     // bytes per second; 0 = outage; at least one
}

// TraceFiles are recorded rates that take the place of a link profile's
// distributions of rates, and of its handovers, which a recording has in it.
// Names are relative to the profile's folder; one CSV file may serve for both
// directions. A direction without a file keeps its distribution.
type TraceFiles struct {
	Down   string `yaml:"down,omitempty" json:"down,omitempty"`
	Up     string `yaml:"up,omitempty" json:"up,omitempty"`
	Source string `yaml:"source" json:"source"` // who recorded it, where and when

	// What was read. The SHA-256 of the files is part of the profile's digest.
	DownSHA256 string `yaml:"-" json:"down_sha256,omitempty"`
	UpSHA256   string `yaml:"-" json:"up_sha256,omitempty"`
	DownRates  *Trace `yaml:"-" json:"-"`
	UpRates    *Trace `yaml:"-" json:"-"`
}

// maxTraceBytes is the largest trace file that is read.
const maxTraceBytes = 64 << 20

// read reads the files of a profile that lies in a folder.
func (f *TraceFiles) read(folder string) (err error) {
	if f.DownRates, f.DownSHA256, err = openTrace(folder, f.Down, "down"); err != nil {
		return err
	}
	f.UpRates, f.UpSHA256, err = openTrace(folder, f.Up, "up")
	return err
}

func openTrace(folder, name, direction string) (*Trace, string, error) {
	if name == "" {
		return nil, "", nil
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(folder, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, "", fmt.Errorf("trace of rates %s: %w", direction, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTraceBytes+1))
	if err != nil {
		return nil, "", fmt.Errorf("trace of rates %s: read %s: %w", direction, name, err)
	}
	if len(data) > maxTraceBytes {
		return nil, "", fmt.Errorf("trace of rates %s: %s is larger than %d bytes: cut it", direction, name, maxTraceBytes)
	}
	t, err := ReadTrace(name, bytes.NewReader(data), direction)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(data)
	return t, hex.EncodeToString(sum[:]), t.moves(name)
}

// moves refuses a trace in which nothing ever passes.
func (t *Trace) moves(name string) error {
	for _, r := range t.Rates {
		if r > 0 {
			return nil
		}
	}
	return fmt.Errorf("%s: all rates are 0: want some time with service", name)
}

// times is the trace with all rates multiplied.
func (t *Trace) times(by float64) *Trace {
	if t == nil {
		return nil
	}
	to := &Trace{Slot: t.Slot, Rates: make([]float64, len(t.Rates))}
	for i, r := range t.Rates {
		to.Rates[i] = r * by
	}
	return to
}

// Limits of trace files: a day of 1 ms lines would be too much to hold.
const (
	maxTraceSlots = 1 << 20
	mahimahiSlot  = 100 * time.Millisecond // averages 1 ms opportunities; 15 kB/s resolution
	mahimahiBytes = 1500                   // per line, by definition of the format
)

// ReadTrace reads a rate trace in one of two formats, told apart by its first
// line; name is for error messages.
//
//   - Mahimahi (Winstein et al., NSDI 2013): one integer per line, the millisecond
//     of an opportunity to deliver 1500 bytes; never falling. It repeats after the
//     last one. Averaged over 100 ms.
//   - CSV with a header: time_s, and down_bytes_per_s or up_bytes_per_s for the
//     direction asked for, down or up. Times are evenly spaced and rise.
func ReadTrace(name string, r io.Reader, direction string) (*Trace, error) {
	b := bufio.NewReader(r)
	head, err := b.Peek(4096)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	line, _, _ := strings.Cut(string(head), "\n")
	if strings.Contains(line, ",") {
		return readRates(name, b, direction)
	}
	return readMahimahi(name, b)
}

func readMahimahi(name string, r io.Reader) (*Trace, error) {
	t := &Trace{Slot: mahimahiSlot}
	sc := bufio.NewScanner(r)
	last := int64(0)
	for line := 1; sc.Scan(); line++ {
		text := strings.TrimSpace(sc.Text())
		if text == "" {
			continue
		}
		at, err := strconv.ParseInt(text, 10, 64)
		if err != nil || at < last {
			return nil, fmt.Errorf("%s:%d:1: want a millisecond of at least %d, got %q", name, line, last, text)
		}
		last = at
		slot := int(max(0, at-1) / mahimahiSlot.Milliseconds()) // an opportunity at 100 ms ends the first slot
		if slot >= maxTraceSlots {
			return nil, fmt.Errorf("%s:%d:1: the trace is longer than %d slots of %v", name, line, maxTraceSlots, mahimahiSlot)
		}
		for len(t.Rates) <= slot {
			t.Rates = append(t.Rates, 0)
		}
		t.Rates[slot] += mahimahiBytes / mahimahiSlot.Seconds()
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	if len(t.Rates) == 0 {
		return nil, fmt.Errorf("%s: no deliveries in it", name)
	}
	return t, nil
}

func readRates(name string, r io.Reader, direction string) (*Trace, error) {
	c := csv.NewReader(r)
	head, err := c.Read()
	if err != nil {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	want := direction + "_bytes_per_s"
	when, rate := -1, -1
	for i, h := range head {
		switch strings.TrimSpace(h) {
		case "time_s":
			when = i
		case want:
			rate = i
		}
	}
	if when < 0 || rate < 0 {
		return nil, fmt.Errorf("%s:1:1: want columns time_s and %s, got %s", name, want, strings.Join(head, ", "))
	}
	var times []float64
	t := &Trace{}
	for {
		row, err := c.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read trace %s: %w", name, err)
		}
		at, err1 := strconv.ParseFloat(strings.TrimSpace(row[when]), 64)
		x, err2 := strconv.ParseFloat(strings.TrimSpace(row[rate]), 64)
		if err1 != nil || err2 != nil || !(x >= 0) || math.IsInf(x, 0) || math.IsInf(at, 0) || math.IsNaN(at) {
			line, col := c.FieldPos(rate)
			return nil, fmt.Errorf("%s:%d:%d: want a time and a rate of at least 0, got %q and %q", name, line, col, row[when], row[rate])
		}
		times, t.Rates = append(times, at), append(t.Rates, x)
		if len(times) > maxTraceSlots {
			return nil, fmt.Errorf("%s: more than %d rows", name, maxTraceSlots)
		}
	}
	return t, t.space(name, times)
}

// space takes the slot from evenly spaced times, within a tenth of it.
func (t *Trace) space(name string, times []float64) error {
	if len(times) < 2 {
		return fmt.Errorf("%s: want at least two rows, got %d", name, len(times))
	}
	for i := 1; i < len(times); i++ {
		if times[i] < times[i-1] {
			return fmt.Errorf("%s: row %d: time goes back from %g to %g s: sort the rows", name, i+1, times[i-1], times[i])
		}
	}
	step := (times[len(times)-1] - times[0]) / float64(len(times)-1)
	if !(step >= 1e-3) || step > 3600 {
		return fmt.Errorf("%s: rows are %g s apart: want 0.001 to 3600", name, step)
	}
	for i := range times {
		if off := times[i] - times[0] - float64(step*float64(i)); math.Abs(off) > step/10 {
			return fmt.Errorf("%s: row %d is %g s off an even spacing of %g s", name, i+1, off, step)
		}
	}
	t.Slot = time.Duration(math.Round(step * 1e9))
	return nil
}
