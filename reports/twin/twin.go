// Package twin is the part of a report that says how right the modelled cells are:
// beside each measured cell its modelled twin, error by metric and quantile, and how
// many requests lie inside the interval that the profile states; for modelled cells
// without a twin, what is known of the error of their devices.
//
//	rep := reports.Build(data, twin.Sections(data)...)
//
// It reads the requests of both folders again, since errors are those of the same
// requests. What it does not do: fit anything (harness/twin), or compare emulated
// cells (the table of agreement in reports does).
package twin

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/predict"
	"meibench/hardware/profiles"
	"meibench/harness/pairs"
	"meibench/reports"
)

// Sections are those that a report of data needs: none without modelled cells.
func Sections(data *reports.Data) []reports.Section {
	s := reports.Section{Name: "twin", Title: "How right the modelled cells are"}
	list, problems := pairsOf(data)
	if len(list) > 0 {
		s.Lead = append(s.Lead, lead(list))
		s.Tables = append(s.Tables, errorsOf(data, list))
	}
	if t, text := stated(data, list); t != nil {
		s.Tables, s.Lead = append(s.Tables, *t), append(s.Lead, text)
	}
	if len(s.Tables) == 0 {
		return nil
	}
	s.Lead = append(s.Lead, problems...)
	s.Folded = len(list) == 0
	return []reports.Section{s}
}

// pairsOf compares every folder with measured cells with every one with modelled
// cells; one that holds both is compared with itself first.
func pairsOf(data *reports.Data) (out []pairs.Pair, problems []string) {
	has := func(run int, mode string) bool {
		return slices.ContainsFunc(data.Groups, func(g *reports.Group) bool { return g.Run == run && g.Cell.Mode == mode })
	}
	done := map[string]bool{}
	for i := range data.Runs {
		if data.Runs[i].Dir == "" || !has(i, "modelled") {
			continue
		}
		for _, j := range others(i, len(data.Runs)) {
			if data.Runs[j].Dir == "" || !has(j, "measured") {
				continue
			}
			one, err := pairs.Compare(data.Runs[j].Dir, data.Runs[i].Dir)
			if err != nil {
				if !errors.Is(err, pairs.ErrNoTwins) {
					problems = append(problems, fmt.Sprintf("Twins in %s could not be compared: %v.", data.Runs[i].Dir, err))
				}
				continue
			}
			for _, p := range pairs.Pool(one) {
				key := fmt.Sprint(i, p.Modelled.Suite, p.Modelled.Name)
				if !done[key] {
					done[key] = true
					out = append(out, p)
				}
			}
		}
	}
	return out, problems
}

// others are all numbers below n, the given one first.
func others(first, n int) []int {
	out := []int{first}
	for i := range n {
		if i != first {
			out = append(out, i)
		}
	}
	return out
}

func lead(list []pairs.Pair) string {
	var parts []string
	for _, x := range pairs.Misses(list) {
		parts = append(parts, fmt.Sprintf("%s %s (p99 %s)", strings.ToUpper(x.Metric), percent(x.Mean), percent(x.P99)))
	}
	n := fmt.Sprintf("%d cells", len(list))
	if len(list) == 1 {
		n = "1 cell"
	}
	return fmt.Sprintf("Modelled against measured, request by request, median over %s of the error of the mean: %s.", n, strings.Join(parts, ", "))
}

// errorsOf is the table of pairs.
func errorsOf(data *reports.Data, list []pairs.Pair) reports.Table {
	t := reports.Table{Name: "twins", Title: "Measured cells and their modelled twins",
		Caption: "Each pair are the same requests. Errors are modelled / measured − 1 of the mean and of quantiles; absolute is that of the mean. Inside: share of measured requests within the interval that the profile states around the modelled ones, nominally 80 %. The tier says what the device's law rests on: prior (its class), microbenchmark (its own limits), calibrated (a few runs), fitted (this device, model and engine).",
		Columns: reports.Columns([]string{"placement", "tier", "metric"}, "measured mean", "absolute", "mean", "p50", "p90", "p95", "p99", "inside 80 %", "n")}
	at := map[string]int{}
	for i := range list {
		p := &list[i]
		k, ok := at[p.Measured.App]
		if !ok {
			k = len(t.Groups)
			at[p.Measured.App] = k
			t.Groups = append(t.Groups, reports.RowGroup{Title: p.Measured.App})
		}
		g := groupOf(data, p)
		for m := range pairs.NumMetrics {
			f := &p.Metrics[m]
			if f.N == 0 {
				continue
			}
			row := reports.Row{Group: g, Values: []reports.Value{reports.Word(name(p)), reports.Word(tier(p.Tier)), reports.Word(strings.ToUpper(m.String())),
				reports.Time(reports.Bare(f.Measured[pairs.Mean])), difference(f.Modelled[pairs.Mean] - f.Measured[pairs.Mean])}}
			for s := range pairs.NumStats {
				row.Values = append(row.Values, signed(f.Error(s)))
			}
			row.Values = append(row.Values, inside(f), reports.Value{Text: fmt.Sprint(f.N), Sort: float64(f.N)})
			t.Groups[k].Rows = append(t.Groups[k].Rows, row)
		}
	}
	return t
}

// groupOf is the modelled group of a pair.
func groupOf(data *reports.Data, p *pairs.Pair) *reports.Group {
	for _, g := range data.Groups {
		if g.Cell.Mode == "modelled" && g.Cell.Name == p.Modelled.Name && g.Cell.Suite == p.Modelled.Suite {
			return g
		}
	}
	return nil
}

func name(p *pairs.Pair) string {
	c := &p.Measured
	text := c.Pipeline + " " + c.Model
	for _, k := range []string{"rate", "rtt", "mbps"} {
		if v, ok := c.Params[k].(float64); ok && v > 0 {
			text += fmt.Sprintf(" %s=%g", k, v)
		}
	}
	return text
}

func tier(t string) string {
	if t == "" {
		return "unknown"
	}
	return t
}

func inside(f *pairs.Figures) reports.Value {
	v := f.Covered()
	if math.IsNaN(v) {
		return reports.Value{Text: "–", Sort: v}
	}
	return reports.Value{Text: percent(v), Sort: v}
}

func percent(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }

func signed(v float64) reports.Value {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return reports.Value{Text: "–", Sort: math.NaN()}
	}
	return reports.Value{Text: strings.Replace(fmt.Sprintf("%+.1f %%", 100*v), "-", "−", 1), Sort: v}
}

// difference prints a time with its sign.
func difference(sec float64) reports.Value {
	v := reports.Time(reports.Bare(math.Abs(math.Round(sec*1e9)) / 1e9))
	switch {
	case sec < 0:
		v.Text = "−" + v.Text
	case sec > 0:
		v.Text = "+" + v.Text
	}
	v.Sort = sec
	return v
}

// stated says of the devices of modelled cells without a twin what is known of their
// error: the interval of the profile, or that of published measurements of the class.
func stated(data *reports.Data, list []pairs.Pair) (*reports.Table, string) {
	t := reports.Table{Name: "tiers", Title: "Modelled cells without a measured twin: what is known of their devices",
		Caption: "Nominally 80 % of measured times lie between these multiples of the modelled time of a prefill or a decode step: from the calibration that the profile holds, or from published measurements of devices of the class that the law had never seen. “–” where no error is known: nothing is ranked by such cells.",
		Columns: reports.Columns([]string{"device", "class and type", "model", "tier"}, "decode", "prefill")}
	done := map[string]bool{}
	group, unknown := reports.RowGroup{}, 0
	for _, g := range data.Groups {
		if g.Cell.Mode != "modelled" || paired(g, list) {
			continue
		}
		for _, sheet := range devices(data, g) {
			key := sheet.Name + "\x00" + g.Cell.Model
			if done[key] {
				continue
			}
			done[key] = true
			row, known := statedRow(sheet, modelOf(data, g))
			row.Group = g
			if !known {
				unknown++
			}
			group.Rows = append(group.Rows, row)
		}
	}
	if len(group.Rows) == 0 {
		return nil, ""
	}
	t.Groups = []reports.RowGroup{group}
	text := fmt.Sprintf("Modelled cells without a measured twin rest on %d devices and models whose error is stated by tier and class", len(group.Rows))
	if unknown > 0 {
		text += fmt.Sprintf("; for %d of them none is known", unknown)
	}
	return &t, text + "."
}

func paired(g *reports.Group, list []pairs.Pair) bool {
	return slices.ContainsFunc(list, func(p pairs.Pair) bool { return p.Modelled.Name == g.Cell.Name && p.Modelled.Suite == g.Cell.Suite })
}

// devices are the profiles of the devices of a group's site, those that can be found.
func devices(data *reports.Data, g *reports.Group) (out []*profiles.DeviceSheet) {
	site, err := profiles.Site(g.Cell.Site)
	if err != nil {
		return nil // a file of somebody's: the run folder does not hold it
	}
	for _, n := range site.Nodes {
		var d *profiles.DeviceSheet
		switch n.Device {
		case "":
			continue
		case profiles.Host:
			d, err = profiles.LoadDevice(filepath.Join(data.Runs[g.Run].Dir, pairs.HostFile))
		default:
			d, err = profiles.Device(n.Device)
		}
		if err == nil {
			out = append(out, d)
		}
	}
	return out
}

// modelOf is a group's model as far as a law needs it to find its fit.
func modelOf(data *reports.Data, g *reports.Group) *hardware.Model {
	if m, err := profiles.Model(g.Cell.Model); err == nil {
		return m
	}
	return &hardware.Model{Name: g.Cell.Model, Digest: data.Runs[g.Run].Manifest.Models[g.Cell.Model]}
}

func statedRow(d *profiles.DeviceSheet, m *hardware.Model) (reports.Row, bool) {
	law := costmodel.NewLaw(d)
	row := reports.Row{Values: []reports.Value{reports.Word(d.Name), reports.Word(d.Class + ", " + d.Type), reports.Word(m.Name), reports.Word(law.Tier(m))}}
	known := true
	for _, what := range []string{"decode", "prefill"} {
		lo, hi, ok := Stated(d, m, what)
		known = known && ok
		v := reports.Value{Text: "–", Sort: math.NaN()}
		if ok {
			v = reports.Value{Text: fmt.Sprintf("× %.2f to %.2f", lo, hi), Sort: hi}
		}
		row.Values = append(row.Values, v)
	}
	return row, known
}

// Stated is the interval that is known of a device's times for a model: the profile's
// own, or that of its class and type where the law is that of its class; measured
// limits of the device can only make it better. what is decode or prefill.
func Stated(d *profiles.DeviceSheet, m *hardware.Model, what string) (lo, hi float64, ok bool) {
	law := costmodel.NewLaw(d)
	if in := law.Interval(m); in != nil {
		b := in.Decode
		if what == "prefill" {
			b = in.Prefill
		}
		return b.Lo, b.Hi, true
	}
	if t := law.Tier(m); t != profiles.TierPrior && t != profiles.TierMicrobenchmark {
		return 0, 0, false
	}
	return predict.Interval(d.Class, d.Type, what)
}
