package token

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// spmModel is a vocabulary small enough to merge by hand.
func spmModel() Metadata {
	m := Metadata{Model: "llama", BOS: 1, EOS: 2, UNK: 0, AddBOS: true, AddSpacePrefix: true}
	add := func(s string, score float32, kind Type) {
		m.Tokens, m.Scores, m.Types = append(m.Tokens, s), append(m.Scores, score), append(m.Types, int32(kind))
	}
	add("<unk>", 0, Unknown)
	add("<s>", 0, Control)
	add("</s>", 0, Control)
	for b := range 256 {
		add(fmt.Sprintf("<0x%02X>", b), 0, Byte) // byte b has id 3 + b
	}
	for i, s := range []string{"\u2581", "h", "e", "l", "o", "he", "ll", "hell", "\u2581hell", "lo", "o\u2581"} {
		add(s, -float32(i), Normal) // ids 259 to 269, earlier is better
	}
	add("<|tool|>", 0, UserDefined) // 270
	return m
}

func bpeModel(t testing.TB) Metadata {
	m, err := Train(slices.Values([]string{"low low low lower newest newest newest 12 12 widest"}), 300, "gpt-2")
	require.NoError(t, err)
	return m
}

func build(t testing.TB, m Metadata) *Tokenizer {
	tok, err := New(m)
	require.NoError(t, err)
	return tok
}

func TestSPM(t *testing.T) {
	tok := build(t, spmModel())
	for _, tc := range []struct {
		name, text string
		want       []int32
	}{
		// ▁ h e l l o: best pair is he (-5), then ll (-6), hell (-7), ▁hell (-8); "hello" is no token
		{"merges by score", "hello", []int32{267, 263}},
		{"a tie goes left", "lll", []int32{259, 265, 262}},
		{"bytes spell what is missing", "é", []int32{259, 3 + 0xc3, 3 + 0xa9}},
		{"nothing", "", nil},
		{"special text is text", "</s>", []int32{259, 3 + '<', 3 + '/', 3 + 's', 3 + '>'}},
		{"user-defined tokens are cut out, and a space prefix follows", "h<|tool|>h", []int32{259, 260, 270, 259, 260}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tok.Encode(tc.text)
			require.Equal(t, tc.want, got)
			require.Equal(t, tc.text, tok.Decode(got))
		})
	}
	require.Equal(t, []int32{1, 267, 263, 2, 259, 262}, tok.EncodePrompt("hello</s>l"))
	require.Equal(t, "hellol", tok.Decode([]int32{1, 267, 263, 2, 259, 262}))
	require.Empty(t, tok.Piece(-1)+tok.Piece(1<<30))
}

// Without byte tokens what cannot be spelled is unknown.
func TestUnknown(t *testing.T) {
	m := spmModel()
	for i := range m.Types {
		if m.Types[i] == int32(Byte) {
			m.Types[i] = int32(Unused)
		}
	}
	require.Equal(t, []int32{259, 0, 260}, build(t, m).Encode("éh"))
}

// "es" and "st" occur four times (newest ×3, widest), as do "lo" and "ow" (low
// ×3, lower): ties go to the smaller pair, so "es" is first, then "es"+"t",
// "lo" and "lo"+"w".
func TestTrain(t *testing.T) {
	m := bpeModel(t)
	require.Equal(t, []string{"e s", "es t", "l o", "lo w"}, m.Merges[:4])
	require.Equal(t, []string{"<s>", "</s>", "\u0100"}, m.Tokens[:3], "specials, then byte 0 as U+0100")
	require.Less(t, len(m.Tokens), 300, "no pair is left that occurs twice")
	again, err := Train(slices.Values([]string{"low lower widest newest newest", " low low newest 12 12"}), 300, "gpt-2")
	require.NoError(t, err)
	require.Equal(t, m, again, "counts decide, not order")

	tok := build(t, m)
	newest, ok := tok.ids[" newest"]
	require.True(t, ok)
	require.Equal(t, []int32{newest}, tok.Encode(" newest"))
	require.Equal(t, int32(0), tok.EncodePrompt("x")[0])
	for _, size := range []int{0, 257, maxTokens + 1} {
		_, err := Train(slices.Values([]string{"x"}), size, "gpt-2")
		require.ErrorContains(t, err, "size is")
	}
}

// byteRune: 188 printable bytes stand for themselves; the space is the 33rd
// byte (0x20) that is not printable, so U+0120; all 256 differ.
func TestByteAlphabet(t *testing.T) {
	require.Equal(t, 'A', byteRune('A'))
	require.Equal(t, '\u0100', byteRune(0))
	require.Equal(t, '\u0120', byteRune(' '))
	require.Equal(t, '\u0143', byteRune(0xad), "the last of 68")
	seen := map[int16]bool{}
	for _, b := range byteTable() {
		seen[b] = true
	}
	require.Len(t, seen, 257, "every byte, and none")
}

func TestMapRoundTrip(t *testing.T) {
	for _, m := range []Metadata{spmModel(), bpeModel(t)} {
		got, err := FromMap(m.Map())
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
	kv := map[string]any{
		"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": []any{"a", "b"}, "tokenizer.ggml.scores": []any{1.5, float32(2)},
		"tokenizer.ggml.token_type": []uint32{1, 1}, "tokenizer.ggml.bos_token_id": uint64(1),
	}
	got, err := FromMap(kv)
	require.NoError(t, err)
	require.Equal(t, Metadata{Model: "llama", Tokens: []string{"a", "b"}, Scores: []float32{1.5, 2}, Types: []int32{1, 1},
		BOS: 1, EOS: -1, UNK: -1, AddBOS: true, AddSpacePrefix: true}, got)
}

func TestRefusals(t *testing.T) {
	good := func(change func(*Metadata)) Metadata { m := bpeModel(t); change(&m); return m }
	for _, tc := range []struct {
		name string
		in   Metadata
		want string
	}{
		{"empty", Metadata{Model: "gpt2"}, "tokenizer.ggml.tokens is empty"},
		{"unknown model", good(func(m *Metadata) { m.Model = "t5" }), `model "t5" is not supported, have llama (SPM) and gpt2`},
		{"unknown scanner", good(func(m *Metadata) { m.Pre = "bloom" }), `pre "bloom" is not supported, have command-r, dbrx, deepseek-coder`},
		{"types", good(func(m *Metadata) { m.Types = m.Types[1:] }), "token_type has"},
		{"scores", good(func(m *Metadata) { m.Model = "llama" }), "scores has 0 entries"},
		{"bos", good(func(m *Metadata) { m.BOS = 9999 }), "bos_token_id is 9999"},
		{"eos", good(func(m *Metadata) { m.EOS, m.AddEOS = -1, true }), "set without its token id"},
		{"merge", good(func(m *Metadata) { m.Merges = []string{"nospace"} }), `merges[0] is "nospace"`},
		{"a long token", good(func(m *Metadata) { m.Tokens[5] = strings.Repeat("x", 1<<17) }), "tokens[5] is 131072 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(tc.in)
			require.ErrorContains(t, err, tc.want)
		})
	}
	for key, v := range map[string]any{"model": 3, "tokens": "abc", "bos_token_id": -1.5, "add_bos_token": 1, "scores": []any{"x"}, "token_type": []any{1e12}} {
		_, err := FromMap(map[string]any{keyPrefix + key: v})
		require.ErrorContains(t, err, keyPrefix+key)
	}
}

// A stream gives a character only when its last byte has come.
func TestStream(t *testing.T) {
	tok := build(t, bpeModel(t))
	s := tok.NewStream()
	euro := []byte("€") // three bytes; byte b has id 2 + b
	require.Equal(t, "", s.Next(2+int32(euro[0])))
	require.Equal(t, "", s.Next(2+int32(euro[1])))
	require.Equal(t, "€", s.Next(2+int32(euro[2])))
	require.Equal(t, "a", s.Next(2+'a'))
	require.Equal(t, "", s.Next(2+int32(euro[0])))
	require.Equal(t, "\xe2a", s.Next(2+'a'), "a broken character is let through")
	require.Equal(t, "", s.Next(2+int32(euro[0])))
	require.Equal(t, "\xe2", s.Flush())
	require.Equal(t, "", s.Flush())
}

func FuzzRoundTrip(f *testing.F) {
	for _, s := range []string{"", "hello", "where is the cup =>", " 12  34\n\nx's 'RE", "日本語 é\t€", "\xff\xfe", "low</s><s>lower", "<|tool|> a<|tool|>"} {
		f.Add(s)
	}
	var toks []*Tokenizer
	for _, pre := range PreTokenizers() {
		m := bpeModel(f)
		m.Pre = pre
		toks = append(toks, build(f, m))
	}
	toks = append(toks, build(f, spmModel()))
	f.Fuzz(func(t *testing.T, s string) {
		for _, tok := range toks {
			if !utf8.ValidString(s) || strings.Contains(s, spmSpace) {
				_ = tok.Decode(tok.EncodePrompt(s))
				continue
			}
			ids := tok.Encode(s)
			require.Equal(t, s, tok.Decode(ids))
			st, out := tok.NewStream(), ""
			for _, id := range ids {
				out += st.Next(id)
			}
			if tok.meta.Model == "gpt2" {
				require.Equal(t, s, out+st.Flush())
			}
		}
	})
}

// FuzzNew feeds metadata made of fuzzed text: any answer but a panic will do,
// and a tokenizer that is built must encode.
func FuzzNew(f *testing.F) {
	f.Add("llama", "", "<s>,a,b,ab", "", 1, 1)
	f.Add("gpt2", "qwen2", "<s>,a,b,ab,\u0120a", "a b,\u0120 a", 0, 3)
	f.Add("gpt2", "zzz", ",,,", " ,a,a a a", -7, 9)
	f.Fuzz(func(t *testing.T, model, pre, tokens, merges string, bos, kind int) {
		m := Metadata{Model: model, Pre: pre, Tokens: strings.Split(tokens, ","), Merges: strings.Split(merges, ","), BOS: int32(bos), EOS: -1, UNK: -1, AddSpacePrefix: true}
		for i := range m.Tokens {
			m.Scores, m.Types = append(m.Scores, float32(i)), append(m.Types, int32(kind+i%3))
		}
		tok, err := New(m)
		if err != nil {
			return
		}
		for _, text := range append(m.Tokens, merges, pre) {
			_ = tok.Decode(tok.EncodePrompt(text))
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	text := strings.Repeat(strings.Join(corpus(b), "\n"), 8)
	run := func(name string, m Metadata) {
		tok := build(b, m)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Encode(text)
			}
		})
	}
	run("model=llama", spmModel())
	for _, pre := range goldenPres {
		m, err := Train(slices.Values(corpus(b)), 1200, pre)
		require.NoError(b, err)
		run("model=gpt2/pre="+pre, m)
	}
}

func Example() {
	m, _ := Train(slices.Values([]string{"where is the red cup", "where is the blue cup"}), 300, "gpt-2")
	tok, _ := New(m)
	ids := tok.Encode("the cup is red")
	for _, id := range ids {
		fmt.Printf("%q ", tok.Piece(id))
	}
	fmt.Println(tok.Decode(ids))
	// Output: "t" "he" " cup" " is" " " "re" "d" the cup is red
}

// Phi-3's special tokens take the white space behind them, but for begin of text; the file says so by its name only.
func TestStripRight(t *testing.T) {
	kv := spmModel().Map()
	kv["general.name"] = "Phi-3 Mini"
	m, err := FromMap(kv)
	require.NoError(t, err)
	require.True(t, m.StripRight)
	m.AddSpacePrefix = false
	tok := build(t, m)
	require.Equal(t, []int32{1, 2, 260}, tok.EncodePrompt("</s> \n\t h"))
	require.Equal(t, []int32{270, 260}, tok.Encode("<|tool|>  h"))
	require.Equal(t, []int32{1, 1, 259, 260}, tok.EncodePrompt("<s> h"), "not begin of text")
}

func TestEnds(t *testing.T) {
	m := spmModel()
	for _, s := range []string{"<end_of_turn>", "<|eot_id|>", "<start_of_turn>"} {
		m.Tokens, m.Scores, m.Types = append(m.Tokens, s), append(m.Scores, 0), append(m.Types, int32(UserDefined))
	}
	tok := build(t, m)
	for id, want := range map[int32]bool{-1: false, 1: false, 2: true, 260: false, 270: false, 271: true, 272: true, 273: false, 1 << 30: false} {
		require.Equal(t, want, tok.Ends(id), "token %d", id)
	}
	// What ends a turn is a control token whatever the file says: text does not forge it.
	require.NotContains(t, tok.Encode("h<end_of_turn>"), int32(271))
	require.Contains(t, tok.EncodePrompt("h<end_of_turn>"), int32(271))
	require.Contains(t, tok.Encode("h<start_of_turn>"), int32(273))
}
