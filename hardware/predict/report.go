package predict

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
)

// Accuracy sums up how wrong predictions were.
type Accuracy struct {
	Rows     int            `json:"rows"`
	Tier     Tier           `json:"tier"`
	Decode   Errors         `json:"decode"`       // plain rows: one sequence, at most 2,048 tokens of context, one device
	Other    Errors         `json:"decode_other"` // batches, several devices, long contexts, ...
	All      Errors         `json:"decode_all"`
	Prefill  Errors         `json:"prefill"`     // one sequence of a stated length on one device
	PrefAll  Errors         `json:"prefill_all"` // batches, several devices and unstated lengths too
	Cover    float64        `json:"coverage80"`  // percent of decode speeds (plain rows) within their nominal 80 % interval
	CoverPre float64        `json:"coverage80_prefill"`
	Share    float64        `json:"predicted_share"` // percent of rows with a prediction; calibration rows do not count
	Refused  map[string]int `json:"refused"`
	Bars     []Bar          `json:"bars,omitempty"` // filled in for the embedded rows

	tables []breakdown
}

// breakdown is the error by one property of rows.
type breakdown struct {
	name   string
	labels []string
	decode map[string][]float64
	prompt map[string][]float64
}

func (b *breakdown) add(label string, decode, prompt []float64) {
	if b.decode == nil {
		b.decode, b.prompt = map[string][]float64{}, map[string][]float64{}
	}
	_, have := b.decode[label]
	if !have {
		b.labels = append(b.labels, label)
	}
	b.decode[label] = append(b.decode[label], decode...)
	b.prompt[label] = append(b.prompt[label], prompt...)
}

// lonePrompt reports whether a row counts in the prefill figures: one sequence
// of a stated length on one device. A rate means little without the length.
func lonePrompt(r *Row) bool { return r.Batch <= 1.01 && r.NGPU == 1 && r.PromptTokens > 0 }

// usedToCalibrate is the refusal of a row that the law was shown.
const usedToCalibrate = "used to calibrate"

// Summarise computes the errors of predictions.
func Summarise(ps []Prediction) Accuracy {
	a := Accuracy{Rows: len(ps), Refused: map[string]int{}}
	var plain, other, prompt, promptAll []float64
	a.tables = newBreakdowns()
	inside, insidePre, shown, done := 0, 0, 0, 0
	for i := range ps {
		p := &ps[i]
		a.Tier = p.Tier
		if p.Refused != "" {
			a.Refused[p.Refused]++
		}
		if p.Refused == usedToCalibrate {
			shown++
		}
		var d, f []float64
		if p.Decode.Value > 0 {
			e := p.Decode.ape(p.Row.Decode)
			d = append(d, e)
			if p.Plain {
				plain = append(plain, e)
				inside += count(p.Decode.covers(p.Row.Decode))
			} else {
				other = append(other, e)
			}
		}
		if p.Prefill.Value > 0 {
			e := p.Prefill.ape(p.Row.Prefill)
			promptAll = append(promptAll, e)
			if lonePrompt(p.Row) {
				f = append(f, e)
				prompt = append(prompt, e)
				insidePre += count(p.Prefill.covers(p.Row.Prefill))
			}
		}
		done += count(p.Decode.Value > 0 || p.Prefill.Value > 0)
		for k := range a.tables {
			if l := labelOf(a.tables[k].name, p); l != "" {
				a.tables[k].add(l, d, f)
			}
		}
	}
	a.Decode, a.Other, a.All = summarise(plain), summarise(other), summarise(append(append([]float64{}, plain...), other...))
	a.Prefill, a.PrefAll = summarise(prompt), summarise(promptAll)
	a.Cover, a.CoverPre = percent(inside, len(plain)), percent(insidePre, len(prompt))
	a.Share = percent(done, len(ps)-shown)
	return a
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func percent(n, of int) float64 {
	if of == 0 {
		return 0
	}
	return 100 * float64(n) / float64(of)
}

func newBreakdowns() []breakdown {
	var out []breakdown
	for _, n := range []string{"class", "type", "size", "quantisation", "context", "batch", "kind of row", "tier"} {
		out = append(out, breakdown{name: n})
	}
	return out
}

// labelOf is the line of a breakdown that a prediction belongs to.
func labelOf(table string, p *Prediction) string {
	if p.Spec == nil {
		return ""
	}
	r := p.Row
	switch table {
	case "class":
		return p.Spec.Class
	case "type":
		return kindOf(r.Accelerator)
	case "size":
		return bucket(activeB(r)*bytesPerWeight(r), " GB read per token", 1, 3, 8, 20)
	case "quantisation":
		return bucket(8*bytesPerWeight(r), " bits", 3.6, 6, 10)
	case "context":
		if r.Context < 0 {
			return "not stated"
		}
		return bucket(r.Context, " tokens", 512, 2048, 8192)
	case "batch":
		return bucket(r.Batch, " sequences", 1.01, 8, 64)
	case "kind of row":
		if p.Plain {
			return "plain"
		}
		return p.Why
	}
	return string(p.Tier)
}

// bucket names the range that v lies in.
func bucket(v float64, unit string, edges ...float64) string {
	for i, e := range edges {
		if v <= e {
			if i == 0 {
				return fmt.Sprintf("at most %g%s", e, unit)
			}
			return fmt.Sprintf("%g to %g%s", edges[i-1], e, unit)
		}
	}
	return fmt.Sprintf("over %g%s", edges[len(edges)-1], unit)
}

// JSON writes the figures as one object.
func (a *Accuracy) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(a)
}

// text is median and 90 % point in a width; of fewer than ten errors the element that
// is called the 90 % point is none.
func (e Errors) text() string {
	switch {
	case e.N == 0:
		return "     – /      –"
	case e.N < 10:
		return fmt.Sprintf("%6.1f /      –", e.Median)
	}
	return fmt.Sprintf("%6.1f / %6.1f", e.Median, e.P90)
}

// Text writes the figures as tables for people.
func (a *Accuracy) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d rows, tier %s; error of tokens/s: median / 90 %% point, percent; 80 %% intervals cover\n\n", a.Rows, a.Tier)
	line := func(name string, e Errors, cover string) {
		if e.N == 0 {
			cover = ""
		}
		fmt.Fprintf(&b, "  %-34s %5d  %s  %s\n", name, e.N, e.text(), cover)
	}
	line("decode, plain rows", a.Decode, fmt.Sprintf("%.0f %%", a.Cover))
	line("decode, other rows", a.Other, "")
	line("decode, all rows", a.All, "")
	line("prefill, stated length, one device", a.Prefill, fmt.Sprintf("%.0f %%", a.CoverPre))
	line("prefill, all rows", a.PrefAll, "")
	for _, t := range a.tables {
		sort.Strings(t.labels)
		fmt.Fprintf(&b, "\nby %s%*s  decode: n, median / p90   prefill: n, median / p90\n", t.name, 33-len(t.name), "")
		for _, l := range t.labels {
			d, p := summarise(t.decode[l]), summarise(t.prompt[l])
			if d.N+p.N > 0 {
				fmt.Fprintf(&b, "  %-34s %5d  %s    %5d  %s\n", l, d.N, d.text(), p.N, p.text())
			}
		}
	}
	fmt.Fprintf(&b, "\npredicted: %.1f %% of rows\n", a.Share)
	var why []string
	for k := range a.Refused {
		why = append(why, k)
	}
	sort.Strings(why)
	for _, k := range why {
		fmt.Fprintf(&b, "  %5d refused: %s\n", a.Refused[k], k)
	}
	if len(a.Bars) > 0 {
		writeBars(&b, a.Bars)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// predictionColumns are those of a file of predictions.
var predictionColumns = []string{
	"file", "line", "device", "class", "type", "framework", "model", "quant", "tier", "plain", "special",
	"decode_tok_s", "decode_predicted", "decode_lo", "decode_hi", "prefill_tok_s", "prefill_predicted", "prefill_lo", "prefill_hi", "refused",
}

// WriteCSV writes one line a row: what was measured, what was predicted with
// its interval and tier, or why nothing was. Speeds are tokens/s.
func WriteCSV(w io.Writer, ps []Prediction) error {
	c := csv.NewWriter(w)
	if err := c.Write(predictionColumns); err != nil {
		return err
	}
	num := func(v float64) string {
		if v == 0 {
			return ""
		}
		return strconv.FormatFloat(v, 'g', 6, 64)
	}
	for i := range ps {
		p := &ps[i]
		class := ""
		if p.Spec != nil {
			class = p.Spec.Class
		}
		r := p.Row
		err := c.Write([]string{
			r.File, strconv.Itoa(r.Line), r.Device, class, kindOf(r.Accelerator), r.Framework, r.Model, r.Quant, string(p.Tier), strconv.FormatBool(p.Plain), p.Why,
			num(r.Decode), num(p.Decode.Value), num(p.Decode.Lo), num(p.Decode.Hi), num(r.Prefill), num(p.Prefill.Value), num(p.Prefill.Lo), num(p.Prefill.Hi), p.Refused,
		})
		if err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}
