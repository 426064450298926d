package token

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/gguf"
)

// corpus is testdata/corpus.txt: one text a line, quoted as in Go. It was written for this test: some forty scripts,
// combining marks, emoji, contractions, runs of white space, digits, code, control tokens, bytes that are not UTF-8.
func corpus(t testing.TB) []string {
	f, err := os.Open("testdata/corpus.txt")
	require.NoError(t, err)
	defer f.Close()
	var texts []string
	for in := bufio.NewScanner(f); in.Scan(); {
		s, err := strconv.Unquote(in.Text())
		require.NoError(t, err)
		texts = append(texts, s)
	}
	require.Greater(t, len(texts), 200)
	return texts
}

// goldenPres are the scanners with ids in testdata; the others share their expressions.
var goldenPres = []string{"deepseek-coder", "deepseek-v3", "default", "falcon", "gpt-2", "gpt-4o", "llama-bpe", "qwen2", "qwen35", "smollm", "tekken"}

// TestIDs compares with ids that llama.cpp (b10573) gave for the same texts and vocabularies: those that Train makes of
// the corpus itself, 1 200 tokens each, written as GGUF files. One line per scanner and text, special tokens recognised.
func TestIDs(t *testing.T) {
	texts := corpus(t)
	f, err := os.Open("testdata/ids.txt")
	require.NoError(t, err)
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for _, pre := range goldenPres {
		m, err := Train(slices.Values(texts), 1200, pre)
		require.NoError(t, err)
		tok := build(t, m)
		for i, text := range texts {
			require.True(t, in.Scan())
			require.Equal(t, in.Text(), fmt.Sprint(pre, " ", i, " ", tok.EncodePrompt(text)), "%q", text)
		}
	}
	require.False(t, in.Scan())
}

// TestForeignVocabularies runs over GGUF files of other people's vocabularies, whose licences do not allow a copy here.
// MEIBENCH_VOCABS names a directory of NAME.gguf and NAME.ids: for each text of the corpus a line with the ids that
// another engine gave, special tokens recognised and begin of text added, as fmt.Sprint writes a list.
func TestForeignVocabularies(t *testing.T) {
	dir := os.Getenv("MEIBENCH_VOCABS")
	if dir == "" {
		t.Skip("MEIBENCH_VOCABS is not set")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.gguf"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			tok := fromGGUF(t, path)
			raw, err := os.ReadFile(strings.TrimSuffix(path, ".gguf") + ".ids")
			require.NoError(t, err)
			lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
			texts := corpus(t)
			require.Len(t, lines, len(texts))
			for i, text := range texts {
				require.Equal(t, lines[i], fmt.Sprint(tok.EncodePrompt(text)), "%q", text)
			}
		})
	}
}

func fromGGUF(t *testing.T, path string) *Tokenizer {
	f, err := gguf.Open(path)
	require.NoError(t, err)
	defer f.Close()
	kv := map[string]any{}
	for _, e := range f.KV {
		kv[e.Key] = e.Value
	}
	m, err := FromMap(kv)
	require.NoError(t, err)
	return build(t, m)
}

// Overlong UTF-8 is refused, as the Unicode standard demands: each byte is unknown. (llama.cpp reads c0 af as a slash.)
func TestBrokenBytes(t *testing.T) {
	tok := build(t, bpeModel(t))
	unknown := []int32{2 + 0xef, 2 + 0xbf, 2 + 0xbd} // U+FFFD; byte b has id 2 + b
	require.Equal(t, slices.Concat(unknown, unknown), tok.Encode("\xc0\xaf"))
	require.Equal(t, slices.Concat([]int32{2 + 'a'}, unknown, []int32{2 + 'b'}), tok.Encode("a\xffb"))
}

// TestLongRuns: a megabyte of one letter, or of spaces, takes time and memory in proportion.
func TestLongRuns(t *testing.T) {
	for _, m := range []Metadata{bpeModel(t), spmModel()} {
		tok := build(t, m)
		for _, text := range []string{strings.Repeat("l", 1<<18), strings.Repeat(" ", 1<<18) + "l", strings.Repeat("\n ", 1<<17) + "l"} {
			require.Equal(t, text, tok.Decode(tok.Encode(text)))
			perByte := testing.AllocsPerRun(1, func() { tok.Encode(text) }) / float64(len(text))
			require.Less(t, perByte, 0.6, "allocations for each byte")
		}
	}
}

// TestLongEqualsShort: the two ways to merge a word agree wherever both can be used.
func TestLongEqualsShort(t *testing.T) {
	bpe, spm := build(t, bpeModel(t)), build(t, spmModel())
	words := []string{"l", "ll", "lll", "hello", "hellhell", "\u2581hell", "o\u2581\u2581", "newest", "lowest", "lowlowlow", "日本", "o\u2581hello\u2581"}
	for _, w := range words {
		a, b := wordEncoder{t: bpe}, wordEncoder{t: bpe}
		a.short(w)
		b.long(w)
		require.Equal(t, a.ids, b.ids, w)
		c, d := spmEncoder{t: spm}, spmEncoder{t: spm}
		c.short(w)
		d.long(w)
		require.Equal(t, c.ids, d.ids, w)
		// cut into words or not
		require.Equal(t, d.ids, spm.encodeSPM(nil, w, false), w)
	}
}

// TestTrainAgainstCounting counts all pairs anew before each merge, as the definition says.
func TestTrainAgainstCounting(t *testing.T) {
	texts := corpus(t)
	m, err := Train(slices.Values(texts), 500, "gpt-2")
	require.NoError(t, err)
	s, err := scannerOf("gpt-2")
	require.NoError(t, err)
	words := countWords(s.passes, slices.Values(texts))
	for i, merge := range m.Merges {
		counts := map[[2]string]int{}
		for _, w := range words {
			for j := 1; j < len(w.symbols); j++ {
				counts[[2]string{w.symbols[j-1], w.symbols[j]}] += w.count
			}
		}
		var best [2]string
		for p, n := range counts {
			if n > counts[best] || n == counts[best] && (p[0] < best[0] || p[0] == best[0] && p[1] < best[1]) {
				best = p
			}
		}
		require.Equal(t, shownBytes(best[0])+" "+shownBytes(best[1]), merge, "merge %d", i)
		for j := range words {
			words[j].join(best)
		}
	}
}
