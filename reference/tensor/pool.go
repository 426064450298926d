package tensor

import "fmt"

// Job is work that a [Pool] divides: Part does share worker of workers. Shares must not write to the same memory.
type Job interface{ Part(worker, workers int) }

// Pool is a fixed number of workers with the scratch memory that products need.
//
// One goroutine may use a pool at a time; give each its own. A pool of one worker starts no goroutine.
// Results never depend on the number of workers.
type Pool struct {
	kern    kernel
	scratch []scratch
	start   []chan Job
	done    chan struct{}

	// Jobs live here so that starting one allocates nothing.
	gemm gemmJob
	attn attentionJob
	rows rowsJob
}

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
	p := &Pool{kern: k, scratch: make([]scratch, workers), done: make(chan struct{}, workers)}
	for w := range p.scratch {
		p.scratch[w] = newScratch(k.nr)
	}
	for w := 1; w < workers; w++ {
		ch := make(chan Job)
		p.start = append(p.start, ch)
		go func() {
			for j := range ch {
				j.Part(w, workers)
				p.done <- struct{}{}
			}
		}()
	}
	return p
}

// Workers is the number of workers.
func (p *Pool) Workers() int { return len(p.scratch) }

// Kernel names the kernel that this pool runs.
func (p *Pool) Kernel() string { return p.kern.name }

// Do runs every share of a job and returns when all are done. Share 0 runs on the caller.
func (p *Pool) Do(j Job) {
	for _, ch := range p.start {
		ch <- j
	}
	j.Part(0, len(p.scratch))
	for range p.start {
		<-p.done
	}
}

// Close ends the workers' goroutines. The pool cannot be used afterwards; closing twice does no harm.
func (p *Pool) Close() {
	for _, ch := range p.start {
		close(ch)
	}
	p.start = nil
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
