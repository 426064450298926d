package pipeline

import (
	"fmt"
	"strings"
	"time"

	"meibench/reference/library"
	"meibench/workloads"
)

// wantParams are those of pipelines whose requests each ask for a model of the library.
var wantParams = []Param{
	{Name: "want", Names: []string{"popularity", "app", "weights"}, Doc: "each request's model: by popularity, the one that is named after the application that asks, or by the weights that a library file gives its models"},
	{Name: "zipf", Default: 0.8, Min: 0, Max: 10, Doc: "popularity of models: exponent of the Zipf-Mandelbrot law, 0 = all alike"},
	{Name: "shift", Default: 0, Min: 0, Max: 1e6, Doc: "popularity: shift q of the ranks"},
	{Name: "sticky", Default: 0, Min: 0, Max: 0.999, Doc: "probability that a user wants the same model as last time"},
	{Name: "drift", Default: 0, Min: 0, Max: 1, Doc: "share of the models whose ranks change from epoch to epoch"},
	{Name: "epoch_s", Default: 60, Min: 0.001, Max: 1e7, Doc: "length of an epoch"},
}

// DemandText says in a canonical way how requests choose among the models of a library, of a pipeline whose requests do.
func DemandText(p Params) string {
	var out []string
	for _, w := range wantParams {
		out = append(out, fmt.Sprint(w.Name, "=", p[w.Name]))
	}
	return strings.Join(out, " ")
}

// wants knows which model each request is for.
type wants struct {
	law    library.Popularity
	byApp  bool
	given  bool // by the library's weights
	epoch  time.Duration
	lib    *library.Library
	demand *library.Demand
	draw   func(request, user, epoch int) int // the demand's
}

func newWants(p Params) wants {
	return wants{byApp: p.Name("want") == "app", given: p.Name("want") == "weights", law: library.Popularity{S: p.Num("zipf"), Q: p.Num("shift"), Sticky: p.Num("sticky"), Drift: p.Num("drift")},
		epoch: time.Duration(p.Num("epoch_s") * 1e9)}
}

func (w *wants) start(who string, m Models) (err error) {
	if m.Library == nil {
		return fmt.Errorf("pipeline %s: asks for models of a library and the cell names none: give it library: finetunes, say", who)
	}
	w.lib = m.Library
	if w.byApp {
		return nil
	}
	switch {
	case w.given && w.lib.Weights == nil:
		return fmt.Errorf("pipeline %s: want: weights, and library %q gives its models none: use want: popularity", who, w.lib.Name)
	case w.given:
		w.demand, err = library.DemandOf(w.law, w.lib.Weights, m.Seed)
	default:
		w.demand, err = library.NewDemand(w.law, len(w.lib.Models), m.Seed)
	}
	if err == nil {
		w.draw = w.demand.Draw
	}
	return err
}

// of is the model that a request is for. Requests come in the order of their arrival.
func (w *wants) of(req *workloads.Request) (int, error) {
	if w.draw != nil {
		return w.draw(req.ID, req.User, w.at(req.ArriveAt)), nil
	}
	i := w.lib.Find(req.App)
	if i < 0 {
		return 0, fmt.Errorf("library %q has no model that is named after application %q: want: popularity", w.lib.Name, req.App)
	}
	return i, nil
}

// at is the epoch of a time of the run.
func (w *wants) at(now time.Duration) int { return int(now / w.epoch) }
