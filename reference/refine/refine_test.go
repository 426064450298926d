package refine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/convert"
	"meibench/reference/gguf"
	"meibench/reference/models"
	"meibench/reference/quant"
)

// shipped is the file of a shipped model, in a recipe of convert; "" as it is.
func shipped(t testing.TB, name, recipe string) []byte {
	raw, err := models.Bytes(name)
	require.NoError(t, err)
	if recipe == "" {
		return raw
	}
	f, err := gguf.Read(bytes.NewReader(raw), int64(len(raw)))
	require.NoError(t, err)
	r, err := convert.Find(recipe)
	require.NoError(t, err)
	p, err := convert.NewPlan(f, r, false)
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, p.Write(context.Background(), &out, convert.Options{Threads: 1}))
	return out.Bytes()
}

func cutAll(t testing.TB, file []byte) (*Ladder, [][]byte) {
	l, err := Cut(bytes.NewReader(file), int64(len(file)))
	require.NoError(t, err)
	var all [][]byte
	for i, p := range l.Pieces {
		b, err := l.Data(i)
		require.NoError(t, err)
		require.EqualValues(t, p.Bytes, len(b), p.Label)
		all = append(all, b)
	}
	return l, all
}

// Every bit of a block is in one plane, and bits that go out come back, whatever they are.
func TestC7PlanesOfEveryFormatPartitionItsBits(t *testing.T) {
	luck := rng.Stream(1, "planes")
	for _, typ := range quant.Decodable() {
		ps := planes(typ)
		var sum []byte
		for _, mask := range ps {
			require.Len(t, mask, typ.BlockBytes())
			for i, m := range mask {
				if sum == nil {
					sum = make([]byte, len(mask))
				}
				require.Zero(t, sum[i]&m, "%v byte %d", typ, i)
				sum[i] |= m
			}
		}
		require.Equal(t, bytes.Repeat([]byte{0xFF}, typ.BlockBytes()), sum, "%v", typ)
		const blocks = 13
		raw, back := make([]byte, blocks*typ.BlockBytes()), make([]byte, blocks*typ.BlockBytes())
		for i := range raw {
			raw[i] = byte(luck.Uint32())
		}
		p := place{Tensor: gguf.Tensor{Type: typ, Bytes: int64(len(raw))}, planes: ps}
		bits := 0
		for k, mask := range ps {
			b := extract(nil, raw, mask)
			require.Len(t, b, p.planeBytes(k))
			bits += ones(mask)
			insert(back, b, mask, p.had(k))
		}
		require.Equal(t, 8*typ.BlockBytes(), bits)
		require.Equal(t, raw, back, "%v", typ)
	}
}

// The coarse value of a number is within the part of the range that its upper bits leave open, and in its middle.
func TestC7CoarseNumbersAreInTheMiddle(t *testing.T) {
	raw := make([]byte, 34*8)
	for i := range 8 {
		raw[34*i+1] = 0x3C // scale 1
		for k := range 32 {
			raw[34*i+2+k] = byte(32*i + k)
		}
	}
	ps := planes(quant.Q8_0)
	for rungs, widths := range []int{16, 4, 1} {
		back, had := make([]byte, len(raw)), make([]byte, 34)
		for k := 0; k <= rungs; k++ {
			insert(back, extract(nil, raw, ps[k]), ps[k], had)
			for i := range had {
				had[i] |= ps[k][i]
			}
		}
		for i := range raw {
			if i%34 < 2 {
				require.Equal(t, raw[i], back[i])
				continue
			}
			q, c := int(int8(raw[i])), int(int8(back[i]))
			low := int(math.Floor(float64(q)/float64(widths))) * widths
			require.Equal(t, low+widths/2, c, "%d", q)
		}
	}
}

// E: the pieces together are the file, bit for bit, and no larger; what has come is at each rung a model that the engine
// runs, better with every rung, and the same at the last.
func TestC7RefinedWeightsAreTheFile(t *testing.T) {
	for _, c := range []struct{ model, recipe string }{{"mei-nano", ""}, {"mei-nano", "q8_0"}, {"mei-nano", "q4_0"}, {"mei-small", "q6_k"}, {"mei-small", "bf16"}} {
		file := shipped(t, c.model, c.recipe)
		l, data := cutAll(t, file)
		sum := sha256.Sum256(file)
		require.Equal(t, hex.EncodeToString(sum[:]), l.SHA256)
		total := 0
		for _, b := range data {
			total += len(b)
		}
		require.InDelta(t, len(file)+headFixed, total, float64(len(l.Pieces)*8), "nothing is sent twice")

		whole, err := models.Read(file, llmAll)
		require.NoError(t, err)
		require.NoError(t, whole.Model.Pack(1))
		texts := spoken(whole)
		a, err := Assemble(data[0], units.GiB)
		require.NoError(t, err)
		_, err = a.Model()
		require.ErrorContains(t, err, "no rung is complete")
		kl, same := math.Inf(1), 0.0
		sent := units.Bytes(len(data[0]))
		for i, p := range a.Pieces[1:] {
			require.Equal(t, l.Pieces[i+1].Label, p.Label)
			before := a.Rung()
			require.NoError(t, a.Add(i+1, data[i+1]))
			if sent += p.Bytes; a.Rung() == before {
				continue
			}
			m, err := a.Model()
			require.NoError(t, err)
			like, err := Compare(whole.Model, m, texts)
			require.NoError(t, err)
			t.Logf("%s %-5s rung %d: %7d of %d bytes, same token %.1f %%, perplexity %+.2f %%", c.model, c.recipe, a.Rung(), sent, total,
				100*like.Same, 100*math.Expm1(like.KL))
			require.Less(t, like.KL, kl)
			require.GreaterOrEqual(t, like.Same, same-0.02)
			require.Equal(t, a.Rung() == a.Rungs-1, like.Equal)
			kl, same = like.KL, like.Same
		}
		require.Equal(t, l.Rungs-1, a.Rung())
		require.True(t, bytes.Equal(file, a.File()))
	}
}

// The library of a ladder: rungs at the ends of their pieces, the sizes of the file, and layers that can be computed.
func TestC7LadderIsALibrary(t *testing.T) {
	file := shipped(t, "mei-nano", "q8_0")
	l, data := cutAll(t, file)
	lib, err := l.Library("nano", []float64{0.5, 0.9, 1})
	require.NoError(t, err)
	m := lib.Models[0]
	require.Len(t, m.Rungs, 3)
	require.Equal(t, len(l.Pieces), m.Rungs[2].Blocks)
	for i, b := range lib.Blocks {
		sum := sha256.Sum256(data[i])
		require.Equal(t, hex.EncodeToString(sum[:]), b.Digest)
	}
	for r, rung := range m.Rungs {
		a, err := Assemble(data[0], units.GiB)
		require.NoError(t, err)
		for i := 1; i < rung.Blocks; i++ {
			require.Less(t, a.Rung(), r)
			require.NoError(t, a.Add(i, data[i]))
		}
		require.Equal(t, r, a.Rung())
	}
	require.Equal(t, [2]int{2, 3}, [2]int{lib.Blocks[4].Lo, lib.Blocks[4].Hi}, lib.Blocks[4].Name)
	require.Less(t, float64(lib.Union([]int{0})), float64(len(file))*1.01)
	_, err = l.Library("nano", []float64{1})
	require.ErrorContains(t, err, "1 scores for 3 rungs")
	unknown, err := l.Library("nano", nil)
	require.NoError(t, err)
	require.True(t, math.IsNaN(unknown.Models[0].Rungs[0].Quality))
}

func TestC7AssemblyRefusesWhatIsWrong(t *testing.T) {
	file := shipped(t, "mei-nano", "q4_0")
	l, data := cutAll(t, file)
	begin := func() *Assembly {
		a, err := Assemble(data[0], units.GiB)
		require.NoError(t, err)
		return a
	}
	a := begin()
	require.ErrorContains(t, a.Add(0, data[0]), "there already")
	require.ErrorContains(t, a.Add(len(data), nil), "there are")
	require.ErrorContains(t, a.Add(-1, nil), "there are")
	require.ErrorContains(t, a.Add(2, data[2][1:]), "bytes, want")
	require.ErrorContains(t, a.Add(len(data)-1, data[len(data)-1]), "lacks plane 0")
	require.True(t, bytes.Equal(begin().File(), a.File()), "errors change nothing")
	for i := 1; i < len(data); i++ { // one bit of one piece
		if i == 3 {
			data[i] = bytes.Clone(data[i])
			data[i][0] ^= 1
		}
		err := a.Add(i, data[i])
		if i < len(data)-1 {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, "SHA-256 is not "+l.SHA256)
		}
	}
	for want, spoil := range map[string]func([]byte) []byte{
		"want \"mlad\"":          func(b []byte) []byte { return append([]byte("GGUF"), b[4:]...) },
		"at least 52 bytes":      func(b []byte) []byte { return b[:51] },
		"are allowed":            func(b []byte) []byte { b[11] = 0x7F; return b },
		"of an index of":         func(b []byte) []byte { b[headFixed-1] = 1; return b },
		"index in the head":      func(b []byte) []byte { b[headFixed] = 'X'; return b },
		"before the first":       func(b []byte) []byte { b[headFixed-8]--; return b },
		"between tensors, want ": func(b []byte) []byte { return append(b, 0) },
	} {
		_, err := Assemble(spoil(bytes.Clone(data[0])), units.GiB)
		require.ErrorContains(t, err, want)
	}
	_, err := Cut(bytes.NewReader(file[:1000]), 1000)
	require.Error(t, err)
}

// tuned is a file whose last layer has moved a little, as by fine-tuning, and extra tensors if wanted.
func tuned(t *testing.T, file []byte, luck *rand.Rand, layer string, extra ...gguf.TensorData) []byte {
	f, err := gguf.Read(bytes.NewReader(file), int64(len(file)))
	require.NoError(t, err)
	var ts []gguf.TensorData
	for _, x := range f.Tensors {
		data := bytes.Clone(file[x.Offset : x.Offset+x.Bytes])
		if len(x.Dims) == 2 && bytes.HasPrefix([]byte(x.Name), []byte(layer)) {
			w := make([]float32, x.Elements())
			quant.Decode(x.Type, w, data)
			for i := range w {
				w[i] *= 1 + 0.01*float32(luck.NormFloat64())
			}
			require.NoError(t, quant.Encode(x.Type, data, w))
		}
		ts = append(ts, gguf.TensorData{Name: x.Name, Type: x.Type, Dims: x.Dims, Data: gguf.Bytes(data)})
	}
	var out bytes.Buffer
	require.NoError(t, gguf.Write(&out, append(f.KV, gguf.KV{Key: "general.version", Value: "2"}), append(ts, extra...)))
	return out.Bytes()
}

// E: the rebuilt file has the SHA-256 of the new one. A layer costs what it changed, an adapter its own size.
func TestC7PatchedFileIsTheNewOne(t *testing.T) {
	luck := rng.Stream(2, "tuned")
	for _, recipe := range []string{"", "q8_0"} {
		file := shipped(t, "mei-small", recipe)
		down := make([]byte, 4*8*256)
		for i := range down {
			down[i] = byte(luck.Uint32())
		}
		adapter := gguf.TensorData{Name: "blk.0.attn_q.weight.lora_a", Type: quant.F32, Dims: []int{256, 8}, Data: gguf.Bytes(down)}
		for _, c := range []struct {
			what  string
			after []byte
			most  int
		}{
			{"the same", file, patchFixed + 16},
			{"an adapter", tuned(t, file, luck, "none", adapter), len(down) + 2048},
			{"one layer", tuned(t, file, luck, "blk.2."), len(file) / 4},
			{"all layers", tuned(t, file, luck, ""), len(file)},
			{"another model", shipped(t, "mei-nano", ""), 656384},
		} {
			patch, err := Diff(file, c.after)
			require.NoError(t, err)
			got, err := Patch(file, patch, units.GiB)
			require.NoError(t, err)
			require.True(t, bytes.Equal(c.after, got), c.what)
			t.Logf("mei-small %s %-14s: patch of %7d for %7d bytes (%.1f %%)", recipe, c.what, len(patch), len(c.after), 100*float64(len(patch))/float64(len(c.after)))
			require.LessOrEqual(t, len(patch), c.most, c.what)
		}
	}
}

func TestC7PatchRefusesWhatIsWrong(t *testing.T) {
	file := shipped(t, "mei-nano", "")
	after := tuned(t, file, rng.Stream(3, "tuned"), "blk.1.")
	patch, err := Diff(file, after)
	require.NoError(t, err)
	for want, do := range map[string]func() ([]byte, error){
		"want \"mdif\"":            func() ([]byte, error) { return Patch(file, patch[1:], units.GiB) },
		"at least 76":              func() ([]byte, error) { return Patch(file, patch[:75], units.GiB) },
		"is for a file with":       func() ([]byte, error) { return Patch(after, patch, units.GiB) },
		"at most 1000 are allowed": func() ([]byte, error) { return Patch(file, patch, 1000) },
		"ends ":                    func() ([]byte, error) { return Patch(file, patch[:patchFixed], units.GiB) },
		"file's SHA-256 is not": func() ([]byte, error) {
			b := bytes.Clone(patch)
			b[40] ^= 1
			return Patch(file, b, units.GiB)
		},
		"old file: ": func() ([]byte, error) { return Diff(patch, after) },
		"new file: ": func() ([]byte, error) { return Diff(file, patch) },
	} {
		_, err := do()
		require.ErrorContains(t, err, want)
	}
	for n := patchFixed; n < len(patch); n += 1 + len(patch)/97 {
		_, err := Patch(file, patch[:n], units.GiB)
		require.Error(t, err, n)
	}
	bad := func(steps ...byte) error {
		_, err := Patch(file, append(bytes.Clone(patch[:patchFixed]), steps...), units.GiB)
		return err
	}
	require.ErrorContains(t, bad('x', 1), `kind 'x'`)
	require.ErrorContains(t, bad('s'), "cut off")
	require.ErrorContains(t, bad('s', 5, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F), "of an old file")
	require.ErrorContains(t, bad('c', 5, 0, 9, 0), "numbers of 9 bytes")
	require.ErrorContains(t, bad('f', 5, 99), "payload of 99 bytes")
	require.ErrorContains(t, bad('f', 5, 1, 0xFF), "inflate")
	five := deflate([]byte("fives"))
	require.ErrorContains(t, bad(append([]byte{'f', 4, byte(len(five))}, five...)...), "other than 4")
	require.ErrorContains(t, bad(append([]byte{'f', 6, byte(len(five))}, five...)...), "other than 6")
}

// FuzzAssemble: no head and no piece panics, and nothing larger than what is allowed is made.
func FuzzAssemble(f *testing.F) {
	file := shipped(f, "mei-nano", "q8_0")
	_, data := cutAll(f, file)
	f.Add(data[0], data[1], uint8(1))
	f.Add(data[0][:60], []byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, head, piece []byte, i uint8) {
		a, err := Assemble(head, units.MiB)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(a.File()), int(units.MiB))
		_ = a.Add(int(i), piece)
		if a.Rung() >= 0 {
			_, _ = a.Model()
		}
	})
}

// FuzzPatch: no patch panics.
func FuzzPatch(f *testing.F) {
	file := shipped(f, "mei-nano", "")
	patch, err := Diff(file, file)
	require.NoError(f, err)
	f.Add(patch[patchFixed:])
	f.Add([]byte{'c', 5, 0, 2, 3, 1, 2, 3})
	f.Fuzz(func(t *testing.T, steps []byte) {
		b, err := Patch(file, append(bytes.Clone(patch[:patchFixed]), steps...), units.MiB)
		require.True(t, err != nil || bytes.Equal(b, file))
	})
}

func BenchmarkExtract(b *testing.B) {
	raw := make([]byte, 34<<15)
	for k, mask := range planes(quant.Q8_0) {
		b.Run(fmt.Sprint("q8_0 plane ", k), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			dst := make([]byte, 0, size(mask, 1<<15))
			for b.Loop() {
				dst = extract(dst[:0], raw, mask)
			}
		})
	}
}

func BenchmarkInsert(b *testing.B) {
	raw := make([]byte, 34<<15)
	had := make([]byte, 34)
	for k, mask := range planes(quant.Q8_0) {
		plane := extract(nil, raw, mask)
		b.Run(fmt.Sprint("q8_0 plane ", k), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				insert(raw, plane, mask, had)
			}
		})
	}
}
