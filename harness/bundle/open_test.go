package bundle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/results"
	"meibench/internal/canon"
)

// refused opens what an attacker made and expects one refusal.
func refused(t testing.TB, path, rule, want string) {
	t.Helper()
	b, err := Open(path)
	if err == nil {
		require.NoError(t, b.Close())
	}
	var r *Refusal
	require.Truef(t, errors.As(err, &r), "not refused: %v", err)
	require.Equal(t, rule, r.Rule, r.Error())
	require.ErrorContains(t, err, want)
	require.NotEmpty(t, r.Fix)
	require.NotContains(t, err.Error(), "meibench-bundle-", "folders of ours are of no use to anyone")
}

// edit replaces a part of a file.
func edit(t testing.TB, path, old, new string) {
	text := read(t, path)
	require.Contains(t, text, old)
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(text, old, new, 1)), 0o644))
}

// reseal makes the digests of a folder right again, as a forger would. Change
// may edit the manifest.
func reseal(t testing.TB, dir string, change func(*Manifest)) {
	var m Manifest
	require.NoError(t, readCanonical([]byte(read(t, dir, ManifestFile)), &m))
	names, err := tree(dir, Limits{}.orDefault())
	require.NoError(t, err)
	w := &writer{dir: dir}
	b := &Bundle{Dir: dir}
	for _, n := range names {
		if !slices.Contains(outside, n) && n != ManifestFile {
			f, err := b.digest(n)
			require.NoError(t, err)
			w.files = append(w.files, f)
		}
	}
	m.Files = slices.Clone(w.files)
	if change != nil {
		change(&m)
	}
	w.manifest = m
	for _, n := range append([]string{ManifestFile}, outside...) {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, n)))
	}
	text, err := canon.JSON(m)
	require.NoError(t, err)
	require.NoError(t, w.text(ManifestFile, string(text)+"\n"))
	require.NoError(t, w.seal())
}

// copied copies a bundle: making one takes longer.
func copied(t testing.TB, base string) string {
	dir := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(dir, os.DirFS(base)))
	return dir
}

func TestReseal(t *testing.T) {
	dir := written(t, Options{Name: "x"})
	was := read(t, dir, SumsFile)
	reseal(t, dir, nil)
	require.Equal(t, was, read(t, dir, SumsFile))
	b, err := Open(dir)
	require.NoError(t, err)
	require.NoError(t, b.Close())
}

func TestOpenRefusesFolders(t *testing.T) {
	base := written(t, Options{Name: "x"})
	for name, c := range map[string]struct {
		attack     func(t *testing.T, dir string)
		rule, want string
	}{
		"no mark": {func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, DoneFile))) }, ruleForm, "not written to its end"},
		"full mark": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, DoneFile), []byte("x"), 0o644))
		}, ruleForm, "not empty"},
		"unknown name": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "run.sh"), nil, 0o644))
		}, ruleForm, `"run.sh"`},
		"unknown name in a run": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "runs/a/.bashrc"), nil, 0o644))
		}, ruleForm, `"runs/a/.bashrc"`},
		"script in a name": {func(t *testing.T, dir string) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, "runs/<img onerror=alert(1)>"), 0o755))
		}, ruleForm, "no bundle has a folder of this name"},
		"deep folder": {func(t *testing.T, dir string) { require.NoError(t, os.MkdirAll(filepath.Join(dir, "runs/a/b"), 0o755)) }, ruleForm, "runs/a/b"},
		"link to a file": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, ReadmeFile)))
			require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, ReadmeFile)))
		}, ruleForm, "not a file"},
		"link to a folder": {func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(filepath.Join(dir, "runs/b"), filepath.Join(filepath.Dir(dir), "moved")))
			require.NoError(t, os.Symlink("../../moved", filepath.Join(dir, "runs/b")))
		}, ruleForm, "runs/b"},
		"edited file":  {func(t *testing.T, dir string) { edit(t, filepath.Join(dir, "runs/a/bench.txt"), "1", "2") }, ruleDigest, "runs/a/bench.txt: its SHA-256 is"},
		"edited sums":  {func(t *testing.T, dir string) { edit(t, filepath.Join(dir, SumsFile), "README.md", "RFADME.md") }, ruleDigest, "README.md is not listed"},
		"sums twice":   {func(t *testing.T, dir string) { edit(t, filepath.Join(dir, SumsFile), "  README.md", "  CITATION.cff") }, ruleDigest, "each once"},
		"missing run":  {func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, "runs/b"))) }, ruleDigest, "is not there"},
		"run unlisted": {func(t *testing.T, dir string) { reseal(t, dir, func(m *Manifest) { m.Runs = m.Runs[:1] }) }, ruleManifest, "runs/b is not listed"},
		"table gone": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "runs/b/spans.arrow")))
			reseal(t, dir, nil)
		}, ruleForm, "spans.arrow"},
		"files unlisted":  {func(t *testing.T, dir string) { reseal(t, dir, func(m *Manifest) { m.Files = m.Files[1:] }) }, ruleDigest, "the files it lists"},
		"other schema":    {func(t *testing.T, dir string) { reseal(t, dir, func(m *Manifest) { m.Schema = "meibench.bundle/v2" }) }, ruleManifest, "this program reads"},
		"name with slash": {func(t *testing.T, dir string) { reseal(t, dir, func(m *Manifest) { m.Name = "../../x" }) }, ruleManifest, "name is"},
		"hidden text":     {func(t *testing.T, dir string) { reseal(t, dir, func(m *Manifest) { m.Title = "ab\u202edc" }) }, ruleManifest, "U+202E"},
		"control character": {func(t *testing.T, dir string) {
			reseal(t, dir, func(m *Manifest) { m.Runs[0].System = "x\x1b[31m" })
		}, ruleManifest, "U+001B"},
		"third division": {func(t *testing.T, dir string) { reseal(t, dir, func(m *Manifest) { m.Division = "best" }) }, ruleManifest, "division"},
		"other statement": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, StatementFile), "Statement/v1", "Statement/v2")
		}, ruleDigest, StatementFile},
		"foreign note": {func(t *testing.T, dir string) {
			k, _ := key(t, "mallory")
			n, err := sign("something else\n", nil, k)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, NoteFile), n, 0o644))
		}, ruleDigest, "what is signed is not this bundle"},
		"broken note": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, NoteFile), []byte("x"), 0o644))
		}, ruleDigest, NoteFile},
		"no plan": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "runs/a/plan.json"), []byte("{"), 0o644))
			reseal(t, dir, nil)
		}, ruleTables, "plan"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copied(t, base)
			c.attack(t, dir)
			refused(t, dir, c.rule, c.want)
		})
	}
	refused(t, os.DevNull, ruleForm, "neither a file nor a folder")
}

func TestOpenRefusesManifests(t *testing.T) {
	dir := written(t, Options{Name: "x"})
	good := read(t, dir, ManifestFile)
	for name, c := range map[string]struct{ text, want string }{
		"unknown field":  {strings.Replace(good, `{"attempts"`, `{"aaa":1,"attempts"`, 1), `unknown field "aaa"`},
		"field twice":    {strings.Replace(good, `"name":"x"`, `"name":"x","name":"y"`, 1), `the key "name" is there twice`},
		"other capitals": {strings.Replace(good, `"name":"x"`, `"Name":"x"`, 1), "canonical"},
		"blank":          {strings.Replace(good, `,`, `, `, 1), "canonical"},
		"more after it":  {good + "{}\n", "canonical"},
		"no newline":     {strings.TrimSuffix(good, "\n"), "canonical"},
		"deep":           {strings.Repeat("[", 100) + strings.Repeat("]", 100), "nests deeper"},
		"cut":            {good[:len(good)/2], "unexpected EOF"},
		"not UTF-8":      {strings.Replace(good, `"name":"x"`, "\"name\":\"\xff\"", 1), "not UTF-8"},
		"not finite":     {strings.Replace(good, `"bytes":0`, `"bytes":1e999`, 1), "canonical"},
		"a list":         {"[]\n", "array"},
		"null":           {"null\n", "canonical"},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "not finite" {
				require.NotEqual(t, good, c.text)
			}
			var m Manifest
			err := readCanonical([]byte(c.text), &m)
			if name == "not finite" && c.text == good {
				t.Skip("no empty file in it")
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

// forge makes a zip with the entries of a bundle after a change.
func forge(t testing.TB, dir string, change func(h *zip.FileHeader, content []byte) (*zip.FileHeader, []byte)) string {
	names, err := tree(dir, Limits{}.orDefault())
	require.NoError(t, err)
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, n := range names {
		content := []byte(read(t, dir, n))
		//lint:ignore SA1019 the date that bundles have
		h := &zip.FileHeader{Name: n, Method: zip.Store, ModifiedDate: zipDate}
		h.SetMode(0o644)
		if change != nil {
			h, content = change(h, content)
		}
		if h == nil {
			continue
		}
		if h.CRC32 == 0 {
			h.CRC32 = crc32.ChecksumIEEE(content)
		}
		if h.UncompressedSize64 == 0 {
			h.CompressedSize64, h.UncompressedSize64 = uint64(len(content)), uint64(len(content))
		}
		to, err := w.CreateRaw(h)
		require.NoError(t, err)
		_, err = to.Write(content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	file := filepath.Join(t.TempDir(), "f"+Extension)
	require.NoError(t, os.WriteFile(file, out.Bytes(), 0o644))
	return file
}

func TestForgeWithoutChangeIsABundle(t *testing.T) {
	b, err := Open(forge(t, written(t, Options{Name: "x"}), nil))
	require.NoError(t, err)
	require.NoError(t, b.Close())
}

func TestOpenRefusesZips(t *testing.T) {
	base := written(t, Options{Name: "x"})
	rename := func(to string) func(h *zip.FileHeader, c []byte) (*zip.FileHeader, []byte) {
		return func(h *zip.FileHeader, c []byte) (*zip.FileHeader, []byte) {
			if h.Name == ReadmeFile {
				h.Name = to
			}
			return h, c
		}
	}
	on := func(f func(h *zip.FileHeader)) func(h *zip.FileHeader, c []byte) (*zip.FileHeader, []byte) {
		return func(h *zip.FileHeader, c []byte) (*zip.FileHeader, []byte) {
			if h.Name == ReadmeFile {
				f(h)
			}
			return h, c
		}
	}
	for name, c := range map[string]struct {
		change func(h *zip.FileHeader, c []byte) (*zip.FileHeader, []byte)
		want   string
	}{
		"path out":      {rename("../../etc/cron.d/x"), "no bundle has a file of this name"},
		"absolute path": {rename("/etc/passwd"), "no bundle has a file of this name"},
		"backslash":     {rename(`runs\a\run.json`), "no bundle has a file of this name"},
		"dots inside":   {rename("runs/../run.json"), "a run's name"},
		"drive":         {rename("C:run.json"), "no bundle has a file of this name"},
		"twice":         {rename(ManifestFile), "it is there twice"},
		"capitals":      {rename("runs/A/run.json"), "in capitals only"},
		"capitals after": {func(h *zip.FileHeader, c []byte) (*zip.FileHeader, []byte) {
			if h.Name == SummaryFile {
				h.Name = "runs/A/run.json"
			}
			return h, c
		}, "runs/A/run.json: it is there twice, or differs from runs/a/run.json in capitals only"},
		"script in a name":  {rename("runs/<script>/run.json"), "a run's name"},
		"device of Windows": {rename("runs/CON/run.json"), "a run's name"},
		"link":              {on(func(h *zip.FileHeader) { h.SetMode(0o777 | os.ModeSymlink) }), "not a file"},
		"device":            {on(func(h *zip.FileHeader) { h.SetMode(0o600 | os.ModeDevice) }), "not a file"},
		"bomb":              {on(func(h *zip.FileHeader) { h.Method, h.CompressedSize64, h.UncompressedSize64 = zip.Deflate, 10, 1<<40 }), "it is compressed"},
		"giant size":        {on(func(h *zip.FileHeader) { h.CompressedSize64, h.UncompressedSize64 = 1<<31, 1<<31 }), "at most"},
		"more than there":   {on(func(h *zip.FileHeader) { h.CompressedSize64, h.UncompressedSize64 = 1<<20, 1<<20 }), "the zip was cut off"},
		"encrypted":         {on(func(h *zip.FileHeader) { h.Flags |= 1 }), "encrypted"},
		"extra fields":      {on(func(h *zip.FileHeader) { h.Extra = []byte{1, 0, 0, 0} }), "extra fields"},
		"comment":           {on(func(h *zip.FileHeader) { h.Comment = "hi" }), "comment"},
		"checksum":          {on(func(h *zip.FileHeader) { h.CRC32 = 7 }), "checksum"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, forge(t, base, c.change), ruleForm, c.want) })
	}
}

func TestOpenRefusesBrokenZips(t *testing.T) {
	good := []byte(read(t, packed(t)))
	end := len(good) - zipEnd
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		want   string
	}{
		"empty":         {func([]byte) []byte { return nil }, "no zip"},
		"cut":           {func(b []byte) []byte { return b[:len(b)/2] }, "does not end as a zip does"},
		"cut by one":    {func(b []byte) []byte { return b[:len(b)-1] }, "does not end as a zip does"},
		"more at end":   {func(b []byte) []byte { return append(b, 0) }, "does not end as a zip does"},
		"more at begin": {func(b []byte) []byte { return append([]byte("#!/bin/sh\n"), b...) }, "its directory"},
		"many files": {func(b []byte) []byte {
			binary.LittleEndian.PutUint16(b[end+8:], 65535)
			binary.LittleEndian.PutUint16(b[end+10:], 65535)
			return b
		}, "at most 10000 are read"},
		"giant header": {func(b []byte) []byte { binary.LittleEndian.PutUint32(b[end+12:], 1<<31); return b }, "its directory of 2147483648 bytes"},
		"local name":   {func(b []byte) []byte { b[zipLocal] = 'c'; return b }, "what stands before it"},
		"offset": {func(b []byte) []byte { // of the second file is that of the first
			first := int(binary.LittleEndian.Uint32(b[end+16:]))
			second := first + zipEntry + int(binary.LittleEndian.Uint16(b[first+28:]))
			binary.LittleEndian.PutUint32(b[second+42:], 0)
			return b
		}, "right behind the file"},
		"two of one":     {func(b []byte) []byte { b[end+4] = 1; return b }, "several parts"},
		"hidden between": {hide, "belong to neither"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "f.zip")
			require.NoError(t, os.WriteFile(file, c.change(bytes.Clone(good)), 0o644))
			refused(t, file, ruleForm, c.want)
		})
	}
}

// hide puts bytes between the files and the directory of a zip.
func hide(b []byte) []byte {
	end := len(b) - zipEnd
	start := binary.LittleEndian.Uint32(b[end+16:])
	b = slices.Insert(b, int(start), []byte("hidden")...)
	binary.LittleEndian.PutUint32(b[end+6+16:], start+6)
	return b
}

func TestLimits(t *testing.T) {
	file, dir := packed(t), written(t, Options{})
	for _, path := range []string{file, dir} {
		for _, c := range []struct {
			l    Limits
			want string
		}{{Limits{Files: 5}, "at most 5"}, {Limits{Document: 100}, "at most 100 are read"}, {Limits{File: 1000}, "at most 1000 are read"}, {Limits{Total: 10_000}, "of 10000 are read"}} {
			_, err := OpenWithin(path, c.l)
			var r *Refusal
			require.ErrorAs(t, err, &r)
			require.ErrorContains(t, err, c.want)
		}
	}
}

func TestOpenRefusesTables(t *testing.T) {
	base := written(t, Options{})
	for name, c := range map[string]struct {
		change func(t *testing.T, run string)
		want   string
	}{
		"no Arrow": {func(t *testing.T, run string) {
			require.NoError(t, os.WriteFile(filepath.Join(run, results.RequestsFile), []byte(strings.Repeat("x", 5000)), 0o644))
		}, results.RequestsFile},
		"empty": {func(t *testing.T, run string) {
			require.NoError(t, os.WriteFile(filepath.Join(run, results.CellsFile), nil, 0o644))
		}, results.CellsFile},
		"another table": {func(t *testing.T, run string) {
			require.NoError(t, os.WriteFile(filepath.Join(run, results.SpansFile), []byte(read(t, run, results.RequestsFile)), 0o644))
		}, "no meibench.spans/v1 table"},
		"huge rows": {func(t *testing.T, run string) { // the column rows of four runs of cells
			was, now := bytes.Repeat([]byte{9, 0, 0, 0, 0, 0, 0, 0}, 4), bytes.Repeat([]byte{0, 0, 0, 0, 0, 1, 0, 0}, 4)
			edit(t, filepath.Join(run, results.CellsFile), string(was), string(now))
		}, "claim more requests than"},
		"not finished": {func(t *testing.T, run string) {
			edit(t, filepath.Join(run, results.ManifestFile), `"finished"`, `"finisher"`)
		}, "not finished"},
		"run.json": {func(t *testing.T, run string) { edit(t, filepath.Join(run, results.ManifestFile), `{`, `[`) }, results.ManifestFile},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copied(t, base)
			c.change(t, filepath.Join(dir, "runs", "a"))
			reseal(t, dir, nil)
			refused(t, dir, ruleTables, c.want)
		})
	}
}

func TestSignatures(t *testing.T) {
	alice, alicePub := key(t, "alice")
	bob, bobPub := key(t, "bob")
	mallory, _ := key(t, "alice") // another key of the same name
	dir := written(t, Options{Name: "x", Key: alice})
	file := filepath.Join(t.TempDir(), "x.zip")
	require.NoError(t, Pack(dir, file))
	known, err := Verifiers(alicePub + bobPub)
	require.NoError(t, err)
	for _, path := range []string{dir, file} {
		was := read(t, dir, SumsFile)
		require.NoError(t, Sign(path, bob))
		require.NoError(t, Sign(path, bob), "once more changes nothing")
		require.NoError(t, Sign(path, mallory))
		b, err := Open(path)
		require.NoError(t, err)
		signers, err := b.Signers(known...)
		require.NoError(t, err)
		require.Len(t, signers, 3)
		said := fmt.Sprint(signers)
		require.Contains(t, said, fmt.Sprintf("{alice %d true}", known[0].KeyHash()))
		require.Contains(t, said, fmt.Sprintf("{bob %d true}", known[1].KeyHash()))
		require.Contains(t, said, "false}", "a key that only calls itself alice is not known")
		require.Equal(t, was, string(b.Sums), "signatures change nothing that is signed")
		require.NoError(t, b.Close())
	}
	edit(t, filepath.Join(dir, NoteFile), "— bob ", "— bob A")
	b, err := Open(dir)
	if err == nil {
		_, err = b.Signers(known...)
		require.NoError(t, b.Close())
	}
	require.Error(t, err, "a signature that was touched is no signature")
}
