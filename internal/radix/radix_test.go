package radix_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/radix"
	"meibench/internal/rng"
)

func lists(n int) map[string][]float64 {
	r := rng.Stream(1, "radix")
	out := map[string][]float64{"times": nil, "equal": nil, "huge": nil, "negative": nil, "unknown": nil}
	for i := range n {
		out["times"] = append(out["times"], math.Exp(r.NormFloat64())/100)
		out["equal"] = append(out["equal"], 0.25)
		out["huge"] = append(out["huge"], math.Pow(10, 600*r.Float64()-300)*float64(i%7))
		out["negative"] = append(out["negative"], r.NormFloat64())
		out["unknown"] = append(out["unknown"], r.Float64())
	}
	if n > 2 {
		out["unknown"][n/2], out["huge"][0], out["huge"][1] = math.NaN(), math.Inf(1), math.MaxFloat64
	}
	return out
}

func TestSortIsThatOfSlices(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 50_000} {
		for name, list := range lists(n) {
			want := slices.Clone(list)
			slices.Sort(want)
			radix.Sort(list, make([]float64, n+3))
			for i := range want {
				require.Equal(t, math.Float64bits(want[i]), math.Float64bits(list[i]), "%s of %d at %d", name, n, i)
			}
		}
	}
}

func BenchmarkSort(b *testing.B) {
	source := lists(400_000)["times"]
	list, scratch := make([]float64, len(source)), make([]float64, len(source))
	for name, sort := range map[string]func(){"radix": func() { radix.Sort(list, scratch) }, "slices": func() { slices.Sort(list) }} {
		b.Run("by="+name, func(b *testing.B) {
			for b.Loop() {
				copy(list, source)
				sort()
			}
		})
	}
}
