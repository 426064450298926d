package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"meibench/suites"
)

// Shard is part I of N of a plan, 0 <= I < N. The zero value is the whole.
type Shard struct{ I, N int }

// String reads "i/n", as ParseShard takes it.
func (s Shard) String() string { return fmt.Sprintf("%d/%d", s.I, s.N) }

// MostShards bounds the parts of a plan. Slurm takes arrays of 1,001 tasks unless its
// site allows more (MaxArraySize), Kubernetes indexed jobs of 100,000.
const MostShards = 100_000

// ParseShard reads i/n in plain decimals, i from 0.
func ParseShard(text string) (Shard, error) {
	i, n, _ := strings.Cut(text, "/")
	a, err1 := strconv.Atoi(i)
	b, err2 := strconv.Atoi(n)
	s := Shard{a, b}
	if err1 != nil || err2 != nil || s.String() != text || a < 0 || a >= b || b > MostShards {
		return Shard{}, fmt.Errorf("--shard %.40s: want i/n with 0 <= i < n <= %d, as 0/4, 1/4, 2/4, 3/4", text, MostShards)
	}
	return s, nil
}

// ShardOf finds the shard that a cluster's scheduler gave to this process. n is in how
// many the plan is cut, 0 if that is not known yet. getenv is os.Getenv.
//
//   - Slurm: task SLURM_ARRAY_TASK_ID of an array of SLURM_ARRAY_TASK_COUNT, counted
//     from _MIN in steps of _STEP. An array of another size than n is some tasks of the
//     first one, run again: then the number of the task is that of the shard.
//   - Kubernetes: JOB_COMPLETION_INDEX of an indexed job, whose size n must be known.
func ShardOf(getenv func(string) string, n int) (Shard, error) {
	if getenv("SLURM_ARRAY_TASK_ID") != "" {
		return slurmShard(getenv, n)
	}
	if index := getenv("JOB_COMPLETION_INDEX"); index != "" {
		if n == 0 {
			return Shard{}, fmt.Errorf("--shard auto: JOB_COMPLETION_INDEX is %s, but Kubernetes does not say of how many: add --shards", index)
		}
		return ParseShard(fmt.Sprintf("%s/%d", index, n))
	}
	return Shard{}, fmt.Errorf("--shard auto: neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set: this is no task of a Slurm array or of a Kubernetes indexed job; give --shard i/n")
}

func slurmShard(getenv func(string) string, n int) (Shard, error) {
	number := func(name string, missing int) (int, error) {
		text := getenv("SLURM_ARRAY_TASK_" + name)
		if text == "" && missing >= 0 {
			return missing, nil
		}
		v, err := strconv.Atoi(text)
		if err != nil || v < 0 || v > math.MaxInt32 {
			return 0, fmt.Errorf("--shard auto: SLURM_ARRAY_TASK_%s is %.40q, not a number", name, text)
		}
		return v, nil
	}
	var v [4]int
	for i, f := range []struct {
		name    string
		missing int
	}{{"ID", -1}, {"COUNT", -1}, {"MIN", 0}, {"STEP", 1}} {
		var err error
		if v[i], err = number(f.name, f.missing); err != nil {
			return Shard{}, err
		}
	}
	id, count, least, step := v[0], v[1], v[2], max(v[3], 1)
	if n != 0 && count != n {
		return ParseShard(fmt.Sprintf("%d/%d", id, n))
	}
	if id < least || (id-least)%step != 0 {
		return Shard{}, fmt.Errorf("--shard auto: task %d is not one of an array from %d in steps of %d", id, least, step)
	}
	return ParseShard(fmt.Sprintf("%d/%d", (id-least)/step, count))
}

// Split says for each of some runs in which of n shards it is: the longest first, dealt
// there and back again (0, 1, … n-1, n-1, … 1, 0, 0, …), so that the costs of any two
// shards differ by no more than that of the longest run. Equal costs keep their order.
// It depends on nothing but costs and n.
func Split(costs []int64, n int) []int {
	order := make([]int, len(costs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(costs[b], costs[a]) })
	out := make([]int, len(costs))
	for k, i := range order {
		at := k % n
		if k/n%2 == 1 {
			at = n - 1 - at
		}
		out[i] = at
	}
	return out
}

// Cost estimates how long a run of a cell takes, in events of the modelled world: only
// ratios between cells of one plan mean anything. Events per request are medians of the
// suites placement and inference-ci, rounded: 120 where a server makes the whole answer,
// 700 where each token travels. What runs on a clock of its own is worth far more.
func Cost(c *suites.Cell) int64 {
	each := int64(120)
	switch c.Pipeline {
	case "chain", "consult", "parallel", "session", "speculate", "split":
		each = 700
	}
	if c.Mode != "modelled" {
		each *= 1000
	}
	if c.Find != nil { // a search tries about this many rates for each of its seeds
		each *= int64(10 * max(c.Find.Seeds, 1))
	}
	return each * int64(max(c.Requests, 1))
}
