package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"meibench/internal/rng"
	"meibench/reference/llm"
	"meibench/reference/token"
)

// refusal is an error object of the protocol.
type refusal struct {
	status  int
	message string
	kind    string // type
	param   string
	code    string
	after   int // Retry-After, s
}

func refuse(w http.ResponseWriter, r *refusal) {
	if r.after > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(r.after))
	}
	reply(w, r.status, map[string]any{"error": r.object()})
}

func (r *refusal) object() map[string]any {
	or := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	return map[string]any{"message": r.message, "type": r.kind, "param": or(r.param), "code": or(r.code)}
}

// bad is a refusal of a field.
func bad(param, format string, a ...any) *refusal {
	return &refusal{status: http.StatusBadRequest, kind: "invalid_request_error", param: param, message: fmt.Sprintf(format, a...)}
}

// ask is a request of either protocol.
type ask struct {
	Model               string          `json:"model"`
	Prompt              json.RawMessage `json:"prompt"`
	Messages            []message       `json:"messages"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Temperature         *float64        `json:"temperature"`
	TopP                *float64        `json:"top_p"`
	TopK                *int            `json:"top_k"`
	Seed                *int64          `json:"seed"`
	Stop                json.RawMessage `json:"stop"`
	Stream              bool            `json:"stream"`
	StreamOptions       struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	TokenIDs bool `json:"return_token_ids"` // as vLLM: chunks name their tokens

	// Refused unless they ask for nothing.
	N              *int            `json:"n"`
	BestOf         *int            `json:"best_of"`
	Echo           bool            `json:"echo"`
	Suffix         string          `json:"suffix"`
	Logprobs       json.RawMessage `json:"logprobs"`
	Tools          []any           `json:"tools"`
	ResponseFormat *struct {
		Type string `json:"type"`
	} `json:"response_format"`
}

// message is a turn; its content is a text or a list of texts.
type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// mostStops bounds the stop strings, and their lengths.
const (
	mostStops     = 16
	longestStop   = 1 << 10
	defaultTokens = 16  // of completions, as in OpenAI's protocol
	defaultChat   = 512 // of an answer in a conversation, where the protocol has no limit
)

// decode reads the body.
func (s *Server) decode(w http.ResponseWriter, r *http.Request) (*ask, *refusal) {
	const patience = time.Minute
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(patience)) // for the body only; not every transport has one
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.MaxBody))
	_ = c.SetReadDeadline(time.Time{})
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, &refusal{status: http.StatusRequestEntityTooLarge, kind: "invalid_request_error", message: fmt.Sprintf("the body has more than %d bytes", s.cfg.MaxBody)}
	case err != nil:
		return nil, bad("", "read the body: %v", err)
	}
	a := &ask{}
	if err := json.Unmarshal(body, a); err != nil {
		var typed *json.UnmarshalTypeError
		if errors.As(err, &typed) {
			return nil, bad(typed.Field, "%s: want %s, got %s", typed.Field, typed.Type, typed.Value)
		}
		return nil, bad("", "the body is not JSON: %v", err)
	}
	return a, a.check()
}

// check refuses what is not offered and what is out of range.
func (a *ask) check() *refusal {
	off := string(a.Logprobs)
	switch {
	case a.N != nil && *a.N != 1 || a.BestOf != nil && *a.BestOf != 1:
		return bad("n", "n and best_of: one answer per request is offered")
	case a.Echo || a.Suffix != "":
		return bad("echo", "echo and suffix are not offered")
	case off != "" && off != "null" && off != "false":
		return bad("logprobs", "logprobs are not offered")
	case len(a.Tools) > 0:
		return bad("tools", "tools are not offered")
	case a.ResponseFormat != nil && a.ResponseFormat.Type != "text":
		return bad("response_format", "only plain text is offered")
	case a.Temperature != nil && !(*a.Temperature >= 0 && *a.Temperature <= 2):
		return bad("temperature", "temperature: want 0 to 2, got %g", *a.Temperature)
	case a.TopP != nil && !(*a.TopP > 0 && *a.TopP <= 1):
		return bad("top_p", "top_p: want more than 0 and at most 1, got %g", *a.TopP)
	case a.TopK != nil && *a.TopK < 0:
		return bad("top_k", "top_k: want 0 (all) or more, got %d", *a.TopK)
	case a.MaxTokens != nil && *a.MaxTokens < 1 || a.MaxCompletionTokens != nil && *a.MaxCompletionTokens < 1:
		return bad("max_tokens", "max_tokens: want 1 or more")
	}
	return nil
}

// stops reads a string or a list of them.
func (a *ask) stops() ([]string, *refusal) {
	if len(a.Stop) == 0 || string(a.Stop) == "null" {
		return nil, nil
	}
	var list []string
	var one string
	if json.Unmarshal(a.Stop, &one) == nil {
		list = []string{one}
	} else if json.Unmarshal(a.Stop, &list) != nil {
		return nil, bad("stop", "stop: want a string or a list of strings")
	}
	if len(list) > mostStops {
		return nil, bad("stop", "stop: at most %d strings, got %d", mostStops, len(list))
	}
	for _, s := range list {
		if s == "" || len(s) > longestStop {
			return nil, bad("stop", "stop: a string has %d bytes: want 1 to %d", len(s), longestStop)
		}
	}
	return list, nil
}

// ids are the prompt's tokens.
func (a *ask) ids(v *served, chat bool) ([]int32, *refusal) {
	if chat {
		return a.conversation(v)
	}
	if len(a.Messages) > 0 {
		return nil, bad("messages", "messages belong to /v1/chat/completions; here a prompt is wanted")
	}
	var text string
	var texts []string
	var ids []int32
	switch {
	case json.Unmarshal(a.Prompt, &text) == nil:
	case json.Unmarshal(a.Prompt, &texts) == nil && len(texts) == 1:
		text = texts[0]
	case json.Unmarshal(a.Prompt, &ids) == nil && len(ids) > 0:
		for _, id := range ids {
			if id < 0 || int(id) >= v.Model.Vocab {
				return nil, bad("prompt", "prompt: token %d: want 0 to %d", id, v.Model.Vocab-1)
			}
		}
		return ids, nil
	default:
		return nil, bad("prompt", "prompt: want one text, or a list of token ids")
	}
	return v.Tokenizer.EncodePrompt(text), nil
}

func (a *ask) conversation(v *served) ([]int32, *refusal) {
	var turns []token.Message
	for i, m := range a.Messages {
		text, ok := contentOf(m.Content)
		if !ok {
			return nil, bad("messages", "messages[%d].content: want a text, or a list of parts of type text", i)
		}
		role := m.Role
		if role == "developer" {
			role = "system"
		}
		if role != "system" && role != "user" && role != "assistant" {
			return nil, bad("messages", "messages[%d].role %q: want system, user or assistant", i, m.Role)
		}
		turns = append(turns, token.Message{Role: role, Content: text})
	}
	if len(turns) == 0 {
		return nil, bad("messages", "messages: want at least one")
	}
	if v.template == nil {
		var lines []string
		for _, t := range turns {
			lines = append(lines, t.Content)
		}
		return v.Tokenizer.EncodePrompt(strings.Join(lines, "\n")), nil
	}
	p, err := v.template.Render(turns, true)
	if err != nil {
		return nil, bad("messages", "messages: %v", err)
	}
	return v.Tokenizer.EncodeChat(p), nil
}

func contentOf(raw json.RawMessage) (string, bool) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, true
	}
	var list []struct{ Type, Text string }
	if json.Unmarshal(raw, &list) != nil {
		return "", false
	}
	for _, part := range list {
		if part.Type != "text" {
			return "", false
		}
		text += part.Text
	}
	return text, true
}

// job turns a request into a sequence.
func (s *Server) job(a *ask, v *served, chat bool, number uint64) (*job, *refusal) {
	ids, no := a.ids(v, chat)
	if no != nil {
		return nil, no
	}
	context := v.Model.Context
	limit := defaultTokens
	switch {
	case a.MaxCompletionTokens != nil:
		limit = *a.MaxCompletionTokens
	case a.MaxTokens != nil:
		limit = *a.MaxTokens
	case chat:
		limit = max(1, min(defaultChat, context-len(ids)))
	default:
		limit = max(1, min(limit, context-len(ids)))
	}
	switch {
	case len(ids) == 0:
		return nil, bad("prompt", "the prompt has no token")
	case limit > context || len(ids)+limit > context:
		no := bad("messages", "the context is %d tokens: the prompt has %d, and %d more were asked for", context, len(ids), limit)
		if no.code = "context_length_exceeded"; !chat {
			no.param = "prompt"
		}
		return nil, no
	}
	j := &job{prompt: ids, limit: limit, adapter: v.adapter, sampler: llm.Sampler{Temperature: 1}}
	if a.Temperature != nil {
		j.sampler.Temperature = float32(*a.Temperature)
	}
	if a.TopP != nil {
		j.sampler.TopP = float32(*a.TopP)
	}
	if a.TopK != nil {
		j.sampler.TopK = min(*a.TopK, math.MaxInt32)
	}
	if a.Seed != nil {
		j.luck = rng.Stream(uint64(*a.Seed), "serve")
	} else {
		j.luck = rng.Stream(s.cfg.Seed, "serve", number)
	}
	return j, nil
}
