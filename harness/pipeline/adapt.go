package pipeline

import (
	"time"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/reference/codec"
	"meibench/reference/partition"
	"meibench/workloads"
)

// adaptParams are those of a split that chooses its cut for every request.
var adaptParams = []Param{
	{Name: "adapt", Names: []string{"no", "hysteresis", "path", "bandit"}, Doc: "how the cut follows the link: re-decide when its rate moved, at each request, or learn from latencies alone"},
	{Name: "delta", Default: 0.3, Min: 0, Max: 10, Doc: "adapt hysteresis: share by which the rate must have moved"},
}

// pilot chooses the cut of each request (checklist I8; Neurosurgeon, ASPLOS'17).
// What it knows it has seen in its own requests: how long a layer takes on
// either side, how fast the uplink was the last time, how long the way is. A cut
// at the model's depth is the device alone.
type pilot struct {
	how      string
	delta    float64
	model    *hardware.Model
	wire     string
	device   layerPace
	edge     layerPace
	requests int
	prompt   float64 // mean tokens
	answer   float64
	users    map[int]*view
	bandit   partition.Chooser
}

// layerPace is the time of one layer, in seconds: for a prompt token, and in a decode step.
type layerPace struct{ token, step float64 }

// view is what is known of one user's link.
type view struct {
	up, down, rtt float64
	chooser       partition.Chooser
	alone         int // requests in a row that sent nothing
}

func newPilot(p Params, m *hardware.Model, wire string) *pilot {
	if p.Name("adapt") == "no" {
		return nil
	}
	return &pilot{how: p.Name("adapt"), delta: p.Num("delta"), model: m, wire: wire, users: map[int]*view{}}
}

// learns is how many requests are cut where the suite says before the pilot
// decides; looks, how many may run on the device alone before one is cut again:
// who sends nothing does not see that the link is better.
const (
	learns = 2
	looks  = 5
)

// cut is where the next request of a user is cut; def while nothing is known.
func (p *pilot) cut(user *hardware.User, def int) int {
	v := p.users[user.ID]
	if v == nil {
		up, down := user.Up.Spec(), user.Down.Spec()
		v = &view{up: up.BytesPerSec, down: down.BytesPerSec, rtt: (up.Delay + down.Delay).Seconds()}
		p.users[user.ID] = v
	}
	if p.requests < learns {
		return def
	}
	if v.chooser == nil {
		v.chooser = p.choose()
	}
	link := partition.Link{UpBytesPerSec: v.up, DownBytesPerSec: v.down, RTTSec: v.rtt * p.answer} // a round trip for every token
	cut := max(1, v.chooser.Choose(partition.State{Link: link}))
	if v.alone++; cut < p.model.Layers {
		v.alone = 0
	} else if v.alone > looks && p.how != "bandit" {
		v.alone = 0
		return def
	}
	return cut
}

// choose makes a user's chooser for the mean request so far. A bandit learns for
// all users together.
func (p *pilot) choose() partition.Chooser {
	switch p.how {
	case "bandit":
		return p.bandit
	case "path":
		return partition.NewHysteresis(p.profile(), 0)
	}
	return partition.NewHysteresis(p.profile(), p.delta)
}

// profile is the mean request on the layers as they were.
func (p *pilot) profile() partition.Profile {
	n := p.model.Layers
	f := partition.Profile{Bytes: make([]float64, n+1)}
	for k := range n {
		f.DeviceSec = append(f.DeviceSec, p.device.token*p.prompt+p.device.step*p.answer)
		f.EdgeSec = append(f.EdgeSec, p.edge.token*p.prompt+p.edge.step*p.answer)
		f.Bytes[k] = float64(p.wireBytes(int(p.prompt + p.answer)))
	}
	f.Bytes[0] = 1e18 // the prompt stays on the device: no cut below the first layer
	return f
}

func (p *pilot) wireBytes(tokens int) units.Bytes {
	c, err := codec.Find(p.wire)
	if err != nil { // the parameter is one of a list
		panic(err)
	}
	return units.Bytes(c.Bytes(tokens, p.model.Dim))
}

// passed tells what an operation or a transfer took.
func (p *pilot) passed(to *layerPace, seq *hardware.Seq, layers int, u hardware.Usage) {
	sec := (u.End - u.Start).Seconds() / float64(max(layers, 1))
	if seq.New > 1 {
		learn(&to.token, sec/float64(seq.New))
	} else {
		learn(&to.step, sec)
	}
}

// sent tells how fast the uplink was. A message of some packets tells the rate,
// a short one the delay.
func (p *pilot) sent(user *hardware.User, d hardware.Delivery) {
	v := p.users[user.ID]
	if took := (d.Usage.End - d.Usage.Start).Seconds() - v.rtt/2; d.Payload.Bytes > 4096 && took > 0 {
		v.up = float64(d.Payload.Bytes) / took // the latest, not a mean: a link that fell must not be believed in
	}
}

// over tells what a request with a cut took.
func (p *pilot) over(req *workloads.Request, log *record.Request, cut int, took time.Duration) {
	p.requests++
	w := 1 / float64(p.requests)
	p.prompt += (float64(req.PromptTokens) - p.prompt) * w
	p.answer += (float64(log.OutputTokens) - p.answer) * w
	if p.bandit == nil && p.requests == learns {
		p.bandit = &besideEdge{partition.NewUCB(p.model.Layers+1, took.Seconds()/4, 0.995)}
	}
	if p.bandit != nil && p.how == "bandit" {
		p.bandit.Observe(cut, took.Seconds())
	}
}

// besideEdge keeps a bandit off the cut that leaves nothing on the device.
type besideEdge struct{ *partition.UCB }

// Choose never leaves the prompt to the edge: cut 0 costs more than anything.
func (b *besideEdge) Choose(s partition.State) int {
	k := b.UCB.Choose(s)
	if k == 0 {
		b.UCB.Observe(0, 1e3)
		return b.UCB.Choose(s)
	}
	return k
}

// learn is a moving average that starts with the first value.
func learn(to *float64, now float64) {
	if *to == 0 {
		*to = now
	}
	*to += (now - *to) / 4
}
