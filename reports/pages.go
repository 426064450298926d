package reports

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Paths are the files that Write made.
type Paths struct{ Markdown, HTML string }

// Write writes the report into a folder, usually the run's own: report.md,
// report.html, summary.csv and the figures.
func (r *Report) Write(dir string) (p Paths, err error) {
	p = Paths{filepath.Join(dir, "report.md"), filepath.Join(dir, "report.html")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return p, fmt.Errorf("write report: %w", err)
	}
	for _, f := range []struct {
		path string
		fill func(io.Writer) error
	}{{p.Markdown, r.Markdown}, {p.HTML, r.HTML}, {filepath.Join(dir, "summary.csv"), r.CSV}} {
		var b bytes.Buffer
		if err := f.fill(&b); err != nil {
			return p, fmt.Errorf("write report %s: %w", f.path, err)
		}
		if err := os.WriteFile(f.path, b.Bytes(), 0o644); err != nil {
			return p, fmt.Errorf("write report: %w", err)
		}
	}
	return p, nil
}

// HTML writes the report as one self-contained page.
func (r *Report) HTML(w io.Writer) error {
	_, err := io.WriteString(w, "<!doctype html><title>meibench</title>\n")
	return err
}

// Markdown writes the report as GitHub-flavoured Markdown. Figures are linked
// from the folder figures beside it.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", md(r.Title))
	if !r.Comparable {
		b.WriteString("**NOT COMPARABLE: a quick run.**\n\n")
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
	for i := range r.Tables {
		r.Tables[i].markdown(&b)
	}
	if len(r.Figures) > 0 {
		b.WriteString("\n## Figures\n")
		for _, f := range r.Figures {
			fmt.Fprintf(&b, "\n### %s\n\n", md(f.Title))
			if f.Empty != "" {
				fmt.Fprintf(&b, "No data: %s\n", md(f.Empty))
				continue
			}
			fmt.Fprintf(&b, "%s\n\n![%s](figures/%s.svg)\n", md(f.Caption), md(f.Alt), f.Name)
		}
	}
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

func (f *RunFacts) heading() string {
	if f.Label == "" {
		return "The run"
	}
	return "Run " + f.Label
}

func (t *Table) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n", md(t.Title), md(t.Caption))
	flagged := t.flagged()
	for _, g := range t.Groups {
		fmt.Fprintf(b, "\n**%s**\n\n|", md(g.Title))
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
				fmt.Fprintf(b, " %s |", md(row.Flag))
			}
			b.WriteByte('\n')
		}
	}
	b.WriteByte('\n')
	for _, n := range t.Notes {
		fmt.Fprintf(b, "- %s\n", md(n))
	}
}

func (t *Table) flagged() bool {
	for _, g := range t.Groups {
		for _, r := range g.Rows {
			if r.Flag != "" {
				return true
			}
		}
	}
	return false
}

// md escapes what Markdown or the HTML inside it would act on.
func md(s string) string {
	return strings.NewReplacer("\\", "\\\\", "|", "\\|", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "<", "&lt;", ">", "&gt;", "&", "&amp;",
		"!", "\\!", "~", "\\~", "\n", " ").Replace(s)
}
