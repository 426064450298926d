// Package token turns text into the token ids of a model and back.
//
// Two families cover the models of the edge. SPM ("llama" in GGUF) works on
// characters with a score per token and falls back to bytes; byte-level BPE
// ("gpt2") cuts the text into words by a hand-written scanner and merges bytes
// by rank. Both are read from the metadata of a GGUF file, handed over as a
// plain Metadata so that this package needs no file format:
//
//	m, err := token.FromMap(file.Metadata) // keys tokenizer.ggml.*
//	t, err := token.New(m)
//	ids := t.Encode("where is the cup")
//	text := t.Decode(ids)
//
// Train makes a small vocabulary of our own, and Metadata.Map writes it back.
//
// Encode never sees special tokens in its text: user input cannot forge an end
// of text. EncodePrompt does, and adds what the metadata asks for. A conversation
// is written down by a Template and read by EncodeChat, which recognises special
// tokens in what the template wrote and nowhere else:
//
//	f, err := t.Template() // of the family that the vocabulary's chat template is of
//	p, err := f.Render([]token.Message{{Role: "user", Content: "where is the cup"}}, true)
//	ids := t.EncodeChat(p)
//
// For text in UTF-8, Decode(Encode(s)) == s, with two exceptions: an SPM model
// reads the character U+2581 as a space, and a vocabulary without byte tokens
// cannot spell everything (what it cannot spell becomes the unknown token, or
// nothing). Bytes that are not UTF-8 are U+FFFD to a byte-level model.
//
// Ids are those of llama.cpp (testdata/ids.txt), but for overlong UTF-8, which is
// refused here, and for special tokens that overlap, where the leftmost wins here
// as in the models' own tokenizers.
//
// What is not here: Unigram (T5), WordPiece, templates with tools.
package token

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"
)

// Type is the kind of a token, as numbered in tokenizer.ggml.token_type.
type Type int32

// Token types of GGUF (source: ggml's llama_token_type).
const (
	Normal      Type = 1
	Unknown     Type = 2
	Control     Type = 3
	UserDefined Type = 4
	Unused      Type = 5
	Byte        Type = 6
)

// Limits against hostile metadata: far above any published vocabulary.
const (
	maxTokens     = 1 << 21
	maxTokenBytes = 1 << 16
)

// Metadata is what a tokenizer is made of; the field comments name the GGUF key
// after "tokenizer.ggml.".
type Metadata struct {
	Model          string    // model: "llama" (SPM) or "gpt2" (byte-level BPE)
	Pre            string    // pre: the word scanner of BPE, see PreTokenizers; "" is "default"
	Tokens         []string  // tokens, in id order
	Scores         []float32 // scores: SPM only, one per token
	Types          []int32   // token_type: empty means all normal
	Merges         []string  // merges: BPE only, "left right", best first
	BOS, EOS, UNK  int32     // *_token_id, -1 when absent
	AddBOS, AddEOS bool      // add_*_token
	AddSpacePrefix bool      // add_space_prefix: SPM only
	StripRight     bool      // special tokens take the white space behind them (Phi-3); GGUF has no key, see FromMap
	ChatTemplate   string    // tokenizer.chat_template, see TemplateOf
}

// Tokenizer encodes and decodes. It is read-only after New and safe for
// concurrent use.
type Tokenizer struct {
	meta    Metadata
	pieces  []string         // id → what it decodes to ("" for control tokens)
	types   []Type           // id → type
	ids     map[string]int32 // raw bytes → id, normal tokens only
	bytes   [256]int32       // byte → id, or -1
	symbol  [256]int32       // byte → symbol, see merge
	strange []string         // symbols that are no tokens
	merges  map[uint64]merge // pair of symbols → what they become
	fixed   []atomic.Uint32  // id → whether the merges of its text lead to it, once that is known
	joined  map[rune]bool    // characters that stand before a space inside a token: SPM only
	scanner []pass
	whole   bool // a word that is itself a token skips the merges (llama-bpe)
	always  *specials
	prompts *specials
}

// New checks the metadata and builds the tokenizer. Every fault is an error
// that says which key is wrong; hostile input never panics.
func New(m Metadata) (*Tokenizer, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("read tokenizer: %w", err)
	}
	t := &Tokenizer{meta: m, ids: make(map[string]int32, len(m.Tokens)), pieces: make([]string, len(m.Tokens)), types: make([]Type, len(m.Tokens))}
	for i := range t.bytes {
		t.bytes[i] = -1
	}
	var err error
	switch m.Model {
	case "llama":
		t.addSPM()
	case "gpt2":
		err = t.addBPE()
	default:
		err = fmt.Errorf("tokenizer.ggml.model %.40q is not supported, have llama (SPM) and gpt2 (byte-level BPE)", m.Model)
	}
	if err != nil {
		return nil, fmt.Errorf("read tokenizer: %w", err)
	}
	t.always, t.prompts = newSpecials(t, UserDefined), newSpecials(t, UserDefined, Control, Unknown)
	return t, nil
}

func (m Metadata) check() error {
	n := len(m.Tokens)
	switch {
	case n == 0:
		return errors.New("tokenizer.ggml.tokens is empty or missing")
	case n > maxTokens:
		return fmt.Errorf("tokenizer.ggml.tokens has %d entries, want at most %d", n, maxTokens)
	case len(m.Merges) > 4*maxTokens:
		return fmt.Errorf("tokenizer.ggml.merges has %d entries, want at most %d", len(m.Merges), 4*maxTokens)
	case len(m.Types) != 0 && len(m.Types) != n:
		return fmt.Errorf("tokenizer.ggml.token_type has %d entries for %d tokens", len(m.Types), n)
	case m.Model == "llama" && len(m.Scores) != n:
		return fmt.Errorf("tokenizer.ggml.scores has %d entries for %d tokens", len(m.Scores), n)
	}
	for i, s := range m.Tokens {
		if len(s) > maxTokenBytes {
			return fmt.Errorf("tokenizer.ggml.tokens[%d] is %d bytes long, want at most %d", i, len(s), maxTokenBytes)
		}
	}
	for i, v := range m.Scores {
		if v != v {
			return fmt.Errorf("tokenizer.ggml.scores[%d] is not a number", i)
		}
	}
	for _, id := range []struct {
		key string
		id  int32
	}{{"bos", m.BOS}, {"eos", m.EOS}, {"unknown", m.UNK}} {
		if id.id < -1 || int(id.id) >= n {
			return fmt.Errorf("tokenizer.ggml.%s_token_id is %d, want one of %d tokens", id.key, id.id, n)
		}
	}
	if m.AddBOS && m.BOS < 0 || m.AddEOS && m.EOS < 0 {
		return errors.New("tokenizer.ggml.add_bos_token or add_eos_token is set without its token id")
	}
	return nil
}

// typeOf reads the type of a token; the ids named as bos and eos, and texts that
// are control tokens everywhere, are control tokens whatever the table says.
func (m Metadata) typeOf(id int) Type {
	if int32(id) == m.BOS || int32(id) == m.EOS || controls(m.Tokens[id]) {
		return Control
	}
	if len(m.Types) == 0 {
		return Normal
	}
	return Type(m.Types[id])
}

// Encode returns the ids of text, with no special tokens added or recognised.
func (t *Tokenizer) Encode(text string) []int32 {
	return t.encode(nil, text, t.always, nil)
}

// EncodePrompt returns the ids of a prompt: begin and end of text as the
// metadata asks, and control tokens written in the text (such as "</s>")
// recognised, longest first at each place. Do not pass it untrusted text.
func (t *Tokenizer) EncodePrompt(text string) []int32 {
	var ids []int32
	if t.meta.AddBOS {
		ids = append(ids, t.meta.BOS)
	}
	ids = t.encode(ids, text, t.prompts, nil)
	if t.meta.AddEOS {
		ids = append(ids, t.meta.EOS)
	}
	return ids
}

// Decode returns the text of ids. Control tokens and ids outside the
// vocabulary have no text; the space that an SPM model puts before the
// first word of a text, and after a special token, is taken away.
func (t *Tokenizer) Decode(ids []int32) string {
	var b strings.Builder
	spm := t.meta.Model == "llama" && t.meta.AddSpacePrefix
	boundary := spm
	for _, id := range ids {
		piece := t.Piece(id)
		if boundary && !t.special(id) {
			piece, boundary = strings.TrimPrefix(piece, " "), false
		}
		boundary = boundary || spm && t.special(id)
		b.WriteString(piece)
	}
	return b.String()
}

func (t *Tokenizer) special(id int32) bool {
	return id >= 0 && int(id) < len(t.types) && (t.types[id] == Control || t.types[id] == UserDefined)
}

// Piece returns the bytes of one token, possibly part of a character, and ""
// for control tokens and ids outside the vocabulary.
func (t *Tokenizer) Piece(id int32) string {
	if id < 0 || int(id) >= len(t.pieces) {
		return ""
	}
	return t.pieces[id]
}

// Len is the size of the vocabulary.
func (t *Tokenizer) Len() int { return len(t.pieces) }

// BOS and EOS are the ids that begin and end a text, -1 when there is none.
func (t *Tokenizer) BOS() int32 { return t.meta.BOS }

// EOS is the id that ends a text, -1 when there is none.
func (t *Tokenizer) EOS() int32 { return t.meta.EOS }

// Metadata returns what the tokenizer was made of; its slices are shared.
func (t *Tokenizer) Metadata() Metadata { return t.meta }

// Stream decodes tokens one by one and holds back an unfinished character.
// The zero value is not usable; see NewStream.
type Stream struct {
	t    *Tokenizer
	held string
}

// NewStream starts a stream in the middle of a text: unlike Decode it takes no
// leading space away.
func (t *Tokenizer) NewStream() *Stream { return &Stream{t: t} }

// Next returns the text that is complete with id, possibly none. Bytes that
// can no longer become a character are let through as they are.
func (s *Stream) Next(id int32) string {
	s.held += s.t.Piece(id)
	n := len(s.held) - unfinished(s.held)
	out := s.held[:n]
	s.held = s.held[n:]
	return out
}

// Flush returns the held bytes and empties the stream.
func (s *Stream) Flush() string {
	out := s.held
	s.held = ""
	return out
}

// unfinished is the length of a trailing start of a character, 0 to 3 bytes.
func unfinished(s string) int {
	for n := 1; n <= min(utf8.UTFMax-1, len(s)); n++ {
		if tail := s[len(s)-n:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRuneInString(tail) {
				return n
			}
			return 0
		}
	}
	return 0
}
