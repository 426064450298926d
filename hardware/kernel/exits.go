package kernel

import (
	"fmt"
	"math"
	"slices"

	"meibench/hardware"
	"meibench/reference/codec"
	"meibench/reference/exit"
)

// leaver runs one model by one rule of early exit.
type leaver struct {
	model  string
	rule   hardware.Exit
	hi     int // end of the span
	runner *exit.Runner
}

// exits runs an operation whose tokens may leave early. A span that ends below
// the head stops there: its last exit is its end, and everybody's activations
// come back.
func (b *bench) exits(c codec.Codec, m *Loaded, op *hardware.Op) error {
	r, err := b.exitRunner(m, op)
	if err != nil {
		return err
	}
	b.leaving = b.leaving[:0]
	for i := range b.seqs {
		if b.held[i].cache == nil {
			return fmt.Errorf("sequence %d: tokens cannot leave early with a cache that forgets", op.Seqs[i].ID)
		}
		b.leaving = append(b.leaving, exit.Seq{IDs: b.seqs[i].IDs, Cache: b.held[i].cache, Adapter: b.seqs[i].Adapter})
	}
	if err := r.Step(b.leaving); err != nil {
		return err
	}
	for i := range b.leaving {
		s := &b.leaving[i]
		out := hardware.Out{Token: s.Token, Confidence: s.Confidence, Depth: s.Depth}
		if s.Token < 0 {
			out.Token, out.Depth = hardware.NoToken, 0
		} else if op.Top > 0 {
			out.Top = likeliest(s.Logits, op.Top)
		}
		if out.Depth == op.Layers.Hi && op.Layers.Hi == m.Spec.Layers {
			out.Depth = 0
		}
		out.End = out.Token == m.End && m.End >= 0
		if s.Hidden != nil {
			out.Hidden = pack(c, s.Hidden, m.Spec.Dim)
		}
		b.outs = append(b.outs, out)
	}
	return nil
}

func (b *bench) exitRunner(m *Loaded, op *hardware.Op) (*exit.Runner, error) {
	for _, l := range b.exit {
		if l.model == m.Spec.Name && l.hi == op.Layers.Hi && l.rule.Measure == op.Exit.Measure &&
			l.rule.Threshold == op.Exit.Threshold && slices.Equal(l.rule.Layers, op.Exit.Layers) {
			return l.runner, nil
		}
	}
	stops := op.Layers.Hi < m.Spec.Layers
	if n := len(op.Exit.Layers); op.Layers.Lo != 0 || n == 0 || stops && op.Exit.Layers[n-1] != op.Layers.Hi {
		return nil, fmt.Errorf("exits at %v of layers %d to %d: want a span from layer 0 whose end, if it is not the head, is the last exit",
			op.Exit.Layers, op.Layers.Lo, op.Layers.Hi)
	}
	rule := exit.Rule{Layers: op.Exit.Layers, Measure: exit.Measure(op.Exit.Measure), Thresholds: []float64{op.Exit.Threshold}, Stop: stops, Prompt: stops}
	if math.IsNaN(op.Exit.Threshold) {
		return nil, fmt.Errorf("exit threshold is not a number")
	}
	r, err := exit.New(b.work[m.Spec.Name], rule)
	if err == nil {
		b.exit = append(b.exit, leaver{m.Spec.Name, *op.Exit, op.Layers.Hi, r})
	}
	return r, err
}
