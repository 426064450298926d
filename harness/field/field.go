// Package field builds the radio of a site whose users move: cells, tracks and
// hand-overs, and the backhaul between the edge nodes.
//
//	plan, err := field.New(sheet, radio)        // what cannot be is an error here
//	f, err := plan.Build(env, seed)
//	user := f.User(7, now)                      // Up, Down, Near, Next
//	link, ok := f.Meet("edge-3", "edge-17")     // the backhaul
//
// The one idea: nothing is made before somebody uses it. A user's radio is made with
// the user's first request, an edge node's port with the first message over it.
//
// Every edge node has one port to the others, which all its messages share; what
// arrives elsewhere meets no second queue (a core network with room). The package
// makes no decisions: what becomes of a session is the pipelines' business.
package field

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"meibench/hardware"
	"meibench/hardware/city"
	"meibench/hardware/costmodel"
	"meibench/hardware/mobility"
	"meibench/hardware/profiles"
	"meibench/hardware/radio"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/rng"
	"meibench/internal/units"
)

// Plan is a checked network of cells.
type Plan struct {
	name   string
	cells  profiles.Cells
	config city.Config
	move   mobility.Spec
	a3     *mobility.A3 // nil: hand-overs cost nothing
	port   *profiles.LinkSheet
	core   *profiles.LinkSheet // nil: there is no cloud
	clouds []string
}

// Sheets look link profiles up.
type Sheets func(name string) (*profiles.LinkSheet, error)

// New checks what a sheet says of cells.
func New(s *profiles.SiteSheet, links Sheets) (*Plan, error) {
	p := &Plan{name: s.Name, cells: *s.Cells}
	if err := p.complete(s, links); err != nil {
		return nil, fmt.Errorf("site %q: cells: %w", s.Name, err)
	}
	return p, nil
}

func (p *Plan) complete(s *profiles.SiteSheet, links Sheets) (err error) {
	n := &p.cells
	n.Every, n.Sectors = max(n.Every, 1), or(n.Sectors, 3)
	c := city.Default(0)
	c.Name, c.Digest, c.Sectors = s.Name, s.Digest(), n.Sectors
	if n.Sectors == 1 {
		c.Antenna = radio.Antenna{}
	}
	if c.Scenario, err = radio.Lookup(n.Scenario); err != nil {
		return err
	}
	if c.Layout, err = radio.HexGrid(n.Columns, n.Rows, n.Distance); err != nil {
		return err
	}
	c.Frequency, c.Bandwidth, c.Power = or(n.Frequency, c.Frequency), or(n.Bandwidth, c.Bandwidth), or(n.Power, c.Power)
	if n.DownShare > 0 {
		c.DownShare, c.UpShare = n.DownShare, 1-n.DownShare
	}
	if n.Scheduler != "" {
		if c.Scheduler, err = radio.ParseScheduler(n.Scheduler); err != nil {
			return err
		}
	}
	if n.Radio != "" {
		sheet, err := links(n.Radio)
		if err != nil {
			return fmt.Errorf("radio: %w", err)
		}
		c.Radio = sheet.Radio
	}
	if err := c.Check(); err != nil {
		return err
	}
	if _, err := radio.NewCarrier(c.Frequency, c.Bandwidth); err != nil {
		return err
	}
	p.config = c
	if p.port, err = links(n.Backhaul); err != nil {
		return fmt.Errorf("backhaul: %w", err)
	}
	if n.Core != "" {
		if p.core, err = links(n.Core); err != nil {
			return fmt.Errorf("core: %w", err)
		}
	}
	for _, place := range s.Nodes {
		if place.Role == hardware.CloudRole {
			p.clouds = append(p.clouds, place.Name)
		}
	}
	if p.move, err = p.movement(); err != nil {
		return err
	}
	if _, err = p.move.New(0); err != nil {
		return err
	}
	if n.Hand != nil {
		p.a3, err = hand(n.Hand)
	}
	return err
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// area is the torus on which the sites stand.
func (p *Plan) area() mobility.Area {
	n := &p.cells
	return mobility.Area{Width: float64(n.Columns) * n.Distance, Height: float64(float64(n.Rows) * (math.Sqrt(3) / 2) * n.Distance), Torus: true}
}

// movement is the model of the sheet.
func (p *Plan) movement() (mobility.Spec, error) {
	m := &p.cells.Move
	s := mobility.Spec{Kind: mobility.Kind(m.Model), Area: p.area()}
	if !slices.Contains(mobility.Kinds[:], s.Kind) {
		return s, fmt.Errorf("move: unknown model of movement %q (have %v)", m.Model, mobility.Kinds)
	}
	uses := map[string]bool{}
	use := func(names ...string) {
		for _, name := range names {
			uses[name] = true
		}
	}
	switch s.Kind {
	case mobility.Waypoint:
		use("slowest", "fastest", "pause")
		s.Speed, s.Pause = mobility.Range{Min: m.Slowest, Max: m.Fastest}, mobility.Range{Max: m.Pause}
	case mobility.GaussMarkov:
		use("memory", "deviation")
		s.Memory, s.Deviation, s.Step = m.Memory, m.Deviation, 1
	case mobility.Manhattan:
		use("slowest", "fastest", "blocks")
		s.Speed, s.Straight = mobility.Range{Min: m.Slowest, Max: m.Fastest}, 0.5
		s.Block = s.Area.Width / float64(max(m.Blocks, 1))
		s.Area.Height = s.Block * math.Round(s.Area.Height/s.Block) // streets end where they begin
		if s.Area.Height == 0 || m.Blocks < 1 {
			return s, fmt.Errorf("move: %d blocks along a side of %g m: want at least 1, and blocks no longer than the other side", m.Blocks, s.Area.Width)
		}
	case mobility.Hotspot:
		use("spots", "dwell")
		luck := rng.Stream(1, "spots", p.name)
		for range min(m.Spots, 100_000) {
			x, y := rng.Float64(luck), rng.Float64(luck)
			s.Spots = append(s.Spots, mobility.Spot{X: float64(x * s.Area.Width), Y: float64(y * s.Area.Height), Dwell: m.Dwell})
		}
	case mobility.Recorded:
		use("file")
		paths, err := read(m.File)
		if err != nil {
			return s, fmt.Errorf("move: %w", err)
		}
		s.Paths = paths
	}
	for _, f := range []struct {
		name  string
		given bool
	}{{"slowest", m.Slowest != 0}, {"fastest", m.Fastest != 0}, {"pause", m.Pause != 0}, {"memory", m.Memory != 0}, {"deviation", m.Deviation != 0},
		{"blocks", m.Blocks != 0}, {"spots", m.Spots != 0}, {"dwell", m.Dwell != 0}, {"file", m.File != ""}} {
		if f.given && !uses[f.name] {
			return s, fmt.Errorf("move: model %q has no %s: remove it", m.Model, f.name)
		}
	}
	return s, nil
}

// read reads tracks by the ending of the file's name.
func read(name string) ([]mobility.Path, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if strings.HasSuffix(strings.ToLower(name), ".gpx") {
		return mobility.ReadGPX(name, f)
	}
	return mobility.ReadCSV(name, f)
}

// hand are the timers of a sheet over the defaults.
func hand(h *profiles.Hand) (*mobility.A3, error) {
	a := mobility.DefaultA3()
	for _, d := range []struct {
		name string
		from *float64
		to   *time.Duration
	}{{"trigger", h.Trigger, &a.TimeToTrigger}, {"sample", h.Sample, &a.Sample}, {"prepare", h.Prepare, &a.Prepare},
		{"interruption", h.Interruption, &a.Interruption}, {"reestablish", h.Reestablish, &a.Reestablish}} {
		if d.from == nil {
			continue
		}
		if !(*d.from >= 0 && *d.from <= 3600) {
			return nil, fmt.Errorf("handover: %s of %g s: want 0 to 3600", d.name, *d.from)
		}
		*d.to = units.Seconds(*d.from)
	}
	for _, d := range []struct{ from, to *float64 }{{h.Offset, &a.Offset}, {h.Hysteresis, &a.Hysteresis}} {
		if d.from != nil {
			*d.to = *d.from
		}
	}
	if h.Filter != nil {
		a.Filter = *h.Filter
	}
	return &a, a.Check()
}

// Field is a network in a world.
type Field struct {
	plan  *Plan
	env   world.Env
	seed  uint64
	net   *city.Network
	model *mobility.Model
	first int // index of the first edge node in the site's nodes
	ports []hardware.Link
	wire  *costmodel.Channel
	core  map[[2]string]hardware.Link // between edge and cloud nodes, by from and to; made when first used
	hands []*handling
}

// Build makes the network; first is the index of the first of its edge nodes among
// the site's nodes.
func (p *Plan) Build(env world.Env, seed uint64, first int) (*Field, error) {
	f := &Field{plan: p, env: env, seed: seed, first: first, ports: make([]hardware.Link, p.cells.Edges())}
	c := p.config
	c.Seed = seed
	var err error
	if f.net, err = city.New(env, c); err != nil {
		return nil, err
	}
	f.wire, f.core = costmodel.NewChannel(p.port, costmodel.Up, 0), map[[2]string]hardware.Link{}
	f.model, err = p.move.New(seed)
	return f, err
}

// User makes a user's radio; now is when it was last in use.
func (f *Field) User(id int, now time.Duration) *hardware.User {
	u := &hardware.User{ID: id}
	var h *handling
	var hand city.Handover
	if f.plan.a3 != nil {
		h = &handling{a3: f.plan.a3}
		f.hands = append(f.hands, h)
		hand = h
	}
	a := f.net.Access(id, f.model.Track(id), hand)
	a.Connect(now)
	u.Up, u.Down = a.Up(), a.Down()
	u.Near = func() int { return f.node(a.Cell(f.env.Now())) }
	if h != nil {
		u.Next = func() (int, bool) {
			cell, ok := h.next()
			return f.node(cell), ok
		}
	}
	return u
}

// node is the index of the edge node of a cell.
func (f *Field) node(cell int) int {
	return f.first + cell/f.plan.cells.Sectors/f.plan.cells.Every
}

// Meet is the port of an edge node to another, or its link to a cloud node or from there; ok is false for other nodes.
func (f *Field) Meet(from, to string) (hardware.Link, bool) {
	i, ok := f.number(from)
	_, there := f.number(to)
	switch {
	case from == to:
		return nil, false
	case ok && slices.Contains(f.plan.clouds, to):
		return f.reach(from, to, costmodel.Up), true
	case there && slices.Contains(f.plan.clouds, from):
		return f.reach(from, to, costmodel.Down), true
	case !ok || !there:
		return nil, false
	}
	if f.ports[i] == nil {
		f.ports[i] = f.link(f.wire, from)
	}
	return f.ports[i], true
}

// reach is one direction of the link between an edge node and a cloud node.
func (f *Field) reach(from, to string, d costmodel.Direction) hardware.Link {
	at := [2]string{from, to}
	if f.core[at] == nil {
		f.core[at] = f.link(costmodel.NewChannel(f.plan.core, d, 0), from+" to "+to)
	}
	return f.core[at]
}

func (f *Field) link(wire *costmodel.Channel, name string) hardware.Link {
	state := costmodel.NewLinkState(wire, costmodel.LinkOptions{Seed: f.seed, Name: name, Radio: costmodel.NewRadio(nil)})
	return costmodel.Wrap(f.env, state)
}

// number is an edge node's, from 0.
func (f *Field) number(name string) (int, bool) {
	tail, ok := strings.CutPrefix(name, f.plan.cells.Edge+"-")
	n, err := strconv.Atoi(tail)
	return n - 1, ok && err == nil && n >= 1 && n <= len(f.ports)
}

// Figures are those of the network that records know.
func (f *Field) Figures() map[string]float64 {
	out := map[string]float64{}
	for name, v := range f.net.Figures() {
		if name == "fairness_down" {
			name = "fairness"
		}
		if record.IsFigure(name) {
			out[name] = v
		}
	}
	if f.plan.a3 != nil {
		gap, again := time.Duration(0), 0
		for _, h := range f.hands {
			gap, again = gap+h.state.Interrupted, again+int(h.state.PingPongs)
		}
		out["interruption"], out["ping_pongs"] = gap.Seconds(), float64(again)
	}
	return out
}

// handling is A3 as a city asks for it.
type handling struct {
	a3    *mobility.A3
	state mobility.Connection
	at    time.Duration // latest measurement
	heard []mobility.Reading
}

// Attach begins on a cell.
func (h *handling) Attach(t time.Duration, cell int) {
	h.state.Attach(t, cell)
	h.at = t
}

// Serving measures once a sample until t.
func (h *handling) Serving(t time.Duration, v city.View) (cell int, until time.Duration) {
	for next := h.at + h.a3.Sample; next <= t; next += h.a3.Sample {
		h.at = next
		h.heard = h.heard[:0]
		for _, s := range v.Signals(next) {
			h.heard = append(h.heard, mobility.Reading{Cell: s.Cell, DBm: s.DBm})
		}
		h.state.Measure(h.a3, next, h.heard, v.Downlink(next, h.state.Serving))
	}
	return h.state.Serving, h.state.Until
}

// next is the cell that will serve or is likely to.
func (h *handling) next() (int, bool) {
	if h.state.Pending {
		return h.state.Target, true
	}
	cell, _, ok := h.state.Candidate()
	return cell, ok
}
