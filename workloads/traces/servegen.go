package traces

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"meibench/internal/rng"
)

// Headers of ServeGen tables. The raw form has none.
const (
	clientsCSV = "workload,client,t_s,rate_rps,iat_cv,iat_family,shape,scale"
	ratesCSV   = "workload,t_s,rate_rps"
	rawCSV     = "t,rate,cv,family,p1,p2"
)

// Window is a stretch of time in which a client has one rate.
type Window struct {
	Start  time.Duration
	Rate   float64 // requests per second
	CV     float64 // of gaps, as published; 0 unknown
	Family string  // Gamma, Weibull, or "" for a rate of 0 and for exponential gaps
	Shape  float64 // gamma shape or Weibull c
}

// Client is one of the sources whose sum is a workload.
type Client struct {
	Name    string
	Windows []Window // in order of time
}

// Rates is a workload as ServeGen publishes it: rates and gap families of
// clients instead of requests. Source: Xiang et al., arXiv 2505.09999.
type Rates struct {
	Name     string
	Format   string        // servegen-clients, servegen-rates or servegen-raw
	Workload string        // as chosen or as the only one in the file
	Width    time.Duration // of a window
	Clients  []Client
}

// rateFormat names the ServeGen form that a first line belongs to, or "".
func rateFormat(first string) string {
	switch first {
	case clientsCSV:
		return "servegen-clients"
	case ratesCSV:
		return "servegen-rates"
	}
	f := strings.Split(first, ",")
	if len(f) != 6 || f[3] != "" && f[3] != "Gamma" && f[3] != "Weibull" {
		return ""
	}
	for _, i := range []int{0, 1, 2, 4, 5} {
		if _, err := strconv.ParseFloat(f[i], 64); err != nil {
			return ""
		}
	}
	return "servegen-raw"
}

// ReadRates reads a ServeGen table: a client's own trace file (t, rate, cv,
// family and two parameters, no header), or one of the two summaries by
// workload, of clients and of total rates, whose headers it knows. Workload
// picks one of several and may be empty if there is one.
func ReadRates(r io.Reader, name, workload string) (*Rates, error) {
	l, err := newLines(r, name, 0)
	if err != nil {
		return nil, err
	}
	rd := rateReading{l: l, out: &Rates{Name: name, Workload: workload}, clients: numbering{}}
	if err := l.each(rd.line); err != nil {
		return nil, err
	}
	return rd.finish()
}

type rateReading struct {
	l       *lines
	out     *Rates
	clients numbering
	names   []string // of columns
	cells   []cell
	seen    []string // workloads in the file
}

func (rd *rateReading) line() error {
	if rd.names == nil {
		first := string(rd.l.text)
		switch rd.out.Format = rateFormat(first); rd.out.Format {
		case "":
			return rd.l.fail(1, "not a ServeGen table", "want "+clientsCSV+" or "+ratesCSV+" or lines of "+rawCSV)
		case "servegen-raw":
			rd.names = strings.Split(rawCSV, ",")
		default:
			rd.names = strings.Split(first, ",")
			return nil
		}
	}
	cells, err := rd.l.cells(rd.cells, rd.names)
	if err != nil {
		return err
	}
	rd.cells = cells
	client, rest := "", cells
	if rd.out.Format != "servegen-raw" {
		name := cells[0].text
		if !slices.Contains(rd.seen, name) && len(rd.seen) < 100 {
			rd.seen = append(rd.seen, name)
		}
		if rd.out.Workload != "" && rd.out.Workload != name || rd.out.Workload == "" && len(rd.seen) > 1 {
			return nil
		}
		rest = cells[1:]
		if rd.out.Format == "servegen-clients" {
			client, rest = rest[0].text, rest[1:]
		}
	}
	w, err := rd.window(rest)
	if err != nil {
		return err
	}
	return rd.add(client, w)
}

// window reads t, rate and, where the form has them, cv, family and shape; the
// second parameter, a scale, follows from rate and shape.
func (rd *rateReading) window(c []cell) (w Window, err error) {
	if w.Start, err = rd.l.time(c[0], "t", time.Second); err != nil {
		return w, err
	}
	if w.Rate, err = rd.l.float(c[1], "rate"); err != nil {
		return w, err
	}
	if w.Rate > 1e9 {
		return w, rd.l.fail(c[1].column, fmt.Sprintf("rate: want at most 1e9 requests per second, got %g", w.Rate), "")
	}
	if len(c) == 2 || w.Rate == 0 && c[3].text == "" {
		return w, nil
	}
	if w.CV, err = rd.l.float(c[2], "cv"); err != nil {
		return w, err
	}
	if w.Family = c[3].text; w.Family != "Gamma" && w.Family != "Weibull" {
		return w, rd.l.fail(c[3].column, fmt.Sprintf("family: want Gamma or Weibull, got %q", clip(w.Family)), "")
	}
	if w.Shape, err = rd.l.float(c[4], "shape"); err != nil {
		return w, err
	}
	if w.Shape < 0.01 || w.Shape > 1e6 {
		return w, rd.l.fail(c[4].column, fmt.Sprintf("shape: want 0.01 to 1e6, got %g", w.Shape), "")
	}
	_, err = rd.l.float(c[5], "scale")
	return w, err
}

func (rd *rateReading) add(client string, w Window) error {
	id := int(rd.clients.of(client))
	if id == len(rd.out.Clients) {
		rd.out.Clients = append(rd.out.Clients, Client{Name: client})
	}
	c := &rd.out.Clients[id]
	if n := len(c.Windows); n > 0 {
		step := w.Start - c.Windows[n-1].Start
		if step <= 0 {
			return rd.l.fail(1, fmt.Sprintf("time of client %q does not increase: %v after %v", client, w.Start, c.Windows[n-1].Start), "sort the file by client and time")
		}
		if rd.out.Width == 0 || step < rd.out.Width {
			rd.out.Width = step
		}
	}
	c.Windows = append(c.Windows, w)
	return nil
}

func (rd *rateReading) finish() (*Rates, error) {
	out := rd.out
	if out.Workload == "" && len(rd.seen) > 1 {
		return nil, fmt.Errorf("%s: several workloads: choose one of %s", rd.l.file, strings.Join(rd.seen, ", "))
	}
	if len(out.Clients) == 0 {
		return nil, fmt.Errorf("%s: no rate of workload %q (have %s)", rd.l.file, out.Workload, strings.Join(rd.seen, ", "))
	}
	if out.Workload == "" && len(rd.seen) == 1 {
		out.Workload = rd.seen[0]
	}
	if out.Width == 0 {
		out.Width = 600 * time.Second // of ServeGen's windows; a table of one says nothing
	}
	return out, nil
}

// Make says which requests to make from rates.
type Make struct {
	Seed     uint64
	From, To time.Duration // part of the table; To 0 = its end
	Tokens   *Tokens       // lengths; nil leaves one token each
	MaxRows  int           // refuse more; 0 = 20 million
}

// Trace makes requests from rates: each client is a renewal process of its
// gap family, run on the clock of its accumulated rate, with luck of its own.
func (r *Rates) Trace(m Make) (*Trace, error) {
	end := time.Duration(0)
	for _, c := range r.Clients {
		end = max(end, c.Windows[len(c.Windows)-1].Start+r.Width)
	}
	if m.To == 0 {
		m.To = end
	}
	if m.From < 0 || m.To <= m.From || m.From >= end {
		return nil, fmt.Errorf("make requests of %q: want a part of 0 s to %v, got %v to %v", r.Name, end, m.From, m.To)
	}
	if m.MaxRows == 0 {
		m.MaxRows = defaultRows
	}
	expected := 0.0
	for _, c := range r.Clients {
		for _, w := range c.Windows {
			expected += w.Rate * max(0, min(m.To, w.Start+r.Width)-max(m.From, w.Start)).Seconds()
		}
	}
	if expected > float64(m.MaxRows) {
		return nil, fmt.Errorf("make requests of %q: about %.3g requests, over the limit of %d: narrow From and To or raise MaxRows", r.Name, expected, m.MaxRows)
	}
	t := &Trace{Name: r.Name, Format: r.Format, Factor: 1,
		Notes: []string{fmt.Sprintf("synthesised from the rates of %d clients of %s, %v to %v, seed %d", len(r.Clients), r.Workload, m.From, m.To, m.Seed)}}
	for i := range r.Clients {
		r.client(t, i, m)
	}
	if len(t.Rows) > 2*m.MaxRows {
		return nil, fmt.Errorf("make requests of %q: twice the limit of %d requests came by luck: raise MaxRows", r.Name, m.MaxRows)
	}
	if len(t.Rows) == 0 {
		return nil, fmt.Errorf("make requests of %q: none between %v and %v", r.Name, m.From, m.To)
	}
	slices.SortStableFunc(t.Rows, func(a, b Row) int { return cmp.Compare(a.At, b.At) })
	sizes, luck := rng.NewKey(m.Seed, "servegen", r.Workload, "tokens"), new(rng.Luck)
	for i := range t.Rows {
		*luck = sizes.At(uint64(i))
		m.Tokens.draw(&t.Rows[i], luck)
	}
	for i, start := 0, t.Rows[0].At; i < len(t.Rows); i++ {
		t.Rows[i].At -= start
	}
	return t, nil
}

// client adds the requests of one client, which is one user.
func (r *Rates) client(t *Trace, i int, m Make) {
	luck := rng.Stream(m.Seed, "servegen", r.Workload, r.Clients[i].Name)
	need := -1.0
	for _, w := range r.Clients[i].Windows {
		from, to := max(w.Start, m.From), min(w.Start+r.Width, m.To)
		if w.Rate == 0 || from >= to {
			continue
		}
		if need < 0 {
			need = w.gap(luck)
		}
		for at := from.Seconds(); ; need = w.gap(luck) {
			room := w.Rate * (to.Seconds() - at)
			if need > room || len(t.Rows) > 2*m.MaxRows {
				need -= max(0, room)
				break
			}
			at += need / w.Rate
			t.Rows = append(t.Rows, Row{At: time.Duration(at * 1e9), User: int32(i), Session: -1, Type: -1})
		}
	}
}

// gap draws a gap of mean 1.
func (w *Window) gap(luck *rand.Rand) float64 {
	switch w.Family {
	case "Gamma":
		return rng.Gamma(luck, w.Shape) / w.Shape
	case "Weibull":
		return rng.Weibull(luck, w.Shape) / math.Gamma(1+1/w.Shape)
	}
	return rng.Exp(luck)
}

// Tokens are the length distributions of one client file, by the time from
// which they hold.
type Tokens struct {
	starts []time.Duration
	fields []map[string]pmf
}

type pmf struct {
	sizes []int32
	upto  []float64
}

// tokenFields are the fields ServeGen publishes that a Row has a place for; the
// others are read and checked only.
var tokenFields = [...]string{"audio_count", "audio_tokens", "image_count", "image_tokens", "input_tokens", "output_tokens", "reason_ratio", "text_tokens", "video_count", "video_tokens"}

// ReadTokens reads a ServeGen dataset file: a JSON object of window starts in
// seconds, each with its fields, each a Python dictionary of sizes and
// probabilities in a string.
func ReadTokens(r io.Reader, name string) (*Tokens, error) {
	text, err := io.ReadAll(io.LimitReader(r, 256<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var file map[string]map[string]string
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: want an object of windows of fields of strings: %w", name, err)
	}
	t := &Tokens{}
	starts := make([]string, 0, len(file))
	for start := range file {
		starts = append(starts, start)
	}
	slices.Sort(starts)
	for _, start := range starts {
		at, ok := decimal(start, time.Second)
		i, twice := slices.BinarySearch(t.starts, at)
		if !ok || twice {
			return nil, fmt.Errorf("%s: window %q: want its start in seconds, once", name, clip(start))
		}
		window, err := newWindow(file[start])
		if err != nil {
			return nil, fmt.Errorf("%s: window %s: %w", name, start, err)
		}
		t.starts, t.fields = slices.Insert(t.starts, i, at), slices.Insert(t.fields, i, window)
	}
	if len(t.starts) == 0 {
		return nil, fmt.Errorf("%s: no window", name)
	}
	return t, nil
}

// newWindow reads the fields of a window; a ratio is no size and is left out.
func newWindow(fields map[string]string) (map[string]pmf, error) {
	window := map[string]pmf{}
	known := 0
	for _, field := range tokenFields {
		dict, ok := fields[field]
		if !ok {
			continue
		}
		known++
		if field == "reason_ratio" || dict == "{}" {
			continue
		}
		p, err := newPMF(dict)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		window[field] = p
	}
	if known < len(fields) {
		return nil, fmt.Errorf("unknown field (fields are %s)", strings.Join(tokenFields[:], ", "))
	}
	return window, nil
}

func newPMF(dict string) (pmf, error) {
	sizes, upto, err := probabilities(dict)
	return pmf{sizes, upto}, err
}

func (p pmf) at(u float64) int32 {
	if len(p.sizes) == 0 {
		return 0
	}
	return p.sizes[min(sort.SearchFloat64s(p.upto, math.Nextafter(u, 2)), len(p.sizes)-1)]
}

// draw sets a row's lengths; without distributions they are one token each.
func (t *Tokens) draw(r *Row, luck *rng.Luck) {
	r.Prompt, r.Output = 1, 1
	if t == nil {
		return
	}
	i, found := slices.BinarySearch(t.starts, r.At)
	if !found {
		i = max(i-1, 0)
	}
	f := t.fields[i]
	text, input, output := f["text_tokens"].at(luck.Float64()), f["input_tokens"].at(luck.Float64()), f["output_tokens"].at(luck.Float64())
	r.Images = f["image_count"].at(luck.Float64())
	perImage := f["image_tokens"].at(luck.Float64())
	total := int64(text) + int64(input) + int64(r.Images)*int64(perImage)
	r.Prompt, r.Output = int32(min(max(1, total), maxToken)), max(1, output)
}
