package city

import (
	"math"
	"time"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/radio"
	"meibench/internal/portable"
	"meibench/internal/units"
)

// Track is where a user is, in m, at any time of the run. It may be asked for
// any time in any order and must always answer alike.
type Track interface {
	At(t time.Duration) (x, y float64)
}

// Spot is a user who stays where it is.
type Spot struct{ X, Y float64 }

// At is the spot.
func (s Spot) At(time.Duration) (x, y float64) { return s.X, s.Y }

// Signal is how strongly a user receives a cell.
type Signal struct {
	Cell int
	DBm  float64 // of the whole carrier at the cell's full power, shadowing included
}

// View is what a user's radio hears, for a Handover.
type View interface {
	// Signals are all cells in reach at a time, in a fixed order: nearest site
	// first. The slice is valid until the next call.
	Signals(t time.Duration) []Signal
	// Best is the strongest of them.
	Best(t time.Duration) Signal
	// Downlink is the SINR in dB at which the user would receive a cell in reach at a
	// time, by the load of the others as it is now; -Inf if it is not in reach.
	Downlink(t time.Duration, cell int) float64
}

// Handover decides which cell serves a user who moves while connected: A3 events
// with hysteresis and time to trigger, say. It belongs to one user. Times it is
// asked about do not go back.
type Handover interface {
	// Attach says that the user camps on a cell from t on. That is how it begins,
	// and what cell reselection does after a pause of Connected.
	Attach(t time.Duration, cell int)
	// Serving works its way from where it was to t, in steps of its own, and
	// returns the cell that serves at t, and until when a handover cuts the user
	// off; a time that has passed cuts nothing off.
	Serving(t time.Duration, v View) (cell int, until time.Duration)
}

// Connected is how long a user stays connected after its last byte: the
// inactivity timer of networks, some 10 s (data in profiles of links).
const Connected = 10 * time.Second

// Access is one user's radio: a link up and a link down that move with the user.
type Access struct {
	net   *Network
	id    int
	track Track
	hand  Handover
	power *costmodel.Radio
	links [2]link
	debts costmodel.Debts // of both directions: they share the radio

	seen     *scene // nil until asked
	cell     int    // serving; -1 before the first message
	asked    time.Duration
	active   time.Duration // end of the latest activity
	wasOn    bool
	handed   int           // changes of cell while connected
	cut      time.Duration // latest end of an interruption that was counted
	transfer [2]totalsOf
}

// scene is what a user hears at a place. Places are rounded to whole metres, so
// that an answer does not depend on what was asked before.
type scene struct {
	x, y    float64
	signals []Signal
	power   []float64 // the same in mW
	best    int
}

// Access adds a user. A nil track is a user at (0, 0). With no handover the best
// cell serves at any moment, and changing it costs nothing.
func (n *Network) Access(id int, track Track, h Handover) *Access {
	if track == nil {
		track = Spot{}
	}
	a := &Access{net: n, id: id, track: track, hand: h, cell: -1, power: costmodel.NewRadio(n.c.Radio)}
	for d := range a.links {
		a.links[d].a, a.links[d].d = a, d
	}
	n.users = append(n.users, a)
	return a
}

// Up is the link from the user to the network's far end.
func (a *Access) Up() hardware.Link { return &a.links[up] }

// Down is the other way.
func (a *Access) Down() hardware.Link { return &a.links[down] }

// Connect says that the user's radio was in use until a time: a run whose warm-up
// came before it.
func (a *Access) Connect(at time.Duration) { a.power.Connect(at) }

// Cell is the cell that serves the user at a time not before the last one asked
// about; a user who is idle camps on the best.
func (a *Access) Cell(now time.Duration) int {
	k, _ := a.serving(now)
	return a.seen.signals[k].Cell
}

// Site is the site of Cell.
func (a *Access) Site(now time.Duration) int { return a.Cell(now) / a.net.c.Sectors }

// Handovers is how often the user has changed cells while connected.
func (a *Access) Handovers() int { return a.handed }

// SINR is the ratio in dB at which the user receives (down) and is received (up)
// at a time, by the present load of the other cells. It is -Inf where the base
// cannot be reached with any number of resource blocks.
func (a *Access) SINR(now time.Duration) (upward, downward float64) {
	k, _ := a.serving(now)
	return a.upward(k, now).sinr, a.downward(k, now).sinr
}

// Rates are what the user would have with the whole cell, in bytes per second.
func (a *Access) Rates(now time.Duration) (upward, downward float64) {
	k, _ := a.serving(now)
	return a.upward(k, now).rate, a.downward(k, now).rate
}

// Signals are all cells in reach; see View.
func (a *Access) Signals(t time.Duration) []Signal {
	a.look(t)
	return a.seen.signals
}

// Best is the strongest cell; see View.
func (a *Access) Best(t time.Duration) Signal {
	a.look(t)
	return a.seen.signals[a.seen.best]
}

// Downlink is the SINR of a cell; see View.
func (a *Access) Downlink(t time.Duration, cell int) float64 {
	a.look(t)
	for k := range a.seen.signals {
		if a.seen.signals[k].Cell == cell {
			return a.downward(k, t).sinr
		}
	}
	return math.Inf(-1)
}

// look works out what the user hears at a time, unless it is where it was.
func (a *Access) look(t time.Duration) {
	x, y := a.track.At(t)
	x, y = math.Round(x), math.Round(y)
	if a.seen == nil {
		a.seen = &scene{}
	} else if a.seen.x == x && a.seen.y == y {
		return
	}
	a.net.hear(a.seen, x, y)
}

// hear fills in a scene.
func (n *Network) hear(s *scene, x, y float64) {
	s.x, s.y, s.best = x, y, 0
	s.signals, s.power = s.signals[:0], s.power[:0]
	p := n.c.Layout.Home(radio.Point{X: x, Y: y})
	for _, site := range n.tiles.Near(p) {
		d := n.c.Layout.From(int(site), p)
		plane := math.Sqrt(float64(d.X*d.X) + float64(d.Y*d.Y))
		gain := n.c.Power + n.c.Antennas - n.loss(int(site), p, plane)
		angle, rise := 0.0, 0.0
		if n.c.Antenna.Rows > 0 {
			angle, rise = radio.Bearing(d), radio.Depression(plane, n.c.Scenario.BaseHeight-n.c.Scenario.UserHeight)
			gain += n.c.Antenna.Array(rise)
		}
		for k, b := range n.bore {
			dbm := gain + n.c.Antenna.Element(angle-b, rise)
			s.signals = append(s.signals, Signal{int(site)*n.c.Sectors + k, dbm})
			s.power = append(s.power, radio.Ratio(dbm))
			if dbm > s.signals[s.best].DBm {
				s.best = len(s.signals) - 1
			}
		}
	}
}

// loss is path loss and shadowing between a site and a place.
func (n *Network) loss(site int, p radio.Point, plane float64) float64 {
	chance := n.law.Sight(plane)
	if n.c.NoChance {
		return n.law.Loss(chance >= 0.5, plane)
	}
	sight, which := chance >= 1, 0
	if !sight {
		sight = portable.NormalCDF(n.sight.At(site, p.X, p.Y)) < chance
	}
	if sight {
		which = 1
	}
	return n.law.Loss(sight, plane) + float64(n.c.Scenario.Sigma[which]*n.shadow[which].At(site, p.X, p.Y))
}

// serving is the index in the scene of the cell that serves, and until when the
// user is cut off. It never goes back in time.
func (a *Access) serving(now time.Duration) (k int, until time.Duration) {
	now = max(now, a.asked)
	idle := a.cell < 0 || !a.wasOn || now-a.active > Connected
	a.asked = now
	a.look(now)
	if a.hand == nil {
		return a.take(a.seen.best, idle), 0
	}
	if idle {
		best := a.seen.best
		a.hand.Attach(now, a.seen.signals[best].Cell)
		return a.take(best, true), 0
	}
	cell, until := a.hand.Serving(now, a)
	a.look(now) // it may have looked elsewhere
	for i := range a.seen.signals {
		if a.seen.signals[i].Cell == cell {
			return a.take(i, false), until
		}
	}
	best := a.seen.best // the serving cell is out of reach: a radio link failure, here without its pause
	a.hand.Attach(now, a.seen.signals[best].Cell)
	return a.take(best, false), until
}

func (a *Access) take(k int, idle bool) int {
	cell := a.seen.signals[k].Cell
	if !idle && cell != a.cell {
		a.handed++
	}
	a.cell = cell
	return k
}

// quality is what a user gets from a cell in one direction.
type quality struct {
	cell  int
	sinr  float64 // dB
	rate  float64 // bytes/s alone; 0 = out of range
	part  float64 // of the carrier that it uses at that rate, in (0, 1]
	watts units.Watts
}

// downward: S / (N + Σ load_i I_i).
func (a *Access) downward(k int, now time.Duration) quality {
	n, s := a.net, a.seen
	if n.c.WiFi != nil {
		return n.contending(s.signals[k].Cell, s.signals[k].DBm-radio.DB(n.noise), 0)
	}
	sum := n.noise
	for i, p := range s.power {
		if i != k {
			sum += float64(p * n.loadOf(s.signals[i].Cell, down, now))
		}
	}
	q := quality{cell: s.signals[k].Cell, sinr: s.signals[k].DBm - radio.DB(sum), part: 1}
	q.rate = float64(n.full[down] * n.mcs.Goodput(q.sinr))
	return q
}

// upward: a user that power control and its limit leave short of power for all
// resource blocks uses as many as give it the most.
func (a *Access) upward(k int, now time.Duration) quality {
	n, s := a.net, a.seen
	loss := n.c.Power - s.signals[k].DBm
	if n.c.WiFi != nil {
		noise := radio.DB(n.noise) + n.c.BaseNoise - n.c.UserNoise
		return n.contending(s.signals[k].Cell, n.c.User.Max-loss-noise, n.c.User.Max)
	}
	busy, others := 0.0, 0
	for i := range s.signals {
		if i != k {
			busy += n.loadOf(s.signals[i].Cell, up, now)
			others++
		}
	}
	if others > 0 {
		busy /= float64(others)
	}
	floor := radio.Noise(n.carrier.BlockHz(), n.c.BaseNoise) + radio.DB(1+float64((n.rise-1)*busy)) + loss
	all := n.carrier.Blocks
	sent := n.c.User.Power(loss, all)
	q := quality{cell: s.signals[k].Cell, sinr: sent - n.budget.lg10[all] - floor, part: 1}
	goodput := 0.0
	if sent < n.c.User.Max {
		goodput = n.mcs.Goodput(q.sinr)
	} else {
		var blocks int
		if blocks, q.sinr, goodput = n.budget.best(sent - floor); blocks > 0 {
			q.part = float64(blocks) / float64(all)
		}
	}
	q.rate = float64(n.full[up]*q.part) * goodput
	q.watts = units.Watts(radio.Ratio(sent) / 1000)
	return q
}

// contending is what a station gets from an access point at an SNR in dB; power
// in dBm is what it sends at, 0 where it listens.
func (n *Network) contending(cell int, snr, power float64) quality {
	q := quality{cell: cell, sinr: snr, part: 1}
	top := n.mcs.Rows[len(n.mcs.Rows)-1].Efficiency
	if goodput := n.mcs.Goodput(snr); goodput > 0 {
		d := *n.c.WiFi
		d.Rate = float64(d.Rate*goodput) / top
		q.rate = d.Alone() / 8
	}
	q.watts = units.Watts(radio.Ratio(power) / 1000)
	return q
}

// tries is how often the last block of a message is sent.
func (a *Access) tries(q *quality, d int, now time.Duration, sure float64) int {
	if sure >= 1 {
		return 1
	}
	luck := a.net.harq.At(uint64(a.id)<<32 ^ uint64(now)<<1 ^ uint64(d))
	u := luck.Float64()
	if u < sure {
		return 1
	}
	return a.net.mcs.Rows[a.net.mcs.At(q.sinr)].Tries(q.sinr, u)
}

// sure is the draw below which the first transmission arrives; 1 where chance has
// no say.
func (a *Access) sure(q *quality) float64 {
	i := a.net.mcs.At(q.sinr)
	if i < 0 || a.net.c.NoChance {
		return 1
	}
	return 1 - a.net.mcs.Rows[i].BLER(q.sinr)
}
