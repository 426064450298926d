package tensor

import "math"

// RopeStyle says which channels of a head rotate together.
type RopeStyle int

const (
	// RopeNorm rotates neighbours (2i, 2i+1): llama files, whose query and key rows are permuted to suit.
	RopeNorm RopeStyle = iota
	// RopeNeox rotates halves (i, i+D/2): qwen2 and GPT-NeoX.
	RopeNeox
)

// Rope is a table of rotations for positions [0, n), grown on demand.
//
// Pair i at position p turns by p / base^(2i/R), where R is the number of channels that turn. Angles are computed in float64, then rounded once.
// Source: Su et al. 2021 (RoFormer), eq. 15.
type Rope struct {
	D       int     // channels per head, even
	Base    float64 // 10000 unless a model says otherwise
	Style   RopeStyle
	Factors []float32 // (R/2) divisors of the angles, as in Llama 3.1; nil is all ones
	Rotated int       // R, even: only the first R channels of a head turn; 0 is all of them
	Scale   float32   // multiplies rotated channels, as YaRN wants; 0 is 1

	cosSin []float32 // (n, R/2, 2)
}

// rotated is R, the number of channels that turn.
func (r *Rope) rotated() int {
	if r.Rotated > 0 {
		return r.Rotated
	}
	return r.D
}

// Reserve makes the table cover positions [0, n), so that Apply below n allocates nothing.
func (r *Rope) Reserve(n int) {
	half, scale := r.rotated()/2, 1.0
	if r.Scale != 0 {
		scale = float64(r.Scale)
	}
	for p := len(r.cosSin) / max(1, 2*half); p < n; p++ {
		for i := range half {
			angle := float64(p) * math.Pow(r.Base, -2*float64(i)/float64(2*half))
			if r.Factors != nil {
				angle /= float64(r.Factors[i])
			}
			sin, cos := math.Sincos(angle)
			r.cosSin = append(r.cosSin, float32(scale*cos), float32(scale*sin))
		}
	}
}

// Apply rotates x in place; row t stands at position past+t.
//
//	x: (T, H, D)
//
// Within 2 ulp of max|pair| of the oracle. Reserve(past+T) first, else the table grows here.
func (r *Rope) Apply(x []float32, T, H, past int) { r.rotate(x, T, H, past, 1) }

// Unapply rotates backwards: the gradient of Apply, and its inverse where Scale is 1.
func (r *Rope) Unapply(x []float32, T, H, past int) { r.rotate(x, T, H, past, -1) }

func (r *Rope) rotate(x []float32, T, H, past int, sign float32) {
	vec := chosen().kernel.vector
	if r.Style != RopeNorm || r.rotated() != r.D || r.D%8 != 0 || H == 0 {
		vec = nil
	}
	r.turn(vec, x, T, H, past, sign)
}

// turn rotates with assembly, for whole heads of neighbours in eights, or without.
func (r *Rope) turn(vec *vector, x []float32, T, H, past int, sign float32) {
	r.Reserve(past + T)
	half := r.rotated() / 2
	step, apart := 2, 1
	if r.Style == RopeNeox {
		step, apart = 1, half
	}
	for t := range T {
		cs := r.cosSin[(past+t)*2*half : (past+t+1)*2*half]
		if vec != nil {
			vec.rotate(x[t*H*r.D:(t+1)*H*r.D], cs, H, sign)
			continue
		}
		for h := range H {
			v := x[(t*H+h)*r.D : (t*H+h+1)*r.D]
			for i := range half {
				a, b := v[i*step], v[i*step+apart]
				cos, sin := cs[2*i], sign*cs[2*i+1]
				v[i*step] = float32(a*cos) - float32(b*sin)
				v[i*step+apart] = float32(a*sin) + float32(b*cos)
			}
		}
	}
}

// ropeV0 is the oracle for one head at one position, in float64.
func ropeV0(x []float32, pos int, base float64, style RopeStyle) []float64 {
	d := len(x)
	out := make([]float64, d)
	for i := range d / 2 {
		a, b := 2*i, 2*i+1
		if style == RopeNeox {
			a, b = i, i+d/2
		}
		angle := float64(pos) / math.Pow(base, float64(2*i)/float64(d))
		out[a] = float64(x[a])*math.Cos(angle) - float64(x[b])*math.Sin(angle)
		out[b] = float64(x[a])*math.Sin(angle) + float64(x[b])*math.Cos(angle)
	}
	return out
}
