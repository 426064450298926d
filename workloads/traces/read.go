package traces

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"meibench/internal/rng"
)

// Options are how a trace is read. The zero value is right for most files.
type Options struct {
	Format   string // one of Formats; "" finds out
	Seed     uint64 // of the luck that spreads batches
	NoSpread bool   // leave batches on their instants
	Sort     bool   // sort rows by time instead of refusing time that goes backwards
	MaxRows  int    // refuse longer traces; 0 = 20 million
	MaxBytes int64  // refuse longer files, uncompressed; 0 = 8 GiB
}

// parser reads the rows of one format. It is given every line in turn.
type parser interface {
	// row reads the current line. A header or comment returns false.
	row(l *lines, t *Trace, r *Row) (bool, error)
}

// format is a way to write a trace down.
type format struct {
	Name string
	Doc  string
	is   func(first string) bool // by the first line that is not empty
	new  func() parser
}

// formats lists the formats, sorted by name.
func formats() []format {
	return []format{
		{"azure", "Azure LLM inference traces 2023 and 2024, multimodal 2025 (CSV)", isAzure, func() parser { return new(azure) }},
		{"bailian", "Qwen-Bailian usage traces (JSON lines, 16-token blocks)", isBailian, func() parser { return newBailian() }},
		{"burstgpt", "BurstGPT (CSV)", isBurstGPT, func() parser { return newBurstGPT() }},
		{"meibench", "this package's own form (CSV)", isCanonical, func() parser { return new(canonical) }},
		{"mooncake", "Mooncake traces (JSON lines, 512-token blocks)", isMooncake, func() parser { return new(mooncake) }},
	}
}

// Formats lists the formats that Read knows, sorted.
func Formats() []string {
	var names []string
	for _, f := range formats() {
		names = append(names, f.Name)
	}
	return names
}

// Open reads the trace in a file.
func Open(path string, opt Options) (*Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open trace: %w", err)
	}
	defer f.Close()
	return Read(f, path, opt)
}

// Read reads a trace; name is used in errors and kept in the result.
func Read(r io.Reader, name string, opt Options) (*Trace, error) {
	if opt.MaxRows == 0 {
		opt.MaxRows = defaultRows
	}
	l, err := newLines(r, name, opt.MaxBytes)
	if err != nil {
		return nil, err
	}
	t := &Trace{Name: name, Factor: 1}
	rd := reading{l: l, t: t, opt: opt}
	if err := l.each(rd.line); err != nil {
		return nil, err
	}
	return rd.finish()
}

// reading is a trace under construction.
type reading struct {
	l     *lines
	t     *Trace
	opt   Options
	parse parser
	last  time.Duration
}

func (rd *reading) line() error {
	if rd.parse == nil {
		if err := rd.detect(); err != nil {
			return err
		}
	}
	r := Row{User: -1, Session: -1, Type: -1}
	before, types := len(rd.t.arena), len(rd.t.Types)
	ok, err := rd.parse.row(rd.l, rd.t, &r)
	if err != nil || !ok {
		return err
	}
	if len(rd.t.Rows) > 0 && r.At < rd.last && !rd.opt.Sort {
		return rd.l.fail(1, fmt.Sprintf("time goes backwards: %v after %v", r.At, rd.last), "sort the file by time, or sort it (--sort)")
	}
	rd.last = r.At
	if r.Prompt == 0 || r.Output == 0 {
		rd.t.Skipped++
		rd.t.arena, rd.t.Types = rd.t.arena[:before], rd.t.Types[:types]
		return nil
	}
	if len(rd.t.Rows) >= rd.opt.MaxRows {
		return rd.l.fail(1, fmt.Sprintf("more than %d requests", rd.opt.MaxRows), "raise Options.MaxRows if that is meant")
	}
	if uint64(len(rd.t.arena)) > 1<<32-1 {
		return rd.l.fail(1, "more than 2^32 prefix blocks", "cut the file into parts")
	}
	r.firstBlock, r.blocks = uint32(before), uint32(len(rd.t.arena)-before)
	rd.t.Rows = append(rd.t.Rows, r)
	return nil
}

// detect picks the parser by name or by the first line.
func (rd *reading) detect() error {
	first := strings.TrimPrefix(string(rd.l.text), "\ufeff")
	rd.l.text = []byte(first)
	for _, f := range formats() {
		if rd.opt.Format == f.Name || rd.opt.Format == "" && f.is(first) {
			rd.t.Format, rd.parse = f.Name, f.new()
			return nil
		}
	}
	if rd.opt.Format != "" {
		return fmt.Errorf("%s: unknown trace format %q (have %s)", rd.l.file, rd.opt.Format, strings.Join(Formats(), ", "))
	}
	if rateFormat(first) != "" {
		return rd.l.fail(1, "this is a ServeGen table of rates, not of requests", "make requests from it with ReadRates and Rates.Trace")
	}
	return rd.l.fail(1, "the first line belongs to no known trace format", "name the format (have "+strings.Join(Formats(), ", ")+") or convert the file")
}

func (rd *reading) finish() (*Trace, error) {
	t := rd.t
	if len(t.Rows) == 0 {
		return nil, fmt.Errorf("%s: no request in %d lines (%d without prompt or answer): is the file cut short?", rd.l.file, rd.l.number, t.Skipped)
	}
	if rd.opt.Sort {
		slices.SortStableFunc(t.Rows, func(a, b Row) int { return cmp.Compare(a.At, b.At) })
	}
	for i, start := 0, t.Rows[0].At; i < len(t.Rows); i++ {
		t.Rows[i].At -= start
	}
	if _, own := rd.parse.(*canonical); !own && !rd.opt.NoSpread {
		t.spread(rd.opt.Seed)
	}
	return t, nil
}

// spread moves the requests of a recording that ticks in whole seconds from the
// start of a tick to uniform times within it, in the order recorded.
func (t *Trace) spread(seed uint64) {
	tick, perTick := t.tick()
	if tick == 0 {
		return
	}
	key, luck := rng.NewKey(seed, "spread", t.Format), new(rng.Luck)
	var offsets []time.Duration
	for i := 0; i < len(t.Rows); {
		at, j, room := t.Rows[i].At, i, tick
		offsets = offsets[:0]
		for ; j < len(t.Rows) && t.Rows[j].At == at; j++ {
			*luck = key.At(uint64(j))
			offsets = append(offsets, time.Duration(luck.Uint64()>>1))
		}
		if j < len(t.Rows) {
			room = min(tick, t.Rows[j].At-at)
		}
		slices.Sort(offsets)
		for k, d := range offsets { // d is uniform on [0, 2^63)
			t.Rows[i+k].At += time.Duration(float64(d) / (1 << 63) * float64(room))
		}
		i = j
	}
	start := t.Rows[0].At
	for i := range t.Rows {
		t.Rows[i].At -= start
	}
	t.Notes = append(t.Notes, fmt.Sprintf("recorded in ticks of %v with %.3g requests each: spread uniformly over the tick, seed %d", tick, perTick, seed))
}

// tick finds out whether the recording's clock moved in steps of a second or
// more with several requests a step. The step is the 10th percentile of the
// times between different instants (the median of those like it, for the
// Mooncake conversation trace has a few of 2.999 and 3.001 s among those of 3),
// and nearly all must be multiples of it.
func (t *Trace) tick() (tick time.Duration, perTick float64) {
	var steps []time.Duration
	for i := 1; i < len(t.Rows); i++ {
		if d := t.Rows[i].At - t.Rows[i-1].At; d > 0 {
			steps = append(steps, d)
		}
	}
	perTick = float64(len(t.Rows)) / float64(len(steps)+1)
	if len(steps) == 0 || perTick < 1.5 {
		return 0, 0
	}
	slices.Sort(steps)
	tick = steps[len(steps)/10]
	from, _ := slices.BinarySearch(steps, tick-tick/100)
	to, _ := slices.BinarySearch(steps, tick+tick/100+1)
	if tick = steps[(from+to)/2]; tick < time.Second {
		return 0, 0
	}
	whole := 0
	for _, d := range steps {
		if rest := (d + tick/100) % tick; rest <= tick/50 {
			whole++
		}
	}
	if whole*10 < len(steps)*9 {
		return 0, 0
	}
	return tick, perTick
}

// numbering gives names numbers in order of appearance.
type numbering map[string]int32

func (n numbering) of(name string) int32 {
	id, ok := n[name]
	if !ok {
		id = int32(len(n))
		n[name] = id
	}
	return id
}

// typeOf returns the number of a kind of request; there are few.
func (t *Trace) typeOf(l *lines, c cell) (int16, error) {
	if i := slices.Index(t.Types, c.text); i >= 0 {
		return int16(i), nil
	}
	if len(c.text) > 64 || strings.ContainsFunc(c.text, func(r rune) bool { return r < ' ' || r == ',' || r == '"' }) {
		return 0, l.fail(c.column, fmt.Sprintf("type: want a short name without commas and quotes, got %q", clip(c.text)), "")
	}
	if len(t.Types) == 1000 {
		return 0, l.fail(c.column, "more than 1000 types of request", "is this the right column?")
	}
	t.Types = append(t.Types, c.text)
	return int16(len(t.Types) - 1), nil
}
