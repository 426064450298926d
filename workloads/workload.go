// Package workloads says who asks what, when: applications, arrival processes,
// length models, sessions, and workload files. Recorded traces are read by
// package workloads/traces.
//
// A workload is a pure function from a seed to a stream of requests. The same
// seed gives the same stream, bit for bit, on every machine, and the stream is
// lazy: a week of requests needs no more memory than a second of them.
//
//	w, err := workloads.New(workloads.Spec{App: "assistant", Rate: 2, Requests: 1000}, workloads.Deps{})
//	for req := range w.Requests(seed) { ... }
//
// Luck is keyed by the request's number: request 17 has the same lengths at any
// rate, under any arrival process and under every pipeline.
//
// What a request says comes in two scales. Task requests carry text made by
// package workloads/tasks, with a known answer, small enough for the models the
// project ships; field requests carry only lengths, drawn from published
// distributions, for modelled runs of real model sizes.
//
// Where a request waits for the completion of another (Workload.Closed),
// Requests yields those that wait for nothing and a Driver the rest.
//
// Every number of an application carries its source; Workload.Describe lists
// them. The package does not judge results: limits are declared here and
// applied by whoever records the run.
package workloads

import (
	"time"

	"meibench/internal/units"
)

// Request is one thing somebody asks for. Times are since the run began.
type Request struct {
	ID           int           // 0, 1, 2, ... in arrival order; in closed workloads in the order planned
	App          string        // application that asks
	User         int           // who asks
	Session      int           // conversation it belongs to
	Turn         int           // 0, 1, ... within the session
	Query        int           // LoadGen query: several requests issued together; else equal to ID
	ArriveAt     time.Duration // intended arrival; latency counts from here
	PromptTokens int           // length of the prompt, vision tokens and history included
	VisionTokens int           // of these, tokens that stand for images
	PrefixTokens int           // of these, leading tokens that repeat the session so far and may still be cached
	CommonTokens int           // of these, leading tokens that all requests of the application share: a system prompt
	OutputTokens int           // length of the answer to generate
	SensorBytes  units.Bytes   // image, audio or sensor data sent if the prompt is processed elsewhere
	TextBytes    units.Bytes   // size of the prompt's text on the wire
	Deadline     time.Duration // after ArriveAt; 0 = none
	Zone         Zone          // the farthest place its raw data may go

	Text   string  // task requests: the prompt
	Answer string  // task requests: the reference answer
	Task   string  // task requests: which task scores the answer
	Prompt []int32 // task requests: token ids of the prompt
	Blocks []int64 // replayed requests: ids of the prompt's prefix blocks, equal where reusable; read only

	BlockTokens int // tokens of such a block; the last may be shorter
}
