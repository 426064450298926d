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
	for i, l := range floatLoops() {
		for _, n := range counts {
			p.limit(Figure{Name: PeakF32, Detail: l.isa, Threads: n, Unit: "FLOP/s", Method: peakMethod(i, "multiply-adds in registers, 2 FLOP each")},
				2*turns*float64(l.fmaSums), func(int) { sink.Add(uint64(l.fma(0.5, 1, turns))) })
		}
	}
	for i, l := range intLoops() {
		u, v := [4]uint8{1, 2, 3, 4}, [4]int8{1, -1, 1, -1}
		for _, n := range counts {
			p.limit(Figure{Name: PeakInt8, Detail: l.isa, Threads: n, Unit: "OP/s", Method: peakMethod(i, "u8·i8 dot products in registers, 2 OP per product")},
				2*4*turns*float64(l.dotSums), func(int) { sink.Add(uint64(l.dot(&u, &v, turns))) })
		}
	}
}

// peakMethod says how a peak was found; version 0 of each loop is portable Go.
func peakMethod(version int, what string) string {
	if version == 0 {
		return "portable Go, one scalar at a time: a lower bound; " + what
	}
	return "assembly loop, best trial; " + what
}
