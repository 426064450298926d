package probe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"meibench/internal/units"
)

// memory finds how fast main memory is read, and read and written.
func (p *prober) memory() {
	size := p.arena()
	words, free := hugeWords(int(size / 8))
	defer free()
	for i := range words { // touch every page, with bits that a memory could not guess
		words[i] = uint64(i) * 0x9E3779B97F4A7C15
	}
	loops := floatLoops()
	l := loops[len(loops)-1]
	var sink atomic.Uint64
	how := fmt.Sprintf("%s, %v in all%s, best trial", l.isa, size, hugePages)
	for _, n := range p.threadCounts() {
		share := len(words) / n / pieces / readUnit * readUnit
		turn := turns(n)
		p.limit(Figure{Name: DRAMRead, Threads: n, Unit: "B/s", Method: "read of 4 streams per thread, " + how},
			float64(8*share), func(w int) { sink.Add(uint64(l.read(words[turn(w)*share:][:share]))) })
	}
	floats := unsafe.Slice((*float32)(unsafe.Pointer(&words[0])), 2*len(words))
	for _, n := range p.threadCounts() {
		share := len(floats) / (3 * n * pieces) / triadUnit * triadUnit
		turn := turns(n)
		p.limit(Figure{Name: DRAMTriad, Threads: n, Unit: "B/s", Method: "a = b + k·c, 12 B counted per element, " + how},
			float64(12*share), func(w int) {
				f := floats[3*turn(w)*share:]
				l.triad(f[:share], f[share:2*share], f[2*share:3*share], 0.5)
			})
	}
}

// pieces is how many parts of the arena a thread takes in turn: a trial is then
// shorter than a time slice, and what it reads was last read a whole arena ago.
const pieces = 16

// turns hands each of n workers the indices of its pieces, one after another.
func turns(n int) func(worker int) int {
	next := make([]struct {
		piece int
		_     [56]byte // of a cache line, which two threads should not share
	}, n)
	return func(w int) int {
		k := &next[w]
		k.piece = (k.piece + 1) % pieces
		return w*pieces + k.piece
	}
}

// arena is how much memory to stream, in whole units of all threads.
func (p *prober) arena() units.Bytes {
	unit := units.Bytes(8 * readUnit * pieces * 3 * p.o.Threads)
	return max(p.machine.streamed()/unit*unit, unit)
}

// streamed is several times the last cache, so that what is read in order is not
// in it, within 64 MiB to 1 GiB and an eighth of all memory.
func (m *Machine) streamed() units.Bytes {
	size := 64 * units.MiB
	for _, c := range m.Caches {
		size = max(size, 4*c.Bytes)
	}
	size = min(size, units.GiB)
	if m.Memory > 0 {
		size = min(size, m.Memory/8)
	}
	return size
}

// caches finds how fast each level of cache is read. A working set of half the
// level (a quarter, if cores share it) lies inside it and outside the one below.
func (p *prober) caches() {
	loops := floatLoops()
	l := loops[len(loops)-1]
	var sink atomic.Uint64
	if len(p.machine.Caches) == 0 {
		p.missing(CacheRead, "B/s", "the system does not say what caches it has")
	}
	for _, c := range p.machine.Caches {
		for _, n := range []int{1, p.o.Threads}[:min(p.o.Threads, 2)] {
			set := c.Bytes / 2
			if c.SharedBy > 1 {
				set = c.Bytes / 4 / units.Bytes(n)
			}
			share := max(int(set)/8/readUnit, 1) * readUnit
			words, free := hugeWords(share * n)
			for i := range words {
				words[i] = uint64(i)
			}
			p.limit(Figure{Name: CacheRead, Detail: c.Name(), Threads: n, Unit: "B/s",
				Method: fmt.Sprintf("%s, read of %v per thread in 4 streams, best trial", l.isa, units.Bytes(8*share))},
				float64(8*share), func(w int) { sink.Add(uint64(l.read(words[w*share:][:share]))) })
			free()
		}
	}
}

// errCached tells that a read would come from the page cache.
var errCached = errors.New("this system cannot be asked to forget a file's cached pages")

// storage finds how fast a file comes from storage.
func (p *prober) storage() {
	size := 64 * units.MiB
	if p.o.Quick {
		size = 8 * units.MiB
	}
	var rates []float64
	for range 3 {
		rate, err := readBack(size)
		if err != nil {
			p.missing(StorageRead, "B/s", "not measured: "+err.Error())
			return
		}
		rates = append(rates, rate)
	}
	f := Figure{Name: StorageRead, Unit: "B/s", Method: fmt.Sprintf("sequential read of a new file of %v in the temporary folder, cached pages dropped, best trial", size)}
	p.figures = append(p.figures, f.best(rates))
}

func readBack(size units.Bytes) (rate float64, err error) {
	f, err := os.CreateTemp("", "probe-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	buf := make([]byte, units.MiB)
	for n := units.Bytes(0); n < size; n += units.MiB {
		for i := 0; i < len(buf); i += 64 {
			buf[i] = byte(i>>6) ^ byte(n>>20)
		}
		if _, err := f.Write(buf); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	if err := forget(f); err != nil {
		return 0, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	began := time.Now()
	for {
		if _, err := f.Read(buf); err == io.EOF {
			return float64(size) / time.Since(began).Seconds(), nil
		} else if err != nil {
			return 0, err
		}
	}
}
