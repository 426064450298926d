package bundle

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// page writes the texts of a bundle. Every figure in them comes from manifest,
// summary or run folders.
type page struct {
	m     *Manifest
	s     *Summary
	runs  []*Run
	files []File // so far
}

// notRecorded is what a text says where nothing is known.
const notRecorded = "not recorded"

// mostRows bounds the table of claims in README.md.
const mostRows = 60

func (p *page) title() string { return cmp.Or(p.m.Title, "meibench results: "+p.m.Name) }

func (p *page) author() string { return cmp.Or(p.m.Submitter, "unsigned") }

func (p *page) commit() string { return cmp.Or(p.m.Harness.Commit, notRecorded) }

// suites are the names of the suites, each once.
func (p *page) suites() string {
	var names []string
	for _, r := range p.m.Runs {
		names = append(names, r.Suite)
	}
	return strings.Join(distinct(names), ", ")
}

func (p *page) abstract() string {
	return fmt.Sprintf("Results of meibench, a benchmark of language models at the mobile edge: %s, %s, %d claims from %d requests in %d runs of cells.",
		p.suites(), p.m.Mode, len(p.s.Claims), p.m.Attempts.Requests, p.m.Attempts.Done)
}

// md makes data safe inside Markdown: no markup, no HTML, no end of a table cell.
func md(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "|", "\\|", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "\n", " ").Replace(s)
}

// shell quotes a command as a POSIX shell reads it.
func shell(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		plain := strings.Trim(a, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-") == ""
		if quoted[i] = a; a == "" || !plain {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// has reports whether a run has a file.
func (p *page) has(run, name string) bool {
	return slices.ContainsFunc(p.files, func(f File) bool { return f.Path == run+"/"+name })
}

// again are the commands that make a run again.
func (p *page) again(r RunInfo) string {
	var b strings.Builder
	name := path.Base(r.Path)
	called := ""
	if len(r.Command) > 0 {
		called = strings.ReplaceAll(shell(outTo(r.Command, "again/"+name)), "```", "'''")
	}
	switch {
	case p.has(r.Path, planFile):
		args := []string{"meibench", "run", "--plan", r.Path + "/" + planFile}
		if p.has(r.Path, hostFile) && !slices.Contains(r.Modes, "measured") {
			args = append(args, "--profile", r.Path+"/"+hostFile)
		}
		fmt.Fprintln(&b, shell(append(args, "--out", "again/"+name)))
		if called != "" {
			fmt.Fprintf(&b, "# called as: %s\n", called)
		}
	case called != "":
		fmt.Fprintln(&b, called)
	}
	fmt.Fprintf(&b, "meibench compare %s again/%s\n", r.Path, name)
	return b.String()
}

// outTo is a command line that writes its run to another folder.
func outTo(args []string, dir string) []string {
	args = slices.Clone(args)
	for i, a := range args {
		switch {
		case a == "--out" && i+1 < len(args):
			args[i+1] = dir
			return args
		case strings.HasPrefix(a, "--out="):
			args[i] = "--out=" + dir
			return args
		}
	}
	return append(args, "--out", dir)
}

func (p *page) readme() (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n\n", md(p.title()), md(p.abstract()))
	fmt.Fprintf(&b, "Handed in by %s. Division: %s. Licence of the data: %s. The last run ended %s.\n\n", md(p.author()), p.m.Division, md(p.m.Licence), p.m.Created)
	for _, why := range p.m.Open {
		fmt.Fprintf(&b, "- open: %s\n", md(why))
	}
	if len(p.m.Open) > 0 {
		b.WriteString("\n")
	}
	b.WriteString("This file is a convenience. `manifest.json` and `summary.json` are what counts, and both follow from the rows under `runs/`.\n\n" +
		"## Check it\n\n```\nmeibench verify .\n```\n\nWithout meibench, `sha256sum -c SHA256SUMS` checks every file, and the SHA-256 of `SHA256SUMS` itself is the identity of the bundle:\n" +
		"it is what `bundle.note` signs, and, in base64 behind `h1:`, how leaderboards call the bundle.\n\n## What was tried\n\n")
	a := p.m.Attempts
	fmt.Fprintf(&b, "%d of %d runs of cells, of which %d INVALID; %d requests, of which %d failed, timed out or were turned away. What failed is in the tables.\n\n", a.Done, a.Cells, a.Invalid, a.Requests, a.Missed)
	p.claims(&b)
	b.WriteString("## Run it again\n\n")
	fmt.Fprintf(&b, "Program: meibench at commit %s, built with %s.\n\n```\n", md(p.commit()), md(p.m.Harness.Go))
	for _, r := range p.m.Runs {
		b.WriteString(p.again(r))
	}
	b.WriteString("```\n\n")
	p.appendix(&b)
	fmt.Fprintf(&b, "## Cite it\n\n```bibtex\n%s\n```\n", p.bibtex())
	return b.String(), nil
}

// headline are the metrics that README.md shows.
var headline = []string{"goodput", "ttft_p50", "e2e_p50", "quality_mean", "energy_per_request"}

// claims writes the table of claims.
func (p *page) claims(b *strings.Builder) {
	have := map[string]string{}
	for _, c := range p.s.Claims {
		for name, m := range c.Metrics {
			have[name] = m.Unit
		}
	}
	names := slices.DeleteFunc(slices.Clone(headline), func(n string) bool { return have[n] == "" })
	b.WriteString("## Results\n\nMedian over runs [95 % interval, where six runs or more allow one]; n is the number of runs. `summary.json` has every metric.\n\n| run | cell | mode | n |")
	for _, n := range names {
		fmt.Fprintf(b, " %s (%s) |", md(n), md(have[n]))
	}
	b.WriteString("\n|---|---|---|---|" + strings.Repeat("---|", len(names)) + "\n")
	for i, c := range p.s.Claims {
		if i == mostRows {
			fmt.Fprintf(b, "\n%d more are in `summary.json`.\n", len(p.s.Claims)-mostRows)
			break
		}
		valid := ""
		if !c.Valid {
			valid = " INVALID"
		}
		fmt.Fprintf(b, "| %s | %s%s | %s | %d |", md(path.Base(c.Run)), md(c.Suite+"/"+c.Cell), valid, md(c.Mode), c.Runs)
		for _, n := range names {
			fmt.Fprintf(b, " %s |", shown(c.Metrics, n))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

// shown is a metric with its interval, to four digits.
func shown(ms map[string]Metric, name string) string {
	m, ok := ms[name]
	if !ok {
		return ""
	}
	digits := func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
	if m.Low == nil || m.High == nil {
		return digits(m.Value)
	}
	return fmt.Sprintf("%s [%s, %s]", digits(m.Value), digits(*m.Low), digits(*m.High))
}

// appendix is an artifact appendix: what someone needs who wants to repeat the
// runs.
func (p *page) appendix(b *strings.Builder) {
	b.WriteString("## Artifact appendix\n\n")
	say := func(what, text string) { fmt.Fprintf(b, "- **%s**: %s\n", what, md(cmp.Or(text, notRecorded))) }
	var systems, models, seeds []string
	var wall time.Duration
	for i, r := range p.m.Runs {
		systems, models, seeds = append(systems, r.System), append(models, p.models(i)...), append(seeds, r.Seeds...)
		for _, c := range p.runs[i].Set.Runs() {
			wall += c.Cell.Wall
		}
	}
	say("Algorithms and pipelines", strings.Join(p.each(func(c *Claim) string { return c.Pipeline }), ", "))
	say("Applications", strings.Join(p.each(func(c *Claim) string { return c.App }), ", "))
	say("Models, by SHA-256", strings.Join(distinct(models), ", "))
	say("Sites", strings.Join(p.each(func(c *Claim) string { return c.Site }), ", "))
	say("Hardware", strings.Join(distinct(systems), "; "))
	say("Run-time environment", p.environment())
	say("Seeds", strings.Join(distinct(seeds), ", "))
	if wall > 0 {
		say("Time", fmt.Sprintf("%v of wall time in all runs of cells", wall.Round(time.Second)))
	}
	bytes := int64(0)
	for _, f := range p.files {
		bytes += f.Bytes
	}
	say("Disk space", fmt.Sprintf("%d KiB", (bytes+1023)/1024))
	say("Metrics", "those of summary.json; each is defined in meibench (meibench report --definitions all shows other tools' definitions)")
	b.WriteString("\n")
}

// models are the models of a run with their digests.
func (p *page) models(i int) (out []string) {
	m := p.runs[i].Set.Manifest.Models
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, name+" "+m[name])
	}
	return out
}

// each is the sorted set of what claims say.
func (p *page) each(of func(*Claim) string) []string {
	var out []string
	for i := range p.s.Claims {
		out = append(out, of(&p.s.Claims[i]))
	}
	return distinct(out)
}

func (p *page) environment() string {
	var out []string
	for _, r := range p.runs {
		m := &r.Set.Manifest
		parts := []string{m.Host["os"], m.Kernel, m.GOARCH, m.GOAMD64}
		if m.Governor != "" {
			parts = append(parts, "governor "+m.Governor)
		}
		if k := m.Host["kernels"]; k != "" {
			parts = append(parts, "kernels "+k)
		}
		out = append(out, strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " "))
	}
	return strings.Join(distinct(out), "; ")
}

// citation is CITATION.cff 1.2.0. YAML reads JSON's strings.
func (p *page) citation() (string, error) {
	quote := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			return `""` // a string has a JSON form
		}
		return string(b)
	}
	day, _, _ := strings.Cut(p.m.Created, "T")
	lines := []string{"cff-version: 1.2.0", "message: " + quote("If you use these results, please cite them."), "type: dataset",
		"title: " + quote(p.title()), "abstract: " + quote(p.abstract()), "authors:", "  - name: " + quote(p.author()),
		"license: " + quote(p.m.Licence), "date-released: " + quote(day), "keywords:", "  - " + quote("meibench"), "  - " + quote("mobile edge intelligence")}
	return strings.Join(lines, "\n") + "\n", nil
}

// bibtex is an entry for these results.
func (p *page) bibtex() string {
	tex := strings.NewReplacer("\\", "", "{", "", "}", "", "%", `\%`, "&", `\&`, "#", `\#`, "_", `\_`, "$", `\$`, "~", " ", "^", "", "`", "'")
	year, _, _ := strings.Cut(p.m.Created, "-")
	return fmt.Sprintf("@misc{%s,\n  title = {%s},\n  author = {{%s}},\n  year = {%s},\n  note = {meibench bundle, commit %s; its h1 identifies it}\n}",
		p.m.Name, tex.Replace(p.title()), tex.Replace(p.author()), year, tex.Replace(p.commit()))
}
