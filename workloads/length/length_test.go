package length

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/sourced"
)

func num(v float64, unit string) sourced.Number {
	return sourced.Number{Value: v, Unit: unit, Source: "test", Kind: sourced.Assumed}
}

func compile(t testing.TB, s Spec) *Dist {
	d, err := s.Compile("token")
	require.NoError(t, err)
	return d
}

func logNormal(mu, sigma float64) Spec {
	return Spec{Kind: LogNormal, Mu: num(mu, "1"), Sigma: num(sigma, "1")}
}

func TestAt(t *testing.T) {
	words := logNormal(math.Log(10), 1)
	words.Factor = num(1.5, "token/word")
	points := Spec{Kind: Quantiles, Points: Points{P: []float64{0, 0.5, 1}, V: []float64{10, 20, 100}, Source: "test", Kind: sourced.Assumed}}
	for _, tc := range []struct {
		name string
		in   Spec
		u    float64
		want float64
	}{
		{"constant", Spec{Kind: Constant, Value: num(7, "token")}, 0.9, 7},
		{"exponential median", Spec{Kind: Exponential, Mean: num(10, "token")}, 0.5, 10 * math.Ln2},
		{"geometric p=1/2, first half", Spec{Kind: Geometric, Mean: num(2, "token")}, 0.49, 1},
		{"geometric p=1/2, next quarter", Spec{Kind: Geometric, Mean: num(2, "token")}, 0.74, 2},
		{"geometric of mean one", Spec{Kind: Geometric, Mean: num(1, "token")}, 0.999, 1},
		{"lognormal median in tokens", words, 0.5, 15}, // 10 words x 1.5
		{"lognormal one sigma up", logNormal(0, 1), 0.5 * math.Erfc(-1/math.Sqrt2), math.E},
		{"points, first segment", points, 0.25, 15},
		{"points, second segment", points, 0.75, 60},
		{"table at a percentile", Spec{Kind: Table, Table: "azure23_conv/output_tokens"}, 0.5, 129},        // q50
		{"table between percentiles", Spec{Kind: Table, Table: "azure23_conv/output_tokens"}, 0.005, 11.5}, // q0 7, q1 16
		{"turns: 2 with .002/.996", Spec{Kind: Table, Table: SGDTurns}, 0.002, 2},
		{"turns: median", Spec{Kind: Table, Table: SGDTurns}, 0.5, 9}, // data notes: p50 = 9
	} {
		t.Run(tc.name, func(t *testing.T) { require.InDelta(t, tc.want, compile(t, tc.in).At(tc.u), 1e-9) })
	}
}

// Sampling reproduces the mean that the distribution claims, and the claimed
// mean of a table is the one its source published.
func TestMeans(t *testing.T) {
	published := map[string]float64{ // data notes §1.2 and §1.4
		"azure23_code/output_tokens": 27.88, "azure23_conv/input_tokens": 1154.7, "azure23_conv/output_tokens": 211.13,
		"mooncake_conversation/input_tokens": 12035, "servegen_deepseek-r1/output_tokens": 1527, "servegen_mm-image/image_count": 1.5862,
		SGDTurns: 9.08,
	}
	for _, name := range Tables() {
		t.Run(name, func(t *testing.T) {
			d := compile(t, Spec{Kind: Table, Table: name})
			const n = 200_000 // stratified: the error is one part in n of the range
			sum := 0.0
			for i := range n {
				sum += d.At((float64(i) + 0.5) / n)
			}
			require.InEpsilon(t, d.Mean(), sum/n, 1e-3)
			if want, ok := published[name]; ok {
				require.InEpsilon(t, want, d.Mean(), 0.005)
			}
		})
	}
	require.InEpsilon(t, math.Exp(2+0.5*0.25), compile(t, logNormal(2, 0.5)).Mean(), 1e-12)
}

func TestAtNeverDecreases(t *testing.T) {
	specs := []Spec{logNormal(3, 1), {Kind: Geometric, Mean: num(3, "token")}}
	for _, name := range Tables() {
		specs = append(specs, Spec{Kind: Table, Table: name})
	}
	for _, s := range specs {
		d, last := compile(t, s), 0.0
		for i := range 10_000 {
			x := d.At(float64(i) / 10_000)
			require.GreaterOrEqual(t, x, last, "%s %s at %d", s.Kind, s.Table, i)
			last = x
		}
		require.Less(t, d.Count(math.Nextafter(1, 0), 1), 1<<30+1)
	}
}

// The copula keeps both marginals and ties them: ACI-BENCH dialogue and note,
// correlation of logarithms 0.65, standard error 1/sqrt(n) = 0.007.
func TestJoint(t *testing.T) {
	j := Joint{In: compile(t, logNormal(7.126, 0.299)), Out: compile(t, logNormal(6.006, 0.333)), Rho: 0.65}
	require.NoError(t, j.Check())
	key, luck := rng.NewKey(1, "joint"), new(rng.Luck)
	const n = 20_000
	var sx, sy, sxx, syy, sxy float64
	for i := range n {
		*luck = key.At(uint64(i))
		in, out := j.Draw(luck)
		x, y := math.Log(float64(in)), math.Log(float64(out))
		sx, sy, sxx, syy, sxy = sx+x, sy+y, sxx+x*x, syy+y*y, sxy+x*y
	}
	mx, my := sx/n, sy/n
	vx, vy := sxx/n-mx*mx, syy/n-my*my
	require.InDelta(t, 7.126, mx, 0.01)
	require.InDelta(t, 6.006, my, 0.01)
	require.InDelta(t, 0.299, math.Sqrt(vx), 0.01)
	require.InDelta(t, 0.65, (sxy/n-mx*my)/math.Sqrt(vx*vy), 0.03)
	require.Zero(t, testing.AllocsPerRun(100, func() { j.Draw(luck) }))
	require.ErrorContains(t, Joint{Rho: 1}.Check(), "want a value in (-1, 1), got 1")
}

func TestValidate(t *testing.T) {
	points := func(p, v []float64) Spec {
		return Spec{Kind: Quantiles, Points: Points{P: p, V: v, Source: "test", Kind: sourced.Assumed}}
	}
	for _, tc := range []struct {
		name string
		in   Spec
		want string
	}{
		{"unknown kind", Spec{Kind: "pareto"}, `kind: unknown distribution "pareto" (have [constant exponential`},
		{"missing value", Spec{Kind: Constant}, `value: unit: want "token"`},
		{"negative", Spec{Kind: Constant, Value: num(-1, "token")}, "value: value: want >= 0, got -1"},
		{"no source", Spec{Kind: Constant, Value: sourced.Number{Value: 1, Unit: "token"}}, "value: source is missing"},
		{"field of another kind", Spec{Kind: Constant, Value: num(1, "token"), Mu: num(1, "1")}, "mu: a constant distribution has none: remove it (it has [value])"},
		{"geometric under one", Spec{Kind: Geometric, Mean: num(0.5, "token")}, "at least 1, got 0.5"},
		{"lognormal of raw tokens", logNormal(1200, 1), "they are of ln x"},
		{"unknown table", Spec{Kind: Table, Table: "gpt5/input"}, `table: unknown table "gpt5/input" (have azure23_code/input_tokens`},
		{"points of unequal length", points([]float64{0, 1}, []float64{1}), "points: want as many sizes"},
		{"points not from 0", points([]float64{0.1, 1}, []float64{1, 2}), "points.p: want probabilities from 0 to 1"},
		{"points not increasing", points([]float64{0, 0.5, 0.5, 1}, []float64{1, 2, 3, 4}), "points.p: item 2"},
		{"sizes that decrease", points([]float64{0, 1}, []float64{2, 1}), "points.v: item 1"},
		{"sizes that are no number", points([]float64{0, 1}, []float64{2, math.NaN()}), "points.v: item 1"},
	} {
		t.Run(tc.name, func(t *testing.T) { require.ErrorContains(t, tc.in.Validate("token"), tc.want) })
	}
}

func TestTablesAreSortedAndSourced(t *testing.T) {
	names := Tables()
	require.True(t, slices.IsSorted(names))
	require.Len(t, names, 16)
	for _, name := range names {
		tab, err := lookup(name)
		require.NoError(t, err)
		require.NotEmpty(t, tab.source, name)
		require.NotEmpty(t, tab.kind, name)
		n := Spec{Kind: Table, Table: name}.Numbers("prompt.", "token")
		require.Len(t, n, 1)
		require.True(t, strings.HasPrefix(n[0].Name, "prompt."+name))
	}
	require.Nil(t, Spec{}.Numbers("x", "token"))
}

func BenchmarkDraw(b *testing.B) {
	for _, bc := range []struct {
		name string
		in   Spec
		rho  float64
	}{{"table", Spec{Kind: Table, Table: "azure23_conv/input_tokens"}, 0}, {"lognormal", logNormal(6, 1), 0.65}} {
		b.Run("length="+bc.name, func(b *testing.B) {
			j := Joint{In: compile(b, bc.in), Out: compile(b, bc.in), Rho: bc.rho}
			luck := new(rng.Luck)
			for b.Loop() {
				j.Draw(luck)
			}
		})
	}
}

func ExampleSpec_Compile() {
	d, err := Spec{Kind: Table, Table: "azure23_conv/output_tokens"}.Compile("token")
	if err != nil {
		panic(err)
	}
	fmt.Println(d.Count(0.5, 1), d.Count(0.99, 1))
	// Output: 129 601
}
