package tensor

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// countJob counts the shares that ran, and keeps some of them waiting.
type countJob struct {
	shares atomic.Int64
	pauses int
}

func (j *countJob) Part(worker, workers int) {
	if worker == workers-1 {
		for range j.pauses {
			pause()
		}
	}
	j.shares.Add(1)
}

// TestPoolManyJobs hands out jobs at all distances around the time after which workers sleep: each share runs once, and
// nobody sleeps through a job.
func TestPoolManyJobs(t *testing.T) {
	for _, procs := range []int{1, 2, 4} {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		for _, workers := range []int{1, 2, 3} {
			p := NewPool(workers)
			j := &countJob{}
			const jobs = 1000
			for i := range jobs {
				j.pauses = i % 97 * 30 % 2000
				p.Do(j)
				require.EqualValues(t, (i+1)*workers, j.shares.Load())
				switch {
				case i%250 == 0:
					time.Sleep(200 * time.Microsecond) // workers are asleep
				case i%3 == 0:
					for range i % 1500 { // about to
						pause()
					}
				}
			}
			p.Close()
			p.Close()
		}
	}
}
