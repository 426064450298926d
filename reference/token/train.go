package token

import (
	"fmt"
	"iter"
)

// Special tokens of a trained vocabulary; they take the first ids.
const (
	bosText = "<s>"
	eosText = "</s>"
)

// Train learns a byte-level BPE vocabulary of exactly size tokens: begin and
// end of text, the 256 bytes, and the merges of the most frequent neighbours in
// the words that the scanner pre cuts from the texts (Gage 1994; Sennrich et
// al. 2016). Ties go to the smaller pair in byte order, so the result depends
// on the texts only, not on their order. If the texts run out of pairs that
// occur twice the vocabulary is smaller.
func Train(texts iter.Seq[string], size int, pre string) (Metadata, error) {
	s, err := scannerOf(pre)
	if err != nil {
		return Metadata{}, fmt.Errorf("train vocabulary: %w", err)
	}
	const base = 2 + 256
	if size < base || size > maxTokens {
		return Metadata{}, fmt.Errorf("train vocabulary: size is %d, want %d to %d", size, base, maxTokens)
	}
	m := Metadata{Model: "gpt2", Pre: pre, BOS: 0, EOS: 1, UNK: -1, AddBOS: true}
	m.Tokens, m.Types = []string{bosText, eosText}, []int32{int32(Control), int32(Control)}
	for b := range 256 {
		m.add(string([]byte{byte(b)}))
	}
	pairs := countPairs(countWords(s.passes, texts))
	for len(m.Tokens) < size {
		best, n := pairs.mostFrequent()
		if n < 2 {
			break
		}
		m.Merges = append(m.Merges, shownBytes(best[0])+" "+shownBytes(best[1]))
		m.add(best[0] + best[1])
		pairs.join(best)
	}
	return m, nil
}

func (m *Metadata) add(raw string) {
	m.Tokens, m.Types = append(m.Tokens, shownBytes(raw)), append(m.Types, int32(Normal))
}

// spelled is a word as symbols, with its count.
type spelled struct {
	symbols []string
	count   int
}

func countWords(passes []pass, texts iter.Seq[string]) []spelled {
	counts := map[string]int{}
	for text := range texts {
		scan(passes, onlyUTF8(text), func(w string) { counts[w]++ })
	}
	words := make([]spelled, 0, len(counts))
	for w, n := range counts {
		symbols := make([]string, len(w))
		for i := range len(w) {
			symbols[i] = w[i : i+1]
		}
		words = append(words, spelled{symbols, n})
	}
	return words // in any order: counts decide
}

// pairCounts knows how often each pair of neighbours occurs, and in which words.
type pairCounts struct {
	words  []spelled
	counts map[[2]string]int
	where  map[[2]string]map[int]bool
}

func countPairs(words []spelled) *pairCounts {
	c := &pairCounts{words, map[[2]string]int{}, map[[2]string]map[int]bool{}}
	for i := range words {
		c.count(i, 1)
	}
	return c
}

// count adds the pairs of a word, or takes them away with sign -1.
func (c *pairCounts) count(word, sign int) {
	w := &c.words[word]
	for i := 1; i < len(w.symbols); i++ {
		p := [2]string{w.symbols[i-1], w.symbols[i]}
		if c.counts[p] += sign * w.count; c.counts[p] == 0 {
			delete(c.counts, p)
			delete(c.where, p)
			continue
		}
		if c.where[p] == nil {
			c.where[p] = map[int]bool{}
		}
		c.where[p][word] = true // also of words that have lost it: looking once more does no harm
	}
}

func (c *pairCounts) mostFrequent() (best [2]string, n int) {
	for p, count := range c.counts {
		if count > n || count == n && (p[0] < best[0] || p[0] == best[0] && p[1] < best[1]) {
			best, n = p, count
		}
	}
	return best, n
}

// join makes one symbol of a pair wherever it occurs.
func (c *pairCounts) join(p [2]string) {
	words := c.where[p]
	for i := range words {
		c.count(i, -1)
		c.words[i].join(p)
		c.count(i, 1)
	}
}

func (w *spelled) join(p [2]string) {
	out := w.symbols[:0]
	for i := 0; i < len(w.symbols); i++ {
		if i+1 < len(w.symbols) && w.symbols[i] == p[0] && w.symbols[i+1] == p[1] {
			out = append(out, p[0]+p[1])
			i++
			continue
		}
		out = append(out, w.symbols[i])
	}
	w.symbols = out
}
