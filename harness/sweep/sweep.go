// Package sweep runs a plan in parts, on many cores and machines, and puts the parts
// together again.
//
//	sheet := &sweep.Sheet{Shards: 4, Plan: p}
//	d, err := sweep.Begin(dir, sheet)                // or Open, in another process
//	err = d.Run(ctx, lab, 2, options)                // shard 2 of 4; any number at once, anywhere
//	info, err := sweep.Merge(dir, "results")         // when all are there
//
// A shard is a pure function of the plan, its number and how many there are: whole runs
// of cells, dealt by their estimated cost (plan.Split). It is written into
// shard-2.partial, which any later process goes on with, and becomes shard-2 with a mark
// DONE in it by one rename. Merge believes marks and digests, not exit codes, and what it
// writes does not depend on the number of shards.
//
// Modelled cells run side by side. Measured and emulated ones take a lock of the machine
// (Node) and run alone; the mark says on which node.
//
// The package starts no processes and manages no cluster: Slurm, Kubernetes or a shell
// start `meibench sweep --shard` as often as they like. Agents and endpoints of other
// machines belong to `meibench run`.
package sweep

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/harness/plan"
	"meibench/harness/results"
	"meibench/internal/canon"
	"meibench/internal/filelock"
	"meibench/internal/host"
)

// Formats of the two files of this package.
const (
	Format     = "meibench.sweep/v1"
	MarkFormat = "meibench.shard/v1"
)

// Names in the folder of a sweep.
const (
	File     = "sweep.json"
	DoneFile = "DONE" // in the folder of a shard that is complete

	prefix   = "shard-"
	partial  = ".partial"
	hostFile = "host.yaml" // in run folders, as package harness has it
)

// Sheet is what all shards of a sweep have in common. It is written once.
type Sheet struct {
	Format  string        `json:"format"`
	Shards  int           `json:"shards"`
	Plan    *plan.Plan    `json:"plan"`
	Receipt *plan.Receipt `json:"receipt,omitempty"` // of a plan in a log, whose seed it gives
	Host    string        `json:"host,omitempty"`    // profile of the machine (YAML), where cells need one
	CPU     string        `json:"cpu,omitempty"`     // of that machine, where cells run on it: shards run on no other kind
	Command []string      `json:"command"`           // the meibench run that would leave the same
}

// Dir is the folder of a sweep that has begun. One goroutine at a time may run shards
// with it; others open their own.
type Dir struct {
	Path  string
	Sheet *Sheet

	digest  string       // of the plan
	settled *harness.Lab // that settle was called with
}

// Begin writes the sheet into a folder, which it makes. If a sweep of the same plan and
// the same number of shards has begun there, it is gone on with: of several processes
// that begin at once, one writes, and all have its sheet. Another sweep is refused.
func Begin(dir string, s *Sheet) (*Dir, error) {
	s.Format = Format
	if s.Shards < 1 || s.Shards > plan.MostShards {
		return nil, bad("sweep %s: %d shards: want 1 to %d", dir, s.Shards, plan.MostShards)
	}
	was, err := Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = place(dir, s); err != nil {
			return nil, err
		}
		was, err = Open(dir) // perhaps another's
	}
	if err != nil {
		return nil, err
	}
	digest, err := s.Plan.Digest()
	if err != nil {
		return nil, err
	}
	if was.digest != digest {
		return nil, bad("%s holds a sweep of another plan (%.12s; this is %.12s): choose another --out, or leave out the suite to go on with it", dir, was.digest, digest)
	}
	if was.Sheet.Shards != s.Shards {
		return nil, bad("%s is a sweep in %d shards, not %d: choose another --out", dir, was.Sheet.Shards, s.Shards)
	}
	return was, nil
}

// place puts the sheet under its name if there is none yet. A link cannot replace a
// file; where there are no links a rename has to do.
func place(dir string, s *Sheet) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of the sweep: %w: choose another --out", err)
	}
	text, err := canon.JSON(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".sweep-*")
	if err != nil {
		return fmt.Errorf("write into %s: %w: the folder must be writable", dir, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	to := filepath.Join(dir, File)
	if err = os.Link(f.Name(), to); err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return os.Rename(f.Name(), to)
}

// Open reads the sheet of a sweep. A folder without one is os.ErrNotExist.
func Open(dir string) (*Dir, error) {
	s := &Sheet{}
	if err := read(filepath.Join(dir, File), s); err != nil {
		return nil, err
	}
	if s.Format != Format || s.Plan == nil || s.Plan.Format != plan.Format || s.Shards < 1 || s.Shards > plan.MostShards {
		return nil, bad("read %s: format %q with %d shards: it is no sweep of this version", filepath.Join(dir, File), s.Format, s.Shards)
	}
	digest, err := s.Plan.Digest()
	return &Dir{Path: dir, Sheet: s, digest: digest}, err
}

const mostBytes = 64 << 20

// read reads a JSON file without unknown fields.
func read(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read sweep: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostBytes+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > mostBytes {
		return bad("read %s: more than %d bytes", path, mostBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return bad("read %s: %w", path, err)
	}
	return nil
}

// bad is an error that no second try mends.
func bad(format string, args ...any) error {
	return &harness.InputError{Err: fmt.Errorf(format, args...)}
}

// Options say how to run shards.
type Options struct {
	Jobs     int          // as in harness.Options
	Gate     harness.Gate // such as Node; nil lets everybody in
	Node     string       // name of this machine, for the mark
	Progress harness.Progress
	Now      func() time.Time
}

// Mark is the file DONE of a shard: the shard is whole, and this is what it was.
type Mark struct {
	Format string    `json:"format"`
	Shard  string    `json:"shard"` // i/n
	Plan   string    `json:"plan"`  // digest
	Run    string    `json:"run"`   // SHA-256 of run.json, which has those of the tables
	Cells  int       `json:"cells"` // runs of cells
	Rows   int64     `json:"rows"`
	Node   string    `json:"node"`
	Ended  time.Time `json:"ended"`
}

// Name is the folder of a shard that is done.
func (d *Dir) Name(i int) string { return filepath.Join(d.Path, fmt.Sprint(prefix, i)) }

// Done reports whether a shard is done. A mark of another sweep is an error.
func (d *Dir) Done(i int) (bool, error) {
	m, err := d.mark(i)
	return m != nil, err
}

func (d *Dir) mark(i int) (*Mark, error) {
	path := filepath.Join(d.Name(i), DoneFile)
	m := &Mark{}
	err := read(path, m)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if want := (plan.Shard{I: i, N: d.Sheet.Shards}).String(); m.Format != MarkFormat || m.Shard != want {
		return nil, bad("%s: it is the mark of shard %s (%s), not of %s: remove the folder, and run the shard again", path, m.Shard, m.Format, want)
	}
	if m.Plan != d.digest {
		return nil, bad("%s: it is of a sweep of another plan (%.12s; this is %.12s): remove the folder, and run the shard again", path, m.Plan, d.digest)
	}
	return m, nil
}

// Run makes shard i, or what is left of it; a shard that is done takes no time. When it
// returns nil the shard is whole on disk.
func (d *Dir) Run(ctx context.Context, lab *harness.Lab, i int, o Options) error {
	if done, err := d.Done(i); err != nil || done {
		return err
	}
	opt := d.options(i)
	if err := d.settle(lab, opt); err != nil {
		return err
	}
	opt.Out = d.Name(i) + partial
	_, err := os.Stat(filepath.Join(opt.Out, results.ManifestFile))
	opt.Resume = err == nil
	opt.Jobs, opt.Gate, opt.Progress, opt.Now, opt.Command = o.Jobs, o.Gate, o.Progress, o.Now, d.Sheet.Command
	if err := harness.Run(ctx, lab, opt); err != nil {
		return err
	}
	return d.finish(i, o)
}

// options are those of the whole plan with shard i of it.
func (d *Dir) options(i int) harness.Options {
	return harness.Options{Suites: d.Sheet.Plan.Load(), Quick: d.Sheet.Plan.Quick, Receipt: d.Sheet.Receipt, Shard: plan.Shard{I: i, N: d.Sheet.Shards}}
}

// settle gives the lab the machine's profile that all shards share, and refuses to run
// what is not what the plan fixed.
func (d *Dir) settle(lab *harness.Lab, opt harness.Options) error {
	if d.settled == lab {
		return nil
	}
	lab.Measure, lab.Host = nil, nil
	if d.Sheet.Host != "" {
		if here := host.Here().CPU; d.Sheet.CPU != "" && here != d.Sheet.CPU {
			return bad("cells of this sweep are measured on machines with the processor where it began (%s); here it is another (%s): run its shards there", d.Sheet.CPU, here)
		}
		sheet, err := profiles.ParseDevice(File, []byte(d.Sheet.Host))
		if err != nil {
			return bad("%s: host: %w", filepath.Join(d.Path, File), err)
		}
		lab.Host = sheet
	}
	now, err := lab.Plan(opt)
	if err != nil {
		return err
	}
	digest, err := now.Digest()
	if err != nil {
		return err
	}
	if digest != d.digest {
		return bad("%s cannot be run here as it was planned: a model, a profile or the program is another (plan %.12s, here %.12s): use the program and the files that began it", d.Path, d.digest, digest)
	}
	d.settled = lab
	return nil
}

// finish marks a shard as done and gives it its name.
func (d *Dir) finish(i int, o Options) error {
	from, to := d.Name(i)+partial, d.Name(i)
	set, err := results.Read(from)
	if err != nil {
		return err
	}
	m := Mark{Format: MarkFormat, Shard: plan.Shard{I: i, N: d.Sheet.Shards}.String(), Plan: d.digest, Cells: set.Manifest.Blocks, Rows: set.Manifest.Rows,
		Node: o.Node, Ended: o.Now().UTC()}
	run, err := results.DigestFile(filepath.Join(from, results.ManifestFile))
	if err := errors.Join(err, set.Close()); err != nil {
		return err
	}
	m.Run = run.SHA256
	text, err := canon.JSON(m)
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(from, DoneFile), append(text, '\n')); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		if done, _ := d.Done(i); done { // another process was as quick, and left the same
			return os.RemoveAll(from)
		}
		return fmt.Errorf("give shard %d its name: %w (it is whole in %s)", i, err, from)
	}
	if f, err := os.Open(d.Path); err == nil { // not all file systems can
		_ = f.Sync()
		_ = f.Close()
	}
	return nil
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// RunAll makes all shards that are not done, one after the other; each has all cores.
// What another process is making is left to it, and then the sweep is not whole: the
// error is an *Incomplete.
func (d *Dir) RunAll(ctx context.Context, lab *harness.Lab, o Options) error {
	var held []string
	for i := range d.Sheet.Shards {
		err := d.Run(ctx, lab, i, o)
		if errors.Is(err, filelock.ErrHeld) {
			held = append(held, fmt.Sprintf("%s%d: another process is running it", prefix, i))
			continue
		}
		if err != nil {
			return fmt.Errorf("%s%d: %w", prefix, i, err)
		}
	}
	if len(held) > 0 {
		return &Incomplete{Dir: d.Path, Shards: held}
	}
	return nil
}

// NodeName is what this machine is called: by Slurm, by the Kubernetes manifest of this
// package, or by itself.
func NodeName(getenv func(string) string) string {
	name, _ := os.Hostname()
	return cmp.Or(getenv("SLURMD_NODENAME"), getenv("MEIBENCH_NODE"), name)
}
