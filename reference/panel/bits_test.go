package panel

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// fma32 is a·b + c rounded once. The product is exact in float64; the sum is rounded there to odd, which keeps what the
// second rounding needs to know (Boldo & Melquiond 2008).
func fma32(a, b, c float32) float32 {
	product := float64(a) * float64(b)
	sum := product + float64(c)
	rest := sum - product // Knuth's error of a sum
	wrong := (product - (sum - rest)) + (float64(c) - rest)
	if wrong != 0 && wrong == wrong && math.Float64bits(sum)&1 == 0 {
		sum = math.Nextafter(sum, math.Copysign(math.Inf(1), wrong))
	}
	return float32(sum)
}

func TestFMA32(t *testing.T) {
	// 1+2^-23 squared is 1 + 2^-22 + 2^-46: less 1 + 2^-22 it leaves 2^-46, which a rounded product would lose.
	require.Equal(t, float32(0x1p-46), fma32(1+0x1p-23, 1+0x1p-23, -1-0x1p-22))
	// 2^-30 and 1 + 2^-23 with half a unit between them: the product decides a tie that float64 cannot see.
	require.Equal(t, float32(1+0x1p-23), fma32(0x1p-40, 0x1p-40, 1+0x1p-23))
	r := rng.Stream(1, "fma")
	for range 20000 {
		a, b := float32(rng.Normal(r)), float32(rng.Normal(r))
		c := float32(rng.Normal(r)) * float32(math.Ldexp(1, r.IntN(60)-40))
		if r.IntN(2) == 0 {
			c -= a * b
		}
		exact := new(big.Float).SetPrec(300).Mul(big.NewFloat(float64(a)), big.NewFloat(float64(b)))
		want, _ := exact.Add(exact, big.NewFloat(float64(c))).Float32()
		require.Equal(t, want, fma32(a, b, c), "%g·%g + %g", a, b, c)
	}
}

// fused is the contract of the vector kernels for one row and one token, in the words of the package comment.
//
//	w: the panel; a: a tile of one token
func fused(l *layout, w, a []byte, k, r int) float32 {
	var out float32
	if l.float > 0 {
		for c := range k {
			var v float32
			switch at := w[(c*rows+r)*l.float:]; l.name {
			case "F32":
				v = float(at)
			case "BF16":
				v = quant.BF16ToF32(binary.LittleEndian.Uint16(at))
			default:
				v = quant.F16ToF32(binary.LittleEndian.Uint16(at))
			}
			out = fma32(v, float(a[4*c:]), out)
		}
		return out
	}
	var head []byte
	for b := range k / 32 {
		if l.head > 0 && b%8 == 0 {
			head, w = w[:l.head], w[l.head:]
		}
		for h := range l.halves {
			lo, hi := 32/l.halves*h, 32/l.halves*(h+1)
			var sum, ofA int32
			for c := lo; c < hi; c++ {
				q := l.quant(w, r, c)
				if l.shift > 0 {
					q -= 1 << l.shift
				}
				sum, ofA = sum+q*int32(int8(a[c])), ofA+int32(int8(a[c]))
			}
			scaleOfA := float(a[32:])
			out = fma32(l.scaleAt(head, w, 0, h, r), float32(sum)*scaleOfA, out)
			if l.min {
				out = fma32(-l.scaleAt(head, w[l.minsAt():], 32, h, r), float32(ofA)*scaleOfA, out)
			}
		}
		w, a = w[l.block():], a[tokenBytes:]
	}
	return out
}

// contract is the product of a packed matrix and T tokens, by the definition.
func contract(m *Matrix, x []float32, T int) []float32 {
	k := m.K
	out := make([]float32, 0, T*m.N)
	for token := range T {
		a := make([]byte, max(4*k, k/32*tokenBytes))
		if m.layout.float > 0 {
			transpose(x[token*k:(token+1)*k], a, 0, 1)
		} else {
			round8(x[token*k:(token+1)*k], a, 0, 1)
		}
		for row := range m.N {
			out = append(out, fused(m.layout, m.data[row/rows*m.stride:], a, k, row%rows))
		}
	}
	return out
}

// TestVectorBits: vector kernels have the bits of the contract, so AVX2, AVX-512, VNNI and NEON agree with each other.
func TestVectorBits(t *testing.T) {
	const n, k, T = 48, 512, 7 // panels in pairs and alone; tiles of every height that adds up to 7
	all := map[string]bool{}
	digest := sha256.New()
	for _, typ := range types {
		m, err := Pack(typ, n, k, randomRows(t, typ, n, k), nil)
		require.NoError(t, err)
		x := randomActivations(T, k)
		x[3*k+5], x[4*k+7] = 1e-42, 3e7 // a denormal, and a block of zeros but one
		want := contract(m, x, T)
		require.NoError(t, binary.Write(digest, binary.LittleEndian, want))
		for _, name := range tensor.Kernels() {
			kern, _ := kernelsOf(name).choose(m.index, 1, 2)
			if m.layout.float == 0 {
				require.Equal(t, IntegerKernel(name) == "generic", kern == nil, "%s %v", name, typ)
			}
			if kern == nil {
				continue // plain Go
			}
			all[name] = true
			require.Equal(t, want, run(t, newProducts(t, name, 2), m, x, T), "%s %v", name, typ)
		}
	}
	for _, name := range tensor.Kernels() {
		require.Equal(t, name != "generic", all[name], name)
	}
	// What this case comes to on every machine; the oracle above says that it is right.
	require.Equal(t, "cbbf2f74d164a700ebf426dbe17c7c75", fmt.Sprintf("%x", digest.Sum(nil)[:16]))
}

// FuzzVectorBits: any weights, activations, tokens and rows, denormals, infinities and NaN among them.
func FuzzVectorBits(f *testing.F) {
	for i := range types {
		f.Add(uint8(i), uint8(40), uint8(1), uint8(3), []byte{1, 2, 3}, []byte{0x80, 0x3f, 0, 0, 0x80, 0xbf, 7})
		f.Add(uint8(i), uint8(64), uint8(2), uint8(7), []byte{0, 0x7c, 0xff, 0x7f, 0x80}, []byte{1, 0, 0, 0, 0x20, 0x60, 0, 0, 0xc0, 0x7f})
	}
	f.Fuzz(func(t *testing.T, which, n, units, T uint8, weights, activations []byte) {
		typ := types[int(which)%len(types)]
		rowsOf, k, tokens := int(n)%70+1, (int(units)%2+1)*256, int(T)%14+1
		size, err := typ.RowBytes(k)
		require.NoError(t, err)
		src, x := make([]byte, rowsOf*size), make([]float32, tokens*k)
		r := rng.Stream(3, "fuzz", len(weights))
		for i := range src { // the fuzzer's bytes, with others between them
			src[i] = byte(r.Uint32())
			if j := i % (len(weights) + 5); j < len(weights) {
				src[i] = weights[j]
			}
		}
		for i := range x {
			x[i] = float32(rng.Normal(r))
			if j := i % 97; 4*j+4 <= len(activations) {
				x[i] = float(activations[4*j:])
			}
		}
		m, err := Pack(typ, rowsOf, k, src, nil)
		require.NoError(t, err)
		want := contract(m, x, tokens)
		for _, name := range tensor.Kernels() {
			if kern, _ := kernelsOf(name).choose(m.index, 1, 2); kern == nil {
				continue
			}
			got := run(t, newProducts(t, name, 1), m, x, tokens)
			for i, w := range want {
				if g := got[i]; math.Float32bits(w) != math.Float32bits(g) && (w == w || g == g) {
					t.Fatalf("%s %v (%d, %d), %d tokens: element %d is %g, want %g", name, typ, rowsOf, k, tokens, i, g, w)
				}
			}
		}
	})
}
