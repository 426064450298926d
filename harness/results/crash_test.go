package results

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
)

// killed copies a run folder as kill -9 would leave it with so many bytes of
// the journal written.
func killed(t *testing.T, dir string, journal []byte) {
	m := manifest()
	m.Format = Format
	require.NoError(t, m.save(quickDisk{}, dir))
	require.NoError(t, os.WriteFile(filepath.Join(dir, journalFile), journal, 0o644))
}

// quickDisk is the real one without waiting for the device.
type quickDisk struct{ realDisk }

type quickFile struct{ *os.File }

func (quickFile) Sync() error          { return nil }
func (quickDisk) syncDir(string) error { return nil }
func (quickDisk) create(p string) (file, error) {
	f, err := os.Create(p)
	return quickFile{f}, err
}

// whole records a small run and returns its journal, as it was before Finish,
// and its tables.
func whole(t *testing.T) (journal []byte, want map[string]string) {
	dir := t.TempDir()
	run, err := Create(dir, manifest())
	require.NoError(t, err)
	play(t, run, 2, 2, 3)
	journal, err = os.ReadFile(filepath.Join(dir, journalFile))
	require.NoError(t, err)
	require.NoError(t, run.Finish())
	return journal, tables(t, dir)
}

// reopenQuick is Open without waiting for the device.
func reopenQuick(dir string) (*Run, error) {
	m, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	f, err := openJournal(dir, os.O_CREATE)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return begin(quickDisk{}, dir, m, &journal{f: quickFile{f}, path: f.Name()}, st.Size())
}

// A run that was killed at any byte and went on leaves what an uninterrupted one
// leaves; what was complete is not run again. Opening is tried at every byte;
// as it only ever leaves a journal of whole frames, going on is tried once for
// each of those.
func TestKillAtEveryByte(t *testing.T) {
	journal, want := whole(t)
	last, cuts := 0, map[int64]bool{}
	for n := 0; n <= len(journal); n++ {
		f := &memFile{b: bytes.Clone(journal[:n])}
		j := newJournalAt(f)
		torn, err := j.load(int64(n))
		require.NoError(t, err, "killed at byte %d", n)
		if n >= len(magic) {
			require.Equal(t, int64(n)-j.size, torn)
		}
		require.Equal(t, string(journal[:j.size]), string(f.b), "what is left is whole and unchanged")
		done := 0
		for _, b := range j.blocks {
			if b.done {
				done++
			}
		}
		require.GreaterOrEqual(t, done, last, "a longer journal holds no less")
		last = done
		if cuts[j.size] {
			continue
		}
		cuts[j.size] = true
		dir := t.TempDir()
		killed(t, dir, journal[:n])
		run, err := reopenQuick(dir)
		require.NoError(t, err)
		require.Len(t, run.Completed(), done)
		play(t, run, 2, 2, 3)
		require.NoError(t, run.Finish())
		require.Equal(t, want, tables(t, dir), "killed at byte %d of %d", n, len(journal))
	}
	require.Equal(t, 4, last)
	require.Len(t, cuts, 1+4*3, "the magic word, and begin, rows and end of four blocks")
}

// A bit flipped in the middle, with whole frames behind it, is not a torn end:
// cutting there would lose what was complete.
func TestDamageIsNotTornOff(t *testing.T) {
	journal, _ := whole(t)
	refused := 0
	for n := len(magic) + headBytes; n < len(journal); n += 7 {
		f := &memFile{b: bytes.Clone(journal)}
		f.b[n] ^= 0x10
		bad := bytes.Clone(f.b)
		if _, err := newJournalAt(f).load(int64(len(bad))); err != nil {
			require.ErrorIs(t, err, errDamaged)
			require.Equal(t, bad, f.b, "a refused journal is left as it is")
			refused++
		}
	}
	require.Greater(t, refused, 100)
}

func newJournalAt(f file) *journal { return &journal{f: f, path: "journal"} }

// brokenDisk fails the write number left and every later one.
type brokenDisk struct {
	quickDisk
	left *atomic.Int64
	err  error
}

type brokenFile struct {
	file
	d brokenDisk
}

func (f brokenFile) Write(p []byte) (int, error) {
	if f.d.left.Add(-1) < 0 {
		n, _ := f.file.Write(p[:len(p)/2]) // a full disk takes what it can
		return n, f.d.err
	}
	return f.file.Write(p)
}

func (d brokenDisk) create(p string) (file, error) {
	f, err := d.quickDisk.create(p)
	return brokenFile{f, d}, err
}

// attempt records and finishes a run over a disk that fails after so many
// writes.
func attempt(t *testing.T, dir string, writes int, cause error) error {
	d := brokenDisk{left: new(atomic.Int64), err: cause}
	d.left.Store(int64(writes))
	m := manifest()
	m.Format = Format
	require.NoError(t, m.save(quickDisk{}, dir))
	f, err := openJournal(dir, os.O_CREATE)
	require.NoError(t, err)
	run, err := begin(d, dir, m, &journal{f: brokenFile{quickFile{f}, d}, path: f.Name()}, 0)
	if err != nil {
		return err
	}
	defer run.Close()
	for c := range 2 {
		for rep := range 2 {
			w, err := run.Begin(cell(c, rep))
			if err != nil {
				return err
			}
			for i := range 3 {
				if err := w.Row(request(uint64(10*c+rep), i)); err != nil {
					return err
				}
			}
			if err := w.End(cell(c, rep)); err != nil {
				return err
			}
		}
	}
	return run.Finish()
}

// Whichever write finds the disk full, the error says so, names the file and the
// way out, and going on afterwards leaves the tables of an undisturbed run.
func TestFullDiskAtEveryWrite(t *testing.T) {
	_, want := whole(t)
	for writes := 0; ; writes++ {
		dir := t.TempDir()
		err := attempt(t, dir, writes, syscall.ENOSPC)
		if err == nil {
			require.Greater(t, writes, 15, "every file was written through the failing disk")
			break
		}
		require.ErrorIs(t, err, syscall.ENOSPC, "write %d", writes)
		require.ErrorContains(t, err, dir)
		require.ErrorContains(t, err, "free space on that volume, then go on with --resume")
		run, err := reopenQuick(dir)
		require.NoError(t, err, "write %d", writes)
		play(t, run, 2, 2, 3)
		require.NoError(t, run.Finish())
		require.Equal(t, want, tables(t, dir), "write %d", writes)
	}
}

func TestReadOnlyFolder(t *testing.T) {
	err := diskError("create", "/mnt/x", &os.PathError{Op: "open", Path: "/mnt/x", Err: syscall.EROFS})
	require.ErrorContains(t, err, "choose another with --out")
	if os.Getuid() == 0 {
		t.Skip("root writes where it likes")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o555))
	_, err = Create(filepath.Join(dir, "run"), manifest())
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, "choose another with --out")
}

// memFile is a journal in memory.
type memFile struct {
	b   []byte
	pos int64
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.b)) {
		return 0, io.EOF
	}
	n := copy(p, f.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
func (f *memFile) Write(p []byte) (int, error) {
	f.b = append(f.b[:f.pos], p...)
	f.pos += int64(len(p))
	return len(p), nil
}
func (f *memFile) Seek(off int64, _ int) (int64, error) { f.pos = off; return off, nil }
func (f *memFile) Truncate(n int64) error               { f.b = f.b[:n]; return nil }
func (f *memFile) Sync() error                          { return nil }
func (f *memFile) Close() error                         { return nil }

// Hostile bytes never panic; what loads can be loaded again and merged or
// refused. The seed corpus has whole frames with right checksums, so that the
// fuzzer starts behind that door.
func FuzzJournal(f *testing.F) {
	j := &journal{f: &memFile{}, path: "j"}
	_, err := j.load(0)
	require.NoError(f, err)
	run := &Run{j: j, open: map[uint64]*Writer{}, taken: map[Key]bool{}}
	w, err := run.Begin(cell(0, 0))
	require.NoError(f, err)
	require.NoError(f, w.Row(request(1, 1)))
	require.NoError(f, w.End(cell(0, 0)))
	good := j.f.(*memFile).b
	f.Add(good[len(magic)+headBytes:], false)
	f.Add(good[len(magic):], true)
	f.Add([]byte{tagRows, 0, 1, 0, 0, 0}, false)
	f.Fuzz(func(t *testing.T, b []byte, raw bool) {
		content := append([]byte(magic), b...)
		if !raw && len(b) > 0 { // give the bytes a frame with a right checksum, after a begin frame
			head := seal(b)
			begin := []byte("B\x00{}")
			bh := seal(begin)
			content = append(append(append(append([]byte(magic), bh[:]...), begin...), head[:]...), b...)
		}
		j := &journal{f: &memFile{b: content}, path: "j"}
		if _, err := j.load(int64(len(content))); err != nil {
			return
		}
		for _, b := range j.blocks {
			_ = merge(j.f, b, func(r *record.Request) error { return r.Check() })
		}
		again := &journal{f: j.f, path: "j"}
		torn, err := again.load(int64(len(j.f.(*memFile).b)))
		require.NoError(t, err)
		require.Zero(t, torn, "what was cut stays cut")
	})
}

// A damaged table is an error, never a panic.
func FuzzTable(f *testing.F) {
	dir := f.TempDir()
	m := manifest()
	m.Expected = 1
	run, err := Create(dir, m)
	require.NoError(f, err)
	play(f, run, 1, 1, 4)
	require.NoError(f, run.Finish())
	good := tables(f, dir)
	for i := 0; i < 8; i++ {
		f.Add(uint32(len(good[RequestsFile])*i/8), byte(1<<i), []byte(nil))
	}
	f.Fuzz(func(t *testing.T, at uint32, flip byte, tail []byte) {
		for _, name := range []string{RequestsFile, SpansFile, CellsFile} {
			b := []byte(good[name])
			b[int(at)%len(b)] ^= flip
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), append(b, tail...), 0o644))
		}
		set, err := Read(dir)
		if err != nil {
			return
		}
		defer set.Close()
		for i := range set.Runs() {
			for _, err := range set.Full(i) {
				if err != nil {
					break
				}
			}
		}
	})
}

func TestErrorsSayWhatToDo(t *testing.T) {
	err := diskError("write", "/x/journal", fmt.Errorf("wrapped: %w", errors.ErrUnsupported))
	require.EqualError(t, err, "write /x/journal: wrapped: unsupported operation (what was recorded so far is intact: once the cause is gone, go on with --resume)")
}
