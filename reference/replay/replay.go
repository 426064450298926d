// Package replay runs long lists of requests for objects through caches, quickly: what would have been found, by policy
// and size.
//
//	c, err := replay.New("s3fifo", 100_000, objects)
//	st := replay.Run(c, requests, nil)  // requests are numbers of objects, from 0
//	curve := replay.Curve(requests, objects) // of LRU, at every size, in one pass
//	hit, _ := replay.Che(probabilities, size)
//
// The one idea is that objects are dense numbers, so that every table is an array: a request costs a few reads and no
// allocation. Caches are of one goroutine. Where models share blocks, see package shelf; objects here share nothing.
//
// Each policy has a slow twin by lists in the tests that must find the same.
package replay

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/internal/portable"
	"meibench/internal/units"
)

// Cache is a set of objects with a policy of what goes. Every missing object comes in.
type Cache interface {
	// Access asks for an object and reports whether it was there.
	Access(object int32) bool
}

// maker makes a cache of a policy.
type maker struct {
	name, doc string
	make      func(size, objects int) Cache
}

// makers is sorted by name.
var makers = []maker{
	{"fifo", "first in, first out", func(size, objects int) Cache { return newFIFO(size, objects) }},
	{"lfu", "the least frequently asked for goes; counts are kept for ever, and of equals the least recently used goes", func(size, objects int) Cache { return newLFU(size, objects) }},
	{"lru", "the least recently used goes", func(size, objects int) Cache { return newLRU(size, objects) }},
	{"random", "any goes, by a generator with a fixed seed", func(size, objects int) Cache { return newRandom(size, objects) }},
	{"s3fifo", "three queues: a small one for newcomers, a main one, and a list of what lately left the small one (Yang et al., SOSP'23)", func(size, objects int) Cache { return newS3(size, objects) }},
}

// Policies lists names and what they do.
func Policies() (out [][2]string) {
	for _, m := range makers {
		out = append(out, [2]string{m.name, m.doc})
	}
	return out
}

// New is an empty cache for so many of the objects.
func New(policy string, size, objects int) (Cache, error) {
	i := slices.IndexFunc(makers, func(m maker) bool { return m.name == policy })
	if i < 0 {
		var have []string
		for _, m := range makers {
			have = append(have, m.name)
		}
		return nil, fmt.Errorf("unknown policy %q (have %s; %s is Belady)", policy, strings.Join(have, ", "), "replay.Belady")
	}
	if size < 1 || objects < 1 || objects > math.MaxInt32 {
		return nil, fmt.Errorf("cache %s of %d of %d objects: want at least one of each, and fewer than 2^31", policy, size, objects)
	}
	return makers[i].make(min(size, objects), objects), nil
}

// Stats is what a cache found.
type Stats struct {
	Requests, Hits  int
	Bytes, HitBytes units.Bytes // 0 without sizes
}

// HitRatio is hits over requests.
func (s Stats) HitRatio() float64 { return float64(s.Hits) / float64(max(1, s.Requests)) }

// ByteHitRatio is bytes found over bytes asked for.
func (s Stats) ByteHitRatio() float64 { return float64(s.HitBytes) / float64(max(1, s.Bytes)) }

// Run asks for objects one after another; sizes, by object, are counted if given.
func Run(c Cache, requests []int32, sizes []units.Bytes) Stats {
	s := Stats{Requests: len(requests)}
	if sizes == nil {
		for _, o := range requests {
			if c.Access(o) {
				s.Hits++
			}
		}
		return s
	}
	for _, o := range requests {
		s.Bytes += sizes[o]
		if c.Access(o) {
			s.Hits++
			s.HitBytes += sizes[o]
		}
	}
	return s
}

// Objects is one more than the largest number among requests; negative numbers are an error.
func Objects(requests []int32) (int, error) {
	top := int32(-1)
	for i, o := range requests {
		if o < 0 {
			return 0, fmt.Errorf("request %d is for object %d: numbers begin at 0", i, o)
		}
		top = max(top, o)
	}
	return int(top) + 1, nil
}

// Belady is how often the clairvoyant policy hits with so many equal objects, when every missing object must come in: what is
// wanted latest goes.
func Belady(requests []int32, size int) (Stats, error) {
	n, err := Objects(requests)
	if err != nil || size < 1 {
		return Stats{}, fmt.Errorf("belady of %d objects: %w", size, err)
	}
	const never = math.MaxInt32
	next, last := make([]int32, len(requests)), make([]int32, n)
	for o := range last {
		last[o] = never
	}
	for i := len(requests) - 1; i >= 0; i-- {
		next[i], last[requests[i]] = last[requests[i]], int32(i)
	}
	s := Stats{Requests: len(requests)}
	when := make([]int32, n) // next use of what is there; 0 = not there
	var heap latest
	here := 0
	for i, o := range requests {
		if when[o] != 0 {
			s.Hits++
		} else {
			if here == size {
				for {
					top := heap.pop()
					if when[top.object] == top.at { // not a stale one
						when[top.object] = 0
						break
					}
				}
			} else {
				here++
			}
		}
		when[o] = next[i]
		heap.push(use{next[i], o})
	}
	return s, nil
}

// use is an object and when it is wanted next.
type use struct{ at, object int32 }

// latest is a heap with the latest use at the top.
type latest []use

func (h *latest) push(u use) {
	*h = append(*h, u)
	a, i := *h, len(*h)-1
	for i > 0 {
		up := (i - 1) / 2
		if a[up].at >= a[i].at {
			break
		}
		a[up], a[i], i = a[i], a[up], up
	}
}

func (h *latest) pop() use {
	a := *h
	top := a[0]
	a[0] = a[len(a)-1]
	a = a[:len(a)-1]
	*h = a
	for i := 0; ; {
		down := 2*i + 1
		if down >= len(a) {
			return top
		}
		if down+1 < len(a) && a[down+1].at > a[down].at {
			down++
		}
		if a[i].at >= a[down].at {
			return top
		}
		a[i], a[down], i = a[down], a[i], down
	}
}

// Curve is the number of LRU hits at every size from 1 to the number of objects: hits[c-1] is what a cache of c has (Mattson et al.
// 1970). Distances are counted in a Fenwick tree.
func Curve(requests []int32) (hits []int, err error) {
	n, err := Objects(requests)
	if err != nil {
		return nil, err
	}
	tree := make([]int32, len(requests)+1)
	add := func(i int, v int32) {
		for i++; i < len(tree); i += i & -i {
			tree[i] += v
		}
	}
	sum := func(i int) (s int32) { // of [0, i)
		for ; i > 0; i -= i & -i {
			s += tree[i]
		}
		return s
	}
	last := make([]int, n)
	for o := range last {
		last[o] = -1
	}
	hits = make([]int, n)
	for i, o := range requests {
		if at := last[o]; at >= 0 {
			hits[sum(i)-sum(at+1)]++ // so many others since: found where that many and it fit
			add(at, -1)
		}
		add(i, 1)
		last[o] = i
	}
	for c := 1; c < n; c++ {
		hits[c] += hits[c-1]
	}
	return hits, nil
}

// Che is the hit ratio of LRU for independent requests by Che's approximation (Che, Tung and Wang 2002): object i is found with
// 1 - exp(-p_i T), where T is such that so many objects are there on average. probabilities add up to 1; size is below their number.
func Che(probabilities []float64, size float64) (hit, characteristic float64, err error) {
	sum := 0.0
	for i, p := range probabilities {
		if !(p >= 0) || math.IsInf(p, 0) {
			return 0, 0, fmt.Errorf("object %d has probability %g: want 0 or more", i, p)
		}
		sum += p
	}
	if math.Abs(sum-1) > 1e-6 || !(size > 0) || size >= float64(len(probabilities)) {
		return 0, 0, fmt.Errorf("%g of %d objects with probabilities of sum %g: want sum 1 and fewer than there are", size, len(probabilities), sum)
	}
	there := func(t float64) (n, hit float64) {
		for _, p := range probabilities {
			q := 1 - portable.Exp(-p*t)
			n, hit = n+q, hit+float64(p*q)
		}
		return n, hit
	}
	lo, hi := 0.0, 1.0
	for n, _ := there(hi); n < size && hi < 1e18; n, _ = there(hi) {
		hi *= 2
	}
	for range 200 {
		mid := (lo + hi) / 2
		if n, _ := there(mid); n < size {
			lo = mid
		} else {
			hi = mid
		}
	}
	_, hit = there(hi)
	return hit, hi, nil
}
