package token

import (
	"cmp"
	"slices"
	"strings"
)

// specials finds tokens that are matched in the text before it is tokenized: the longest at each place, from the left.
type specials struct {
	starts [256][]special // by first byte, longest first
}

type special struct {
	text  string
	id    int32
	plain bool // user-defined: also matched in text that is not trusted
	strip bool // white space behind it goes with it
}

func newSpecials(t *Tokenizer, types ...Type) *specials {
	s := &specials{}
	seen := map[string]bool{}
	for id, text := range t.meta.Tokens {
		if text == "" || seen[text] || !slices.Contains(types, t.types[id]) {
			continue
		}
		seen[text] = true
		strip := t.meta.StripRight && text != "<s>" && text != "<unk>" && text != "<|endoftext|>"
		s.starts[text[0]] = append(s.starts[text[0]], special{text, int32(id), t.types[id] == UserDefined, strip})
	}
	for i := range s.starts {
		slices.SortStableFunc(s.starts[i], func(a, b special) int { return cmp.Compare(len(b.text), len(a.text)) })
	}
	return s
}

// Texts of tokens that end an answer, and of those that mark a place to fill in, in published vocabularies. Files often
// forget to call them control tokens, so their text decides, as in llama.cpp: a prompt must not forge them.
var (
	endTexts = []string{"</s>", "<EOT>", "<end_of_turn>", "<end_of_utterance>", "<eos>", "<|call|>", "<|end_of_text|>", "<|endoftext|>",
		"<|end|>", "<|eom_id|>", "<|eot_id|>", "<|im_end|>", "<|return|>", "<｜end▁of▁sentence｜>", "[EOS]", "[EOT]", "_<EOT>"}
	fillTexts = []string{"<MID>", "<PRE>", "<REPO>", "<SUF>", "<fim-middle>", "<fim-pad>", "<fim-prefix>", "<fim-repo>", "<fim-suffix>",
		"<fim_middle>", "<fim_pad>", "<fim_prefix>", "<fim_suffix>", "<reponame>", "<|code_middle|>", "<|code_prefix|>", "<|code_suffix|>",
		"<|file_sep|>", "<|fim_middle|>", "<|fim_pad|>", "<|fim_prefix|>", "<|fim_repo|>", "<|fim_suffix|>", "<|middle|>", "<|prefix|>",
		"<|repo_name|>", "<|suffix|>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜fim▁hole｜>", "▁<MID>", "▁<PRE>", "▁<SUF>"}
)

// controls reports whether a token is a control token by its text.
func controls(text string) bool {
	if n := len(text); n < 4 || n > 40 || strings.IndexByte("<>[]_", text[0]) < 0 && text[0] != spmSpace[0] {
		return false // most tokens
	}
	return slices.Contains(endTexts, text) || slices.Contains(fillTexts, text)
}

// Ends reports whether id ends an answer: the end of text, or a token that published vocabularies end a turn with.
func (t *Tokenizer) Ends(id int32) bool {
	if id < 0 || int(id) >= len(t.types) {
		return false
	}
	return id == t.meta.EOS || t.types[id] == Control && slices.Contains(endTexts, t.meta.Tokens[id])
}

// match returns the longest special token that text begins with, or nil.
func (s *specials) match(text string, accept func(*special) bool) *special {
	list := s.starts[text[0]]
	for i := range list {
		if strings.HasPrefix(text, list[i].text) && (accept == nil || accept(&list[i])) {
			return &list[i]
		}
	}
	return nil
}

// encode cuts special tokens out of text and tokenizes what is between them. accept, if not nil, may refuse a special
// token at a place.
func (t *Tokenizer) encode(ids []int32, text string, s *specials, accept func(at int, p *special) bool) []int32 {
	boundary := true // a space prefix goes after a special token, too
	emit := func(run string) {
		switch {
		case run == "":
		case t.meta.Model == "llama":
			ids = t.encodeSPM(ids, run, boundary && t.meta.AddSpacePrefix)
			boundary = false
		default:
			ids = t.encodeBPE(ids, run)
		}
	}
	start := 0
	for at := 0; at < len(text); {
		if len(s.starts[text[at]]) == 0 {
			at++
			continue
		}
		var here func(*special) bool
		if accept != nil {
			here = func(p *special) bool { return accept(at, p) }
		}
		p := s.match(text[at:], here)
		if p == nil {
			at++
			continue
		}
		emit(text[start:at])
		ids, boundary = append(ids, p.id), true
		at += len(p.text)
		for p.strip && at < len(text) && strings.IndexByte(" \t\n\v\f\r", text[at]) >= 0 {
			at++
		}
		start = at
	}
	emit(text[start:])
	return ids
}
