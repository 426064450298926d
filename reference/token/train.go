package token

import (
	"fmt"
	"iter"
	"sort"
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
	words := countWords(s.passes, texts)
	for len(m.Tokens) < size {
		best, n := mostFrequent(words)
		if n < 2 {
			break
		}
		m.Merges = append(m.Merges, shownBytes(best[0])+" "+shownBytes(best[1]))
		m.add(best[0] + best[1])
		for i := range words {
			words[i].join(best)
		}
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
		scan(passes, text, func(w string) { counts[w]++ })
	}
	words := make([]spelled, 0, len(counts))
	for w, n := range counts {
		symbols := make([]string, len(w))
		for i := range len(w) {
			symbols[i] = w[i : i+1]
		}
		words = append(words, spelled{symbols, n})
	}
	// The order does not decide the result; it makes runs comparable step by step.
	sort.Slice(words, func(i, j int) bool { return words[i].text() < words[j].text() })
	return words
}

func (w spelled) text() string {
	s := ""
	for _, p := range w.symbols {
		s += p
	}
	return s
}

func mostFrequent(words []spelled) (best [2]string, n int) {
	counts := map[[2]string]int{}
	for _, w := range words {
		for i := 1; i < len(w.symbols); i++ {
			counts[[2]string{w.symbols[i-1], w.symbols[i]}] += w.count
		}
	}
	for p, c := range counts {
		if c > n || c == n && (p[0] < best[0] || p[0] == best[0] && p[1] < best[1]) {
			best, n = p, c
		}
	}
	return best, n
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
