package traces

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever the bytes, a reader ends with a trace that keeps its promises or
// with an error.
func FuzzRead(f *testing.F) {
	for _, x := range fixtures {
		f.Add([]byte(x.text))
		f.Add(packed(f, strings.NewReader(x.text)).Bytes())
	}
	f.Add([]byte("\ufeff" + azureText + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range append(Formats(), "") {
			tr, err := Read(bytes.NewReader(data), "fuzz", Options{Format: name, MaxRows: 1000, MaxBytes: 1 << 20})
			if err != nil {
				require.Nil(t, tr)
				continue
			}
			require.Zero(t, tr.Rows[0].At)
			for i, r := range tr.Rows {
				require.True(t, i == 0 || r.At >= tr.Rows[i-1].At)
				require.Positive(t, r.Prompt)
				require.Positive(t, r.Output)
				_ = tr.Blocks(i)
			}
			var out bytes.Buffer
			require.NoError(t, tr.WriteCSV(&out))
			back, err := Read(&out, "again", Options{})
			require.NoError(t, err)
			require.Equal(t, tr.Rows, back.Rows)
			require.Equal(t, tr.arena, back.arena)
		}
	})
}

func FuzzReadRates(f *testing.F) {
	for _, s := range []string{rawRates, sumRates, clients} {
		f.Add([]byte(s), "chat")
		f.Add([]byte(s), "")
	}
	f.Fuzz(func(t *testing.T, data []byte, workload string) {
		r, err := ReadRates(bytes.NewReader(data), "fuzz", workload)
		if err != nil {
			return
		}
		tr, err := r.Trace(Make{MaxRows: 1000})
		if err == nil {
			require.NotEmpty(t, tr.Rows)
		}
	})
}

func FuzzReadTokens(f *testing.F) {
	f.Add([]byte(dataset))
	f.Fuzz(func(t *testing.T, data []byte) {
		tokens, err := ReadTokens(bytes.NewReader(data), "fuzz")
		if err != nil {
			return
		}
		for _, window := range tokens.fields {
			for _, p := range window {
				require.GreaterOrEqual(t, p.at(0.5), int32(0))
			}
		}
	})
}
