package workloads

import (
	"fmt"
	"slices"
)

// Scenario says what makes the next request come. Where MLPerf LoadGen has the
// scenario, its definition holds (LoadGen 6.0, inference rules); its minimum
// run of 600 s and its early stopping belong to whoever judges a run.
type Scenario string

const (
	// ClosedLoop: each of Users users asks, waits for the answer, reads it,
	// thinks, and asks again. The k-th request of a user is the same, and is
	// followed by the same thought, whatever the system does.
	ClosedLoop Scenario = "closed-loop"
	// MultiStream is LoadGen's: a query of 8 requests is issued as soon as all 8
	// of the query before are complete. The result is the query's latency, the
	// largest of the eight (p99).
	MultiStream Scenario = "multi-stream"
	// MultiTurn: sessions begin by the application's arrival process; within a
	// session each turn follows the answer to the one before, after reading and
	// thinking, and repeats the whole conversation as its prefix.
	MultiTurn Scenario = "multi-turn"
	// Offline is LoadGen's: one query holds all requests, at time zero. The
	// result is throughput.
	Offline Scenario = "offline"
	// Open: requests come by the application's own arrival process (bursty
	// where its field is), compressed in time to the rate asked for, whatever
	// became of earlier ones.
	Open Scenario = "open"
	// Periodic: each user asks with a fixed period and a phase of their own, as
	// control loops do.
	Periodic Scenario = "periodic"
	// Server is LoadGen's: requests come one by one in a Poisson process. The
	// result is the largest rate at which the limits hold (p99 of latency, or of
	// TTFT and of TPOT, each alone). With the tighter tier of limits it is
	// LoadGen's Interactive.
	Server Scenario = "server"
	// SingleStream is LoadGen's: a request is issued as soon as the one before
	// is complete. The result is p90 latency.
	SingleStream Scenario = "single-stream"
	// Replay: times, lengths and prefix blocks of a recorded trace.
	Replay Scenario = "trace"
)

// Scenarios lists the scenarios in order of their names.
var Scenarios = [...]Scenario{ClosedLoop, MultiStream, MultiTurn, Offline, Open, Periodic, Server, SingleStream, Replay}

// QuerySize is how many requests LoadGen's multi-stream query holds.
const QuerySize = 8

// Closed reports whether requests of the scenario wait for the completion of
// others, so that a run needs a Driver.
func (s Scenario) Closed() bool {
	switch s {
	case ClosedLoop, MultiStream, MultiTurn, SingleStream:
		return true
	}
	return false
}

func (s Scenario) check() error {
	if !slices.Contains(Scenarios[:], s) {
		return fmt.Errorf("unknown scenario %q (have %v)", string(s), Scenarios)
	}
	return nil
}
