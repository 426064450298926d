package endpoint

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// naive is the definition: lines, then fields, then events (HTML Living
// Standard, section 9.2.6), over the whole stream at once.
func naive(stream string) (out []string) {
	stream = strings.TrimPrefix(stream, "\xEF\xBB\xBF")
	stream = strings.ReplaceAll(strings.ReplaceAll(stream, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(stream, "\n")
	data, any := "", false
	for _, line := range lines[:len(lines)-1] { // the last one has no end
		if line == "" {
			if data = strings.TrimSuffix(data, "\n"); any && data != "" {
				out = append(out, data)
			}
			data, any = "", false
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		if name == "data" {
			data, any = data+strings.TrimPrefix(value, " ")+"\n", true
		}
	}
	return out
}

// pieces reads a stream in pieces of random lengths.
type pieces struct {
	rest []byte
	luck interface{ IntN(int) int }
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := min(len(b), len(p.rest), 1+p.luck.IntN(7))
	copy(b, p.rest[:n])
	p.rest = p.rest[n:]
	return n, nil
}

func cut(t *testing.T, src io.Reader) (out []string) {
	var e events
	e.reset(src)
	for {
		data, err := e.next()
		if err == io.EOF {
			return out
		}
		require.NoError(t, err)
		out = append(out, string(data))
	}
}

// However a stream arrives, its events are those of the definition.
func FuzzEvents(f *testing.F) {
	for _, s := range []string{"data: a\n\ndata: b\n\n", "data:a\r\rdata: b\rdata:  c\r\n\r\n", ": hi\nid: 3\ndata\n\ndata\ndata\n\n", "\xEF\xBB\xBFdata: x\n\ndata: cut",
		"event: error\ndata: {\"a\":1}\n\n\n\n", "data: a\r\ndata:\n\r\n", "\xEF\xBBdata: a\n\n", "datax: 1\n\ndata : 2\n\n", "\r", "data: a\n\r\ndata: b\r\n\n"} {
		f.Add([]byte(s), uint64(1))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		if len(stream) > 1<<16 {
			return
		}
		want := naive(string(stream))
		require.Equal(t, want, cut(t, bytes.NewReader(stream)))
		require.Equal(t, want, cut(t, &pieces{bytes.Clone(stream), rng.Stream(seed, "pieces")}))
	})
}

// The scan accepts nothing that encoding/json refuses, and reads the same.
func FuzzChunk(f *testing.F) {
	for _, s := range []string{
		`{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"a\n\u00e4\"b"},"logprobs":null,"finish_reason":null}]}`,
		`{"choices":[{"text":" x","finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"details":{"a":[1,-2.5e3,true,false]}}}`,
		`{"choices":[],"usage":{"completion_tokens":12}}`, `{"choices":[{"delta":{"reasoning_content":"hm","content":null}}]}`,
		`{"choices":[{"delta":{"content":"\ud83d\ude00"}}]}`, `{"choices":[{"index":1,"text":"b"},{"index":0,"text":"a"}]}`,
		`{"error":{"message":"m"}}`, `{"choices":[{"text":"a","delta":{"content":"b"}}]}`, `{"choices":[{"delta":{"content":"b"},"text":"a"}]}`,
		`{"choices":[{"delta":{"reasoning":"a","reasoning_content":"b"}}]}`, `{"choices":[{"text":"a","text":"b"}]}`, `{"choices":null,"usage":null,"error":null}`,
		`{"choices":[{"text":"a","token_ids":[1,2],"logprobs":{"tokens":["a"]}}]} `, `{"choices":[{"text":"\ud800"}]}`, `{"usage":{"prompt_tokens":1e2}}`, `{"x":01}`, `{"x":"\u12"}`,
		`{"choices":[{"reasoning":"x","text":"a"}]}`, `{"choices":[{"delta":null,"text":"a"}]}`, `{"choices":[{"message":{"content":"a"}}]}`, `{"usage":{"completion_tokens":1,"completion_tokens":null}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var quick, slow texts
		d, ok := quick.scan(data)
		if !ok || !bytes.Equal(data, bytes.ToValidUTF8(data, nil)) {
			return
		}
		want, err := slow.slow(data)
		require.NoError(t, err)
		require.Equal(t, want, d)
		require.Equal(t, string(slow.text), string(quick.text))
		require.Equal(t, string(slow.thought), string(quick.thought))
	})
}

// The usual forms do take the quick way.
func TestUsualChunksAreScanned(t *testing.T) {
	for _, s := range []string{
		`{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","system_fingerprint":"b1","choices":[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}]}`,
		`{"choices":[{"finish_reason":"length","index":0,"delta":{}}],"created":1,"id":"c","model":"m","usage":{"completion_tokens":16,"prompt_tokens":7,"total_tokens":23},"timings":{"prompt_n":7,"prompt_ms":3.5}}`,
		`{"id":"c","choices":[{"index":0,"text":" ein \"x\"","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null}`,
	} {
		_, ok := (&texts{}).scan([]byte(s))
		require.True(t, ok, s)
	}
}
