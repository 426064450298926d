package recall

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
)

// ask is a workload: of n questions, a share repeats an earlier one in other words; some look alike and want another answer.
type ask struct{ question, answer string }

var (
	forms  = []string{"what is the %s of the %s in %s", "please tell me the %s of the %s in %s", "in %[3]s, what is the %[1]s of the %[2]s", "i want to know the %s of the %s in %s now"}
	things = []string{"temperature", "humidity", "pressure", "brightness", "battery level", "speed"}
	owners = []string{"kitchen sensor", "garage door", "delivery robot", "blue car", "greenhouse", "patient monitor", "water pump"}
	places = []string{"Berlin", "Nairobi", "Osaka", "Lima", "Toronto", "Perth", "Cairo", "Oslo", "Quito", "Hanoi"}
)

func workload(seed uint64, n int, again float64) (out []ask) {
	luck := rng.Stream(seed, "recall")
	var known []int
	combos := luck.Perm(len(things) * len(owners) * len(places))
	for range n {
		var k int
		if len(known) > 0 && rng.Float64(luck) < again {
			k = known[luck.IntN(len(known))]
		} else {
			k = combos[len(known)]
			known = append(known, k)
		}
		t, o, p := things[k%len(things)], owners[k/len(things)%len(owners)], places[k/len(things)/len(owners)]
		out = append(out, ask{fmt.Sprintf(forms[luck.IntN(len(forms))], t, o, p), fmt.Sprint(t, "/", o, "/", p)})
	}
	return out
}

// run asks a cache, and adds what it does not find.
func run(t testing.TB, o Options, asks []ask) (hits []int, right int) {
	c, err := New(o)
	require.NoError(t, err)
	for i, a := range asks {
		got, ok := c.Find("all", a.question)
		if ok {
			hits = append(hits, i)
			if got.Text == a.answer {
				right++
			}
			continue
		}
		c.Add("all", a.question, a.answer)
	}
	require.Equal(t, len(hits), c.Stats().Hits, "calls saved are hits")
	require.Equal(t, len(asks)-len(hits), c.Stats().Added)
	return hits, right
}

func TestC5ThresholdOneIsAnExactCache(t *testing.T) {
	asks := workload(1, 400, 0.6)
	seen, exact := map[string]bool{}, []int{}
	for i, a := range asks {
		if seen[normal(a.question)] {
			exact = append(exact, i)
		}
		seen[normal(a.question)] = true
	}
	for _, e := range []Embedding{Exact(64), Grams(512)} {
		hits, right := run(t, Options{Embed: e, Threshold: 1}, asks)
		require.Equal(t, exact, hits)
		require.Equal(t, len(hits), right)
	}
}

// With everything kept and known from the start, who is found at a threshold is found at every lower one.
func TestC5HitsShrinkWithTheThreshold(t *testing.T) {
	asks := workload(2, 300, 0)
	later := workload(3, 300, 0)
	var before []int
	for _, threshold := range []float64{0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.97, 1} {
		c, err := New(Options{Embed: Grams(512), Threshold: threshold})
		require.NoError(t, err)
		for _, a := range asks {
			c.Add("all", a.question, a.answer)
		}
		var hits []int
		for i, a := range later {
			if _, ok := c.Find("all", a.question); ok {
				hits = append(hits, i)
			}
		}
		if before == nil {
			require.Len(t, hits, len(later), "everything is like something at 0")
		} else {
			require.Subset(t, before, hits)
		}
		before = hits
	}
}

// On paraphrases with a known share of repeats, the threshold that was set on other questions finds about that share, and nearly
// all that it finds is right.
func TestC5CalibratedOnOthers(t *testing.T) {
	embed := Grams(2048)
	validate := workload(11, 420, 0.65)
	var pairs []Pair
	c, err := New(Options{Embed: embed})
	require.NoError(t, err)
	for i, a := range validate {
		if i > 0 {
			got, ok := c.Find("all", a.question)
			require.True(t, ok)
			pairs = append(pairs, Pair{got.Similarity, got.Text == a.answer})
		}
		c.Add("all", a.question, a.answer)
	}
	threshold, _ := Calibrate(pairs, 0.98)
	asks := workload(12, 420, 0.65)
	hits, right := run(t, Options{Embed: embed, Threshold: threshold}, asks)
	repeats, seen := 0, map[string]bool{}
	for _, a := range asks {
		if seen[a.answer] {
			repeats++
		}
		seen[a.answer] = true
	}
	hit, could, precision := float64(len(hits))/float64(len(asks)), float64(repeats)/float64(len(asks)), float64(right)/float64(len(hits))
	t.Logf("threshold %.3f: %.3f found of %.3f repeats, %.3f of these right", threshold, hit, could, precision)
	require.InDelta(t, could, hit, 0.08)
	require.GreaterOrEqual(t, precision, 0.97)
	_, loose := run(t, Options{Embed: embed, Threshold: 0.4}, asks)
	require.Less(t, float64(loose), 0.9*float64(len(asks)), "a low threshold answers wrongly")
}

// What was thrown out is never answered, served bytes are those that were added, and limits hold.
func TestC5EvictionAndTenants(t *testing.T) {
	for _, fifo := range []bool{false, true} {
		c, err := New(Options{Embed: Exact(32), Threshold: 1, Entries: 3, FIFO: fifo})
		require.NoError(t, err)
		for i := range 3 {
			c.Add("a", fmt.Sprint("q", i), fmt.Sprint("a", i))
		}
		_, ok := c.Find("a", "Q0 ")
		require.True(t, ok, "case and space do not count")
		c.Add("a", "q3", "a3")
		var there []int
		for i := range 4 {
			if got, ok := c.Find("a", fmt.Sprint("q", i)); ok {
				there = append(there, i)
				require.Equal(t, fmt.Sprint("a", i), got.Text)
			}
		}
		if fifo {
			require.Equal(t, []int{1, 2, 3}, there)
		} else {
			require.Equal(t, []int{0, 2, 3}, there)
		}
		_, ok = c.Find("b", "q3")
		require.False(t, ok, "another tenant's answer")
		require.Equal(t, 1, c.Stats().Gone)
	}
	c, err := New(Options{Embed: Exact(32), Threshold: 1, Bytes: 400})
	require.NoError(t, err)
	for i := range 50 {
		c.Add(fmt.Sprint("t", i%3), fmt.Sprint("q", i%7), fmt.Sprint("answer ", i))
		require.LessOrEqual(t, c.Stats().Bytes, units.Bytes(400))
	}
	c.Add("t0", "long", string(slices.Repeat([]byte("x"), 500)))
	_, ok := c.Find("t0", "long")
	require.False(t, ok)
	got, ok := c.Find("t1", "q0")
	require.True(t, ok)
	require.Equal(t, "answer 49", got.Text, "the newest answer to a question")
}

func TestC5ImpossibleCaches(t *testing.T) {
	for _, o := range []Options{{Embed: Exact(4), Threshold: 1.1}, {Embed: Exact(4), Threshold: -0.1}, {Embed: Exact(4), Entries: -1}, {Embed: Exact(4), Bytes: -1}} {
		_, err := New(o)
		require.ErrorContains(t, err, "response cache")
	}
}
