package probe

import "sync/atomic"

//go:generate go run ./gen loops_amd64.s

// floats is one instruction set's version of the loops that stress memory and
// floating-point units.
type floats struct {
	isa string

	// read sums the 32-bit words of b in four streams. len(b) must be a
	// positive multiple of readUnit.
	read func(b []uint64) uint32

	// triad computes a = b + k·c. len must be a positive multiple of triadUnit.
	triad func(a, b, c []float32, k float32)

	// fma makes s·x + y of every sum s, turns times from 0, and returns the
	// total: so it says how many it did.
	fma     func(x, y float32, turns int) float32
	fmaSums int // multiply-adds per turn
}

// ints is one way to make int8 dot products.
type ints struct {
	isa string

	// dot adds Σ u·v of four pairs to every sum, turns times, and returns the total.
	dot     func(u *[4]uint8, v *[4]int8, turns int) int32
	dotSums int // sums per turn, each of four multiply-adds
}

const (
	readUnit  = 32 // words of eight bytes: 64 bytes of each of four streams
	triadUnit = 32 // floats: 128 bytes of each array
)

const portableName = "portable Go"

// portable is the version for architectures without assembly. It keeps one
// scalar unit busy, so what it measures is a lower bound.
func portable() (floats, ints) {
	return floats{portableName, readGo, triadGo, fmaGo, 8}, ints{portableName, dotGo, 1}
}

func readGo(b []uint64) uint32 {
	n := len(b) / 4
	b0, b1, b2, b3 := b[:n], b[n:][:n], b[2*n:][:n], b[3*n:][:n]
	var s0, s1, s2, s3 uint64
	const low = 1<<32 - 1
	for i := range n { // halves are summed apart, so that no carry crosses
		s0 += b0[i]&low + b0[i]>>32
		s1 += b1[i]&low + b1[i]>>32
		s2 += b2[i]&low + b2[i]>>32
		s3 += b3[i]&low + b3[i]>>32
	}
	return uint32(s0 + s1 + s2 + s3)
}

func triadGo(a, b, c []float32, k float32) {
	b, c = b[:len(a)], c[:len(a)]
	for i := range a {
		a[i] = b[i] + k*c[i]
	}
}

func fmaGo(x, y float32, turns int) float32 {
	var s0, s1, s2, s3, s4, s5, s6, s7 float32
	for range turns {
		s0 = s0*x + y
		s1 = s1*x + y
		s2 = s2*x + y
		s3 = s3*x + y
		s4 = s4*x + y
		s5 = s5*x + y
		s6 = s6*x + y
		s7 = s7*x + y
	}
	return s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7
}

func dotGo(u *[4]uint8, v *[4]int8, turns int) int32 {
	var s int32
	x, y := *u, *v
	for range turns {
		s += int32(x[0])*int32(y[0]) + int32(x[1])*int32(y[1]) + int32(x[2])*int32(y[2]) + int32(x[3])*int32(y[3])
		x[0], x[1], x[2], x[3] = x[3], x[0], x[1], x[2] // or the compiler takes the products out of the loop
		y[0], y[1], y[2], y[3] = y[3], y[0], y[1], y[2]
	}
	return s
}

// compute finds the peaks of float32 multiply-adds and int8 dot products, for
// every instruction set that runs here.
func (p *prober) compute() {
	const turns = 1 << 14
	var sink atomic.Uint64 // results must reach memory, or the compiler drops the work
	counts := []int{1}
	if p.o.Threads > 1 {
		counts = append(counts, p.o.Threads)
	}
	for _, l := range assembled(floatLoops()) {
		for _, n := range counts {
			p.limit(Figure{Name: PeakF32, Detail: l.isa, Threads: n, Unit: "FLOP/s", Method: peakMethod(l.isa, "multiply-adds in registers, 2 FLOP each")},
				2*turns*float64(l.fmaSums), func(int) { sink.Add(uint64(l.fma(0.5, 1, turns))) })
		}
	}
	for _, l := range assembled(intLoops()) {
		u, v := [4]uint8{1, 2, 3, 4}, [4]int8{1, -1, 1, -1}
		for _, n := range counts {
			p.limit(Figure{Name: PeakInt8, Detail: l.isa, Threads: n, Unit: "OP/s", Method: peakMethod(l.isa, "u8·i8 dot products in registers, 2 OP per product")},
				2*4*turns*float64(l.dotSums), func(int) { sink.Add(uint64(l.dot(&u, &v, turns))) })
		}
	}
}

// assembled leaves out portable Go, which comes first, where there is better.
func assembled[L any](loops []L) []L {
	if len(loops) > 1 {
		return loops[1:]
	}
	return loops
}

// peakMethod says how a peak was found.
func peakMethod(isa, what string) string {
	if isa == portableName {
		return "portable Go, one scalar at a time: a lower bound; " + what
	}
	return "assembly loop, best trial; " + what
}
