// Package city puts radio cells and the links of many users into a world: who is
// served by which cell, at what rate, beside whom.
//
//	net, err := city.New(env, city.Default(seed))
//	a := net.Access(7, track, handover)        // user 7; both may be nil
//	d, err := a.Up().Send(hardware.Payload{Bytes: 4000})
//	cell := a.Cell(env.Now())
//	for name, v := range net.Figures() { ... }
//
// The one idea: everything is lazy. A user who sends nothing has no events; its
// place, shadowing, serving cell and rate are worked out when a message passes,
// from keyed fields that know no order. A cell is two resources shared by weight
// (world.Share), one a direction; a transfer is work there: bytes over the rate
// that the user would have with the whole cell.
//
// The laws are those of package radio. Interference of a cell counts by the
// share of the last second in which it sent, read every 100 ms. A transfer is
// worked out again every Config.Step, and when its cell changes. Messages of a stream of at most
// 16 KiB (tokens) take the cell when they are handed over, before bulk transfers
// and without waiting for them; larger ones share it like Send.
//
// What it does not do: users do not hinder each other but through cells' time
// and interference; the uplink's interference is a rise of the noise by
// neighbours' load, not a sum over users; a cell has no admission control; see
// docs/radio.md for the rest.
package city

import (
	"fmt"
	"math"
	"time"

	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
	"meibench/hardware/radio"
	"meibench/hardware/world"
	"meibench/internal/rng"
)

// Config describes a network. Default has a complete one.
type Config struct {
	Name     string
	Digest   string // SHA-256 of the profile it was made from, "" if none
	Seed     uint64
	Scenario radio.Scenario
	Layout   radio.Layout
	Sectors  int           // cells a site: 1 or 3
	Antenna  radio.Antenna // of a cell; the zero value is isotropic
	Antennas float64       // dB that receiver combining and precoding bring in both directions

	Frequency, Bandwidth float64 // Hz; see radio.NewCarrier
	DownShare, UpShare   float64 // of slots (TDD); both 1 with FDD
	DownLayers, UpLayers float64 // equal spatial layers
	MCSTable             int     // 1 to 64QAM, 2 to 256QAM

	Power     float64            // dBm of a cell over its bandwidth
	User      radio.PowerControl // of users
	UserNoise float64            // dB, noise figure of users
	BaseNoise float64            // dB, noise figure of bases
	Rise      float64            // dB by which the uplink's noise rises when all neighbours are busy

	// WiFi makes each site an access point: both directions of all its users contend
	// for one channel (radio.DCF), every flow in service as a station; sites do not
	// interfere. Shares of slots, layers and Scheduler do not apply. DCF.Rate is that
	// of the best MCS, and falls with the SNR as MCSTable's goodput does.
	WiFi *radio.DCF

	Scheduler  radio.Scheduler
	Background float64       // load of every other cell by traffic that is not modelled, 0 to 1
	Candidates int           // sites a user hears; the others' interference is left out
	NoChance   bool          // no shadowing, and line of sight where it is likelier than not
	Step       time.Duration // how often a transfer is worked out again
	Delay      time.Duration // one way between user and the network's far end, besides transmission
	Timeout    time.Duration // without service for so long, a link is down
	Radio      *profiles.Radio
	Amplifier  float64 // efficiency of the user's power amplifier, 0 to 1
}

// Default is a street-canyon network at 3.5 GHz: 19 sites 200 m apart with three
// sectors, 100 MHz, TDD 3:1, 44 dBm. Powers and noise figures are those of TR
// 38.901 Table 7.8-1 and TR 38.802; delay, amplifier, layers and rise of noise
// are assumed.
func Default(seed uint64) Config {
	return Config{
		Name: "city", Seed: seed, Scenario: radio.UMi, Layout: radio.HexCluster(2, 200), Sectors: 3, Antenna: radio.Sector,
		Frequency: 3.5e9, Bandwidth: 100e6, DownShare: 0.75, UpShare: 0.25, DownLayers: 2, UpLayers: 1, MCSTable: 2,
		Power: 44, User: radio.PowerControl{P0: -80, Alpha: 0.8, Max: 23}, UserNoise: 9, BaseNoise: 5, Rise: 6,
		Candidates: 7, Step: 200 * time.Millisecond, Delay: 5 * time.Millisecond, Timeout: 30 * time.Second, Amplifier: 0.3,
	}
}

// Check says what is wrong with a configuration.
func (c *Config) Check() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("city %q: "+format, append([]any{c.Name}, a...)...)
	}
	if len(c.Layout.Sites) == 0 {
		return bad("no sites: want at least one")
	}
	if c.Sectors != 1 && c.Sectors != 3 {
		return bad("%d sectors a site: want 1 or 3", c.Sectors)
	}
	for _, q := range []struct {
		name    string
		v       float64
		lo, hi  float64
		nonzero bool
	}{
		{"down_share", c.DownShare, 0, 1, true}, {"up_share", c.UpShare, 0, 1, true}, {"down_layers", c.DownLayers, 0, 16, true},
		{"up_layers", c.UpLayers, 0, 16, true}, {"power", c.Power, -30, 80, false}, {"user power", c.User.Max, -30, 50, false},
		{"alpha", c.User.Alpha, 0, 1, false}, {"p0", c.User.P0, -200, 30, false}, {"user noise", c.UserNoise, 0, 30, false},
		{"base noise", c.BaseNoise, 0, 30, false}, {"rise", c.Rise, 0, 40, false}, {"background", c.Background, 0, 1, false},
		{"amplifier", c.Amplifier, 0, 1, true}, {"antennas", c.Antennas, -40, 40, false},
	} {
		if !(q.v >= q.lo && q.v <= q.hi) || q.nonzero && q.v == 0 {
			return bad("%s is %g: want %g to %g", q.name, q.v, q.lo, q.hi)
		}
	}
	for _, s := range c.Layout.Sites {
		if math.IsNaN(s.X+s.Y) || math.IsInf(s.X+s.Y, 0) {
			return bad("a site stands at (%g, %g): want finite metres", s.X, s.Y)
		}
	}
	if w := c.WiFi; w != nil && !(c.Sectors == 1 && w.Rate > 0 && w.Payload > 0 && w.Slot > 0 && w.SIFS >= 0 && w.DIFS >= 0 && w.Window >= 1 && w.Stages >= 0) {
		return bad("Wi-Fi: want one sector a site, a positive rate, payload, slot and window")
	}
	if c.Candidates < 1 || c.Step <= 0 || c.Timeout <= 0 || c.Delay < 0 {
		return bad("want at least one candidate site, a positive step and timeout, and a delay of at least 0")
	}
	if len(c.Layout.Sites)*c.Sectors > 1<<20 {
		return bad("%d cells: want at most %d", len(c.Layout.Sites)*c.Sectors, 1<<20)
	}
	return nil
}

// Network is the cells of a city in a world.
type Network struct {
	env     world.Env
	c       Config
	carrier radio.Carrier
	mcs     *radio.MCSTable
	law     radio.Law
	tiles   *radio.Tiles
	shadow  [2]*radio.Field // NLOS, LOS
	sight   *radio.Field
	harq    rng.Key
	bore    []float64
	cells   []cell
	users   []*Access
	full    [2]float64 // bytes/s of the whole carrier at a goodput of 1 bit per resource element
	noise   float64    // mW at users
	rise    float64    // of the uplink's noise, as a ratio
	budget  *budget
	nominal [2]float64 // bytes/s at 10 dB
	gain    []float64  // of proportional fair scheduling, by number of users

	total totals
}

// cell is one sector of a site. Its load is looked at no more often than
// every refresh.
type cell struct {
	share [2]*world.Share
	at    time.Duration
	load  [2]float64
}

const refresh = 100 * time.Millisecond

// reread is how old the load of a cell may be that others go by: it looks back a
// second itself.
const reread = 250 * time.Millisecond

// Up and Down are the directions, as indices.
const (
	up   = int(costmodel.Up)
	down = int(costmodel.Down)
)

// New builds a network. Nothing happens in it until users send.
func New(env world.Env, c Config) (*Network, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	carrier, err := radio.NewCarrier(c.Frequency, c.Bandwidth)
	if err != nil {
		return nil, fmt.Errorf("city %q: %w", c.Name, err)
	}
	mcs, err := radio.LoadTable(c.MCSTable)
	if err != nil {
		return nil, fmt.Errorf("city %q: %w", c.Name, err)
	}
	n := &Network{
		env: env, c: c, carrier: carrier, mcs: mcs,
		law:  c.Scenario.Law(c.Frequency, c.Scenario.BaseHeight, c.Scenario.UserHeight),
		rise: radio.Ratio(c.Rise), budget: newBudget(mcs, carrier.Blocks),
		bore: radio.Boresights(c.Sectors), harq: rng.NewKey(c.Seed, "city harq", c.Name),
		sight: radio.NewField(c.Scenario.SightMemory, c.Seed, "sight", c.Name),
		noise: radio.Ratio(radio.Noise(float64(carrier.Blocks)*carrier.BlockHz(), c.UserNoise)),
	}
	n.tiles = radio.NewTiles(&n.c.Layout, c.Candidates)
	for i, d := range c.Scenario.Memory {
		n.shadow[i] = radio.NewField(d, c.Seed, "shadow", i, c.Name)
	}
	n.full[down] = carrier.Rate(carrier.BitsPerSec(1, c.DownLayers), carrier.Down, c.DownShare) / 8
	n.full[up] = carrier.Rate(carrier.BitsPerSec(1, c.UpLayers), carrier.Up, c.UpShare) / 8
	for d := range n.nominal {
		n.nominal[d] = n.full[d] * mcs.Goodput(10)
	}
	if c.WiFi != nil {
		n.c.Scheduler = radio.RoundRobin
		n.nominal = [2]float64{c.WiFi.Alone() / 8, c.WiFi.Alone() / 8}
	}
	n.cells = make([]cell, len(c.Layout.Sites)*c.Sectors)
	for i := range n.cells {
		for d := range n.cells[i].share {
			n.cells[i].share[d] = n.newShare()
		}
		if c.WiFi != nil {
			n.cells[i].share[up] = n.cells[i].share[down]
		}
	}
	return n, nil
}

// fadingSNR is the mean SNR, as a ratio, at which the gain of proportional fair
// scheduling is taken: 10 dB.
const fadingSNR = 10

// mostFaders: beyond so many users one more changes the rate of a cell no further.
const mostFaders = 32

func (n *Network) newShare() *world.Share {
	wifi := n.c.WiFi
	if n.c.Scheduler != radio.Proportional && wifi == nil {
		return world.NewShare(n.env)
	}
	for k := len(n.gain); k <= mostFaders; k++ {
		if wifi != nil {
			n.gain = append(n.gain, wifi.Throughput(max(1, k))/wifi.Throughput(1))
		} else {
			n.gain = append(n.gain, radio.PFGain(k, fadingSNR))
		}
	}
	return world.NewGainShare(n.env, func(k int) float64 { return n.gain[min(k, mostFaders)] })
}

// Cells is how many cells there are. Cell i is sector i mod sectors of site i /
// sectors.
func (n *Network) Cells() int { return len(n.cells) }

// Place turns two numbers in [0, 1) into a place of the network: uniform ones
// into uniform places.
func (n *Network) Place(u, v float64) (x, y float64) {
	p := n.c.Layout.Place(u, v)
	return p.X, p.Y
}

// Config is what the network was built from.
func (n *Network) Config() Config { return n.c }

// loadOf is the share of the last second in which a cell sent in a direction, or
// received.
func (n *Network) loadOf(i, d int, now time.Duration) float64 {
	c := &n.cells[i]
	if now-c.at >= reread {
		c.at = now
		c.load = [2]float64{c.share[up].Recent(), c.share[down].Recent()}
	}
	return min(1, n.c.Background+c.load[d])
}
