package predict

import (
	"fmt"
	"math"
	"sort"
	"strings"
)

// Law is a speed law for any row: a physical time of reference, multiplied by
// effects of class, type, vendor, runtime, format and device that are pooled
// partially. It is fitted once and then read only.
//
//	t_step = bytes(B)/(0.8 BW) + B kv(L)/(0.4 BW) + 2 active B/(0.3 peak) + t0
//
// times exp(sum of effects). bytes(B) counts the experts that B tokens touch.
type Law struct {
	peakPerBW map[string]float64 // class to the median of peak over bandwidth, for sheets without one of them
	step      *effects           // rows of one sequence on one device
	regime    *effects           // what batches, several devices, heat, ... change
	prompt    *effects           // prefill
	tuned     bool               // rows of the device to be predicted are among those fitted
}

// sample is a row with what its device's sheet says of it.
type sample struct {
	row   *Row
	spec  *Spec
	kind  string
	run   string
	bw    float64 // B/s of all devices used
	peak  float64 // FLOP/s, of the kind of arithmetic that the type uses
	gb    float64 // bytes of weights read per token, 1e9
	base  float64 // logarithm of the time of reference, s
	tuned bool    // rows of the device itself calibrate the law
	part  float64 // the part of that time that grows in proportion to the weights, s
}

// Constants of the time of reference. They only set where the effects start
// from; the rows decide the rest.
const (
	refEff, refKVEff, refMFU = 0.8, 0.4, 0.3
	refAttention             = 0.1  // share of the peak that attention computes at
	cpuReach                 = 90e9 // B/s that the cores of a chip reach before its bandwidth stops helping
)

// refOverhead is the time of a step beside reading, s.
func refOverhead(kind string) float64 {
	switch kind {
	case "cpu":
		return 0.005
	case "npu":
		return 0.010
	}
	return 0.002
}

// sampleOf says why a row cannot be predicted at all, or what its device offers.
func (l *Law) sampleOf(r *Row, s *Spec) (*sample, string) {
	switch {
	case s == nil:
		return nil, "device in no specification"
	case s.BandwidthGBs == 0 && s.FP16TFLOPS == 0:
		return nil, "specification without bandwidth and peak"
	case r.ParamsB == 0:
		return nil, "no parameter count"
	}
	m := &sample{row: r, spec: s, tuned: l.tuned, kind: kindOf(r.Accelerator), run: runtimeOf(r.Framework)}
	m.bw, m.peak = s.BandwidthGBs*1e9, peakOf(s, m.kind)
	ratio, ok := l.peakPerBW[s.Class]
	if !ok {
		ratio = l.peakPerBW[""]
	}
	if m.bw == 0 {
		m.bw = m.peak / ratio
	}
	if m.peak == 0 {
		m.peak = m.bw * ratio
	}
	m.gb = activeB(r) * bytesPerWeight(r)
	return m, ""
}

// peakOf is the peak that a type of accelerator computes at, FLOP/s: the
// integer one on an NPU and on GPUs whose FP16 peak is a small fraction of it.
func peakOf(s *Spec, kind string) float64 {
	switch {
	case kind == "npu" && s.Int8TOPS > 0:
		return s.Int8TOPS * 1e12
	case kind == "gpu" && strings.HasSuffix(s.Class, "_gpu"):
		return max(s.FP16TFLOPS, s.Int8TOPS/2) * 1e12
	}
	return s.FP16TFLOPS * 1e12
}

// bytesPerWeight of a row, or by the bits that the name of its format says.
func bytesPerWeight(r *Row) float64 {
	if r.BytesPerWeight > 0 {
		return r.BytesPerWeight
	}
	q := strings.ToUpper(r.Quant)
	for _, f := range []struct {
		text  string
		bytes float64
	}{{"16", 2}, {"FP8", 1}, {"INT8", 1.06}, {"Q8", 1.06}, {"W8", 1.06}, {"8-BIT", 1.06}, {"2", 0.35}, {"3", 0.45}, {"5", 0.69}, {"6", 0.82}} {
		if strings.Contains(q, f.text) {
			return f.bytes
		}
	}
	return 0.5625
}

// together is how many devices work on one token at once: devices that hold
// layers after one another take turns.
func together(r *Row) float64 {
	if strings.Contains(r.Notes, "layer split") || strings.Contains(r.Framework, "llama") {
		return 1
	}
	return float64(r.NGPU)
}

// steps fills in the time of reference of one decoding step.
func (m *sample) steps() *sample {
	r := m.row
	n := together(r)
	bw := m.bw
	if m.kind == "cpu" && bw > cpuReach {
		bw = cpuReach * math.Pow(bw/cpuReach, 0.2)
	}
	reach := max(r.Context, 0) * r.Batch * kvBytes(r) / (n * refKVEff * bw)
	read := 1e9 * coverage(r, r.Batch) * bytesPerWeight(r) / (n * refEff * bw)
	work := 0.0
	if r.Batch > 1.01 {
		work = 2e9 * activeB(r) * r.Batch / (n * refMFU * m.peak)
	}
	m.base, m.part = math.Log(read+reach+work+refOverhead(m.kind)), read+work
	return m
}

// usualPrompt is the length that a row without one is taken to have, tokens.
const usualPrompt = 512

// taskPrompts are the lengths of the fixed prompts of a benchmark that names its
// tasks and not their lengths: published speed times published time to the
// first token.
var taskPrompts = []struct {
	task   string
	tokens float64
}{
	{"task=quality", 140},
	{"task=short-chat", 20},
	{"task=sustained-generation", 25},
}

// promptLength of a row, tokens; usualPrompt if nothing says it.
func promptLength(r *Row) float64 {
	for _, t := range taskPrompts {
		if r.PromptTokens == 0 && strings.Contains(r.Notes, t.task) {
			return t.tokens
		}
	}
	if r.PromptTokens == 0 {
		return usualPrompt
	}
	return r.PromptTokens
}

// refCore is what a core of a laptop or desktop computes at, FLOP/s; smaller ARM
// cores do a quarter.
const refCore = 150e9

// promptOverhead is the time of a prefill beside its arithmetic, s.
const promptOverhead = 0.01

// prompts fills in the time of reference of one prompt token: arithmetic, one
// pass over the weights and an overhead, shared by the tokens of the prompt.
func (m *sample) prompts() *sample {
	r, n := m.row, together(m.row)
	peak := m.peak * n
	if m.kind == "cpu" && !strings.HasSuffix(m.spec.Class, "_cpu") && m.spec.Class != "sbc" {
		peak = min(peak, 5*m.bw) // the sheet's peak is that of the graphics unit
	}
	if k := promptThreads(r.Accelerator); m.kind == "cpu" && k > 0 {
		peak = float64(k) * refCore
		if instructionSet(vendorOf(m.spec.Device)) == "arm" {
			peak /= 4
		}
	}
	tokens := promptLength(r) * r.Batch
	read := 1e9 * coverage(r, tokens) * bytesPerWeight(r) / (n * refEff * m.bw)
	length := promptLength(r)
	depth := length / 2 // the mean of what the tokens of a prompt attend to
	if r.Context > length {
		depth += r.Context
	}
	m.part = 2e9*activeB(r)/(refMFU*peak) + read/tokens
	m.base = math.Log(m.part + attentionFLOP(r)*depth/(refAttention*peak) + promptOverhead/tokens)
	return m
}

// How much more a row counts that is slower than the law says: the error is
// relative to the measured speed, so a speed too high costs more than one too
// low.
const slowStep, slowPrompt = 1.5, 2

// Fit fits the law to rows whose devices the catalogue knows. Rows of devices
// to be predicted must not be among them.
func Fit(rows []Row, c *Catalogue) *Law {
	l := &Law{peakPerBW: peakRatios(c)}
	var plain, others, prompt []observation
	var later []*sample
	for i := range rows {
		l.tuned = l.tuned || rows[i].calibrates
	}
	for i := range rows {
		r := &rows[i]
		m, why := l.sampleOf(r, c.Find(r.Device))
		if why != "" {
			continue
		}
		if r.Decode > 0 {
			s := *m
			s.steps()
			if isPlain(&s) {
				plain = append(plain, observation{math.Log(r.Batch/r.Decode) - s.base, s.stepTerms(), weightOf(r)})
			} else {
				later = append(later, &s)
			}
		}
		if r.Prefill > 0 {
			s := *m
			s.prompts()
			prompt = append(prompt, observation{-math.Log(r.Prefill) - s.base, s.promptTerms(), weightOf(r)})
		}
	}
	l.step = fitEffects(plain, slowStep)
	for _, s := range later {
		y := math.Log(s.row.Batch/s.row.Decode) - l.step.rising(s, s.stepTerms())
		others = append(others, observation{y, s.regimeTerms(), 1})
	}
	l.regime = fitEffects(others, 1)
	l.prompt = fitEffects(prompt, slowPrompt)
	return l
}

// peakRatios are the medians of FP16 peak over bandwidth by class, and over all
// devices under "".
func peakRatios(c *Catalogue) map[string]float64 {
	lists := map[string][]float64{}
	for _, s := range c.Specs() {
		if s.FP16TFLOPS > 0 && s.BandwidthGBs > 0 {
			v := 1000 * s.FP16TFLOPS / s.BandwidthGBs
			lists[s.Class] = append(lists[s.Class], v)
			lists[""] = append(lists[""], v)
		}
	}
	out := map[string]float64{"": 100}
	for k, v := range lists {
		out[k] = median(v)
	}
	return out
}

// isPlain reports whether a sample is one sequence at a short context on one
// device that holds the weights and uses its threads.
func isPlain(m *sample) bool {
	why := odd(m.row, m.spec)
	n := threadsOf(m.row.Accelerator)
	return (why == "" || why == "no bytes per weight" || why == "no bandwidth") && m.row.Context <= shortContext && !(m.kind == "cpu" && (n == 1 || n == 2))
}

// Step is the time of one decoding step of a row's batch, s, or why there is
// none.
func (l *Law) Step(r *Row, s *Spec) (seconds float64, why string) {
	m, why := l.sampleOf(r, s)
	if why != "" {
		return 0, why
	}
	m.steps()
	y := l.step.rising(m, m.stepTerms())
	if !isPlain(m) {
		y += l.regime.of(m.regimeTerms())
	}
	return math.Exp(y), ""
}

// leastPower is the least power of the time of reference that a law may have.
const leastPower = 0.1

// rising is the logarithm of a sample's time, made to grow with the weights.
//
// With part the share of the time of reference that is proportional to the
// weights and rest the others, the logarithm is
// (1+a) log(part+rest) + b log(part) + others, where a and b are the effects of
// size. For b < 0 it falls until part/(part+rest) = -b/(1+a); smaller models
// take the time at that point.
func (e *effects) rising(m *sample, terms []term) float64 {
	y := m.base
	a, b := 0.0, 0.0
	for _, t := range terms {
		i, ok := e.index[t.name]
		if !ok {
			continue
		}
		y += float64(e.coef[i] * t.value)
		switch t.grows {
		case withTime:
			a += e.coef[i]
		case withWeights:
			b += e.coef[i]
		}
	}
	if 1+a < leastPower {
		y += (leastPower - 1 - a) * (m.base + middle)
		a = leastPower - 1
	}
	rest := math.Exp(m.base) - m.part
	if share := -b / (1 + a); share > 0 && m.part < share*(m.part+rest) {
		share = min(share, 0.9)
		turn := rest * share / (1 - share)
		y += (1+a)*(math.Log(turn+rest)-m.base) + b*math.Log(turn/m.part)
	}
	return y
}

// PromptToken is the time of one prompt token, s, or why there is none.
func (l *Law) PromptToken(r *Row, s *Spec) (seconds float64, why string) {
	m, why := l.sampleOf(r, s)
	if why != "" {
		return 0, why
	}
	m.prompts()
	return math.Exp(l.prompt.rising(m, m.promptTerms())), ""
}

// names of effects, for a fit that can be read.
func effect(value, sd float64, parts ...string) term {
	return term{name: strings.Join(parts, " "), value: value, sd: sd}
}

func ownEffect(value, sd float64, parts ...string) term {
	t := effect(value, sd, parts...)
	t.own = true
	return t
}

// String lists the effects, largest first, for a look at what was learnt.
func (e *effects) String() string {
	var names []string
	for n := range e.index {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := math.Abs(e.coef[e.index[names[i]]]), math.Abs(e.coef[e.index[names[j]]])
		if a != b {
			return a > b
		}
		return names[i] < names[j]
	})
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "%+.3f %s\n", e.coef[e.index[n]], n)
	}
	return b.String()
}

// calibrationWeight is the weight of a row of the device to be predicted itself.
const calibrationWeight = 4

// weightOf is how much a row counts: one that calibrates the very device to be
// predicted says more than a published one.
func weightOf(r *Row) float64 {
	if r.calibrates {
		return calibrationWeight
	}
	return 1
}
