package reports

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"meibench/reports/page"
)

// Markdown writes the report as GitHub-flavoured Markdown. Figures are linked
// from the folder figures beside it.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", md(r.Title))
	if !r.Comparable {
		b.WriteString("**NOT COMPARABLE: a quick run.**\n\n")
	}
	if r.Short != nil {
		r.Short.markdown(&b, "##")
		b.WriteByte('\n')
	}
	if len(r.Setting) > 0 {
		b.WriteString("## Setting\n\n| | |\n|---|---|\n")
		for _, f := range r.Setting {
			fmt.Fprintf(&b, "| %s | %s |\n", md(f.Name), md(f.Value))
		}
		b.WriteString("\n## Answers\n\n")
	}
	for _, a := range r.Answers {
		fmt.Fprintf(&b, "- %s\n", md(a))
	}
	if len(r.Warnings) > 0 {
		b.WriteString("\n## Warnings\n\n")
		for _, w := range r.Warnings {
			fmt.Fprintf(&b, "- %s\n", md(w))
		}
	}
	for i := range r.Sections {
		r.Sections[i].markdown(&b, r.formats()[0])
	}
	for i := range r.Tables {
		r.Tables[i].markdown(&b, "##")
	}
	if len(r.Figures) > 0 {
		b.WriteString("\n## Figures\n")
		for i := range r.Figures {
			r.Figures[i].markdown(&b, r.formats()[0])
		}
	}
	r.cellsMarkdown(&b)
	b.WriteString("\n## Definitions\n\n| metric | unit | meaning |\n|---|---|---|\n")
	for _, d := range r.Definitions {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", md(d.Name), md(d.Unit), md(d.Doc))
	}
	for _, run := range r.Runs {
		fmt.Fprintf(&b, "\n## %s\n\n| | |\n|---|---|\n", md(run.heading()))
		for _, f := range run.Facts {
			fmt.Fprintf(&b, "| %s | %s |\n", md(f.Name), md(f.Value))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cellsMarkdown lists every cell with its configuration.
func (r *Report) cellsMarkdown(b *strings.Builder) {
	if len(r.Cells) == 0 {
		return
	}
	b.WriteString("\n## Every cell\n\nOne cell is run again from the run folder: `meibench run --plan . --cell SUITE/NAME`.\n\n| cell | configuration |\n|---|---|\n")
	for i := range r.Cells {
		c := &r.Cells[i]
		var facts []string
		for _, f := range c.Facts {
			if f.Name == "validity" && c.Flag != "" { // the warnings say why, once
				f.Value = "INVALID " + c.Flag
			}
			facts = append(facts, f.Name+": "+f.Value)
		}
		fmt.Fprintf(b, "| %s | %s |\n", md(strings.TrimSpace(c.Title+" "+c.Flag)), md(strings.Join(facts, ". ")))
	}
}

func (f *RunFacts) heading() string {
	if f.Label == "" {
		return "The run"
	}
	return "Run " + f.Label
}

func (s *Section) markdown(b *strings.Builder, format string) {
	fmt.Fprintf(b, "\n## %s\n\n", md(s.Title))
	for _, l := range s.Lead {
		fmt.Fprintf(b, "- %s\n", md(l))
	}
	for i := range s.Figures {
		s.Figures[i].markdown(b, format)
	}
	for i := range s.Tables {
		s.Tables[i].markdown(b, "###")
	}
}

func (f *Figure) markdown(b *strings.Builder, format string) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n![%s](figures/%s.%s)\n", md(f.Title), md(f.Caption), md(f.Alt), f.Name, format)
}

func (t *Table) markdown(b *strings.Builder, level string) {
	fmt.Fprintf(b, "\n%s %s\n\n%s\n", level, md(t.Title), md(t.Caption))
	flagged := t.Flagged()
	for _, g := range t.Groups {
		if g.Title != "" {
			fmt.Fprintf(b, "\n**%s**\n", md(g.Title))
		}
		b.WriteString("\n|")
		align := "|"
		for _, c := range t.Columns {
			head := c.Head
			if c.Unit != "" {
				head += ", " + c.Unit
			}
			fmt.Fprintf(b, " %s |", md(head))
			align += map[bool]string{true: "---|", false: "---:|"}[c.Left]
		}
		if flagged {
			b.WriteString(" |")
			align += "---|"
		}
		fmt.Fprintf(b, "\n%s\n", align)
		for _, row := range g.Rows {
			b.WriteByte('|')
			for _, v := range row.Values {
				fmt.Fprintf(b, " %s |", md(strings.TrimSpace(v.Text+v.Mark+" "+v.Detail)))
			}
			if flagged {
				fmt.Fprintf(b, " %s |", md(row.invalid()))
			}
			b.WriteByte('\n')
		}
	}
	b.WriteByte('\n')
	for _, n := range t.Notes {
		fmt.Fprintf(b, "- %s\n", md(n))
	}
}

// md escapes what Markdown or the HTML inside it would act on.
func md(s string) string {
	return strings.NewReplacer("\\", "\\\\", "|", "\\|", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "<", "&lt;", ">", "&gt;", "&", "&amp;",
		"!", "\\!", "~", "\\~", "\n", " ").Replace(s)
}

// HTML writes the report as one self-contained page: it asks nothing of a
// network and runs no script but its own, which sorts tables.
func (r *Report) HTML(w io.Writer) error { return r.html(w, "") }

// html writes the page; links are relative to the folder it will lie in, and
// left out if that is not known.
func (r *Report) html(w io.Writer, dir string) error {
	t, err := template.New("report").Funcs(template.FuncMap{"lead": leadOf, "key": sortKey, "inline": inline, "withLinks": withLinks, "sectionOf": sectionOf, "upper": strings.ToUpper, "anchor": r.Anchor}).Parse(page.Report())
	if err != nil {
		return err
	}
	view := struct {
		*Report
		Policy  string
		Style   template.CSS
		Script  template.JS
		Linked  []string
		Sources []source
		Again   []again
	}{r, page.Policy(page.Script()), page.Style(), page.Script(), nil, nil, nil}
	if dir != "" {
		view.Linked = r.formats()
	}
	for i := range r.Runs {
		view.Sources = append(view.Sources, source{&r.Runs[i], r.Runs[i].heading(), r.Runs[i].links(dir)})
	}
	for i := range r.Cells {
		view.Again = append(view.Again, r.again(&r.Cells[i], dir))
	}
	return t.Execute(w, view)
}

// again is a cell with the command that runs it again.
type again struct {
	*CellFacts
	Command string
	Heading string // of its run
}

func (r *Report) again(c *CellFacts, dir string) again {
	run := &r.Runs[c.Run]
	out := again{c, "", run.heading()}
	if rel, err := relative(dir, run.Dir); c.Command != "" && err == nil && dir != "" && run.Dir != "" {
		out.Command = "meibench run --plan " + commandLine([]string{clean(rel, mostText)}) + " " + c.Command
	}
	return out
}

// source is a run with the links to its files.
type source struct {
	*RunFacts
	Heading string
	Links   []fileLink
}

type fileLink struct{ Name, Href string }

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// links are those of a run's files, relative to the folder of the page. A name
// that no run of ours would have is printed and not linked.
func (f *RunFacts) links(dir string) (out []fileLink) {
	base := ""
	if rel, err := relative(dir, f.Dir); err == nil && dir != "" && f.Dir != "" {
		base = rel
	}
	for _, name := range f.Files {
		l := fileLink{Name: name}
		if base != "" && plainName.MatchString(name) {
			parts := strings.Split(path.Join(base, name), "/")
			for i := range parts {
				parts[i] = url.PathEscape(parts[i])
			}
			l.Href = "./" + strings.Join(parts, "/")
		}
		out = append(out, l)
	}
	return out
}

func relative(from, to string) (string, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	to, err = filepath.Abs(to)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(from, to)
	return filepath.ToSlash(rel), err
}

// leadOf splits a sentence after its first colon, to set the part before in
// bold.
func leadOf(s string) struct{ Lead, Rest string } {
	if at := strings.Index(s, ": "); at > 0 {
		return struct{ Lead, Rest string }{s[:at+1], keepUnits(s[at+1:])}
	}
	return struct{ Lead, Rest string }{"", keepUnits(s)}
}

// quantity is a number and the sign or unit after it.
var quantity = regexp.MustCompile(`(\d) (%|[mµn]?[sJ]\b)`)

// keepUnits keeps a unit on the line of its number.
func keepUnits(s string) string { return quantity.ReplaceAllString(s, "$1\u00a0$2") }

// sortKey is what a column is sorted by, "" for what sorts last.
func sortKey(v Value) string {
	if math.IsNaN(v.Sort) || math.IsInf(v.Sort, 0) {
		return ""
	}
	return strconv.FormatFloat(v.Sort, 'g', -1, 64)
}

// inline is a figure's picture as an element of the page. Its texts are escaped
// where the picture is drawn.
func inline(f linkedFigure) template.HTML {
	return template.HTML(f.Picture.Inline("svg-"+f.Name, f.Title, f.Alt))
}

// linkedFigure is a figure with whether the page can link its files.
type linkedFigure struct {
	Figure
	Linked []string // formats
}

func withLinks(f Figure, linked []string) linkedFigure { return linkedFigure{f, linked} }

// linkedSection is a section likewise.
type linkedSection struct {
	Section
	Linked []string
}

func sectionOf(s Section, linked []string) linkedSection { return linkedSection{s, linked} }

// Flagged reports whether a row of the table is marked, so that the marks need a
// column.
func (t *Table) Flagged() bool {
	for _, g := range t.Groups {
		for _, r := range g.Rows {
			if r.Flag != "" {
				return true
			}
		}
	}
	return false
}

// invalid is what the column for marks says.
func (r *Row) invalid() string {
	if r.Flag == "" {
		return ""
	}
	return "INVALID " + r.Flag
}

// Span is how many columns the table has in all.
func (t *Table) Span() int {
	n := len(t.Columns)
	if t.Flagged() {
		n++
	}
	return n
}
