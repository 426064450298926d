package token

import (
	"strconv"
	"strings"
)

const spmSpace = "\u2581" // how SentencePiece writes a space

// addSPM fills the tables of an SPM model.
func (t *Tokenizer) addSPM() {
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

// encodeSPM merges neighbouring symbols, best score first and leftmost on a
// tie, until no pair is a token (Kudo & Richardson 2018, as llama.cpp does it).
func (t *Tokenizer) encodeSPM(ids []int32, text string, prefix bool) []int32 {
	text = strings.ReplaceAll(text, " ", spmSpace)
	if prefix {
		text = spmSpace + text
	}
	c := newChain(len(text))
	for at := 0; at < len(text); {
		n := min(spmWidth(text[at]), len(text)-at)
		c.add(at, n, 0)
		at += n
	}
	c.merge(func(left, right int) (cost float64, into int32, ok bool) {
		from, to := c.span(left, right)
		id, ok := t.ids[text[from:to]]
		if !ok {
			return 0, 0, false
		}
		return -float64(t.meta.Scores[id]), id, true
	})
	c.each(func(i int) {
		from, to := c.span(i, i)
		ids = t.appendPiece(ids, text[from:to])
	})
	return ids
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
