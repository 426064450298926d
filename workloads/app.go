package workloads

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"meibench/internal/sourced"
	"meibench/workloads/arrival"
	"meibench/workloads/length"
)

// Zone is a place that data may reach, from the user outwards. A zone includes
// the ones before it.
type Zone string

// Zones, nearest first.
const (
	DeviceZone   Zone = "device"   // the user's own equipment
	PremisesZone Zone = "premises" // a server on the same premises: a hospital, a plant
	EdgeZone     Zone = "edge"     // an operator's edge site
	CloudZone    Zone = "cloud"    // anywhere
)

// Zones lists the zones, nearest first.
var Zones = [...]Zone{DeviceZone, PremisesZone, EdgeZone, CloudZone}

// Allows reports whether data that may go as far as z may be at place.
func (z Zone) Allows(place Zone) bool {
	return slices.Index(Zones[:], place) <= slices.Index(Zones[:], z)
}

// Privacy says what an application's data is and how far it may go.
type Privacy struct {
	Class  string       `json:"class" yaml:"class"` // e.g. personal, special category, operational
	Zone   Zone         `json:"zone" yaml:"zone"`   // raw data may go this far and no farther
	Source string       `json:"source" yaml:"source"`
	Kind   sourced.Kind `json:"kind" yaml:"kind"`
}

// Metric is what a limit bounds.
type Metric string

// Metrics that have limits. All count from the intended arrival.
const (
	TTFT Metric = "ttft" // time to first token
	TPOT Metric = "tpot" // time per output token after the first
	E2E  Metric = "e2e"  // time to the last token
)

// Limit is a bound that a share of the requests must meet.
type Limit struct {
	Metric     Metric         `json:"metric" yaml:"metric"`
	Tier       string         `json:"tier,omitempty" yaml:"tier"`   // "" belongs to every tier
	Percentile float64        `json:"percentile" yaml:"percentile"` // share of requests, in (0, 1]
	Bound      sourced.Number `json:"bound" yaml:"bound"`           // seconds
}

// Duration is the bound as a time.
func (l Limit) Duration() time.Duration { return duration(l.Bound.Value) }

// App describes an application as data: what it asks, how often, and what it
// needs. Fields of the zero value are absent.
type App struct {
	Name     string   `json:"name" yaml:"name"`
	About    string   `json:"about" yaml:"about"` // one line
	Task     string   `json:"task" yaml:"task"`   // generator of its task text, see workloads/tasks
	Scenario Scenario `json:"scenario" yaml:"scenario"`
	Privacy  Privacy  `json:"privacy" yaml:"privacy"`

	Arrivals arrival.Spec   `json:"arrivals" yaml:"arrivals"`          // the shape; offered at PerUser x users by time compression
	PerUser  sourced.Number `json:"per_user,omitzero" yaml:"per_user"` // requests per second of one user; not for periodic arrivals

	Prompt length.Spec    `json:"prompt" yaml:"prompt"`          // tokens of text, first turn
	Follow length.Spec    `json:"follow,omitzero" yaml:"follow"` // tokens of text a later turn adds; default Prompt
	Output length.Spec    `json:"output" yaml:"output"`          // tokens of the answer
	Rho    sourced.Number `json:"rho,omitzero" yaml:"rho"`       // copula correlation of Prompt and Output

	Images             length.Spec    `json:"images,omitzero" yaml:"images"`                               // images per request
	ImageTokens        length.Spec    `json:"image_tokens,omitzero" yaml:"image_tokens"`                   // vision tokens per image
	BytesPerImageToken sourced.Number `json:"bytes_per_image_token,omitzero" yaml:"bytes_per_image_token"` // coded bytes of the image that one vision token stands for
	Sensor             length.Spec    `json:"sensor,omitzero" yaml:"sensor"`                               // other sensor bytes per request
	SensorKind         string         `json:"sensor_kind,omitempty" yaml:"sensor_kind"`                    // what these are: audio, lidar, vitals
	BytesPerToken      sourced.Number `json:"bytes_per_token" yaml:"bytes_per_token"`                      // text on the wire

	Turns length.Spec    `json:"turns,omitzero" yaml:"turns"` // turns of a session; default one
	Think length.Spec    `json:"think,omitzero" yaml:"think"` // seconds from having read an answer to the next request
	Read  sourced.Number `json:"read,omitzero" yaml:"read"`   // tokens per second at which a user reads an answer; absent: not read

	Limits []Limit         `json:"limits,omitempty" yaml:"limits"`
	Facts  []sourced.Named `json:"facts,omitempty" yaml:"-"` // requirements of the field that bound no request here
}

// Table lists the applications, sorted by name. The five plain names are the
// survey's killer applications; a name with a hyphen is a variant of one.
var Table = []App{
	ar, assistant, assistantCode, assistantCommand, assistantReasoning, driving, drivingLidar, healthcare, healthcareMonitor, robotics,
}

// Lookup returns the application of that name, or an error that lists the names.
func Lookup(name string) (App, error) {
	for _, a := range Table {
		if a.Name == name {
			return a, nil
		}
	}
	return App{}, fmt.Errorf("unknown application %q (have %s)", name, strings.Join(Names(), ", "))
}

// Names lists the applications.
func Names() []string {
	var names []string
	for _, a := range Table {
		names = append(names, a.Name)
	}
	return names
}

// lengths lists the distributions of a with their field names and units.
func (a *App) lengths() []struct {
	name, unit string
	spec       *length.Spec
	need       bool
} {
	return []struct {
		name, unit string
		spec       *length.Spec
		need       bool
	}{
		{"prompt", "token", &a.Prompt, true}, {"follow", "token", &a.Follow, false}, {"output", "token", &a.Output, true},
		{"images", "image", &a.Images, false}, {"image_tokens", "token", &a.ImageTokens, a.Images.Given()},
		{"sensor", "B", &a.Sensor, false}, {"turns", "turn", &a.Turns, false}, {"think", "s", &a.Think, false},
	}
}

// Validate says what is wrong with a: a *sourced.FieldError.
func (a *App) Validate() error {
	if a.Name == "" || strings.ContainsAny(a.Name, "/ \t\n=,") {
		return sourced.Within("name", fmt.Errorf("want a name without spaces, slashes, commas and equals signs, got %q", a.Name))
	}
	if err := a.Scenario.check(); err != nil {
		return sourced.Within("scenario", err)
	}
	if err := sourced.Within("privacy", a.Privacy.validate()); err != nil {
		return err
	}
	if err := sourced.Within("arrivals", a.Arrivals.Validate()); err != nil {
		return err
	}
	for _, l := range a.lengths() {
		if !l.spec.Given() {
			if l.need {
				return sourced.Within(l.name, errors.New("is missing: describe it, or take it from a base"))
			}
			continue
		}
		if err := sourced.Within(l.name, l.spec.Validate(l.unit)); err != nil {
			return err
		}
	}
	if err := a.validateNumbers(); err != nil {
		return err
	}
	for i, l := range a.Limits {
		if err := sourced.Within(fmt.Sprintf("limits[%d]", i), l.validate()); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) validateNumbers() error {
	if a.SensorKind != "" && !a.Sensor.Given() {
		return sourced.Within("sensor_kind", fmt.Errorf("there is no sensor to be %q: describe sensor, in bytes per request", a.SensorKind))
	}
	if a.Arrivals.Kind != arrival.Periodic || a.PerUser.Given() {
		if err := a.PerUser.Positive("1/s"); err != nil {
			return sourced.Within("per_user", err)
		}
	}
	if a.Rho.Given() {
		err := a.Rho.Check("1")
		if err == nil {
			err = length.Joint{Rho: a.Rho.Value}.Check()
		}
		if err != nil {
			return sourced.Within("rho", err)
		}
	}
	if a.Images.Given() {
		if err := a.BytesPerImageToken.NonNegative("B/token"); err != nil {
			return sourced.Within("bytes_per_image_token", err)
		}
	}
	if a.Read.Given() {
		if err := a.Read.Positive("token/s"); err != nil {
			return sourced.Within("read", err)
		}
	}
	return sourced.Within("bytes_per_token", a.BytesPerToken.NonNegative("B/token"))
}

func (p Privacy) validate() error {
	if !slices.Contains(Zones[:], p.Zone) {
		return sourced.Within("zone", fmt.Errorf("unknown zone %q (have %v)", string(p.Zone), Zones))
	}
	return sourced.Number{Value: 1, Unit: "1", Source: p.Source, Kind: p.Kind}.Check("1")
}

func (l Limit) validate() error {
	switch l.Metric {
	case TTFT, TPOT, E2E:
	default:
		return sourced.Within("metric", fmt.Errorf("want ttft, tpot or e2e, got %q", string(l.Metric)))
	}
	if !(l.Percentile > 0 && l.Percentile <= 1) {
		return sourced.Within("percentile", fmt.Errorf("want a share in (0, 1], got %g", l.Percentile))
	}
	return sourced.Within("bound", l.Bound.Positive("s"))
}

// Tiers lists the tiers of limits that a declares, in order of appearance.
func (a *App) Tiers() []string {
	var tiers []string
	for _, l := range a.Limits {
		if l.Tier != "" && !slices.Contains(tiers, l.Tier) {
			tiers = append(tiers, l.Tier)
		}
	}
	return tiers
}

// Numbers lists every number of a with its source, in a fixed order.
func (a *App) Numbers() []sourced.Named {
	out := a.Arrivals.Numbers("arrivals.")
	add := func(name string, n sourced.Number) {
		if n.Given() {
			out = append(out, sourced.Named{Name: name, Number: n})
		}
	}
	add("per_user", a.PerUser)
	for _, l := range a.lengths() {
		out = append(out, l.spec.Numbers(l.name+".", l.unit)...)
	}
	add("rho", a.Rho)
	add("bytes_per_image_token", a.BytesPerImageToken)
	add("bytes_per_token", a.BytesPerToken)
	add("read", a.Read)
	for _, l := range a.Limits {
		name := fmt.Sprintf("limits.%s.p%g", l.Metric, 100*l.Percentile)
		if l.Tier != "" {
			name = fmt.Sprintf("limits.%s.%s.p%g", l.Tier, l.Metric, 100*l.Percentile)
		}
		add(name, l.Bound)
	}
	for _, f := range a.Facts {
		add("facts."+f.Name, f.Number)
	}
	return out
}
