package probe

import "sync/atomic"

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
