// Package fault makes devices that die and come back: a wrapper around any
// device, for measured, emulated and modelled runs alike.
//
//	d := fault.New(env, "nx", device, []fault.Window{{From: 5 * time.Second, To: 15 * time.Second}})
//	_, err := d.Run(&op) // errors.Is(err, hardware.ErrDown) while it is down
//
// Inside a window every operation fails at once with hardware.ErrDown. So does
// one that began before a window and would have ended in it: its work is lost,
// and the failure shows when the work would have been done. A node that died has
// forgotten the KV caches of its sequences: an operation that counts on one fails
// the same way, after the window too. A Drop of nothing in particular is a way to
// ask whether the node is back: it takes no time.
//
// The failure knows since when the node is down; see Failure.
//
// What the package does not do: links that fail (the link models have outages),
// and weights that have to be loaded again after a restart.
package fault

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
)

// Window is a time in which a device is down: From <= t < To.
type Window struct{ From, To time.Duration }

// Failure is what operations on a dead device end with. It is hardware.ErrDown.
type Failure struct {
	Node string
	At   time.Duration // when the device died
	What string        // what the caller meets: down, or its cache is gone
}

// Error names the node and the time of its death.
func (f *Failure) Error() string {
	return fmt.Sprintf("node %q died at %v: %s", f.Node, f.At, f.What)
}

// Unwrap makes it hardware.ErrDown.
func (f *Failure) Unwrap() error { return hardware.ErrDown }

// Since is when the device died.
func (f *Failure) Since() time.Duration { return f.At }

// Device is a device that is down at times.
type Device struct {
	hardware.Device
	env     world.Env
	name    string
	windows []Window // in order of time
	died    int      // windows that have begun, as far as the caches know
	live    map[key]*hardware.Model
	lost    []hardware.Op // drops to come when nothing runs any more
	running int
}

type key struct {
	id    int64
	model string
	span  hardware.Span
}

// New wraps a device. The windows must be in order and apart.
func New(env world.Env, name string, d hardware.Device, windows []Window) *Device {
	return &Device{Device: d, env: env, name: name, windows: windows, live: map[key]*hardware.Model{}}
}

// Run runs an operation if the device lives.
func (d *Device) Run(op *hardware.Op) (hardware.Result, error) {
	start := d.env.Now()
	if w, down := d.at(start); down {
		d.forget(start)
		return hardware.Result{}, d.failure(w, "it is down")
	}
	d.forget(start)
	if op.Kind == hardware.Drop {
		for _, s := range op.Seqs {
			delete(d.live, d.key(op, s.ID))
		}
		return d.Device.Run(op)
	}
	if d.died > 0 {
		for i := range op.Seqs {
			if s := &op.Seqs[i]; s.Context > 0 && d.live[d.key(op, s.ID)] == nil {
				return hardware.Result{}, d.failure(d.windows[d.died-1], fmt.Sprintf("the KV cache of sequence %d is lost", s.ID))
			}
		}
	}
	d.running++
	res, err := d.Device.Run(op)
	d.running--
	d.sweep()
	if err != nil {
		return res, err
	}
	if op.Model != nil && op.Kind != hardware.Load {
		for i := range op.Seqs {
			d.live[d.key(op, op.Seqs[i].ID)] = op.Model
		}
	}
	if w, ok := d.within(start, d.env.Now()); ok {
		d.forget(d.env.Now())
		return hardware.Result{}, d.failure(w, "the operation that ran is lost")
	}
	return res, nil
}

// Inner is the wrapped device.
func (d *Device) Inner() hardware.Device { return d.Device }

func (d *Device) key(op *hardware.Op, id int64) key {
	if op.Model == nil {
		return key{id: id}
	}
	return key{id, op.Model.Name, op.Layers}
}

func (d *Device) failure(w Window, what string) error {
	return &Failure{Node: d.name, At: w.From, What: what}
}

// at finds the window of a moment.
func (d *Device) at(t time.Duration) (Window, bool) {
	for _, w := range d.windows {
		if w.From <= t && t < w.To {
			return w, true
		}
	}
	return Window{}, false
}

// within finds a window that began after one moment and not after another.
func (d *Device) within(after, until time.Duration) (Window, bool) {
	for _, w := range d.windows {
		if after < w.From && w.From <= until {
			return w, true
		}
	}
	return Window{}, false
}

// forget drops the caches if the device died since it was last asked.
func (d *Device) forget(now time.Duration) {
	begun := 0
	for _, w := range d.windows {
		if w.From <= now {
			begun++
		}
	}
	if begun == d.died {
		return
	}
	d.died = begun
	for k, m := range d.live { // any order: drops commute and take no time
		d.lost = append(d.lost, hardware.Op{Kind: hardware.Drop, Model: m, Layers: k.span, Seqs: []hardware.Seq{{ID: k.id}}})
	}
	clear(d.live)
	d.sweep()
}

// sweep frees what is lost, once no operation can be using it.
func (d *Device) sweep() {
	if d.running > 0 {
		return
	}
	for i := range d.lost {
		_, _ = d.Device.Run(&d.lost[i])
	}
	d.lost = d.lost[:0]
}
