package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness"
	"meibench/harness/ops"
	"meibench/harness/results"
	"meibench/internal/canon"
	"meibench/suites"
)

func copyTree(t *testing.T, from, to string) {
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
}

// edit changes a file of a shard.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	after := change(b)
	require.NotEqual(t, b, after, "nothing was changed")
	require.NoError(t, os.WriteFile(path, after, 0o644))
}

// remark makes the mark of a shard fit its run.json again, as a forger would.
func remark(t *testing.T, shard string, change func(*Mark)) {
	run, err := results.DigestFile(filepath.Join(shard, results.ManifestFile))
	require.NoError(t, err)
	edit(t, filepath.Join(shard, DoneFile), func(b []byte) []byte {
		var m Mark
		require.NoError(t, json.Unmarshal(b, &m))
		m.Run = run.SHA256
		if change != nil {
			change(&m)
		}
		text, err := canon.JSON(m)
		require.NoError(t, err)
		return text
	})
}

func replaced(old, by string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(by), 1) }
}

// damage is a way to spoil a sweep in three shards, and what merge says to it.
type damage struct {
	name  string
	spoil func(t *testing.T, d string)
	want  string
}

// wrongShards are those that are missing, double or of another sweep.
func wrongShards(sound *Dir, other, halves, empty string) []damage {
	return []damage{
		{"one without its cells, its mark changed", func(t *testing.T, d string) {
			require.NoError(t, os.RemoveAll(d+"/shard-1"))
			copyTree(t, empty, d+"/shard-1")
			remark(t, d+"/shard-1", func(m *Mark) { m.Shard = "1/3" })
		}, "is missing from it (and 5 more)"},
		{"a plan with other terms, all marks changed", func(t *testing.T, d string) {
			edit(t, d+"/"+File, replaced(sound.Sheet.Plan.Suites[0].Cells[2].Contract, "00"))
			changed, err := Open(d)
			require.NoError(t, err)
			for _, shard := range []string{"/shard-0", "/shard-1", "/shard-2"} {
				remark(t, d+shard, func(m *Mark) { m.Plan = changed.digest })
			}
		}, "ran under other terms than the plan has"},
		{"a shard is missing", func(t *testing.T, d string) { require.NoError(t, os.RemoveAll(d+"/shard-1")) }, "not whole: shard-1: it never began;"},
		{"two are missing", func(t *testing.T, d string) {
			require.NoError(t, os.RemoveAll(d+"/shard-1"))
			require.NoError(t, os.Rename(d+"/shard-2", d+"/shard-2.partial"))
		}, "shard-1: it never began; shard-2: it was interrupted"},
		{"no mark", func(t *testing.T, d string) { require.NoError(t, os.Remove(d+"/shard-1/DONE")) }, "shard-1: it has no mark DONE: damaged"},
		{"a mark cut short", func(t *testing.T, d string) {
			edit(t, d+"/shard-1/DONE", func(b []byte) []byte { return b[:len(b)/2] })
		}, "shard-1: read "},
		{"one shard twice", func(t *testing.T, d string) {
			require.NoError(t, os.RemoveAll(d+"/shard-1"))
			copyTree(t, d+"/shard-0", d+"/shard-1")
		}, "shard-1: " + "%s/shard-1/DONE: it is the mark of shard 0/3"},
		{"one shard twice, its mark changed", func(t *testing.T, d string) {
			require.NoError(t, os.RemoveAll(d+"/shard-1"))
			copyTree(t, d+"/shard-0", d+"/shard-1")
			remark(t, d+"/shard-1", func(m *Mark) { m.Shard = "1/3" })
		}, "shard-1: foreign: small/app="},
		{"one too many", func(t *testing.T, d string) { copyTree(t, d+"/shard-0", d+"/shard-3") }, "shard-3: a sweep in 3 shards has none of this name: foreign"},
		{"a spare copy", func(t *testing.T, d string) { copyTree(t, d+"/shard-0", d+"/shard-0-copy") }, "shard-0-copy: a sweep in 3 shards has none"},
		{"of another sweep", func(t *testing.T, d string) {
			require.NoError(t, os.RemoveAll(d+"/shard-2"))
			copyTree(t, other+"/shard-2", d+"/shard-2")
		}, "shard-2: %s/shard-2/DONE: it is of a sweep of another plan"},
		{"of another sweep, its mark changed", func(t *testing.T, d string) {
			require.NoError(t, os.RemoveAll(d+"/shard-2"))
			copyTree(t, other+"/shard-2", d+"/shard-2")
			remark(t, d+"/shard-2", func(m *Mark) { m.Plan = sound.digest })
		}, "shard-2: foreign: small/app="},
		{"of a sweep in two", func(t *testing.T, d string) {
			require.NoError(t, os.RemoveAll(d+"/shard-1"))
			copyTree(t, halves+"/shard-1", d+"/shard-1")
		}, "it is the mark of shard 1/2"},
	}
}

// damagedFiles are shards of the sweep whose files are not what they were.
func damagedFiles() []damage {
	return []damage{
		{"a bit of a table", func(t *testing.T, d string) {
			edit(t, d+"/shard-1/requests.arrow", func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b })
		}, "shard-1: damaged: requests.arrow is not the file"},
		{"a table cut short", func(t *testing.T, d string) {
			edit(t, d+"/shard-2/spans.arrow", func(b []byte) []byte { return b[:len(b)-100] })
		}, "shard-2: damaged: "},
		{"a table is gone", func(t *testing.T, d string) { require.NoError(t, os.Remove(d+"/shard-2/cells.arrow")) }, "shard-2: damaged: "},
		{"benchmark text", func(t *testing.T, d string) { edit(t, d+"/shard-0/bench.txt", replaced("Unit", "unit")) }, "shard-0: damaged: bench.txt is not the file"},
		{"the manifest", func(t *testing.T, d string) {
			edit(t, d+"/shard-0/run.json", replaced(`"quick":false`, `"quick":true`))
		}, "shard-0: damaged: run.json is not the file that DONE marks"},
		{"the manifest is gone", func(t *testing.T, d string) { require.NoError(t, os.Remove(d+"/shard-0/run.json")) }, "shard-0: damaged: "},
		{"another program", func(t *testing.T, d string) {
			edit(t, d+"/shard-1/run.json", replaced(`"commit":"`, `"commit":"another`))
			remark(t, d+"/shard-1", nil)
		}, "shard-1: foreign: its commit differ from those of shard-0"},
	}
}

// TestMergeRefusesByName every kind of damage, and writes nothing then.
func TestMergeRefusesByName(t *testing.T) {
	sound := begin(t, 3)
	require.NoError(t, sound.RunAll(context.Background(), &harness.Lab{}, options()))
	other := begin(t, 3, suites.Set{Key: "requests", Values: []any{7.0}})
	require.NoError(t, other.RunAll(context.Background(), &harness.Lab{}, options()))
	halves := begin(t, 2)
	require.NoError(t, halves.RunAll(context.Background(), &harness.Lab{}, options()))

	many := begin(t, 25) // more than there are runs of cells
	require.NoError(t, many.Run(context.Background(), &harness.Lab{}, 24, options()))
	for _, tc := range slices.Concat(wrongShards(sound, other.Path, halves.Path, many.Name(24)), damagedFiles()) {
		t.Run(tc.name, func(t *testing.T) {
			dir, out := filepath.Join(t.TempDir(), "sweep"), filepath.Join(t.TempDir(), "merged")
			copyTree(t, sound.Path, dir)
			tc.spoil(t, dir)
			_, err := Merge(dir, out)
			require.ErrorContains(t, err, strings.ReplaceAll(tc.want, "%s", dir))
			require.ErrorContains(t, err, "go on with: meibench sweep --out "+dir)
			require.NoDirExists(t, out)
		})
	}
	_, err := Merge(sound.Path, filepath.Join(t.TempDir(), "merged"))
	require.NoError(t, err, "the sound one is taken")
	_, err = Merge(t.TempDir(), t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestShardsOfManyMachines: what hosts differ in stands side by side, and nothing else may differ.
func TestShardsOfManyMachines(t *testing.T) {
	d := begin(t, 3)
	require.NoError(t, d.RunAll(context.Background(), &harness.Lab{}, options()))
	cpu := manifest(t, d.Name(0)).CPU
	edit(t, d.Name(1)+"/run.json", func(b []byte) []byte {
		var m results.Manifest
		require.NoError(t, json.Unmarshal(b, &m))
		m.CPU, m.Host["cores"], m.Warnings = "Zilog Z80", "1", []string{"resumed: 7 bytes"}
		m.Started = m.Started.Add(-1)
		text, err := canon.JSON(&m)
		require.NoError(t, err)
		return text
	})
	remark(t, d.Name(1), func(m *Mark) { m.Node = "edge2" })
	for i := range 2 { // as measured cells leave them
		require.NoError(t, os.Mkdir(filepath.Join(d.Name(i), ops.Dir), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(d.Name(i), ops.Dir, fmt.Sprint(i)), []byte{byte(i)}, 0o644))
	}
	out := filepath.Join(t.TempDir(), "merged")
	_, err := Merge(d.Path, out)
	require.NoError(t, err)
	for i := range 2 {
		b, err := os.ReadFile(filepath.Join(out, ops.Dir, fmt.Sprint(i)))
		require.NoError(t, err)
		require.Equal(t, []byte{byte(i)}, b)
	}
	m := manifest(t, out)
	require.Equal(t, cpu+" | Zilog Z80", m.CPU)
	require.Contains(t, m.Host["cores"], "1")
	require.Equal(t, []string{"shard 1: resumed: 7 bytes"}, m.Warnings)
	require.Equal(t, manifest(t, d.Name(1)).Started, m.Started, "the first start")
	var marks []Mark
	b, err := os.ReadFile(filepath.Join(out, SharesFile))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &marks))
	require.Equal(t, []string{"here", "edge2", "here"}, []string{marks[0].Node, marks[1].Node, marks[2].Node})
	same(t, whole(t), out)
}
