package profiles

import (
	"fmt"
)

// LinkSheet is the profile of a two-way link. Up is from the user to the network,
// down the other way; on a wire or between peers both are alike.
type LinkSheet struct {
	Name    string `yaml:"name" json:"name"`
	Tech    string `yaml:"tech" json:"tech"` // LTE, 5G-mid, 802.11ax, BLE, Ethernet, fibre, ...
	Summary string `yaml:"summary" json:"summary"`

	Up   Direction `yaml:"up" json:"up"`
	Down Direction `yaml:"down" json:"down"`
	RTT  Quantiles `yaml:"rtt" json:"rtt" unit:"s"` // without own load, radio awake

	Correlation Quantity  `yaml:"correlation" json:"correlation" unit:"1" want:"share"` // lag-1 correlation of ln(rate) at 1 s
	Loss        Quantity  `yaml:"loss" json:"loss" unit:"1" want:"share"`               // share of 1500-byte packets lost end to end
	Handover    *Handover `yaml:"handover,omitempty" json:"handover,omitempty"`
	Radio       *Radio    `yaml:"radio,omitempty" json:"radio,omitempty"`

	Trace *TraceFiles `yaml:"trace,omitempty" json:"trace,omitempty"` // recorded rates; profiles from files only
}

// Direction is what differs between up and down.
type Direction struct {
	Rate    Quantiles `yaml:"rate" json:"rate" unit:"B/s"`                                    // goodput in 1 s windows
	Outage  *Quantity `yaml:"outage,omitempty" json:"outage,omitempty" unit:"1" want:"share"` // share of seconds without service
	PerByte *Quantity `yaml:"per_byte,omitempty" json:"per_byte,omitempty" unit:"J/B"`        // marginal energy at the user's radio
}

// Handover is service interruption by changing cells.
type Handover struct {
	Rate         Quantity `yaml:"rate" json:"rate" unit:"1/s"`
	Interruption Quantity `yaml:"interruption" json:"interruption" unit:"s" want:"share"` // within one second
}

// Radio is the energy-saving state machine of a cellular modem, which a first
// packet after a pause has to climb back up, and what its states draw.
type Radio struct {
	Ladder []Rung   `yaml:"ladder" json:"ladder"` // by rising After
	Tail   Quantity `yaml:"tail" json:"tail" unit:"s"`
	Active Quantity `yaml:"active" json:"active" unit:"W"` // above the display and system floor, while data flows
	Idle   Quantity `yaml:"tail_power" json:"tail_power" unit:"W"`
}

// Rung says what the first packet waits in addition, after a pause of After.
type Rung struct {
	After Quantity `yaml:"after" json:"after" unit:"s"`
	Extra Quantity `yaml:"extra" json:"extra" unit:"s"`
}

// Digest is the SHA-256 that identifies the profile.
func (l *LinkSheet) Digest() string { return digest(l) }

// With is the link at another median round trip (s) and another median rate of
// both directions (B/s); 0 leaves what the profile says. The other quantiles move
// in proportion, so that the link stays as variable as it was.
func (l *LinkSheet) With(rtt, rate float64) *LinkSheet {
	to := *l
	if rtt > 0 {
		to.RTT = to.RTT.scaled(rtt / l.RTT.P50.Value)
	}
	if rate > 0 {
		to.Up.Rate = to.Up.Rate.scaled(rate / l.Up.Rate.P50.Value)
		to.Down.Rate = to.Down.Rate.scaled(rate / l.Down.Rate.P50.Value)
		if t := l.Trace; t != nil {
			c := *t
			c.DownRates, c.UpRates = t.DownRates.times(rate/l.Down.Rate.P50.Value), t.UpRates.times(rate/l.Up.Rate.P50.Value)
			to.Trace = &c
		}
	}
	return &to
}

func (q Quantiles) scaled(by float64) Quantiles {
	q.P5.Value *= by
	q.P50.Value *= by
	q.P95.Value *= by
	return q
}

func (l *LinkSheet) title() string { return l.Name }

func (l *LinkSheet) check(c *checker) {
	c.ordered(l.Up.Rate, "$.up.rate")
	c.ordered(l.Down.Rate, "$.down.rate")
	c.ordered(l.RTT, "$.rtt")
	for _, d := range []struct {
		at  string
		dir Direction
	}{{"$.down", l.Down}, {"$.up", l.Up}} {
		if d.dir.Rate.P5.Value == 0 && d.dir.Outage == nil {
			c.add(d.at+".rate.p5", "is 0: give outage, the share of seconds without service")
		}
		if o := d.dir.Outage; o != nil && o.Value > 0.5 {
			c.add(d.at+".outage.value", "a link that is down more than half of the time has no median rate")
		}
	}
	if l.Correlation.Value >= 1 {
		c.add("$.correlation.value", "must be under 1: 1 would be a rate that never changes")
	}
	if l.Loss.Value >= 1 {
		c.add("$.loss.value", "must be under 1")
	}
	if t := l.Trace; t != nil && (t.Down == "" && t.Up == "" || t.Source == "") {
		c.add("$.trace", "must name a file for down, for up or for both, and its source")
	}
	if l.Radio == nil {
		return
	}
	for i := 1; i < len(l.Radio.Ladder); i++ {
		a, b := l.Radio.Ladder[i-1], l.Radio.Ladder[i]
		if b.After.Value <= a.After.Value || b.Extra.Value < a.Extra.Value {
			c.add(fmt.Sprintf("$.radio.ladder[%d]", i), "a longer pause must come later and cost at least as much")
		}
	}
	if l.Radio.Idle.Value > l.Radio.Active.Value {
		c.add("$.radio.tail_power.value", "the tail cannot draw more than the active radio")
	}
}
