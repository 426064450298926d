package probe

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// The loops return what they computed, so a test can tell that they did the
// work they are timed for.

func TestFloatLoopsDoWhatTheyCount(t *testing.T) {
	for _, l := range floatLoops() {
		t.Run(l.isa, func(t *testing.T) {
			// s·1 + 6 counts turns; s·2 + 1 is 2^turns - 1, so both halves of the
			// multiply-add are there. Small integers are exact in float32.
			for _, turns := range []int{1, 2, 7, 1000} {
				require.Equal(t, float32(6*turns*l.fmaSums), l.fma(1, 6, turns), "%d turns", turns)
			}
			require.Equal(t, float32(127*l.fmaSums), l.fma(2, 1, 7))
			r := rng.Stream(1, "read", l.isa)
			for _, n := range []int{readUnit, 3 * readUnit, 257 * readUnit} {
				b := make([]uint64, n)
				var want uint32
				for i := range b {
					b[i] = r.Uint64()
					want += uint32(b[i]) + uint32(b[i]>>32)
				}
				require.Equal(t, want, l.read(b), "%d words", n)
			}
		})
	}
}

func TestTriadWritesEveryElement(t *testing.T) {
	for _, l := range floatLoops() {
		t.Run(l.isa, func(t *testing.T) {
			const n = 5 * triadUnit
			a, b, c := make([]float32, n+1), make([]float32, n), make([]float32, n)
			for i := range b {
				b[i], c[i] = float32(i), float32(2*i+1)
			}
			a[n] = -1
			l.triad(a[:n], b, c, 3)
			for i := range b {
				require.Equal(t, float32(i+3*(2*i+1)), a[i])
			}
			require.Equal(t, float32(-1), a[n], "one past the end must not be written")
		})
	}
}

func TestIntLoopsDoWhatTheyCount(t *testing.T) {
	u, v := [4]uint8{1, 2, 3, 100}, [4]int8{5, -6, 7, -1}
	const each = 1*5 - 2*6 + 3*7 - 100*1 // -86
	for _, l := range intLoops() {
		t.Run(l.isa, func(t *testing.T) {
			for _, turns := range []int{1, 2, 7, 1000} {
				require.EqualValues(t, each*turns*l.dotSums, l.dot(&u, &v, turns), "%d turns", turns)
			}
		})
	}
}

func TestLoopsRefuseWhatAssemblyWouldOverrun(t *testing.T) {
	l := floatLoops()
	best := l[len(l)-1]
	if len(l) == 1 {
		t.Skip("portable loops have no unit to miss")
	}
	require.Panics(t, func() { best.read(make([]uint64, readUnit+1)) })
	require.Panics(t, func() { best.read(nil) })
	require.Panics(t, func() { best.triad(make([]float32, triadUnit), make([]float32, 1), make([]float32, triadUnit), 1) })
}
