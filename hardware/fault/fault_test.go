package fault

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
)

var tiny = &hardware.Model{Name: "tiny", Arch: "llama", Quant: "f16", Layers: 4, Dim: 64, Heads: 2, KVHeads: 2, HeadDim: 32, FFN: 128, Vocab: 100, BytesPerWeight: 2, KVBytes: 2}

// in runs fn as a process over a modelled device that is down from 1 s to 2 s.
func in(t *testing.T, fn func(env world.Env, d *Device, inner *costmodel.Device)) {
	sheet, err := profiles.Device("raspberry-pi-5")
	require.NoError(t, err)
	env := world.NewSim(nil)
	inner := costmodel.New(env, sheet, costmodel.Options{})
	d := New(env, "pi", inner, []Window{{From: time.Second, To: 2 * time.Second}})
	env.Go("test", func() { fn(env, d, inner) })
	require.NoError(t, env.Run())
}

func prefill(id int64, n int) *hardware.Op {
	return &hardware.Op{Kind: hardware.Prefill, Model: tiny, Layers: tiny.All(), Seqs: []hardware.Seq{{ID: id, New: n}}}
}

func decode(id int64, context int) *hardware.Op {
	return &hardware.Op{Kind: hardware.Decode, Model: tiny, Layers: tiny.All(), Seqs: []hardware.Seq{{ID: id, Context: context, New: 1}}}
}

func TestDownInItsWindowAndOnlyThere(t *testing.T) {
	in(t, func(env world.Env, d *Device, inner *costmodel.Device) {
		_, err := d.Run(prefill(1, 8))
		require.NoError(t, err)
		held := inner.Used()
		env.Sleep(time.Second - env.Now()) // the first instant of the window
		_, err = d.Run(decode(1, 8))
		require.ErrorIs(t, err, hardware.ErrDown)
		var f *Failure
		require.True(t, errors.As(err, &f))
		require.Equal(t, time.Second, f.Since())
		require.ErrorContains(t, err, `node "pi" died at 1s: it is down`)
		require.Less(t, inner.Used(), held, "the cache is forgotten, its memory free")
		_, err = d.Run(&hardware.Op{Kind: hardware.Drop, Seqs: []hardware.Seq{{ID: -1}}})
		require.ErrorIs(t, err, hardware.ErrDown, "a ping")
		env.Sleep(time.Second) // the first instant after it
		_, err = d.Run(&hardware.Op{Kind: hardware.Drop, Seqs: []hardware.Seq{{ID: -1}}})
		require.NoError(t, err)
		_, err = d.Run(decode(1, 8))
		require.ErrorContains(t, err, "the KV cache of sequence 1 is lost")
		_, err = d.Run(prefill(1, 9))
		require.NoError(t, err)
		_, err = d.Run(decode(1, 9))
		require.NoError(t, err, "a sequence that began anew")
	})
}

func TestAnOperationThatADeathInterruptsIsLost(t *testing.T) {
	in(t, func(env world.Env, d *Device, inner *costmodel.Device) {
		took := inner.Estimate(prefill(1, 4000))
		require.Greater(t, took, time.Millisecond)
		env.Sleep(time.Second - took/2)
		_, err := d.Run(prefill(1, 4000))
		require.ErrorIs(t, err, hardware.ErrDown)
		require.Equal(t, inner.Used(), tiny.WeightBytes(tiny.All()))
		_, err = d.Run(prefill(2, 1))
		require.ErrorIs(t, err, hardware.ErrDown)
	})
}

// A death that nobody saw because the node was idle takes the caches all the same.
func TestADeathInIdleTimeTakesTheCaches(t *testing.T) {
	in(t, func(env world.Env, d *Device, inner *costmodel.Device) {
		_, err := d.Run(prefill(1, 8))
		require.NoError(t, err)
		env.Sleep(3*time.Second - env.Now())
		_, err = d.Run(decode(1, 8))
		require.ErrorIs(t, err, hardware.ErrDown)
		require.Equal(t, inner.Used(), tiny.WeightBytes(tiny.All()))
	})
}
