package token

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

func TestScan(t *testing.T) {
	for _, tc := range []struct{ name, pre, text, want string }{
		// | marks the cuts
		{"words take the space before", "gpt-2", "Hello world", "Hello| world"},
		{"contractions", "gpt-2", "I'm sure you'll", "I|'m| sure| you|'ll"},
		{"no contraction in capitals", "gpt-2", "I'M", "I|'|M"},
		{"numbers stay whole", "gpt-2", "pay 12345 now", "pay| 12345| now"},
		{"spaces leave one to the word", "gpt-2", "a   b", "a|  | b"},
		{"trailing spaces", "gpt-2", "a  ", "a|  "},
		{"line breaks", "gpt-2", "a\n\nb", "a|\n|\n|b"},
		{"marks", "gpt-2", "x =>y", "x| =>|y"},
		{"llama takes capitals", "llama-bpe", "I'M", "I|'M"},
		{"llama cuts digits by three", "llama-bpe", "1234567", "123|456|7"},
		{"llama does not join a space to digits", "llama-bpe", "a 12", "a| |12"},
		{"llama joins any mark to a word", "llama-bpe", "(word)", "(word|)"},
		{"llama keeps line breaks with marks", "llama-bpe", "end.\n\nnew", "end|.\n\n|new"},
		{"llama keeps space before breaks", "llama-bpe", "a \n b", "a| \n| b"},
		{"qwen2 cuts single digits", "qwen2", "a 12", "a| |1|2"},
		{"smollm cuts digits first", "smollm", "a 12 b", "a| |1|2| b"},
		{"default cuts marks, then digits by three", "default", "a=1234 b.", "a|=|123|4| b|."},
		{"default keeps a space off digits", "", "a 12", "a| |12"},
		{"bytes that are not text", "gpt-2", "a\xffb", "a|\xff|b"},
		{"other scripts", "gpt-2", "日本 語", "日本| 語"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := scannerOf(tc.pre)
			require.NoError(t, err)
			require.Equal(t, strings.Split(tc.want, "|"), words(s.passes, tc.text))
		})
	}
}

func words(passes []pass, text string) (list []string) {
	scan(passes, text, func(w string) {
		if w != "" {
			list = append(list, w)
		}
	})
	return list
}

// expressions of the scanners, for an oracle over Go's regexp: alternatives are
// tried in order at each place, and "spaces" is \s+(?!\S).
const (
	ws       = `[\t-\r \x{85}\p{Z}]`
	upper    = `[A-Zé日]`
	lower    = `[a-zé日]`
	short    = `(?:'[sStTmMdD]|'[rRvV][eE]|'[lL][lL])?`
	notOther = `\t-\r \x{85}\p{Z}\p{L}\p{N}`
)

var alternatives = map[string][]string{
	"gpt-2": {`'s|'t|'re|'ve|'m|'ll|'d`, ` ?\p{L}+`, ` ?\p{N}+`, ` ?[^` + notOther + `]+`, "spaces", ws + `+`},
	"llama3": {`'[sStTmMdD]|'[rRvV][eE]|'[lL][lL]`, `[^\r\n\p{L}\p{N}]?\p{L}+`, `\p{N}{1,3}`,
		` ?[^` + notOther + `]+[\r\n]*`, ws + `*[\r\n]+`, "spaces", ws + `+`},
	// Upper and lower stand for letters that are not a-z and not A-Z, in the alphabet of the test.
	"tekken": {`[^\r\n\p{L}\p{N}]?` + upper + `*` + lower + `+|[^\r\n\p{L}\p{N}]?` + upper + `+` + lower + `*`, `\p{N}`,
		` ?[^` + notOther + `]+[\r\n/]*`, ws + `*[\r\n]+`, "spaces", ws + `+`},
	"gpt-4o": {`[^\r\n\p{L}\p{N}]?` + upper + `*` + lower + `+` + short + `|[^\r\n\p{L}\p{N}]?` + upper + `+` + lower + `*` + short, `\p{N}{1,3}`,
		` ?[^` + notOther + `]+[\r\n/]*`, ws + `*[\r\n]+`, "spaces", ws + `+`},
	"qwen35": {`'[sStTmMdD]|'[rRvV][eE]|'[lL][lL]`, `[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+`, `\p{N}`,
		` ?[^\p{M}` + notOther + `]+[\r\n]*`, ws + `*[\r\n]+`, "spaces", ws + `+`},
	"qwen2": {`'[sStTmMdD]|'[rRvV][eE]|'[lL][lL]`, `[^\r\n\p{L}\p{N}]?\p{L}+`, `\p{N}`,
		` ?[^` + notOther + `]+[\r\n]*`, ws + `*[\r\n]+`, "spaces", ws + `+`},
}

func TestScanAgainstRegexp(t *testing.T) {
	alphabet := []rune("abAB Z's'llreRE/ 12\u00b2\n\r\t  .,-=é日\u00a0\u0301€")
	for pre, alts := range alternatives {
		var res []*regexp.Regexp
		for _, a := range alts {
			if a == "spaces" {
				res = append(res, nil)
				continue
			}
			res = append(res, regexp.MustCompile(`^(?:`+a+`)`))
		}
		s, err := scannerOf(pre)
		require.NoError(t, err)
		r := rng.Stream(1, "scan", pre)
		for range 4000 {
			text := make([]rune, 1+r.IntN(12))
			for i := range text {
				text[i] = alphabet[r.IntN(len(alphabet))]
			}
			require.Equal(t, oracle(res, string(text)), words(s.passes, string(text)), "%s on %q", pre, string(text))
		}
	}
}

func oracle(res []*regexp.Regexp, text string) (words []string) {
	space := regexp.MustCompile(`^` + ws + `+`)
next:
	for text != "" {
		for _, re := range res {
			m := ""
			if re != nil {
				m = re.FindString(text)
			} else if m = space.FindString(text); m != text && m != "" {
				runes := []rune(m) // back off by one so that no \S follows
				m = string(runes[:len(runes)-1])
			}
			if m != "" {
				words, text = append(words, m), text[len(m):]
				continue next
			}
		}
		panic("no alternative matches " + text)
	}
	return words
}
