package replay

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/library"
)

// zipf are independent requests.
func zipf(seed uint64, s float64, objects, n int) ([]int32, []float64) {
	sums := library.Popularity{S: s}.Weights(objects)
	p := slices.Clone(sums)
	for i := 1; i < objects; i++ {
		sums[i] += sums[i-1]
	}
	luck := rng.NewKey(seed, "zipf").At(0)
	out := make([]int32, n)
	for i := range out {
		at, _ := slices.BinarySearch(sums, luck.Float64())
		out[i] = int32(min(at, objects-1))
	}
	return out, p
}

// naive caches are lists, what goes next first.
type naive struct {
	policy      string
	size        int
	list        []int32
	count       map[int32]int
	small, main []int32
	ghost       []int32
	freq        map[int32]int
	sizes       []units.Bytes
}

func (c *naive) access(o int32) bool {
	c.count[o]++
	if c.policy == "s3fifo" {
		return c.s3(o)
	}
	i := slices.Index(c.list, o)
	if i >= 0 {
		if c.policy != "fifo" {
			c.list = append(slices.Delete(c.list, i, i+1), o)
		}
		return true
	}
	if c.policy == "sized" {
		used := units.Bytes(0)
		for _, k := range c.list {
			used += c.sizes[k]
		}
		if c.sizes[o] > units.Bytes(c.size) {
			return false
		}
		for used+c.sizes[o] > units.Bytes(c.size) {
			used -= c.sizes[c.list[0]]
			c.list = c.list[1:]
		}
		c.list = append(c.list, o)
		return false
	}
	if len(c.list) == c.size {
		out := 0
		if c.policy == "lfu" {
			for i, k := range c.list {
				if c.count[k] < c.count[c.list[out]] {
					out = i
				}
			}
		}
		c.list = slices.Delete(c.list, out, out+1)
	}
	c.list = append(c.list, o)
	return false
}

// s3 follows the paper's algorithm by lists.
func (c *naive) s3(o int32) bool {
	if slices.Contains(c.small, o) || slices.Contains(c.main, o) {
		c.freq[o] = min(3, c.freq[o]+1)
		return true
	}
	least := max(1, c.size/10)
	for len(c.small)+len(c.main) >= c.size {
		if len(c.small) >= least || len(c.main) == 0 {
			k := c.small[0]
			c.small = c.small[1:]
			if c.freq[k] > 1 {
				c.main, c.freq[k] = append(c.main, k), 0
				continue
			}
			if len(c.ghost) == max(1, c.size-least) {
				c.ghost = c.ghost[1:]
			}
			c.ghost = append(c.ghost, k)
			continue
		}
		for {
			k := c.main[0]
			c.main = c.main[1:]
			if c.freq[k] == 0 {
				break
			}
			c.freq[k]--
			c.main = append(c.main, k)
		}
	}
	c.freq[o] = 0
	if slices.Contains(c.ghost, o) {
		c.main = append(c.main, o)
	} else {
		c.small = append(c.small, o)
	}
	return false
}

func TestC1CachesFindWhatListsFind(t *testing.T) {
	for seed := range uint64(25) {
		luck := rng.Stream(seed, "case")
		objects := 5 + luck.IntN(60)
		requests, _ := zipf(seed, 1.2*luck.Float64(), objects, 1500)
		sizes := make([]units.Bytes, objects)
		for i := range sizes {
			sizes[i] = units.Bytes(1 + luck.IntN(9))
		}
		for _, policy := range []string{"fifo", "lfu", "lru", "s3fifo", "sized"} {
			size := 1 + luck.IntN(objects)
			slow := &naive{policy: policy, size: size, count: map[int32]int{}, freq: map[int32]int{}, sizes: sizes}
			fast, err := NewSized(units.Bytes(size), sizes)
			if policy != "sized" {
				fast, err = New(policy, size, objects)
			}
			require.NoError(t, err)
			for i, o := range requests {
				require.Equal(t, slow.access(o), fast.Access(o), "%s of %d, seed %d, request %d", policy, size, seed, i)
			}
		}
	}
}

func FuzzCachesFindWhatListsFind(f *testing.F) {
	f.Add([]byte{3, 1, 2, 3, 1, 4, 5, 1, 2})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) < 2 || len(program) > 400 {
			return
		}
		size := 1 + int(program[0]%16)
		for _, policy := range []string{"fifo", "lfu", "lru", "s3fifo"} {
			slow := &naive{policy: policy, size: size, count: map[int32]int{}, freq: map[int32]int{}}
			fast, err := New(policy, size, 32)
			require.NoError(t, err)
			for i, b := range program[1:] {
				if size > 32 {
					return
				}
				require.Equal(t, slow.access(int32(b%32)), fast.Access(int32(b%32)), "%s, %d", policy, i)
			}
		}
	})
}

// Belady by looking ahead, and better than all others; LRU's curve is its replay at every size.
func TestC1BoundsAndCurves(t *testing.T) {
	for seed := range uint64(10) {
		requests, _ := zipf(seed, 0.8, 40, 1200)
		hits, err := Curve(requests)
		require.NoError(t, err)
		for size := 1; size <= len(hits); size++ {
			lru, err := New("lru", size, 40)
			require.NoError(t, err)
			require.Equal(t, Run(lru, requests, nil).Hits, hits[size-1], "size %d", size)
		}
		for _, size := range []int{1, 4, 13, 40} {
			best, err := Belady(requests, size)
			require.NoError(t, err)
			require.Equal(t, lookAhead(requests, size), best.Hits, "size %d", size)
			for _, p := range Policies() {
				c, err := New(p[0], size, 40)
				require.NoError(t, err)
				require.LessOrEqual(t, Run(c, requests, nil).Hits, best.Hits, p[0])
			}
		}
	}
}

func lookAhead(requests []int32, size int) (hits int) {
	var here []int32
	for i, o := range requests {
		if slices.Contains(here, o) {
			hits++
			continue
		}
		if len(here) == size {
			out, far := 0, -1
			for k, h := range here {
				next := slices.Index(requests[i:], h)
				if next < 0 {
					next = math.MaxInt
				}
				if next > far {
					out, far = k, next
				}
			}
			here = slices.Delete(here, out, out+1)
		}
		here = append(here, o)
	}
	return hits
}

// Che's approximation is within a tenth of a point of simulation, and the best static choice is what its probabilities add up to.
func TestC3CheWithinATenthOfAPoint(t *testing.T) {
	for _, tc := range []struct {
		objects, size    int
		s                float64
		sim, che, static float64
		off              float64 // how far Che may be off: a tenth of a point, and a little more where only ten fit
	}{{1000, 100, 0.8, 0.3773, 0.3778, 0.5258, 1e-3}, {1000, 50, 1.0, 0.4617, 0.4610, 0.6011, 1e-3}, {100, 10, 0.8, 0.2643, 0.2633, 0.4383, 1.4e-3}} {
		requests, p := zipf(7, tc.s, tc.objects, 4_000_000)
		hit, _, err := Che(p, float64(tc.size))
		require.NoError(t, err)
		require.InDelta(t, tc.che, hit, 6e-5)
		lru, err := New("lru", tc.size, tc.objects)
		require.NoError(t, err)
		got := Run(lru, requests, nil).HitRatio()
		require.InDelta(t, hit, got, tc.off)
		require.InDelta(t, tc.sim, got, 1e-3)
		t.Logf("%d of %d, s %.1f: LRU %.4f, Che %.4f, %.2f points apart", tc.size, tc.objects, tc.s, got, hit, 100*max(got-hit, hit-got))
		static := 0.0
		for _, x := range p[:tc.size] {
			static += x
		}
		require.InDelta(t, tc.static, static, 6e-5)
		for _, q := range Policies() {
			c, err := New(q[0], tc.size, tc.objects)
			require.NoError(t, err)
			require.Less(t, Run(c, requests[:400_000], nil).HitRatio(), static+2e-3, "%s knows no future", q[0])
		}
	}
	for _, p := range [][]float64{{0.5, math.NaN()}, {0.5, 0.6}, {-0.5, 1.5}} {
		_, _, err := Che(p, 1)
		require.Error(t, err)
	}
	_, _, err := Che([]float64{0.5, 0.5}, 2)
	require.ErrorContains(t, err, "fewer than there are")
}

// mooncake reads the blocks of a trace in the order in which they are asked for; sum is the SHA-256 of the file uncompressed.
func mooncake(t testing.TB, name string) (blocks []int32, sum string) {
	f, err := os.Open("testdata/mooncake_" + name + ".jsonl.gz")
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	digest := sha256.New()
	lines := bufio.NewReader(io.TeeReader(z, digest))
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 1 {
			var r struct {
				Blocks []int32 `json:"hash_ids"`
			}
			require.NoError(t, json.Unmarshal(line, &r))
			blocks = append(blocks, r.Blocks...)
		}
		if err == io.EOF {
			return blocks, hex.EncodeToString(digest.Sum(nil))
		}
		require.NoError(t, err)
	}
}

// TestC4MooncakeHits is a golden table: block hits of the two public traces (arXiv 2407.00079; FAST'25) by capacity in blocks of 512
// tokens. Every block of a request is looked up in order, and comes in.
func TestC4MooncakeHits(t *testing.T) {
	conversation, sum := mooncake(t, "conversation")
	require.Equal(t, "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df", sum)
	synthetic, sum := mooncake(t, "synthetic")
	require.Equal(t, "bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131", sum)
	require.Len(t, conversation, 288_500)
	require.Len(t, synthetic, 121_877)
	hits, err := Curve(conversation)
	require.NoError(t, err)
	synth, err := Curve(synthetic)
	require.NoError(t, err)
	at := func(curve []int, size int) int { return curve[min(size, len(curve))-1] }
	for _, row := range []struct {
		size, hits, synthetic int
		fifo, lfu, belady     float64
	}{{1000, 12_831, 10_050, 0.0435, 0.0811, 0.1906}, {5860, 39_101, 37_703, 0.1270, 0.1514, 0.3532}, {10_000, 60_921, 51_614, 0.1865, 0.1879, 0.3664},
		{30_000, 93_967, 76_077, 0.3021, 0.2796, 0.3664}, {50_000, 102_290, 77_953, 0.3400, 0.3430, 0.3664}} {
		require.Equal(t, row.hits, at(hits, row.size), "LRU, %d blocks", row.size)
		require.Equal(t, row.synthetic, at(synth, row.size), "LRU, synthetic, %d blocks", row.size)
		for policy, want := range map[string]float64{"fifo": row.fifo, "lfu": row.lfu} {
			n, err := Objects(conversation)
			require.NoError(t, err)
			c, err := New(policy, row.size, n)
			require.NoError(t, err)
			require.InDelta(t, want, Run(c, conversation, nil).HitRatio(), 5.1e-5, "%s, %d blocks", policy, row.size)
		}
		best, err := Belady(conversation, row.size)
		require.NoError(t, err)
		require.InDelta(t, row.belady, best.HitRatio(), 5.1e-5, "%d blocks", row.size)
	}
	require.Equal(t, 104_870, at(hits, 97_656))
	require.Equal(t, 105_710, hits[len(hits)-1], "all that can be found")
}

func TestReplayRefuses(t *testing.T) {
	_, err := New("guess", 1, 1)
	require.ErrorContains(t, err, "have fifo, lfu, lru, random, s3fifo")
	_, err = New("lru", 0, 1)
	require.ErrorContains(t, err, "at least one")
	_, err = NewSized(10, []units.Bytes{1, 0})
	require.ErrorContains(t, err, "object 1 has 0 bytes")
	_, err = NewSized(0, []units.Bytes{1})
	require.Error(t, err)
	_, err = Curve([]int32{0, -1})
	require.ErrorContains(t, err, "request 1")
	_, err = Belady([]int32{0}, 0)
	require.Error(t, err)
}

// go test -run xxx -bench Replay ./reference/replay
func BenchmarkReplay(b *testing.B) {
	const objects = 1_000_000
	wide, _ := zipf(1, 0.8, objects, 8_000_000)
	trace, _ := mooncake(b, "conversation")
	blocks, err := Objects(trace)
	require.NoError(b, err)
	sizes := make([]units.Bytes, objects)
	luck := rng.Stream(1, "sizes")
	for i := range sizes {
		sizes[i] = units.Bytes(1 + luck.IntN(1000))
	}
	for _, w := range []struct {
		name     string
		requests []int32
		objects  int
	}{{"zipf0.8-1e6", wide, objects}, {"mooncake", trace, blocks}} {
		for _, p := range []string{"fifo", "lfu", "lru", "random", "s3fifo", "sized"} {
			b.Run(fmt.Sprintf("trace=%s/policy=%s", w.name, p), func(b *testing.B) {
				n := 0
				for b.Loop() {
					c, err := NewSized(units.Bytes(w.objects/10*500), sizes[:w.objects])
					if p != "sized" {
						c, err = New(p, w.objects/10, w.objects)
					}
					require.NoError(b, err)
					Run(c, w.requests, nil)
					n += len(w.requests)
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mreq/s")
			})
		}
	}
}
