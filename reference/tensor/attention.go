package tensor

import "math"

// AttnSeq is one sequence of a call of [Pool.Attention].
type AttnSeq struct {
	Out, Q  []float32 // (T, H, D): new tokens
	K, V    []float32 // (Past+T, G, D): cached rows, then those of the new tokens
	T, Past int

	// What some models add; the zero values are plain attention.
	Window  int     // a token sees this many positions at most, itself included; 0 is all
	Scale   float32 // multiplies the scores; 0 is 1/√D
	Softcap float32 // scores become Softcap·tanh(score/Softcap); 0 is no cap
}

// scale is the factor of the scores for heads of D channels.
func (s *AttnSeq) scale(D int) float32 {
	if s.Scale != 0 {
		return s.Scale
	}
	return float32(1 / math.Sqrt(float64(D)))
}

// first is the first of seen positions that the last of them attends to.
func (s *AttnSeq) first(seen int) int {
	if s.Window > 0 {
		return max(0, seen-s.Window)
	}
	return 0
}

// attnBlock is the number of tokens whose scores are computed together: enough rows to fill a tile several times
// over, few enough that the wasted upper triangle stays small.
const attnBlock = 48

// Attention is causal attention with grouped heads: new token t of a sequence attends to positions 0..Past+t, or to the
// last Window of them.
//
//	out[t, h] = Σ_p softmax_p(cap(scale·q[t, h]·k[p, g]))·v[p, g],  g = h·G/H
//
// heads H, kvHeads G (divides H), headDim D. A token's bits do not depend on the other tokens of the call.
// Within 1e-5 of the oracle for unit-variance inputs. Source: Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 (GQA);
// Beltagy et al. 2020 (window); Gemma Team 2024, section 2 (cap).
func (p *Pool) Attention(seqs []AttnSeq, heads, kvHeads, headDim int) {
	most, work := 0, 0
	for _, s := range seqs {
		most = max(most, s.Past+s.T)
		work += s.T * (s.Past + s.T) * heads * headDim
	}
	p.ReserveAttention(most)
	p.attn = attentionJob{p: p, seqs: seqs, H: heads, G: kvHeads, D: headDim}
	if work < 1<<15 { // too little to pay for waking workers
		p.attn.Part(0, 1)
	} else {
		p.Do(&p.attn)
	}
	p.attn.seqs = nil
}

// ReserveAttention makes room for sequences of up to positions, so that Attention allocates nothing.
func (p *Pool) ReserveAttention(positions int) {
	for w := range p.scratch {
		if len(p.scratch[w].scores) < attnBlock*positions {
			p.scratch[w].scores = make([]float32, attnBlock*positions)
		}
	}
}

// attentionJob deals out units (sequence, head, block of tokens) round robin, because later blocks cost more.
type attentionJob struct {
	p       *Pool
	seqs    []AttnSeq
	H, G, D int
}

func (j *attentionJob) Part(worker, workers int) {
	unit := 0
	for i := range j.seqs {
		s := &j.seqs[i]
		for t := 0; t < s.T; t += attnBlock {
			for h := range j.H {
				if unit%workers == worker {
					j.block(&j.p.scratch[worker], s, h, t, min(t+attnBlock, s.T))
				}
				unit++
			}
		}
	}
}

// block computes head h of tokens [t0, t1).
func (j *attentionJob) block(sc *scratch, s *AttnSeq, h, t0, t1 int) {
	kern, D, g := &j.p.kern, j.D, h*j.G/j.H
	P := s.Past + t1 // positions that the last token of the block sees
	row := Mat{Rows: t1 - t0, Cols: D, RowStride: j.H * D, ColStride: 1}
	q, out := row, row
	q.Data, out.Data = s.Q[(t0*j.H+h)*D:], s.Out[(t0*j.H+h)*D:]
	k := Mat{s.K[g*D:], P, D, j.G * D, 1}
	v := Mat{s.V[g*D:], P, D, j.G * D, 1}
	k.check("k")
	v.check("v")
	scores := NewMat(sc.scores[:(t1-t0)*P], t1-t0, P)

	gemmSerial(kern, sc, scores, q, &operand{mat: k.T(), k: D, n: P}, 0, P, false)
	scale := s.scale(D)
	for t := range t1 - t0 {
		seen := s.Past + t0 + t + 1
		first := s.first(seen)
		r := scores.Data[t*P+first : t*P+seen]
		for i := range r {
			r[i] *= scale
		}
		if s.Softcap > 0 {
			Softcap(r, s.Softcap)
		}
		softmax(kern.vector, r, r)
		clear(scores.Data[t*P : t*P+first])
		clear(scores.Data[t*P+seen : (t+1)*P]) // zeros add nothing to a chain
	}
	gemmSerial(kern, sc, out, scores, &operand{mat: v, k: P, n: D}, 0, D, false)
}

// attentionV0 is the oracle for one sequence, in float64.
func attentionV0(s AttnSeq, H, G, D int) []float64 {
	out := make([]float64, s.T*H*D)
	for t := range s.T {
		for h := range H {
			g := h / (H / G)
			w, sum := make([]float64, s.Past+t+1), 0.0
			for p := range w {
				if s.Window > 0 && p <= s.Past+t-s.Window {
					continue
				}
				dot := 0.0
				for d := range D {
					dot += float64(s.Q[(t*H+h)*D+d]) * float64(s.K[(p*G+g)*D+d])
				}
				scale := 1 / math.Sqrt(float64(D))
				if s.Scale != 0 {
					scale = float64(s.Scale)
				}
				dot *= scale
				if c := float64(s.Softcap); c > 0 {
					dot = c * math.Tanh(dot/c)
				}
				w[p] = math.Exp(dot)
				sum += w[p]
			}
			for p, e := range w {
				for d := range D {
					out[(t*H+h)*D+d] += e / sum * float64(s.V[(p*G+g)*D+d])
				}
			}
		}
	}
	return out
}
