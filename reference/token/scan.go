package token

import (
	"fmt"
	"strings"
)

// A pass cuts every piece of text further: it returns the length in bytes of the match at the start of s, which is not
// empty; 0 for no match there; -n for no match at any of the next n bytes. Stretches without a match stay together.
// Expressions are those of llama.cpp, written by hand because Go's regexp has no look-ahead and is slower.
type pass func(s string) int

// scanner is a named sequence of passes.
type scanner struct {
	name   string
	passes []pass
	whole  bool // see Tokenizer.whole
	bos    bool // add_bos_token unless the file says otherwise
}

var (
	gpt2Passes  = []pass{matchGPT2}
	digitPasses = []pass{matchDigit, matchGPT2}
	llama3      = []pass{(&style{letters: letter, digits: 3, tail: "\r\n", fold: true}).match}
	qwen2       = []pass{(&style{letters: letter, digits: 1, tail: "\r\n", fold: true}).match}
)

// scanners, sorted by name. The source of each is the tokenizer.json of the first model that used it.
//
//	gpt-2:     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//	llama-bpe: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
//	           | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//	qwen2:     as llama-bpe, with single digits
//	qwen35:    as qwen2, with combining marks among the letters
//	gpt-4o:    as llama-bpe, but words end where a capital follows a small letter, contractions stay with their word, and
//	           slashes may follow marks; tekken: so, with single digits and no contractions
var scanners = []scanner{
	{name: "command-r", passes: digitPasses},
	{name: "dbrx", passes: llama3},
	{name: "deepseek-coder", passes: []pass{matchBreak, spaced(letter), spaced(punct), matchAsian, matchDigit}},
	{name: "deepseek-r1-qwen", passes: qwen2},
	{name: "deepseek-v3", passes: []pass{matchThreeNumbers, matchKana, matchDeepseek3}},
	{name: "default", passes: []pass{marks("$+<=>^~|"), matchGPT2, matchNumber, matchThree}},
	{name: "falcon", passes: []pass{marks("$+<=>^~|`"), matchGPT2, matchThree}},
	{name: "falcon3", passes: llama3, whole: true, bos: true},
	{name: "gpt-2", passes: gpt2Passes},
	{name: "gpt-4o", passes: []pass{(&style{letters: letter, digits: 3, tail: "\r\n/", cased: true, suffix: true}).match}},
	{name: "lfm2", passes: llama3, whole: true, bos: true},
	{name: "llama-bpe", passes: llama3, whole: true, bos: true},
	{name: "llama-v3", passes: llama3, whole: true, bos: true},
	{name: "llama3", passes: llama3, whole: true, bos: true},
	{name: "megrez", passes: qwen2},
	{name: "mpt", passes: gpt2Passes},
	{name: "olmo", passes: gpt2Passes},
	{name: "phi-2", passes: gpt2Passes},
	{name: "qwen2", passes: qwen2},
	{name: "qwen35", passes: []pass{(&style{letters: letter | mark, digits: 1, tail: "\r\n", fold: true}).match}},
	{name: "refact", passes: digitPasses},
	{name: "smaug-bpe", passes: llama3},
	{name: "smollm", passes: digitPasses},
	{name: "stablelm2", passes: qwen2},
	{name: "starcoder", passes: digitPasses},
	{name: "tekken", passes: []pass{(&style{letters: letter, digits: 1, tail: "\r\n/", cased: true}).match}, whole: true, bos: true},
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

// scan cuts text into words and visits them in order. Bytes that are not UTF-8 count as one symbol each.
func scan(passes []pass, text string, visit func(word string)) {
	if text == "" {
		return
	}
	if len(passes) == 0 {
		visit(text)
		return
	}
	match, rest := passes[0], passes[1:]
	gap := 0 // start of a stretch without a match
	for at := 0; at < len(text); {
		n := match(text[at:])
		switch {
		case n < 0:
			at -= n
			continue
		case n == 0:
			at += width(text[at:])
			continue
		}
		scan(rest, text[gap:at], visit)
		scan(rest, text[at:at+n], visit)
		at += n
		gap = at
	}
	scan(rest, text[gap:], visit)
}

// contraction matches 's 't 're 've 'm 'll 'd; fold also takes capitals.
func contraction(s string, fold bool) int {
	if len(s) < 2 || s[0] != '\'' {
		return 0
	}
	at := func(i int) byte {
		if i >= len(s) {
			return 0
		}
		if c := s[i]; fold && c >= 'A' && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return s[i]
	}
	switch a, b := at(1), at(2); {
	case a == 's' || a == 't' || a == 'm' || a == 'd':
		return 2
	case a == 'r' && b == 'e', a == 'v' && b == 'e', a == 'l' && b == 'l':
		return 3
	}
	return 0
}

// spaces matches \s+(?!\S)|\s+ : white space, less its last character if text follows, unless it is the only one.
func spaces(s string) int {
	n := run(s, space)
	if n == len(s) {
		return n
	}
	if last := n - lastWidth(s[:n]); last > 0 {
		return last
	}
	return n
}

// breaks matches \s*[\r\n]+ : white space up to and with its last line break.
func breaks(s string) int {
	return 1 + strings.LastIndexAny(s[:run(s, space)], "\r\n")
}

func matchGPT2(s string) int {
	if n := contraction(s, false); n > 0 {
		return n
	}
	lead := 0
	if s[0] == ' ' && len(s) > 1 {
		lead = 1
	}
	switch c := first(s[lead:]); {
	case c&(letter|number) != 0:
		return lead + run(s[lead:], c)
	case c&other != 0:
		return lead + run(s[lead:], other)
	}
	return spaces(s)
}

// style is a scanner of the family of llama-bpe.
type style struct {
	letters class  // that make a word
	digits  int    // longest run of digits kept together
	tail    string // bytes that may follow marks
	fold    bool   // contractions stand alone, in small letters or capitals
	cased   bool   // a word is capitals, then small letters
	suffix  bool   // a contraction may end a word
}

func (y *style) match(s string) int {
	if y.fold {
		if n := contraction(s, true); n > 0 {
			return n
		}
	}
	c := first(s)
	if n := y.word(s, c); n > 0 {
		return n
	}
	if c == number {
		return runOf(s, number, y.digits)
	}
	lead := 0
	if s[0] == ' ' {
		lead = 1
	}
	if n := lead + run(s[lead:], other&^y.letters); n > lead {
		for n < len(s) && strings.IndexByte(y.tail, s[n]) >= 0 {
			n++
		}
		return n
	}
	if n := breaks(s); n > 0 {
		return n
	}
	return spaces(s)
}

// word matches letters behind at most one character that is no letter, number or line break.
func (y *style) word(s string, c class) int {
	lead := 0
	if c&y.letters == 0 {
		if c == number || s[0] == '\r' || s[0] == '\n' {
			return 0
		}
		lead = width(s)
	}
	n := 0
	if y.cased {
		n = cased(s[lead:])
	} else {
		n = run(s[lead:], y.letters)
	}
	if n == 0 {
		return 0
	}
	n += lead
	if y.suffix {
		n += contraction(s[n:], true)
	}
	return n
}

// cased matches [^a-z]*[^A-Z]+ or else [^a-z]+[^A-Z]* among letters, as llama.cpp approximates the classes of upper
// and lower case: letters beyond ASCII are in both.
func cased(s string) int {
	small := func(b byte) bool { return b >= 'a' && b <= 'z' }
	capital := func(b byte) bool { return b >= 'A' && b <= 'Z' }
	upper, both := 0, -1 // end of the run of non-small letters; end of its last letter that is in both classes
	for upper < len(s) && !small(s[upper]) && first(s[upper:]) == letter {
		at := upper
		upper += width(s[upper:])
		if !capital(s[at]) {
			both = upper
		}
	}
	n := upper
	for n < len(s) && !capital(s[n]) && first(s[n:]) == letter {
		n += width(s[n:])
	}
	if n == upper && both > 0 { // no small letter follows: give capitals back up to one that may stand for it
		return both
	}
	return n
}

func matchBreak(s string) int {
	if s[0] == '\r' || s[0] == '\n' {
		return 1
	}
	return 0
}

// spaced matches \s? and then a run of a class.
func spaced(c class) pass {
	return func(s string) int {
		lead := 0
		if first(s) == space {
			lead = width(s)
		}
		if n := run(s[lead:], c); n > 0 {
			return lead + n
		}
		return 0
	}
}

// matchDeepseek3 matches [!-/:-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func matchDeepseek3(s string) int {
	c := first(s)
	if s[0] < 0x80 && c&(punct|symbol) != 0 {
		n := 1
		for n < len(s) && (s[n]|0x20) >= 'a' && (s[n]|0x20) <= 'z' {
			n++
		}
		if n > 1 {
			return n
		}
	}
	lead := 0
	if s[0] != '\r' && s[0] != '\n' && c&(letter|punct|symbol) == 0 {
		lead = width(s)
	}
	if n := run(s[lead:], letter|mark); n > 0 {
		return lead + n
	}
	if n := run(s, letter|mark); n > 0 {
		return n
	}
	lead = 0
	if s[0] == ' ' {
		lead = 1
	}
	if n := lead + run(s[lead:], punct|symbol); n > lead {
		for n < len(s) && matchBreak(s[n:]) > 0 {
			n++
		}
		return n
	}
	if n := breaks(s); n > 0 {
		return n
	}
	return spaces(s)
}

func matchDigit(s string) int        { return runOf(s, number, 1) }
func matchThreeNumbers(s string) int { return runOf(s, number, 3) }
func matchNumber(s string) int       { return run(s, number) }

func matchThree(s string) int {
	for i := range 3 {
		if i >= len(s) || s[i] < '0' || s[i] > '9' {
			return 0
		}
	}
	return 3
}

// marks matches a run of punctuation and of the ASCII symbols given.
func marks(symbols string) pass {
	return func(s string) int {
		n := 0
		for n < len(s) && (first(s[n:]) == punct || strings.IndexByte(symbols, s[n]) >= 0) {
			n += width(s[n:])
		}
		return n
	}
}
