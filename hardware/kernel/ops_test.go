package kernel_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/kernel"
	"meibench/hardware/world"
	"meibench/reference/kvwire"
	"meibench/reference/train"
)

// alone is what a model answers by itself, one token at a time.
func alone(t *testing.T, d *kernel.Device, m *hardware.Model, prompt []int32, n int) []int32 {
	return answer(t, d, m, talk{[][]int32{prompt}, n, 0})[0]
}

// run1 runs an operation on one sequence.
func run1(t *testing.T, d *kernel.Device, op hardware.Op, s hardware.Seq) hardware.Out {
	op.Seqs = []hardware.Seq{s}
	res, err := d.Run(&op)
	require.NoError(t, err)
	return res.Seqs[0]
}

func TestI10VerifyAcceptsWhatTheModelWouldSay(t *testing.T) {
	m := tiny(t, "tiny", 32)
	in(t, world.NewSim(t.Context()), kernel.Config{Models: []kernel.Loaded{m}}, func(d *kernel.Device) {
		want := alone(t, d, m.Spec, words(6), 9)
		op := hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All()}
		out := run1(t, d, op, hardware.Seq{ID: 7, New: 6, Tokens: words(6)})
		require.Equal(t, want[0], out.Token)
		op.Kind = hardware.Verify
		wrong := (want[3] + 1) % 97
		out = run1(t, d, op, hardware.Seq{ID: 7, Context: 6, New: 4, Tokens: []int32{want[0], want[1], want[2], wrong}})
		require.Equal(t, 2, out.Accepted)
		require.Equal(t, want[3], out.Token)
		// A tree with the right token as the second of two siblings, and a wrong one behind it.
		out = run1(t, d, op, hardware.Seq{ID: 7, Context: 9, New: 5, Tokens: []int32{want[3], (want[4] + 1) % 97, want[4], want[5], (want[6] + 1) % 97}, Tree: []int32{-1, 0, 0, 2, 3}})
		require.Equal(t, []int32{2, 3}, out.Path)
		require.Equal(t, 2, out.Accepted)
		require.Equal(t, want[6], out.Token)
		op.Kind = hardware.Prefill // the cache after it is that of the same text run in one piece
		run1(t, d, op, hardware.Seq{ID: 8, New: 12, Tokens: append(words(6), want[:6]...)})
		op.Kind = hardware.Save
		require.Equal(t, run1(t, d, op, hardware.Seq{ID: 8, New: 12}).Hidden.Data, run1(t, d, op, hardware.Seq{ID: 7, New: 12}).Hidden.Data)
		op.Kind = hardware.Decode
		out = run1(t, d, op, hardware.Seq{ID: 7, Context: 12, New: 1, Tokens: want[6:7]})
		require.Equal(t, want[7], out.Token, "the cache is that of the accepted path")
		out = run1(t, d, op, hardware.Seq{ID: 7, Context: 8, New: 1, Tokens: want[2:3]})
		require.Equal(t, want[3], out.Token, "an operation that counts on less rolls back")
	})
}

// The rule of speculative sampling, with the model as its own draft: all drafts
// are accepted, and the tokens are those that plain sampling draws.
func TestI10SamplingAcceptsTheModelsOwnDrafts(t *testing.T) {
	m := tiny(t, "tiny", 32)
	in(t, world.NewSim(t.Context()), kernel.Config{Models: []kernel.Loaded{m}}, func(d *kernel.Device) {
		op := hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All(), Sample: &hardware.Sample{Temperature: 1.5, Seed: 3}}
		seq := hardware.Seq{ID: 11, New: 4, Tokens: words(4)}
		var tokens []int32
		var q []float32
		for range 6 {
			out := run1(t, d, op, seq)
			tokens, q = append(tokens, out.Token), append(q, out.Prob)
			op.Kind = hardware.Decode
			seq = hardware.Seq{ID: 11, Context: seq.Context + seq.New, New: 1, Tokens: []int32{out.Token}}
		}
		require.NotEqual(t, alone(t, d, m.Spec, words(4), 6), tokens, "these were drawn")
		op.Kind = hardware.Verify
		out := run1(t, d, op, hardware.Seq{ID: 11, Context: 4, New: 5, Tokens: tokens[:5], Q: q[1:5]})
		require.Equal(t, 4, out.Accepted)
		require.Equal(t, tokens[5], out.Token)
		for i := range q {
			q[i] = 1e6 // a draft that claims to be surer than anybody can be
		}
		out = run1(t, d, op, hardware.Seq{ID: 11, Context: 4, New: 5, Tokens: tokens[:5], Q: q[1:5]})
		require.Zero(t, out.Accepted)
		require.Equal(t, hardware.NoToken, out.Token)
		require.Len(t, out.Law, m.Spec.Vocab)
	})
}

func TestI11StrictThresholdIsThePlainModel(t *testing.T) {
	m := tiny(t, "tiny", 32)
	in(t, world.NewSim(t.Context()), kernel.Config{Models: []kernel.Loaded{m}}, func(d *kernel.Device) {
		want := alone(t, d, m.Spec, words(6), 5)
		for _, tc := range []struct {
			threshold float64
			depth     int
		}{{2, 0}, {0, 1}} {
			op := hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All()}
			out := run1(t, d, op, hardware.Seq{ID: 3, New: 6, Tokens: words(6)})
			op.Kind, op.Exit = hardware.Decode, &hardware.Exit{Layers: []int{1, 2}, Threshold: tc.threshold}
			for i := 1; i < 5; i++ {
				out = run1(t, d, op, hardware.Seq{ID: 3, Context: 5 + i, New: 1, Tokens: []int32{out.Token}})
				require.Equal(t, tc.depth, out.Depth)
				if tc.depth == 0 {
					require.Equal(t, want[i], out.Token)
				}
			}
			run1(t, d, hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All()}, hardware.Seq{ID: 3, New: 1, Tokens: words(1)})
		}
		// A span that ends below the head stops there and hands its activations on.
		op := hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: hardware.Span{Hi: 2}, Exit: &hardware.Exit{Layers: []int{2}, Threshold: 2}}
		out := run1(t, d, op, hardware.Seq{ID: 4, New: 6, Tokens: words(6)})
		require.Equal(t, hardware.NoToken, out.Token)
		top := hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: hardware.Span{Lo: 2, Hi: 4}}
		require.Equal(t, want[0], run1(t, d, top, hardware.Seq{ID: 4, New: 6, In: out.Hidden}).Token)
		op.Exit = &hardware.Exit{Layers: []int{2}, Threshold: 0}
		op.Kind = hardware.Decode
		out = run1(t, d, op, hardware.Seq{ID: 4, Context: 6, New: 1, Tokens: want[:1]})
		require.Equal(t, 2, out.Depth)
		require.NotEqual(t, hardware.NoToken, out.Token)
		require.NotEmpty(t, out.Hidden.Data)
	})
}

func TestD7MovedCacheGivesTheSameTokens(t *testing.T) {
	m := tiny(t, "tiny", 32)
	in(t, world.NewSim(t.Context()), kernel.Config{Models: []kernel.Loaded{m}}, func(d *kernel.Device) {
		want := alone(t, d, m.Spec, words(9), 3)
		op := hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All()}
		run1(t, d, op, hardware.Seq{ID: 1, New: 9, Tokens: words(9)})
		op.Kind = hardware.Save
		moved := run1(t, d, op, hardware.Seq{ID: 1, Context: 4, New: 5})
		require.Equal(t, kvwire.SizeOf(m.Weights.Config, kvwire.F32, 0, 4, 5), moved.Hidden.Bytes)
		payload := 5 * m.Spec.KVBytesPerToken(m.Spec.All())
		require.Greater(t, moved.Hidden.Bytes, payload)
		require.Less(t, moved.Hidden.Bytes, payload+128, "a header and a checksum more than what is modelled")
		op.Kind = hardware.Prefill // the target computes the prefix, the rest comes over a link
		run1(t, d, op, hardware.Seq{ID: 2, New: 4, Tokens: words(9)[:4]})
		op.Kind = hardware.Restore
		run1(t, d, op, hardware.Seq{ID: 2, Context: 4, New: 5, In: moved.Hidden})
		op.Kind = hardware.Decode
		out := run1(t, d, op, hardware.Seq{ID: 2, Context: 9, New: 1, Tokens: want[:1]})
		require.Equal(t, want[1], out.Token)
		_, err := d.Run(&hardware.Op{Kind: hardware.Restore, Model: m.Spec, Layers: m.Spec.All(), Seqs: []hardware.Seq{{ID: 5, New: 5, In: hardware.Payload{Data: make([]byte, 7)}}}})
		require.ErrorContains(t, err, "sequence 5: ")
	})
}

func TestI12BoundedCacheThatHoldsAllIsThePlainOne(t *testing.T) {
	m := tiny(t, "tiny", 32)
	in(t, world.NewSim(t.Context()), kernel.Config{Models: []kernel.Loaded{m}}, func(d *kernel.Device) {
		want := alone(t, d, m.Spec, words(20), 4)
		for _, tc := range []struct {
			budget int
			equal  bool
		}{{64, true}, {8, false}} {
			op := hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All(), Keep: &hardware.Keep{Policy: "streamingllm", Budget: tc.budget}}
			seq := hardware.Seq{ID: 1, New: 20, Tokens: words(20)}
			var got []int32
			for range 4 {
				out := run1(t, d, op, seq)
				got = append(got, out.Token)
				op.Kind = hardware.Decode
				seq = hardware.Seq{ID: 1, Context: seq.Context + seq.New, New: 1, Tokens: []int32{out.Token}}
			}
			require.Equal(t, tc.equal, len(got) == 4 && got[0] == want[0] && got[1] == want[1] && got[2] == want[2] && got[3] == want[3], "budget %d: %v, %v", tc.budget, got, want)
			op.Kind = hardware.Drop
			_, err := d.Run(&op)
			require.NoError(t, err)
			op.Seqs = []hardware.Seq{seq}
			_, err = d.Run(&op)
			require.NoError(t, err)
		}
	})
}

func TestI4CodecsOnTheWire(t *testing.T) {
	m := tiny(t, "tiny", 32)
	in(t, world.NewSim(t.Context()), kernel.Config{Models: []kernel.Loaded{m}}, func(d *kernel.Device) {
		want := alone(t, d, m.Spec, words(9), 1)
		for id, wire := range []string{"f32", "f16", "int8", "int4"} {
			op := hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: hardware.Span{Hi: 2}, Wire: wire}
			low := run1(t, d, op, hardware.Seq{ID: int64(id), New: 9, Tokens: words(9)})
			op.Layers = hardware.Span{Lo: 2, Hi: 4}
			out := run1(t, d, op, hardware.Seq{ID: int64(id), New: 9, In: low.Hidden})
			if wire == "f32" || wire == "f16" {
				require.Equal(t, want[0], out.Token, wire)
			}
			require.Equal(t, map[string]int{"f32": 9 * 4 * 32, "f16": 9 * 2 * 32, "int8": 9 * (32 + 8), "int4": 9 * (16 + 8)}[wire], int(low.Hidden.Bytes))
		}
	})
}

func TestI3AdaptersAreLoadedByName(t *testing.T) {
	m := tiny(t, "tiny", 32)
	l, err := train.NewLoRA(m.Weights.Config, 2, 4, 9, "attn_q", "attn_v")
	require.NoError(t, err)
	var file bytes.Buffer
	require.NoError(t, l.Write(&file, "llama"))
	m.Adapter = func(string) ([]byte, error) { return file.Bytes(), nil }
	in(t, world.NewSim(t.Context()), kernel.Config{Models: []kernel.Loaded{m}}, func(d *kernel.Device) {
		op := hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All(), Seqs: []hardware.Seq{{ID: 1, New: 3, Tokens: words(3), Adapter: "a"}}}
		_, err := d.Run(&op)
		require.ErrorContains(t, err, `adapter "a" is not loaded`)
		load := hardware.Op{Kind: hardware.Load, Model: m.Spec, Layers: m.Spec.All(), Seqs: []hardware.Seq{{Adapter: "a"}}}
		_, err = d.Run(&load)
		require.NoError(t, err)
		res, err := d.Run(&op)
		require.NoError(t, err)
		require.Equal(t, alone(t, d, m.Spec, words(3), 1)[0], res.Seqs[0].Token, "a fresh adapter has B = 0")
	})
}
