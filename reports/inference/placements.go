package inference

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/reports"
)

// placements is the table of the first question: per application, which way to
// serve meets the limits, at what quality, bytes, joules and privacy. It takes the
// parts of a suite that cross applications or pipelines, by the most trusted mode
// of each.
func placements(d *reports.Data, all []*reports.Group) *reports.Section {
	chosen := wideCells(d, all)
	if !slices.ContainsFunc(chosen, func(g *reports.Group) bool { return g.Cell.Pipeline != "local" && g.Cell.Pipeline != "offload" }) {
		return nil
	}
	verdicts := d.Verdicts()
	s := &reports.Section{Name: "placements", Title: "Which way to serve meets the limits, and what it costs"}
	t := reports.Table{Name: "placements", Title: "Placements",
		Caption: "By the most trusted mode of each application. Raw: bytes of the user's own data that leave the device, per request; derived: data computed from it, such as activations and drafts. Quality of a modelled cell is that of its measured or emulated twin. Recovered: share of the prompt's tokens that an attack reads from the activations.",
		Columns: reports.Columns([]string{"placement", "meets limits"}, "within", "E2E p50", "quality", "up", "energy", "raw out", "derived out", "recovered")}
	met, apps := 0, 0
	var none, unjudged []string
	for _, set := range reports.Sets(chosen, settingOf) {
		best := set[0]
		group := reports.RowGroup{Title: title(best) + ": " + verdicts[best].Limits}
		passes, valid := false, false
		for _, g := range set {
			group.Rows = append(group.Rows, placementRow(g, verdicts[g], all))
			passes = passes || verdicts[g].Passes && g.Valid()
			valid = valid || g.Valid()
		}
		t.Groups = append(t.Groups, group)
		switch {
		case !valid:
			unjudged = append(unjudged, title(best))
			continue
		case passes:
			met++
		default:
			none = append(none, title(best))
		}
		apps++
	}
	s.Tables = []reports.Table{t}
	lead := fmt.Sprintf("Placements: in %d of %d settings some way to serve meets the limits.", met, apps)
	if len(none) > 0 {
		lead = strings.TrimSuffix(lead, ".") + "; none does in: " + strings.Join(none, "; ") + "."
	}
	if len(unjudged) > 0 {
		lead += " Not judged, as every cell is INVALID: " + strings.Join(unjudged, "; ") + "."
	}
	s.Lead = []string{lead}
	return s
}

// wideCells are the cells of the first part, and of parts that cross applications,
// by the most trusted mode of each setting.
func wideCells(d *reports.Data, all []*reports.Group) (out []*reports.Group) {
	inFirst := map[*reports.Group]bool{}
	for _, g := range d.First() {
		inFirst[g] = true
	}
	wide := map[string]map[string]bool{} // part -> applications
	for _, g := range all {
		part := g.Axis("part")
		if wide[part] == nil {
			wide[part] = map[string]bool{}
		}
		wide[part][g.Cell.App] = true
	}
	for _, set := range reports.Sets(reports.Where(all, func(g *reports.Group) bool { return inFirst[g] || len(wide[g.Axis("part")]) > 1 }), settingOf) {
		best := slices.MinFunc(set, func(a, b *reports.Group) int { return mode(a) - mode(b) })
		out = append(out, reports.Where(set, func(g *reports.Group) bool { return g.Cell.Mode == best.Cell.Mode })...)
	}
	return out
}

// settingOf is where the placements of one application compete.
func settingOf(g *reports.Group) string {
	return strings.Join([]string{g.Axis("part"), g.Cell.App, g.Cell.Site}, "\x00")
}

func placementRow(g *reports.Group, v reports.Verdict, all []*reports.Group) reports.Row {
	score := g.Score()
	if math.IsNaN(score.V) {
		if twin := first(all, func(o *reports.Group) bool { return isTwin(g, o) && o.Quality.N > 0 }); twin != nil {
			score = twin.Score()
		}
	}
	word := map[bool]string{true: "yes", false: "no"}[v.Passes]
	if t := trust(g); t != "" {
		word += ", " + t
		if !g.Valid() {
			word = "not judged: " + t
		}
	}
	if v.Limits == "no limits" {
		word = "no limits"
	}
	recovered := reports.Bare(math.NaN())
	if r, ok := g.Cell.Figures["recovered_share"]; ok {
		recovered = reports.Bare(r)
	}
	return reports.Row{Group: g, Values: []reports.Value{reports.Word(label(g)), reports.Word(word), reports.Percent(g.Within()), reports.Time(g.E2E50()), reports.Number(score),
		reports.Bytes(g.PerRequest(g.Up)), reports.Energy(g.Joules()), reports.Bytes(g.PerRequest(g.Raw)), reports.Bytes(g.PerRequest(g.Derived)), reports.Percent(recovered)}}
}

// isTwin reports whether two groups differ in their mode only.
func isTwin(a, b *reports.Group) bool {
	return a != b && a.Run == b.Run && a.Cell.Suite == b.Cell.Suite && a.Cell.App == b.Cell.App && a.Cell.Mode != b.Cell.Mode && plain(a) == plain(b)
}

// plain is a cell's name without its mode.
func plain(g *reports.Group) string {
	parts := slices.DeleteFunc(strings.Split(g.Cell.Name, "/"), func(p string) bool { return strings.HasPrefix(p, "mode=") })
	return strings.Join(parts, "/")
}

// label is a pipeline with the axes of its suite that are not told elsewhere.
func label(g *reports.Group) string {
	out := []string{g.Cell.Pipeline}
	for _, p := range strings.Split(g.Cell.Name, "/") {
		key, value, ok := strings.Cut(p, "=")
		switch {
		case !ok || slices.Contains([]string{"part", "app", "pipeline", "mode", "site"}, key):
		case key == "model":
			out = append(out, value)
		default:
			out = append(out, p)
		}
	}
	return strings.Join(out, " ")
}
