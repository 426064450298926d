// Package spec holds the rules and the arithmetic of speculative decoding.
//
// A small model drafts tokens, the large one judges them all in one pass, and the rule decides how many stay. With the rule of
// Leviathan et al. (ICML 2023, algorithm 1) and Chen et al. (2023) the emitted text has exactly the law of the large model.
//
//	accepted, next := spec.Chain(p, q, draft, r.Float64)   // draft[:accepted] and next are the new tokens
//	law := spec.Law{Alpha: 0.8, DraftSec: 0.01, VerifySec: 0.1, RTTSec: 0.05}
//	gamma := law.BestGamma(16)                             // how many to draft
//
// p and q are laws after temperature, top-k and top-p, the same q that the draft was drawn from: anything else is no longer
// lossless, see the tests. Every u is a uniform number in [0, 1) that the caller hands in, so that pipelines can key it.
//
// The package runs no model and keeps no cache; rolling caches back is for the caller.
package spec

// Float is a law's element type.
type Float interface{ ~float32 | ~float64 }

// Overlap is the probability that a token drawn from q is accepted under p: the sum of min(p, q), which is one less the total
// variation distance (Leviathan et al., theorem 3.5).
//
//	p, q: (V), same length
func Overlap[F Float](p, q []F) float64 {
	sameLength(p, q)
	var sum float64
	for i := range p {
		sum += min(float64(p[i]), float64(q[i]))
	}
	return sum
}

func sameLength[F Float](p, q []F) {
	if len(p) != len(q) {
		panic("spec: laws over different vocabularies")
	}
}

// Accepts says whether token x drawn from q stays under p: with probability min(1, p(x)/q(x)).
func Accepts[F Float](p, q []F, x int, u float64) bool {
	return keeps(float64(p[x]), float64(q[x]), u)
}

func keeps(p, q, u float64) bool { return float64(u*q) < p }

// Residual writes the law after a rejection, max(0, p - q) scaled to one, to dst and returns it; dst may be p if both are
// float64. Where p is nowhere over q a rejection has probability 0 but for rounding, and the answer is p.
//
//	dst, p, q: (V)
func Residual[F Float](dst []float64, p, q []F) []float64 {
	sameLength(p, q)
	dst = dst[:len(p)]
	var sum float64
	for i := range p {
		sum += max(0, float64(p[i])-float64(q[i]))
	}
	for i := range p {
		if sum > 0 {
			dst[i] = max(0, float64(p[i])-float64(q[i])) / sum
		} else {
			dst[i] = float64(p[i])
		}
	}
	return dst
}

// Draw is the token at which the running sum of law passes u times its total. It never answers a token of probability 0; a law
// without mass panics.
func Draw[F Float](law []F, u float64) int {
	var sum float64
	for _, v := range law {
		sum += float64(v)
	}
	if !(sum > 0) {
		panic("spec: a law without mass")
	}
	left, last := float64(u*sum), 0
	for i, v := range law {
		if v <= 0 {
			continue
		}
		last = i
		if left -= float64(v); left < 0 {
			break
		}
	}
	return last
}

// Chain judges a drafted chain: each token in turn stays or ends the round, and one more token is drawn from the residual at
// the first rejection, or from the target's last law if all stay. The tokens draft[:accepted] and next have the target's law.
//
//	p: (γ+1, V) target laws; q: (γ, V) draft laws; draft: (γ)
//
// It takes accepted + 1 numbers from u for the judgements, one fewer if all stay, and one for next.
func Chain[F Float](p, q [][]F, draft []int, u func() float64) (accepted, next int) {
	if len(p) != len(draft)+1 || len(q) != len(draft) {
		panic("spec: a chain of n drafts needs n+1 target laws and n draft laws")
	}
	for i, x := range draft {
		if !Accepts(p[i], q[i], x, u()) {
			return i, Draw(Residual(make([]float64, len(p[i])), p[i], q[i]), u())
		}
	}
	return len(draft), Draw(p[len(draft)], u())
}

// Greedy judges a drafted chain at temperature 0: drafts stay while they are what the target says, and the target's own token
// follows. The text is what the target alone would write, whatever the draft.
//
//	target: (γ+1), the target's choice after each prefix; draft: (γ)
func Greedy(target, draft []int32) (accepted int, next int32) {
	if len(target) != len(draft)+1 {
		panic("spec: a chain of n drafts needs n+1 target tokens")
	}
	for accepted < len(draft) && draft[accepted] == target[accepted] {
		accepted++
	}
	return accepted, target[accepted]
}

// Judge is the edge's half of a split judgement (DSSD, arXiv 2507.12000): it sees only the probability with which each draft was
// drawn, and answers how many stay. The device then calls Resample with its own q and the target's law of the first rejected
// position; if all stay the edge draws the last token itself. With equal numbers u the tokens equal those of Chain.
//
//	p: (γ+1, V); drawn: (γ), q(draft) as sent; draft: (γ)
func Judge[F Float](p [][]F, drawn []float64, draft []int, u func() float64) (accepted int) {
	if len(p) != len(draft)+1 || len(drawn) != len(draft) {
		panic("spec: a chain of n drafts needs n+1 target laws and n probabilities")
	}
	for i, x := range draft {
		if !keeps(float64(p[i][x]), drawn[i], u()) {
			return i
		}
	}
	return len(draft)
}

// Resample is the device's half after a rejection: a draw from the residual of the law that came down and the law it drafted from.
func Resample[F Float](p, q []F, u float64) int {
	return Draw(Residual(make([]float64, len(p)), p, q), u)
}

// Wire has the sizes, in bytes, of what collaborative decoding sends.
type Wire struct {
	ID    int // a token
	Prob  int // one probability
	Vocab int // V
}

// UpSplit is the uplink of a round of γ drafts when only tokens and their own probabilities are sent.
func (w Wire) UpSplit(gamma int) int { return gamma * (w.ID + w.Prob) }

// UpFull is the uplink of a round when the edge draws the replacement and needs every draft law.
func (w Wire) UpFull(gamma int) int { return gamma * (w.ID + w.Vocab*w.Prob) }

// DownSplit is the downlink of a round: the number accepted (as a token's size), and either the target's law at the rejection or
// the last token.
func (w Wire) DownSplit(rejected bool) int {
	if rejected {
		return w.ID + w.Vocab*w.Prob
	}
	return 2 * w.ID
}

// DownFull is the downlink of a round when the edge draws all: the number accepted and one token.
func (w Wire) DownFull() int { return 2 * w.ID }
