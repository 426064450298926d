package fitting

import (
	"errors"
	"fmt"
	"sort"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
)

// Calibrate improves a profile's law with a few timings on the device itself,
// of any models: the step between a prior, which knows only the class, and a Fit
// for each model. It returns a copy of the profile; source says who measured.
//
// Decode timings of models of different size give the pass overhead and the
// efficiency (robust, not negative); timings of one size scale both by one factor,
// which keeps the overhead's share of the prior. In the study behind the priors the
// median error of decode fell from 19 % to 14 % with one run and to 12 % with two.
// Prefill timings give the MFU, by their median.
func Calibrate(p *profiles.DeviceSheet, samples []Sample, source string) (*profiles.DeviceSheet, error) {
	out, law := *p, priorOf(p)
	var decodes []Sample
	var mfus []float64
	for i := range samples {
		s := &samples[i]
		if s.Op.Model == nil {
			return nil, fmt.Errorf("calibrate: sample %d: no model", i)
		}
		if err := s.check(s.Op.Model); err != nil {
			return nil, fmt.Errorf("calibrate: sample %d: %w", i, err)
		}
		if s.Op.Kind == hardware.Decode {
			decodes = append(decodes, *s)
		} else if m := law.mfuOf(s); m > 0 {
			mfus = append(mfus, m)
		}
	}
	if len(decodes) == 0 && len(mfus) == 0 {
		return nil, errors.New("calibrate: no timing of a decode, nor of a prefill long enough to be bound by arithmetic")
	}
	set := func(q **profiles.Quantity, v float64, unit string) {
		*q = &profiles.Quantity{Value: v, Unit: unit, Source: source, Kind: profiles.Measured}
	}
	if len(decodes) > 0 {
		overhead, efficiency := law.memoryLaw(decodes)
		set(&out.Law.PassOverhead, overhead, "s")
		set(&out.Law.Efficiency, efficiency, "1")
	}
	if len(mfus) > 0 {
		sort.Float64s(mfus)
		set(&out.Law.MFU, mfus[len(mfus)/2], "1")
	}
	out.Law.Tier = "calibrated"
	return &out, nil
}

// prior is a profile's law in the form that calibration needs.
type prior struct {
	law            profiles.Law
	bandwidth      float64 // B/s
	weights, cache float64 // B/s: what the law gets of it
	flops          float64 // FLOP/s
}

func priorOf(p *profiles.DeviceSheet) prior {
	peak := p.PeakFP16.Value
	if p.Law.MFUPeak == "int8" {
		peak = p.PeakInt8.Value
	}
	return prior{
		law: p.Law, bandwidth: p.Bandwidth.Value, flops: p.Law.MFU.Value * peak,
		weights: p.Law.Efficiency.Value * p.Bandwidth.Value, cache: p.Law.KVEfficiency.Value * p.Bandwidth.Value,
	}
}

// launch is what a span pays for being launched: what grows with the overhead of a
// pass, and what does not.
func (p *prior) launch(op *hardware.Op) (share, layers float64) {
	n, fixed := float64(op.Layers.Len()), p.law.FixedShare.Value
	return fixed + float64((1-fixed)*n)/float64(op.Model.Layers), float64(p.law.LayerOverhead.Value * n)
}

// mfuOf is the MFU that explains a prefill timing, or 0 if its time is not
// that of arithmetic.
func (p *prior) mfuOf(s *Sample) float64 {
	w := costmodel.WorkOf(&s.Op)
	share, layers := p.launch(&s.Op)
	left := s.Time.Seconds() - float64(p.law.PassOverhead.Value*share) - layers
	memory := float64(w.Moved)/p.weights + float64(w.KV)/p.cache
	if left <= 2*memory {
		return 0
	}
	return p.law.MFU.Value * (w.FLOP / left) / p.flops
}

// memoryLaw finds pass overhead and efficiency from decode timings.
func (p *prior) memoryLaw(samples []Sample) (overhead, efficiency float64) {
	overhead, efficiency = p.law.PassOverhead.Value, p.law.Efficiency.Value
	rows := make([]vec, 0, len(samples))
	var secs, ratios []float64
	low, high := 0.0, 0.0
	for i := range samples {
		w := costmodel.WorkOf(&samples[i].Op)
		share, layers := p.launch(&samples[i].Op)
		sec := samples[i].Time.Seconds() - float64(w.KV)/p.cache - layers
		if sec <= 0 {
			continue // the cache alone should take longer: not a timing of weights
		}
		bytes := float64(w.Moved)
		rows = append(rows, vec{share, bytes / p.bandwidth})
		secs = append(secs, sec)
		ratios = append(ratios, sec/(float64(overhead*share)+bytes/p.weights))
		if low == 0 || bytes < low {
			low = bytes
		}
		high = max(high, bytes)
	}
	if len(rows) == 0 {
		return overhead, efficiency
	}
	if high > 1.5*low {
		if c := robust(rows, secs); c[1] > 0 && c[1] >= 1/mostEfficiency { // an efficiency over 1.25 is a cache at work, not memory
			return c[0], 1 / c[1]
		}
	}
	sort.Float64s(ratios)
	r := ratios[len(ratios)/2]
	if efficiency/r <= mostEfficiency {
		return overhead * r, efficiency / r
	}
	// Faster than memory: the models lie in a cache, and what they take is overhead.
	var left []float64
	for k := range rows {
		left = append(left, max(0, secs[k]-rows[k][1]/mostEfficiency)/rows[k][0])
	}
	sort.Float64s(left)
	return left[len(left)/2], mostEfficiency
}

// mostEfficiency is the largest share of the memory's bandwidth that a profile may state.
const mostEfficiency = 1.25
