package train

import (
	"fmt"

	"meibench/reference/gguf"
	"meibench/reference/tensor"
)

// Piece runs layers [lo, hi) of a model in training: one side of a split, whose forward and backward pass are two calls
// with a network between them (Gupta & Raskar 2018; Vepakomma et al. 2018).
//
//	device: h := front.Forward(b, nil)      -> hidden states, sent up
//	edge:   back.Forward(b, h)
//	        loss := back.Loss(1 / weight)
//	        d := back.Backward(nil, true)   -> their gradient, sent down
//	device: front.Backward(d, false)
//
// Gradients add up in Grad until it is cleared. Wherever the model is cut, they are those of one [Learner] with one batch, bit for bit.
type Piece struct {
	Params *Params
	Grad   *Params
	tape   *tape
}

// NewPiece makes a side of a split: layers [lo, hi), the embedding if lo is 0, and the last norm and the head if head is set, which must
// lie behind the last layer; lo == hi is the head alone. A model whose head is its embedding can only be
// cut if neither is trained, or both are on one side: else the sides would hold two copies of one weight.
func NewPiece(p *Params, lo, hi int, head bool) (*Piece, error) {
	L := p.Model.Layers
	if lo < 0 || hi < lo || hi > L || head && hi < L || lo == hi && !head {
		return nil, fmt.Errorf("split a model of %d layers in training: no piece [%d, %d), head %v", L, lo, hi, head)
	}
	if p.Method.Kind == "full" && p.Model.Tied && (lo == 0) != head {
		return nil, fmt.Errorf("split a model in training: its head is its embedding, which the other side would train too: choose method layers or lora")
	}
	return &Piece{Params: p, Grad: p.Like(), tape: newTape(p.Model.Config, lo, hi, head)}, nil
}

// Recompute has the piece keep the inputs of its layers alone, and compute the rest again in Backward. The bits are the same.
func (s *Piece) Recompute() { s.tape.keep = keepInputs }

// Forward runs a batch, of which in (T, C) are the hidden states where the piece does not begin with the embedding, and returns those
// behind the piece, (T, C); nil where it has the head. They are valid until the next Forward. T counts the places of a prompt too; see Rows.
func (s *Piece) Forward(b *Batch, in []float32) ([]float32, error) {
	if want := s.Rows(b) * s.Params.Model.Dim; s.tape.lo > 0 && len(in) != want {
		return nil, fmt.Errorf("split a model in training: %d numbers of hidden states for a batch that has %d", len(in), want)
	}
	s.tape.forward(s.Params, b, in)
	if s.tape.head {
		return nil, nil
	}
	return s.tape.out, nil
}

// Rows is how many hidden states a batch has.
func (s *Piece) Rows(b *Batch) int { return len(b.Tokens) + len(b.Lens)*s.Params.promptLen() }

// Loss is the sum of losses behind the head, each times its weight and scale, and prepares their gradient. hits says for
// each place with a loss, in order, whether the target had the largest logit.
func (s *Piece) Loss(scale float32) (loss float64, hits []bool) {
	return s.tape.loss(0, scale), s.tape.hits
}

// Backward adds the gradients of the piece, from the gradient of what Forward returned (T, C), nil behind the head, and returns
// that of its input (T, C), if input is set and there is one.
func (s *Piece) Backward(dout []float32, input bool) []float32 {
	s.tape.backward(s.Grad, s.Params, dout, input && s.tape.lo > 0)
	if s.tape.lo == 0 {
		s.tape.embedBack(s.Grad, s.tape.b.Tokens, s.tape.dx)
	}
	if !input || s.tape.lo == 0 {
		return nil
	}
	return s.tape.dx
}

// Learns reports whether anything of the piece is trained.
func (s *Piece) Learns() bool {
	for _, part := range s.Params.list {
		if layer, _, inside := gguf.LayerOf(part.Name); inside && layer >= s.tape.lo && layer < s.tape.hi || !inside && s.outside(part.Name) {
			return true
		}
	}
	return false
}

// outside reports whether a weight that is in no layer is in the piece.
func (s *Piece) outside(name string) bool {
	if name == "prompt" || name == "token_embd.weight" {
		return s.tape.lo == 0
	}
	return s.tape.head
}

// Own is the range of Flat that the piece trains, as ranges of elements in order: what its side keeps, sends and averages.
func (s *Piece) Own() (ranges [][2]int) {
	at := 0
	for _, part := range s.Params.list {
		end := at + len(part.Data)
		layer, _, inside := gguf.LayerOf(part.Name)
		if inside && layer >= s.tape.lo && layer < s.tape.hi || !inside && s.outside(part.Name) {
			if n := len(ranges); n > 0 && ranges[n-1][1] == at {
				ranges[n-1][1] = end
			} else {
				ranges = append(ranges, [2]int{at, end})
			}
		}
		at = end
	}
	return ranges
}

// ActivationBytes is the memory that the piece keeps between forward and backward pass, of its largest batch.
func (s *Piece) ActivationBytes() int { return s.tape.activationBytes() }

// Logits are those at the places with a loss, (R, V), after Forward and before Loss: for laws that a teacher gives.
func (s *Piece) Logits() tensor.Mat {
	return tensor.NewMat(s.tape.logits, len(s.tape.rows), s.tape.shape.Vocab)
}
