package bundle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// Extension is what the names of packed bundles end in.
const Extension = ".meibench.zip"

const (
	zipEnd     = 22 // bytes of the record that ends a zip
	zipLocal   = 30 // bytes before the name of a file
	zipEntry   = 46 // bytes of an entry of the directory before its name
	zipDate    = 1<<5 | 1
	mostInPath = 2*mostName + 60
)

// Pack writes the folder of a bundle as a zip of stored files, sorted, without
// times. The zip has the h1 of the folder, and packing twice gives the same
// bytes.
func Pack(dir, file string) (err error) {
	names, err := tree(dir, Limits{}.orDefault())
	if err != nil {
		return err
	}
	if !slices.Contains(names, DoneFile) {
		return fmt.Errorf("pack %s: %s is missing: it is no bundle, or one that was not written to its end", dir, DoneFile)
	}
	out, err := os.CreateTemp(filepath.Dir(file), ".bundle-*")
	if err != nil {
		return fmt.Errorf("pack %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("pack %s: %w", dir, err), os.Remove(out.Name()))
		}
	}()
	w := zip.NewWriter(out)
	for _, name := range names {
		if err = store(w, dir, name); err != nil {
			break
		}
	}
	if err = errors.Join(err, w.Close(), out.Chmod(0o644), out.Close()); err != nil {
		return err
	}
	if info, serr := os.Stat(out.Name()); serr != nil || info.Size() >= math.MaxUint32 {
		return errors.Join(serr, errors.New("it is 4 GiB or more, which no plain zip holds: hand in the folder (--dir)"))
	}
	return os.Rename(out.Name(), file)
}

// store writes one file. Its checksum comes before it, so no reader needs to
// look behind it.
func store(w *zip.Writer, dir, name string) error {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	defer f.Close()
	sum := crc32.NewIEEE()
	n, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if n >= math.MaxUint32 {
		return fmt.Errorf("%s is 4 GiB or more, which no plain zip holds: hand in the folder (--dir)", name)
	}
	//lint:ignore SA1019 CreateRaw writes the header as it is, and of the dates only this one
	h := &zip.FileHeader{Name: name, Method: zip.Store, CRC32: sum.Sum32(), CompressedSize64: uint64(n), UncompressedSize64: uint64(n), ModifiedDate: zipDate}
	h.SetMode(0o644)
	to, err := w.CreateRaw(h)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(to, f)
	return err
}

const fixPack = "pack the folder with meibench bundle, or with zip -0 -X -D -r FILE ."

// unpack checks a zip and writes its files into a folder. Only what Pack makes
// is taken: stored files one after the other, the directory right behind them,
// and nothing before, between or after. So no other reader of the file can see
// anything else in it.
func unpack(file, dir string, l Limits) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	start, err := directory(f, info.Size(), l)
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return refuse(ruleForm, "", fixPack, "it is no zip: %v", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	var sofar tally
	at := int64(0)
	inOrder := slices.Clone(z.File)
	for _, e := range inOrder {
		if err := stored(e); err != nil {
			return err
		}
		if err := l.admit(e.Name, int64(e.UncompressedSize64), &sofar); err != nil {
			return err
		}
	}
	for _, e := range inOrder {
		if at, err = follows(f, e, at); err != nil {
			return err
		}
		if err := extract(root, e); err != nil {
			return err
		}
	}
	if at != start {
		return refuse(ruleForm, "", fixPack, "between its files and its directory lie %d bytes that belong to neither", start-at)
	}
	return nil
}

// directory checks the record at the end of a zip, before anything is made of
// what the directory claims, and returns where the directory begins.
func directory(f io.ReaderAt, size int64, l Limits) (start int64, err error) {
	var b [zipEnd]byte
	if size < zipEnd {
		return 0, refuse(ruleForm, "", fixPack, "it has %d bytes: no zip", size)
	}
	if _, err := f.ReadAt(b[:], size-zipEnd); err != nil {
		return 0, err
	}
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(b[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	if string(b[:4]) != "PK\x05\x06" {
		return 0, refuse(ruleForm, "", fixPack, "it does not end as a zip does: it was cut off, or something was added to its end")
	}
	entries, length, start := u16(10), u32(12), u32(16)
	switch {
	case u16(4) != 0 || u16(6) != 0 || u16(8) != entries || u16(20) != 0:
		err = refuse(ruleForm, "", fixPack, "it is one of several parts, or has a comment")
	case entries > int64(l.Files):
		err = refuse(ruleForm, "", fixPack, "it has %d files, at most %d are read", entries, l.Files)
	case start+length+zipEnd != size || length > entries*(zipEntry+mostInPath) || length < entries*zipEntry:
		err = refuse(ruleForm, "", fixPack, "its directory of %d bytes at %d does not fit %d files and the end of the file", length, start, entries)
	}
	return start, err
}

// stored refuses entries of the directory that are no plain files.
func stored(e *zip.File) error {
	name := fmt.Sprintf("%.100q", e.Name)
	switch {
	case e.Method != zip.Store || e.CompressedSize64 != e.UncompressedSize64:
		return refuse(ruleForm, name, fixPack, "it is compressed: %d bytes that would become %d", e.CompressedSize64, e.UncompressedSize64)
	case e.Flags&^0x800 != 0: // 0x800: the name is UTF-8
		return refuse(ruleForm, name, fixPack, "it is encrypted, or its size stands behind it (flags %#x)", e.Flags)
	case len(e.Extra) > 0 || e.Comment != "":
		return refuse(ruleForm, name, fixPack, "it has extra fields or a comment")
	case !e.Mode().IsRegular():
		return refuse(ruleForm, name, fixPack, "it is a %v, not a file", e.Mode().Type())
	}
	return nil
}

// follows checks that a file lies where the one before it ended and calls itself
// what the directory calls it. It returns where the file ends.
func follows(f io.ReaderAt, e *zip.File, at int64) (end int64, err error) {
	data, err := e.DataOffset()
	if err != nil || data != at+zipLocal+int64(len(e.Name)) {
		return 0, refuse(ruleForm, e.Name, fixPack, "it does not lie right behind the file before it")
	}
	head := make([]byte, zipLocal+len(e.Name))
	if _, err := f.ReadAt(head, at); err != nil {
		return 0, refuse(ruleForm, e.Name, fixPack, "it cannot be read: %v", err)
	}
	want := make([]byte, 0, len(head))
	want = binary.LittleEndian.AppendUint16(want, e.Flags)
	want = binary.LittleEndian.AppendUint16(want, e.Method)
	sizes := binary.LittleEndian.AppendUint32(nil, e.CRC32)
	sizes = binary.LittleEndian.AppendUint32(sizes, uint32(e.CompressedSize64))
	sizes = binary.LittleEndian.AppendUint32(sizes, uint32(e.UncompressedSize64))
	if !bytes.Equal(head[6:10], want) || !bytes.Equal(head[14:26], sizes) || string(head[zipLocal:]) != e.Name {
		return 0, refuse(ruleForm, e.Name, fixPack, "what stands before it is not what the directory says of it")
	}
	return data + int64(e.UncompressedSize64), nil
}

// extract writes one file that was admitted.
func extract(root *os.Root, e *zip.File) (err error) {
	name := filepath.FromSlash(e.Name)
	if dir := path.Dir(e.Name); dir != "." {
		if err := root.MkdirAll(filepath.FromSlash(dir), 0o700); err != nil {
			return err
		}
	}
	in, err := e.Open()
	if err != nil {
		return refuse(ruleForm, e.Name, fixPack, "it cannot be read: %v", err)
	}
	defer in.Close()
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	if errors.Is(err, zip.ErrChecksum) || errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(ruleForm, e.Name, fixPack, "its content is not what its checksum promises: the zip was cut off or damaged")
	}
	return err
}
