// Package workloads says who asks what, when: applications, arrival processes,
// length models, sessions, and importers for recorded traces.
//
// A workload is a pure function from a seed to a stream of requests. The same
// seed gives the same stream, bit for bit, on every machine:
//
//	for req := range w.Requests(seed) { ... }
//
// What a request says comes in two scales. Task requests carry text made by
// package workloads/tasks, with a known answer, small enough for the models the
// project ships; field requests carry only lengths, drawn from published
// distributions, for modelled runs of real model sizes.
package workloads

import (
	"time"

	"meibench/internal/units"
)

// Request is one thing somebody asks for. Times are since the run began.
type Request struct {
	ID           int           // 0, 1, 2, ... in arrival order
	App          string        // application that asks
	User         int           // who asks
	Session      int           // conversation it belongs to
	Turn         int           // 0, 1, ... within the session
	ArriveAt     time.Duration // intended arrival; latency counts from here
	PromptTokens int           // length of the prompt, vision tokens included
	VisionTokens int           // of these, tokens that stand for an image
	OutputTokens int           // length of the answer to generate
	SensorBytes  units.Bytes   // image, audio or sensor data sent if the prompt is processed elsewhere
	TextBytes    units.Bytes   // size of the prompt's text on the wire
	Deadline     time.Duration // after ArriveAt; 0 = none

	Text   string  // task requests: the prompt
	Answer string  // task requests: the reference answer
	Task   string  // task requests: which task scores the answer
	Prompt []int32 // token ids, where the run has a tokenizer
}
