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
