// Package pipeline holds the ways to serve a request between a user's device,
// the edge and the cloud: one file per pipeline, each written once.
//
// A pipeline is blocking code over a world.Env and a hardware.Site. The same
// file runs measured, emulated and modelled; it does not know which. It may not
// touch the wall clock, goroutines, channels, sockets or global randomness
// (internal/tidy checks), so whatever it does can be replayed.
//
// To add one: implement Pipeline in a new file and add a line to Table, which is
// sorted by name. A script in testdata (its part above ----) becomes a scenario
// when the tests run once with -update: read what they wrote.
//
//	func (p *mine) Handle(req *workloads.Request, log *record.Request) error {
//		user := p.site.User(req.User)
//		d, err := user.Up.Send(hardware.Payload{Bytes: req.TextBytes}) // ... and so on
//	}
//
// Handle tells log where the time went with Spent after each step; the spans
// then add up to the request by construction.
package pipeline

import (
	"fmt"
	"math"
	"sort"
	"strings"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/workloads"
)

// Pipeline serves requests over a site.
type Pipeline interface {
	// Start checks that the site has what the pipeline needs and starts its
	// servers. It is called once, before the world runs.
	Start(env world.Env, site *hardware.Site, model *hardware.Model) error
	// Handle serves one request from start to end, in a process of its own, and
	// returns the error that made it fail. The harness finishes the log.
	Handle(req *workloads.Request, log *record.Request) error
}

// Param is a number that a suite may set.
type Param struct {
	Name    string
	Default float64
	Min     float64
	Max     float64
	Doc     string
}

// Entry is one pipeline of the table.
type Entry struct {
	Name   string
	Doc    string
	Ops    string // what it asks of which node, in words
	Params []Param
	New    func(p map[string]float64) Pipeline
}

// Table lists the pipelines by name.
var Table = []Entry{
	{
		Name: "local", Doc: "the whole model on the user's device",
		Ops: "device: prefill, decode",
		New: func(map[string]float64) Pipeline { return &local{} },
	},
	{
		Name: "offload", Doc: "prompt and sensor data to an edge server with continuous batching; tokens stream back",
		Ops: "edge: prefill, decode",
		Params: []Param{
			{"batch", 8, 1, 4096, "most sequences in one iteration"},
			{"token_bytes", 8, 1, 4096, "bytes on the wire per output token"},
		},
		New: func(p map[string]float64) Pipeline {
			return &offload{batch: int(p["batch"]), tokenBytes: p["token_bytes"]}
		},
	},
	{
		Name: "split", Doc: "lower layers on the device, upper layers and head at the edge; activations up, token ids down",
		Ops: "device and edge: prefill, decode on a span of layers",
		Params: []Param{
			{"cut", 0.5, 0, 10_000, "layers on the device; below 1 a share of the depth"},
			{"wire_bytes", 4, 4, 4, "bytes per activation element on the wire (F32)"},
			{"batch", 8, 1, 4096, "most sequences in one iteration at the edge"},
			{"token_bytes", 8, 1, 4096, "bytes on the wire per token id"},
		},
		New: func(p map[string]float64) Pipeline {
			return &split{cut: p["cut"], wireBytes: p["wire_bytes"], batch: int(p["batch"]), tokenBytes: p["token_bytes"]}
		},
	},
}

// Find returns the pipeline of a name, or an error that lists the names.
func Find(name string) (Entry, error) {
	i := sort.Search(len(Table), func(i int) bool { return Table[i].Name >= name })
	if i < len(Table) && Table[i].Name == name {
		return Table[i], nil
	}
	var have []string
	for _, e := range Table {
		have = append(have, e.Name)
	}
	return Entry{}, fmt.Errorf("unknown pipeline %q (have %s)", name, strings.Join(have, ", "))
}

// Resolve fills in defaults and refuses names and values the pipeline does not know.
func (e Entry) Resolve(set map[string]float64) (map[string]float64, error) {
	out := make(map[string]float64, len(e.Params))
	for _, p := range e.Params {
		out[p.Name] = p.Default
		v, ok := set[p.Name]
		if !ok {
			continue
		}
		if math.IsNaN(v) || v < p.Min || v > p.Max {
			return nil, fmt.Errorf("pipeline %q: parameter %s: want %g to %g, got %g", e.Name, p.Name, p.Min, p.Max, v)
		}
		out[p.Name] = v
	}
	for name := range set {
		if _, ok := out[name]; !ok {
			return nil, fmt.Errorf("pipeline %q has no parameter %q (have %s)", e.Name, name, e.paramNames())
		}
	}
	return out, nil
}

func (e Entry) paramNames() string {
	if len(e.Params) == 0 {
		return "none"
	}
	var names []string
	for _, p := range e.Params {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

// note accounts an operation's cost to a request: share is the part of a
// batched operation that belongs to it.
func note(log *record.Request, part record.Part, u hardware.Usage, share float64) {
	log.Spend(part, units.Joules(float64(u.Energy)*share), uint8(u.Joules))
	log.FLOP += units.FLOP(float64(u.FLOP) * share)
	if part == record.DevicePart {
		log.PeakBytes = max(log.PeakBytes, u.Peak)
	}
}

// sent accounts a transfer to a request.
func sent(log *record.Request, d hardware.Delivery, up bool) {
	u := d.Usage
	if up {
		log.UpBytes += u.Moved
	} else {
		log.DownBytes += u.Moved
	}
	log.Spend(record.RadioPart, u.Energy, uint8(u.Joules))
}

// emit records an output token that the user has now.
func emit(log *record.Request, u hardware.Usage, token int32) {
	log.Token(u.End, 1)
	if token != hardware.NoToken {
		log.Output = append(log.Output, token)
	}
}
