package bundle

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"meibench/harness/plan"
	"meibench/harness/results"
	"meibench/internal/canon"
)

// Names of files in run folders that package results does not write.
const (
	planFile    = plan.File
	receiptFile = plan.ReceiptFile
	hostFile    = "host.yaml" // profile of the machine that ran
)

// runFiles are the files that a bundle takes of a run folder, sorted; those that
// must be there are true.
var runFiles = []struct {
	name string
	must bool
}{
	{results.BenchFile, true}, {results.CellsFile, true}, {hostFile, false}, {planFile, false},
	{receiptFile, false}, {results.RequestsFile, true}, {results.ManifestFile, true}, {results.SpansFile, true},
}

// DefaultLicence is that of the data of a bundle unless another is named.
const DefaultLicence = "CC-BY-4.0"

// Options say what no run folder knows.
type Options struct {
	Name       string // of the entry; "" = that of the first run
	Title      string
	Contact    string
	Licence    string // SPDX; "" = DefaultLicence
	Supersedes string // h1 of an earlier bundle
	Key        *Key   // nil = nobody signs
	Open       bool   // take runs that can only be in the open division anyway, such as quick ones
	Identify   bool   // leave paths and names of hosts and users in
	Private    []string
}

// Draft is a bundle that is not written yet.
type Draft struct {
	Redactions []Redaction // what is taken out of the runs, by file
	opt        Options
	runs       []draftRun // by path
}

type draftRun struct {
	dir, path string
	manifest  results.Manifest // as it will be written
}

// Prepare checks run folders and says what a bundle of them would take out.
// It refuses runs that are not finished, that were changed after they ended,
// and, unless Open is set, quick runs. Private are names that must not appear;
// see Here. Nothing is written.
func Prepare(dirs []string, opt Options) (*Draft, error) {
	if len(dirs) == 0 {
		return nil, errors.New("bundle: no run folder is given")
	}
	opt.Licence = cmp.Or(opt.Licence, DefaultLicence)
	d := &Draft{opt: opt}
	for _, dir := range dirs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(abs)
		if !goodName(name) {
			return nil, fmt.Errorf("bundle %s: a run folder's name may have letters, digits, dots, hyphens and underscores, at most %d: rename the folder", dir, mostName)
		}
		d.opt.Name = cmp.Or(d.opt.Name, name)
		for _, r := range d.runs {
			if strings.EqualFold(r.path, runPath(name)) {
				return nil, fmt.Errorf("bundle %s and %s: both would be %s in the bundle: rename one folder", r.dir, dir, runPath(name))
			}
		}
		if err := d.add(dir, runPath(name)); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(d.runs, func(a, b draftRun) int { return strings.Compare(a.path, b.path) })
	slices.SortStableFunc(d.Redactions, func(a, b Redaction) int { return strings.Compare(a.File, b.File) })
	return d, d.checkOptions()
}

// checkOptions refuses texts that a manifest cannot hold.
func (d *Draft) checkOptions() error {
	o := d.opt
	if !goodName(o.Name) {
		return fmt.Errorf("bundle name %q: want letters, digits, dots, hyphens and underscores, at most %d", o.Name, mostName)
	}
	for _, f := range []struct {
		flag, text string
		most       int
	}{{"title", o.Title, 200}, {"contact", o.Contact, 200}, {"licence", o.Licence, 60}, {"supersedes", o.Supersedes, 60}} {
		if r, ok := plainText(f.text); !ok || len(f.text) > f.most {
			return fmt.Errorf("bundle: --%s %.60q: want one line of at most %d bytes without the character %U", f.flag, f.text, f.most, r)
		}
	}
	if o.Supersedes != "" && !isH1(o.Supersedes) {
		return fmt.Errorf("bundle: --supersedes %q is no h1 of a bundle: it begins with h1: and is printed when a bundle is made", o.Supersedes)
	}
	if strings.ContainsAny(o.Licence, " \t\"'") {
		return fmt.Errorf("bundle: --licence %q: want an SPDX identifier, such as %s", o.Licence, DefaultLicence)
	}
	return nil
}

// add checks one run folder.
func (d *Draft) add(dir, at string) (err error) {
	run, err := OpenRun(dir, at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Set.Close()) }()
	m := run.Set.Manifest
	if !m.Complete || m.Blocks < m.Expected {
		return fmt.Errorf("bundle %s: %d of %d runs of cells are there: what a plan asks for is handed in whole; go on with meibench run --resume --out %s", dir, m.Blocks, m.Expected, dir)
	}
	if m.Quick && !d.opt.Open {
		return fmt.Errorf("bundle %s: it is a quick run, NOT COMPARABLE: run it whole, or hand it in to the open division with --open", dir)
	}
	if err := run.Set.Verify(); err != nil {
		return err
	}
	faults, err := run.Set.Audit()
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		return fmt.Errorf("bundle %s: %s %s: %s", dir, faults[0].File, faults[0].Row, faults[0].Text)
	}
	if !d.opt.Identify {
		p := newPrivacy(append(hosts(&m), d.opt.Private...))
		if err := p.stays(dir, run); err != nil {
			return err
		}
		r := redactor{privacy: p, file: at + "/" + results.ManifestFile}
		r.manifest(&m)
		d.Redactions = append(d.Redactions, r.list...)
	}
	d.runs = append(d.runs, draftRun{dir, at, m})
	return nil
}

// Write writes the bundle into a folder, which it makes. The same runs and the
// same key make the same bytes. What goes wrong leaves a folder without DONE.
func (d *Draft) Write(dir string) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("write bundle %s: the folder holds something: choose another --out", dir)
	}
	w := &writer{dir: dir, opt: d.opt}
	err := w.runs(d.runs)
	if err == nil {
		err = w.documents()
	}
	for _, r := range w.open {
		err = errors.Join(err, r.Set.Close())
	}
	if err == nil {
		err = w.seal()
	}
	if err != nil {
		return fmt.Errorf("write bundle %s: %w", dir, err)
	}
	return nil
}

// Write makes a bundle of run folders in a folder.
func Write(dir string, runs []string, opt Options) error {
	d, err := Prepare(runs, opt)
	if err != nil {
		return err
	}
	return d.Write(dir)
}

// writer is a bundle that is being written.
type writer struct {
	dir      string
	opt      Options
	open     []*Run
	manifest Manifest
	summary  Summary
	files    []File // but manifest, sums, statement, note and mark
}

// runs copies the run folders and opens the copies.
func (w *writer) runs(list []draftRun) error {
	for _, r := range list {
		for _, f := range runFiles {
			name := r.path + "/" + f.name
			err := w.copyFile(filepath.Join(r.dir, f.name), name, r.manifest)
			if errors.Is(err, os.ErrNotExist) && !f.must {
				continue
			}
			if err != nil {
				return err
			}
		}
		run, err := OpenRun(filepath.Join(w.dir, filepath.FromSlash(r.path)), r.path)
		if err != nil {
			return err
		}
		w.open = append(w.open, run)
	}
	return nil
}

// copyFile copies a file of a run folder; run.json is written anew.
func (w *writer) copyFile(from, name string, m results.Manifest) error {
	if filepath.Base(name) == results.ManifestFile {
		b, err := canon.JSON(m)
		if err != nil {
			return err
		}
		return w.file(name, strings.NewReader(string(b)+"\n"))
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	return errors.Join(w.file(name, f), f.Close())
}

// file writes a file and notes its digest.
func (w *writer) file(name string, content io.Reader) error {
	path := filepath.Join(w.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), content)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	w.files = append(w.files, File{name, n, hex.EncodeToString(h.Sum(nil))})
	return nil
}

// text writes a file of a few lines.
func (w *writer) text(name, content string) error { return w.file(name, strings.NewReader(content)) }

// documents writes what is derived from the runs, and the manifest.
func (w *writer) documents() (err error) {
	who := Manifest{Name: w.opt.Name, Title: w.opt.Title, Contact: w.opt.Contact, Licence: w.opt.Licence, Supersedes: w.opt.Supersedes}
	if w.opt.Key != nil {
		who.Submitter = w.opt.Key.Name()
	}
	if w.manifest, w.summary, err = Derive(w.open, who); err != nil {
		return err
	}
	b, err := canon.JSON(w.summary)
	if err != nil {
		return err
	}
	if err := scan(b); err != nil {
		return fmt.Errorf("%s: %w: rename what is called so", SummaryFile, err)
	}
	if err := w.text(SummaryFile, string(b)+"\n"); err != nil {
		return err
	}
	p := &page{m: &w.manifest, s: &w.summary, runs: w.open, files: slices.Clone(w.files)}
	for _, f := range []struct {
		name string
		make func() (string, error)
	}{{CroissantFile, p.croissant}, {ReadmeFile, p.readme}, {ChecklistFile, p.checklist}, {CitationFile, p.citation}, {CrateFile, p.crate}} {
		text, err := f.make()
		if err == nil {
			err = w.text(f.name, text)
		}
		if err != nil {
			return err
		}
		p.files = slices.Clone(w.files) // the crate lists the texts before it
	}
	slices.SortFunc(w.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	w.manifest.Files = slices.Clone(w.files)
	if b, err = canon.JSON(w.manifest); err != nil {
		return err
	}
	if err := scan(b); err != nil {
		return fmt.Errorf("%s: %w: rename what is called so", ManifestFile, err)
	}
	return w.text(ManifestFile, string(b)+"\n")
}

// seal writes the sums, the statement, the note and the mark.
func (w *writer) seal() error {
	slices.SortFunc(w.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	var sums strings.Builder
	for _, f := range w.files {
		fmt.Fprintf(&sums, "%s  %s\n", f.SHA256, f.Path)
	}
	if err := w.text(SumsFile, sums.String()); err != nil {
		return err
	}
	st, err := statement([]byte(sums.String()), &w.manifest)
	if err != nil {
		return err
	}
	if err := w.text(StatementFile, st); err != nil {
		return err
	}
	if w.opt.Key != nil {
		signed, err := sign(NoteText([]byte(sums.String()), w.manifest.Submitter), nil, w.opt.Key)
		if err != nil {
			return err
		}
		if err := w.text(NoteFile, string(signed)); err != nil {
			return err
		}
	}
	return w.text(DoneFile, "")
}

// Name is that of the entry.
func (d *Draft) Name() string { return d.opt.Name }
