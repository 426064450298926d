package llm

import (
	"fmt"

	"meibench/internal/units"
)

// Config is the shape of a model. Letters are those of package reference.
type Config struct {
	Arch     string  // one of Architectures
	Layers   int     // L
	Dim      int     // C
	Heads    int     // H
	KVHeads  int     // G, divides H
	HeadDim  int     // D, even; 0 stands for Dim/Heads
	FFN      int     // F
	Vocab    int     // V
	Context  int     // most tokens a cache may hold
	Eps      float32 // of the norms; 0 stands for 1e-5
	RopeBase float64 // 0 stands for 10000
	RopeDim  int     // channels of a head that rotate, even; 0 stands for HeadDim
	Tied     bool    // the head uses the embedding matrix

	Rope         RopeScaling
	Window       int     // positions that a token sees in layers with a sliding window, 0 for all
	AttnSoftcap  float32 // scores are capped to ±this by a tanh; 0 is no cap
	FinalSoftcap float32 // so are logits

	Experts     int // feed-forward networks per layer, of which a router chooses; 0 is one, without a router
	ExpertsUsed int // that each token goes through
	ExpertFFN   int // F of one expert; 0 stands for FFN
	SharedFFN   int // F of the expert that every token goes through (qwen2moe); 0 stands for FFN
}

// WithDefaults fills in the fields whose zero value stands for something else.
func (c Config) WithDefaults() Config {
	if c.HeadDim == 0 && c.Heads > 0 {
		c.HeadDim = c.Dim / c.Heads
	}
	if c.RopeDim == 0 {
		c.RopeDim = c.HeadDim
	}
	if c.Eps == 0 {
		c.Eps = 1e-5
	}
	if c.RopeBase == 0 {
		c.RopeBase = 10000
	}
	if c.Experts > 0 && c.ExpertFFN == 0 {
		c.ExpertFFN = c.FFN
	}
	if c.Experts > 0 && c.SharedFFN == 0 && c.traits().experts == sharedAndRest {
		c.SharedFFN = c.FFN
	}
	c.RopeBase = float64(float32(c.RopeBase)) // as the file stores it
	c.Rope.Factor = float64(float32(c.Rope.Factor))
	c.Rope.Attention = float64(float32(c.Rope.Attention))
	return c
}

// Check says what is wrong with a configuration, or returns nil.
func (c Config) Check() error {
	if err := c.checkArch(); err != nil {
		return fmt.Errorf("model configuration: %w", err)
	}
	const most = 1 << 24 // keeps every product of two sizes inside an int; the largest vocabularies are near 2^18
	for _, f := range []struct {
		name        string
		v, min, max int
	}{
		{"Layers", c.Layers, 1, 1 << 12}, {"Dim", c.Dim, 1, most}, {"Heads", c.Heads, 1, most}, {"KVHeads", c.KVHeads, 1, most},
		{"HeadDim", c.HeadDim, 1, most}, {"FFN", c.FFN, 1, most}, {"Vocab", c.Vocab, 1, most}, {"Context", c.Context, 1, most},
		{"RopeDim", c.RopeDim, 2, c.HeadDim}, {"Window", c.Window, 0, 1 << 30},
	} {
		if f.v < f.min || f.v > f.max {
			return fmt.Errorf("model configuration: %s is %d, want %d to %d", f.name, f.v, f.min, f.max)
		}
	}
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("model configuration: %d heads cannot share %d key/value heads, want a divisor", c.Heads, c.KVHeads)
	case c.RopeDim%2 != 0:
		return fmt.Errorf("model configuration: %d of %d channels per head rotate, want an even number to rotate pairs", c.RopeDim, c.HeadDim)
	case !(c.Eps > 0 && c.Eps < 1):
		return fmt.Errorf("model configuration: Eps is %g, want above 0 and below 1", c.Eps)
	case !(c.RopeBase > 1 && c.RopeBase < 1e12):
		return fmt.Errorf("model configuration: RopeBase is %g, want above 1 and below 1e12", c.RopeBase)
	case !(c.AttnSoftcap >= 0 && c.AttnSoftcap < 1e6 && c.FinalSoftcap >= 0 && c.FinalSoftcap < 1e6):
		return fmt.Errorf("model configuration: scores are capped at %g and logits at %g, want 0 to 1e6", c.AttnSoftcap, c.FinalSoftcap)
	}
	if err := c.Rope.check(); err != nil {
		return fmt.Errorf("model configuration: %w", err)
	}
	if err := c.checkExperts(); err != nil {
		return fmt.Errorf("model configuration: %w", err)
	}
	return nil
}

func (c Config) checkExperts() error {
	const most = 1 << 24
	const mostInAll = 1 << 16 // the largest published mixtures have some 25 000 experts over all layers
	kind := c.traits().experts
	switch {
	case c.Experts == 0 && c.ExpertsUsed == 0 && c.ExpertFFN == 0 && c.SharedFFN == 0:
		if kind != noExperts && c.Arch != Llama {
			return fmt.Errorf("%s is a mixture of experts, but Experts is 0", c.Arch)
		}
		return nil
	case kind == noExperts:
		return fmt.Errorf("%d experts: %s has no mixture of experts", c.Experts, c.Arch)
	case c.Experts < 1 || c.Experts*c.Layers > mostInAll || c.Experts > mostInAll:
		return fmt.Errorf("%d experts in each of %d layers, want 1 to %d in all", c.Experts, c.Layers, mostInAll)
	case c.ExpertsUsed < 1 || c.ExpertsUsed > c.Experts:
		return fmt.Errorf("a token uses %d of %d experts, want at least one and at most all", c.ExpertsUsed, c.Experts)
	case c.ExpertFFN < 1 || c.ExpertFFN > most:
		return fmt.Errorf("ExpertFFN is %d, want 1 to %d", c.ExpertFFN, most)
	case (kind == sharedAndRest) != (c.SharedFFN > 0) || c.SharedFFN < 0 || c.SharedFFN > most:
		return fmt.Errorf("SharedFFN is %d, want 1 to %d for %s and 0 for others", c.SharedFFN, most, Qwen2MoE)
	}
	return nil
}

// QDim is H·D, the width of a token's queries.
func (c Config) QDim() int { return c.Heads * c.HeadDim }

// KVDim is G·D, the width of a token's keys, and of its values.
func (c Config) KVDim() int { return c.KVHeads * c.HeadDim }

// attnProducts and ffnProducts count the multiply-adds of one token in a layer's matrix products, and so the weights that
// it reads there.
func (c Config) attnProducts() int { return 2*c.Dim*c.QDim() + 2*c.Dim*c.KVDim() }

func (c Config) ffnProducts() int {
	c = c.WithDefaults()
	matrices := 3
	if c.traits().feed == plainGELU {
		matrices = 2
	}
	if c.Experts == 0 {
		return matrices * c.Dim * c.FFN
	}
	n := c.Dim*c.Experts + matrices*c.Dim*c.ExpertFFN*c.ExpertsUsed + matrices*c.Dim*c.SharedFFN
	if c.SharedFFN > 0 {
		n += c.Dim // the gate of the shared expert
	}
	return n
}

// Params counts the weights of layers [lo, hi), without embedding and head.
func (c Config) Params(lo, hi int) int {
	t, all := c.traits(), c.WithDefaults()
	all.ExpertsUsed = all.Experts
	n := all.attnProducts() + all.ffnProducts() + 2*c.Dim
	if t.qkvBias {
		n += c.QDim() + 2*c.KVDim()
	}
	if t.qkNorm {
		n += 2 * c.HeadDim
	}
	if t.postNorms {
		n += 2 * c.Dim
	}
	if t.layerNorm {
		n += 4*c.Dim + c.FFN // biases of two norms, Out, Down and Up
	}
	if t.parallel {
		n -= 2 * c.Dim // the second norm and its bias
	}
	return n * (hi - lo)
}

// TotalParams counts all weights; a tied head counts once.
func (c Config) TotalParams() int {
	n := c.Params(0, c.Layers) + c.Vocab*c.Dim + c.Dim
	if c.traits().layerNorm {
		n += c.Dim + c.Vocab
	}
	if !c.Tied {
		n += c.Vocab * c.Dim
	}
	return n
}

// KVBytesPerToken is what one token adds to a cache of layers [lo, hi).
func (c Config) KVBytesPerToken(lo, hi int) units.Bytes {
	return units.Bytes(4 * 2 * c.KVDim() * (hi - lo))
}

// HiddenBytes is the size of the hidden states of T tokens, which is what a split sends.
func (c Config) HiddenBytes(T int) units.Bytes { return units.Bytes(4 * T * c.Dim) }

// FLOPs counts the operations of T new tokens behind past cached ones in layers [lo, hi): matrix products, scores and
// weighted sums of the positions each token sees, a multiply-add as two. Norms, rotations and activations are left
// out, as is usual; they are below 1% at the sizes used here. Of a mixture only the experts that a token uses count.
func (c Config) FLOPs(lo, hi, T, past int) units.FLOP {
	products := 2 * T * (c.attnProducts() + c.ffnProducts())
	var sum units.FLOP
	for l := lo; l < hi; l++ {
		sum += units.FLOP(products + 4*c.QDim()*seen(T, past, c.windowOf(l)))
	}
	return sum
}

// seen counts the positions that T tokens behind past attend to together, at most window each if that is not 0.
func seen(T, past, window int) int {
	if window == 0 || past+T <= window {
		return T*past + T*(T+1)/2
	}
	below := max(0, min(T, window-past)) // tokens that still see everything
	return below*past + below*(below+1)/2 + (T-below)*window
}

// HeadFLOPs counts the operations that turn the hidden states of T tokens into logits.
func (c Config) HeadFLOPs(T int) units.FLOP { return units.FLOP(2 * T * c.Dim * c.Vocab) }
