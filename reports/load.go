package reports

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"meibench/harness/record"
	"meibench/harness/results"
)

var errNoRun = errors.New("no run folder given: name one that meibench run wrote")

// Load reads run folders. Requests are streamed; memory holds the columns that
// tables and figures need. The request that a timeline shows is known only when
// all are read: its spans are then streamed for.
func Load(dirs ...string) (_ *Data, err error) {
	if len(dirs) == 0 {
		return nil, errNoRun
	}
	d := NewData()
	for i, label := range labels(dirs) {
		set, lerr := d.load(label, dirs[i])
		if set != nil {
			defer func() { err = errors.Join(err, set.Close()) }()
		}
		if lerr != nil {
			return nil, lerr
		}
	}
	b := newBuilder(newView(d)).first()
	for _, app := range b.apps {
		gs, id := b.common(app)
		for _, g := range gs {
			if _, err := g.sample(id); err != nil {
				return nil, err
			}
		}
	}
	return d, nil
}

// load leaves the folder open for the groups to fetch spans from.
func (d *Data) load(label, dir string) (*results.Set, error) {
	set, err := results.Read(dir)
	if err != nil {
		return nil, err
	}
	run := d.AddRun(label, dir, set.Manifest)
	for i, r := range set.Runs() {
		d.group(run, cleanCell(r.Cell)).expect(r.Rows)
		if err := d.Add(run, r.Cell, set.Rows(i)); err != nil {
			return set, err
		}
		g := d.group(run, cleanCell(r.Cell))
		g.Values = append(g.Values, r.Values)
		if len(g.Cells) == 1 {
			g.fetch = func(id int, each func(record.Span)) error { return spansIn(set.Spans(i), id, each) }
		}
	}
	return set, nil
}

// spansIn hands out the spans of one request from the table of spans, which is
// in the order of the requests.
func spansIn(spans iter.Seq2[results.RequestSpan, error], id int, each func(record.Span)) error {
	for s, err := range spans {
		if err != nil {
			return err
		}
		if s.ID > id {
			break
		}
		if s.ID == id {
			each(s.Span)
		}
	}
	return nil
}

// runFacts are the lines of a manifest that a reader needs to judge or repeat a
// run.
func runFacts(run *Run) RunFacts {
	m := &run.Manifest
	out := RunFacts{Label: run.Label, Dir: run.Dir}
	add := func(name, value string) {
		if value = clean(value, 4*mostText); value != "" {
			out.Facts = append(out.Facts, Fact{clean(name, mostName), value})
		}
	}
	add("command", commandLine(m.Command))
	add("commit", m.Commit)
	add("Go", strings.TrimSpace(m.GoVersion+" "+m.GOARCH+" "+m.GOAMD64))
	add("CPU", m.CPU)
	add("kernel", m.Kernel)
	add("governor", m.Governor)
	for _, k := range slices.Sorted(maps.Keys(m.Host)) {
		add("host "+k, m.Host[k])
	}
	add("suite hash", m.SuiteHash)
	add("contract", m.Contract)
	for _, k := range slices.Sorted(maps.Keys(m.Profiles)) {
		add("profile "+k, m.Profiles[k])
	}
	for _, k := range slices.Sorted(maps.Keys(m.Models)) {
		add("model "+k, m.Models[k])
	}
	add("seeds", strings.Join(m.Seeds, ", "))
	if !m.Started.IsZero() {
		add("started", m.Started.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	if m.Finished != nil {
		add("finished", m.Finished.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	add("runs of cells", strconv.Itoa(m.Blocks)+expected(m))
	add("requests", strconv.FormatInt(m.Rows, 10))
	if m.Quick {
		add("comparable", "no: a quick run")
	}
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		out.Files = append(out.Files, clean(name, mostName))
	}
	if m.Format != "" {
		out.Files = append(out.Files, results.ManifestFile)
	}
	return out
}

func expected(m *results.Manifest) string {
	if m.Expected > 0 && m.Expected != m.Blocks {
		return " of " + strconv.Itoa(m.Expected)
	}
	return ""
}

// commandLine quotes arguments as a POSIX shell reads them.
func commandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		if a == "" || strings.ContainsFunc(a, func(r rune) bool {
			return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-", r)
		}) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		quoted[i] = a
	}
	return strings.Join(quoted, " ")
}

// labels name several runs by their folders, as shortly as tells them apart.
func labels(dirs []string) []string {
	out := make([]string, len(dirs))
	if len(dirs) < 2 {
		return out
	}
	seen := map[string]int{}
	for i, d := range dirs {
		out[i] = filepath.Base(filepath.Clean(d))
		seen[out[i]]++
	}
	for i := range out {
		if seen[out[i]] > 1 {
			out[i] = fmt.Sprintf("%s (%d)", out[i], i+1)
		}
	}
	return out
}

// clean makes text of a run folder safe to print: no control or formatting
// characters (terminal escapes, bidirectional overrides), and not too long.
func clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case !unicode.IsGraphic(r):
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most-1]) + "…"
	}
	return s
}

// cleanCell is a copy of a cell whose texts are clean.
func cleanCell(c record.Cell) record.Cell {
	for _, s := range []*string{&c.Suite, &c.App, &c.Pipeline, &c.Site, &c.Model, &c.Mode, &c.Contract} {
		*s = clean(*s, mostName)
	}
	c.Name = clean(c.Name, 4*mostName)
	c.Invalid, c.Warnings = cleanAll(c.Invalid), cleanAll(c.Warnings)
	params := map[string]any{}
	for k, v := range c.Params {
		if s, ok := v.(string); ok {
			v = clean(s, mostName)
		}
		params[clean(k, mostName)] = v
	}
	c.Params, c.Lag = params, nil
	return c
}

func cleanAll(list []string) (out []string) {
	for _, s := range list {
		out = append(out, clean(s, mostText))
	}
	return out
}

func paramText(params map[string]any) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(params)) {
		parts = append(parts, k+"="+fmt.Sprint(params[k]))
	}
	return strings.Join(parts, " ")
}
