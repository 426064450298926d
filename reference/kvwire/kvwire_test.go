package kvwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
	"meibench/reference/kivi"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

func toy(t testing.TB) *llm.Model {
	m, err := llm.New(llm.Config{Arch: llm.Llama, Layers: 3, Dim: 48, Heads: 4, KVHeads: 2, HeadDim: 20, FFN: 40, Vocab: 50, Context: 128}, 7)
	require.NoError(t, err)
	params, err := m.Params()
	require.NoError(t, err)
	for _, p := range params {
		for i := range p.Data {
			if p.N > 1 {
				p.Data[i] *= 8
			}
		}
	}
	return m
}

func text(n int, seed uint64) []int32 {
	r := rand.New(rand.NewPCG(1, seed))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(50))
	}
	return ids
}

func filled(t testing.TB, m *llm.Model, typ quant.Type, ids []int32) *llm.Cache {
	c, err := m.NewCacheOf(typ, 0, m.Layers, 100)
	require.NoError(t, err)
	next(t, m, c, ids)
	return c
}

func next(t testing.TB, m *llm.Model, c *llm.Cache, ids []int32) []float32 {
	w := m.NewWork(1)
	defer w.Close()
	seqs := []llm.Seq{{IDs: ids, Cache: c}}
	require.NoError(t, w.Forward(0, m.Layers, seqs))
	return slices.Clone(seqs[0].Out)
}

func content(c *llm.Cache, layer int) (k, v []float32) {
	heads, D := c.Shape()
	k, v = make([]float32, c.Len()*heads*D), make([]float32, c.Len()*heads*D)
	c.Get(layer, 0, c.Len(), k, v)
	return k, v
}

// TestD7SameLogitsAfterSwap: a cache that was bytes meanwhile goes on with the same logits, bit for bit, in every form that is
// as exact as the cache; sizes are what was announced.
func TestD7SameLogitsAfterSwap(t *testing.T) {
	m := toy(t)
	for _, tc := range []struct {
		typ  quant.Type
		form Form
	}{{quant.F32, F32}, {quant.F16, F32}, {quant.F16, F16}} {
		c := filled(t, m, tc.typ, text(61, 2))
		data, err := Marshal(c, Range{0, 61}, tc.form, Model{1})
		require.NoError(t, err)
		require.EqualValues(t, len(data), SizeOf(m.Config, tc.form, 0, 3, 61))
		back, err := m.NewCacheOf(tc.typ, 0, m.Layers, 80)
		require.NoError(t, err)
		require.NoError(t, Unmarshal(data, back, Model{1}))
		require.Equal(t, next(t, m, c, []int32{7, 8}), next(t, m, back, []int32{7, 8}))
	}
}

// TestD7FormsRoundAsTheySay: F16 and Q8 as those caches, KIVI as package kivi; bytes fall with the bits.
func TestD7FormsRoundAsTheySay(t *testing.T) {
	m := toy(t)
	ids := text(75, 3)
	c := filled(t, m, quant.F32, ids)
	smaller := units.Bytes(math.MaxInt64)
	for _, f := range Forms() {
		data, err := Marshal(c, Range{0, 75}, f, Model{})
		require.NoError(t, err)
		require.EqualValues(t, len(data), SizeOf(m.Config, f, 0, 3, 75), f)
		require.LessOrEqual(t, units.Bytes(len(data)), smaller)
		smaller = units.Bytes(len(data))
		back, err := m.NewCache(0, m.Layers, 100)
		require.NoError(t, err)
		require.NoError(t, Unmarshal(data, back, Model{}))
		for l := range m.Layers {
			k, v := content(c, l)
			gotK, gotV := content(back, l)
			switch f {
			case F32:
				require.Equal(t, k, gotK)
				require.Equal(t, v, gotV)
			case F16, Q8:
				typ := map[Form]quant.Type{F16: quant.F16, Q8: quant.Q8_0}[f]
				other, err := m.NewCacheOf(typ, 0, m.Layers, 100)
				require.NoError(t, err)
				other.Put(l, 0, 75, k, v)
				other.SetLen(75)
				wantK, wantV := content(other, l)
				require.Equal(t, wantK, gotK, f)
				require.Equal(t, wantV, gotV, f)
			default:
				p := kivi.Params{Bits: f.bits(), Group: 32, Residual: 32}
				require.Equal(t, p.RoundPerChannel(k, m.KVDim()), gotK, f)
				require.Equal(t, p.RoundPerToken(v, m.KVDim()), gotV, f)
			}
		}
		name, err := Parse(f.String())
		require.NoError(t, err)
		require.Equal(t, f, name)
	}
	_, err := Parse("f8")
	require.ErrorContains(t, err, "have [f32")
	// 3 layers of 64 tokens of 2·64 elements: 3.0, 5.0 and 9 bits each, in full groups.
	wide := llm.Config{Layers: 3, Heads: 2, KVHeads: 2, HeadDim: 32}
	for f, bits := range map[Form]int{KIVI2: 3, KIVI4: 5, KIVI8: 9, Q8: 9, F16: 16, F32: 32} {
		require.EqualValues(t, headerSize+4+3*64*128*bits/8, SizeOf(wide, f, 0, 3, 64), f)
	}
}

func TestD7RangesJoin(t *testing.T) {
	m := toy(t)
	c := filled(t, m, quant.F32, text(60, 4))
	back, err := m.NewCache(0, m.Layers, 60)
	require.NoError(t, err)
	for _, r := range []Range{{0, 20}, {20, 50}, {50, 60}, {45, 60}, {60, 60}} { // the fourth replaces what is there
		data, err := Marshal(c, r, F32, Model{})
		require.NoError(t, err)
		require.NoError(t, Unmarshal(data, back, Model{}))
		require.Equal(t, r.To, back.Len())
	}
	require.NoError(t, func() error { back.Truncate(59); return nil }())
	c.Truncate(59)
	again, err := m.NewCache(0, m.Layers, 100)
	require.NoError(t, err)
	require.NoError(t, again.CopyPrefix(c, 59))
	k, v := content(again, 2)
	gotK, gotV := content(back, 2)
	require.Equal(t, k, gotK)
	require.Equal(t, v, gotV)
}

// TestHostileMessagesAreRefused: and leave the cache as it was.
func TestHostileMessagesAreRefused(t *testing.T) {
	m := toy(t)
	c := filled(t, m, quant.F32, text(20, 5))
	good, err := Marshal(c, Range{4, 20}, F32, Model{9})
	require.NoError(t, err)
	resum := func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli()))
		return b
	}
	word := func(at int, v uint32) func(b []byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[7+4*at:], v); return resum(b) }
	}
	for _, tc := range []struct {
		name   string
		change func(b []byte) []byte
		want   string
	}{
		{"empty", func(b []byte) []byte { return nil }, "does not begin"},
		{"other magic", func(b []byte) []byte { b[5] = 2; return b }, "does not begin"},
		{"cut", func(b []byte) []byte { return b[:len(b)-1] }, "was it cut"},
		{"longer", func(b []byte) []byte { return append(b, 0) }, "was it cut"},
		{"damaged", func(b []byte) []byte { b[100] ^= 4; return b }, "checksum"},
		{"form", func(b []byte) []byte { b[6] = 6; return resum(b) }, "form 6"},
		{"tokens", word(1, 1<<31), "no such cache"},
		{"backwards", word(1, 3), "no such cache"},
		{"layers", word(3, 5000), "no such cache"},
		{"heads", word(4, 1<<30), "no such cache"},
		{"channels", word(5, 0), "no such cache"},
		{"gap", func(b []byte) []byte { return word(1, 21)(word(0, 5)(b)) }, "holds 4 of 100"},
		{"beyond", func(b []byte) []byte { return word(1, 104)(word(0, 88)(b)) }, "send what comes before"},
		{"other layers", func(b []byte) []byte { return word(3, 4)(word(2, 1)(b)) }, "layers [1, 4)"},
		{"other heads", func(b []byte) []byte { return word(5, 40)(word(4, 1)(b)) }, "1 heads of 40"},
		{"other model", func(b []byte) []byte { b[31] = 8; return resum(b) }, "compute the prompt again"},
		{"NaN", func(b []byte) []byte { copy(b[headerSize+4000:], []byte{0, 0, 0xc0, 0x7f}); return resum(b) }, "not finite"},
	} {
		into := filled(t, m, quant.F32, text(4, 6))
		k, _ := content(into, 1)
		err := Unmarshal(tc.change(bytes.Clone(good)), into, Model{9})
		require.ErrorContains(t, err, tc.want, tc.name)
		require.Equal(t, 4, into.Len())
		after, _ := content(into, 1)
		require.Equal(t, k, after)
	}
	for _, r := range []Range{{-1, 3}, {3, 2}, {0, 21}} {
		_, err = Marshal(c, r, F32, Model{})
		require.ErrorContains(t, err, "a range inside")
	}
}

func FuzzUnmarshal(f *testing.F) {
	m := toy(f)
	c := filled(f, m, quant.F32, text(20, 5))
	for _, form := range Forms() {
		data, err := Marshal(c, Range{0, 3}, form, Model{})
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		into, err := m.NewCache(0, m.Layers, 64)
		require.NoError(t, err)
		if len(data) > 4 { // else almost nothing gets past the checksum
			binary.LittleEndian.PutUint32(data[len(data)-4:], crc32.Checksum(data[:len(data)-4], castagnoli()))
		}
		if Unmarshal(data, into, Model{}) != nil {
			require.Zero(t, into.Len())
			return
		}
		for l := range m.Layers {
			k, v := content(into, l)
			require.True(t, finite(k) && finite(v))
		}
	})
}

func TestD7PlanByImportance(t *testing.T) {
	// Means of chunks of 2: 1, 5, 5, 0, 9 (one token).
	got := PlanChunks([]float64{0, 2, 5, 5, 10, 0, 0, 0, 9}, 2, 0.5, F16, KIVI2)
	require.Equal(t, []Chunk{{Range{0, 2}, KIVI2}, {Range{2, 4}, F16}, {Range{4, 8}, KIVI2}, {Range{8, 9}, F16}}, got)
	require.Equal(t, Whole(9, F16), PlanChunks(make([]float64, 9), 2, 1, F16, KIVI2))
	require.Empty(t, PlanChunks(nil, 4, 1, F16, F32))
}

// TestD7ContextSwitch: three applications share room for two; each goes on with the logits that it would have had alone.
func TestD7ContextSwitch(t *testing.T) {
	m := toy(t)
	alone := map[string]*llm.Cache{}
	now := time.Duration(0)
	apps := Apps{Model: Model{3}, Clock: func() time.Duration { now += time.Millisecond; return now }, New: func(string) (*llm.Cache, error) {
		return m.NewCache(0, m.Layers, 100)
	}}
	one, err := m.NewCache(0, m.Layers, 100)
	require.NoError(t, err)
	apps.Budget = 2 * one.Resident()
	r := rand.New(rand.NewPCG(2, 8))
	var recent []string
	moved := units.Bytes(0)
	for i := range 40 {
		app := []string{"assistant", "driving", "robotics"}[r.IntN(3)]
		c, s, err := apps.To(app)
		require.NoError(t, err)
		require.LessOrEqual(t, apps.Resident(), apps.Budget)
		require.Equal(t, slices.Contains(recent, app), s.Resident, "the two used last are there")
		if s.Resident {
			require.Equal(t, Switch{Resident: true, OutTime: s.OutTime, Time: s.Time}, s)
		}
		require.Positive(t, s.Time)
		recent = append(slices.DeleteFunc(recent, func(x string) bool { return x == app }), app)
		recent = recent[max(0, len(recent)-2):]
		moved += s.Out - s.In
		if alone[app] == nil {
			alone[app], err = m.NewCache(0, m.Layers, 100)
			require.NoError(t, err)
		}
		ids := text(1+r.IntN(3), uint64(i))
		require.Equal(t, next(t, m, alone[app], ids), next(t, m, c, ids), "switch %d to %s", i, app)
	}
	aside := units.Bytes(0)
	for _, messages := range apps.aside {
		for _, data := range messages {
			aside += units.Bytes(len(data))
		}
	}
	require.Equal(t, aside, moved, "what went out came in, but for what is out now")
}

// TestD7FailedSwitchLosesNothing: neither the application at work nor the one that is put aside.
func TestD7FailedSwitchLosesNothing(t *testing.T) {
	m := toy(t)
	store, fail := map[string][][]byte{}, false
	apps := Apps{New: func(string) (*llm.Cache, error) { return m.NewCache(0, m.Layers, 100) },
		Keep: func(app string, data [][]byte) { store[app] = data },
		Fetch: func(app string) ([][]byte, error) {
			if fail {
				return nil, errors.New("the card is gone")
			}
			return store[app], nil
		},
		Plan: func(_ string, n int) []Chunk { return []Chunk{{Range{0, n / 2}, F32}, {Range{n / 2, n}, KIVI8}} }}
	a, _, err := apps.To("a")
	require.NoError(t, err)
	next(t, m, a, text(30, 1))
	b, s, err := apps.To("b")
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, s.PutAside)
	require.Len(t, store["a"], 2)
	next(t, m, b, text(9, 1))
	fail = true
	_, _, err = apps.To("a")
	require.ErrorContains(t, err, "the card is gone")
	fail = false
	back, s, err := apps.To("a")
	require.NoError(t, err)
	require.False(t, s.Resident)
	require.Equal(t, 30, back.Len())
	k, _ := content(a, 1)
	got, _ := content(back, 1)
	require.Equal(t, k[:15*40], got[:15*40])
	require.NotEqual(t, k, got)
	apps.Plan = func(_ string, n int) []Chunk { return Whole(n-1, F32) }
	_, _, err = apps.To("b")
	require.ErrorContains(t, err, "covers 29 of 30")
	apps.Plan = nil
	back, _, err = apps.To("b")
	require.NoError(t, err)
	require.Equal(t, 9, back.Len())
}
