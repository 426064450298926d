package placement

import (
	"fmt"
	"math"
	"slices"

	"meibench/internal/units"
	"meibench/reference/library"
)

// Batch is the work of one server whose memory takes one model at a time (PartialLoading, Qu et al., arXiv 2503.22982): tasks that
// each need a model, all due at one time. A model's blocks that the model before it left in memory need not be loaded. That
// bandwidth is shared among users beforehand loses nothing; it is not in here.
type Batch struct {
	Lib     *library.Library
	Tasks   []int   // by model: how many
	Rate    float64 // bytes per second into memory
	Serve   float64 // s for one task
	Due     float64 // s
	Sharing bool    // else every model is loaded whole
}

// Check says what is wrong with a batch.
func (b *Batch) Check() error {
	if b.Lib == nil || len(b.Tasks) != len(b.Lib.Models) {
		return fmt.Errorf("batch: tasks of %d models, want those of a library", len(b.Tasks))
	}
	if !(b.Rate > 0) || !(b.Serve >= 0) || !(b.Due > 0) || math.IsInf(b.Rate+b.Serve+b.Due, 0) {
		return fmt.Errorf("batch: rate %g, service %g s, due in %g s: want a positive rate and due time, and a service time of 0 or more", b.Rate, b.Serve, b.Due)
	}
	if slices.Min(b.Tasks) < 0 {
		return fmt.Errorf("batch: fewer than no tasks of a model")
	}
	return nil
}

// load is the time to load a model behind another; -1 = behind none.
func (b *Batch) load(before, i int) float64 {
	n := units.Bytes(0)
	for _, j := range b.Lib.Models[i].Blocks {
		if !b.Sharing || before < 0 || !slices.Contains(b.Lib.Models[before].Blocks, j) {
			n += b.Lib.Blocks[j].Bytes
		}
	}
	return float64(n) / b.Rate
}

// fits is how many tasks of a model can be served in so much time after it is loaded.
func (b *Batch) fits(left float64, i int) int {
	if b.Serve == 0 {
		return b.Tasks[i]
	}
	return min(b.Tasks[i], int((left+1e-12)/b.Serve))
}

// Greedy serves next what has the most tasks per second of loading and serving, until nothing fits (for any sharing). It returns
// the models in order and the number of tasks done in time.
func (b *Batch) Greedy() (order []int, done int) {
	used, now, before := make([]bool, len(b.Tasks)), 0.0, -1
	for {
		best, at, n := 0.0, -1, 0
		for i := range b.Tasks {
			if used[i] {
				continue
			}
			t := b.load(before, i)
			k := b.fits(b.Due-now-t, i)
			if rate := PerSecond(k, t, b.Serve); k > 0 && rate > best {
				best, at, n = rate, i, k
			}
		}
		if at < 0 {
			return order, done
		}
		now += b.load(before, at) + float64(float64(n)*b.Serve)
		used[at], before, done, order = true, at, done+n, append(order, at)
	}
}

// PerSecond is by what Greedy chooses: how many tasks a model does per second of loading what is missing, and serving them.
func PerSecond(tasks int, load, serve float64) float64 {
	return float64(tasks) / (load + float64(float64(tasks)*serve))
}

// Most is the most tasks that any order does in time, by trying all; for at most 8 models.
func (b *Batch) Most() (int, error) {
	if len(b.Tasks) > 8 {
		return 0, fmt.Errorf("batch of %d models: every order is tried, want at most 8", len(b.Tasks))
	}
	best := 0
	used := make([]bool, len(b.Tasks))
	var try func(before, done int, now float64)
	try = func(before, done int, now float64) {
		best = max(best, done)
		for i := range b.Tasks {
			if used[i] {
				continue
			}
			t := now + b.load(before, i)
			for k := b.fits(b.Due-t, i); k > 0; k-- {
				used[i] = true
				try(i, done+k, t+float64(float64(k)*b.Serve))
				used[i] = false
			}
		}
	}
	try(-1, 0, 0)
	return best, nil
}

// ByBackbone is the most tasks that can be done in time where each model is a backbone and blocks of its own, by dynamic programming
// over backbones: the models of one are served together. It is an error if models share anything else.
func (b *Batch) ByBackbone() (int, error) {
	clusters, err := b.clusters()
	if err != nil {
		return 0, err
	}
	all := 0
	for _, n := range b.Tasks {
		all += n
	}
	least := make([]float64, all+1) // time to do so many tasks
	for n := 1; n <= all; n++ {
		least[n] = math.Inf(1)
	}
	for _, c := range clusters {
		within := b.cluster(c, all)
		for n := all; n >= 0; n-- {
			for k := 1; k <= n; k++ {
				least[n] = min(least[n], least[n-k]+within[k])
			}
		}
	}
	for n := all; n > 0; n-- {
		if least[n] <= b.Due+1e-12 {
			return n, nil
		}
	}
	return 0, nil
}

// cluster is the least time for so many tasks with the models of one backbone, the backbone loaded once.
func (b *Batch) cluster(models []int, all int) []float64 {
	within := make([]float64, all+1)
	for n := 1; n <= all; n++ {
		within[n] = math.Inf(1)
	}
	base := 0.0
	for _, i := range models {
		own := 0.0
		for _, j := range b.Lib.Models[i].Blocks {
			t := float64(b.Lib.Blocks[j].Bytes) / b.Rate
			if len(b.Lib.Users(j)) == 1 || !b.Sharing {
				own += t
			} else if i == models[0] {
				base += t
			}
		}
		for n := all; n > 0; n-- {
			for k := 1; k <= min(n, b.Tasks[i]); k++ {
				within[n] = min(within[n], within[n-k]+own+float64(float64(k)*b.Serve))
			}
		}
	}
	for n := 1; n <= all; n++ {
		within[n] += base
	}
	return within
}

// clusters are models by backbone.
func (b *Batch) clusters() (out [][]int, err error) {
	of := map[string]int{}
	for i, m := range b.Lib.Models {
		var shared []int
		for _, j := range m.Blocks {
			if len(b.Lib.Users(j)) > 1 {
				shared = append(shared, j)
			}
		}
		slices.Sort(shared)
		for _, j := range shared {
			if !slices.Equal(b.Lib.Users(j), b.Lib.Users(shared[0])) {
				return nil, fmt.Errorf("batch: model %q shares block %q with others than the rest of its backbone: use Greedy", m.Name, b.Lib.Blocks[j].Name)
			}
		}
		key := fmt.Sprint(shared)
		if len(shared) == 0 {
			key = fmt.Sprint("alone ", i)
		}
		if _, ok := of[key]; !ok {
			of[key] = len(out)
			out = append(out, nil)
		}
		out[of[key]] = append(out[of[key]], i)
	}
	return out, nil
}
