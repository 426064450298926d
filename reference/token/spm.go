package token

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"
)

const spmSpace = "\u2581" // how SentencePiece writes a space

// addSPM fills the tables of an SPM model.
func (t *Tokenizer) addSPM() {
	t.joined, t.fixed = map[rune]bool{}, make([]atomic.Uint32, len(t.pieces))
	for id, s := range t.meta.Tokens {
		kind := t.meta.typeOf(id)
		t.types[id] = kind
		var b byte
		switch {
		case kind == Control || kind == Unused:
			continue
		case kind == Byte && parseByte(s, &b):
			t.pieces[id] = string([]byte{b})
			t.bytes[b] = int32(id)
			continue
		case kind == Unknown:
			t.pieces[id] = " \u2047 " // as SentencePiece prints it
			continue
		}
		if kind == UserDefined {
			t.pieces[id] = s
			continue
		}
		t.pieces[id] = strings.ReplaceAll(s, spmSpace, " ")
		for at := 1; at < len(s); at++ {
			if strings.HasPrefix(s[at:], spmSpace) {
				r, _ := utf8.DecodeLastRuneInString(s[:at])
				t.joined[r] = true
			}
		}
		if _, dup := t.ids[s]; !dup {
			t.ids[s] = int32(id)
		}
	}
}

// parseByte reads "<0xNN>".
func parseByte(s string, b *byte) bool {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return false
	}
	n, err := strconv.ParseUint(s[3:5], 16, 8)
	*b = byte(n)
	return err == nil
}

// encodeSPM merges neighbouring symbols, best score first and leftmost on a tie, until no pair is a token (Kudo &
// Richardson 2018, as llama.cpp does it).
//
// A space whose left neighbour stands before a space in no token is never merged with it, so the text falls into words
// there, each of which is merged alone: the same tokens in a tenth of the time.
func (t *Tokenizer) encodeSPM(ids []int32, text string, prefix bool) []int32 {
	text = strings.ReplaceAll(text, " ", spmSpace)
	if prefix {
		text = spmSpace + text
	}
	e := spmEncoder{t: t, ids: ids}
	if !utf8.ValidString(text) { // characters may not be what they seem
		e.long(text)
		return e.ids
	}
	from := 0
	for at := 1; at < len(text); at++ {
		if text[at] == spmSpace[0] && strings.HasPrefix(text[at:], spmSpace) {
			if r, _ := utf8.DecodeLastRuneInString(text[:at]); !t.joined[r] {
				e.word(text[from:at])
				from = at
			}
		}
	}
	if from < len(text) {
		e.word(text[from:])
	}
	return e.ids
}

// spmEncoder appends the tokens of words; its memory is reused from word to word.
type spmEncoder struct {
	t    *Tokenizer
	ids  []int32
	ends []int32   // of the symbols, in the word
	next []float32 // score of each symbol with its right neighbour
}

func (e *spmEncoder) word(word string) {
	t := e.t
	id, ok := t.ids[word]
	if ok && t.fixed[id].Load() == leads {
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
		t.fixed[id].Store(misses)
		if len(e.ids) == from+1 && e.ids[from] == id {
			t.fixed[id].Store(leads)
		}
	}
}

func (e *spmEncoder) short(word string) {
	e.ends, e.next = e.ends[:0], e.next[:0]
	for at := 0; at < len(word); {
		at += min(spmWidth(word[at]), len(word)-at)
		e.ends = append(e.ends, int32(at))
	}
	start := func(i int) int32 {
		if i == 0 {
			return 0
		}
		return e.ends[i-1]
	}
	score := func(i int) float32 { // of symbols i and i+1 together
		if id, ok := e.t.ids[word[start(i):e.ends[i+1]]]; ok {
			return e.t.meta.Scores[id]
		}
		return float32(math.NaN()) // which no token has
	}
	for i := range len(e.ends) - 1 {
		e.next = append(e.next, score(i))
	}
	for {
		best := -1
		for i, s := range e.next {
			if s == s && (best < 0 || s > e.next[best]) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		e.ends = slices.Delete(e.ends, best, best+1)
		e.next = slices.Delete(e.next, best, best+1)
		for _, i := range []int{best - 1, best} {
			if i >= 0 && i < len(e.next) {
				e.next[i] = score(i)
			}
		}
	}
	for i := range e.ends {
		e.ids = e.t.appendPiece(e.ids, word[start(i):e.ends[i]])
	}
}

// long does the same in O(n log n).
func (e *spmEncoder) long(text string) {
	t := e.t
	c := newChain(len(text))
	for at := 0; at < len(text); {
		n := min(spmWidth(text[at]), len(text)-at)
		c.add(at, n, 0)
		at += n
	}
	c.merge(func(left, right int) (cost float32, into int32, ok bool) {
		from, to := c.span(left, right)
		id, ok := t.ids[text[from:to]]
		if !ok {
			return 0, 0, false
		}
		return -t.meta.Scores[id], id, true
	})
	c.each(func(i int) {
		from, to := c.span(i, i)
		e.ids = t.appendPiece(e.ids, text[from:to])
	})
}

// spmWidth is the length of a character by its first byte, as llama.cpp cuts text that may not be UTF-8.
func spmWidth(b byte) int {
	switch {
	case b >= 0xf0:
		return 4
	case b >= 0xe0:
		return 3
	case b >= 0xc0:
		return 2
	}
	return 1
}

// appendPiece spells s as one token, else as bytes, else as unknown.
func (t *Tokenizer) appendPiece(ids []int32, s string) []int32 {
	if id, ok := t.ids[s]; ok {
		return append(ids, id)
	}
	if t.meta.Model == "llama" { // a vocabulary without U+2581 spells a space as a byte
		s = strings.ReplaceAll(s, spmSpace, " ")
	}
	for i := range len(s) {
		if t.bytes[s[i]] < 0 {
			if t.meta.UNK >= 0 {
				ids = append(ids, t.meta.UNK)
			}
			return ids
		}
	}
	for i := range len(s) {
		ids = append(ids, t.bytes[s[i]])
	}
	return ids
}
