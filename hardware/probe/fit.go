package probe

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/fitting"
	"meibench/hardware/kernel"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/tensor"
)

// Plan says how to time a model.
type Plan struct {
	Threads int           // per operation, as in the runs to be predicted; at least 1
	Budget  time.Duration // about how long to take; 0 = 2 s
	Seed    uint64        // of prompts and of the order of operations
}

// Evidence is what a fit rests on, and how well it predicts operations that it
// has not seen.
type Evidence struct {
	Rounds  int           `json:"rounds"` // times every scenario ran
	Took    time.Duration `json:"took_ns"`
	Timings []Timing      `json:"timings"`

	// Errors of operations left out in turn (every fifth, five times) and
	// predicted by a fit to the rest: relative, without sign.
	HeldMedian float64 `json:"held_out_median_error"`
	HeldP90    float64 `json:"held_out_p90_error"`

	// What an operation on the whole model takes more after the process slept
	// than right after another one: an idle processor forgets (clock, caches,
	// translations), sooner if others use it meanwhile. The prefill law has its
	// share in it; the decode law has not, see FitModel.
	WakePrefill Figure `json:"wake_prefill"`
	WakeDecode  Figure `json:"wake_decode"`
}

// Timing is an operation that was timed in every round.
type Timing struct {
	Kind      string        `json:"kind"`
	Lo        int           `json:"layer_lo"`
	Hi        int           `json:"layer_hi"`
	Sequences int           `json:"sequences"`
	New       int           `json:"new_tokens"` // of each sequence
	Context   int           `json:"context"`    // of each sequence
	Slept     bool          `json:"slept"`      // the process slept before it
	N         int           `json:"n"`
	Clean     int           `json:"clean"`                 // trials that nothing disturbed
	Time      time.Duration `json:"time_ns,omitempty"`     // their mean; absent if there is none
	HeldOut   time.Duration `json:"held_out_ns,omitempty"` // predicted by a fit without it
}

// scenario is a life of some sequences on a span of layers: a prefill, a few
// decode steps, gone.
type scenario struct {
	span   hardware.Span
	batch  int
	prompt int
	sleeps sleeps
}

// sleeps says before which operations of a scenario the process sleeps.
type sleeps int

const (
	never   sleeps = iota
	arrives        // before the prefill, as when a request arrives at an idle device
	always         // before each, as when a network lies between steps
)

// pause is how long: a network's round trip, or the time between requests, in
// which a virtual processor is taken away and its caches go to others.
func (s sleeps) pause(luck *rand.Rand) time.Duration {
	if s == always {
		return 4*time.Millisecond + time.Duration(luck.IntN(int(6*time.Millisecond)))
	}
	return 20*time.Millisecond + time.Duration(luck.IntN(int(20*time.Millisecond)))
}

const decodes = 5 // decode steps of a scenario

// key tells timings apart. Decode steps of a scenario count as one operation in
// the middle of their contexts, which a token more or less does not change.
type key struct {
	scenario
	kind hardware.Kind
}

// slept tells whether the process slept before the operation.
func (k key) slept() bool {
	return k.sleeps == always || k.sleeps == arrives && k.kind == hardware.Prefill
}

// usual tells whether the law is fitted to the operation; others are evidence.
func (k key) usual() bool { return k.sleeps == arrives }

// scenarios cover what pipelines ask for: the whole model and both sides of a
// cut in the middle, prompts from a few tokens to most of the context, batches
// of one to eight.
func scenarios(m *hardware.Model, context int) (list []scenario) {
	spans := []hardware.Span{m.All()}
	if cut := m.Layers / 2; cut > 0 {
		spans = append(spans, hardware.Span{Hi: cut}, hardware.Span{Lo: cut, Hi: m.Layers})
	}
	longest := min(context-decodes-1, 1024)
	for _, s := range spans {
		for _, sh := range []struct{ batch, prompt int }{
			{1, 8}, {1, 24}, {1, 64}, {1, 112}, {1, 176}, {1, longest}, {2, 16}, {2, 96}, {4, 48}, {8, 12}, {8, 32},
		} {
			list = append(list, scenario{s, sh.batch, min(sh.prompt, longest), arrives})
		}
	}
	for _, s := range []sleeps{never, always} {
		list = append(list, scenario{m.All(), 1, min(24, longest), s}, scenario{m.All(), 4, min(48, longest), s})
	}
	slices.SortFunc(list, scenario.compare)
	return slices.Compact(list)
}

func (s scenario) compare(b scenario) int {
	return cmp.Or(s.span.Lo-b.span.Lo, s.span.Hi-b.span.Hi, s.batch-b.batch, s.prompt-b.prompt, int(s.sleeps-b.sleeps))
}

// FitModel times operations on a model, through the device that measured runs
// use, and fits the cost law to them.
//
// Operations come in the order of a request's life, scenarios in random order,
// again and again until the budget is spent. The process sleeps before each
// scenario, as a device is idle when a request arrives: so the prefill law is
// that of a processor that wakes up, which for a small model is half of it, and
// the decode law is that of steps that follow each other. An operation's time is
// the mean of the trials that nothing disturbed, since a run is a sum of
// operations and not their median.
//
// Note: fitting the median of operations in a tight loop was tried; it
// predicted the time to first token a quarter too low.
//
// Prompts are random tokens. The kernels do the same work for any.
func FitModel(ctx context.Context, m kernel.Loaded, p Plan) (profiles.Fit, *Evidence, error) {
	if p.Budget <= 0 {
		p.Budget = 2 * time.Second
	}
	p.Threads = max(p.Threads, 1)
	if m.Weights == nil || m.Weights.Context < decodes+2 {
		return profiles.Fit{}, nil, errors.New("fit model: it needs weights and room for a few tokens of context")
	}
	w := world.NewReal(ctx)
	dev, err := kernel.New(w, kernel.Config{Name: "probe", Models: []kernel.Loaded{m}, Threads: p.Threads})
	if err != nil {
		return profiles.Fit{}, nil, fmt.Errorf("fit model: %w", err)
	}
	defer dev.Close()
	t := &timer{world: w, dev: dev, model: m.Spec, luck: rng.Stream(p.Seed, "probe", m.Spec.Name), threads: p.Threads, context: m.Weights.Context, times: map[key][]trial{}}
	began := time.Now()
	var runErr error
	w.Go("fit", func() { runErr = t.rounds(scenarios(m.Spec, m.Weights.Context), p.Budget) })
	if err := errors.Join(w.Run(), runErr); err != nil {
		return profiles.Fit{}, nil, fmt.Errorf("fit model %q: %w", m.Spec.Name, err)
	}
	fit, ev, err := t.fit()
	if err != nil {
		return profiles.Fit{}, nil, fmt.Errorf("fit model %q: %w", m.Spec.Name, err)
	}
	ev.Took = time.Since(began)
	fit.Kernel = fmt.Sprintf("meibench kernels, %s, %d thread(s), %s", tensor.Kernel(), p.Threads, runtime.Version())
	fit.Source = fmt.Sprintf("meibench profile: %d operations in %d rounds; on operations left out: median error %.1f %%, p90 %.1f %%",
		fit.Samples, ev.Rounds, 100*ev.HeldMedian, 100*ev.HeldP90)
	return fit, ev, nil
}

// timer runs scenarios and keeps their times.
type timer struct {
	world            *world.Real
	dev              *kernel.Device
	model            *hardware.Model
	luck             *rand.Rand
	threads, context int
	times            map[key][]trial
	count            int
	next             int64 // sequence id
}

const leastRounds = 3

// rounds runs the scenarios again and again: at least three times, but once is
// enough where that takes three times the budget.
func (t *timer) rounds(list []scenario, budget time.Duration) error {
	list, err := t.affordable(list, budget)
	if err != nil {
		return err
	}
	for _, s := range list { // warm-up: buffers grow, pages are touched
		if s.sleeps = never; s.batch*s.prompt >= 128 || s.batch == 8 {
			if err := t.live(s, func(hardware.Kind, trial) {}); err != nil {
				return err
			}
		}
	}
	began := t.world.Now()
	for {
		spent := t.world.Now() - began
		if t.count >= leastRounds && spent >= budget || t.count > 0 && spent >= 3*budget {
			return nil
		}
		for _, i := range t.luck.Perm(len(list)) {
			s := list[i]
			err := t.live(s, func(kind hardware.Kind, x trial) {
				k := key{s, kind}
				t.times[k] = append(t.times[k], x)
			})
			if err != nil {
				return err
			}
		}
		t.count++
	}
}

// affordable drops scenarios that would take more than a tenth of the budget
// each, unless they are small: of a large model only those can be timed quickly.
func (t *timer) affordable(list []scenario, budget time.Duration) ([]scenario, error) {
	small := scenario{span: t.model.All(), batch: 1, prompt: min(8, t.context-decodes-1)}
	var token, step time.Duration
	for range 2 { // the first one warms up
		err := t.live(small, func(kind hardware.Kind, x trial) {
			if kind == hardware.Prefill {
				token = x.took / time.Duration(small.prompt)
			} else {
				step = x.took
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(list, func(s scenario) bool {
		cost := token*time.Duration(s.batch*s.prompt) + step*decodes
		return cost*time.Duration(s.span.Len())/time.Duration(t.model.Layers) > budget/10 && s.batch*s.prompt > 32
	}), nil
}

// live runs one scenario and reports each operation's time.
func (t *timer) live(s scenario, report func(kind hardware.Kind, x trial)) error {
	op := hardware.Op{Kind: hardware.Prefill, Model: t.model, Layers: s.span, Seqs: make([]hardware.Seq, s.batch)}
	for i := range op.Seqs {
		t.next++
		op.Seqs[i] = hardware.Seq{ID: t.next, New: s.prompt}
		t.feed(&op.Seqs[i], s.span)
	}
	for range decodes + 1 {
		if (key{s, op.Kind}).slept() {
			t.world.Sleep(s.sleeps.pause(t.luck))
		}
		lost := preemptions()
		began := t.world.Now()
		_, err := t.dev.Run(&op)
		x := trial{took: t.world.Now() - began}
		x.lost = preemptions() > lost
		if err != nil {
			return err
		}
		report(op.Kind, x)
		op.Kind = hardware.Decode
		for i := range op.Seqs {
			q := &op.Seqs[i]
			q.Context, q.New = q.Context+q.New, 1
			t.feed(q, s.span)
		}
	}
	op.Kind = hardware.Drop
	_, err := t.dev.Run(&op)
	return err
}

// feed gives a sequence random input: token ids, or activations of about the
// size that trained models have.
func (t *timer) feed(s *hardware.Seq, span hardware.Span) {
	if span.Lo == 0 {
		s.Tokens = make([]int32, s.New)
		for i := range s.Tokens {
			s.Tokens[i] = int32(t.luck.IntN(t.model.Vocab))
		}
		return
	}
	data := make([]byte, 0, 4*s.New*t.model.Dim)
	for range s.New * t.model.Dim {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(2*t.luck.Float32()-1))
	}
	s.In = hardware.Payload{Bytes: units.Bytes(len(data)), Data: data}
}

// timings sums up the rounds, in a fixed order. used are those to fit.
func (t *timer) timings() (list []Timing, samples []fitting.Sample, used []int) {
	keys := slices.SortedFunc(maps.Keys(t.times), func(a, b key) int {
		return cmp.Or(int(a.kind)-int(b.kind), a.compare(b.scenario))
	})
	for _, k := range keys {
		x := Timing{Kind: k.kind.String(), Lo: k.span.Lo, Hi: k.span.Hi, Sequences: k.batch, Slept: k.slept(), N: len(t.times[k])}
		x.Time, x.Clean = undisturbed(t.times[k])
		s := fitting.Sample{Op: k.op(t.model), Time: x.Time}
		x.New, x.Context = s.Op.Seqs[0].New, s.Op.Seqs[0].Context
		if k.usual() && x.Clean > 0 {
			used = append(used, len(samples))
		}
		list, samples = append(list, x), append(samples, s)
	}
	return list, samples, used
}

// trial is one operation's time, and whether the process lost a processor in it:
// then it says more about the scheduler than about the operation.
type trial struct {
	took time.Duration
	lost bool
}

// undisturbed is the mean of the trials that kept their processor and took at
// most three times the lower quartile of these: a host may stop a virtual machine
// without telling it.
func undisturbed(trials []trial) (mean time.Duration, clean int) {
	var kept []time.Duration
	for _, x := range trials {
		if !x.lost {
			kept = append(kept, x.took)
		}
	}
	if len(kept) == 0 {
		return 0, 0
	}
	slices.Sort(kept)
	limit := 3 * kept[(len(kept)-1)/4]
	for clean < len(kept) && kept[clean] <= limit {
		mean += kept[clean]
		clean++
	}
	return mean / time.Duration(clean), clean
}

// op is the operation that a key stands for.
func (k key) op(m *hardware.Model) hardware.Op {
	op := hardware.Op{Kind: k.kind, Model: m, Layers: k.span, Seqs: make([]hardware.Seq, k.batch)}
	seq := hardware.Seq{New: k.prompt}
	if k.kind == hardware.Decode {
		seq = hardware.Seq{New: 1, Context: k.prompt + decodes/2}
	}
	for i := range op.Seqs {
		seq.ID = int64(i)
		op.Seqs[i] = seq
	}
	return op
}

// fit fits the law, tests it on operations left out, and compares what slept
// with what did not.
func (t *timer) fit() (profiles.Fit, *Evidence, error) {
	list, samples, used := t.timings()
	ev := &Evidence{Rounds: t.count, Timings: list}
	if 2*len(used) < len(list) {
		return profiles.Fit{}, nil, fmt.Errorf("only %d of %d operations ever ran undisturbed: stop other programs, or give the fit more time", len(used), len(list))
	}
	fit, err := fitOnly(samples, used)
	if err != nil {
		return fit, nil, err
	}
	if err := ev.holdOut(samples, used); err != nil {
		return fit, nil, err
	}
	ev.WakePrefill = t.wake(hardware.Prefill)
	ev.WakeDecode = t.wake(hardware.Decode)
	if w := ev.WakeDecode.Value; w > 0 { // NaN where no pair was undisturbed
		fit.Wake = profiles.Wake{After: wakeAfter.Seconds(), Decode: w}
	}
	return fit, ev, nil
}

// wakeAfter is the idleness from which on a step pays for waking up: shorter than
// the sleeps it was measured with, longer than the gaps between steps of a batch.
const wakeAfter = time.Millisecond

func fitOnly(samples []fitting.Sample, used []int) (profiles.Fit, error) {
	chosen := make([]fitting.Sample, 0, len(used))
	for _, i := range used {
		chosen = append(chosen, samples[i])
	}
	fit, _, err := fitting.FitOps(chosen)
	return fit, err
}

// holdOut predicts every operation by a fit that has not seen it.
func (ev *Evidence) holdOut(samples []fitting.Sample, used []int) error {
	const folds = 5
	var errs []float64
	for f := range folds {
		var rest, out []int
		for k, i := range used {
			if k%folds == f {
				out = append(out, i)
			} else {
				rest = append(rest, i)
			}
		}
		fit, err := fitOnly(samples, rest)
		if err != nil {
			return err
		}
		for _, i := range out {
			p := predict(&fit, &samples[i].Op)
			ev.Timings[i].HeldOut = p
			errs = append(errs, math.Abs(p.Seconds()/samples[i].Time.Seconds()-1))
		}
	}
	slices.Sort(errs)
	ev.HeldMedian, ev.HeldP90 = quantile(errs, 0.5), quantile(errs, 0.9)
	return nil
}

// predict is the time by a fit, as profiles.Coefficients defines it. A test holds
// it against costmodel, whose law wants a whole device.
func predict(f *profiles.Fit, op *hardware.Op) time.Duration {
	c := f.Prefill
	if op.Kind == hardware.Decode {
		c = f.Decode
	}
	var tokens, pairs float64
	for _, s := range op.Seqs {
		n := float64(s.New)
		tokens += n
		pairs += n*float64(s.Context) + n*(n+1)/2
	}
	sec := c.Pass + float64(op.Layers.Len())*(c.Layer+c.Token*tokens+c.Pair*pairs)
	if op.Layers.Hi == op.Model.Layers {
		sec += c.Head + c.HeadToken*float64(len(op.Seqs))
	}
	return units.Seconds(sec)
}

// wake compares operations on the whole model after a sleep with the same ones
// without.
func (t *timer) wake(kind hardware.Kind) Figure {
	var extra []float64
	for _, s := range scenarios(t.model, t.context) {
		if s.sleeps != always {
			continue
		}
		slept, twin := key{s, kind}, key{s, kind}
		twin.sleeps = never
		awake, n := undisturbed(t.times[twin])
		for _, x := range t.times[slept] {
			if n > 0 && !x.lost {
				extra = append(extra, (x.took - awake).Seconds())
			}
		}
	}
	return Figure{Name: "wake_" + kind.String(), Threads: t.threads, Unit: "s",
		Method: "operations on the whole model after 4 to 10 ms of sleep, minus the mean without"}.typical(extra)
}
