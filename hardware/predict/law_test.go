package predict

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// kinds of devices to vary: one of each class and type of the embedded rows.
func variety(t *testing.T) (*Law, []sample) {
	rows, c := catalogue(t)
	law := Fit(rows, c)
	seen := map[string]bool{}
	var out []sample
	for i := range rows {
		s := c.Find(rows[i].Device)
		m, why := law.sampleOf(&rows[i], s)
		if why != "" || seen[typed(s, m.kind)+m.run] {
			continue
		}
		seen[typed(s, m.kind)+m.run] = true
		out = append(out, *m)
	}
	require.Greater(t, len(out), 30)
	return law, out
}

// TestTimeGrowsWithBytes: a larger model of the same format never decodes or
// prefills faster on the same device, seen or unseen.
func TestTimeGrowsWithBytes(t *testing.T) {
	law, ms := variety(t)
	for _, m := range ms {
		for _, device := range []string{m.spec.Device, "a device nobody has seen"} {
			spec, row := *m.spec, *m.row
			spec.Device = device
			row.Model, row.Batch, row.NGPU, row.Notes = "some model", 1, 1, ""
			spec.MemoryGB = 0
			last, lastPrompt := 0.0, 0.0
			for b := 0.25; b < 200; b *= 1.3 {
				row.ParamsB, row.ActiveB = b, b
				step, why := law.Step(&row, &spec)
				require.Empty(t, why)
				prompt, _ := law.PromptToken(&row, &spec)
				require.Greater(t, step, last, "%s %s at %g", device, m.run, b)
				require.Greater(t, prompt, lastPrompt, "%s %s at %g", device, m.run, b)
				last, lastPrompt = step, prompt
			}
		}
	}
}

// TestMoreBandwidthIsNeverSlower changes nothing of a device but its bandwidth.
func TestMoreBandwidthIsNeverSlower(t *testing.T) {
	law, ms := variety(t)
	for _, m := range ms {
		spec, row := *m.spec, *m.row
		if spec.FP16TFLOPS == 0 {
			continue
		}
		last, lastPrompt := math.Inf(1), math.Inf(1)
		for bw := 5.0; bw < 10000; bw *= 1.4 {
			spec.BandwidthGBs = bw
			step, why := law.Step(&row, &spec)
			require.Empty(t, why)
			prompt, _ := law.PromptToken(&row, &spec)
			require.LessOrEqual(t, step, last, "%s at %g GB/s", spec.Device, bw)
			require.LessOrEqual(t, prompt, lastPrompt, "%s at %g GB/s", spec.Device, bw)
			last, lastPrompt = step, prompt
		}
	}
}

// TestOrderOfRowsDoesNotMatter fits the same rows backwards.
func TestOrderOfRowsDoesNotMatter(t *testing.T) {
	rows, c := catalogue(t)
	back := make([]Row, len(rows))
	for i := range rows {
		back[len(rows)-1-i] = rows[i]
	}
	a, b := Fit(rows, c), Fit(back, c)
	for i := range rows {
		s := c.Find(rows[i].Device)
		x, why := a.Step(&rows[i], s)
		y, _ := b.Step(&rows[i], s)
		if why == "" {
			require.InEpsilon(t, x, y, 1e-9)
		}
	}
}

// TestAnUnseenDeviceLeavesNoTrace: changing every speed of a device changes no
// prediction of that device.
func TestAnUnseenDeviceLeavesNoTrace(t *testing.T) {
	rows, c := catalogue(t)
	const device = "NVIDIA RTX 4090 24GB"
	changed := append([]Row{}, rows...)
	n := 0
	for i := range changed {
		if s := c.Find(changed[i].Device); s != nil && s.Device == device {
			changed[i].Decode *= 10
			changed[i].Prefill /= 10
			n++
		}
	}
	require.Greater(t, n, 20)
	a := (&Study{Catalogue: c, Train: rows, Rows: rows}).predict(rows, rows)
	b := (&Study{Catalogue: c, Train: changed, Rows: changed}).predict(changed, changed)
	other := 0
	for i := range a {
		if a[i].Spec != nil && a[i].Spec.Device == device {
			require.Equal(t, a[i].Decode.Value, b[i].Decode.Value)
			require.Equal(t, a[i].Prefill.Value, b[i].Prefill.Value)
		} else if a[i].Decode.Value != b[i].Decode.Value {
			other++
		}
	}
	require.Greater(t, other, 500, "the other devices must have learnt from it")
	require.Empty(t, Without(rows, rows, c))
	_, err := (&Study{Catalogue: c, Rows: rows}).Run()
	require.ErrorContains(t, err, "nothing is left to fit")
}

// TestWithoutLeavesDevicesOutByAnyName: a name of the same device is enough.
func TestWithoutLeavesDevicesOutByAnyName(t *testing.T) {
	rows, c := catalogue(t)
	rest := Without(rows, []Row{{Device: "Intel 265K Custom PC (Nvidia RTX 4090)"}}, c)
	require.Less(t, len(rest), len(rows))
	for i := range rest {
		if s := c.Find(rest[i].Device); s != nil {
			require.NotEqual(t, "NVIDIA RTX 4090 24GB", s.Device)
		}
	}
}

// TestEffectsFindWhatMadeTheData plants effects and asks for them back, with a
// tenth of the rows far off.
func TestEffectsFindWhatMadeTheData(t *testing.T) {
	var obs []observation
	for i := range 200 {
		a, b := float64(i%7)/7, float64(i%11)/11
		y := 1.5 + 0.8*a - 0.6*b
		if i%10 == 0 {
			y += 5
		}
		obs = append(obs, observation{y, []term{effect(1, 10, "one"), effect(a, 10, "a"), effect(b, 10, "b")}, 1})
	}
	e := fitEffects(obs, 1)
	require.InDelta(t, 2.3-0.6, e.of([]term{effect(1, 10, "one"), effect(1, 10, "a"), effect(1, 10, "b")}), 0.1)
	require.InDelta(t, 0.8, e.of([]term{effect(1, 10, "a")}), 0.1)
	require.Zero(t, e.of([]term{effect(1, 1, "never seen")}))
}

// TestCoverageOfExperts: one token reads the active parameters, very many read
// all; gpt-oss-20b uses 4 of 32 experts, so two tokens read 1-(7/8)^2 of them.
func TestCoverageOfExperts(t *testing.T) {
	r := &Row{Model: "gpt-oss-20b", ParamsB: 20.9, ActiveB: 3.6}
	require.InDelta(t, 3.6, coverage(r, 1), 1e-9)
	require.InDelta(t, 20.9, coverage(r, 1e6), 1e-9)
	experts := (20.9 - 3.6) / (1 - 4.0/32)
	require.InDelta(t, 20.9-experts+experts*(1-49.0/64), coverage(r, 2), 1e-9)
}

func FuzzReadRows(f *testing.F) {
	f.Add(publishedRows[:4000])
	f.Add([]byte("device\n"))
	f.Add([]byte("\xef\xbb\xbf" + columnNames(rowColumns) + "\nx,GPU,a,,m,1e9,,1,,,,1,,,batch=9;ngpu=99999999999;context=1e3;active_b=5\n"))
	specs, err := ReadSpecs(bytes.NewReader(publishedSpecs), "specs")
	require.NoError(f, err)
	c := NewCatalogue(specs)
	all, err := ReadRows(bytes.NewReader(publishedRows), "rows")
	require.NoError(f, err)
	law := Fit(all[:200], c)
	f.Fuzz(func(t *testing.T, text []byte) {
		rows, err := ReadRows(bytes.NewReader(text), "in.csv")
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "in.csv"), err)
			return
		}
		for i := range rows {
			p := law.predict(&rows[i], c.Specs()[i%len(c.Specs())])
			require.False(t, math.IsNaN(p.Decode.Value) || math.IsNaN(p.Prefill.Value))
		}
	})
}

func FuzzReadSpecs(f *testing.F) {
	f.Add(publishedSpecs[:4000])
	f.Add([]byte(columnNames(specColumns) + "\na,b,1,1,1,1,1,,A,a;b;a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		specs, err := ReadSpecs(bytes.NewReader(text), "in.csv")
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "in.csv"), err)
			return
		}
		c := NewCatalogue(specs)
		for _, s := range specs {
			for _, n := range s.names() {
				require.NotNil(t, c.Find(n))
			}
		}
	})
}
