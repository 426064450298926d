package arrival

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/sourced"
)

func num(v float64, unit string) sourced.Number {
	return sourced.Number{Value: v, Unit: unit, Source: "test", Kind: sourced.Assumed}
}

func perSec(v float64) sourced.Number { return num(v, "1/s") }
func secs(v float64) sourced.Number   { return num(v, "s") }
func ratio(v float64) sourced.Number  { return num(v, "1") }

// chat is preset chat of the data notes: gamma gaps, rate CV 0.21 over 380 s.
var chat = Spec{Kind: Gamma, Rate: perSec(5.53), Shape: ratio(0.871), Burst: Burst{ratio(0.21), secs(380)}}

func times(t testing.TB, s Spec, run Run, n int) []time.Duration {
	g, err := s.Start(run)
	require.NoError(t, err)
	out := make([]time.Duration, n)
	for i := range out {
		at, _, ok := g.Next()
		require.True(t, ok)
		out[i] = at
	}
	require.True(t, slices.IsSorted(out))
	return out
}

// A Poisson process is the sum of exponential gaps of its own stream, each
// rounded to the nearest nanosecond: computed here a second way.
func TestPoissonIsASumOfExponentials(t *testing.T) {
	r, at := rng.Stream(7, "arrivals", "x"), int64(0)
	for i, got := range times(t, Spec{Kind: Poisson, Rate: perSec(4)}, Run{Seed: 7, Name: "x"}, 1000) {
		at += int64(math.Round(rng.Exp(r) / 4 * 1e9))
		require.Equal(t, time.Duration(at), got, "arrival %d", i)
	}
}

// Mean gap 1/rate and the coefficient of variation of the family: Poisson 1;
// gamma 1/sqrt(k); Weibull sqrt(G(1+2/c)/G(1+1/c)^2 - 1), G(5)=24 and G(3)=2 at
// c = 0.5, so sqrt(5).
func TestRenewalMoments(t *testing.T) {
	const n = 200_000
	for _, tc := range []struct {
		name string
		spec Spec
		cv   float64
	}{
		{"poisson", Spec{Kind: Poisson, Rate: perSec(10)}, 1},
		{"gamma k=0.25", Spec{Kind: Gamma, Rate: perSec(10), Shape: ratio(0.25)}, 2},
		{"gamma k=4", Spec{Kind: Gamma, Rate: perSec(10), Shape: ratio(4)}, 0.5},
		{"weibull c=0.5", Spec{Kind: Weibull, Rate: perSec(10), Shape: ratio(0.5)}, math.Sqrt(5)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := times(t, tc.spec, Run{Seed: 3, Name: tc.name}, n)
			mean := at[n-1].Seconds() / n
			var q float64
			for i := 1; i < n; i++ {
				g := (at[i] - at[i-1]).Seconds()
				q += g * g
			}
			cv := math.Sqrt(q/float64(n-1)/(mean*mean) - 1)
			require.InDelta(t, 0.1, mean, 5*0.1*tc.cv/math.Sqrt(n), "five standard errors")
			require.InEpsilon(t, tc.cv, cv, 0.03)
		})
	}
}

// counts per window of w seconds: mean and index of dispersion (variance/mean).
func dispersion(at []time.Duration, w float64) float64 {
	n := int(at[len(at)-1].Seconds() / w)
	c := make([]float64, n)
	for _, x := range at {
		if k := int(x.Seconds() / w); k < n {
			c[k]++
		}
	}
	var s, q float64
	for _, x := range c {
		s, q = s+x, q+x*x
	}
	mean := s / float64(n)
	return (q/float64(n) - mean*mean) / mean
}

// Over a window w short against the correlation time, a modulated renewal
// process has IDC = cv_gap^2 + rate w CV^2 f, f = 2(e^-x - 1 + x)/x^2 with
// x = w/corr the average correlation inside the window. Chat at 60 s:
// 1/0.871 + 5.53*60*0.21^2*0.949 = 15.0 (the trace it was fitted to has 16.1).
func TestBurstDispersion(t *testing.T) {
	x := 60.0 / 380
	want := 1/0.871 + 5.53*60*0.21*0.21*2*(math.Exp(-x)-1+x)/(x*x)
	require.InDelta(t, 15.0, want, 0.1)
	var idc, rate float64
	for seed := range 8 { // each run is 10 hours, 95 correlation times
		at := times(t, chat, Run{Seed: uint64(seed), Name: "chat"}, 200_000)
		idc += dispersion(at, 60) / 8
		rate += float64(len(at)) / at[len(at)-1].Seconds() / 8
	}
	require.InEpsilon(t, want, idc, 0.1)
	require.InEpsilon(t, 5.53, rate, 0.03)
	plain := chat
	plain.Burst = Burst{}
	require.InEpsilon(t, 1/0.871, dispersion(times(t, plain, Run{Seed: 1, Name: "chat"}, 400_000), 60), 0.1)
}

// A day of two levels: hours 0-11 at 0.5, hours 12-23 at 1.5. Starting at noon,
// the first twelve hours hold three quarters of the day's arrivals.
func TestDay(t *testing.T) {
	hourly := make([]float64, 24)
	for h := range hourly {
		hourly[h] = 1 + float64(h/12)*2 // 1 and 3: only ratios matter
	}
	s := Spec{Kind: Poisson, Rate: perSec(1), Day: Day{Hourly: hourly, Start: 12, Source: "test", Kind: sourced.Assumed}}
	at := times(t, s, Run{Seed: 1}, 86_400)
	noon, _ := slices.BinarySearch(at, 12*time.Hour)
	require.InDelta(t, 1.5*43_200, noon, 5*math.Sqrt(1.5*43_200))
	require.InDelta(t, 86_400, at[86_399].Seconds(), 5*math.Sqrt(86_400)*2)
}

func TestPeriodic(t *testing.T) {
	together := Spec{Kind: Periodic, Period: secs(0.1), Phase: Together}
	g, err := together.Start(Run{Sources: 2})
	require.NoError(t, err)
	for i := range 6 { // two loops, ticks at 0, 100, 200 ms; source 0 first
		at, source, ok := g.Next()
		require.True(t, ok)
		require.Equal(t, time.Duration(i/2)*100*time.Millisecond, at)
		require.Equal(t, i%2, source)
	}
	jittered := Spec{Kind: Periodic, Period: secs(0.1), Jitter: secs(0.01)}
	g, err = jittered.Start(Run{Seed: 5, Sources: 3, Name: "loop"})
	require.NoError(t, err)
	last := map[int]time.Duration{}
	for range 3000 {
		at, source, _ := g.Next()
		if prev, ok := last[source]; ok { // neighbours differ by at most two jitters
			require.InDelta(t, 100e6, float64(at-prev), 20e6+1)
		}
		last[source] = at
	}
	require.Len(t, last, 3)
	require.Equal(t, 30.0, jittered.MeanRate(3))
}

// Compression divides every time by the factor and changes nothing else.
func TestFactor(t *testing.T) {
	a := times(t, chat, Run{Seed: 9, Name: "f"}, 1000)
	b := times(t, chat, Run{Seed: 9, Name: "f", Factor: 4}, 1000)
	for i := range a {
		require.InDelta(t, float64(a[i])/4, float64(b[i]), 1)
	}
	// A day is not compressed: at ten times the rate, the night still lasts
	// twelve hours of the run.
	night := Spec{Kind: Poisson, Rate: perSec(0.01), Day: Day{Hourly: make([]float64, 24), Source: "test", Kind: sourced.Assumed}}
	for h := 12; h < 24; h++ {
		night.Day.Hourly[h] = 1
	}
	for _, at := range times(t, night, Run{Seed: 9, Factor: 10}, 10_000) { // 1.2 days
		require.GreaterOrEqual(t, int(at.Hours())%24, 12)
	}
	_, err := chat.Start(Run{Factor: -1})
	require.ErrorContains(t, err, "want a finite factor > 0, got -1")
}

// The vectors pin the schedule: if one moves, every recorded contract moves.
// They were taken from the first version of this package on amd64.
func TestVectors(t *testing.T) {
	for _, tc := range []struct {
		name string
		spec Spec
		want []time.Duration
	}{
		{"poisson", Spec{Kind: Poisson, Rate: perSec(10)}, vecPoisson},
		{"gamma", Spec{Kind: Gamma, Rate: perSec(10), Shape: ratio(0.871)}, vecGamma},
		{"weibull", Spec{Kind: Weibull, Rate: perSec(10), Shape: ratio(0.419)}, vecWeibull},
		{"bursts", chat, vecBursts},
		{"periodic", Spec{Kind: Periodic, Period: secs(0.2), Jitter: secs(0.005)}, vecPeriodic},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.Equal(t, tc.want, times(t, tc.spec, Run{Seed: 42, Name: "golden", Sources: 2}, 4))
		})
	}
}

func TestValidate(t *testing.T) {
	day := func(hourly ...float64) Day { return Day{Hourly: hourly, Source: "test", Kind: sourced.Assumed} }
	for _, tc := range []struct {
		name string
		in   Spec
		want string
	}{
		{"unknown kind", Spec{Kind: "fractal"}, `kind: unknown arrival process "fractal" (have [gamma periodic poisson weibull])`},
		{"no rate", Spec{Kind: Poisson}, `rate: unit: want "1/s"`},
		{"rate without source", Spec{Kind: Poisson, Rate: sourced.Number{Value: 1, Unit: "1/s"}}, "rate: source is missing"},
		{"negative rate", Spec{Kind: Poisson, Rate: perSec(-1)}, "rate: value: want > 0, got -1"},
		{"shape of poisson", Spec{Kind: Poisson, Rate: perSec(1), Shape: ratio(1)}, "shape: a poisson process has none: remove it"},
		{"gamma without shape", Spec{Kind: Gamma, Rate: perSec(1)}, "shape: "},
		{"shape too small", Spec{Kind: Gamma, Rate: perSec(1), Shape: ratio(0.001)}, "shape: value: want >= 0.05"},
		{"burst without time", Spec{Kind: Poisson, Rate: perSec(1), Burst: Burst{CV: ratio(1)}}, "burst.corr: "},
		{"burst too fast", Spec{Kind: Poisson, Rate: perSec(1), Burst: Burst{ratio(1), secs(1e-9)}}, "burst.corr: value: want at least"},
		{"short day", Spec{Kind: Poisson, Rate: perSec(1), Day: day(1, 2)}, "day.hourly: want 24 factors, one an hour, got 2"},
		{"dead day", Spec{Kind: Poisson, Rate: perSec(1), Day: day(make([]float64, 24)...)}, "day.hourly: all factors are 0"},
		{"period of poisson", Spec{Kind: Poisson, Rate: perSec(1), Period: secs(1)}, "period: a poisson process has none"},
		{"no period", Spec{Kind: Periodic}, "period: "},
		{"wild jitter", Spec{Kind: Periodic, Period: secs(1), Jitter: secs(0.5)}, "jitter: value: want under half the period"},
		{"unknown phase", Spec{Kind: Periodic, Period: secs(1), Phase: "full moon"}, "phase: want spread or together"},
		{"rate of periodic", Spec{Kind: Periodic, Period: secs(1), Rate: perSec(1)}, "rate: a periodic process has none"},
	} {
		t.Run(tc.name, func(t *testing.T) { require.ErrorContains(t, tc.in.Validate(), tc.want) })
	}
}

func TestNumbersNameEverySource(t *testing.T) {
	for _, n := range chat.Numbers("arrivals.") {
		require.NotEmpty(t, n.Source, n.Name)
	}
	require.Len(t, chat.Numbers(""), 4) // rate, shape, burst.cv, burst.corr
}

func TestNextDoesNotAllocate(t *testing.T) {
	for _, s := range []Spec{{Kind: Poisson, Rate: perSec(10)}, chat, {Kind: Periodic, Period: secs(1), Jitter: secs(0.1)}} {
		g, err := s.Start(Run{Sources: 50})
		require.NoError(t, err)
		require.Zero(t, testing.AllocsPerRun(1000, func() { g.Next() }), s.Kind)
	}
}

func BenchmarkNext(b *testing.B) {
	for _, bc := range []struct {
		name string
		spec Spec
	}{
		{"poisson", Spec{Kind: Poisson, Rate: perSec(10)}}, {"gamma", chat},
		{"weibull", Spec{Kind: Weibull, Rate: perSec(10), Shape: ratio(0.419)}},
		{"periodic", Spec{Kind: Periodic, Period: secs(1), Jitter: secs(0.1)}},
	} {
		b.Run("arrivals="+bc.name, func(b *testing.B) {
			g, err := bc.spec.Start(Run{Sources: 50})
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				g.Next()
			}
		})
	}
}

// Every hour on the hour, for two sources that start together.
func ExampleSpec_Start() {
	period := sourced.Number{Value: 3600, Unit: "s", Source: "example", Kind: sourced.Assumed}
	g, err := Spec{Kind: Periodic, Period: period, Phase: Together}.Start(Run{Seed: 1, Sources: 2})
	if err != nil {
		panic(err)
	}
	for range 3 {
		at, source, _ := g.Next()
		fmt.Println(at, source)
	}
	// Output:
	// 0s 0
	// 0s 1
	// 1h0m0s 0
}
