// Package recall is a semantic response cache: it answers a question from the answer to one that is like it.
//
//	c, err := recall.New(recall.Options{Embed: recall.Grams(512), Threshold: 0.8, Entries: 1000})
//	if a, ok := c.Find(tenant, question); ok { return a.Text }
//	c.Add(tenant, question, answer)
//
// As GPTCache does (zilliztech/GPTCache): embed, look for the nearest neighbour, compare with a threshold. Similarity is the cosine of
// embeddings. The search is exact: every entry of the tenant is compared, so that what is found depends on nothing but questions and
// threshold. A question may be like another and want another answer: such hits are wrong, and package users must count them.
//
// Answers are kept by tenant: where nobody else may see them, a tenant is one user. The package asks no model.
package recall

import (
	"fmt"
	"hash/fnv"
	"math"
	"strings"

	"meibench/internal/units"
)

// Embedding turns a question into a vector. Equal questions have equal vectors.
type Embedding func(question string) []float32

// Exact is an embedding under which only equal questions are alike: coordinates are drawn from a hash of the text.
func Exact(width int) Embedding {
	return func(q string) []float32 {
		h := fnv.New64a()
		h.Write([]byte(normal(q)))
		x, v := h.Sum64(), make([]float32, width)
		for i := range v {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			v[i] = float32(int32(x>>32)) / (1 << 31)
		}
		return unit(v)
	}
}

// Grams is an embedding of words and of triples of letters, hashed into so many coordinates with signs (Weinberger et al. 2009): a
// baseline that needs no model. Words that English questions are made of, and that say little of what is asked, count a tenth.
func Grams(width int) Embedding {
	return func(q string) []float32 {
		v := make([]float32, width)
		add := func(s string, weight float32) {
			h := fnv.New64a()
			h.Write([]byte(s))
			x := h.Sum64()
			if x>>63 == 1 {
				weight = -weight
			}
			v[x%uint64(width)] += weight
		}
		for _, w := range strings.Fields(normal(q)) {
			w = strings.Trim(w, ".,;:?!")
			weight := float32(1)
			if strings.Contains(little, " "+w+" ") {
				weight = 0.1
			}
			add("word "+w, weight)
			padded := "^" + w + "$"
			for i := 0; i+3 <= len(padded); i++ {
				add("gram "+padded[i:i+3], weight/float32(len(padded)-2))
			}
		}
		return unit(v)
	}
}

// little are words that say little.
const little = " a an and are at be by can could do does for from give has have how i in is it know me my need now of on or please should show tell that the this to want was what when where which who will with would you "

// normal is a question without what does not change it: case and space.
func normal(q string) string { return strings.Join(strings.Fields(strings.ToLower(q)), " ") }

// Unit scales a vector to length 1, in place; all zeros stay.
func Unit(v []float32) []float32 { return unit(v) }

func unit(v []float32) []float32 {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 {
		return v
	}
	f := float32(1 / math.Sqrt(sum))
	for i := range v {
		v[i] *= f
	}
	return v
}

// Cosine is the similarity of two vectors of length 1.
func Cosine(a, b []float32) float64 {
	var s0, s1, s2, s3 float32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
		a, b = a[4:], b[4:]
	}
	for i := range a {
		s0 += a[i] * b[i]
	}
	return float64(s0+s1) + float64(s2+s3)
}

// Options say what a cache keeps and finds.
type Options struct {
	Embed     Embedding   // nil: vectors come with questions, by FindBy and AddBy
	Threshold float64     // least similarity of a hit, in [0, 1]; at 1 only equal questions are alike
	Entries   int         // most answers; 0 = no limit
	Bytes     units.Bytes // most bytes of questions, vectors and answers; 0 = no limit
	FIFO      bool        // the oldest goes; else the least recently used
}

// Stats counts what happened.
type Stats struct {
	Asked, Hits, Added, Gone int
	Bytes                    units.Bytes // kept now
}

// Answer is what a cache found: the bytes that were added, for which question, and how alike it is; and what its owner noted.
type Answer struct {
	Question, Text string
	Similarity     float64
	Note           any
}

// Cache belongs to one goroutine.
type Cache struct {
	o       Options
	tenants map[string]*tenant
	clock   int64
	stats   Stats
	n       int
}

type tenant struct{ entries []*entry }

type entry struct {
	question, answer string
	note             any
	vector           []float32
	used             int64
}

func (e *entry) size() units.Bytes {
	return units.Bytes(len(e.question) + len(e.answer) + 4*len(e.vector))
}

// New is an empty cache.
func New(o Options) (*Cache, error) {
	if !(o.Threshold >= 0 && o.Threshold <= 1) || o.Entries < 0 || o.Bytes < 0 {
		return nil, fmt.Errorf("response cache: want a threshold of 0 to 1 and no negative limits, got threshold %g, %d entries, %d bytes", o.Threshold, o.Entries, o.Bytes)
	}
	return &Cache{o: o, tenants: map[string]*tenant{}}, nil
}

// Stats is what happened so far.
func (c *Cache) Stats() Stats { return c.stats }

// rounding is what a cosine of two equal vectors may be short of 1.
const rounding = 1e-5

// Find is the answer to the question that is most like this one, if it is like enough; of equal ones the newest. At threshold 1 the
// question must be the same.
func (c *Cache) Find(who, question string) (Answer, bool) {
	c.stats.Asked++
	c.clock++
	if c.tenants[who] == nil {
		return Answer{}, false
	}
	return c.find(who, question, c.o.Embed(question))
}

// FindBy is Find for a question whose vector of length 1 the caller has made, as Embed would.
func (c *Cache) FindBy(who, question string, v []float32) (Answer, bool) {
	c.stats.Asked++
	c.clock++
	if c.tenants[who] == nil {
		return Answer{}, false
	}
	return c.find(who, question, v)
}

func (c *Cache) find(who, question string, v []float32) (Answer, bool) {
	t, q := c.tenants[who], normal(question)
	var best *entry
	like := math.Inf(-1)
	for _, e := range t.entries {
		s := Cosine(v, e.vector)
		if e.question == q {
			s = 1
		} else {
			s = min(s, 1-rounding)
		}
		if s >= like {
			best, like = e, s
		}
	}
	if best == nil || like < c.o.Threshold {
		return Answer{}, false
	}
	c.stats.Hits++
	if !c.o.FIFO {
		best.used = c.clock
	}
	return Answer{best.question, best.answer, like, best.note}, true
}

// Add keeps an answer, in place of one to the same question. What is larger than the whole cache is not kept.
func (c *Cache) Add(who, question, answer string) { c.AddNoted(who, question, answer, nil) }

// AddNoted is Add with a note that comes back with the answer.
func (c *Cache) AddNoted(who, question, answer string, note any) {
	c.AddBy(who, question, answer, c.o.Embed(question), note)
}

// AddBy is Add with a vector of length 1 that the caller has made, and a note that comes back with the answer.
func (c *Cache) AddBy(who, question, answer string, v []float32, note any) {
	c.clock++
	e := &entry{normal(question), answer, note, v, c.clock}
	if c.o.Bytes > 0 && e.size() > c.o.Bytes {
		return
	}
	t := c.tenants[who]
	if t == nil {
		t = &tenant{}
		c.tenants[who] = t
	}
	for i, old := range t.entries {
		if old.question == e.question {
			c.remove(who, i)
			t = c.tenants[who]
			if t == nil {
				t = &tenant{}
				c.tenants[who] = t
			}
			break
		}
	}
	t.entries = append(t.entries, e)
	c.n++
	c.stats.Added++
	c.stats.Bytes += e.size()
	for c.o.Entries > 0 && c.n > c.o.Entries || c.o.Bytes > 0 && c.stats.Bytes > c.o.Bytes {
		c.evict()
	}
}

// evict drops who was used longest ago, of all tenants.
func (c *Cache) evict() {
	who, at, oldest := "", -1, int64(math.MaxInt64)
	for name, t := range c.tenants {
		for i, e := range t.entries {
			if e.used < oldest {
				who, at, oldest = name, i, e.used
			}
		}
	}
	c.remove(who, at)
	c.stats.Gone++
}

func (c *Cache) remove(who string, i int) {
	t := c.tenants[who]
	c.stats.Bytes -= t.entries[i].size()
	t.entries = append(t.entries[:i], t.entries[i+1:]...)
	if c.n--; len(t.entries) == 0 {
		delete(c.tenants, who)
	}
}

// Pair is a question, the answer that it should have, and how alike and how answered its nearest neighbour was.
type Pair struct {
	Similarity float64
	Right      bool // the neighbour's answer is the right one
}

// Calibrate is the least threshold at which so large a share of the hits is right, on questions whose right answers are known; 1
// if none is.
func Calibrate(pairs []Pair, precision float64) (threshold, hits float64) {
	best, share := 1.0, 0.0
	for _, p := range pairs {
		n, right := 0, 0
		for _, q := range pairs {
			if q.Similarity >= p.Similarity {
				n++
				if q.Right {
					right++
				}
			}
		}
		if float64(right) >= precision*float64(n) && p.Similarity < best {
			best, share = p.Similarity, float64(n)/float64(len(pairs))
		}
	}
	return best, share
}
