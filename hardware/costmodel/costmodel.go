// Package costmodel says what operations and transfers take without doing them:
// a modelled Device over a sourced profile, and a modelled Link.
//
// The one idea is that cost is a pure function. Law maps an operation to time,
// traffic, arithmetic and energy; LinkState maps a moment and a size to the
// moments a message leaves and arrives. Device and Link add only what a world
// needs: slots, memory, heat, streams.
//
//	law := costmodel.NewLaw(sheet)            // pure: no clock
//	c := law.Cost(&op)                        // c.Time, c.FLOP, c.Moved, c.Energy
//	dev := costmodel.New(env, sheet, costmodel.Options{Seed: seed})
//	res, err := dev.Run(&op)                  // sleeps c.Time, throttled, in a slot
//
// # Time of one pass
//
// A pass over a span of layers, for a batch of sequences, takes
//
//	overhead + max( weights/(efficiency·BW) + KV/(KV efficiency·BW),  FLOP/(MFU·peak) )
//
// Weights are read once whatever the batch; the KV cache is read once per
// sequence; arithmetic grows with tokens and, in attention, with context. Prefill
// is thereby linear plus quadratic in length, decode affine in batch and context.
// A part of the layers costs its share, so splitting a model never gains time.
//
// Where a profile carries a Fit for the model, measured coefficients replace the
// formula; package hardware/fitting makes them from timings. Law.Tier says which of the two spoke.
//
// # What it does not do
//
// It knows no tokens: answers are as long as asked for, and what depends on data
// (is a draft token accepted, how confident is an exit) is drawn from keyed luck
// with the probabilities given in Options. Operations in several slots do not slow
// each other down. The pass overhead's share per layer is an assumption of the
// profile.
package costmodel

import (
	"meibench/hardware"
	"meibench/hardware/profiles"
)

// Row holds what the coefficients of a fitted law multiply, in the order of the
// fields of profiles.Coefficients.
type Row [6]float64

// RowOf is the row of a well formed operation; see Check.
func RowOf(op *hardware.Op) Row {
	w := WorkOf(op)
	return w.row(op)
}

func (w *Work) row(op *hardware.Op) Row {
	return RowFor(op.Kind, op.Layers, op.Model.Layers, Size{w.Seqs, w.Tokens, w.pairs})
}

// Size is how much an operation has to do: sequences, the new tokens of all of them,
// and the (query, key) pairs of attention, Σ new × context + new × (new+1)/2.
type Size struct {
	Sequences, Tokens int
	Pairs             float64
}

// RowFor is the row of an operation of a kind and a size on a span of a model with
// so many layers.
func RowFor(kind hardware.Kind, span hardware.Span, of int, s Size) Row {
	layers := float64(span.Len())
	r := Row{1, layers, layers * float64(s.Tokens), layers * s.Pairs, 0, 0}
	if span.Hi == of {
		r[4], r[5] = 1, float64(s.Sequences)
		if kind == hardware.Verify {
			r[5] = float64(s.Tokens)
		}
	}
	return r
}

// Dot is the sum of the products of two rows, each product rounded.
func (r *Row) Dot(c *Row) float64 {
	s := 0.0
	for j := range r {
		s += float64(r[j] * c[j])
	}
	return s
}

// Seconds is what coefficients say of an operation on so many layers.
func Seconds(c *profiles.Coefficients, r Row, layers int) float64 {
	more := 0.0
	if c.Knee > 0 {
		var over float64
		r[2], over = Bend(r[2], float64(layers), c.Knee)
		more = float64(c.More * over)
	}
	return r.Dot(&Row{c.Pass, c.Layer, c.Token, c.Pair, c.Head, c.HeadToken}) + more
}

// Bend splits layers × tokens at a number of tokens: what lies below it and above.
func Bend(tokens, layers, knee float64) (under, over float64) {
	at := float64(layers * knee)
	if tokens <= at {
		return tokens, 0
	}
	return at, tokens - at
}

// Coefficients are the row as those of a profile.
func (r *Row) Coefficients() profiles.Coefficients {
	return profiles.Coefficients{Pass: r[0], Layer: r[1], Token: r[2], Pair: r[3], Head: r[4], HeadToken: r[5]}
}
