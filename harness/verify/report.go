package verify

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"meibench/harness/bundle"
)

// report gathers findings. Those of one rule, file and kind are one line: the
// first in full and how many there are.
type report struct {
	findings []bundle.Finding
	at       map[string]int
	strict   bool
}

// spot is where something was found.
type spot struct{ file, row string }

func (r *report) say(rule string, at spot, format string, args ...any) {
	r.sayAs(rule, "", at, format, args...)
}

// sayAs is say with another severity than the rule's.
func (r *report) sayAs(rule string, severity bundle.Severity, at spot, format string, args ...any) {
	key := rule + "\x00" + at.file + "\x00" + format
	if i, ok := r.at[key]; ok {
		r.findings[i].Count++
		return
	}
	entry, err := Lookup(rule)
	if err != nil {
		panic(err)
	}
	if severity == "" {
		severity = entry.Severity
	}
	if r.strict && severity == bundle.Warning {
		severity = bundle.Error
	}
	if r.at == nil {
		r.at = map[string]int{}
	}
	r.at[key] = len(r.findings)
	r.findings = append(r.findings, bundle.Finding{Rule: rule, Severity: severity, File: at.file, Row: at.row,
		Text: clean(fmt.Sprintf(format, args...)), Fix: entry.Fix, Count: 1})
}

// refused reports whether an error was found.
func (r *report) refused() bool {
	for _, f := range r.findings {
		if f.Severity == bundle.Error {
			return true
		}
	}
	return false
}

const longest = 400 // characters of a finding

// clean takes out what a hostile bundle could do to a terminal or a page.
func clean(s string) string {
	s = strings.Map(func(c rune) rune {
		if c == '\n' || c == '\t' {
			return ' '
		}
		if !unicode.IsPrint(c) || c == utf8.RuneError {
			return '?'
		}
		return c
	}, s)
	if utf8.RuneCountInString(s) > longest {
		s = string([]rune(s)[:longest]) + " …"
	}
	return s
}

// Text writes a verdict: a line for each finding, then one line that says what
// the exit code says.
func Text(out io.Writer, name string, v *bundle.Verdict) error {
	var b strings.Builder
	for _, f := range v.Findings {
		fmt.Fprintf(&b, "%s %s", f.Rule, f.Severity)
		for _, s := range []string{f.File, f.Row} {
			if s != "" {
				fmt.Fprintf(&b, " %s", clean(s))
			}
		}
		fmt.Fprintf(&b, ": %s", f.Text)
		if f.Count > 1 {
			fmt.Fprintf(&b, " (and %d more like it)", f.Count-1)
		}
		if f.Fix != "" && (f.Severity == bundle.Error || f.Severity == bundle.Warning) {
			fmt.Fprintf(&b, " · fix: %s", f.Fix)
		}
		b.WriteByte('\n')
	}
	if v.Replay != (bundle.Replay{}) {
		fmt.Fprintf(&b, "run again: %d modelled and %d kernel runs of cells, %d requests; %d left", v.Replay.Modelled, v.Replay.Kernels, v.Replay.Rows, v.Replay.Left)
		if v.Replay.Why != "" {
			fmt.Fprintf(&b, " (%s)", clean(v.Replay.Why))
		}
		b.WriteByte('\n')
	}
	b.WriteString(Line(name, v))
	b.WriteByte('\n')
	_, err := io.WriteString(out, b.String())
	return err
}

// Line is the verdict in one line.
func Line(name string, v *bundle.Verdict) string {
	n := map[bundle.Severity]int{}
	for _, f := range v.Findings {
		n[f.Severity] += max(f.Count, 1)
	}
	if v.Tier == bundle.Refused {
		return fmt.Sprintf("REFUSED %s: %d error(s), %d warning(s)", clean(name), n[bundle.Error], n[bundle.Warning])
	}
	committed := "plan not committed"
	if v.Committed {
		committed = "plan committed before the run"
	}
	return fmt.Sprintf("ACCEPTED %s: tier T%d %s, %s; %d warning(s), %d flag(s)", clean(name), v.Tier-bundle.Reported, v.Tier, committed, n[bundle.Warning], n[bundle.Flag])
}
