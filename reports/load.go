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

	"meibench/harness/results"
)

var errNoRun = errors.New("no run folder given: name one that meibench run wrote")

// Load reads run folders. Requests are streamed; memory holds the columns that
// tables and figures need.
func Load(dirs ...string) (*Data, error) {
	if len(dirs) == 0 {
		return nil, errNoRun
	}
	d := NewData()
	for i, label := range labels(dirs) {
		if err := d.load(label, dirs[i]); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *Data) load(label, dir string) (err error) {
	set, err := results.Read(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	run := d.AddRun(label, dir, set.Manifest)
	for i, r := range set.Runs() {
		d.group(run, cleanCell(r.Cell)).expect(r.Rows)
		if err := d.Add(run, r.Cell, set.Rows(i)); err != nil {
			return err
		}
		if g := d.group(run, cleanCell(r.Cell)); len(g.Cells) == 1 {
			if err := g.addSpans(set.Spans(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// addSpans gives the samples of a group their spans, which a run folder keeps in
// a table of their own, in the order of the requests.
func (g *Group) addSpans(spans iter.Seq2[results.RequestSpan, error]) error {
	k := 0
	for s, err := range spans {
		if err != nil {
			return err
		}
		for k < len(g.Samples) && g.Samples[k].ID < s.ID {
			k++
		}
		if k == len(g.Samples) {
			break
		}
		if g.Samples[k].ID == s.ID {
			g.Samples[k].span(s.Span)
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
