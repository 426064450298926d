package pipeline

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
)

// Class is what devices train: who computes it, and how large what travels is. Where only the shape of a model is known nothing is
// computed, and sizes are all there is.
type Class interface {
	// Trainer does the arithmetic; nil: only sizes are known.
	Trainer() hardware.Trainer
	// Lens are the tokens of each sequence of a client's step.
	Lens(client, step int) []int
	// PooledLens are those of a step on the data of all clients.
	PooledLens(step int) []int
	// Data is the size of a client's data, as text, and how many questions they are.
	Data(client int) (bytes units.Bytes, samples int)
	// Loss is what a client's reply says of its own; 0 where nothing is computed.
	Loss(reply []byte) float64
	// Sizes of what travels when its bytes are not known: the state that a client gets, the update that it sends.
	Sizes(client int) (down, up units.Bytes)
	// Held is the memory that training takes beside weights: gradients, states of optimisers, and what a batch's forward pass
	// leaves, for layers [span).
	Held(span hardware.Span, tokens int) units.Bytes
	// Secure is what summing under masks among n clients adds to what each sends and gets; 0 where updates travel in the open.
	Secure(n int) (up, down units.Bytes, err error)
	// SplitSizes are those of a split: activations of tokens on their way up, with the labels if they go too, and down; and what the
	// client's side trains.
	SplitSizes(tokens int) (up, down, half units.Bytes)
	// Frozen reports whether nothing is trained in a stage of a model that is trained in stages, nor below it: then no gradient goes there.
	Frozen(stage int) bool
	// CacheBytes is what stages keep of activations.
	CacheBytes() int
	// Passes is the work of a step in forward passes: 3 of all weights, 2 beside a frozen base, 2 per probe of zeroth order. Of a part of
	// a split, forward and backward are told apart.
	Passes() (forward, backward float64)
}

// errNobodyLearns is what pipelines that train say when the cell trains nothing.
func classOf(who string, models Models) (Class, error) {
	if models.Class == nil {
		return nil, fmt.Errorf("pipeline %s: nothing to train", who)
	}
	return models.Class, nil
}

// trip is what one client did in a round, on its own clock: it may end after the round.
type trip struct {
	client int
	round  int
	reply  []byte
	size   units.Bytes // of the reply
	err    error
	loss   float64 // splits: mean over its steps
	began  time.Duration
	ended  time.Duration
	done   bool
	late   bool // it came when the round was over

	steps []tripStep
	up    units.Bytes
	down  units.Bytes
	peak  units.Bytes
	flop  units.FLOP
	cost  []tripCost
	raw   units.Bytes
	sent  units.Bytes
}

// tripStep is a part of a trip's time; tripCost joules of a part of the system.
type tripStep struct {
	kind       record.Kind
	node       string
	start, end time.Duration
}

type tripCost struct {
	part   record.Part
	joules units.Joules
	source hardware.Source
}

// send moves a payload over a link.
func (t *trip) send(l hardware.Link, p hardware.Payload, up bool) (hardware.Payload, error) {
	d, err := l.Send(p)
	if err != nil {
		return p, err
	}
	name := "down"
	if up {
		t.up += d.Usage.Moved
		name = "up"
	} else {
		t.down += d.Usage.Moved
	}
	t.steps = append(t.steps, tripStep{record.Transfer, name, d.Usage.Start, d.Usage.End})
	t.cost = append(t.cost, tripCost{record.RadioPart, d.Usage.Energy, d.Usage.Joules})
	return d.Payload, nil
}

// run does an operation and returns the reply: its bytes, or only their size where nothing is computed.
func (t *trip) run(dev hardware.Device, part record.Part, node string, op *hardware.Op) (hardware.Payload, error) {
	res, err := dev.Run(op)
	if err != nil {
		return hardware.Payload{}, err
	}
	u := res.Usage
	if u.Arrived > 0 {
		t.steps = append(t.steps, tripStep{record.Transfer, "up", 0, u.Arrived})
	}
	t.steps = append(t.steps, tripStep{record.Compute, node, u.Start, u.End})
	t.cost = append(t.cost, tripCost{part, u.Energy, u.Joules})
	t.flop += u.FLOP
	if part == record.DevicePart {
		t.peak = max(t.peak, u.Peak)
	}
	if len(res.Seqs) == 0 {
		return hardware.Payload{}, nil
	}
	return res.Seqs[0].Hidden, nil
}

// book adds what the trip took to a round: all of it but its time.
func (t *trip) book(log *record.Request) {
	log.UpBytes += t.up
	log.DownBytes += t.down
	log.RawBytesOut += t.raw
	log.DerivedBytesOut += t.sent
	log.FLOP += t.flop
	log.PeakBytes = max(log.PeakBytes, t.peak)
	for _, c := range t.cost {
		log.Spend(c.part, c.joules, uint8(c.source))
	}
	t.up, t.down, t.raw, t.sent, t.flop, t.cost = 0, 0, 0, 0, 0, nil
}

// walk tells a round's log where the trip's time went: the trip is the one that the round waited for.
func (t *trip) walk(log *record.Request) {
	for _, s := range t.steps {
		log.Spent(s.kind, s.node, s.start, s.end)
	}
}

// seqsOf are the sequences of a step, as a device takes them.
func seqsOf(class Class, client, from, steps int) (seqs []hardware.Seq, tokens int) {
	for step := range steps {
		for _, n := range class.Lens(client, from+step) {
			seqs = append(seqs, hardware.Seq{ID: int64(client), New: max(1, n)})
			tokens += n
		}
	}
	if len(seqs) == 0 { // luck drew no question: there is noise to add all the same
		return []hardware.Seq{{ID: int64(client), New: 1}}, 1
	}
	return seqs, tokens
}

// gather waits until so many of the trips have ended, or until a time; 0 = however long it takes.
type gather struct {
	env   world.Env
	cond  world.Cond
	ended []*trip // in order of time
}

func (g *gather) end(t *trip) {
	t.done, t.ended = true, g.env.Now()
	g.ended = append(g.ended, t)
	g.cond.Broadcast()
}

// await returns when n trips have ended, or at the deadline if that is not 0.
func (g *gather) await(n int, deadline time.Duration) {
	over := false
	if deadline > 0 {
		g.env.Serve("deadline", func() {
			if d := deadline - g.env.Now(); d > 0 {
				g.env.Sleep(d)
			}
			over = true
			g.cond.Broadcast()
		})
	}
	for len(g.ended) < n && !over {
		g.cond.Wait()
	}
}
