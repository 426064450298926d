package sweep

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"meibench/harness"
	"meibench/harness/ops"
	"meibench/harness/plan"
	"meibench/harness/results"
	"meibench/internal/canon"
)

// SharesFile is in a merged run folder: the marks of the shards that it was made of. It
// says where and when cells ran; no table depends on it.
const SharesFile = "shards.json"

// Incomplete says which shards a sweep still misses.
type Incomplete struct {
	Dir    string
	Shards []string // "shard-3: why"
}

// Error names the shards and the way on.
func (e *Incomplete) Error() string {
	return fmt.Sprintf("sweep %s is not whole: %s; go on with: meibench sweep --out %s", e.Dir, strings.Join(e.Shards, "; "), e.Dir)
}

// Refused says which shards cannot be merged, and why.
type Refused struct {
	Dir    string
	Shards []string // "shard-3: why"
}

// Error names the shards and the way on.
func (e *Refused) Error() string {
	return fmt.Sprintf("sweep %s cannot be merged: %s; remove what is named, and go on with: meibench sweep --out %s", e.Dir, strings.Join(e.Shards, "; "), e.Dir)
}

// Info is what a merge made.
type Info struct {
	Marks []Mark
	Cells int // runs of cells
	Rows  int64
}

// Merge writes the run folder that one process would have left: the tables have its
// bytes, and run.json differs only in what HostFacts names. Every shard must be there
// once, whole, unchanged, and of this sweep; else nothing is written, and the error is
// an *Incomplete or a *Refused that names them.
func Merge(dir, out string) (*Info, error) {
	d, err := Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, bad("%s holds no sweep: %w", dir, err)
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(out, results.ManifestFile)); err == nil {
		return nil, bad("%s already holds a run: choose another --out", out)
	}
	marks, err := d.marks()
	if err != nil {
		return nil, err
	}
	var sets []*results.Set
	defer func() {
		for _, s := range sets {
			_ = s.Close()
		}
	}()
	var wrong []string
	for i := range marks {
		s, err := d.check(i, &marks[i])
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s%d: %v", prefix, i, err))
			continue
		}
		sets = append(sets, s)
	}
	if len(wrong) > 0 {
		return nil, &Refused{dir, wrong}
	}
	m, err := d.manifest(sets)
	if err != nil {
		return nil, err
	}
	if err := d.beside(out, marks); err != nil {
		return nil, err
	}
	if err := results.Merge(out, m, sets); err != nil {
		return nil, err
	}
	info := &Info{Marks: marks}
	for _, k := range marks {
		info.Cells, info.Rows = info.Cells+k.Cells, info.Rows+k.Rows
	}
	return info, nil
}

// marks reads those of all shards, and refuses folders that look like shards of this
// sweep and are none.
func (d *Dir) marks() ([]Mark, error) {
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return nil, err
	}
	var wrong, missing []string
	have := map[string]bool{}
	for _, e := range entries {
		have[e.Name()] = true
	}
	known := map[string]bool{}
	marks := make([]Mark, d.Sheet.Shards)
	for i := range marks {
		name := fmt.Sprint(prefix, i)
		known[name], known[name+partial] = true, true
		m, err := d.mark(i)
		switch {
		case err != nil:
			wrong = append(wrong, fmt.Sprintf("%s: %v", name, err))
		case m != nil:
			marks[i] = *m
		case have[name]:
			wrong = append(wrong, name+": it has no mark "+DoneFile+": damaged")
		case have[name+partial]:
			missing = append(missing, name+": it was interrupted, or is still running")
		default:
			missing = append(missing, name+": it never began")
		}
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && !known[e.Name()] {
			wrong = append(wrong, fmt.Sprintf("%s: a sweep in %d shards has none of this name: foreign", e.Name(), d.Sheet.Shards))
		}
	}
	switch {
	case len(wrong) > 0:
		return nil, &Refused{d.Path, wrong}
	case len(missing) > 0:
		return nil, &Incomplete{d.Path, missing}
	}
	return marks, nil
}

// check opens a shard and compares it with its mark, its digests, and what the plan
// says is in it.
func (d *Dir) check(i int, m *Mark) (_ *results.Set, err error) {
	dir := d.Name(i)
	run, err := results.DigestFile(filepath.Join(dir, results.ManifestFile))
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	if run.SHA256 != m.Run {
		return nil, fmt.Errorf("damaged: %s is not the file that %s marks", results.ManifestFile, DoneFile)
	}
	s, err := results.Read(dir)
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	for _, name := range []string{results.RequestsFile, results.SpansFile, results.CellsFile, results.BenchFile} {
		got, err := results.DigestFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("damaged: %w", err)
		}
		if want := s.Manifest.Files[name]; got != want {
			return nil, fmt.Errorf("damaged: %s is not the file that %s knows (%d bytes, were %d)", name, results.ManifestFile, got.Bytes, want.Bytes)
		}
	}
	return s, d.belongs(i, s)
}

// belongs compares the runs of cells of a shard with its share of the plan.
func (d *Dir) belongs(i int, s *results.Set) error {
	share, err := d.options(i).Share()
	if err != nil {
		return err
	}
	contract := map[string]string{}
	for _, suite := range d.Sheet.Plan.Suites {
		for _, c := range suite.Cells {
			contract[suite.Name+"/"+c.Name] = c.Contract
		}
	}
	want := map[results.Key]harness.Arm{}
	for _, a := range share {
		want[a.Key()] = a
	}
	for _, r := range s.Runs() {
		k := results.KeyOf(&r.Cell)
		a, ok := want[k]
		if !ok {
			return fmt.Errorf("foreign: %s is not in its share of the plan, or is in it twice", k)
		}
		if r.Cell.Index != a.Index || r.Cell.Contract != contract[k.Suite+"/"+k.Cell] {
			return fmt.Errorf("foreign: %s ran under other terms than the plan has", k)
		}
		delete(want, k)
	}
	for k := range want {
		return fmt.Errorf("damaged: %s is missing from it (and %d more)", k, len(want)-1)
	}
	return nil
}

// HostFacts are the fields of run.json that say where and when a run was made. All
// others are equal in a merged run and in one that was never cut.
func HostFacts() []string {
	return []string{"command", "cpu", "finished", "go_version", "goamd64", "goarch", "governor", "host", "kernel", "started", "warnings"}
}

// Differences names the fields, apart from HostFacts, in which two manifests differ, sorted.
func Differences(a, b results.Manifest) []string {
	var out []string
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range va.NumField() {
		name, _, _ := strings.Cut(va.Type().Field(i).Tag.Get("json"), ",")
		if slices.Contains(HostFacts(), name) {
			continue
		}
		x, err := canon.JSON(va.Field(i).Interface())
		y, err2 := canon.JSON(vb.Field(i).Interface())
		if err != nil || err2 != nil || string(x) != string(y) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// manifest is that of the whole: what shards agree on, and their hosts side by side.
func (d *Dir) manifest(sets []*results.Set) (results.Manifest, error) {
	bare := func(m results.Manifest) results.Manifest { // without what each shard has of its own
		m.Expected, m.Blocks, m.Rows, m.Spans, m.Complete, m.Files, m.Agents = 0, 0, 0, 0, false, nil, nil
		return m
	}
	m := bare(sets[0].Manifest)
	var wrong []string
	list := make([]results.Manifest, len(sets))
	for i, s := range sets {
		list[i] = s.Manifest
		if diff := Differences(m, bare(s.Manifest)); len(diff) > 0 {
			wrong = append(wrong, fmt.Sprintf("%s%d: foreign: its %s differ from those of %s0: it was made by another program or of other files", prefix, i, strings.Join(diff, ", "), prefix))
		}
	}
	if len(wrong) > 0 {
		return m, &Refused{d.Path, wrong}
	}
	m.Expected = d.Sheet.Plan.Runs()
	for _, f := range []func(*results.Manifest) *string{
		func(m *results.Manifest) *string { return &m.GoVersion }, func(m *results.Manifest) *string { return &m.GOARCH },
		func(m *results.Manifest) *string { return &m.GOAMD64 }, func(m *results.Manifest) *string { return &m.CPU },
		func(m *results.Manifest) *string { return &m.Kernel }, func(m *results.Manifest) *string { return &m.Governor }} {
		*f(&m) = joined(list, func(m *results.Manifest) string { return *f(m) })
	}
	m.Host = map[string]string{}
	m.Warnings = nil
	var last time.Time
	for i := range list {
		one := &list[i]
		for k := range one.Host {
			m.Host[k] = joined(list, func(m *results.Manifest) string { return m.Host[k] })
		}
		for _, w := range one.Warnings {
			m.Warnings = append(m.Warnings, fmt.Sprintf("shard %d: %s", i, w))
		}
		if one.Started.Before(m.Started) {
			m.Started = one.Started
		}
		if one.Finished.After(last) {
			last = *one.Finished
		}
		m.AddAgents(one.Agents)
	}
	m.Finished = &last
	return m, nil
}

// joined is what all manifests say, or their different words side by side.
func joined(list []results.Manifest, of func(*results.Manifest) string) string {
	var words []string
	for i := range list {
		if w := of(&list[i]); w != "" && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	slices.Sort(words)
	return strings.Join(words, " | ")
}

// beside writes what a run folder has beside its tables: plan, receipt and the machine's
// profile as one process leaves them, and the marks.
func (d *Dir) beside(out string, marks []Mark) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("make the run folder: %w: choose another --out", err)
	}
	err := d.Sheet.Plan.Write(filepath.Join(out, plan.File))
	if d.Sheet.Receipt != nil {
		err = errors.Join(err, d.Sheet.Receipt.Write(filepath.Join(out, plan.ReceiptFile)))
	}
	if d.Sheet.Host != "" {
		err = errors.Join(err, writeSynced(filepath.Join(out, hostFile), []byte(d.Sheet.Host)))
	}
	// What measured cells left for calibration: a file for each run of a cell.
	err = errors.Join(err, os.RemoveAll(filepath.Join(out, ops.Dir)))
	for i := range marks {
		from := filepath.Join(d.Name(i), ops.Dir)
		if _, serr := os.Stat(from); serr == nil {
			err = errors.Join(err, os.CopyFS(filepath.Join(out, ops.Dir), os.DirFS(from)))
		}
	}
	text, jerr := canon.JSON(marks)
	return errors.Join(err, jerr, writeSynced(filepath.Join(out, SharesFile), append(text, '\n')))
}

// Status counts the shards of a sweep that are done.
func (d *Dir) Status() (done int, err error) {
	for i := range d.Sheet.Shards {
		ok, err := d.Done(i)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return done, err
		}
		if ok {
			done++
		}
	}
	return done, nil
}
