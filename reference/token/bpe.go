package token

import (
	"fmt"
	"strings"
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

// byteTable is the inverse of byteRune for every character it can yield.
func byteTable() map[rune]byte {
	m := make(map[rune]byte, 256)
	for b := range 256 {
		m[byteRune(byte(b))] = byte(b)
	}
	return m
}

// rawBytes undoes byteRune for a whole token; ok is false if it holds a
// character that stands for no byte.
func rawBytes(table map[rune]byte, s string) (raw string, ok bool) {
	var b strings.Builder
	for _, r := range s {
		c, known := table[r]
		if !known {
			return "", false
		}
		b.WriteByte(c)
	}
	return b.String(), true
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

func (t *Tokenizer) addMerges(table map[rune]byte) error {
	t.ranks = make(map[[2]string]int32, len(t.meta.Merges))
	for i, m := range t.meta.Merges {
		left, right, found := strings.Cut(m, " ")
		l, okL := rawBytes(table, left)
		r, okR := rawBytes(table, right)
		if !found || !okL || !okR || l == "" || r == "" || !utf8.ValidString(m) {
			return fmt.Errorf("tokenizer.ggml.merges[%d] is %.40q, want two byte-level tokens with a space between", i, m)
		}
		if _, dup := t.ranks[[2]string{l, r}]; !dup {
			t.ranks[[2]string{l, r}] = int32(i)
		}
	}
	return nil
}

// encodeBPE merges the bytes of each word by rank (Sennrich et al. 2016).
func (t *Tokenizer) encodeBPE(ids []int32, text string) []int32 {
	for _, word := range scan(t.scanner, text) {
		if id, ok := t.ids[word]; ok && t.whole {
			ids = append(ids, id)
			continue
		}
		c := newChain(word, func(string) int { return 1 })
		c.merge(func(joined string, left int) (float64, bool) {
			rank, ok := t.ranks[[2]string{joined[:left], joined[left:]}]
			return float64(rank), ok
		})
		c.each(func(s string) { ids = t.appendPiece(ids, s) })
	}
	return ids
}
