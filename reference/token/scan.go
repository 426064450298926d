package token

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A pass cuts every piece of text further: it returns the length in runes of
// the match at the start of the runes, or 0 for no match there. Stretches
// without a match stay together. Expressions are those of llama.cpp, written
// by hand because Go's regexp has no look-ahead and is slower.
type pass func(r []rune) int

// scanner is a named sequence of passes.
type scanner struct {
	name   string
	passes []pass
	whole  bool // see Tokenizer.whole
}

// scanners, sorted by name.
//
//	gpt2:  's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//	llama: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
//	       | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//	qwen2: as llama, with single digits
var scanners = []scanner{
	{"default", []pass{matchMarks, matchGPT2, matchDigits, matchThree}, false},
	{"gpt-2", []pass{matchGPT2}, false},
	{"llama-bpe", []pass{llamaPass(3)}, true},
	{"llama-v3", []pass{llamaPass(3)}, true},
	{"llama3", []pass{llamaPass(3)}, true},
	{"qwen2", []pass{llamaPass(1)}, false},
	{"smollm", []pass{matchDigit, matchGPT2}, false},
}

// PreTokenizers lists the supported values of tokenizer.ggml.pre.
func PreTokenizers() []string {
	names := make([]string, len(scanners))
	for i, s := range scanners {
		names[i] = s.name
	}
	return names
}

func scannerOf(name string) (scanner, error) {
	if name == "" {
		name = "default"
	}
	for _, s := range scanners {
		if s.name == name {
			return s, nil
		}
	}
	return scanner{}, fmt.Errorf("tokenizer.ggml.pre %.40q is not supported, have %s", name, strings.Join(PreTokenizers(), ", "))
}

// scan cuts text into words. Bytes that are not UTF-8 count as one symbol each.
func scan(passes []pass, text string) []string {
	runes := make([]rune, 0, len(text))
	ends := make([]int, 0, len(text)+1) // ends[i]: byte offset of rune i
	for at := 0; at < len(text); {
		r, n := utf8.DecodeRuneInString(text[at:])
		runes, ends = append(runes, r), append(ends, at)
		at += n
	}
	ends = append(ends, len(text))
	cuts := []int{len(runes)} // ends of the pieces, in runes
	for _, p := range passes {
		cuts = cutAll(p, runes, cuts)
	}
	words := make([]string, 0, len(cuts))
	from := 0
	for _, c := range cuts {
		words = append(words, text[ends[from]:ends[c]])
		from = c
	}
	if len(text) == 0 {
		return nil
	}
	return words
}

func cutAll(p pass, runes []rune, cuts []int) []int {
	var out []int
	from := 0
	for _, end := range cuts {
		gap := from // start of a stretch without a match
		for at := from; at < end; {
			n := p(runes[at:end])
			if n == 0 {
				at++
				continue
			}
			if gap < at {
				out = append(out, at)
			}
			at += n
			out = append(out, at)
			gap = at
		}
		if gap < end {
			out = append(out, end)
		}
		from = end
	}
	return out
}

func isLetter(r rune) bool { return unicode.IsLetter(r) }
func isNumber(r rune) bool { return unicode.IsNumber(r) }
func isSpace(r rune) bool  { return unicode.IsSpace(r) }
func isOther(r rune) bool  { return !isLetter(r) && !isNumber(r) && !isSpace(r) }
func isBreak(r rune) bool  { return r == '\r' || r == '\n' }

// run counts the runes at the start that satisfy is.
func run(r []rune, is func(rune) bool) int {
	n := 0
	for n < len(r) && is(r[n]) {
		n++
	}
	return n
}

// contraction matches 's 't 're 've 'm 'll 'd; fold also takes capitals.
func contraction(r []rune, fold bool) int {
	if len(r) < 2 || r[0] != '\'' {
		return 0
	}
	at := func(i int) rune {
		if i >= len(r) {
			return 0
		}
		if fold && r[i] < utf8.RuneSelf {
			return unicode.ToLower(r[i])
		}
		return r[i]
	}
	switch string([]rune{at(1), at(2)}) {
	case "re", "ve", "ll":
		return 3
	}
	if strings.ContainsRune("stmd", at(1)) {
		return 2
	}
	return 0
}

// spaces matches \s+(?!\S)|\s+ : white space, less its last character if text
// follows, unless it is the only one.
func spaces(r []rune) int {
	n := run(r, isSpace)
	if n > 1 && n < len(r) {
		return n - 1
	}
	return n
}

func matchGPT2(r []rune) int {
	if n := contraction(r, false); n > 0 {
		return n
	}
	lead := 0
	if r[0] == ' ' {
		lead = 1
	}
	for _, is := range []func(rune) bool{isLetter, isNumber, isOther} {
		if n := run(r[lead:], is); n > 0 {
			return lead + n
		}
	}
	return spaces(r)
}

// llamaPass is the scanner of Llama 3; digits is the longest run of digits kept together.
func llamaPass(digits int) pass {
	return func(r []rune) int {
		if n := contraction(r, true); n > 0 {
			return n
		}
		if n := run(r, isLetter); n > 0 {
			return n
		}
		if !isBreak(r[0]) && !isNumber(r[0]) {
			if n := run(r[1:], isLetter); n > 0 {
				return 1 + n
			}
		}
		if n := run(r, isNumber); n > 0 {
			return min(n, digits)
		}
		lead := 0
		if r[0] == ' ' {
			lead = 1
		}
		if n := run(r[lead:], isOther); n > 0 {
			n += lead
			return n + run(r[n:], isBreak)
		}
		// \s*[\r\n]+ : white space up to and with its last line break
		n := run(r, isSpace)
		for i := n; i > 0; i-- {
			if isBreak(r[i-1]) {
				return i
			}
		}
		return spaces(r)
	}
}

func matchDigit(r []rune) int  { return min(1, run(r, isNumber)) }
func matchDigits(r []rune) int { return run(r, isNumber) }

func matchThree(r []rune) int {
	if len(r) >= 3 && run(r[:3], func(c rune) bool { return c >= '0' && c <= '9' }) == 3 {
		return 3
	}
	return 0
}

// matchMarks matches [\p{P}$+<=>^~|]+.
func matchMarks(r []rune) int {
	return run(r, func(c rune) bool { return unicode.IsPunct(c) || strings.ContainsRune("$+<=>^~|", c) })
}
