package hwtest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
)

// DeviceOptions describe the device under test.
type DeviceOptions struct {
	Model    *hardware.Model     // a model it can run; at least two layers
	Prompt   func(n int) []int32 // n token ids, for devices that compute; nil if modelled
	Text     string              // a prompt for devices that take text
	Measured bool                // it does real work: real world only, times vary
}

// maker makes the device under test.
type maker = func(env world.Env) hardware.Device

// Device checks that a device keeps the promises of hardware.Device.
func Device(t *testing.T, build maker, o DeviceOptions) {
	t.Run("describes itself", func(t *testing.T) { describesItself(t, build, o) })
	t.Run("refuses what it does not offer", func(t *testing.T) { refusesOps(t, build, o) })
	t.Run("refuses malformed operations", func(t *testing.T) { refusesNonsense(t, build, o) })
	t.Run("stamps inside the call", func(t *testing.T) { stampsOps(t, build, o) })
	t.Run("a cut model hands activations on", func(t *testing.T) { cutsModels(t, build, o) })
	t.Run("answers every sequence of a batch", func(t *testing.T) { batches(t, build, o) })
	t.Run("runs no more than its slots", func(t *testing.T) { keepsSlots(t, build, o) })
	t.Run("verifies a prefix of the drafts", func(t *testing.T) { verifies(t, build, o) })
	t.Run("generates with a stamp for each token", func(t *testing.T) { generates(t, build, o) })
	if !o.Measured {
		t.Run("repeats itself", func(t *testing.T) { repeats(t, build, o) })
	}
}

func describesItself(t *testing.T, build maker, o DeviceOptions) {
	each(t, o.Measured, func(t *testing.T, r world.Runner) {
		s := build(r).Spec()
		require.NotEmpty(t, s.Name)
		require.Positive(t, s.Slots)
		require.NotZero(t, s.Ops, "offers nothing")
		require.Equal(t, o.Measured, s.Time != hardware.Modelled, "option Measured and Spec().Time disagree")
	})
}

// sequence is one sequence with its first n prompt tokens.
func (o DeviceOptions) sequence(id int64, n int) hardware.Seq {
	s := hardware.Seq{ID: id, New: n}
	if o.Prompt != nil {
		s.Tokens = o.Prompt(n)
	}
	return s
}

func (o DeviceOptions) prefill(seqs ...hardware.Seq) *hardware.Op {
	return &hardware.Op{Kind: hardware.Prefill, Model: o.Model, Layers: o.Model.All(), Seqs: seqs}
}

// next turns a finished pass into the decode step after it.
func next(op *hardware.Op, outs []hardware.Out) {
	op.Kind = hardware.Decode
	for i := range op.Seqs {
		s := &op.Seqs[i]
		s.Context += s.New
		s.New, s.Tokens = 1, nil
		if outs[i].Token != hardware.NoToken {
			s.Tokens = []int32{outs[i].Token}
		}
	}
}

func refusesOps(t *testing.T, build maker, o DeviceOptions) {
	each(t, o.Measured, func(t *testing.T, r world.Runner) {
		d := build(r)
		run(t, r, func(t require.TestingT) {
			for k := hardware.Prefill; k <= hardware.Drop; k++ {
				if d.Spec().Ops.Has(k) {
					continue
				}
				op := o.prefill(o.sequence(1, 1))
				op.Kind = k
				_, err := d.Run(op)
				require.ErrorIs(t, err, hardware.ErrUnsupported, k.String())
			}
			_, err := d.Run(&hardware.Op{})
			require.ErrorIs(t, err, hardware.ErrUnsupported)
		})
	})
}

func refusesNonsense(t *testing.T, build maker, o DeviceOptions) {
	each(t, o.Measured, func(t *testing.T, r world.Runner) {
		d := build(r)
		if !d.Spec().Ops.Has(hardware.Prefill) {
			t.Skip("no prefill")
		}
		L := o.Model.Layers
		run(t, r, func(t require.TestingT) {
			for _, tc := range []struct {
				name  string
				spoil func(*hardware.Op)
			}{
				{"no model", func(op *hardware.Op) { op.Model = nil }},
				{"no sequence", func(op *hardware.Op) { op.Seqs = nil }},
				{"empty span", func(op *hardware.Op) { op.Layers = hardware.Span{Lo: 1, Hi: 1} }},
				{"span below the model", func(op *hardware.Op) { op.Layers = hardware.Span{Lo: -1, Hi: 1} }},
				{"span beyond the model", func(op *hardware.Op) { op.Layers = hardware.Span{Hi: L + 1} }},
				{"nothing new", func(op *hardware.Op) { op.Seqs[0].New, op.Seqs[0].Tokens = 0, nil }},
				{"negative context", func(op *hardware.Op) { op.Seqs[0].Context = -1 }},
			} {
				op := o.prefill(o.sequence(1, 2))
				tc.spoil(op)
				_, err := d.Run(op)
				require.Error(t, err, tc.name)
			}
		})
	})
}

func stampsOps(t *testing.T, build maker, o DeviceOptions) {
	each(t, o.Measured, func(t *testing.T, r world.Runner) {
		d := build(r)
		if !d.Spec().Ops.Has(hardware.Prefill) || !d.Spec().Ops.Has(hardware.Decode) {
			t.Skip("no prefill or no decode")
		}
		run(t, r, func(t require.TestingT) {
			op := o.prefill(o.sequence(1, 4))
			last := r.Now()
			for range 4 {
				before := r.Now()
				res, err := d.Run(op)
				require.NoError(t, err)
				stamped(t, res.Usage, before, r.Now())
				require.GreaterOrEqual(t, res.Usage.Start, last, "started before the one before it ended")
				require.Greater(t, res.Usage.End, res.Usage.Start, "work takes time")
				require.Positive(t, float64(res.Usage.FLOP))
				last = res.Usage.End
				require.Len(t, res.Seqs, 1)
				next(op, res.Seqs)
			}
			if d.Spec().Ops.Has(hardware.Drop) {
				op.Kind = hardware.Drop
				_, err := d.Run(op)
				require.NoError(t, err)
				_, err = d.Run(op)
				require.NoError(t, err, "forgetting twice is fine")
			}
		})
	})
}

func cutsModels(t *testing.T, build maker, o DeviceOptions) {
	each(t, o.Measured, func(t *testing.T, r world.Runner) {
		d := build(r)
		if !d.Spec().Ops.Has(hardware.Prefill) {
			t.Skip("no prefill")
		}
		run(t, r, func(t require.TestingT) {
			const n = 3
			low := o.prefill(o.sequence(1, n))
			low.Layers.Hi = 1
			res, err := d.Run(low)
			require.NoError(t, err)
			h := res.Seqs[0].Hidden
			require.GreaterOrEqual(t, int64(h.Bytes), int64(o.Model.HiddenBytes(n, 1)), "at least a byte per activation")
			require.Equal(t, hardware.NoToken, res.Seqs[0].Token, "no head, no token")
			high := o.prefill(hardware.Seq{ID: 1, New: n, In: h})
			high.Layers.Lo = 1
			res, err = d.Run(high)
			require.NoError(t, err)
			require.Zero(t, res.Seqs[0].Hidden.Bytes, "the top hands nothing on")
		})
	})
}

func batches(t *testing.T, build maker, o DeviceOptions) {
	each(t, o.Measured, func(t *testing.T, r world.Runner) {
		d := build(r)
		if !d.Spec().Ops.Has(hardware.Prefill) || !d.Spec().Ops.Has(hardware.Decode) {
			t.Skip("no prefill or no decode")
		}
		run(t, r, func(t require.TestingT) {
			op := o.prefill(o.sequence(1, 4), o.sequence(2, 1), o.sequence(3, 7))
			for range 3 {
				res, err := d.Run(op)
				require.NoError(t, err)
				require.Len(t, res.Seqs, 3)
				next(op, res.Seqs)
			}
		})
	})
}

func verifies(t *testing.T, build maker, o DeviceOptions) {
	each(t, o.Measured, func(t *testing.T, r world.Runner) {
		d := build(r)
		if !d.Spec().Ops.Has(hardware.Verify) || !d.Spec().Ops.Has(hardware.Prefill) {
			t.Skip("no verify or no prefill")
		}
		run(t, r, func(t require.TestingT) {
			op := o.prefill(o.sequence(1, 3))
			_, err := d.Run(op)
			require.NoError(t, err)
			const n = 5
			op.Kind, op.Seqs[0] = hardware.Verify, o.sequence(1, n)
			op.Seqs[0].Context = 3
			before := r.Now()
			res, err := d.Run(op)
			require.NoError(t, err)
			stamped(t, res.Usage, before, r.Now())
			require.Len(t, res.Seqs, 1)
			a := res.Seqs[0].Accepted
			require.True(t, 0 <= a && a <= n-1, "accepted %d of %d drafts", a, n-1)
			// what was rejected is taken back: the next pass starts where the accepted end
			op.Seqs[0] = o.sequence(1, 2)
			op.Seqs[0].Context = 3 + 1 + a
			_, err = d.Run(op)
			require.NoError(t, err)
		})
	})
}

func generates(t *testing.T, build maker, o DeviceOptions) {
	each(t, o.Measured, func(t *testing.T, r world.Runner) {
		d := build(r)
		if !d.Spec().Ops.Has(hardware.Generate) {
			t.Skip("no generate")
		}
		run(t, r, func(t require.TestingT) {
			op := o.prefill(o.sequence(1, 3))
			op.Kind, op.Seqs[0].Limit, op.Seqs[0].Text = hardware.Generate, 4, o.Text
			before := r.Now()
			res, err := d.Run(op)
			require.NoError(t, err)
			stamped(t, res.Usage, before, r.Now())
			out := res.Seqs[0]
			last, tokens := res.Usage.Start, 0
			for _, c := range out.Chunks {
				require.GreaterOrEqual(t, c.At, last)
				last, tokens = c.At, tokens+c.Tokens
			}
			require.LessOrEqual(t, last, res.Usage.End)
			require.Positive(t, tokens)
			require.LessOrEqual(t, tokens, 4, "more than asked for")
			if len(out.Tokens) > 0 {
				require.Len(t, out.Tokens, tokens)
			}
		})
	})
}

func keepsSlots(t *testing.T, build maker, o DeviceOptions) {
	each(t, o.Measured, func(t *testing.T, r world.Runner) {
		d := build(r)
		if !d.Spec().Ops.Has(hardware.Prefill) {
			t.Skip("no prefill")
		}
		var got []hardware.Usage
		for id := range int64(d.Spec().Slots + 3) {
			start(t, r, "user", func(t require.TestingT) {
				res, err := d.Run(o.prefill(o.sequence(id, 3)))
				require.NoError(t, err)
				got = append(got, res.Usage)
			})
		}
		finish(t, r)
		for _, a := range got {
			together := 0
			for _, b := range got {
				if b.Start <= a.Start && a.Start < b.End {
					together++
				}
			}
			require.LessOrEqual(t, together, d.Spec().Slots)
		}
	})
}

func repeats(t *testing.T, build maker, o DeviceOptions) {
	var runs [2][]hardware.Usage
	for i := range runs {
		r := world.NewSim(t.Context())
		d := build(r)
		if !d.Spec().Ops.Has(hardware.Prefill) || !d.Spec().Ops.Has(hardware.Decode) {
			t.Skip("no prefill or no decode")
		}
		run(t, r, func(t require.TestingT) {
			op := o.prefill(o.sequence(1, 5), o.sequence(2, 9))
			for range 5 {
				res, err := d.Run(op)
				require.NoError(t, err)
				runs[i] = append(runs[i], res.Usage)
				next(op, res.Seqs)
			}
		})
	}
	require.Equal(t, runs[0], runs[1])
}
