package traces

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

func isMooncake(first string) bool {
	return strings.HasPrefix(first, "{") && strings.Contains(first, `"timestamp"`) && !strings.Contains(first, `"chat_id"`)
}

func isBailian(first string) bool {
	return strings.HasPrefix(first, "{") && strings.Contains(first, `"chat_id"`)
}

// Prefix block sizes, in tokens.
const (
	mooncakeBlock = 512
	bailianBlock  = 16
)

// decode reads the current line as one JSON object with no unknown keys.
func (l *lines) decode(into any) error {
	dec := json.NewDecoder(bytes.NewReader(l.text))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if dec.More() {
			return l.fail(int(dec.InputOffset())+1, "more than one value on the line", "write one request a line")
		}
		return nil
	}
	column := int(dec.InputOffset()) + 1
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return l.fail(len(l.text), "not JSON: it ends in the middle", "is the line cut short?")
	case errors.As(err, &syntax):
		return l.fail(int(syntax.Offset), "not JSON: "+strings.TrimPrefix(err.Error(), "json: "), "is the line cut short?")
	case errors.As(err, &kind):
		return l.fail(int(kind.Offset), fmt.Sprintf("%s: want %s, got %s", kind.Field, kind.Type, kind.Value), "")
	}
	return l.fail(column, strings.TrimPrefix(err.Error(), "json: "), "the keys of a format are fixed; remove others")
}

// need checks a required number of a JSON line.
func (l *lines) need(name string, n *int64, low, high int64) (int32, error) {
	at := max(1, bytes.Index(l.text, []byte(`"`+name+`"`))+1)
	switch {
	case n == nil:
		return 0, l.fail(1, fmt.Sprintf("%s is missing", name), "every request needs one")
	case *n < low || *n > high:
		return 0, l.fail(at, fmt.Sprintf("%s: want %d to %d, got %d", name, low, high, *n), "remove or repair the line")
	}
	return int32(*n), nil
}

func (l *lines) needTime(n json.Number, unit time.Duration) (time.Duration, error) {
	if n == "" {
		return 0, l.fail(1, "timestamp is missing", "every request needs one")
	}
	at := max(1, bytes.Index(l.text, []byte(`"timestamp"`))+1)
	return l.time(cell{n.String(), at}, "timestamp", unit)
}

// mooncake reads the Mooncake traces.
type mooncake struct{}

type mooncakeLine struct {
	Timestamp    json.Number `json:"timestamp"`
	InputLength  *int64      `json:"input_length"`
	OutputLength *int64      `json:"output_length"`
	HashIDs      []int64     `json:"hash_ids"`
}

func (mooncake) row(l *lines, t *Trace, r *Row) (bool, error) {
	var in mooncakeLine
	err := l.decode(&in)
	if err != nil {
		return false, err
	}
	if r.At, err = l.needTime(in.Timestamp, time.Millisecond); err != nil {
		return false, err
	}
	t.BlockTokens = mooncakeBlock
	return true, l.fill(t, r, in.InputLength, in.OutputLength, in.HashIDs)
}

// fill sets the lengths and blocks that the JSON formats share.
func (l *lines) fill(t *Trace, r *Row, in, out *int64, ids []int64) (err error) {
	if r.Prompt, err = l.need("input_length", in, 0, maxToken); err != nil {
		return err
	}
	if r.Output, err = l.need("output_length", out, 0, maxToken); err != nil {
		return err
	}
	t.arena = append(t.arena, ids...)
	return nil
}

// bailian reads the Qwen-Bailian traces. A conversation is the tree under a
// chat without a parent.
type bailian struct {
	sessionOf map[int64]int32 // by chat
	sessions  int32
}

func newBailian() *bailian { return &bailian{sessionOf: map[int64]int32{}} }

type bailianLine struct {
	ChatID       *int64      `json:"chat_id"`
	ParentChatID *int64      `json:"parent_chat_id"`
	Timestamp    json.Number `json:"timestamp"`
	InputLength  *int64      `json:"input_length"`
	OutputLength *int64      `json:"output_length"`
	Type         string      `json:"type"`
	Turn         *int64      `json:"turn"`
	HashIDs      []int64     `json:"hash_ids"`
}

func (p *bailian) row(l *lines, t *Trace, r *Row) (bool, error) {
	var in bailianLine
	err := l.decode(&in)
	if err != nil {
		return false, err
	}
	if in.ChatID == nil || in.ParentChatID == nil {
		return false, l.fail(1, "chat_id or parent_chat_id is missing", "every request needs both; a first turn's parent is -1")
	}
	if r.At, err = l.needTime(in.Timestamp, time.Second); err != nil {
		return false, err
	}
	turn, err := l.need("turn", in.Turn, 1, maxToken)
	if err != nil {
		return false, err
	}
	r.Turn = turn - 1
	r.Session = p.session(*in.ChatID, *in.ParentChatID)
	if in.Type != "" {
		at := max(1, bytes.Index(l.text, []byte(`"type"`))+1)
		if r.Type, err = t.typeOf(l, cell{in.Type, at}); err != nil {
			return false, err
		}
	}
	t.BlockTokens = bailianBlock
	return true, l.fill(t, r, in.InputLength, in.OutputLength, in.HashIDs)
}

// session numbers conversations; a parent outside the recording starts one.
func (p *bailian) session(chat, parent int64) int32 {
	id, ok := p.sessionOf[parent]
	if parent < 0 || !ok {
		id = p.sessions
		p.sessions++
	}
	p.sessionOf[chat] = id
	return id
}

// probabilities reads the Python dictionary that ServeGen writes into a JSON
// string, {50: 0.25, 51: 0.75}: sizes with their probabilities. It returns them
// sorted by size and cumulated to exactly 1.
func probabilities(text string) (sizes []int32, cumulated []float64, err error) {
	body, opened := strings.CutPrefix(strings.TrimSpace(text), "{")
	body, closed := strings.CutSuffix(body, "}")
	if !opened || !closed {
		return nil, nil, fmt.Errorf("want {size: probability, ...}, got %q", clip(text))
	}
	sum := 0.0
	for i, pair := range strings.Split(body, ",") {
		size, prob, ok := strings.Cut(pair, ":")
		n, errN := strconv.ParseInt(strings.TrimSpace(size), 10, 64)
		p, errP := strconv.ParseFloat(strings.TrimSpace(prob), 64)
		switch {
		case !ok || errN != nil || errP != nil:
			return nil, nil, fmt.Errorf("pair %d: want size: probability, got %q", i, clip(pair))
		case n < 0 || n > maxToken:
			return nil, nil, fmt.Errorf("pair %d: want a size from 0 to %d, got %d", i, maxToken, n)
		case !(p >= 0 && p <= 1.000001):
			return nil, nil, fmt.Errorf("pair %d: want a probability from 0 to 1, got %g", i, p)
		case len(sizes) > 0 && int64(sizes[len(sizes)-1]) >= n:
			return nil, nil, fmt.Errorf("pair %d: want increasing sizes, got %d after %d", i, n, sizes[len(sizes)-1])
		}
		sum += p
		sizes, cumulated = append(sizes, int32(n)), append(cumulated, sum)
	}
	if sum < 0.99 || sum > 1.01 {
		return nil, nil, fmt.Errorf("probabilities add up to %g, want 1", sum)
	}
	for i := range cumulated {
		cumulated[i] /= sum
	}
	return sizes, cumulated, nil
}
