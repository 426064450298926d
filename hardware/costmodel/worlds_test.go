package costmodel_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/internal/rng"
)

// story is a small offloading run: users prefill some layers, send, the edge goes
// on, answers stream back. It returns everything that was stamped.
func story(t *testing.T, r world.Runner) (stamps []hardware.Usage) {
	phone, err := profiles.Device("iphone-17-pro")
	require.NoError(t, err)
	server, err := profiles.Device("nvidia-l40s")
	require.NoError(t, err)
	radio, err := profiles.Link("nr-mmwave-walk-us-2020")
	require.NoError(t, err)
	m, err := profiles.Model("llama-3.2-1b:q4_0")
	require.NoError(t, err)
	theirs := costmodel.NewBlueprint(phone)
	site := &hardware.Site{NewUser: func(id int) *hardware.User {
		up, down := costmodel.NewPair(r, radio, costmodel.LinkOptions{Seed: 5, Name: fmt.Sprint("user ", id)})
		return &hardware.User{ID: id, Device: theirs.New(r, costmodel.Options{Seed: 5}), Up: up, Down: down}
	}}
	edge := costmodel.New(r, server, costmodel.Options{Seed: 5})
	luck := rng.Stream(5, "story")
	for id := range 30 {
		at := time.Duration(luck.Float64() * 20e9)
		r.Go("user", func() {
			u := site.User(id % 4)
			r.Sleep(at)
			op := &hardware.Op{Kind: hardware.Prefill, Model: m, Layers: hardware.Span{Hi: 4}, Seqs: []hardware.Seq{{ID: int64(id), New: 50 + id}}}
			res, err := u.Device.Run(op)
			require.NoError(t, err)
			stamps = append(stamps, res.Usage)
			d, err := u.Up.Send(res.Seqs[0].Hidden)
			require.NoError(t, err)
			stamps = append(stamps, d.Usage)
			s := u.Down.Open()
			r.Go("edge", func() {
				op := &hardware.Op{Kind: hardware.Prefill, Model: m, Layers: hardware.Span{Lo: 4, Hi: m.Layers}, Seqs: op.Seqs}
				for range 5 {
					_, err := edge.Run(op)
					require.NoError(t, err)
					s.Write(hardware.Payload{Bytes: 8, Tokens: 1})
				}
				s.Close(nil)
			})
			got, err := s.Drain()
			require.NoError(t, err)
			for _, d := range got {
				stamps = append(stamps, d.Usage)
			}
		})
	}
	require.NoError(t, r.Run())
	return stamps
}

// TestBothWorldsAgreeToTheNanosecond is the design's promise, for devices that
// throttle and links that fade, hand over and doze.
func TestBothWorldsAgreeToTheNanosecond(t *testing.T) {
	want := story(t, world.NewSim(t.Context()))
	require.Len(t, want, 30*7)
	synctest.Test(t, func(t *testing.T) {
		require.Equal(t, want, story(t, world.NewReal(t.Context())))
	})
}
