package workloads

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"meibench/internal/canon"
	"meibench/internal/sourced"
	"meibench/workloads/arrival"
	"meibench/workloads/length"
	"meibench/workloads/traces"
)

// Scale says what requests are made of.
type Scale string

// Scales of requests.
const (
	Field Scale = "field" // lengths from published distributions, no text
	Task  Scale = "task"  // task text with known answers, for the project's own models
)

// Spec says which workload to make. Zero fields take the application's own
// values; either Requests or Horizon must end the stream, unless a trace does.
type Spec struct {
	App        string        `json:"app"`
	Tier       string        `json:"tier,omitempty"` // of limits; "" = the application's first
	Scenario   Scenario      `json:"scenario,omitempty"`
	Scale      Scale         `json:"scale,omitempty"`      // "" = field
	Difficulty string        `json:"difficulty,omitempty"` // task requests: easy, hard, "" = both
	Rate       float64       `json:"rate,omitempty"`       // requests per second over all users
	Users      int           `json:"users,omitempty"`      // "" = 1
	Requests   int           `json:"requests,omitempty"`   // at most so many
	Horizon    time.Duration `json:"horizon_ns,omitempty"` // none intended later than this
	Context    int           `json:"context,omitempty"`    // tokens of prompt and answer a model can hold; 0 = no limit
	Day        bool          `json:"day,omitempty"`        // modulate by the application's day curve
	// Pool is how many different things people ask, task requests: the popular ones more often, by Zipf's law with exponent 0.8
	// (assumed), each time in words of its own where the application has several; 0 = nothing is asked twice on purpose.
	Pool int `json:"pool,omitempty"`
	// Preamble is the number of tokens that the prompts of an application begin with, which its server adds: a system prompt;
	// field requests.
	Preamble int `json:"preamble,omitempty"`
}

// Deps are what a workload needs from outside.
type Deps struct {
	App       *App          // an application of your own, instead of one from Table
	Tasks     TaskSource    // task scale; nil = package workloads/tasks
	Tokenizer Tokenizer     // task scale
	Trace     *traces.Trace // scenario trace
}

// Workload is a stream of requests for every seed.
type Workload struct {
	spec  Spec
	app   App
	trace *traces.Trace
	tasks TaskSource
	token Tokenizer
	pool  *pool // nil: every request asks its own question

	arrivals arrival.Spec
	rate     float64 // requests per second, all users; NaN where completions decide
	factor   float64 // time compression

	first, follow                            length.Joint
	images, imageTokens, sensor, turns, wait *length.Dist
	deadline                                 time.Duration
}

// New makes a workload. Errors name the field and what would be right.
func New(spec Spec, deps Deps) (*Workload, error) {
	w := &Workload{spec: spec, trace: deps.Trace, tasks: deps.Tasks, token: deps.Tokenizer}
	if deps.App != nil {
		w.app = *deps.App
	} else {
		app, err := Lookup(spec.App)
		if err != nil {
			return nil, err
		}
		w.app = app
	}
	if err := w.app.Validate(); err != nil {
		return nil, fmt.Errorf("application %q: %w", w.app.Name, err)
	}
	w.spec.App = w.app.Name
	if err := w.complete(); err != nil {
		return nil, fmt.Errorf("workload %s: %w", w.app.Name, err)
	}
	if err := w.compile(); err != nil {
		return nil, fmt.Errorf("workload %s: %w", w.app.Name, err)
	}
	return w, nil
}

// complete fills in the zero fields of the spec and refuses what cannot be.
func (w *Workload) complete() error {
	s := &w.spec
	if s.Scenario == "" {
		s.Scenario = w.app.Scenario
	}
	if s.Scale == "" {
		s.Scale = Field
	}
	if s.Tier == "" && len(w.app.Tiers()) > 0 {
		s.Tier = w.app.Tiers()[0]
	}
	if s.Users == 0 {
		s.Users = 1
	}
	if err := s.Scenario.check(); err != nil {
		return sourced.Within("scenario", err)
	}
	switch {
	case s.Scale != Field && s.Scale != Task:
		return sourced.Within("scale", fmt.Errorf("want field or task, got %q", string(s.Scale)))
	case s.Tier != "" && !slices.Contains(w.app.Tiers(), s.Tier):
		return sourced.Within("tier", fmt.Errorf("no limits of tier %q (have %s)", s.Tier, strings.Join(w.app.Tiers(), ", ")))
	case !(s.Rate >= 0) || math.IsInf(s.Rate, 0):
		return sourced.Within("rate", fmt.Errorf("want a finite number >= 0 of requests per second, got %g", s.Rate))
	case s.Users < 0:
		return sourced.Within("users", fmt.Errorf("want at least 1, got %d", s.Users))
	case s.Requests < 0:
		return sourced.Within("requests", fmt.Errorf("want >= 0, got %d", s.Requests))
	case s.Horizon < 0:
		return sourced.Within("horizon", fmt.Errorf("want >= 0, got %v", s.Horizon))
	case s.Context < 0 || s.Context == 1:
		return sourced.Within("context", fmt.Errorf("want 0 (no limit) or at least 2 tokens, got %d", s.Context))
	case s.Pool < 0 || s.Pool > 1<<20 || s.Pool > 0 && s.Scale != Task:
		return sourced.Within("pool", fmt.Errorf("want 0 to %d questions, of requests of scale task, got %d of scale %s", 1<<20, s.Pool, s.Scale))
	case s.Preamble < 0 || s.Preamble > 0 && s.Scale != Field:
		return sourced.Within("preamble", fmt.Errorf("want 0 or more tokens, of requests of scale field, got %d of scale %s", s.Preamble, s.Scale))
	case s.Context > 0 && s.Preamble >= s.Context:
		return sourced.Within("preamble", fmt.Errorf("%d tokens leave nothing of a context of %d", s.Preamble, s.Context))
	case s.Day && !w.app.Arrivals.Day.Given():
		return sourced.Within("day", fmt.Errorf("application %q has no day curve", w.app.Name))
	case s.Day && s.Scenario != Open && s.Scenario != MultiTurn:
		return sourced.Within("day", fmt.Errorf("scenario %q has its own arrivals: use open or multi-turn", string(s.Scenario)))
	case s.Scenario == Replay && (w.trace == nil || len(w.trace.Rows) == 0):
		return sourced.Within("scenario", fmt.Errorf("trace replays a recorded trace: name its file (--set trace=FILE)"))
	case s.Requests == 0 && s.Horizon == 0 && s.Scenario != Replay:
		return sourced.Within("requests", fmt.Errorf("neither requests nor horizon is set: the stream would never end"))
	case s.Requests == 0 && s.Scenario == Offline:
		return sourced.Within("requests", fmt.Errorf("offline issues all requests at once: say how many"))
	}
	return w.completeTasks()
}

// compile turns descriptions into what is sampled from.
func (w *Workload) compile() error {
	a := &w.app
	var prompt, follow, output *length.Dist
	for _, d := range []struct {
		name, unit string
		spec       length.Spec
		to         **length.Dist
	}{
		{"prompt", "token", a.Prompt, &prompt}, {"follow", "token", a.Follow, &follow}, {"output", "token", a.Output, &output},
		{"images", "image", a.Images, &w.images}, {"image_tokens", "token", a.ImageTokens, &w.imageTokens},
		{"sensor", "B", a.Sensor, &w.sensor}, {"turns", "turn", a.Turns, &w.turns}, {"think", "s", a.Think, &w.wait},
	} {
		if !d.spec.Given() {
			continue
		}
		dist, err := d.spec.Compile(d.unit)
		if err != nil {
			return sourced.Within(d.name, err)
		}
		*d.to = dist
	}
	if follow == nil {
		follow = prompt
	}
	w.first = length.Joint{In: prompt, Out: output, Rho: a.Rho.Value}
	w.follow = length.Joint{In: follow, Out: output, Rho: a.Rho.Value}
	w.deadline = w.Limits().E2E.Duration()
	return w.schedule()
}

// schedule settles the arrival process, the rate and the compression.
func (w *Workload) schedule() error {
	s := &w.spec
	w.arrivals, w.factor = w.app.Arrivals, 1
	if !s.Day {
		w.arrivals.Day = arrival.Day{}
	}
	w.rate = s.Rate
	if w.rate == 0 {
		if w.app.PerUser.Given() {
			w.rate = w.app.PerUser.Value * float64(s.Users)
		} else {
			w.rate = w.arrivals.MeanRate(s.Users)
		}
	}
	switch s.Scenario {
	case Open, MultiTurn:
		rate := w.rate
		if s.Scenario == MultiTurn && w.turns != nil {
			rate /= w.turns.Mean() // of sessions
		}
		w.factor = rate / w.arrivals.MeanRate(s.Users)
	case Server:
		w.arrivals = arrival.Spec{Kind: arrival.Poisson, Rate: assumed(w.rate, "1/s", "the workload's rate")}
	case Periodic:
		if w.arrivals.Kind != arrival.Periodic {
			w.arrivals = arrival.Spec{Kind: arrival.Periodic, Period: assumed(float64(s.Users)/w.rate, "s", "users / the workload's rate")}
		}
		w.factor = w.rate / w.arrivals.MeanRate(s.Users)
	case Replay:
		if s.Rate == 0 {
			w.rate = w.trace.Rate()
			break
		}
		if w.trace.Rate() == 0 {
			return sourced.Within("rate", fmt.Errorf("the trace has no extent in time, so it cannot be brought to %g requests per second", s.Rate))
		}
		w.factor = s.Rate / w.trace.Rate()
	default:
		w.rate = math.NaN()
		return nil
	}
	if s.Scenario == Replay {
		return nil
	}
	_, err := w.arrivals.Start(arrival.Run{Sources: 1, Factor: w.factor})
	return sourced.Within("rate", err)
}

// Spec is the workload's specification with every default filled in.
func (w *Workload) Spec() Spec { return w.spec }

// App is the application that asks.
func (w *Workload) App() App { return w.app }

// Rate is the mean number of requests per second offered, over all users; NaN
// where the system's own speed decides.
func (w *Workload) Rate() float64 { return w.rate }

// Factor is the time compression of arrivals: the application's process, or the
// trace, runs so many times faster than recorded.
func (w *Workload) Factor() float64 { return w.factor }

// Closed reports whether requests wait for the completion of others, so that a
// run needs a Driver besides Requests.
func (w *Workload) Closed() bool { return w.spec.Scenario.Closed() }

// Limits are the bounds of one tier. A limit that is not declared has no metric
// and a duration of zero.
type Limits struct{ TTFT, TPOT, E2E Limit }

// Limits returns the bounds the application declares for the workload's tier.
func (w *Workload) Limits() Limits {
	var out Limits
	for _, l := range w.app.Limits {
		if l.Tier != "" && l.Tier != w.spec.Tier {
			continue
		}
		switch l.Metric {
		case TTFT:
			out.TTFT = l
		case TPOT:
			out.TPOT = l
		case E2E:
			out.E2E = l
		}
	}
	return out
}

// Describe lists every number the workload is made of, with its source.
func (w *Workload) Describe() []sourced.Named {
	out := w.app.Numbers()
	if !math.IsNaN(w.rate) {
		source := "asked for"
		if w.spec.Rate == 0 {
			source = "the application's own rate for " + fmt.Sprint(w.spec.Users) + " user(s)"
		}
		out = append(out, fact("run.rate", assumed(w.rate, "1/s", source)),
			fact("run.time_compression", assumed(w.factor, "1", "rate over the recorded rate; times are divided by it")))
	}
	return out
}

// Canonical is the workload as JSON: equal bytes mean equal request streams for
// a seed, given the same tokenizer, tasks and trace. It is what contracts hash.
func (w *Workload) Canonical() ([]byte, error) {
	return canon.JSON(struct {
		Spec Spec `json:"spec"`
		App  App  `json:"app"`
	}{w.spec, w.app})
}

// duration converts seconds to time, saturating.
func duration(s float64) time.Duration {
	if ns := math.Floor(float64(s*1e9) + 0.5); ns < math.MaxInt64 {
		return time.Duration(ns)
	}
	return math.MaxInt64
}
