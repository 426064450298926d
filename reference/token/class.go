package token

import (
	"unicode"
	"unicode/utf8"
)

// class is the general category of a character, as far as scanners ask; exactly one bit is set.
type class uint8

const (
	letter class = 1 << iota // L
	number                   // N
	space                    // \s
	punct                    // P
	symbol                   // S
	mark                     // M
	rest                     // unassigned, control, format, private use, and bytes that are not UTF-8
	other  = punct | symbol | mark | rest
)

// ascii is the class of the first 128 characters.
var ascii = func() (table [utf8.RuneSelf]class) {
	for i := range table {
		table[i] = classOf(rune(i))
	}
	return table
}()

// classOf looks a character up in Go's Unicode tables, which are of version 15.0; llama.cpp's are of 15.1, which added
// 622 ideographs and five symbols that describe some. Over all 1 114 112 code points the two agree so.
func classOf(r rune) class {
	switch {
	case r >= 0x2ebf0 && r <= 0x2ee5d:
		return letter
	case r >= 0x2ffc && r <= 0x2fff || r == 0x31ef:
		return symbol
	case unicode.IsLetter(r):
		return letter
	case unicode.IsSpace(r):
		return space
	case unicode.IsNumber(r):
		return number
	case unicode.IsPunct(r):
		return punct
	case unicode.IsSymbol(r):
		return symbol
	case unicode.IsMark(r):
		return mark
	}
	return rest
}

// first is the class of the first character of s, rest if s is empty.
func first(s string) class {
	if s == "" {
		return rest
	}
	if s[0] < utf8.RuneSelf {
		return ascii[s[0]]
	}
	r, _ := utf8.DecodeRuneInString(s)
	return classOf(r)
}

// width is the number of bytes of the first character of s; lastWidth that of the last.
func width(s string) int {
	if s[0] < utf8.RuneSelf {
		return 1
	}
	_, n := utf8.DecodeRuneInString(s)
	return n
}

func lastWidth(s string) int {
	_, n := utf8.DecodeLastRuneInString(s)
	return n
}

// run is the number of bytes at the start of s whose characters are in one of the classes.
func run(s string, c class) int {
	n := 0
	for n < len(s) {
		if s[n] < utf8.RuneSelf {
			if ascii[s[n]]&c == 0 {
				break
			}
			n++
			continue
		}
		r, w := utf8.DecodeRuneInString(s[n:])
		if classOf(r)&c == 0 {
			break
		}
		n += w
	}
	return n
}

// runOf is run for at most so many characters.
func runOf(s string, c class, most int) int {
	n := 0
	for range most {
		if n == len(s) || first(s[n:])&c == 0 {
			break
		}
		n += width(s[n:])
	}
	return n
}

// between reports whether the first character is in one of the ranges, given as pairs, and its width.
func between(s string, pairs ...rune) (bool, int) {
	r, n := utf8.DecodeRuneInString(s)
	for i := 0; i < len(pairs); i += 2 {
		if r >= pairs[i] && r <= pairs[i+1] {
			return true, n
		}
	}
	return false, n
}

func runBetween(s string, pairs ...rune) int {
	at := 0
	for at < len(s) {
		in, n := between(s[at:], pairs...)
		if !in {
			break
		}
		at += n
	}
	return at
}

// matchAsian matches the ranges of deepseek-coder: most of the plane from Samaritan to the ideographs, and Hangul.
func matchAsian(s string) int { return runBetween(s, 0x4e00, 0x9fa5, 0x800, 0x4e00, 0xac00, 0xd7ff) }

// matchKana matches ideographs, Hiragana and Katakana, the ranges of deepseek-v3.
func matchKana(s string) int { return runBetween(s, 0x4e00, 0x9fa5, 0x3040, 0x309f, 0x30a0, 0x30ff) }
