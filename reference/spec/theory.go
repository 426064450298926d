package spec

import "meibench/internal/portable"

// Tokens is the expected number of tokens of a round of γ drafts that stay with probability alpha each, on their own:
// (1 - α^(γ+1)) / (1 - α), the last one the target's own (Leviathan et al., eq. 1).
func Tokens(alpha float64, gamma int) float64 {
	sum, power := 1.0, 1.0
	for range gamma {
		power = float64(power * alpha)
		sum += power
	}
	return sum
}

// SpeedUp is Tokens over the time of a round in target steps; c is the time of a draft step over that of a target step
// (Leviathan et al., theorem 3.8). It counts no network.
func SpeedUp(alpha float64, gamma int, c float64) float64 {
	return Tokens(alpha, gamma) / (float64(float64(gamma)*c) + 1)
}

// Operations is how many times the arithmetic grows: the target judges γ+1 positions for Tokens of them; c is the
// arithmetic of a draft step over that of a target step (Leviathan et al., theorem 3.11).
func Operations(alpha float64, gamma int, c float64) float64 {
	return (float64(float64(gamma)*c) + float64(gamma) + 1) / Tokens(alpha, gamma)
}

// Rate is accepted drafts over drafts, what many papers print as acceptance: α (1 - α^γ) / ((1 - α) γ). It is below α,
// the probability per position, as drafts behind a rejection count as lost.
func Rate(alpha float64, gamma int) float64 {
	return (Tokens(alpha, gamma) - 1) / float64(gamma)
}

// Alpha is the probability per position at which Rate is rate, to 1e-15; rate is 0 to 1 and gamma at least 1.
func Alpha(rate float64, gamma int) float64 {
	lo, hi := 0.0, 1.0
	for range 52 {
		if a := (lo + hi) / 2; Rate(a, gamma) < rate {
			lo = a
		} else {
			hi = a
		}
	}
	return (lo + hi) / 2
}

// TreeTokens is the expected number of tokens of a round of a tree whose level d has the target's token among its children with
// probability hit[d] when the walk gets there: 1 + h1 + h1 h2 + ...
func TreeTokens(hit []float64) float64 {
	sum, power := 1.0, 1.0
	for _, h := range hit {
		power = float64(power * h)
		sum += power
	}
	return sum
}

// TopTokens is TreeTokens of a static tree: top[w-1] is the probability that the target's token is among the draft's w
// likeliest, and widths the children per level; widths over len(top) count as len(top).
func TopTokens(top []float64, widths []int) float64 {
	hit := make([]float64, len(widths))
	for d, w := range widths {
		if w > 0 {
			hit[d] = top[min(w, len(top))-1]
		}
	}
	return TreeTokens(hit)
}

// Law has what decides how fast a device that drafts and an edge that judges make tokens. Times are seconds.
type Law struct {
	Alpha     float64 // probability that a draft stays
	DraftSec  float64 // of one draft step
	VerifySec float64 // of judging a round, whatever its length
	RTTSec    float64 // of one round trip; 0 if both run on one machine
	SendSec   float64 // of one draft's bytes on the wire
}

// RoundSec is the time of a round of γ drafts.
func (l Law) RoundSec(gamma int) float64 {
	return float64(float64(gamma)*(l.DraftSec+l.SendSec)) + l.VerifySec + l.RTTSec
}

// PerSec is tokens per second.
func (l Law) PerSec(gamma int) float64 { return Tokens(l.Alpha, gamma) / l.RoundSec(gamma) }

// BestGamma is the γ from 0 to most with the most tokens per second, the smaller among equals.
func (l Law) BestGamma(most int) int {
	best := 0
	for g := 1; g <= most; g++ {
		if l.PerSec(g) > l.PerSec(best) {
			best = g
		}
	}
	return best
}

// BreakEvenRTT is the round trip time at which drafting γ tokens makes as many per second as a target that needs aloneSec a
// token does without network; below it drafting pays. It is negative if drafting never pays.
func (l Law) BreakEvenRTT(gamma int, aloneSec float64) float64 {
	l.RTTSec = 0
	return float64(Tokens(l.Alpha, gamma)*aloneSec) - l.RoundSec(gamma)
}

// ProactivePerSec is tokens per second when the device drafts on while it waits (SpecEdge): if the whole round stays and the
// device's guess of the token after it is right, with probability guess, the next round's drafts are there already, as many as
// fitted in the wait. Otherwise they are thrown away. guess = 0 is PerSec.
func (l Law) ProactivePerSec(gamma int, guess float64) float64 {
	hit := guess
	for range gamma {
		hit = float64(hit * l.Alpha)
	}
	draft := float64(float64(gamma) * l.DraftSec)
	saved := min(draft, l.VerifySec+l.RTTSec)
	return Tokens(l.Alpha, gamma) / (l.RoundSec(gamma) - float64(hit*saved))
}

// PipelinedPerSec is tokens per second of an edge that judges the rounds of that many devices in turn, one at a time: each device
// makes PerSec until the edge is busy all the time, and the edge then bounds them together. It is the sum over the devices,
// and an upper bound: waits for one another are left out.
func (l Law) PipelinedPerSec(gamma, devices int) float64 {
	return min(float64(float64(devices)*l.PerSec(gamma)), Tokens(l.Alpha, gamma)/l.VerifySec)
}

// Measured is a published row of a device that drafts and an edge that judges, from which Predict takes its rates.
type Measured struct {
	RTTSec      float64
	PerSec      float64 // tokens per second together
	TargetOnly  float64 // tokens per second of the target alone
	DraftOnly   float64 // tokens per second of the draft alone
	Gamma       int
	AcceptShare float64 // accepted over drafted, as Rate
}

// busySec is the part of a round that the row's own rates explain.
func (m Measured) busySec() float64 {
	return float64(m.Gamma)/m.DraftOnly + 1/m.TargetOnly + m.RTTSec/2
}

func (m Measured) tokens() float64 { return 1 + float64(float64(m.Gamma)*m.AcceptShare) }

// Overhead is the time of a round, in seconds, that the row's rates do not explain.
func (m Measured) Overhead() float64 { return m.tokens()/m.PerSec - m.busySec() }

// Predict is tokens per second at the row's rates and RTT with an overhead taken from another row; the row's own PerSec is not
// read. The rows it was checked on count half an RTT a round.
func (m Measured) Predict(overheadSec float64) float64 {
	return m.tokens() / (m.busySec() + overheadSec)
}

// Entropy is that of a law, in nats.
func Entropy[F Float](law []F) float64 {
	var sum float64
	for _, v := range law {
		if v > 0 {
			sum -= float64(float64(v) * portable.Log(float64(v)))
		}
	}
	return sum
}

// StopsEarly is the entropy rule: stop drafting when the draft model's law is flatter than limit nats, as its draw would likely be
// rejected.
func StopsEarly[F Float](law []F, limit float64) bool { return Entropy(law) > limit }

// FallsBack is LLMCad's rule (arXiv 2309.04255): hand over to the target when the product of the confidences of the drafts since
// the last judgement is under threshold. confidences are the draft model's probabilities of its own tokens.
func FallsBack(confidences []float64, threshold float64) bool {
	product := 1.0
	for _, c := range confidences {
		product = float64(product * c)
	}
	return product < threshold
}
