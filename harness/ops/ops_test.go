package ops

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
)

func recorded() *Recorder {
	m := &hardware.Model{Name: "toy", Layers: 4}
	r := NewRecorder()
	on := r.On("edge")
	on(&hardware.Op{Kind: hardware.Prefill, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: 10}, {New: 3, Context: 5}}}, 5, 20)
	on(&hardware.Op{Kind: hardware.Decode, Model: m, Layers: hardware.Span{Lo: 1, Hi: 4}, Seqs: []hardware.Seq{{New: 1, Context: 10}}}, 30, 40)
	for _, other := range []hardware.Op{ // another law
		{Kind: hardware.Load, Model: m}, {Kind: hardware.Drop, Model: m},
		{Kind: hardware.Decode, Model: m, Layers: m.All(), Keep: &hardware.Keep{Budget: 8}, Seqs: []hardware.Seq{{New: 1}}},
		{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: 1, Adapter: "a"}}},
	} {
		on(&other, 50, 60)
	}
	return r
}

func TestWrittenAndRead(t *testing.T) {
	dir := t.TempDir()
	run := Run{Suite: "s", Cell: "app=ar/pipeline=local", Index: 3, Repeat: 1, Seed: 9}
	rec := recorded()
	rec.Message(Wait{Link: "up", Due: 7, End: 9})
	rec.Message(Wait{Link: "up", Resumed: true, Due: 9, End: 12})
	require.NoError(t, rec.Write(dir, run))
	require.NoError(t, NewRecorder().Write(dir, Run{Index: 4}))
	got, err := Read(dir)
	require.NoError(t, err)
	require.Len(t, got, 1, "a run without operations leaves no table")
	require.Equal(t, run, got[0].Run)
	require.Equal(t, []Op{
		{Node: "edge", Kind: hardware.Prefill, Model: "toy", Lo: 0, Hi: 4, Sequences: 2, Tokens: 13, Pairs: 55 + 15 + 6, Start: 5, End: 20},
		{Node: "edge", Kind: hardware.Decode, Model: "toy", Lo: 1, Hi: 4, Sequences: 1, Tokens: 1, Pairs: 11, Start: 30, End: 40},
	}, got[0].Ops)
	require.Equal(t, []Wait{{Link: "up", Due: 7, End: 9}, {Link: "up", Resumed: true, Due: 9, End: 12}}, got[0].Waits)
	require.Equal(t, [6]float64{1, 3, 3, 33, 1, 1}, [6]float64(got[0].Ops[1].Row(4)))

	none, err := Read(t.TempDir())
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestOnlyTheFirstAreKept(t *testing.T) {
	r := recorded()
	r.ops = append(r.ops, make([]Op, Most-2)...)
	m := &hardware.Model{Name: "toy", Layers: 4}
	r.On("x")(&hardware.Op{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: 1}}}, 0, time.Second)
	require.Len(t, r.ops, Most)
	require.Equal(t, 1, r.left)
}

const head = `#meibench.ops/v1 {"suite":"s","cell":"c","index":0,"repeat":0,"seed":1,"left_out":0}
node,kind,model,layer_lo,layer_hi,sequences,tokens,pairs,start_ns,end_ns
`

func TestRefusals(t *testing.T) {
	for row, want := range map[string]string{
		"edge,decode,toy,0,4,1,1,5,20,10":                    "line 3: time goes back: it started at 20 ns and ended at 10 ns",
		"up,message,,0,0,0,0,0,20,10":                        "time goes back: a message due at 20 ns came at 10 ns",
		"edge,load,toy,0,4,1,1,5,10,20":                      `line 3: kind "load": want prefill, decode or verify`,
		"edge,decode,toy,0,4,2,1,5,10,20":                    "2 sequences with 1 new tokens",
		"edge,decode,toy,0,4,1,2,5,10,20":                    "a decode step of 1 sequences made 2 tokens",
		"edge,decode,toy,4,4,1,1,5,10,20":                    "layers [4, 4) are none",
		"edge,decode,toy,0,4,1,1,-5,10,20":                   `pairs "-5": want a whole number`,
		"edge,decode,toy,0,99999999999,1,1,5,10,20":          "is absurd",
		"edge,decode,toy,0,4,1,1,5,10":                       "wrong number of fields",
		"edge,prefill,toy,0,4,1,1,99999999999999999999,1,20": "want a whole number",
	} {
		_, err := Parse([]byte(head + row + "\n"))
		require.ErrorContains(t, err, want, row)
	}
	_, err := Parse([]byte("a,b\n"))
	require.ErrorContains(t, err, "not a table of operations")
	_, err = Parse([]byte(strings.Replace(head, `"suite"`, `"sweet"`, 1)))
	require.ErrorContains(t, err, "line 1")
	_, err = Parse([]byte(strings.Replace(head, "pairs", "pears", 1)))
	require.ErrorContains(t, err, "line 2: want the columns")

	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, Dir), 0o755))
	path := filepath.Join(dir, Dir, "00000-000.csv")
	require.NoError(t, os.WriteFile(path, []byte(head+"x"), 0o644))
	_, err = Read(dir)
	require.ErrorContains(t, err, path)
}

// FuzzParse: whatever is read is sane.
func FuzzParse(f *testing.F) {
	f.Add([]byte(head + "edge,decode,toy,0,4,1,1,5,10,20\n"))
	f.Add([]byte(head + "\"e\"\"dge\",prefill,toy,0,4,3,9,5,10,20\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		table, err := Parse(text)
		if err != nil {
			return
		}
		for _, o := range table.Ops {
			require.True(t, o.End >= o.Start && o.Hi > o.Lo && o.Tokens >= o.Sequences && o.Sequences > 0 && o.Pairs >= 0)
		}
	})
}
