package endpoint

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
)

// Device is a server as a device: it offers Generate, and Drop, which does
// nothing. It lives in Real worlds only, because a server's clock is the wall's.
//
// A prompt is Seq.Text, an answer Out.Text; the server tokenizes. Usage.Start is
// when the first request was about to be written, End when the last event had
// come; work in FLOP, energy and memory are unknown. After an error the Result
// may hold what came before it.
type Device struct {
	name   string
	env    *world.Real
	client *Client
	slots  *world.Slots
}

// NewDevice makes a device over a client, which may serve several of them.
func NewDevice(env world.Env, name string, c *Client) (*Device, error) {
	real, ok := env.(*world.Real)
	if !ok {
		return nil, fmt.Errorf("device %q: %s is a real server and lives on the wall clock: run it in mode measured", name, c.URL())
	}
	return &Device{name: name, env: real, client: c, slots: world.NewSlots(env, c.cfg.Flight)}, nil
}

// Spec describes the device.
func (d *Device) Spec() hardware.DeviceSpec {
	return hardware.DeviceSpec{Name: d.name, Slots: d.client.cfg.Flight, Time: hardware.Measured,
		Ops: hardware.Set(hardware.Generate, hardware.Drop)}
}

// Run asks the server; see hardware.Device. Several sequences are several
// requests at the same time.
func (d *Device) Run(op *hardware.Op) (hardware.Result, error) {
	none := hardware.Usage{Start: d.env.Now(), Time: hardware.Measured}
	none.End = none.Start
	switch {
	case op.Kind == hardware.Drop:
		return hardware.Result{Usage: none}, nil
	case op.Kind != hardware.Generate:
		return hardware.Result{Usage: none}, fmt.Errorf("device %q: %s: %w", d.name, op.Kind, hardware.ErrUnsupported)
	case len(op.Seqs) == 0:
		return hardware.Result{Usage: none}, fmt.Errorf("device %q: generate: needs at least one sequence", d.name)
	}
	requests := make([]Request, len(op.Seqs))
	for i := range op.Seqs {
		s := &op.Seqs[i]
		r := Request{Prompt: s.Text, Limit: s.Limit, Stream: true, Now: d.env.Now}
		switch {
		case s.Text == "":
			return hardware.Result{Usage: none}, fmt.Errorf("device %q: generate: sequence %d has no text: a server tokenizes itself", d.name, s.ID)
		case s.Adapter != "":
			return hardware.Result{Usage: none}, fmt.Errorf("device %q: generate: sequence %d wants adapter %q: a server offers it as a model of its own", d.name, s.ID, s.Adapter)
		case op.Sample != nil:
			r.Temp, r.Seed = op.Sample.Temperature, &op.Sample.Seed
		default:
			r.Seed = new(uint64)
		}
		requests[i] = r
	}
	d.slots.Acquire()
	defer d.slots.Release()
	answers, errs := make([]*Answer, len(requests)), make([]error, len(requests))
	d.env.Outside(func() { d.ask(requests, answers, errs) })
	return d.result(answers), d.wrap(errs)
}

func (d *Device) wrap(errs []error) error {
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("device %q: generate: %w", d.name, err)
	}
	return nil
}

// ask runs all requests at the same time, off the turn.
func (d *Device) ask(requests []Request, answers []*Answer, errs []error) {
	var wait sync.WaitGroup
	for i := range requests[1:] {
		wait.Go(func() { answers[i+1], errs[i+1] = d.client.Complete(d.env.Context(), requests[i+1]) })
	}
	answers[0], errs[0] = d.client.Complete(d.env.Context(), requests[0])
	wait.Wait()
}

func (d *Device) result(answers []*Answer) hardware.Result {
	res := hardware.Result{Seqs: make([]hardware.Out, len(answers)), Usage: hardware.Usage{Time: hardware.Measured, Start: time.Duration(-1)}}
	u := &res.Usage
	for i, a := range answers {
		out := &res.Seqs[i]
		out.Token = hardware.NoToken
		if a == nil {
			continue
		}
		*out = hardware.Out{Token: hardware.NoToken, End: a.Finish == "stop", Text: a.Text, Chunks: a.Chunks, Prompt: max(0, a.Prompt),
			Thinking: a.Thinking, Sent: a.Sent, Received: a.Received, Retries: a.Retries}
		var count *CountError
		if errors.As(a.Doubt, &count) {
			out.Doubt, out.Mismatch = count.Error(), count.Mismatch()
		}
		if u.Start < 0 || a.Start < u.Start {
			u.Start = a.Start
		}
		u.End = max(u.End, a.End)
		u.Moved += a.Sent + a.Received
	}
	if u.Start < 0 { // nothing came from any of them
		u.Start = d.env.Now()
	}
	u.End = max(u.End, u.Start)
	return res
}
