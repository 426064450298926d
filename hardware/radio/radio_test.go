package radio

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// The values are worked out by hand from TR 38.901 Table 7.4.1-1 with decimal
// logarithms; c = 3e8 m/s.
func TestX1PathLossByHand(t *testing.T) {
	for _, tc := range []struct {
		name     string
		scenario Scenario
		carrier  float64
		sight    bool
		plane    float64
		want     float64
	}{
		// UMi at 3.5 GHz: 20 lg 3.5 = 10.8814; d3D = √(100² + 8.5²) = 100.3606, lg = 2.001563.
		// 32.4 + 21 × 2.001563 + 10.8814 = 85.3142
		{"umi in sight", UMi, 3.5e9, true, 100, 85.3142},
		// Breakpoint 4 × 9 × 0.5 × 3.5e9 / 3e8 = 210 m. At 500 m: d3D = 500.0722, lg = 2.699033;
		// 32.4 + 107.9613 + 10.8814 - 9.5 lg(44100 + 72.25 = 44172.25; 4.645149) = 151.2427 - 44.1289 = 107.1138
		{"umi beyond the breakpoint", UMi, 3.5e9, true, 500, 107.1138},
		// 22.4 + 35.3 × 2.001563 + 21.3 × 0.544068 - 0 = 22.4 + 70.6552 + 11.5886 = 104.6438
		{"umi out of sight", UMi, 3.5e9, false, 100, 104.6438},
		// 22.4 + 35.3 × 2.699033 + 11.5886 = 129.2645
		{"umi out of sight, far", UMi, 3.5e9, false, 500, 129.2645},
		// At 10 m, 70 GHz: d3D = 13.1244, lg = 1.118079; NLOS 22.4 + 39.4682 + 21.3 × 1.845098 = 101.1688;
		// the line in sight is 32.4 + 23.4797 + 36.9020 = 92.7817.
		{"umi at its least distance", UMi, 70e9, false, 10, 101.1688},
		// UMa at 2 GHz: 20 lg 2 = 6.0206; breakpoint 4 × 24 × 0.5 × 2e9/3e8 = 320 m.
		// d3D(200) = √(40000 + 552.25) = 201.3759, lg = 2.304007; 28 + 50.6882 + 6.0206 = 84.7088
		{"uma in sight", UMa, 2e9, true, 200, 84.7088},
		// d3D(1000) = √(1000552.25) = 1000.2761, lg = 3.000120; 28 + 120.0048 + 6.0206 - 9 lg(102400 + 552.25
		// = 102952.25; 5.012636) = 154.0254 - 45.1137 = 108.9117
		{"uma beyond the breakpoint", UMa, 2e9, true, 1000, 108.9117},
		// 13.54 + 39.08 × 2.304007 + 6.0206 = 109.6012
		{"uma out of sight", UMa, 2e9, false, 200, 109.6012},
		// 13.54 + 39.08 × 3.000120 + 6.0206 = 136.8053
		{"uma out of sight, far", UMa, 2e9, false, 1000, 136.8053},
		// InH at 6 GHz: 20 lg 6 = 15.5630; d3D(20) = √(400 + 4) = 20.0998, lg = 1.303191;
		// 32.4 + 22.5452 + 15.5630 = 70.5082
		{"inh in sight", InHOpen, 6e9, true, 20, 70.5082},
		// 17.3 + 38.3 × 1.303191 + 24.9 × 0.778151 = 17.3 + 49.9122 + 19.3760 = 86.5882
		{"inh out of sight", InHMixed, 6e9, false, 20, 86.5882},
		// At 1 m: d3D = √5, lg = 0.349485; LOS 32.4 + 6.0461 + 15.5630 = 54.0091 > NLOS 17.3 + 13.3853 + 19.3760 = 50.0613
		{"inh: never less than in sight", InHMixed, 6e9, false, 1, 54.0091},
	} {
		t.Run(tc.name, func(t *testing.T) {
			law := tc.scenario.Law(tc.carrier, tc.scenario.BaseHeight, tc.scenario.UserHeight)
			require.InDelta(t, tc.want, law.Loss(tc.sight, tc.plane), 2e-3)
		})
	}
	require.InDelta(t, 210, UMi.Law(3.5e9, 10, 1.5).Breakpoint(), 1e-9)
	require.InDelta(t, 320, UMa.Law(2e9, 25, 1.5).Breakpoint(), 1e-9)
}

// The two lines of sight meet at the breakpoint: for d'BP = 4 h h f/c the far
// formula's last term makes them equal where d3D² = d'BP² + Δh².
func TestX1PathLossIsContinuousAtTheBreakpoint(t *testing.T) {
	for _, s := range []Scenario{UMa, UMi} {
		l := s.Law(6e9, s.BaseHeight, s.UserHeight)
		d := l.Breakpoint()
		require.InDelta(t, l.Loss(true, d), l.Loss(true, d+1e-6), 1e-5, s.Name)
	}
}

// By hand from Table 7.4.2-1.
func TestX1LineOfSightByHand(t *testing.T) {
	for _, tc := range []struct {
		name     string
		scenario Scenario
		user     float64
		plane    float64
		want     float64
	}{
		{"umi near", UMi, 1.5, 18, 1},
		{"umi 36 m", UMi, 1.5, 36, 0.5 + 0.36787944*0.5},      // 18/36 + e^-1 (1 - 18/36)
		{"umi 180 m", UMi, 1.5, 180, 0.1 + 0.00673795*0.9},    // e^-5
		{"uma 63 m", UMa, 1.5, 63, 2.0/7 + 0.36787944*5/7},    // 18/63 = 2/7
		{"uma 630 m", UMa, 1.5, 630, 0.02857143 + 4.4103e-05}, // 18/630, e^-10 (1 - 0.0286)
		// C' = ((23-13)/10)^1.5 = 1; 0.06 + e^-(300/63) 0.94 = 0.06 + 0.00854932 × 0.94; × (1 + 1.25 × 27 × e^-2)
		{"uma 300 m, seventh floor", UMa, 23, 300, 0.06803636 * 5.567566},
		{"mixed office 1.2 m", InHMixed, 1, 1.2, 1},
		{"mixed office 5.9 m", InHMixed, 1, 5.9, 0.36787944}, // e^-(4.7/4.7)
		{"mixed office 39.1 m", InHMixed, 1, 39.1, 0.32 * 0.36787944},
		{"open office 5 m", InHOpen, 1, 5, 1},
		{"open office 49 m", InHOpen, 1, 49, 0.53716},                 // e^-(44/70.8) = e^-0.621469
		{"open office 260.7 m", InHOpen, 1, 260.7, 0.54 * 0.36787944}, // e^-(211.7/211.7)
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.InDelta(t, tc.want, tc.scenario.Law(6e9, tc.scenario.BaseHeight, tc.user).Sight(tc.plane), 2e-5)
		})
	}
}

func TestX1NoiseByHand(t *testing.T) {
	require.InDelta(t, -85, Noise(100e6, 9), 1e-9)     // -174 + 80 + 9
	require.InDelta(t, -91.9897, Noise(20e6, 9), 1e-4) // -174 + 73.0103 + 9
	require.InDelta(t, 10-3.0103, SINR(10, 0, []float64{0}, nil), 1e-4, "an interferer as strong as the noise")
	require.InDelta(t, 10-10*math.Log10(1+0.5), SINR(10, 0, []float64{0}, []float64{0.5}), 1e-9, "half a load is half the power")
	require.Equal(t, SINR(10, 0, nil, nil), SINR(10, 0, []float64{50}, []float64{0}), "an idle cell does not interfere")
}

func TestX1PowerControlByHand(t *testing.T) {
	c := PowerControl{P0: -80, Alpha: 0.8, Max: 23}
	require.InDelta(t, -80+10+80, c.Power(100, 10), 1e-9) // 10 blocks: 10 dB; 0.8 × 100
	require.InDelta(t, 23, c.Power(140, 10), 1e-9, "the handset's limit")
}

// TS 38.306 §4.1.2: 273 blocks of 30 kHz, 4 layers, 256QAM at 948/1024: 2337 Mbit/s
// down; 50 MHz at 120 kHz has 32 blocks.
func TestX1RateByHand(t *testing.T) {
	c := MustCarrier(3.5e9, 100e6)
	require.Equal(t, 273, c.Blocks)
	require.InEpsilon(t, 2337.0e6, c.Rate(c.BitsPerSec(8*948.0/1024, 4), c.Down, 1), 1e-3)
	require.InEpsilon(t, 0.92*0.25*273*12*28000*2.0, c.Rate(c.BitsPerSec(2, 1), c.Up, 0.25), 1e-12)
	m := MustCarrier(28e9, 50e6)
	require.Equal(t, 32, m.Blocks)
	require.InEpsilon(t, 32*12*14*8000*1.5, m.BitsPerSec(1.5, 1), 1e-12)
	for _, bad := range [][2]float64{{0.1e9, 20e6}, {3.5e9, 33e6}, {math.NaN(), 20e6}, {28e9, 20e6}} {
		_, err := NewCarrier(bad[0], bad[1])
		require.ErrorContains(t, err, "radio:")
	}
	_, err := NewCarrierSpaced(3.5e9, 100e6, 120e3)
	require.ErrorContains(t, err, "below 24.25e9")
}

// Rows of nr_mcs_snr.csv: at its 10 % threshold a scheme loses 10 %, at its 1 %
// threshold 1 %; after one repetition 3 dB better.
func TestX1LinkAdaptation(t *testing.T) {
	one, two := MustTable(1), MustTable(2)
	row := func(t1 *MCSTable, snr float64) MCS { return t1.Rows[t1.At(snr)] }
	require.Equal(t, 3, row(one, -2.92).Index)
	require.Equal(t, 2, row(one, -2.93).Index)
	require.True(t, row(one, -2.93).Assumed)
	require.Equal(t, 9, row(one, 2.5).Index)
	require.Equal(t, 28, row(one, 40).Index)
	require.Equal(t, 26, row(two, 24).Index)
	require.Equal(t, 27, row(two, 40).Index)
	require.Equal(t, -1, one.At(-12), "out of range")
	require.Zero(t, one.Goodput(-12))
	require.Zero(t, one.CQI(-12))
	require.Equal(t, 15, one.CQI(30))
	require.Equal(t, 7, one.CQI(4.2)) // MCS 11, 1.4766
	m := row(one, -2.92)
	require.InDelta(t, 0.1, m.BLER(-2.92), 1e-9)
	require.InDelta(t, 0.01, m.BLER(-2.62), 1e-9)
	require.Equal(t, 1.0, m.BLER(-5))
	// MCS 11 at 4.15 dB: 0.1 lost at first; after the second, 3.01 dB later and 0.31 dB a
	// decade, 10^-(1 + 3.01/0.31) of it: nothing. So 1.1 transmissions, 1.4766 / 1.1.
	sends, lost := row(one, 4.15).Repetitions(4.15)
	require.InDelta(t, 1.1, sends, 1e-9)
	require.Less(t, lost, 1e-9)
	require.InDelta(t, 1.4766/1.1, one.Goodput(4.15), 1e-6)
	require.Equal(t, 1, row(one, 4.15).Tries(4.15, 0.89))
	require.Equal(t, 2, row(one, 4.15).Tries(4.15, 0.91))
	for _, tab := range []*MCSTable{one, two} {
		last := 0.0
		for snr := -10.0; snr < 35; snr += 0.01 {
			g := tab.Goodput(snr)
			require.GreaterOrEqual(t, g, last-1e-12, "goodput fell at %g dB", snr)
			require.LessOrEqual(t, g, math.Log2(1+Ratio(snr)), "more than Shannon at %g dB", snr)
			last = g
		}
	}
	_, err := LoadTable(3)
	require.ErrorContains(t, err, "want 1")
}

func TestX1Antenna(t *testing.T) {
	one := Antenna{Rows: 1}
	require.Equal(t, 8.0, one.GainAt(0, 0))
	require.InDelta(t, 5, one.GainAt(32.5, 0), 1e-9, "3 dB at half the beam width")
	require.InDelta(t, 5, one.GainAt(-327.5, 0), 1e-9)
	require.InDelta(t, -22, one.GainAt(180, 0), 1e-9, "front to back 30 dB")
	require.InDelta(t, 18, Sector.GainAt(0, 12)+12*(12.0/65)*(12.0/65), 1e-9, "ten elements in phase: 10 dB")
	require.Zero(t, Antenna{}.GainAt(50, 50))
	// The first null of n elements lies at sin θ - sin tilt = 2/n.
	null := math.Asin(0.2) * 180 / math.Pi
	require.InDelta(t, -30, Antenna{Rows: 10}.Array(null), 1e-6)
	// Summed element by element.
	re, im := 0.0, 0.0
	for m := range 10 {
		psi := math.Pi * float64(m) * (math.Sin(5*math.Pi/180) - math.Sin(12*math.Pi/180))
		re, im = re+math.Cos(psi), im+math.Sin(psi)
	}
	require.InDelta(t, 10*math.Log10((re*re+im*im)/10), Sector.Array(5), 1e-6)
	for _, p := range []Point{{1, 0}, {1, 1}, {0, 1}, {-1, 0.3}, {-1, -2}, {0.2, -1}, {3, 2.9}} {
		require.InDelta(t, math.Atan2(p.Y, p.X)*180/math.Pi, Bearing(p), 1e-9)
	}
	require.Equal(t, []float64{30, 150, 270}, Boresights(3))
}

// 100 000 places a few decorrelation distances apart: mean, variance, and the
// correlation over several distances and directions.
func TestX1ShadowingIsAField(t *testing.T) {
	const n, memory = 60_000, 37.0
	f := NewField(memory, 7, "test")
	luck := rng.Stream(7, "places")
	lags := []float64{0.1, 0.25, 0.5, 1, 2, 3, 5}
	sum, square := 0.0, 0.0
	cross := make([]float64, len(lags))
	between := 0.0
	for range n {
		x, y, turn := (rng.Float64(luck)-0.5)*1e5, (rng.Float64(luck)-0.5)*1e5, rng.Float64(luck)*2*math.Pi
		z := f.At(3, x, y)
		sum, square = sum+z, square+z*z
		between += z * f.At(4, x, y)
		for i, lag := range lags {
			cross[i] += z * f.At(3, x+lag*memory*math.Cos(turn), y+lag*memory*math.Sin(turn))
		}
	}
	require.InDelta(t, 0, sum/n, 0.02)
	require.InDelta(t, 1, square/n, 0.02)
	require.InDelta(t, 0, between/n, 0.02, "another base is another field")
	for i, lag := range lags {
		require.InDelta(t, math.Exp(-lag), cross[i]/n, 0.055+0.015, "at %g distances", lag)
	}
	// smooth: a step of a hundredth of the distance changes little
	for k := range 1000 {
		x := float64(k) * 0.37
		require.InDelta(t, f.At(1, x, 5), f.At(1, x+0.001, 5), 0.005)
	}
	require.Equal(t, f.At(9, 123.4, -56.7), NewField(memory, 7, "test").At(9, 123.4, -56.7))
	require.NotEqual(t, f.At(9, 123.4, -56.7), NewField(memory, 8, "test").At(9, 123.4, -56.7))
}

func TestX2JainByHand(t *testing.T) {
	require.Equal(t, 1.0, Jain([]float64{3, 3, 3}))
	require.Equal(t, 0.25, Jain([]float64{0, 0, 5, 0}))
	require.InDelta(t, 36.0/42, Jain([]float64{1, 2, 3}), 1e-12) // 6² / (3 × 14)
	require.Equal(t, 1.0, Jain(nil))
}

// Closed forms: equal resource gives r/n each; max-min gives all 1/Σ(1/r). The
// sum of log rates is largest at equal resource: no move of resource helps.
func TestX2SharesOfACell(t *testing.T) {
	alone := []float64{10, 20, 40}
	require.InDeltaSlice(t, []float64{1.0 / 3, 1.0 / 3, 1.0 / 3}, RoundRobin.Shares(alone), 1e-12)
	s := MaxMin.Shares(alone)
	for i := range s {
		require.InDelta(t, 1/(0.1+0.05+0.025), s[i]*alone[i], 1e-12)
	}
	logs := func(s []float64) (sum float64) {
		for i := range s {
			sum += math.Log(s[i] * alone[i])
		}
		return sum
	}
	luck := rng.Stream(1, "shares")
	best := logs(Proportional.Shares(alone))
	for range 1000 {
		a, b, c := rng.Exp(luck), rng.Exp(luck), rng.Exp(luck)
		require.LessOrEqual(t, logs([]float64{a / (a + b + c), b / (a + b + c), c / (a + b + c)}), best+1e-12)
	}
	require.Equal(t, []float64{0, 1}, RoundRobin.Shares([]float64{0, 5}), "who has no rate gets nothing")
	d, ok := DeadlineShares([]float64{10, 20}, []float64{1, 4}, []float64{1, 0.4})
	require.True(t, ok) // 0.1 + 0.5, and 0.2 more each
	require.InDeltaSlice(t, []float64{0.3, 0.7}, d, 1e-12)
	d, ok = DeadlineShares([]float64{10, 20}, []float64{10, 20}, []float64{1, 1})
	require.False(t, ok)
	require.InDeltaSlice(t, []float64{0.5, 0.5}, d, 1e-12)
	for _, x := range []Scheduler{RoundRobin, Proportional, MaxMin} {
		y, err := ParseScheduler(x.String())
		require.NoError(t, err)
		require.Equal(t, x, y)
	}
	_, err := ParseScheduler("lottery")
	require.ErrorContains(t, err, "lottery")
}

// At low SNR the gain is the harmonic number: the mean of the largest of n unit
// exponentials. At any SNR it is Σ C(n,k) (-1)^(k+1) e^(k/ρ) E1(k/ρ) over that of
// n = 1; e E1(1) = 0.596347362, e² E1(2) = 0.361328617 (Abramowitz and Stegun, Table
// 5.1), so that at ρ = 1 the gain of two is 2 - 0.361328617/0.596347362.
func TestX2ProportionalFairGain(t *testing.T) {
	require.Equal(t, 1.0, PFGain(1, 10))
	require.InDelta(t, 1.5, PFGain(2, 1e-6), 1e-4)
	require.InDelta(t, 1+1.0/2+1.0/3+1.0/4, PFGain(4, 1e-6), 1e-4)
	require.InDelta(t, 2-0.361328617/0.596347362, PFGain(2, 1), 1e-6)
	require.Less(t, PFGain(8, 100), PFGain(8, 1), "less to gain at high SNR")
}

func TestX1BianchiFixedPoint(t *testing.T) {
	for _, n := range []int{1, 2, 5, 10, 50} {
		d := BianchiFHSS
		tau, p := d.Attempt(n)
		require.InDelta(t, 1-math.Pow(1-tau, float64(n-1)), p, 1e-9)
		w := float64(d.Window)
		require.InDelta(t, 2*(1-2*p)/((1-2*p)*(w+1)+p*w*(1-math.Pow(2*p, float64(d.Stages)))), tau, 1e-9)
	}
	tau, _ := BianchiFHSS.Attempt(1)
	require.InDelta(t, 2.0/33, tau, 1e-12, "alone: 2/(W+1)")
	// Alone: slots of the mean backoff (1-τ)/τ = 15.5, then a frame: 8184 bits in
	// 15.5 × 50 µs + 400 + 8184 + 28 + 1 + 240 + 128 + 1 µs.
	require.InEpsilon(t, 8184/(15.5*50e-6+8982e-6), BianchiFHSS.Throughput(1), 1e-9)
	// Section V: the best throughput does not depend on n, and no attempt rate beats it by more than the
	// approximation of large n.
	best := 0.0
	for tau := 1e-4; tau < 0.05; tau += 1e-4 {
		best = max(best, BianchiFHSS.throughputAt(50, tau))
	}
	require.InEpsilon(t, best, BianchiFHSS.BestThroughput(), 0.01)
	require.Greater(t, BianchiFHSS.Throughput(5), BianchiFHSS.Throughput(50), "contention costs")
	require.Greater(t, WiFi6.Throughput(1), 0.5*WiFi6.Rate)
	require.InEpsilon(t, WiFi6.Throughput(1), WiFi6.Alone(), 1e-9)
}

func TestX1CompatChannel(t *testing.T) {
	// 43 dBm over -174 dBm/Hz × 400 MHz at 100 m: 43 + 174 - 86.0206 - 80 = 50.9794 dB; 15 of 30 users:
	// 400e6/15 × log2(1 + 10^5.09794) = 26.667e6 × 16.9351
	require.InEpsilon(t, 400e6/15*16.93507, TrimCaching.BitsPerSec(100, 30), 1e-5)
	require.Zero(t, TrimCaching.BitsPerSec(276, 30))
}

func TestX2Layouts(t *testing.T) {
	for rings, n := range []int{1, 7, 19, 37} {
		l := HexCluster(rings, 200)
		require.Len(t, l.Sites, n)
		require.InEpsilon(t, float64(n)*200*200*math.Sqrt(3)/2, l.Area(), 1e-9, "one hexagon a site")
	}
	grid, err := HexGrid(10, 8, 500)
	require.NoError(t, err)
	_, err = HexGrid(3, 3, 500)
	require.ErrorContains(t, err, "even")
	for name, l := range map[string]Layout{"cluster": HexCluster(2, 500), "grid": grid} {
		// Wrap-around: every site sees six neighbours at one distance, wherever it stands.
		for s := range l.Sites {
			six := 0
			for o := range l.Sites {
				if d := math.Sqrt(l.From(o, l.Sites[s]).square()); o != s && math.Abs(d-500) < 1e-6 {
					six++
				}
			}
			require.Equal(t, 6, six, "%s: site %d", name, s)
		}
		// No place is farther from its site than the corner of a hexagon, and tiles find the nearest.
		tiles := NewTiles(&l, 7)
		luck := rng.Stream(3, "places")
		for range 3000 {
			p := l.Place(rng.Float64(luck)*3-1, rng.Float64(luck)*3-1)
			nearest := 0
			for s := range l.Sites {
				if l.From(s, p).square() < l.From(nearest, p).square() {
					nearest = s
				}
			}
			require.LessOrEqual(t, math.Sqrt(l.From(nearest, p).square()), 500/math.Sqrt(3)+1e-6)
			require.Contains(t, tiles.Near(p), int32(nearest))
		}
	}
	list := Layout{Sites: []Point{{0, 0}, {100, 50}}}
	require.Equal(t, int32(1), NewTiles(&list, 2).Near(Point{500, 500})[0])
	require.Equal(t, Point{30, 40}, list.From(0, Point{30, 40}))
}
