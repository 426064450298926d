package record

import (
	"math"
	"time"
)

// Cell is what all requests of one run of one cell share: which cell it was, by
// what limits it is judged, and the Facts by which the run judges itself.
type Cell struct {
	Index                            int // position in the suite's expansion; tables are in this order
	Suite, Name                      string
	App, Pipeline, Site, Model, Mode string // Mode: measured, emulated, modelled or conformance
	Seed                             uint64
	Repeat                           int
	Tier                             string          `json:",omitempty"` // of what is known about the devices of a modelled or emulated cell: prior, microbenchmark, calibrated or fitted; the least of its nodes
	Stated                           float64         `json:",omitempty"` // by how much E2E p50 missed where the devices' profile was calibrated, relative; 0 = nobody says
	Brief                            bool            `json:",omitempty"` // its requests are: see Request.Shorten
	Contract                         string          // hash over what must be equal for two runs to be compared
	TTFTLimit, TPOTLimit, E2ELimit   time.Duration   // the application's limits; 0 = none
	Params                           map[string]any  // of the pipeline: numbers (float64) and names (string)
	Started                          time.Time       // wall clock; zero in modelled runs
	Wall, Horizon                    time.Duration   // wall time taken; time offered, on the run's clock
	Lag                              []time.Duration `json:"-"` // issue lateness of each request, measured mode; Facts.Late keeps its p99
	ClientCPU                        time.Duration   // CPU time that the client itself used
	Workers                          int
	Events                           uint64 // events of the modelled world
	Facts                            Facts
	Nodes                            []NodeUse          // in the site's order
	Figures                          map[string]float64 `json:",omitempty"` // per-run values that no row can tell; names for which IsFigure
	Valid                            bool
	Invalid                          []string // reasons, from Judge
	Warnings                         []string
}

// Trains reports whether the cell's requests are rounds of training: what serving is judged by says nothing of them.
func (c *Cell) Trains() bool {
	_, share := c.Figures["train_share"]
	return share || c.Params["optimizer"] != nil
}

// NodeUse is how busy a node was during a cell.
type NodeUse struct {
	Name  string
	Slots int           // operations that may be in flight; > 0
	Busy  time.Duration // summed over slots, on the run's clock
}

// Facts are what a run observed of itself and of its host. A fact that is zero
// was not observed, except for counts, which count. Judge turns them into
// reasons to distrust the run.
type Facts struct {
	LateP99     time.Duration // p99 of how late requests were released against the schedule
	Cores       int           // cores the client may use
	Planned     int           // requests in the schedule
	Offered     int           // requests released
	Dropped     int           // requests or rows lost
	Mismatched  int           // requests whose token count differs from the count the server claims
	PlannedSpan time.Duration // first to last intended start
	OfferedSpan time.Duration // first to last released start
	MonoTook    time.Duration // the run by the monotonic clock
	WallTook    time.Duration // the run by the wall clock
	PauseP99    time.Duration // p99 of garbage-collection pauses of the client
	StealShare  float64       // share of host CPU time taken by other guests, when StealKnown
	StealKnown  bool
}

// Late is the p99 of a list of latenesses by the nearest rank; 0 of none. It
// sorts what it is given.
func Late(lag []time.Duration) time.Duration { return time.Duration(rank(lag, 0.99)) }

// TPOTOf is the time per output token after the first, in seconds; NaN for
// fewer than two tokens. It is written once here because limits, metrics and
// views all use it.
func TPOTOf(r *Request) float64 {
	if r.OutputTokens < 2 || r.LastToken == Unset || r.FirstToken == Unset {
		return math.NaN()
	}
	return (r.LastToken - r.FirstToken).Seconds() / float64(r.OutputTokens-1)
}

// Good reports whether a request counts in goodput: it ended well and met all
// of its limits, each by the intended clock. A limit on the first token is
// missed by a request that was asked for tokens and gave none; a limit on the
// time per token does not bind an answer of one token.
func (c *Cell) Good(r *Request) bool {
	if r.Outcome != OK {
		return false
	}
	if c.TTFTLimit > 0 && r.AskedTokens > 0 && (r.FirstToken == Unset || r.FirstToken-r.Intended > c.TTFTLimit) {
		return false
	}
	if c.TPOTLimit > 0 && TPOTOf(r) > c.TPOTLimit.Seconds() { // false for NaN
		return false
	}
	took := r.Done - r.Intended
	return (c.E2ELimit == 0 || took <= c.E2ELimit) && (r.Deadline == 0 || took <= r.Deadline)
}
