package orchestrate

import (
	"fmt"
	"math"
)

// Where a request may be served instead of at a node of the instance.
const (
	OnDevice = -1 // the user's own device
	Refused  = -2 // nowhere
)

// Class says how far a user's data may go.
type Class uint8

// Classes of data.
const (
	Anywhere   Class = iota
	EdgeOnly         // to edge nodes, not to a cloud
	DeviceOnly       // nowhere
)

// Node is a place that computes: an edge server, a cloud, or (in User) a device.
type Node struct {
	Name                   string
	Cloud                  bool
	PromptRate, OutputRate float64   // work per second of prompts (bound by compute) and of output tokens (by memory); 0 = cannot
	Gain                   float64   // how much more work a full batch does per second than one request; 0 = 1
	Batch                  bool      // a batching server: all who are there share it evenly, and no shares are decided
	Memory                 float64   // bytes for weights
	IdleWatts, BusyWatts   float64   // while it is on; while it works, instead of IdleWatts
	Price                  float64   // per second that it is on
	CarbonPerJoule         float64   // gCO2e
	Weight                 float64   // cost of serving one request here, for whoever knows of heat, batteries or carbon
	Away                   []float64 // by cell: seconds that a request spends on the way there and back beyond the radio; nil = none
	Down                   bool      // it is dead
}

// Cell is a shared radio channel. A bandwidth of 0 means that it is not shared, and takes no time.
type Cell struct {
	Name         string
	UpHz, DownHz float64
}

// User asks for answers. Several people of one kind may be one user with a higher rate.
type User struct {
	Name             string
	Cell             int
	Rate             float64 // requests per second, of all people together; > 0
	People           float64 // each with a device of their own; 0 = 1
	UpBits, DownBits float64 // of a request
	UpEff, DownEff   float64 // bit/s/Hz; > 0 where the cell is shared
	Access           float64 // seconds that every request that leaves the device spends on the radio besides
	Prompt, Output   float64 // tokens
	Deadline         float64 // seconds; 0 = none
	Quality          float64 // the least that will do
	Class            Class
	Device           Node
	JoulesPerBit     float64 // of the device's radio
}

// Model can be placed on nodes. Devices have every model that fits their memory.
type Model struct {
	Name                   string
	Bytes                  float64
	PromptWork, OutputWork float64 // per token, in the units of the nodes' rates: FLOP and bytes read, or seconds of a reference machine
	Quality                float64
}

// Weights make one number of an objective's parts: the less the better.
type Weights struct{ Mean, Worst, Miss, Watts, Carbon, Cost, Node float64 }

// Instance is a problem of placement, routing and shares.
type Instance struct {
	Nodes   []Node
	Cells   []Cell
	Users   []User
	Models  []Model
	Refusal float64 // seconds that a refused request counts as; > 0
	Want    Weights
	// Rules of Shares by which searches divide bandwidth and processors; "" = minsum.
	Bandwidth, Compute string
}

// Choice is where a user's requests are served, and by which model.
type Choice struct{ Node, Model int }

// Decision says what is placed and who goes where. Shares are of the user's cell, and of the node chosen; 0 where nothing is asked.
type Decision struct {
	Placed            [][]bool // by node and model
	Route             []Choice // by user
	Up, Down, Compute []float64
	Tried             int // candidates that the search evaluated
}

// Figures are what a decision comes to.
type Figures struct {
	Delay      []float64 // of each user's requests, mean, in seconds
	Mean       float64   // of all requests; refused ones count Refusal
	Worst      float64   // of the user with the longest delay
	Goodput    float64   // share of requests whose users' delay is within their deadline; refused ones miss
	Refused    float64   // share
	Watts      float64
	CarbonRate float64 // gCO2e per second
	CostRate   float64 // per second
	NodeWeight float64 // Weight of the nodes chosen, mean over requests
	Quality    float64 // mean over requests that are served
}

// Score is the objective; +Inf is infeasible.
func (w Weights) Score(f *Figures) float64 {
	return float64(w.Mean*f.Mean) + float64(w.Worst*f.Worst) + float64(w.Miss*(1-f.Goodput)) + float64(w.Watts*f.Watts) +
		float64(w.Carbon*f.CarbonRate) + float64(w.Cost*f.CostRate) + float64(w.Node*f.NodeWeight)
}

// Check refuses an instance that makes no sense, and says what is wrong where.
func (in *Instance) Check() error {
	for _, rule := range []string{in.Bandwidth, in.Compute} {
		if _, ok := FindShare(rule); !ok && rule != "" {
			return fmt.Errorf("orchestrate: unknown rule of shares %q (have equal, maxmin, minmax, minsum, proportional)", rule)
		}
	}
	if !(in.Refusal > 0) {
		return fmt.Errorf("orchestrate: refusal: want > 0 s, got %g", in.Refusal)
	}
	for i, n := range in.Nodes {
		if err := n.check(len(in.Cells)); err != nil {
			return fmt.Errorf("orchestrate: nodes[%d] %q: %w", i, n.Name, err)
		}
	}
	for i, u := range in.Users {
		switch {
		case u.Cell < 0 || u.Cell >= len(in.Cells):
			return fmt.Errorf("orchestrate: users[%d] %q: cell %d of %d", i, u.Name, u.Cell, len(in.Cells))
		case !(u.Rate > 0) || math.IsInf(u.Rate, 1):
			return fmt.Errorf("orchestrate: users[%d] %q: rate: want > 0 and finite, got %g", i, u.Name, u.Rate)
		case bad(u.UpBits, u.DownBits, u.Prompt, u.Output, u.Deadline, u.Access, u.JoulesPerBit, u.People):
			return fmt.Errorf("orchestrate: users[%d] %q: sizes and times: want >= 0", i, u.Name)
		case in.Cells[u.Cell].UpHz > 0 && !(u.UpEff > 0), in.Cells[u.Cell].DownHz > 0 && !(u.DownEff > 0):
			return fmt.Errorf("orchestrate: users[%d] %q: spectral efficiency: want > 0 in a cell that is shared, got %g up and %g down", i, u.Name, u.UpEff, u.DownEff)
		}
		if err := u.Device.check(0); err != nil {
			return fmt.Errorf("orchestrate: users[%d] %q: device: %w", i, u.Name, err)
		}
	}
	for i, m := range in.Models {
		if bad(m.Bytes, m.PromptWork, m.OutputWork) {
			return fmt.Errorf("orchestrate: models[%d] %q: bytes and work: want >= 0", i, m.Name)
		}
	}
	return nil
}

func (n *Node) check(cells int) error {
	if bad(n.PromptRate, n.OutputRate, n.Gain, n.Memory, n.IdleWatts, n.BusyWatts, n.Price, n.CarbonPerJoule) {
		return fmt.Errorf("rates, memory, power and prices: want >= 0")
	}
	if n.Away != nil && len(n.Away) != cells {
		return fmt.Errorf("away: want a time for each of %d cells, got %d", cells, len(n.Away))
	}
	if bad(n.Away...) {
		return fmt.Errorf("away: want >= 0 s")
	}
	return nil
}

// bad reports whether a number is negative or not a number.
func bad(xs ...float64) bool {
	for _, x := range xs {
		if !(x >= 0) {
			return true
		}
	}
	return false
}

// Service is how long a request of user u takes on a node that does nothing else, +Inf if it cannot.
func (in *Instance) Service(u int, c Choice) float64 {
	n, user, m := in.node(u, c), &in.Users[u], &in.Models[c.Model]
	return seconds(user.Prompt*m.PromptWork, n.PromptRate) + seconds(user.Output*m.OutputWork, n.OutputRate)
}

func seconds(work, rate float64) float64 {
	if work == 0 {
		return 0
	}
	return work / rate
}

// node is that of a choice; a user's own device is one.
func (in *Instance) node(u int, c Choice) *Node {
	if c.Node == OnDevice {
		return &in.Users[u].Device
	}
	return &in.Nodes[c.Node]
}

// Allowed says why a user may not choose something whatever the others do; "" = they may.
func (in *Instance) Allowed(u int, c Choice) string {
	user := &in.Users[u]
	if c.Node == Refused {
		return ""
	}
	if c.Node < OnDevice || c.Node >= len(in.Nodes) || c.Model < 0 || c.Model >= len(in.Models) {
		return "there is no such node or model"
	}
	n, m := in.node(u, c), &in.Models[c.Model]
	switch {
	case n.Down:
		return "the node is down"
	case c.Node >= 0 && user.Class == DeviceOnly, c.Node >= 0 && n.Cloud && user.Class == EdgeOnly:
		return "the data may not go there"
	case m.Quality < user.Quality:
		return "the model is not good enough"
	case m.Bytes > n.Memory:
		return "the model does not fit the memory"
	case math.IsInf(in.Service(u, c), 1):
		return "the node cannot compute"
	}
	return ""
}

// choices lists what a user may choose; Refused is the first.
func (in *Instance) choices(u int) []Choice {
	out := []Choice{{Refused, 0}}
	for n := OnDevice; n < len(in.Nodes); n++ {
		for m := range in.Models {
			if c := (Choice{n, m}); in.Allowed(u, c) == "" {
				out = append(out, c)
			}
		}
	}
	return out
}
