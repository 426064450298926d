package llm

import (
	"fmt"

	"meibench/internal/units"
)

// The architectures that this package runs, by their GGUF names.
const (
	Llama = "llama" // rotates neighbouring channels; no biases
	Qwen2 = "qwen2" // rotates halves; query, key and value have biases
)

// Config is the shape of a model. Letters are those of package reference.
type Config struct {
	Arch     string  // Llama or Qwen2
	Layers   int     // L
	Dim      int     // C
	Heads    int     // H
	KVHeads  int     // G, divides H
	HeadDim  int     // D, even; 0 stands for Dim/Heads
	FFN      int     // F
	Vocab    int     // V
	Context  int     // most tokens a cache may hold
	Eps      float32 // of RMSNorm; 0 stands for 1e-5
	RopeBase float64 // 0 stands for 10000
	Tied     bool    // the head uses the embedding matrix
}

// WithDefaults fills in the fields whose zero value stands for something else.
func (c Config) WithDefaults() Config {
	if c.HeadDim == 0 && c.Heads > 0 {
		c.HeadDim = c.Dim / c.Heads
	}
	if c.Eps == 0 {
		c.Eps = 1e-5
	}
	if c.RopeBase == 0 {
		c.RopeBase = 10000
	}
	c.RopeBase = float64(float32(c.RopeBase)) // as the file stores it
	return c
}

// Check says what is wrong with a configuration, or returns nil.
func (c Config) Check() error {
	const most = 1 << 24 // keeps every product of two sizes inside an int; the largest vocabularies are near 2^18
	for _, f := range []struct {
		name    string
		v, most int
	}{
		{"Layers", c.Layers, 1 << 12}, {"Dim", c.Dim, most}, {"Heads", c.Heads, most}, {"KVHeads", c.KVHeads, most},
		{"HeadDim", c.HeadDim, most}, {"FFN", c.FFN, most}, {"Vocab", c.Vocab, most}, {"Context", c.Context, most},
	} {
		if f.v < 1 || f.v > f.most {
			return fmt.Errorf("model configuration: %s is %d, want 1 to %d", f.name, f.v, f.most)
		}
	}
	switch {
	case c.Arch != Llama && c.Arch != Qwen2:
		return fmt.Errorf("model configuration: architecture %q is not supported, want %q or %q", c.Arch, Llama, Qwen2)
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("model configuration: %d heads cannot share %d key/value heads, want a divisor", c.Heads, c.KVHeads)
	case c.HeadDim%2 != 0:
		return fmt.Errorf("model configuration: HeadDim is %d, want an even number to rotate pairs", c.HeadDim)
	case !(c.Eps > 0 && c.Eps < 1):
		return fmt.Errorf("model configuration: Eps is %g, want above 0 and below 1", c.Eps)
	case !(c.RopeBase > 1 && c.RopeBase < 1e12):
		return fmt.Errorf("model configuration: RopeBase is %g, want above 1 and below 1e12", c.RopeBase)
	}
	return nil
}

// QKVBias reports whether query, key and value have biases.
func (c Config) QKVBias() bool { return c.Arch == Qwen2 }

// QDim is H·D, the width of a token's queries; KVDim is G·D, that of its keys and of its values.
func (c Config) QDim() int { return c.Heads * c.HeadDim }

// KVDim is G·D, the width of a token's keys, and of its values.
func (c Config) KVDim() int { return c.KVHeads * c.HeadDim }

// Params counts the weights of layers [lo, hi), without embedding and head.
func (c Config) Params(lo, hi int) int {
	n := 2*c.Dim + 2*c.Dim*c.QDim() + 2*c.Dim*c.KVDim() + 3*c.Dim*c.FFN
	if c.QKVBias() {
		n += c.QDim() + 2*c.KVDim()
	}
	return n * (hi - lo)
}

// TotalParams counts all weights; a tied head counts once.
func (c Config) TotalParams() int {
	n := c.Params(0, c.Layers) + c.Vocab*c.Dim + c.Dim
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
// out, as is usual; they are below 1% at the sizes used here.
func (c Config) FLOPs(lo, hi, T, past int) units.FLOP {
	products := 2*c.Dim*c.QDim() + 2*c.Dim*c.KVDim() + 3*c.Dim*c.FFN
	seen := T*past + T*(T+1)/2
	return units.FLOP(2*T*products+4*c.QDim()*seen) * units.FLOP(hi-lo)
}

// HeadFLOPs counts the operations that turn the hidden states of T tokens into logits.
func (c Config) HeadFLOPs(T int) units.FLOP { return units.FLOP(2 * T * c.Dim * c.Vocab) }
