package plan_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/plan"
	"meibench/suites"
)

func TestParseShard(t *testing.T) {
	s, err := plan.ParseShard("3/7")
	require.NoError(t, err)
	require.Equal(t, plan.Shard{I: 3, N: 7}, s)
	for _, text := range []string{"", "3", "/", "7/7", "-1/7", "+1/7", "01/7", "1/07", "1/0", "1/7/2", " 1/7", "1/7\n", "a/b", "0/100001", "99999999999999999999/3"} {
		_, err := plan.ParseShard(text)
		require.ErrorContains(t, err, "want i/n with 0 <= i < n", text)
	}
}

func FuzzParseShard(f *testing.F) {
	for _, s := range []string{"0/1", "3/7", "7/3", "", "1/", "/1", "-0/1", "1e1/20", "٣/٧"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := plan.ParseShard(text)
		if err != nil {
			require.Equal(t, plan.Shard{}, s)
			return
		}
		require.True(t, s.I >= 0 && s.I < s.N && s.N <= plan.MostShards, "%+v", s)
		require.Equal(t, text, s.String(), "one spelling only")
	})
}

func TestShardOf(t *testing.T) {
	slurm := func(id, count, least, step string) map[string]string {
		return map[string]string{"SLURM_ARRAY_TASK_ID": id, "SLURM_ARRAY_TASK_COUNT": count, "SLURM_ARRAY_TASK_MIN": least, "SLURM_ARRAY_TASK_STEP": step}
	}
	for _, tc := range []struct {
		name string
		env  map[string]string
		n    int
		want string // a shard, or a part of an error that begins with "!"
	}{
		{"an array from 0", slurm("2", "4", "0", "1"), 4, "2/4"},
		{"an array from 1", slurm("4", "4", "1", "1"), 4, "3/4"},
		{"an array in steps", slurm("30", "4", "10", "10"), 0, "2/4"},
		{"older Slurm without steps", slurm("3", "4", "", ""), 4, "3/4"},
		{"some tasks again", slurm("7", "2", "3", "4"), 16, "7/16"},
		{"one task again", slurm("15", "1", "15", "1"), 16, "15/16"},
		{"a list as long as the sweep", slurm("9", "3", "0", "1"), 3, "!want i/n"},
		{"a task beyond the sweep", slurm("16", "17", "0", "1"), 16, "!want i/n"},
		{"below the array", slurm("1", "4", "2", "1"), 4, "!task 1 is not one"},
		{"between steps", slurm("5", "4", "0", "2"), 4, "!task 5 is not one"},
		{"no number", slurm("x", "4", "0", "1"), 4, `!SLURM_ARRAY_TASK_ID is "x"`},
		{"no count", slurm("1", "", "0", "1"), 4, `!SLURM_ARRAY_TASK_COUNT is ""`},
		{"negative step", slurm("1", "4", "0", "-1"), 4, "!_STEP"},
		{"Kubernetes", map[string]string{"JOB_COMPLETION_INDEX": "5"}, 6, "5/6"},
		{"Kubernetes, unknown size", map[string]string{"JOB_COMPLETION_INDEX": "5"}, 0, "!add --shards"},
		{"Kubernetes, too far", map[string]string{"JOB_COMPLETION_INDEX": "6"}, 6, "!want i/n"},
		{"nowhere", nil, 6, "!neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := plan.ShardOf(func(k string) string { return tc.env[k] }, tc.n)
			if want, ok := strings.CutPrefix(tc.want, "!"); ok {
				require.ErrorContains(t, err, want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, s.String())
		})
	}
}

// TestEveryRunIsInOneShardAndShardsAreEven: costs of two shards differ by at most the
// longest run, and nothing but costs decides.
func TestEveryRunIsInOneShardAndShardsAreEven(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		costs := make([]int64, r.IntN(60))
		longest := int64(0)
		for i := range costs {
			costs[i] = 1 + r.Int64N(1000)
			longest = max(longest, costs[i])
		}
		n := 1 + r.IntN(20)
		at := plan.Split(costs, n)
		require.Equal(t, at, plan.Split(costs, n))
		require.Len(t, at, len(costs))
		load, count := make([]int64, n), make([]int, n)
		for i, s := range at {
			require.True(t, s >= 0 && s < n)
			load[s] += costs[i]
			count[s]++
		}
		for i := range n {
			for k := range n {
				require.LessOrEqual(t, load[i]-load[k], longest, "%v in %d", costs, n)
				require.LessOrEqual(t, count[i]-count[k], 1)
			}
		}
	}
	require.Equal(t, []int{0, 1, 2, 2, 1, 0, 0}, plan.Split(make([]int64, 7), 3), "equal costs are dealt in order, there and back")
	require.Equal(t, []int{1, 0, 1, 0}, plan.Split([]int64{5, 9, 4, 1}, 2), "the longest first")
}

func TestCost(t *testing.T) {
	c := suites.Cell{Pipeline: "local", Mode: "modelled", Requests: 100}
	base := plan.Cost(&c)
	for name, change := range map[string]func(c *suites.Cell){
		"more requests": func(c *suites.Cell) { c.Requests = 200 }, "a token at a time": func(c *suites.Cell) { c.Pipeline = "split" },
		"a real clock": func(c *suites.Cell) { c.Mode = "measured" }, "a search": func(c *suites.Cell) { c.Find = &suites.Capacity{Seeds: 3} },
	} {
		d := c
		change(&d)
		require.Greater(t, plan.Cost(&d), base, name)
	}
}
