package tensor

import (
	"fmt"
	"runtime"
	"sync/atomic"
)

// Job is work that a [Pool] divides: Part does share worker of workers. Shares must not write to the same memory.
type Job interface{ Part(worker, workers int) }

// Pool is a fixed number of workers with the scratch memory that products need.
//
// One goroutine may use a pool at a time; give each its own. A pool of one worker starts no goroutine.
// Results never depend on the number of workers.
//
// A job reaches the workers without a lock: the caller writes it, then counts up an epoch that workers watch. A worker
// that has seen nothing new for some tens of microseconds sleeps until it is woken, so a token's hundred steps cost a
// fraction of a microsecond each and an idle pool costs nothing.
// Note: one channel send and receive per worker and job took 5 to 10 µs on two busy virtual processors.
type Pool struct {
	kern    kernel
	scratch []scratch

	job     Job // of the epoch
	epoch   atomic.Uint32
	pending atomic.Int32 // workers that have not finished the job
	workers []*sleeper   // all but the caller
	spins   int          // pauses before a worker sleeps or the caller yields

	// Jobs live here so that starting one allocates nothing.
	gemm gemmJob
	attn attentionJob
	rows rowsJob
}

// sleeper is a worker's bed.
type sleeper struct {
	asleep atomic.Bool
	wake   chan struct{} // holds one
}

// spinPauses is about 20 to 50 µs: a pause takes 15 to 50 ns.
const spinPauses = 1000

// NewPool starts a pool of the given number of workers, at least one, on the kernel named by [Kernel].
func NewPool(workers int) *Pool { return newPool(chosen().kernel, workers) }

// NewPoolOn is NewPool on a kernel of [Kernels], for tests and ablations.
func NewPoolOn(kernelName string, workers int) (*Pool, error) {
	for _, k := range kernels() {
		if k.name == kernelName {
			return newPool(k, workers), nil
		}
	}
	return nil, fmt.Errorf("start pool on kernel %q: this build and CPU have only %v", kernelName, Kernels())
}

func newPool(k kernel, workers int) *Pool {
	workers = max(1, workers)
	p := &Pool{kern: k, scratch: make([]scratch, workers), spins: spinPauses}
	if runtime.GOMAXPROCS(0) < workers {
		p.spins = 0 // whoever spins keeps another from its work
	}
	for w := range p.scratch {
		p.scratch[w] = newScratch(k.nr)
	}
	for w := 1; w < workers; w++ {
		s := &sleeper{wake: make(chan struct{}, 1)}
		p.workers = append(p.workers, s)
		go p.work(s, w, workers)
	}
	return p
}

// work runs share w of every job until the pool is closed, which is a job of nothing.
func (p *Pool) work(s *sleeper, w, workers int) {
	for seen := uint32(0); ; seen++ {
		for n := 0; p.epoch.Load() == seen; n++ {
			if n < p.spins {
				pause()
			} else {
				p.sleep(s, seen)
			}
		}
		if p.job == nil {
			return
		}
		p.job.Part(w, workers)
		p.pending.Add(-1)
	}
}

// sleep blocks until the epoch moves on. Whoever takes back the mark decides: the worker, which then does not block, or
// the caller, which then sends.
func (p *Pool) sleep(s *sleeper, seen uint32) {
	s.asleep.Store(true)
	if p.epoch.Load() != seen && s.asleep.CompareAndSwap(true, false) {
		return
	}
	<-s.wake
}

// publish hands a job to the workers.
func (p *Pool) publish(j Job) {
	p.job = j
	p.pending.Store(int32(len(p.workers)))
	p.epoch.Add(1)
	for _, s := range p.workers {
		if s.asleep.CompareAndSwap(true, false) {
			s.wake <- struct{}{}
		}
	}
}

// Workers is the number of workers.
func (p *Pool) Workers() int { return len(p.scratch) }

// Kernel names the kernel that this pool runs.
func (p *Pool) Kernel() string { return p.kern.name }

// Do runs every share of a job and returns when all are done. Share 0 runs on the caller.
func (p *Pool) Do(j Job) {
	p.publish(j)
	j.Part(0, len(p.scratch))
	for n := 0; p.pending.Load() > 0; n++ {
		if n < p.spins {
			pause()
		} else {
			runtime.Gosched()
		}
	}
}

// Close ends the workers' goroutines. The pool cannot be used afterwards; closing twice does no harm.
func (p *Pool) Close() {
	if len(p.workers) > 0 {
		p.publish(nil)
	}
	p.workers = nil
	p.scratch = p.scratch[:1]
}

// Rows calls f for contiguous shares [lo, hi) of n rows, one share per worker; f must only write its own rows.
func (p *Pool) Rows(n int, f func(lo, hi int)) {
	p.rows = rowsJob{n, f}
	p.Do(&p.rows)
	p.rows.f = nil
}

type rowsJob struct {
	n int
	f func(lo, hi int)
}

func (j *rowsJob) Part(worker, workers int) {
	if lo, hi := Share(j.n, worker, workers); lo < hi {
		j.f(lo, hi)
	}
}

// Share is the static partition: worker's contiguous part [lo, hi) of n items; sizes differ by one at most.
func Share(n, worker, workers int) (lo, hi int) {
	return n * worker / workers, n * (worker + 1) / workers
}
