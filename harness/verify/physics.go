package verify

import (
	"math"
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/harness/record"
	"meibench/internal/units"
)

// physics holds the rows of a run of a cell against what its devices and links
// can do at most.
type physics struct {
	arm    *arm
	plan   []when          // open workloads
	passes func(n int) int // least passes of the model for n tokens
	first  func(prompt int) time.Duration
	next   time.Duration
	known  bool // there is a floor of computing
	reuse  bool // a cache may have the prompt already

	trip  time.Duration // least round trip before the first token; 0 = none
	rate  float64       // largest, up, B/s
	sends bool          // the whole prompt goes up before the first token

	power [record.NumParts]float64 // W, of the devices of a part together; 0 = not known
	op    time.Duration            // busy time on the user's device so far
	spans []record.Span            // operations on the users' devices, where one device serves all
	lone  bool
}

// Shares of the law that an answer may take at least.
const (
	shareModelled = 0.99
	shareFitted   = 1.0 / 3
	shareHard     = 0.5
)

// law is the least time of a pass over new tokens behind some context.
type law func(prompt, context int) time.Duration

// physics prepares the bounds of an arm.
func (k *check) physics(a *arm, c *record.Cell) *physics {
	p := &physics{arm: a}
	k.floors(p, c)
	k.ways(p, c)
	k.powers(p, c)
	return p
}

// floors finds the least time of passes over the devices of the site.
func (k *check) floors(p *physics, c *record.Cell) {
	share, ok := p.steps(c)
	if !ok {
		return
	}
	var laws []law
	for _, m := range []*harness.Model{p.arm.terms.Model, p.arm.terms.Small} {
		if m == nil {
			continue
		}
		for _, n := range p.arm.terms.Site.Kinds() {
			if n.Device == "" && n.Agent == nil || !computes(c, n) {
				continue
			}
			l := k.lawOf(n, m, c.Mode)
			if l == nil {
				return // of one device nothing is known, and it may be the fastest
			}
			laws = append(laws, l)
		}
	}
	if len(laws) == 0 {
		return
	}
	least := func(prompt, context int) time.Duration {
		t := time.Duration(math.MaxInt64)
		for _, l := range laws {
			t = min(t, l(prompt, context))
		}
		return time.Duration(float64(t) * share)
	}
	p.known = true
	p.next = least(1, 1)
	p.first = func(prompt int) time.Duration { return least(max(prompt, 1), 0) }
}

// computes reports whether a node may run the model's passes in a pipeline.
func computes(c *record.Cell, n profiles.Place) bool {
	switch {
	case c.Pipeline == "local", c.Pipeline == "exit" && c.Params["rest"] == "device", c.Pipeline == "speculate" && c.Params["verify"] == "device":
		return n.PerUser
	case c.Pipeline == "offload", c.Pipeline == "session":
		return !n.PerUser
	}
	return true
}

// steps says how many passes a pipeline needs for n tokens at least, and which
// share of a pass each is; false where nothing can be said.
func (p *physics) steps(c *record.Cell) (share float64, ok bool) {
	num := func(name string) float64 { v, _ := c.Params[name].(float64); return v }
	p.passes = func(n int) int { return n }
	switch c.Pipeline {
	case "local", "offload", "fallback", "route", "cascade", "consult", "split", "chain":
		return 1, true
	case "session":
		p.reuse = true
		return 1, true
	case "speculate":
		per := int(num("gamma")) + 1
		if per == 1 || c.Params["proactive"] == "yes" {
			p.passes = func(int) int { return 1 }
		} else {
			p.passes = func(n int) int { return (n + per - 1) / per }
		}
		return 1, true
	case "exit":
		first, layers := num("first"), float64(p.arm.terms.Model.Spec.Layers)
		if first >= 1 {
			first /= layers
		}
		return max(first-1/layers, 0), true
	}
	return 0, false // parallel and experts divide a pass, servers are not known
}

// lawOf is the least time of a pass on a node; nil if nothing is known.
func (k *check) lawOf(n profiles.Place, m *harness.Model, mode string) law {
	device := n.Device
	if n.Agent != nil && mode == "measured" {
		return nil
	}
	share := shareModelled
	slow := 1.0
	if mode != "modelled" && mode != "conformance" {
		var err error
		if slow, err = k.lab.Slowdown(device, m); err != nil {
			return nil
		}
		device, share = profiles.Host, shareFitted
	}
	sheet, err := k.lab.Device(device)
	if err != nil {
		return nil
	}
	l := costmodel.NewLaw(sheet)
	share *= l.Least(m.Spec)
	timed := func(tokens, context int) time.Duration {
		op := hardware.Op{Kind: hardware.Prefill, Model: m.Spec, Layers: m.Spec.All(), Seqs: []hardware.Seq{{New: tokens, Context: context}}}
		if context > 0 {
			op.Kind = hardware.Decode
		}
		return time.Duration(float64(l.Time(&op)) * share * slow)
	}
	if device != profiles.Host || l.Tier(m.Spec) == "fitted" {
		return timed
	}
	return hard(sheet, m.Spec, slow)
}

// hard is what the peaks of a profile allow: of arithmetic, and of memory for
// weights that no cache holds.
func hard(sheet *profiles.DeviceSheet, m *hardware.Model, slow float64) law {
	peak, weights := sheet.PeakFP16.Value, float64(m.WeightBytes(m.All()))
	if sheet.PeakInt8 != nil {
		peak = max(peak, sheet.PeakInt8.Value)
	}
	const cached = 64 << 20
	if weights < cached {
		weights = 0
	}
	return func(tokens, context int) time.Duration {
		sec := max(float64(m.FLOP(m.All(), context, tokens, 1))/peak, weights/sheet.Bandwidth.Value)
		return time.Duration(sec * 1e9 * shareHard * slow)
	}
}

// ways finds the least time that the users' link takes.
func (k *check) ways(p *physics, c *record.Cell) {
	site := p.arm.terms.Site
	switch c.Pipeline {
	case "offload", "session":
	case "split":
		if c.Params["adapt"] != "no" {
			return
		}
	case "speculate":
		if c.Params["verify"] != "edge" {
			return
		}
	default:
		return
	}
	user := site.User().Name
	i := slices.IndexFunc(site.Links, func(w profiles.Wire) bool { return w.From == user })
	if i < 0 || site.Links[i].Link == profiles.RealLink {
		return
	}
	w := site.Links[i]
	sheet, err := k.lab.Link(p.arm.Arm, site, w)
	if err != nil {
		return
	}
	var extra time.Duration
	if w.ExtraRTT != nil {
		extra = units.Seconds(w.ExtraRTT.Value)
	}
	up, rate := costmodel.NewChannel(sheet, costmodel.Up, extra).Fastest()
	down, _ := costmodel.NewChannel(sheet, costmodel.Down, extra).Fastest()
	p.trip, p.rate, p.sends = up+down, rate, c.Pipeline == "offload"
}

// powers finds the largest power of the devices of each part.
func (k *check) powers(p *physics, c *record.Cell) {
	part := map[hardware.Role]record.Part{hardware.DeviceRole: record.DevicePart, hardware.EdgeRole: record.EdgePart, hardware.CloudRole: record.CloudPart}
	unknown := [record.NumParts]bool{}
	hosts := true
	for _, n := range p.arm.terms.Site.Kinds() {
		at, ok := part[n.Role]
		sheet, err := k.lab.Device(n.Device)
		if !ok || err != nil {
			unknown[at] = true
			hosts = false
			continue
		}
		hosts = hosts && n.Device == profiles.Host
		p.power[at] += most(sheet)
	}
	for i, u := range unknown {
		if u {
			p.power[i] = 0
		}
	}
	p.lone = hosts && c.Mode == "measured"
}

// most is the largest power of a device.
func most(d *profiles.DeviceSheet) float64 {
	value := func(q *profiles.Quantity) float64 {
		if q == nil {
			return 0
		}
		return q.Value
	}
	if d.Power.Cap != nil {
		return max(d.Power.Cap.Value, value(d.Power.Active))
	}
	peak := max(d.PeakFP16.Value, value(d.PeakInt8))
	return d.Power.Idle.Value + value(d.Power.Active) + value(d.Power.PerByte)*d.Bandwidth.Value + value(d.Power.PerFLOP)*peak
}

// row holds one row against the bounds.
func (p *physics) row(k *check, at spot, r *record.Request) {
	p.compute(k, at, r)
	p.carry(k, at, r)
	took := (r.Done - r.Intended).Seconds()
	for part, watts := range p.power {
		e := r.Energy[part]
		if part == int(record.RadioPart) || watts == 0 || !e.Known() {
			continue
		}
		if j := float64(e.Joules); j > watts*took*1.01+1e-9 {
			k.rep.say("V047", at, "%s spent %.4g J in %.4g s, its devices draw at most %.4g W", record.Part(part), j, took, watts)
		}
	}
	for i := range r.Spans {
		s := &r.Spans[i]
		if s.Kind == record.Compute && s.Node == "device" {
			p.op += s.End - s.Start
			if p.lone {
				p.spans = append(p.spans, *s)
			}
		}
	}
}

// compute holds the time of an answer against the passes that it takes.
func (p *physics) compute(k *check, at spot, r *record.Request) {
	if !p.known || r.OutputTokens == 0 || r.LastToken == record.Unset {
		return
	}
	prompt := r.PromptTokens
	if p.reuse {
		prompt = 1
	}
	least := p.first(prompt) + time.Duration(p.passes(r.OutputTokens)-1)*p.next
	if took := r.LastToken - r.Released; took < least {
		k.rep.say("V040", at, "%d tokens behind a prompt of %d came %v after release; the fastest device of the site takes at least %v", r.OutputTokens, r.PromptTokens, took, least)
	}
}

// carry holds the time to the first token against the link.
func (p *physics) carry(k *check, at spot, r *record.Request) {
	if p.trip == 0 || r.FirstToken == record.Unset {
		return
	}
	least := p.trip
	if p.sends && p.arm.Cell.Find == nil && !p.arm.terms.Closed() {
		if r.ID < len(p.plan) {
			bytes := p.plan[r.ID].text + p.plan[r.ID].sensor
			if r.UpBytes < bytes {
				k.rep.say("V045", at, "%d bytes went up, prompt and sensor data have %d", r.UpBytes, bytes)
			}
			least += units.Seconds(float64(bytes) / p.rate)
		}
	}
	if took := r.FirstToken - r.Released; took < least-time.Microsecond {
		k.rep.say("V045", at, "the first token came %v after release; the link takes at least %v", took, least)
	}
}

// end holds the run as a whole against the bounds.
func (p *physics) end(k *check, at spot, c *record.Cell, t *tally) {
	if t.rows == 0 {
		return
	}
	for _, n := range c.Nodes {
		if n.Slots < 1 || n.Busy < 0 || n.Busy > time.Duration(n.Slots)*t.done.hi {
			k.rep.say("V046", at, "node %q was busy for %v in %v, with %d slot(s)", n.Name, n.Busy, t.done.hi, n.Slots)
		}
	}
	if c.Mode == "measured" && c.Facts.MonoTook < t.span()-time.Millisecond {
		k.rep.say("V041", at, "the run took %v, its rows span %v", c.Facts.MonoTook, t.span())
	}
	if p.lone {
		p.alone(k, at)
	}
	p.charged(k, at, c, t)
}

// alone checks that operations on one device, which has one slot, lie beside each
// other.
func (p *physics) alone(k *check, at spot) {
	slices.SortFunc(p.spans, func(a, b record.Span) int { return int(a.Start - b.Start) })
	for i := 1; i < len(p.spans); i++ {
		if a, b := p.spans[i-1], p.spans[i]; b.Start < a.End {
			k.rep.say("V046", at, "the device computed from %v to %v and from %v to %v: it has one slot", a.Start, a.End, b.Start, b.End)
			return
		}
	}
}

// charged compares the energy of all requests with the busy time that the nodes
// say. It holds where kernels ran and energy is power times time.
func (p *physics) charged(k *check, at spot, c *record.Cell, t *tally) {
	if c.Mode != "measured" && c.Mode != "emulated" || t.missed > 0 {
		return
	}
	role := map[string]record.Part{}
	watts := map[string]float64{}
	for _, n := range p.arm.terms.Site.Nodes {
		sheet, err := k.lab.Device(n.Device)
		if err != nil || sheet.Power.Active == nil || n.Agent != nil || len(n.Others) > 0 {
			return // users' devices are booked together
		}
		role[n.Name] = map[hardware.Role]record.Part{hardware.EdgeRole: record.EdgePart, hardware.CloudRole: record.CloudPart}[n.Role]
		watts[n.Name] = sheet.Power.Active.Value
	}
	want := [record.NumParts]float64{}
	for _, n := range c.Nodes {
		w, ok := watts[n.Name]
		if !ok {
			return
		}
		want[role[n.Name]] += w * n.Busy.Seconds()
	}
	for part, j := range want {
		got := t.joules[part]
		if c.Pipeline == "chain" { // it probes nodes for its plan, which no request pays for
			j = min(j, got)
		}
		if part != int(record.RadioPart) && (got > 0 || j > 0) && math.Abs(got-j) > 0.02*max(got, j)+1e-6 {
			k.rep.say("V047", at, "%s: its nodes were busy for %.5g J, the requests have %.5g J", record.Part(part), j, got)
		}
	}
}
