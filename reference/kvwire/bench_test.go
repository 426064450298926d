package kvwire

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/models"
	"meibench/reference/quant"
)

// BenchmarkSwitch puts 200 tokens of a shipped model aside and takes them up again, against computing them again.
func BenchmarkSwitch(b *testing.B) {
	m, err := models.Open("mei-base")
	require.NoError(b, err)
	c, err := m.Model.NewCacheOf(quant.F16, 0, m.Model.Layers, 256)
	require.NoError(b, err)
	next(b, m.Model, c, text(200, 1))
	back, err := m.Model.NewCacheOf(quant.F16, 0, m.Model.Layers, 256)
	require.NoError(b, err)
	for _, f := range Forms() {
		data, err := Marshal(c, Range{0, 200}, f, Model{})
		require.NoError(b, err)
		b.Run("form="+f.String()+"/do=out", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, err = Marshal(c, Range{0, 200}, f, Model{})
			}
		})
		b.Run("form="+f.String()+"/do=in", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				err = Unmarshal(data, back, Model{})
			}
		})
		require.NoError(b, err)
	}
	b.Run("form=none/do=prefill", func(b *testing.B) {
		for b.Loop() {
			back.Truncate(0)
			next(b, m.Model, back, text(200, 1))
		}
	})
}
