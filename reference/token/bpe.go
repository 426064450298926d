package token

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"
)

// byteRune maps a byte to the printable character that stands for it in a
// byte-level vocabulary: printable Latin-1 stands for itself, the other 68
// bytes, in order, for U+0100 and up (Radford et al. 2019, bytes_to_unicode).
func byteRune(b byte) rune {
	printable := func(b int) bool { return b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae }
	if printable(int(b)) {
		return rune(b)
	}
	n := 0
	for c := range int(b) {
		if !printable(c) {
			n++
		}
	}
	return rune(0x100 + n)
}

// byteTable is the inverse of byteRune for every character it can yield, -1 elsewhere.
func byteTable() *[0x144]int16 {
	t := new([0x144]int16)
	for i := range t {
		t[i] = -1
	}
	for b := range 256 {
		t[byteRune(byte(b))] = int16(b)
	}
	return t
}

// rawBytes undoes byteRune for a whole token; ok is false if it holds a
// character that stands for no byte.
func rawBytes(table *[0x144]int16, s string) (raw string, ok bool) {
	var short [64]byte
	b := short[:0]
	for _, r := range s {
		if int(r) >= len(table) || table[r] < 0 {
			return "", false
		}
		b = append(b, byte(table[r]))
	}
	return string(b), true
}

func shownBytes(raw string) string {
	var b strings.Builder
	for i := range len(raw) {
		b.WriteRune(byteRune(raw[i]))
	}
	return b.String()
}

// addBPE fills the tables of a byte-level model.
func (t *Tokenizer) addBPE() error {
	scanner, err := scannerOf(t.meta.Pre)
	if err != nil {
		return err
	}
	t.scanner, t.whole = scanner.passes, scanner.whole
	table := byteTable()
	for id, s := range t.meta.Tokens {
		t.types[id] = t.meta.typeOf(id)
		switch t.types[id] {
		case Control, Unknown, Unused:
			continue
		case UserDefined:
			t.pieces[id] = s
			continue
		}
		raw, ok := rawBytes(table, s)
		if !ok { // a plain text token among byte-level ones
			t.pieces[id] = s
			continue
		}
		t.pieces[id] = raw
		if _, dup := t.ids[raw]; !dup {
			t.ids[raw] = int32(id)
		}
		if len(raw) == 1 && t.bytes[raw[0]] < 0 {
			t.bytes[raw[0]] = int32(id)
		}
	}
	return t.addMerges(table)
}

// A symbol is a token id, or len(pieces) and up for byte strings that merges name but the vocabulary does not have.

// merge is what two neighbouring symbols may become.
type merge struct {
	rank int32 // lower is earlier
	into int32 // symbol
}

const noMerge = math.MaxInt32

func pairOf(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

// symbols numbers byte strings.
type symbols struct {
	t   *Tokenizer
	ids map[string]int32 // of strings that are no tokens
}

func (s *symbols) of(raw string) int32 {
	if id, ok := s.t.ids[raw]; ok {
		return id
	}
	id, ok := s.ids[raw]
	if !ok {
		id = int32(len(s.t.pieces) + len(s.ids))
		s.ids[raw] = id
		s.t.strange = append(s.t.strange, raw)
	}
	return id
}

func (t *Tokenizer) addMerges(table *[0x144]int16) error {
	sym := symbols{t, map[string]int32{}}
	for b := range t.symbol {
		t.symbol[b] = sym.of(string([]byte{byte(b)}))
	}
	t.merges = make(map[uint64]merge, len(t.meta.Merges))
	for i, m := range t.meta.Merges {
		left, right, found := strings.Cut(m, " ")
		l, okL := rawBytes(table, left)
		both, okR := rawBytes(table, left+right) // one string for the three
		if !found || !okL || !okR || l == "" || right == "" || !utf8.ValidString(m) {
			return fmt.Errorf("tokenizer.ggml.merges[%d] is %.40q, want two byte-level tokens with a space between", i, m)
		}
		pair := pairOf(sym.of(both[:len(l)]), sym.of(both[len(l):]))
		if _, dup := t.merges[pair]; !dup {
			t.merges[pair] = merge{int32(i), sym.of(both)}
		}
	}
	t.fixed = make([]atomic.Uint32, len(t.pieces))
	return nil
}

// encodeBPE merges the bytes of each word by rank (Sennrich et al. 2016). Bytes that are not UTF-8 become U+FFFD, one
// each, as in every tokenizer that takes characters.
func (t *Tokenizer) encodeBPE(ids []int32, text string) []int32 {
	e := wordEncoder{t: t, ids: ids}
	scan(t.scanner, onlyUTF8(text), e.word)
	return e.ids
}

// onlyUTF8 replaces every byte that is not part of a character.
func onlyUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s { // ranging yields U+FFFD for each such byte
		b.WriteRune(r)
	}
	return b.String()
}

// wordEncoder appends the tokens of words; its memory is reused from word to word.
type wordEncoder struct {
	t     *Tokenizer
	ids   []int32
	chain []int32
	next  []merge // of each symbol with its right neighbour
}

// What fixed knows of a token whose text is a word: whether the merges lead to it. It is found out once per token.
const (
	leads = 1 + iota
	misses
)

func (e *wordEncoder) word(word string) {
	t := e.t
	id, ok := t.ids[word]
	if ok && (t.whole || t.fixed[id].Load() == leads) {
		e.ids = append(e.ids, id)
		return
	}
	from := len(e.ids)
	if len(word) <= shortWord {
		e.short(word)
	} else {
		e.long(word)
	}
	if ok && t.fixed[id].Load() == 0 {
		if len(e.ids) == from+1 && e.ids[from] == id {
			t.fixed[id].Store(leads)
		} else {
			t.fixed[id].Store(misses)
		}
	}
}

// shortWord is the length in bytes up to which looking for the best pair among all is faster than a heap.
const shortWord = 48

func (e *wordEncoder) short(word string) {
	t := e.t
	e.chain, e.next = e.chain[:0], e.next[:0]
	for i := range len(word) {
		e.chain = append(e.chain, t.symbol[word[i]])
		if i > 0 {
			e.next = append(e.next, t.pair(e.chain[i-1], e.chain[i]))
		}
	}
	for {
		best := -1
		for i, m := range e.next {
			if m.rank != noMerge && (best < 0 || m.rank < e.next[best].rank) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		e.chain[best] = e.next[best].into
		e.chain = slices.Delete(e.chain, best+1, best+2)
		e.next = slices.Delete(e.next, best, best+1)
		if best > 0 {
			e.next[best-1] = t.pair(e.chain[best-1], e.chain[best])
		}
		if best < len(e.next) {
			e.next[best] = t.pair(e.chain[best], e.chain[best+1])
		}
	}
	for _, s := range e.chain {
		e.ids = t.appendSymbol(e.ids, s)
	}
}

// long does the same in O(n log n).
func (e *wordEncoder) long(word string) {
	t := e.t
	c := newChain(len(word))
	for i := range len(word) {
		c.add(i, 1, t.symbol[word[i]])
	}
	c.merge(func(left, right int) (cost float32, into int32, ok bool) {
		m := t.pair(c.sym[left], c.sym[right])
		return math.Float32frombits(uint32(m.rank)), m.into, m.rank != noMerge
	})
	c.each(func(i int) { e.ids = t.appendSymbol(e.ids, c.sym[i]) })
}

func (t *Tokenizer) pair(left, right int32) merge {
	if m, ok := t.merges[pairOf(left, right)]; ok {
		return m
	}
	return merge{rank: noMerge}
}

func (t *Tokenizer) appendSymbol(ids []int32, s int32) []int32 {
	if int(s) < len(t.pieces) {
		return append(ids, s)
	}
	return t.appendPiece(ids, t.strange[int(s)-len(t.pieces)])
}
