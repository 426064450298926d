package token

import (
	"fmt"
	"math"
	"strings"
)

const keyPrefix = "tokenizer.ggml."

// FromMap reads the tokenizer.ggml.* keys of a GGUF file. Numbers may be of any
// integer or float type and lists may be typed or []any, so that every reader's
// map fits. Absent keys take GGUF's defaults: add_bos_token and
// add_space_prefix are true for the llama model and false for gpt2.
func FromMap(kv map[string]any) (Metadata, error) {
	r := mapReader{kv: kv}
	m := Metadata{Model: r.text("model"), Pre: r.text("pre")}
	spm := m.Model == "llama"
	m.Tokens, m.Merges = list[string](&r, "tokens"), list[string](&r, "merges")
	m.Scores, m.Types = list[float32](&r, "scores"), list[int32](&r, "token_type")
	m.BOS, m.EOS, m.UNK = r.id("bos_token_id"), r.id("eos_token_id"), r.id("unknown_token_id")
	scan, _ := scannerOf(m.Pre) // New refuses what is unknown
	m.AddBOS = r.flag("add_bos_token", (spm || scan.bos) && m.BOS >= 0)
	m.AddEOS = r.flag("add_eos_token", false)
	m.AddSpacePrefix = r.flag("add_space_prefix", spm)
	m.ChatTemplate, _ = kv["tokenizer.chat_template"].(string)
	if name, _ := kv["general.name"].(string); m.Model != "" {
		name = strings.ToLower(name)
		m.StripRight = strings.Contains(name, "phi-3") || strings.Contains(name, "phi3")
	}
	if r.err != nil {
		return Metadata{}, fmt.Errorf("read tokenizer: %w", r.err)
	}
	return m, nil
}

// Map returns the keys to write into a GGUF file: string, uint32, bool,
// []string, []float32 and []int32 values.
func (m Metadata) Map() map[string]any {
	kv := map[string]any{
		keyPrefix + "model":         m.Model,
		keyPrefix + "tokens":        m.Tokens,
		keyPrefix + "add_bos_token": m.AddBOS,
		keyPrefix + "add_eos_token": m.AddEOS,
	}
	if m.Model == "gpt2" {
		kv[keyPrefix+"pre"], kv[keyPrefix+"merges"] = m.Pre, m.Merges
	} else {
		kv[keyPrefix+"add_space_prefix"] = m.AddSpacePrefix
		kv[keyPrefix+"scores"] = m.Scores
	}
	if m.ChatTemplate != "" {
		kv["tokenizer.chat_template"] = m.ChatTemplate
	}
	if len(m.Types) > 0 {
		kv[keyPrefix+"token_type"] = m.Types
	}
	for _, id := range []struct {
		key string
		id  int32
	}{{"bos_token_id", m.BOS}, {"eos_token_id", m.EOS}, {"unknown_token_id", m.UNK}} {
		if id.id >= 0 {
			kv[keyPrefix+id.key] = uint32(id.id)
		}
	}
	return kv
}

// mapReader reads typed values and keeps the first fault.
type mapReader struct {
	kv  map[string]any
	err error
}

func (r *mapReader) fail(key string, v any, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s%s is %T, want %s", keyPrefix, key, v, want)
	}
}

func (r *mapReader) text(key string) string {
	v, ok := r.kv[keyPrefix+key]
	s, is := v.(string)
	if ok && !is {
		r.fail(key, v, "a string")
	}
	return s
}

func (r *mapReader) flag(key string, absent bool) bool {
	v, ok := r.kv[keyPrefix+key]
	if !ok {
		return absent
	}
	b, is := v.(bool)
	if !is {
		r.fail(key, v, "a bool")
	}
	return b
}

func (r *mapReader) id(key string) int32 {
	v, ok := r.kv[keyPrefix+key]
	if !ok {
		return -1
	}
	n, is := numeric(v)
	if !is || n < 0 || n > math.MaxInt32 || n != math.Trunc(n) {
		r.fail(key, v, "a token id")
		return -1
	}
	return int32(n)
}

func numeric(v any) (float64, bool) {
	switch n := v.(type) {
	case uint8:
		return float64(n), true
	case int8:
		return float64(n), true
	case uint16:
		return float64(n), true
	case int16:
		return float64(n), true
	case uint32:
		return float64(n), true
	case int32:
		return float64(n), true
	case uint64:
		return float64(n), true
	case int64:
		return float64(n), true
	case int:
		return float64(n), true
	case float32:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

// list reads a []T, a []any whose elements fit T, or nothing.
func list[T string | float32 | int32](r *mapReader, key string) []T {
	v, ok := r.kv[keyPrefix+key]
	if !ok {
		return nil
	}
	switch l := v.(type) {
	case []T:
		return l
	case []uint32:
		return convert[T](r, key, l)
	case []any:
		return convert[T](r, key, l)
	}
	r.fail(key, v, fmt.Sprintf("a list of %T", *new(T)))
	return nil
}

func convert[T string | float32 | int32, E any](r *mapReader, key string, from []E) []T {
	out := make([]T, len(from))
	for i, e := range from {
		n, ok := numeric(e)
		switch p := any(&out[i]).(type) {
		case *string:
			*p, ok = any(e).(string)
		case *float32:
			*p = float32(n)
		case *int32:
			*p = int32(n)
			ok = ok && n == float64(*p)
		}
		if !ok {
			r.fail(fmt.Sprintf("%s[%d]", key, i), e, fmt.Sprintf("a value that fits %T", out[i]))
			return nil
		}
	}
	return out
}
