package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"meibench/hardware/profiles"
	"meibench/harness/pipeline"
	"meibench/harness/record"
	"meibench/reference/models"
	"meibench/suites"
	"meibench/workloads"
	"meibench/workloads/tasks"
)

// item is one line of a list.
type item struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Doc  string `json:"doc"`
}

// kind is one table of things that have names.
type kind struct {
	name  string
	items func() ([]item, error)
}

// kinds are the lists, in the order in which they are shown.
var kinds = []kind{
	{"suites", listSuites},
	{"applications", listApps},
	{"pipelines", listPipelines},
	{"sites", listSites},
	{"devices", listDevices},
	{"links", listLinks},
	{"models", listModels},
	{"metrics", listMetrics},
	{"tasks", listTasks},
	{"scenarios", listScenarios},
}

func kindNames() (names []string) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

func newList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list [KIND]", Short: "show what exists", Aliases: []string{"ls"},
		Long:      "Show what exists: " + strings.Join(kindNames(), ", ") + ". Describe shows one thing with its sources.",
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: kindNames(),
		RunE: func(_ *cobra.Command, args []string) error {
			show := kinds
			if len(args) == 1 {
				i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == args[0] || strings.TrimSuffix(k.name, "s") == args[0] })
				if i < 0 {
					return oneOf("kind", args[0], kindNames())
				}
				show = kinds[i : i+1]
			}
			return a.list(show)
		},
	}
}

func (a *app) list(show []kind) error {
	var all []item
	tw := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	for i, k := range show {
		items, err := k.items()
		if err != nil {
			return err
		}
		all = append(all, items...)
		if a.json {
			continue
		}
		if len(show) > 1 {
			if i > 0 {
				fmt.Fprintln(tw)
			}
			fmt.Fprintln(tw, strings.ToUpper(k.name))
		}
		for _, it := range items {
			fmt.Fprintf(tw, "  %s\t%s\n", it.Name, it.Doc)
		}
	}
	if a.json {
		return writeJSON(a.out, all)
	}
	return tw.Flush()
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func listSuites() (out []item, err error) {
	for _, name := range suites.Names() {
		s, err := suites.Load(name)
		if err != nil {
			return nil, err
		}
		out = append(out, item{"suite", name, fmt.Sprintf("%s (%d cells)", s.Question, len(s.Cells))})
	}
	return out, nil
}

func listApps() (out []item, err error) {
	for _, a := range workloads.Table {
		out = append(out, item{"application", a.Name, a.About})
	}
	return out, nil
}

func listPipelines() (out []item, err error) {
	for _, e := range pipeline.Table {
		out = append(out, item{"pipeline", e.Name, e.Doc})
	}
	return out, nil
}

func listTasks() (out []item, err error) {
	for _, t := range tasks.Table {
		out = append(out, item{"task", t.Name, t.Doc})
	}
	return out, nil
}

func listScenarios() (out []item, err error) {
	for _, s := range workloads.Scenarios {
		doc := "open loop: requests start when the schedule says"
		if s.Closed() {
			doc = "closed loop: requests wait for the completion of others"
		}
		out = append(out, item{"scenario", string(s), doc})
	}
	return out, nil
}

func listMetrics() (out []item, err error) {
	for _, m := range record.Metrics() {
		scope := "per run"
		if m.Scope == record.PerRequest {
			scope = "per request"
		}
		better := ""
		if b := m.Better.String(); b != "" {
			better = ", " + b + " is better"
		}
		out = append(out, item{"metric", m.Name, fmt.Sprintf("%s, %s%s: %s", m.Unit, scope, better, m.Doc)})
	}
	return out, nil
}

func listSites() (out []item, err error) {
	for _, name := range profiles.Sites() {
		s, err := profiles.Site(name)
		if err != nil {
			return nil, err
		}
		out = append(out, item{"site", name, s.Summary})
	}
	return out, nil
}

func listDevices() (out []item, err error) {
	for _, name := range profiles.Devices() {
		d, err := profiles.Device(name)
		if err != nil {
			return nil, err
		}
		out = append(out, item{"device", name, d.Summary})
	}
	return out, nil
}

func listLinks() (out []item, err error) {
	for _, name := range profiles.Links() {
		l, err := profiles.Link(name)
		if err != nil {
			return nil, err
		}
		out = append(out, item{"link", name, l.Summary})
	}
	return out, nil
}

func listModels() (out []item, err error) {
	for _, e := range models.Table {
		out = append(out, item{"model", e.Name, e.Doc + "; weights included"})
	}
	for _, name := range profiles.Models() {
		m, err := profiles.Model(name)
		if err != nil {
			return nil, err
		}
		out = append(out, item{"model", name, fmt.Sprintf("shape only: %.3g B weights, %d layers, width %d; format as in %s",
			float64(m.Params(m.All()))/1e9, m.Layers, m.Dim, m.Name)})
	}
	return out, nil
}
