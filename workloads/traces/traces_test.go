package traces

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Small recordings made by hand, one of each format.
var fixtures = []struct{ name, format, text string }{
	{"azure 2023", "azure", azureText + "\r\n2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319600,3180,8\r\n2023-11-16 18:17:05.9799600,110,0\r\n"},
	{"azure 2024", "azure", azureText + "\n2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01.017335+00:00,2399,6\n"},
	{"azure 2025", "azure", azureImages + "\n2024-10-15 00:00:00.100000,2,1500,80\n2024-10-15 00:00:00.350000,0,90,12\n"},
	{"burstgpt", "burstgpt", "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n118,GPT-4,417,0,417,API log\n"},
	{"burstgpt sessions", "burstgpt", "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n0,7,1.5,ChatGPT,10,20,30,Conversation log\n2.5,,2,ChatGPT,5,6,11,API log\n9,7,3,ChatGPT,40,7,47,Conversation log\n"},
	{"mooncake", "mooncake", `{"timestamp": 0, "input_length": 1200, "output_length": 52, "hash_ids": [0, 1, 2]}` + "\n" + `{"timestamp": 1500, "input_length": 1000, "output_length": 3, "hash_ids": [0, 1]}` + "\n"},
	{"bailian", "bailian", `{"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 41, "output_length": 336, "type": "text", "turn": 1, "hash_ids": [1089, 1090, 1091]}` + "\n" +
		`{"chat_id": 160, "parent_chat_id": -1, "timestamp": 61.5, "input_length": 20, "output_length": 5, "type": "search", "turn": 1, "hash_ids": [7, 8]}` + "\n" +
		`{"chat_id": 161, "parent_chat_id": 159, "timestamp": 90.25, "input_length": 400, "output_length": 10, "type": "text", "turn": 2, "hash_ids": [1089, 1090, 1091, 9]}` + "\n"},
	{"meibench", "azure", canonicalMark + `{"version":1,"name":"x","format":"azure","block_tokens":16,"factor":2}` + "\n" + canonicalCSV + "\n0.000000000,5,6,0,-1,-1,0,,\n1.000000001,7,8,1,3,2,1,chat,4 5 6\n"},
}

func read(t testing.TB, text string) *Trace {
	tr, err := Read(strings.NewReader(text), "fixture", Options{})
	require.NoError(t, err)
	return tr
}

func fixture(t testing.TB, name string) *Trace {
	i := slices.IndexFunc(fixtures, func(f struct{ name, format, text string }) bool { return f.name == name })
	require.GreaterOrEqual(t, i, 0)
	return read(t, fixtures[i].text)
}

func TestReadFindsTheFormat(t *testing.T) {
	for _, f := range fixtures {
		t.Run(f.name, func(t *testing.T) {
			tr := read(t, f.text)
			require.Equal(t, f.format, tr.Format)
			require.Zero(t, tr.Rows[0].At)
		})
	}
	require.True(t, slices.IsSorted(Formats()))
}

func TestAzure(t *testing.T) {
	tr := fixture(t, "azure 2023")
	require.Equal(t, 1, tr.Skipped, "the third got no answer")
	require.Equal(t, []Row{{Prompt: 4808, Output: 10, User: -1, Session: -1, Type: -1},
		{At: 52 * time.Millisecond, Prompt: 3180, Output: 8, User: -1, Session: -1, Type: -1}}, tr.Rows)
	require.Equal(t, 1007405*time.Microsecond, fixture(t, "azure 2024").Span()) // 1.017335 - 0.009930
	require.Equal(t, int32(2), fixture(t, "azure 2025").Rows[0].Images)
}

func TestBurstGPT(t *testing.T) {
	tr := fixture(t, "burstgpt")
	require.Equal(t, 40*time.Second, tr.Span()) // 45 - 5; the third failed
	require.Equal(t, 1, tr.Skipped)
	tr = fixture(t, "burstgpt sessions")
	require.Equal(t, []int32{0, -1, 0}, []int32{tr.Rows[0].Session, tr.Rows[1].Session, tr.Rows[2].Session})
	require.Equal(t, int32(1), tr.Rows[2].Turn)
	require.Equal(t, 2500*time.Millisecond, tr.Rows[1].At)
	require.Equal(t, []string{"Conversation log", "API log"}, tr.Types)
}

func TestBlocksAndSessions(t *testing.T) {
	tr := fixture(t, "mooncake")
	require.Equal(t, 512, tr.BlockTokens)
	require.Equal(t, []int64{0, 1}, tr.Blocks(1))
	s := tr.Stats()
	require.Equal(t, 5, s.Blocks)
	require.InDelta(t, 0.4, s.Reuse, 1e-12) // 3 of 5 are new
	tr = fixture(t, "bailian")
	require.Equal(t, 16, tr.BlockTokens)
	require.Equal(t, []int32{0, 1, 0}, []int32{tr.Rows[0].Session, tr.Rows[1].Session, tr.Rows[2].Session})
	require.Equal(t, int32(1), tr.Rows[2].Turn)
	require.Equal(t, 29136*time.Millisecond, tr.Span()) // 90.25 - 61.114
	s = tr.Stats()
	require.Equal(t, 2, s.Sessions)
	require.InDelta(t, 1.5, s.MeanTurns, 1e-12)
	require.InDelta(t, 2.0/3, s.Types[0].Share, 1e-12)
}

func TestWriteCSVAndBack(t *testing.T) {
	for _, f := range fixtures {
		t.Run(f.name, func(t *testing.T) {
			tr := read(t, f.text)
			var first, second bytes.Buffer
			require.NoError(t, tr.WriteCSV(&first))
			back := read(t, first.String())
			require.Equal(t, tr, back)
			require.NoError(t, back.WriteCSV(&second))
			require.Equal(t, first.String(), second.String())
		})
	}
	require.ErrorContains(t, fixture(t, "burstgpt").WriteCSV(failing{}), "disk full")
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, fmt.Errorf("disk full") }

func TestScale(t *testing.T) {
	tr := fixture(t, "burstgpt")
	fast, err := tr.Scale(4)
	require.NoError(t, err)
	require.Equal(t, 10*time.Second, fast.Span())
	require.InEpsilon(t, 4*tr.Rate(), fast.Rate(), 1e-12)
	require.Equal(t, 4.0, fast.Factor)
	require.Equal(t, 40*time.Second, tr.Span(), "the original is left alone")
	again, err := fast.Scale(0.5)
	require.NoError(t, err)
	require.Equal(t, 2.0, again.Factor)
	_, err = tr.Scale(0)
	require.ErrorContains(t, err, "want a finite factor > 0, got 0")
	_, err = tr.Scale(1e-12)
	require.ErrorContains(t, err, "over the limit")
}

// Ten requests on each of five instants three seconds apart: spread over the
// three seconds, in order, mean offset half a tick.
func TestBatchesAreSpread(t *testing.T) {
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, `{"timestamp": %d, "input_length": %d, "output_length": 1, "hash_ids": []}`+"\n", i/10*3000, i+1)
	}
	tr := read(t, b.String())
	require.Len(t, tr.Notes, 1)
	require.Contains(t, tr.Notes[0], "recorded in ticks of 3s with 10 requests each")
	for i, r := range tr.Rows {
		require.Equal(t, int32(i+1), r.Prompt, "order is kept")
		require.True(t, i == 0 || r.At >= tr.Rows[i-1].At)
	}
	require.InDelta(t, 13.5, tr.Span().Seconds(), 2) // about 12 s + 3 x 10/11 - 3/11
	require.Equal(t, tr, read(t, b.String()), "luck is keyed")
	left, err := Read(strings.NewReader(b.String()), "x", Options{NoSpread: true})
	require.NoError(t, err)
	require.Equal(t, 12*time.Second, left.Span())
}

func TestErrorsSayWhereAndWhat(t *testing.T) {
	azure, moon := azureText+"\n", `{"timestamp": 5, "input_length": 1, "output_length": 1, "hash_ids": []}`+"\n"
	burst := "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
	own := canonicalMark + `{"version":1,"name":"x","format":"azure","factor":1}` + "\n"
	for _, tc := range []struct{ name, text, want string }{
		{"unknown format", "hello\n", "f:1:1: the first line belongs to no known trace format: name the format (have azure,"},
		{"a rate table", clientsCSV + "\n", "f:1:1: this is a ServeGen table of rates"},
		{"empty", "", "f: no request in 0 lines"},
		{"header only", azure, "f: no request in 1 lines"},
		{"too few fields", azure + "2023-11-16 18:17:03.9,1\n", "f:2:1: 2 fields, want 3: fields are TIMESTAMP,ContextTokens,GeneratedTokens"},
		{"not a time", azure + "yesterday,1,1\n", `f:2:1: TIMESTAMP: want a time like`},
		{"not a number", azure + "2023-11-16 18:17:03,many,1\n", `f:2:21: ContextTokens: want a whole number, got "many"`},
		{"a fraction", azure + "2023-11-16 18:17:03,1.5,1\n", `f:2:21: ContextTokens: want a whole number`},
		{"negative length", azure + "2023-11-16 18:17:03,1,-4\n", "f:2:23: GeneratedTokens: want >= 0, got -4: remove or repair the line"},
		{"absurd length", azure + "2023-11-16 18:17:03,1,99999999999\n", "want at most 1073741824"},
		{"time backwards", azure + "2023-11-16 18:17:03,1,1\n2023-11-16 18:17:02,1,1\n", "f:3:1: time goes backwards: -1s after 0s: sort the file by time"},
		{"quotes", azure + `"2023-11-16 18:17:03",1,1` + "\n", "f:2:1: quoted field"},
		{"centuries apart", azure + "2023-11-16 18:17:03,1,1\n2323-11-16 18:17:02,1,1\n", "f:3:1: more than a century"},
		{"not UTF-8", azure + "\xff\xfe\n", "f:2:1: line is not UTF-8 text: is this file compressed"},
		{"column of burstgpt", "Timestamp,Colour\n", `f:1:11: unknown or repeated column "Colour"`},
		{"burstgpt without tokens", "Timestamp,Model\n", "f:1:1: header lacks a column"},
		{"burstgpt time", burst + "-3,GPT-4,1,1,2,API log\n", "f:2:1: Timestamp: want a number of seconds"},
		{"broken JSON", moon + "{\"timestamp\": 6, \n", "f:2:17: not JSON"},
		{"unknown key", moon + `{"timestamp": 6, "colour": 1}` + "\n", `unknown field "colour"`},
		{"wrong type", moon + `{"timestamp": 6, "input_length": "long", "output_length": 1}` + "\n", "f:2:39: input_length: want int64, got string"},
		{"missing length", moon + `{"timestamp": 6, "output_length": 1}` + "\n", "f:2:1: input_length is missing"},
		{"negative in JSON", moon + `{"timestamp": 6, "input_length": -1, "output_length": 1}` + "\n", "f:2:18: input_length: want 0 to 1073741824, got -1"},
		{"two values", moon + `{"timestamp": 6, "input_length": 1, "output_length": 1} {}` + "\n", "more than one value"},
		{"bailian turn", `{"chat_id": 1, "parent_chat_id": -1, "timestamp": 6, "input_length": 1, "output_length": 1, "turn": 0}` + "\n", "turn: want 1 to"},
		{"bailian parent", `{"chat_id": 1, "timestamp": 6, "input_length": 1, "output_length": 1, "turn": 1}` + "\n", "chat_id or parent_chat_id is missing"},
		{"own version", canonicalMark + `{"version":9,"name":"x","format":"azure","factor":1}` + "\n", "version 9 of the form: this program reads version 1"},
		{"own header", own + "a,b\n", "f:2:1: not the header of a meibench trace"},
		{"own blocks", own + canonicalCSV + "\n0,1,1,0,-1,-1,0,,1  2\n", "f:3:20: blocks: want whole numbers"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Read(strings.NewReader(tc.text), "f", Options{})
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestOptions(t *testing.T) {
	back := azureText + "\n2023-11-16 18:17:03,1,1\n2023-11-16 18:17:02,2,1\n"
	tr, err := Read(strings.NewReader(back), "f", Options{Sort: true})
	require.NoError(t, err)
	require.Equal(t, int32(2), tr.Rows[0].Prompt)
	require.Equal(t, time.Second, tr.Span())
	_, err = Read(strings.NewReader(back), "f", Options{Sort: true, MaxRows: 1})
	require.ErrorContains(t, err, "f:3:1: more than 1 requests: raise Options.MaxRows")
	_, err = Read(strings.NewReader(back), "f", Options{MaxBytes: 50})
	require.ErrorContains(t, err, "more than 50 bytes uncompressed")
	_, err = Read(strings.NewReader(back), "f", Options{Format: "csv"})
	require.ErrorContains(t, err, `unknown trace format "csv" (have azure, bailian,`)
	_, err = Read(strings.NewReader(back), "f", Options{Format: "mooncake"})
	require.ErrorContains(t, err, "f:1:1: not JSON")
	_, err = Open(filepath.Join(t.TempDir(), "none.csv"), Options{})
	require.ErrorContains(t, err, "open trace")
}

func packed(t testing.TB, r io.Reader) *bytes.Buffer {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.Copy(z, r)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return &b
}

func TestGzip(t *testing.T) {
	text := fixtures[0].text
	tr, err := Read(packed(t, strings.NewReader(text)), "fixture", Options{})
	require.NoError(t, err)
	require.Equal(t, read(t, text), tr)
	_, err = Read(strings.NewReader("\x1f\x8bnot really"), "f", Options{})
	require.ErrorContains(t, err, "read gzip header")
	// A bomb: 80 MB of blank pack a thousand to one.
	_, err = Read(packed(t, io.LimitReader(blank{}, 80<<20)), "f", Options{})
	require.ErrorContains(t, err, "unpacks to more than 200 times its size")
	_, err = Read(io.LimitReader(dots{}, 2<<20), "f", Options{})
	require.ErrorContains(t, err, "line is longer than 1048576 bytes")
}

type blank struct{}

func (blank) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	p[len(p)-1] = '\n'
	return len(p), nil
}

type dots struct{}

func (dots) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '.'
	}
	return len(p), nil
}

// shared finds ../shared/data beside the repository, or skips.
func shared(t testing.TB, name string) string {
	dir, err := os.Getwd()
	require.NoError(t, err)
	for ; filepath.Dir(dir) != dir; dir = filepath.Dir(dir) {
		for _, root := range []string{filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
			path := filepath.Join(root, "shared", "data", "traces", name)
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				if _, err := os.Stat(path); err == nil {
					return path
				}
			}
		}
	}
	t.Skipf("no shared/data beside the repository: %s", name)
	return ""
}

func Example() {
	text := "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.5,374,44\n2023-11-16 18:17:04.0,396,109\n2023-11-16 18:17:05.5,879,55\n"
	t, err := Read(strings.NewReader(text), "demo.csv", Options{})
	if err != nil {
		panic(err)
	}
	fast, err := t.Scale(2)
	if err != nil {
		panic(err)
	}
	fmt.Println(t.Format, len(t.Rows), t.Span(), fast.Span(), t.Stats().Prompt.Mean)
	// Output: azure 3 2s 1s 549.6666666666666
}

func BenchmarkRead(b *testing.B) {
	for _, f := range []struct{ format, line string }{
		{"azure", "2023-11-16 18:17:03.9799600,4808,10\n"},
		{"burstgpt", "5,ChatGPT,472,18,490,Conversation log\n"},
		{"mooncake", `{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]}` + "\n"},
	} {
		b.Run("format="+f.format, func(b *testing.B) {
			const rows = 10_000
			head := map[string]string{"azure": azureText + "\n", "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"}[f.format]
			text := head + strings.Repeat(f.line, rows)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Read(strings.NewReader(text), "bench", Options{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
		})
	}
}
