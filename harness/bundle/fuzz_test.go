package bundle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/results"
	"meibench/internal/canon"
)

// FuzzOpenZip: whatever a damaged zip holds, Open answers with a bundle or a refusal.
func FuzzOpenZip(f *testing.F) {
	dir := f.TempDir()
	run := made(f, filepath.Join(dir, "a"), spec{cells: 1, repeats: 1, requests: 2})
	folder, file := filepath.Join(dir, "out"), filepath.Join(dir, "x.zip")
	require.NoError(f, Write(folder, []string{run}, Options{Name: "x"}))
	require.NoError(f, Pack(folder, file))
	good := []byte(read(f, file))
	end := len(good) - zipEnd
	start := int(binary.LittleEndian.Uint32(good[end+16:]))
	f.Add(uint32(0), uint64(0), uint32(0), []byte(nil))
	for i := range 16 {
		f.Add(uint32(len(good)*i/16), uint64(1)<<(4*i), uint32(i/8), []byte(nil))
		f.Add(uint32(start+23*i), uint64(1)<<(4*i), uint32(0), []byte(nil))
		f.Add(uint32(end+i), uint64(255), uint32(0), []byte("PK\x05\x06")[:i/4])
	}
	f.Add(uint32(start), uint64(0), uint32(start), []byte(nil)) // the directory alone
	f.Fuzz(func(t *testing.T, at uint32, flip uint64, cut uint32, insert []byte) {
		b := bytes.Clone(good)
		for k := range 8 {
			b[(int(at)+k)%len(b)] ^= byte(flip >> (8 * k))
		}
		b = slices.Insert(b, int(at)%len(b), insert...)
		b = b[int(cut)%len(b):]
		path := filepath.Join(t.TempDir(), "f.zip")
		require.NoError(t, os.WriteFile(path, b, 0o644))
		bundle, err := OpenWithin(path, Limits{File: 1 << 20, Document: 1 << 20, Total: 4 << 20})
		if err != nil {
			var r *Refusal
			require.Truef(t, errors.As(err, &r), "not a refusal: %v", err)
			return
		}
		require.Equal(t, "x", bundle.Manifest.Name)
		require.NoError(t, bundle.Close())
	})
}

// FuzzManifest: a text is the one canonical form of what it says, or refused.
func FuzzManifest(f *testing.F) {
	f.Add(read(f, written(f, Options{Name: "x", Title: "t"}), ManifestFile))
	f.Add(`{"a":{"a":[1,2,{"b":null}]}}`)
	f.Add(`{"name":"x","name":"y"}`)
	f.Add("[[[[[[[[")
	f.Add("{\"title\":\"\\u202e\"}\n")
	f.Fuzz(func(t *testing.T, text string) {
		var m Manifest
		if err := readCanonical([]byte(text), &m); err != nil {
			return
		}
		again, err := canon.JSON(m)
		require.NoError(t, err)
		require.Equal(t, text, string(again)+"\n")
		_, clean := plainText(m.Name + m.Title + m.Submitter)
		require.True(t, clean)
		var r *Refusal
		if err := m.check(nil); err != nil {
			require.ErrorAs(t, err, &r)
		}
	})
}

// FuzzBundleArrow: damaged tables inside a bundle whose digests are right cost an
// error and little memory.
func FuzzBundleArrow(f *testing.F) {
	dir := f.TempDir()
	run := made(f, filepath.Join(dir, "a"), spec{cells: 1, repeats: 2, requests: 3})
	folder := filepath.Join(dir, "out")
	require.NoError(f, Write(folder, []string{run}, Options{Name: "x"}))
	tables := []string{results.RequestsFile, results.SpansFile, results.CellsFile}
	var good [][]byte
	for i, name := range tables {
		good = append(good, []byte(read(f, folder, "runs/a", name)))
		for k := range 12 {
			f.Add(uint8(i), uint32(len(good[i])*k/12), uint64(1)<<(5*k), []byte(nil))
			f.Add(uint8(i), uint32(len(good[i])-8*k-8), ^uint64(0), []byte{1, 2})
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint32, flip uint64, tail []byte) {
		i := int(which) % len(tables)
		b := bytes.Clone(good[i])
		for k := range 8 {
			b[(int(at)+k)%len(b)] ^= byte(flip >> (8 * k))
		}
		require.NoError(t, os.WriteFile(filepath.Join(folder, "runs/a", tables[i]), append(b, tail...), 0o644))
		reseal(t, folder, nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		defer func() {
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "a bundle of some hundred kilobytes")
		}()
		defer func() {
			require.NoError(t, os.WriteFile(filepath.Join(folder, "runs/a", tables[i]), good[i], 0o644))
		}()
		bundle, err := Open(folder)
		if err != nil {
			var r *Refusal
			require.Truef(t, errors.As(err, &r), "not a refusal: %v", err)
			return
		}
		defer bundle.Close()
		if _, err := Summarise(bundle.Runs); err != nil {
			return
		}
		_, _, err = Derive(bundle.Runs, bundle.Manifest)
		require.NoError(t, err, "what can be summarised can be derived")
	})
}
