package inference

import (
	"fmt"
	"math"
	"strings"

	"meibench/reference/published"
	"meibench/reports"
)

// literature is the table of figures of the literature beside ours; it is the same
// for every run.
func literature() reports.Section { return compared(published.All()) }

func compared(list []published.Target) reports.Section {
	t := reports.Table{Name: "published", Title: "Published against ours",
		Caption: "Computed by formulae and models of this project, not from this run. Evidence says how surely the published value is known; one that is recalled was not checked and is not claimed to be what the source prints. A miss is shown like a hit.",
		Columns: reports.Columns([]string{"figure", "quantity"}, "published", "ours", "difference", "tolerance")}
	t.Columns = append(t.Columns, reports.Columns([]string{"verdict", "evidence", "source", "note"})...)
	group := reports.RowGroup{Title: "by line of the project's list of algorithms"}
	var missed []string
	met := 0
	for _, p := range list {
		ours := p.Ours()
		verdict := "met"
		if met++; !p.Meets(ours) {
			met--
			verdict = "missed"
			missed = append(missed, p.ID)
		}
		unit := func(v float64) reports.Value {
			out := reports.Number(reports.Bare(v))
			out.Text = strings.TrimSpace(out.Text + " " + p.Unit)
			return out
		}
		evidence, value := p.Evidence, unit(p.Value)
		if p.Evidence == published.Recalled {
			evidence, value.Detail = "recalled, not checked", "(recalled)"
		}
		difference := reports.Percent(reports.Bare(ours/p.Value - 1))
		if p.Value == 0 || math.IsNaN(ours) {
			difference = reports.Word("–")
		}
		group.Rows = append(group.Rows, reports.Row{Values: []reports.Value{reports.Word(p.ID), reports.Word(p.Quantity), value, unit(ours), difference,
			reports.Percent(reports.Bare(p.Tolerance)), reports.Word(verdict), reports.Word(evidence), reports.Word(p.Source), reports.Word(p.Note)}})
	}
	t.Groups = []reports.RowGroup{group}
	lead := fmt.Sprintf("Published against ours: %d of %d figures are within their tolerance.", met, len(list))
	if len(missed) > 0 {
		lead = strings.TrimSuffix(lead, ".") + "; missed: " + strings.Join(missed, "; ") + "."
	}
	return reports.Section{Name: "published", Title: "Published against ours", Lead: []string{lead}, Tables: []reports.Table{t}, Folded: true}
}
