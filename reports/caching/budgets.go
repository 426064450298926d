package caching

import (
	"fmt"
	"time"

	"meibench/internal/units"
	"meibench/reference/delivery"
	"meibench/reports"
)

// budgets compares deliveries with the downloads that 3GPP asks of a network (checklist C10); without deliveries it has no rows.
func budgets(all []*reports.Group) (t reports.Table, ok bool) {
	rows := delivery.Budgets()
	t = reports.Table{Name: "budgets", Title: "The downloads of 3GPP",
		Caption: fmt.Sprintf("%s: a model within a second. Sent: bytes to users by radio, mean over requests. In time: deliveries that took a second at most, whatever their size. Beside each size: how long it would take at the speed at which users got theirs, waiting for others and for servers included; passed if within its second.", rows[0].Source),
		Columns: reports.Columns([]string{"cell"}, "requests", "sent / req", "in time")}
	for _, b := range rows {
		name := fmt.Sprintf("%s, %.0f MB", b.Name, float64(b.Bytes)/1e6)
		if b.Assumed != "" {
			name += " (size assumed)"
		}
		t.Columns = append(t.Columns, reports.Columns(nil, name)...)
	}
	all = reports.Where(all, func(g *reports.Group) bool { return len(g.Delivery) > 0 && g.Down > 0 })
	if len(all) == 0 {
		return t, false
	}
	t.Fill(all, setting, title, func(g *reports.Group) []reports.Value {
		sum := 0.0
		took := make([]time.Duration, len(g.Delivery))
		for i, d := range g.Delivery {
			sum += d
			took[i] = units.Seconds(d)
		}
		line := []reports.Value{reports.Word(name(g, "")), reports.Number(reports.Bare(float64(g.N))), reports.Bytes(reports.Bare(g.Down / float64(max(g.N, 1)))), reports.Percent(reports.Bare(rows[0].Share(took)))}
		for _, b := range rows {
			t := units.Seconds(float64(b.Bytes) * sum / g.Down)
			v := reports.Time(reports.Bare(t.Seconds()))
			if v.Text += " ✗"; b.Met(b.Bytes, t) {
				v.Text = v.Text[:len(v.Text)-len("✗")] + "✓"
			}
			line = append(line, v)
		}
		return line
	})
	return t, true
}
