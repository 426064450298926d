package endpoint

import (
	"encoding/json"
	"fmt"
	"math"
)

// slow reads an event by encoding/json.
func (t *texts) slow(data []byte) (delta, error) {
	d := delta{own: -1, prompt: -1, total: -1}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return d, fmt.Errorf("%w: an event is not a JSON object: %v: %s", ErrReply, err, excerpt(data))
	}
	if e := m["error"]; e != nil {
		d.fault = faultOf(e)
		return d, nil
	}
	w := walker{}
	if usage := w.object(m, "usage"); usage != nil {
		d.prompt, d.total = w.count(usage, "prompt_tokens"), w.count(usage, "completion_tokens")
	}
	if choice := w.first(m); choice != nil {
		d.choices = true
		d.finish = w.text(choice, "finish_reason")
		from := choice
		key := "text"
		if inner := w.object(choice, "delta"); inner != nil {
			from, key = inner, "content"
		} else if inner := w.object(choice, "message"); inner != nil {
			from, key = inner, "content"
		}
		text := w.text(from, key)
		thought := w.text(from, "reasoning_content")
		if thought == "" && key == "content" {
			thought = w.text(from, "reasoning")
		}
		if key == "text" {
			thought = ""
		}
		d.own = w.own(choice)
		t.text, t.thought = append(t.text, text...), append(t.thought, thought...)
		d.text, d.thought = len(text), len(thought)
	}
	if w.wrong != "" {
		return d, fmt.Errorf("%w: an event's %s: %s", ErrReply, w.wrong, excerpt(data))
	}
	return d, nil
}

// faultOf is the message of an error object in whatever form.
func faultOf(e any) string {
	if m, ok := e.(map[string]any); ok {
		if s, ok := m["message"].(string); ok {
			return excerpt([]byte(s))
		}
	}
	if s, ok := e.(string); ok {
		return excerpt([]byte(s))
	}
	b, err := json.Marshal(e)
	if err != nil {
		return "unreadable"
	}
	return excerpt(b)
}

// walker takes values out of decoded JSON and notes the first of a wrong type.
// Absent and null are the same.
type walker struct{ wrong string }

func (w *walker) complain(key, want string) {
	if w.wrong == "" {
		w.wrong = key + " is not " + want
	}
}

func (w *walker) object(m map[string]any, key string) map[string]any {
	v := m[key]
	o, ok := v.(map[string]any)
	if v != nil && !ok {
		w.complain(key, "an object")
	}
	return o
}

func (w *walker) text(m map[string]any, key string) string {
	v := m[key]
	s, ok := v.(string)
	if v != nil && !ok {
		w.complain(key, "a string")
	}
	return s
}

// count is a whole number, or -1 if it is absent.
func (w *walker) count(m map[string]any, key string) int {
	v := m[key]
	if v == nil {
		return -1
	}
	n, ok := v.(float64)
	if !ok || n != math.Trunc(n) || n < 0 || n >= 1e9 {
		w.complain(key, "a number of tokens")
		return -1
	}
	return int(n)
}

// first is the choice with index 0. We ask for one choice only.
func (w *walker) first(m map[string]any) map[string]any {
	v := m["choices"]
	list, ok := v.([]any)
	if v != nil && !ok {
		w.complain("choices", "a list")
	}
	for i, c := range list {
		choice, ok := c.(map[string]any)
		if !ok {
			w.complain("choices", "a list of objects")
			return nil
		}
		if w.count(choice, "index") <= 0 { // 0, or none given
			if i > 0 {
				w.complain("choices", "one choice")
			}
			return choice
		}
	}
	return nil
}

// own is the number of tokens that a choice itself names: vLLM's token_ids, or
// one entry of logprobs for each.
func (w *walker) own(choice map[string]any) int {
	if ids, ok := choice["token_ids"].([]any); ok {
		return len(ids)
	}
	logprobs := w.object(choice, "logprobs")
	for _, key := range []string{"content", "tokens"} {
		if list, ok := logprobs[key].([]any); ok {
			return len(list)
		}
	}
	return -1
}
