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
	"meibench/harness"
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

// kind is one table of things that have names. Docs are made on demand: many
// need a file to be parsed.
type kind struct {
	name  string
	names func() []string
	doc   func(name string) (string, error)
}

// kinds are the lists, in the order in which they are shown.
var kinds = []kind{
	{"suites", suites.Names, docSuite},
	{"applications", workloads.Names, docApp},
	{"pipelines", func() []string { return namesOf(pipeline.Table, func(e pipeline.Entry) string { return e.Name }) }, docPipeline},
	{"sites", profiles.Sites, docSite},
	{"devices", profiles.Devices, docDevice},
	{"links", profiles.Links, docLink},
	{"models", modelNames, docModel},
	{"libraries", func() []string { return namesOf(harness.Libraries(), func(l [2]string) string { return l[0] }) }, docLibrary},
	{"metrics", func() []string { return namesOf(record.Metrics(), func(m record.Metric) string { return m.Name }) }, docMetric},
	{"tasks", func() []string { return namesOf(tasks.Table, func(t tasks.Task) string { return t.Name }) }, docTask},
	{"scenarios", func() []string {
		return namesOf(workloads.Scenarios[:], func(s workloads.Scenario) string { return string(s) })
	}, docScenario},
}

// one names a single thing of the kind.
func (k kind) one() string {
	if stem, ok := strings.CutSuffix(k.name, "ies"); ok {
		return stem + "y"
	}
	return strings.TrimSuffix(k.name, "s")
}

func namesOf[T any](table []T, name func(T) string) (names []string) {
	for _, e := range table {
		names = append(names, name(e))
	}
	return names
}

// items makes the list of a kind.
func (k kind) items() (out []item, err error) {
	for _, name := range k.names() {
		doc, err := k.doc(name)
		if err != nil {
			return nil, err
		}
		out = append(out, item{k.one(), name, doc})
	}
	return out, nil
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
				i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == args[0] || k.one() == args[0] })
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
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

func docSuite(name string) (string, error) {
	s, err := suites.Load(name)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s (%d cells)", s.Question, len(s.Cells)), nil
}

func docApp(name string) (string, error) {
	a, err := workloads.Lookup(name)
	return a.About, err
}

func docPipeline(name string) (string, error) {
	e, err := pipeline.Find(name)
	return e.Doc, err
}

func docTask(name string) (string, error) {
	t, err := tasks.Lookup(name)
	return t.Doc, err
}

func docScenario(name string) (string, error) {
	doc, ok := map[workloads.Scenario]string{
		workloads.ClosedLoop:   "each user asks, reads the answer, thinks, and asks again",
		workloads.MultiStream:  "LoadGen: 8 requests at once, the next 8 when all are complete",
		workloads.MultiTurn:    "sessions begin as the application's users do; each turn follows the answer before it",
		workloads.Offline:      "LoadGen: all requests at time zero",
		workloads.Open:         "the application's own arrivals, bursty where its field is, whatever became of earlier requests",
		workloads.Periodic:     "each user asks with a fixed period and a phase of their own, as control loops do",
		workloads.Replay:       "times and lengths of a recorded trace (--set trace=FILE)",
		workloads.Server:       "LoadGen: a Poisson process, whatever became of earlier requests",
		workloads.SingleStream: "LoadGen: the next request when the one before is complete",
	}[workloads.Scenario(name)]
	if !ok {
		return "", fmt.Errorf("scenario %q has no description", name)
	}
	return doc, nil
}

func docLibrary(name string) (string, error) {
	for _, l := range harness.Libraries() {
		if l[0] == name {
			return l[1], nil
		}
	}
	return "", oneOf("library", name, namesOf(harness.Libraries(), func(l [2]string) string { return l[0] }))
}

func docMetric(name string) (string, error) {
	m, _ := record.Lookup(name)
	scope, better := "per run", ""
	if m.Scope == record.PerRequest {
		scope = "per request"
	}
	if b := m.Better.String(); b != "" {
		better = ", " + b + " is better"
	}
	return fmt.Sprintf("%s, %s%s: %s", m.Unit, scope, better, m.Doc), nil
}

func docSite(name string) (string, error) {
	s, err := profiles.Site(name)
	if err != nil {
		return "", err
	}
	return s.Summary, nil
}

func docDevice(name string) (string, error) {
	d, err := profiles.Device(name)
	if err != nil {
		return "", err
	}
	return d.Summary, nil
}

func docLink(name string) (string, error) {
	l, err := profiles.Link(name)
	if err != nil {
		return "", err
	}
	return l.Summary, nil
}

func modelNames() []string {
	return append(namesOf(models.Table, func(e models.Entry) string { return e.Name }), profiles.Models()...)
}

func docModel(name string) (string, error) {
	for _, e := range models.Table {
		if e.Name == name {
			return e.Doc + "; weights included", nil
		}
	}
	m, err := profiles.Model(name)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("shape only: %.3g B weights, %d layers, width %d; format as in %s",
		float64(m.Params(m.All()))/1e9, m.Layers, m.Dim, m.Name), nil
}
