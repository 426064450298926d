package library

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
)

const wards = `
name: wards
source: made for a test
blocks:
  - {name: base, bytes: 1000, layers: [0, 4]}
  - {name: top, bytes: 100, layers: [4, 5]}
  - {name: heart, bytes: 10, sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}
  - {name: lung, bytes: 20}
models:
  - {name: frozen, blocks: [base]}
  - {name: general, needs: [frozen], blocks: [top], weight: 4}
  - {name: cardiology, family: wards, needs: [general], blocks: [heart], adapter: heart, weight: 1.5}
  - {name: both, needs: [cardiology, general], blocks: [lung], rungs: [{upto: top, quality: 0.5}, {upto: lung}], weight: 1}
`

func withWeights(text string) string {
	return strings.Replace(text, "blocks: [base]}", "blocks: [base], weight: 2}", 1)
}

// What a model needs comes first, each block once, in the order of use.
func TestC2LibraryFiles(t *testing.T) {
	l, err := Parse("wards.yaml", []byte(withWeights(wards)))
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2, 3}, l.Models[3].Blocks)
	require.Equal(t, []int{0, 1, 2}, l.Models[2].Blocks)
	require.Equal(t, "heart", l.Models[2].Adapter)
	require.Equal(t, []float64{2, 4, 1.5, 1}, l.Weights)
	require.Equal(t, 2, l.Models[3].Rungs[0].Blocks)
	require.True(t, math.IsNaN(l.Models[3].Rungs[1].Quality))
	apart, shared := l.Sizes()
	require.Equal(t, units.Bytes(1000+1100+1110+1130), apart)
	require.Equal(t, units.Bytes(1130), shared)
	d, err := DemandOf(Popularity{S: 3}, l.Weights, 1)
	require.NoError(t, err)
	require.InDeltaSlice(t, []float64{2 / 8.5, 4 / 8.5, 1.5 / 8.5, 1 / 8.5}, d.Probabilities(0), 1e-12)
	_, err = DemandOf(Popularity{}, []float64{1, math.NaN()}, 1)
	require.ErrorContains(t, err, "weight NaN of model 1")
	_, err = DemandOf(Popularity{}, nil, 1)
	require.ErrorContains(t, err, "0 weights")

	path := filepath.Join(t.TempDir(), "wards.yaml")
	require.NoError(t, os.WriteFile(path, []byte(withWeights(wards)), 0o600))
	again, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, l.Digest(), again.Digest())
	_, err = Load(path + "x")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Every kind of library is the same library when it was written and read.
func TestC2LibrariesSurviveTheirText(t *testing.T) {
	for _, kind := range Kinds() {
		s := Shape{Name: "m", Layers: 6, Embed: 100, Layer: 50, Head: 100, Adapter: 5, Coarse: 0.53}
		if kind[0] == "experts" {
			s.Experts, s.Expert = 8, 20
		}
		l, err := Build(kind[0]+":9", s)
		require.NoError(t, err)
		text, err := l.Text()
		require.NoError(t, err)
		got, err := Parse("again.yaml", text)
		require.NoError(t, err, "%s", text)
		require.Equal(t, l.Digest(), got.Digest(), kind[0])
	}
	l, err := Parse("wards.yaml", []byte(withWeights(wards)))
	require.NoError(t, err)
	text, err := l.Text()
	require.NoError(t, err)
	got, err := Parse("again.yaml", text)
	require.NoError(t, err)
	require.Equal(t, l.Digest(), got.Digest())
}

func TestC2ImpossibleLibraryFiles(t *testing.T) {
	for want, change := range map[string][2]string{
		`models need each other: frozen needs cardiology needs general needs frozen`: {"{name: frozen, blocks", "{name: frozen, needs: [cardiology], blocks"},
		`models need each other: general needs general`:                              {"needs: [frozen], blocks: [top]", "needs: [general], blocks: [top]"},
		`needs model "frosen", which does not exist`:                                 {"needs: [frozen]", "needs: [frosen]"},
		`block "tip" does not exist`:                                                 {"blocks: [top]", "blocks: [tip]"},
		`block "base" twice`:                                                         {"blocks: [top], weight", "blocks: [base, top], weight"},
		`block "heart" twice`:                                                        {"blocks: [heart]", "blocks: [heart, heart]"},
		`block "top" is there twice`:                                                 {"name: lung", "name: top"},
		`0 bytes: want a whole number of 1 to`:                                       {"bytes: 10,", "bytes: 0,"},
		`2.5 bytes: want a whole number`:                                             {"bytes: 10,", "bytes: 2.5,"},
		`NaN bytes: want a whole number`:                                             {"bytes: 10,", "bytes: .nan,"},
		`+Inf bytes: want a whole number`:                                            {"bytes: 10,", "bytes: .inf,"},
		`want 64 hexadecimal digits`:                                                 {"0123456789abcdef0123", "0123456789ABCDEF0123"},
		`layers [4]: want [first, behind the last]`:                                  {"layers: [4, 5]", "layers: [4]"},
		`layers 5 to 4: want 0 <= lo <= hi`:                                          {"layers: [4, 5]", "layers: [5, 4]"},
		`weight NaN: want a finite number above 0`:                                   {"weight: 1.5", "weight: .nan"},
		`weight -1: want a finite number above 0`:                                    {"weight: 1.5", "weight: -1"},
		`3 of 4 models have a weight: want all or none`:                              {"blocks: [base], weight: 2", "blocks: [base]"},
		`rung up to block "tip", which it does not have`:                             {"upto: top", "upto: tip"},
		`quality is no number`:                                                       {"quality: 0.5", "quality: .nan"},
		`quality 2: want 0 to 1`:                                                     {"quality: 0.5", "quality: 2"},
		`wards.yaml:5:18: unknown field`:                                             {"bytes: 1000,", "size: 1000,"},
		`without a name`:                                                             {"name: wards", "name: ''"},
		`belongs to no model`:                                                        {"needs: [cardiology, general], blocks: [lung], rungs: [{upto: top, quality: 0.5}, {upto: lung}]", "needs: [cardiology]"},
		`its adapter "base2" is none of its blocks`:                                  {"adapter: heart", "adapter: base2"},
	} {
		text := withWeights(wards)
		require.Contains(t, text, change[0])
		_, err := Parse("wards.yaml", []byte(strings.Replace(text, change[0], change[1], 1)))
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "wards.yaml")
	}
	_, err := Parse("long.yaml", make([]byte, MaxFile+1))
	require.ErrorContains(t, err, "at most")
	_, err = Parse("none.yaml", []byte("name: x\nblocks: []\nmodels: []\n"))
	require.ErrorContains(t, err, "no models")
}

// Whatever is read without an error is a library that was checked, and survives its text.
func FuzzParse(f *testing.F) {
	f.Add([]byte(wards))
	f.Add([]byte(withWeights(wards)))
	f.Add([]byte("name: x\nblocks: [{name: a, bytes: 1}]\nmodels: [{name: m, blocks: [a]}]\n"))
	f.Add([]byte("name: x\nmodels: [{name: m, needs: [m]}]\n"))
	f.Add([]byte("name: x\nzipf: 0.8\nblocks: [{name: a, bytes: 1}]\nmodels: [{name: m, blocks: [a]}]\n"))
	f.Add([]byte(chain(200)))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := Parse("f.yaml", text)
		if err != nil {
			return
		}
		out, err := l.Text()
		if err != nil { // what others need is written out: that may be too much for a file, and for no other reason
			require.Regexp(t, "too many|too deeply|at most", err.Error())
			return
		}
		again, err := Parse("again.yaml", out)
		require.NoError(t, err, "%s", out)
		require.Equal(t, l.Digest(), again.Digest())
	})
}

// chain is a library of n models, each of which needs the one before.
func chain(n int) string {
	var b strings.Builder
	b.WriteString("name: chain\nblocks:\n")
	for i := range n {
		fmt.Fprintf(&b, "- {name: b%d, bytes: 1}\n", i)
	}
	b.WriteString("models:\n- {name: m0, blocks: [b0]}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "- {name: m%d, needs: [m%d], blocks: [b%d]}\n", i, i-1, i)
	}
	return b.String()
}

// What one model needs is found however long the chain is; what is written is what can be read.
func TestC2LongChainsOfNeeds(t *testing.T) {
	const n = 200
	l, err := Parse("chain.yaml", []byte(chain(n)))
	require.NoError(t, err)
	require.Len(t, l.Models[n-1].Blocks, n)
	_, err = l.Text() // n²/2 names
	require.ErrorContains(t, err, "too many for a file")
	loop := strings.Replace(chain(n), "{name: m0, blocks", "{name: m0, needs: [m199], blocks", 1)
	_, err = Parse("loop.yaml", []byte(loop))
	require.ErrorContains(t, err, "m0 needs m199 needs m198")
}

// A popularity is numbers or a law: rank r of s = 1 is asked for in proportion to 1/r, in the order of the file.
func TestC3LibraryFilesWithALaw(t *testing.T) {
	text := "name: x\nzipf: 1\nblocks: [{name: a, bytes: 1}, {name: b, bytes: 1}]\nmodels: [{name: m, blocks: [a]}, {name: n, blocks: [b]}]\n"
	l, err := Parse("x.yaml", []byte(text))
	require.NoError(t, err)
	require.InDeltaSlice(t, []float64{2. / 3, 1. / 3}, l.Weights, 1e-12) // 1 and 1/2 over 3/2
	out, err := l.Text()
	require.NoError(t, err)
	again, err := Parse("y.yaml", out)
	require.NoError(t, err)
	require.Equal(t, l.Digest(), again.Digest())
	for want, change := range map[string][2]string{
		"zipf -1: want 0 to 10":                {"zipf: 1", "zipf: -1"},
		"zipf NaN: want 0 to 10":               {"zipf: 1", "zipf: .nan"},
		"zipf and weights: want one of them":   {"blocks: [a]}", "blocks: [a], weight: 1}"},
		`model "m" is there twice`:             {"{name: n, blocks", "{name: m, needs: [m], blocks"},
		"want a whole number of 1 to 9007":     {"{name: b, bytes: 1}", "{name: b, bytes: 9007199254740994}"},
		"together they have more than 9007199": {"bytes: 1}, {name: b, bytes: 1}", "bytes: 9007199254740992}, {name: b, bytes: 1}"},
	} {
		require.Contains(t, text, change[0])
		_, err := Parse("x.yaml", []byte(strings.Replace(text, change[0], change[1], 1)))
		require.ErrorContains(t, err, want)
	}
}
