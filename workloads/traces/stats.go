package traces

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// Windows are the lengths over which Stats counts arrivals.
var Windows = [...]time.Duration{time.Second, 10 * time.Second, time.Minute}

// Stats describes a trace in numbers. A figure that the trace is too short for
// is NaN.
type Stats struct {
	Name, Format string
	Requests     int
	Skipped      int           // recorded, but without prompt or answer
	Span         time.Duration // first to last request
	Rate         float64       // requests per second: Requests / Span
	Factor       float64       // time compression since recording

	GapCV                     float64               // coefficient of variation of gaps (population)
	GapP1, GapP50             float64               // quantiles of gaps, seconds
	GapP99, GapP999           float64               // of these, high ones
	Together                  int                   // gaps of zero; left out of the fits
	Gamma, Weibull            Fit                   // of gaps
	ExponentialKS             float64               // distance of gaps to an exponential
	IDC                       [len(Windows)]float64 // variance/mean of counts per window
	Peak                      [len(Windows)]float64 // largest count over mean count
	Lag1                      float64               // lag-1 correlation of counts per minute
	Prompt, Output, Images    Sizes
	Pearson, LogPearson, Rank float64 // correlation of prompt and output: plain, of logarithms, Spearman

	Sessions  int     // conversations that the recording names
	MeanTurns float64 // requests per named conversation
	Types     []Share // kinds of request

	BlockTokens  int
	Blocks       int     // prefix blocks in all prompts
	UniqueBlocks int     // different ones
	Reuse        float64 // share of blocks seen before: what an unbounded cache would hit
}

// Sizes describes token or image counts.
type Sizes struct {
	Mean, CV                    float64
	P5, P25, P50, P75, P95, P99 float64
	Max                         float64
	LogMu, LogSigma             float64 // moments of ln x over positive sizes
}

// Share is a kind of request and its part of all.
type Share struct {
	Name  string
	Share float64
}

// Stats computes the description. Quantiles are interpolated linearly between
// order statistics; windows that the end of the trace cuts are left out.
func (t *Trace) Stats() *Stats {
	s := &Stats{Name: t.Name, Format: t.Format, Requests: len(t.Rows), Skipped: t.Skipped,
		Span: t.Span(), Rate: t.Rate(), Factor: t.Factor, BlockTokens: t.BlockTokens}
	s.gaps(t)
	for i, w := range Windows {
		counts := t.counts(w)
		s.IDC[i], s.Peak[i] = dispersion(counts)
		if w == time.Minute {
			s.Lag1 = lag1(counts)
		}
	}
	n := len(t.Rows)
	prompt, output, images := make([]float64, n), make([]float64, n), make([]float64, n)
	for i, r := range t.Rows {
		prompt[i], output[i], images[i] = float64(r.Prompt), float64(r.Output), float64(r.Images)
	}
	s.Pearson = pearson(prompt, output)
	s.LogPearson = pearson(logs(prompt), logs(output))
	s.Rank = pearson(ranks(prompt), ranks(output))
	s.Prompt, s.Output, s.Images = sizes(prompt), sizes(output), sizes(images)
	s.reuse(t)
	return s
}

func (s *Stats) gaps(t *Trace) {
	gaps := make([]float64, 0, len(t.Rows))
	for i := 1; i < len(t.Rows); i++ {
		gaps = append(gaps, (t.Rows[i].At - t.Rows[i-1].At).Seconds())
	}
	mean, sd := moments(gaps)
	s.GapCV = sd / mean
	slices.Sort(gaps)
	s.GapP1, s.GapP50, s.GapP99, s.GapP999 = quantile(gaps, 0.01), quantile(gaps, 0.5), quantile(gaps, 0.99), quantile(gaps, 0.999)
	s.Together, _ = slices.BinarySearch(gaps, math.SmallestNonzeroFloat64)
	positive := gaps[s.Together:]
	s.Gamma, s.Weibull, s.ExponentialKS = noFit, noFit, math.NaN()
	if len(positive) > 1 {
		s.Gamma, s.Weibull, s.ExponentialKS = fitGamma(positive), fitWeibull(positive), exponentialKS(positive)
	}
}

// counts are the arrivals in each whole window from the first request on. The
// number of windows is bounded: a longer trace shows its first part.
func (t *Trace) counts(window time.Duration) []float64 {
	const most = 20_000_000
	counts := make([]float64, min(int64(t.Span()/window), most))
	for _, r := range t.Rows {
		if k := int(r.At / window); k < len(counts) {
			counts[k]++
		}
	}
	return counts
}

func dispersion(counts []float64) (idc, peak float64) {
	if len(counts) < 2 {
		return math.NaN(), math.NaN()
	}
	mean, sd := moments(counts)
	return sd * sd / mean, slices.Max(counts) / mean
}

func lag1(x []float64) float64 {
	if len(x) < 3 {
		return math.NaN()
	}
	return pearson(x[:len(x)-1], x[1:])
}

// reuse counts sessions, types and prefix blocks.
func (s *Stats) reuse(t *Trace) {
	sessions, blocks := map[int32]bool{}, map[int64]bool{}
	inSession, types := 0, make([]int, len(t.Types))
	for i, r := range t.Rows {
		if r.Session >= 0 {
			sessions[r.Session] = true
			inSession++
		}
		if r.Type >= 0 {
			types[r.Type]++
		}
		for _, id := range t.Blocks(i) {
			blocks[id] = true
			s.Blocks++
		}
	}
	s.Sessions, s.MeanTurns = len(sessions), float64(inSession)/float64(len(sessions))
	s.UniqueBlocks, s.Reuse = len(blocks), 1-float64(len(blocks))/float64(s.Blocks)
	for i, name := range t.Types {
		s.Types = append(s.Types, Share{name, float64(types[i]) / float64(len(t.Rows))})
	}
}

func sizes(x []float64) Sizes {
	slices.Sort(x)
	mean, sd := moments(x)
	first, _ := slices.BinarySearch(x, math.SmallestNonzeroFloat64)
	mu, sigma := moments(logs(x[first:]))
	return Sizes{Mean: mean, CV: sd / mean, P5: quantile(x, 0.05), P25: quantile(x, 0.25), P50: quantile(x, 0.5),
		P75: quantile(x, 0.75), P95: quantile(x, 0.95), P99: quantile(x, 0.99), Max: x[len(x)-1], LogMu: mu, LogSigma: sigma}
}

// moments are the mean and the population standard deviation.
func moments(x []float64) (mean, sd float64) {
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	for _, v := range x {
		sd += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(sd / float64(len(x)))
}

// quantile interpolates linearly between the order statistics of sorted data.
func quantile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := p * float64(len(sorted)-1)
	i := min(int(at), len(sorted)-1)
	if i == len(sorted)-1 {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

func logs(x []float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = math.Log(v)
	}
	return out
}

// ranks replaces values by their ranks; ties share the mean of theirs.
func ranks(x []float64) []float64 {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if x[a] < x[b] {
			return -1
		} else if x[a] > x[b] {
			return 1
		}
		return a - b
	})
	out := make([]float64, len(x))
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && x[order[j]] == x[order[i]] {
			j++
		}
		for _, k := range order[i:j] {
			out[k] = float64(i+j-1) / 2
		}
		i = j
	}
	return out
}

func pearson(x, y []float64) float64 {
	mx, sx := moments(x)
	my, sy := moments(y)
	c := 0.0
	for i := range x {
		c += (x[i] - mx) * (y[i] - my)
	}
	return c / float64(len(x)) / (sx * sy)
}

// WriteText writes the description as aligned text, times in seconds.
func (s *Stats) WriteText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(tw, name+"\t"+format+"\n", args...) }
	row("trace", "%s (%s)", s.Name, s.Format)
	row("requests", "%d, %d left out without prompt or answer", s.Requests, s.Skipped)
	row("span", "%v", s.Span)
	row("rate", "%.4g /s, time compressed %.4g times", s.Rate, s.Factor)
	row("gap cv", "%.4g", s.GapCV)
	row("gap p1 p50 p99 p99.9", "%.4g %.4g %.4g %.4g s, %d of zero", s.GapP1, s.GapP50, s.GapP99, s.GapP999, s.Together)
	row("gamma fit", "shape %.4g, scale %.4g s, KS %.3f", s.Gamma.Shape, s.Gamma.Scale, s.Gamma.KS)
	row("weibull fit", "shape %.4g, scale %.4g s, KS %.3f", s.Weibull.Shape, s.Weibull.Scale, s.Weibull.KS)
	row("exponential", "KS %.3f", s.ExponentialKS)
	row("dispersion 1 s 10 s 60 s", "%.4g %.4g %.4g", s.IDC[0], s.IDC[1], s.IDC[2])
	row("peak/mean 1 s 10 s 60 s", "%.4g %.4g %.4g", s.Peak[0], s.Peak[1], s.Peak[2])
	row("lag-1 of 60 s counts", "%.3f", s.Lag1)
	for _, z := range []struct {
		name string
		of   *Sizes
	}{{"prompt tokens", &s.Prompt}, {"output tokens", &s.Output}, {"images", &s.Images}} {
		if z.of.Max == 0 {
			continue
		}
		row(z.name, "mean %.5g, cv %.3g, p5 %.5g, p25 %.5g, p50 %.5g, p75 %.5g, p95 %.5g, p99 %.5g, max %.6g, ln %.4g ± %.4g", z.of.Mean, z.of.CV,
			z.of.P5, z.of.P25, z.of.P50, z.of.P75, z.of.P95, z.of.P99, z.of.Max, z.of.LogMu, z.of.LogSigma)
	}
	row("prompt-output correlation", "%.2f, of ranks %.2f, of logarithms %.2f", s.Pearson, s.Rank, s.LogPearson)
	if s.Sessions > 0 {
		row("sessions", "%d of %.3g requests", s.Sessions, s.MeanTurns)
	}
	if s.Blocks > 0 {
		row("prefix blocks", "%d of %d tokens, %d different, %.1f %% seen before", s.Blocks, s.BlockTokens, s.UniqueBlocks, 100*s.Reuse)
	}
	for _, k := range s.Types {
		row("type "+k.Name, "%.1f %%", 100*k.Share)
	}
	return tw.Flush()
}
