//go:build (amd64 || arm64) && !purego

package tensor

// pause tells the processor that a loop is waiting: it saves power and leaves the memory bus to others.
func pause()

// f32Bytes turns strides in elements into the strides in bytes that assembly wants.
const f32Bytes = 4

// inside panics before assembly would read or write outside a slice.
func inside(mr int, a []float32, aRow, aK, b, bRow, k, nr int, c []float32, cRow int) {
	if k < 1 || aRow < 0 || aK < 0 || bRow < 0 || cRow < 0 || b < (k-1)*bRow+nr {
		panic("tensor: tile with a non-positive length, a negative stride or a short matrix")
	}
	_, _ = a[(mr-1)*aRow+(k-1)*aK], c[(mr-1)*cRow+nr-1]
}
