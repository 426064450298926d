package llm

import (
	"fmt"
	"math"

	"meibench/reference/tensor"
)

// Kinds of position scaling, by their GGUF names.
const (
	ScaleLinear   = "linear"   // angles are divided by Factor (Chen et al. 2023, arXiv 2306.15595)
	ScaleYaRN     = "yarn"     // slow channels are divided, fast ones are not (Peng et al. 2023, arXiv 2309.00071)
	ScaleLongRoPE = "longrope" // every pair has a divisor of its own (Ding et al. 2024, arXiv 2402.13753)
)

// RopeScaling stretches positions beyond the context that a model was trained on first. The zero value does nothing.
type RopeScaling struct {
	Kind        string  // "" for none, ScaleLinear, ScaleYaRN or ScaleLongRoPE
	Factor      float64 // at least 1; LongRoPE has its divisors in the model
	OrigContext int     // the first context; 0 stands for the model's
	Attention   float64 // multiplies rotated channels; 0 is 1
}

func (s RopeScaling) check() error {
	switch s.Kind {
	case "":
		if s != (RopeScaling{}) && s != (RopeScaling{OrigContext: s.OrigContext}) {
			return fmt.Errorf("position scaling has no kind but a factor of %g: want one of %q, %q, %q", s.Factor, ScaleLinear, ScaleYaRN, ScaleLongRoPE)
		}
	case ScaleLinear, ScaleYaRN:
		if !(s.Factor >= 1 && s.Factor <= 1e4) {
			return fmt.Errorf("position scaling %q has a factor of %g, want 1 to 10000", s.Kind, s.Factor)
		}
	case ScaleLongRoPE:
	default:
		return fmt.Errorf("positions are scaled by %.40q, want one of \"none\", %q, %q, %q: convert the model without it or choose another",
			s.Kind, ScaleLinear, ScaleYaRN, ScaleLongRoPE)
	}
	if s.Attention != 0 && !(s.Attention > 1e-3 && s.Attention < 1e3) {
		return fmt.Errorf("position scaling multiplies channels by %g, want 0.001 to 1000", s.Attention)
	}
	if s.OrigContext < 0 {
		return fmt.Errorf("position scaling has a first context of %d, want at least 0", s.OrigContext)
	}
	return nil
}

// ropes makes the rotations of layers that see all positions and of those with a window.
func (m *Model) ropes() (global, local tensor.Rope) {
	c, t := m.Config, m.traits()
	global = tensor.Rope{D: c.HeadDim, Rotated: c.RopeDim, Base: c.RopeBase, Style: t.rope, Factors: m.ropeFactors()}
	local = global
	s := c.Rope
	scale := 1.0
	if s.Attention != 0 {
		scale = s.Attention
	}
	switch s.Kind {
	case ScaleLinear:
		global.Factors = times(global.Factors, c.RopeDim/2, func(int) float64 { return s.Factor })
	case ScaleYaRN:
		global.Factors = times(global.Factors, c.RopeDim/2, c.yarn)
		scale *= 1 + 0.1*math.Log(s.Factor) // eq. 22
	}
	global.Scale = float32(scale)
	if t.localBase == 0 {
		return global, global
	}
	local.Base, local.Factors = t.localBase, nil
	return global, local
}

// ropeFactors are the divisors that the file gives.
func (m *Model) ropeFactors() []float32 {
	orig := m.Rope.OrigContext
	if m.RopeLong != nil && orig > 0 && m.Context > orig {
		return m.RopeLong
	}
	return m.RopeFactors
}

// yarn is the divisor of pair i: Factor for pairs that turn less than once over the first context, 1 for those that turn
// more than 32 times (the β of the paper's section 3.2), a blend of the frequencies between.
func (c Config) yarn(i int) float64 {
	const fast, slow = 32, 1
	n, orig := float64(c.RopeDim), float64(c.Rope.OrigContext)
	if orig == 0 {
		orig = float64(c.Context)
	}
	pairOf := func(turns float64) float64 { return n * math.Log(orig/(turns*2*math.Pi)) / (2 * math.Log(c.RopeBase)) }
	low, high := max(0, math.Floor(pairOf(fast))), min(n-1, math.Ceil(pairOf(slow)))
	ramp := min(1, max(0, (float64(i)-low)/max(0.001, high-low))) // 0 keeps the frequency, 1 divides it
	return 1 / ((1 - ramp) + ramp/c.Rope.Factor)
}

// times multiplies divisors, nil standing for ones, by another divisor per pair.
func times(factors []float32, pairs int, by func(i int) float64) []float32 {
	out := make([]float32, pairs)
	for i := range out {
		v := by(i)
		if factors != nil {
			v *= float64(factors[i])
		}
		out[i] = float32(v)
	}
	return out
}

func invSqrt(n int) float64 { return 1 / math.Sqrt(float64(n)) }
