package bundle

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"meibench/harness/results"
)

// Limits bound what a reader of bundles takes. Zero values are the defaults.
type Limits struct {
	Files    int   // 10,000
	File     int64 // bytes of a table of requests or spans, 4 GiB
	Document int64 // bytes of any other file, 32 MiB
	Total    int64 // bytes of all files, 8 GiB
}

func (l Limits) orDefault() Limits {
	return Limits{cmp.Or(l.Files, 10_000), cmp.Or(l.File, 4<<30), cmp.Or(l.Document, 32<<20), cmp.Or(l.Total, 8<<30)}
}

// Bundle is a bundle that was read: its form is right, all digests fit, and its
// runs are open. Nothing that it claims is believed yet.
type Bundle struct {
	Path     string // what was opened
	Dir      string // where its files are; a private folder where it was a zip
	H1       string
	Manifest Manifest
	Summary  Summary
	Sums     []byte // SHA256SUMS
	Note     []byte // bundle.note; nil where nobody signed
	Runs     []*Run // in the order of the manifest
	temp     string // removed by Close
}

// Open reads a bundle, a folder or a zip, that anyone may have made. Whatever it
// holds, the answer is a bundle or an error, within the default Limits.
func Open(path string) (*Bundle, error) { return OpenWithin(path, Limits{}) }

// OpenWithin is Open with limits of one's own. What is wrong with the bundle is
// a *Refusal; other errors are those of the disk. Close releases what it holds.
func OpenWithin(path string, limits Limits) (_ *Bundle, err error) {
	b := &Bundle{Path: path, Dir: path}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("open bundle: %w", err)
	case info.IsDir():
	case info.Mode().IsRegular():
		if b.temp, err = os.MkdirTemp("", "meibench-bundle-"); err != nil {
			return nil, fmt.Errorf("open bundle %s: %w", path, err)
		}
		b.Dir = b.temp
		if err := unpack(path, b.Dir, limits.orDefault()); err != nil {
			return nil, err
		}
	default:
		return nil, refuse(ruleForm, "", "give a folder or a .meibench.zip", "%s is neither a file nor a folder", path)
	}
	return b, b.read(limits.orDefault())
}

// Close closes the runs and removes what was unpacked.
func (b *Bundle) Close() (err error) {
	for _, r := range b.Runs {
		err = errors.Join(err, r.Set.Close())
	}
	b.Runs = nil
	if b.temp != "" {
		err = errors.Join(err, os.RemoveAll(b.temp))
		b.temp = ""
	}
	return err
}

// outside are the files that SHA256SUMS and h1 do not cover, since they speak of
// them, or mark the end.
var outside = []string{DoneFile, NoteFile, StatementFile, SumsFile}

// topFiles are the names at the top of a bundle; those that may be absent are
// false.
var topFiles = map[string]bool{ChecklistFile: true, CitationFile: true, CrateFile: true, CroissantFile: true, DoneFile: true, ManifestFile: true,
	NoteFile: false, ReadmeFile: true, StatementFile: true, SummaryFile: true, SumsFile: true}

// knownName refuses a path that no bundle has.
func knownName(name string) error {
	const fix = "take it out: a bundle holds what meibench bundle writes and nothing else"
	if _, ok := topFiles[name]; ok {
		return nil
	}
	shown := fmt.Sprintf("%.100q", name)
	parts := strings.Split(name, "/")
	if len(parts) != 3 || parts[0] != RunsFolder {
		return refuse(ruleForm, shown, fix, "no bundle has a file of this name")
	}
	if !goodName(parts[1]) {
		return refuse(ruleForm, shown, fix, "a run's name may have letters, digits, dots, hyphens and underscores, at most %d", mostName)
	}
	for _, f := range runFiles {
		if parts[2] == f.name {
			return nil
		}
	}
	return refuse(ruleForm, shown, fix, "no run of a bundle has a file of this name")
}

// isLarge reports whether a file is a table that is read in parts. That of cells
// is read whole, as documents are.
func isLarge(name string) bool {
	return path.Base(name) == results.RequestsFile || path.Base(name) == results.SpansFile
}

// admit checks what may be said of a file before its content is looked at.
func (l Limits) admit(name string, size int64, sofar *tally) error {
	if err := knownName(name); err != nil {
		return err
	}
	most := l.Document
	if isLarge(name) {
		most = l.File
	}
	if sofar.total += size; size < 0 || size > most {
		return refuse(ruleForm, name, "no honest file is that large, or raise the limit", "it has %d bytes, at most %d are read", size, most)
	}
	if sofar.files++; sofar.files > l.Files || sofar.total > l.Total {
		return refuse(ruleForm, name, "hand in fewer runs at a time, or raise the limit", "with it the bundle has %d files of %d bytes, at most %d of %d are read", sofar.files, sofar.total, l.Files, l.Total)
	}
	if other, ok := sofar.folded[strings.ToLower(name)]; ok {
		return refuse(ruleForm, name, "rename a run", "it is there twice, or differs from %s in capitals only, which some systems take for one file", other)
	}
	if sofar.folded == nil {
		sofar.folded = map[string]string{}
	}
	sofar.folded[strings.ToLower(name)] = name
	return nil
}

// tally is what was admitted.
type tally struct {
	files  int
	total  int64
	folded map[string]string
}

// tree lists the files of a folder, slashed and sorted. Links, devices and
// unknown names are refused; nothing is followed out of the folder.
func tree(dir string, l Limits) (names []string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	var sofar tally
	for folders := []string{"."}; len(folders) > 0; folders = folders[1:] {
		entries, err := readDir(root, folders[0], l.Files)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			name := path.Join(folders[0], e.Name())
			info, err := root.Lstat(filepath.FromSlash(name))
			if err != nil {
				return nil, err
			}
			switch {
			case info.IsDir() && (name == RunsFolder || folders[0] == RunsFolder && goodName(e.Name())):
				folders = append(folders, name)
			case info.IsDir():
				return nil, refuse(ruleForm, fmt.Sprintf("%.100q", name), "take it out", "no bundle has a folder of this name")
			case !info.Mode().IsRegular():
				return nil, refuse(ruleForm, fmt.Sprintf("%.100q", name), "put the file itself there", "it is a %v, not a file", info.Mode().Type())
			default:
				if err := l.admit(name, info.Size(), &sofar); err != nil {
					return nil, err
				}
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// readDir lists a folder of at most so many entries, sorted.
func readDir(root *os.Root, name string, most int) ([]fs.DirEntry, error) {
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	list, err := f.ReadDir(most + 1)
	if err := errors.Join(f.Close(), err); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(list) > most {
		return nil, refuse(ruleForm, name, "hand in fewer runs at a time, or raise the limit", "the folder has more than %d files and folders, at most %d are read", most, most)
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// read checks the folder and reads it.
func (b *Bundle) read(l Limits) error {
	names, err := tree(b.Dir, l)
	if err != nil {
		return err
	}
	if !slices.Contains(names, DoneFile) {
		return refuse(ruleForm, DoneFile, fixMake, "it is missing: the bundle was not written to its end")
	}
	for _, name := range slices.Sorted(maps.Keys(topFiles)) {
		if topFiles[name] && !slices.Contains(names, name) {
			return refuse(ruleForm, name, fixMake, "it is missing")
		}
	}
	if done, err := b.content(DoneFile); err != nil || len(done) > 0 {
		return cmp.Or(err, refuse(ruleForm, DoneFile, fixMake, "it is not empty"))
	}
	if b.Sums, err = b.content(SumsFile); err != nil {
		return err
	}
	b.H1 = hash1(b.Sums)
	sums, err := b.checkSums(names)
	if err != nil {
		return err
	}
	if err := b.readDocuments(names, sums); err != nil {
		return err
	}
	return b.openRuns(names)
}

// content reads a file that is no table.
func (b *Bundle) content(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(b.Dir, filepath.FromSlash(name)))
}

// checkSums compares SHA256SUMS with the files and returns them with their
// sizes.
func (b *Bundle) checkSums(names []string) ([]File, error) {
	listed := map[string]string{}
	var order []string
	for i, line := range strings.SplitAfter(string(b.Sums), "\n") {
		if line == "" {
			continue
		}
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok || !strings.HasSuffix(line, "\n") || !isHex(sum) || listed[name] != "" {
			return nil, refuse(ruleDigest, SumsFile, fixMake, "line %d is not a digest, two blanks and a name, each once", i+1)
		}
		listed[name], order = sum, append(order, name)
	}
	covered := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(outside, n) })
	if !slices.Equal(order, covered) {
		return nil, refuse(ruleDigest, SumsFile, fixMake, "it does not list the files of the bundle in order: %s", firstDifference(order, covered))
	}
	files := make([]File, 0, len(order))
	for _, name := range order {
		f, err := b.digest(name)
		if err != nil {
			return nil, err
		}
		if f.SHA256 != listed[name] {
			return nil, refuse(ruleDigest, name, "ask for the file as it was handed in", "its SHA-256 is %s, %s says %s: the file was changed", f.SHA256, SumsFile, listed[name])
		}
		files = append(files, f)
	}
	return files, nil
}

// firstDifference names what one list has and the other lacks.
func firstDifference(listed, there []string) string {
	for _, n := range there {
		if !slices.Contains(listed, n) {
			return n + " is not listed"
		}
	}
	for _, n := range listed {
		if !slices.Contains(there, n) {
			return fmt.Sprintf("%.100q is not there", n)
		}
	}
	return "the order is not that of the names"
}

func (b *Bundle) digest(name string) (File, error) {
	f, err := os.Open(filepath.Join(b.Dir, filepath.FromSlash(name)))
	if err != nil {
		return File{}, err
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	return File{name, n, hex.EncodeToString(h.Sum(nil))}, errors.Join(err, f.Close())
}

func isHex(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// readDocuments reads manifest, summary, statement and note.
func (b *Bundle) readDocuments(names []string, files []File) error {
	for _, d := range []struct {
		name string
		into any
	}{{ManifestFile, &b.Manifest}, {SummaryFile, &b.Summary}} {
		text, err := b.content(d.name)
		if err != nil {
			return err
		}
		if err := readCanonical(text, d.into); err != nil {
			return refuse(ruleManifest, d.name, fixMake, "%v", err)
		}
	}
	if b.Summary.Schema != SummaryFormat {
		return refuse(ruleManifest, SummaryFile, "use the version of meibench that made it", "schema is %.60q, this program reads %q", b.Summary.Schema, SummaryFormat)
	}
	files = slices.DeleteFunc(files, func(f File) bool { return f.Path == ManifestFile })
	if err := b.Manifest.check(files); err != nil {
		return err
	}
	st, err := b.content(StatementFile)
	if err != nil {
		return err
	}
	want, err := statement(b.Sums, &b.Manifest)
	if err != nil {
		return err
	}
	if !bytes.Equal(st, []byte(want)) {
		return refuse(ruleDigest, StatementFile, fixMake, "it is not the statement about %s", b.H1)
	}
	if !slices.Contains(names, NoteFile) {
		return nil
	}
	if b.Note, err = b.content(NoteFile); err != nil {
		return err
	}
	n, err := parseNote(b.Note)
	if err != nil {
		return err
	}
	if n.Text != NoteText(b.Sums, b.Manifest.Submitter) {
		return refuse(ruleDigest, NoteFile, "ask for the bundle that was signed", "what is signed is not this bundle, or names another submitter")
	}
	return nil
}

// check refuses a manifest that no bundle can have. Files are those that it has
// to list.
func (m *Manifest) check(files []File) error {
	bad := func(field, value, want string) error {
		return refuse(ruleManifest, ManifestFile, fixMake, "%s is %.60q, want %s", field, value, want)
	}
	switch {
	case m.Schema != Format:
		return refuse(ruleManifest, ManifestFile, "use the version of meibench that made it", "schema is %.60q, this program reads %q", m.Schema, Format)
	case !goodName(m.Name):
		return bad("name", m.Name, "letters, digits, dots, hyphens and underscores")
	case m.Submitter != "" && !goodName(m.Submitter):
		return bad("submitter", m.Submitter, "the name of a key")
	case m.Division != ClosedDivision && m.Division != OpenDivision:
		return bad("division", m.Division, "closed or open")
	case m.Supersedes != "" && !isH1(m.Supersedes):
		return bad("supersedes", m.Supersedes, "an h1")
	case len(m.Title) > 200 || len(m.Contact) > 200 || len(m.Licence) > 60:
		return bad("title", m.Title, "a title, a contact of at most 200 bytes and a licence of 60")
	case !slices.Equal(m.Files, files):
		return refuse(ruleDigest, ManifestFile, fixMake, "the files it lists are not those of the bundle")
	case len(m.Runs) == 0:
		return refuse(ruleManifest, ManifestFile, fixMake, "it lists no run")
	}
	return nil
}

// isH1 reports whether a text has the form of an h1.
func isH1(s string) bool {
	body := strings.TrimPrefix(s, "h1:")
	return len(s) == 47 && len(body) == 44 && strings.HasSuffix(body, "=") &&
		strings.Trim(body[:43], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") == ""
}

// openRuns opens the runs. Every folder must be listed and hold what a run
// folder holds.
func (b *Bundle) openRuns(names []string) error {
	there := map[string][]string{}
	for _, n := range names {
		if dir := path.Dir(n); dir != "." {
			there[dir] = append(there[dir], path.Base(n))
		}
	}
	var listed []string
	for _, r := range b.Manifest.Runs {
		listed = append(listed, r.Path)
	}
	if !slices.Equal(listed, slices.Sorted(maps.Keys(there))) {
		return refuse(ruleManifest, ManifestFile, fixMake, "the runs it lists are not the folders of %s: %s", RunsFolder, firstDifference(listed, slices.Sorted(maps.Keys(there))))
	}
	for _, at := range listed {
		for _, f := range runFiles {
			if f.must && !slices.Contains(there[at], f.name) {
				return refuse(ruleForm, at+"/"+f.name, fixMake, "it is missing")
			}
		}
		r, err := OpenRun(filepath.Join(b.Dir, filepath.FromSlash(at)), at)
		if err != nil {
			return refuse(ruleTables, at, fixMake, "%s", strings.ReplaceAll(err.Error(), b.Dir+string(filepath.Separator), ""))
		}
		b.Runs = append(b.Runs, r)
		if err := b.bounded(r); err != nil {
			return err
		}
	}
	return nil
}

// leastRow is less than any row of a table of requests takes.
const leastRow = 64

// bounded refuses a table of cells that sends a reader over the same rows again
// and again.
func (b *Bundle) bounded(r *Run) error {
	info, err := os.Stat(filepath.Join(b.Dir, filepath.FromSlash(r.Path), results.RequestsFile))
	if err != nil {
		return err
	}
	rows := int64(0)
	for _, c := range r.Set.Runs() {
		if rows += int64(c.Rows); c.Rows < 0 || rows > info.Size()/leastRow {
			return refuse(ruleTables, r.Path+"/"+results.CellsFile, fixMake, "the runs of cells claim more requests than %s can hold", results.RequestsFile)
		}
	}
	return nil
}
