package rng

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/portable"
)

func TestNormalTable(t *testing.T) {
	table := NormalTable()
	key := NewKey(3, "normal table")
	var sum, square, worst float64
	most, least := math.Inf(-1), math.Inf(1)
	const n = 400_000
	for i := range uint64(n) {
		a, b := key.At(i), key.At(i)
		z := table.Draw(&a)
		exact := portable.NormalQuantile((float64(b.Uint64()>>11) + 0.5) * 0x1p-53)
		worst = max(worst, math.Abs(z-exact))
		sum, square = sum+z, square+z*z
		most, least = max(most, z), min(least, z)
	}
	require.Less(t, worst, 2e-4)
	require.Greater(t, worst, 1e-6, "it is a table")
	require.InDelta(t, 0, sum/n, 4/math.Sqrt(n))
	require.InDelta(t, 1, square/n, 4*math.Sqrt(2.0/n))
	require.Greater(t, most, 4.2)
	require.Less(t, least, -4.2)

	cube := table.Map(func(z float64) float64 { return z * z * z })
	for i := range uint64(1000) {
		a, b := key.At(i), key.At(i)
		z := table.Draw(&a)
		require.InDelta(t, z*z*z, cube.Draw(&b), 0.01)
	}
}
