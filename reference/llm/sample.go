package llm

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"meibench/internal/portable"
	"meibench/reference/tensor"
)

// Greedy is the id of the largest logit, the lowest id among equals.
func Greedy(logits []float32) int32 {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	return int32(best)
}

// Sampler draws tokens. Temperature comes first, then TopK, then TopP, each on what the one before left over, as in
// llama.cpp's default chain but for its temperature, which comes last there.
type Sampler struct {
	Temperature float32 // 0 is greedy
	TopK        int     // keep the k likeliest tokens; 0 keeps all
	TopP        float32 // keep the likeliest tokens until their probabilities reach p; 0 and 1 keep all

	probs []float32
	order []int32
}

// Sample draws one token. It consumes one number from r, or none if it is greedy.
func (s *Sampler) Sample(r *rand.Rand, logits []float32) int32 {
	if s.Temperature <= 0 {
		return Greedy(logits)
	}
	if cap(s.probs) < len(logits) {
		s.probs = make([]float32, len(logits))
	}
	probs := s.probs[:len(logits)]
	s.Probs(probs, logits)
	return Draw(r, probs)
}

// Probs writes the distribution that Sample draws from: zero for tokens that are filtered out. Speculative decoding
// needs it of both models to accept or reject a draft.
//
//	probs, logits: (V)
func (s *Sampler) Probs(probs, logits []float32) {
	if s.Temperature <= 0 {
		clear(probs)
		probs[Greedy(logits)] = 1
		return
	}
	for i, v := range logits {
		probs[i] = v / s.Temperature
	}
	tensor.Softmax(probs, probs)
	if topK, topP := s.TopK > 0 && s.TopK < len(probs), s.TopP > 0 && s.TopP < 1; topK || topP {
		s.filter(probs, topK, topP)
	}
}

// Confidence is how sure a model is of the next token, before any temperature or filter.
type Confidence struct {
	Token   int32   // the likeliest, see Greedy
	MaxProb float64 // its probability
	Margin  float64 // how much likelier it is than the second
	Entropy float64 // of the law, in nats: 0 to ln V
}

// Confidence measures logits. Equal logits give equal bits on every kernel and architecture, so that a decision which
// hangs on a threshold is the same everywhere. Errors are below 1e-6, of Entropy below 1e-5. Nothing is drawn.
//
//	logits: (V), V at least 2
func (s *Sampler) Confidence(logits []float32) Confidence {
	if cap(s.probs) < len(logits) {
		s.probs = make([]float32, len(logits))
	}
	probs := s.probs[:len(logits)]
	tensor.Softmax(probs, logits)
	c := Confidence{Token: Greedy(logits)}
	top := logits[c.Token]
	var second float32
	for i, p := range probs {
		if p > second && int32(i) != c.Token {
			second = p
		}
		if p > 0 { // H = -ln p(top) - Σ p·(logit - top): one logarithm for all
			c.Entropy -= float64(float64(p) * float64(logits[i]-top))
		}
	}
	c.MaxProb = float64(probs[c.Token])
	c.Margin = c.MaxProb - float64(second)
	c.Entropy = max(0, c.Entropy-portable.Log(c.MaxProb))
	return c
}

// filter clears the tail of probs and scales the rest to one.
func (s *Sampler) filter(probs []float32, topK, topP bool) {
	s.order = s.order[:0]
	for i := range probs {
		s.order = append(s.order, int32(i))
	}
	slices.SortFunc(s.order, func(a, b int32) int { // likeliest first, the lower id among equals
		return cmp.Or(cmp.Compare(probs[b], probs[a]), cmp.Compare(a, b))
	})
	keep := len(s.order)
	if topK {
		keep = s.TopK
	}
	var kept, sum float64
	for _, i := range s.order[:keep] {
		kept += float64(probs[i])
	}
	for n, i := range s.order[:keep] {
		sum += float64(probs[i])
		if topP && sum >= float64(s.TopP)*kept {
			keep = n + 1
			break
		}
	}
	for _, i := range s.order[keep:] {
		probs[i] = 0
	}
	for _, i := range s.order[:keep] {
		probs[i] = float32(float64(probs[i]) / sum)
	}
}

// Draw returns an index with the probability given for it. It consumes one number from r.
func Draw(r *rand.Rand, probs []float32) int32 {
	var sum float64
	for _, p := range probs {
		sum += float64(p)
	}
	u := r.Float64() * sum
	last := 0
	for i, p := range probs {
		if p == 0 {
			continue
		}
		last = i
		if u -= float64(p); u < 0 {
			break
		}
	}
	return int32(last)
}

// Generate runs the whole model on a prompt and appends up to most tokens that pick chooses from the logits, until stop
// says so; the stopping token is not returned. The cache is left holding prompt and answer, without the last token.
func (w *Work) Generate(c *Cache, prompt []int32, most int, pick func(logits []float32) int32, stop func(id int32) bool) ([]int32, error) {
	seqs := []Seq{{IDs: prompt, Cache: c}}
	var answer []int32
	for len(answer) < most {
		if err := w.Forward(0, w.Model.Layers, seqs); err != nil {
			return answer, fmt.Errorf("generate token %d: %w", len(answer), err)
		}
		id := pick(seqs[0].Out)
		if stop != nil && stop(id) {
			break
		}
		answer = append(answer, id)
		seqs[0].IDs = answer[len(answer)-1:]
	}
	return answer, nil
}
