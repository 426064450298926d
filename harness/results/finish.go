package results

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow/array"
	"golang.org/x/perf/benchfmt"

	"meibench/harness/record"
)

// Finish turns the journal into the tables and the benchmark text, and closes
// the run. Either all files of the folder are replaced or the manifest still
// says that the run is not finished, and Open goes on with it. The journal goes
// when every expected run of a cell is there; until then Open may add more.
func (r *Run) Finish() error {
	r.mu.Lock()
	switch {
	case r.closed:
		r.mu.Unlock()
		return ErrClosed
	case r.err != nil:
		r.mu.Unlock()
		return r.Close() // which returns it
	case len(r.open) > 0:
		r.mu.Unlock()
		return fmt.Errorf("finish run %s: %d blocks have not ended: End or Abandon them first", r.dir, len(r.open))
	}
	r.mu.Unlock()
	err := r.finalise()
	if err == nil && r.manifest.Complete {
		r.disk.remove(r.j.path)
	}
	return errors.Join(err, r.Close())
}

func (r *Run) finalise() error {
	blocks := r.done()
	m := r.manifest
	m.Files = map[string]Digest{}
	m.Blocks, m.Rows, m.Spans = len(blocks), 0, 0
	m.Complete = len(blocks) >= m.Expected
	extents, values, err := r.writeRows(blocks, &m)
	if err != nil {
		return err
	}
	m.Files[CellsFile], err = writeWhole(r.disk, r.path(CellsFile), func(s *sink) error {
		t, err := newCells(s, blocks, runMetrics())
		if err != nil {
			return err
		}
		for i, b := range blocks {
			if err := t.put(&b.cell, extents[i], values[i]); err != nil {
				return err
			}
		}
		return t.close()
	})
	if err != nil {
		return err
	}
	m.Files[BenchFile], err = writeWhole(r.disk, r.path(BenchFile), func(s *sink) error {
		lines := make([]Line, len(blocks))
		for i, b := range blocks {
			lines[i] = Line{&b.cell, int(extents[i].Rows), values[i]}
		}
		return WriteBench(s, lines)
	})
	if err != nil {
		return err
	}
	for _, name := range []string{RequestsFile, SpansFile, CellsFile, BenchFile} {
		if err := r.disk.rename(r.path(name)+tempSuffix, r.path(name)); err != nil {
			return diskError("replace", r.path(name), err)
		}
	}
	if m.Finished == nil { // else it is a merge of runs that finished long ago
		now := time.Now().UTC()
		m.Finished = &now
	}
	if err := m.save(r.disk, r.dir); err != nil {
		return err
	}
	r.mu.Lock()
	r.manifest = m
	r.mu.Unlock()
	return nil
}

func (r *Run) path(name string) string { return filepath.Join(r.dir, name) }

// writeRows writes requests and spans in one pass over the journal.
func (r *Run) writeRows(blocks []*block, m *Manifest) (extents []extent, values [][]record.Value, err error) {
	m.Files[RequestsFile], err = writeWhole(r.disk, r.path(RequestsFile), func(rs *sink) error {
		var inner error
		m.Files[SpansFile], inner = writeWhole(r.disk, r.path(SpansFile), func(ss *sink) error {
			req, err := newRequests(rs, blocks)
			if err != nil {
				return err
			}
			spn, err := newSpans(ss, blocks)
			if err != nil {
				return err
			}
			extents, values, err = fill(r.j.f, blocks, req, spn)
			m.Rows, m.Spans = req.total, spn.total
			return errors.Join(err, req.close(), spn.close())
		})
		return inner
	})
	return extents, values, err
}

func fill(f file, blocks []*block, req *requests, spn *spans) (extents []extent, values [][]record.Value, err error) {
	for i, b := range blocks {
		req.id.set(&b.cell)
		spn.now = int32(i)
		e := extent{FirstRow: req.total, FirstSpan: spn.total}
		sum := record.NewSummary(&b.cell)
		sum.Grow(b.rows)
		from := b.from
		if from == nil {
			from = func(each func(*record.Request) error) error { return merge(f, b, each) }
		}
		err := from(func(r *record.Request) error {
			sum.Add(r)
			if err := req.put(r); err != nil {
				return err
			}
			return spn.put(r)
		})
		if err != nil {
			return nil, nil, err
		}
		e.Rows, e.Spans = req.total-e.FirstRow, spn.total-e.FirstSpan
		extents, values = append(extents, e), append(values, sum.Values())
	}
	return extents, values, nil
}

// Merge writes one run from finished ones: all their runs of cells, in table order,
// with the bytes that one process would have left that had made them all. Rows pass
// through one by one: memory holds a batch of each table and the figures of one run
// of a cell. The manifest is the caller's; Merge adds what Finish adds, and keeps the
// time of the end if there is one. A folder with a run is refused, and so is a run of
// a cell that comes twice.
func Merge(dir string, m Manifest, from []*Set) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the run folder: %w: choose another --out", err)
	}
	if _, err := os.Stat(filepath.Join(dir, ManifestFile)); err == nil {
		return fmt.Errorf("merge into %s: the folder already holds a run: choose another --out", dir)
	}
	f, err := openJournal(dir, os.O_CREATE|os.O_TRUNC) // nothing is written to it: it keeps others out
	if err != nil {
		return err
	}
	m.Format = Format
	r := &Run{dir: dir, disk: realDisk{}, manifest: m, j: &journal{f: f, path: f.Name(), blocks: map[uint64]*block{}}}
	seen := map[Key]string{}
	for _, s := range from {
		nodes, used, err := s.spread()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		for i := range s.runs {
			k := KeyOf(&s.runs[i].Cell)
			if was, ok := seen[k]; ok {
				return errors.Join(fmt.Errorf("merge: %s is in %s and in %s", k, was, s.Dir), f.Close())
			}
			seen[k] = s.Dir
			r.j.blocks[r.j.next] = &block{cell: s.runs[i].Cell, rows: s.runs[i].Rows, nodes: nodes, used: used, done: true, from: s.pass(i)}
			r.j.next++
		}
	}
	if err := r.finalise(); err != nil {
		return errors.Join(err, f.Close())
	}
	r.disk.remove(r.j.path)
	return f.Close()
}

// pass hands the requests of run i on, with their spans.
func (s *Set) pass(i int) func(each func(*record.Request) error) error {
	return func(each func(*record.Request) error) error {
		for r, err := range s.Full(i) {
			if err == nil {
				err = each(r)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// spread is what the tables of a set need room for: the nodes of its spans, and the
// counters that some request used.
func (s *Set) spread() (nodes []string, used uint64, err error) {
	defer safely(&err)
	for c := range record.NumCounters {
		if _, ok := s.requests.cols[c.String()]; ok {
			used |= 1 << c
		}
	}
	if _, ok := s.requests.cols["output_hash"]; ok {
		used |= hashUsed
	}
	if s.spans.rows == 0 {
		return nil, used, nil
	}
	b, err := s.spans.batch(0)
	if err == nil {
		err = b.err
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", filepath.Join(s.Dir, SpansFile), err)
	}
	words := b.node.Dictionary().(*array.String)
	for i := range words.Len() {
		nodes = append(nodes, words.Value(i))
	}
	return nodes, used, nil
}

// Summarise computes the per-run metrics of a cell from its rows, in the order
// of the metrics' table.
func Summarise(c *record.Cell, rows iter.Seq[*record.Request]) []record.Value {
	s := record.NewSummary(c)
	for r := range rows {
		s.Add(r)
	}
	return s.Values()
}

// runMetrics is the per-run part of the table of metrics.
func runMetrics() (out []record.Metric) {
	for _, m := range record.Metrics() {
		if m.Scope == record.PerRun {
			out = append(out, m)
		}
	}
	return out
}

// Line is one line of benchmark text: one run of one cell.
type Line struct {
	Cell   *record.Cell
	Rows   int // requests behind the values
	Values []record.Value
}

// modelled is the prefix of units whose values a seed fixes. benchstat keeps
// what it knows of a unit for all lines, so a figure that one cell measures and
// another computes needs two names.
const modelled = "modelled-"

// WriteBench writes the Go benchmark format: what each unit is, then a line per
// run of a cell, never per request, since requests of a run are not independent.
// Times are in sec, the base unit. A cell's contract is a configuration line, so
// an unmodified benchstat never compares runs under different contracts; an
// invalid run is kept apart from valid ones in the same way.
func WriteBench(out io.Writer, lines []Line) error {
	w := benchfmt.NewWriter(out)
	for _, u := range unitsOf(lines) {
		if err := w.Write(u); err != nil {
			return err
		}
	}
	names := benchNames(lines)
	for i, l := range lines {
		res := benchfmt.Result{Config: config(l.Cell), Name: benchfmt.Name(names[i]), Iters: max(l.Rows, 1)}
		for _, v := range l.Values {
			if !math.IsNaN(v.V) {
				res.Values = append(res.Values, benchfmt.Value{Value: v.V, Unit: unitOf(l.Cell, v.Metric)})
			}
		}
		if len(res.Values) == 0 {
			continue
		}
		if err := w.Write(&res); err != nil {
			return err
		}
	}
	return nil
}

func unitOf(c *record.Cell, m record.Metric) string {
	if c.Mode == "modelled" {
		return modelled + m.Bench
	}
	return m.Bench
}

// unitsOf lists what is to be said of the units that the lines use, sorted.
func unitsOf(lines []Line) []*benchfmt.UnitMetadata {
	said := map[string]*benchfmt.UnitMetadata{}
	for _, l := range lines {
		for _, v := range l.Values {
			unit := unitOf(l.Cell, v.Metric)
			say := func(key, value string) {
				u := benchfmt.UnitMetadata{OrigUnit: unit, Value: value}
				u.Unit, u.Key = unit, key
				said[unit+" "+key] = &u
			}
			if v.Metric.Better != record.Neither {
				say("better", v.Metric.Better.String())
			}
			if strings.HasPrefix(unit, modelled) {
				say("assume", "exact")
			}
		}
	}
	var out []*benchfmt.UnitMetadata
	for _, k := range slices.Sorted(maps.Keys(said)) {
		out = append(out, said[k])
	}
	return out
}

func config(c *record.Cell) []benchfmt.Config {
	contract := c.Contract
	if contract == "" {
		contract = "none"
	}
	out := []benchfmt.Config{{Key: "contract", Value: []byte(contract), File: true}}
	if !c.Valid {
		out = append(out, benchfmt.Config{Key: "validity", Value: []byte("INVALID"), File: true})
	}
	return out
}

// benchNames are the lines' benchmark names. Repeats of a cell share a name; so
// do its seeds where the run is measured, as each is one sample of the same
// thing, while a modelled run is exact and has its seed in the name.
func benchNames(lines []Line) []string {
	cells := make([]*record.Cell, len(lines))
	for i := range lines {
		cells[i] = lines[i].Cell
	}
	out := Names(cells)
	for i, c := range cells {
		if c.Mode == "modelled" {
			out[i] += "/seed=" + strconv.FormatUint(c.Seed, 10)
		}
	}
	return out
}

// Names are the names of runs of cells in benchmark text, without their seeds:
// all runs of a cell have one. The cell's own name appears only where two cells
// would otherwise look alike, so that benchstat -col /pipeline compares the
// pipelines of a suite.
func Names(cells []*record.Cell) []string {
	owners := map[string]map[string]bool{}
	for _, c := range cells {
		n := benchName(c)
		if owners[n] == nil {
			owners[n] = map[string]bool{}
		}
		owners[n][c.Suite+"/"+c.Name] = true
	}
	out := make([]string, len(cells))
	for i, c := range cells {
		if out[i] = benchName(c); len(owners[out[i]]) > 1 {
			out[i] += "/cell=" + part(c.Suite+"."+c.Name)
		}
		if c.Mode != "modelled" { // or a seed follows
			out[i] = notProcs.ReplaceAllString(out[i], "_$1")
		}
	}
	return out
}

// BenchUnit is the unit of a metric of a cell in benchmark text.
func BenchUnit(c *record.Cell, m *record.Metric) string { return unitOf(c, *m) }

var (
	notPart  = regexp.MustCompile(`[^A-Za-z0-9_.,:+=-]`)
	notProcs = regexp.MustCompile(`-([0-9]+)$`) // would be read as GOMAXPROCS
)

func part(s string) string { return notPart.ReplaceAllString(s, "_") }

func benchName(c *record.Cell) string {
	app := part(c.App)
	if app == "" {
		app = "Cell"
	}
	var b strings.Builder
	b.WriteString(strings.ToUpper(app[:1]) + app[1:])
	for _, kv := range [][2]string{{"pipeline", c.Pipeline}, {"site", c.Site}, {"model", c.Model}, {"mode", c.Mode}} {
		if kv[1] != "" {
			fmt.Fprintf(&b, "/%s=%s", kv[0], part(kv[1]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.Params)) {
		fmt.Fprintf(&b, "/%s=%s", part(k), part(fmt.Sprint(c.Params[k])))
	}
	return b.String()
}
