package harness

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"time"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/fault"
	"meibench/hardware/kernel"
	"meibench/hardware/netem"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/harness/field"
	"meibench/harness/ops"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/train"
)

// builder makes a site's devices and links for one mode.
type builder struct {
	lab     *Lab
	set     *setup
	env     world.Env
	seed    uint64
	shared  map[string]hardware.Device // devices that all users have in common
	kernels []*kernel.Device
	agents  []away
	plans   kept[*costmodel.Blueprint]  // by profile, shared by all users
	wires   kept[[2]*costmodel.Channel] // by link, up and down, shared by all users
	devices []hardware.Device           // all, for utilisation
	luck    costmodel.Luck
	field   *field.Field  // nil: the site has no cells
	ops     *ops.Recorder // nil: nobody wants to know what operations took
}

// observe is what a device of a node tells its operations to; nil if nobody listens.
func (b *builder) observe(node string) func(op *hardware.Op, start, end time.Duration) {
	if b.ops == nil {
		return nil
	}
	return b.ops.On(node)
}

// site assembles what the site sheet describes.
func (b *builder) site() (*hardware.Site, error) {
	sheet := b.set.site
	site := &hardware.Site{Name: sheet.Name}
	for _, p := range sheet.Nodes {
		if p.PerUser {
			continue
		}
		if err := b.place(site, p); err != nil {
			return nil, fmt.Errorf("site %q, node %q: %w", sheet.Name, p.Name, err)
		}
	}
	user := sheet.User()
	for _, w := range sheet.Links {
		if w.From == user.Name {
			continue
		}
		up, down, err := b.wire(w, 0, nil)
		if err != nil {
			return nil, err
		}
		site.Joins = append(site.Joins, hardware.Join{From: w.From, To: w.To, Link: up}, hardware.Join{From: w.To, To: w.From, Link: down})
	}
	first, err := b.user(user, 0) // what is wrong with a user shows here
	if err != nil {
		return nil, fmt.Errorf("site %q: %w", sheet.Name, err)
	}
	site.NewUser = func(id int) *hardware.User {
		if id == 0 {
			return first
		}
		u, err := b.user(user, id)
		if err != nil {
			panic(fmt.Errorf("site %q, user %d: %w", sheet.Name, id, err))
		}
		return u
	}
	return site, nil
}

// place adds the nodes that stand for a place: one, or as many as a network of cells
// has edge nodes, whose radio and backhaul are then made too.
func (b *builder) place(site *hardware.Site, p profiles.Place) error {
	first := len(site.Nodes)
	for _, name := range b.set.site.Copies(p) {
		d, err := b.device(p)
		if err != nil {
			return err
		}
		if len(p.Fails) > 0 {
			d = fault.New(b.env, p.Name, d, outages(p.Fails))
		}
		site.Nodes = append(site.Nodes, hardware.Node{Name: name, Role: p.Role, Device: d})
	}
	if n := b.set.site.Cells; n == nil || n.Edge != p.Name {
		return nil
	}
	plan, err := field.New(b.set.site, b.lab.link)
	if err != nil {
		return err
	}
	b.field, err = plan.Build(b.env, b.seed, first)
	if err == nil {
		site.Meet = b.field.Meet
	}
	return err
}

// outages are those of a place on the run's clock.
func outages(fails []profiles.Outage) []fault.Window {
	ws := make([]fault.Window, len(fails))
	for i, f := range fails {
		ws[i] = fault.Window{From: units.Seconds(f.At), To: units.Seconds(f.At + f.For)}
	}
	return ws
}

func (b *builder) user(p profiles.Place, id int) (*hardware.User, error) {
	p = p.Of(id)
	u := &hardware.User{ID: id}
	if b.field != nil {
		u = b.field.User(id, 0) // as after a warm-up; idle gaps within the run are paid for
	}
	var err error
	if p.Device != "" || p.Agent != nil { // else the user only asks
		if u.Device, err = b.device(p); err != nil {
			return nil, err
		}
	}
	for _, w := range b.set.site.Links {
		if w.From == p.Name {
			if u.Up, u.Down, err = b.wire(w, id, u.Device); err != nil {
				return nil, err
			}
		}
	}
	return u, nil
}

// device makes the device of a node. On this machine all users share one: there
// is only one machine. So they do where an agent serves.
func (b *builder) device(p profiles.Place) (hardware.Device, error) {
	shared := p.Device == profiles.Host || b.away(p)
	if shared {
		if d, ok := b.shared[p.Name]; ok {
			return d, nil
		}
	}
	d, err := b.newDevice(p)
	if err != nil {
		return nil, err
	}
	b.devices = append(b.devices, d)
	if shared {
		b.shared[p.Name] = d
	}
	return d, nil
}

func (b *builder) newDevice(p profiles.Place) (hardware.Device, error) {
	if p.Served != nil {
		return b.served(p)
	}
	if b.away(p) {
		return b.agent(p)
	}
	switch b.set.cell.Mode {
	case "measured", "emulated":
		return b.kernel(p)
	}
	plan, err := b.plans.get(p.Device, func() (*costmodel.Blueprint, error) {
		sheet, err := b.lab.device(p.Device)
		if err != nil {
			return nil, err
		}
		return costmodel.NewBlueprint(sheet), nil
	})
	if err != nil {
		return nil, err
	}
	return plan.New(b.env, costmodel.Options{Seed: b.seed, Luck: b.luck, Observe: b.observe(p.Name), Charge: p.Charge}), nil
}

// kernel makes a device that runs the reference kernels. Emulated, its time is
// stretched by how much slower the node's device is than this machine, by the
// cost model's word for one decode step.
func (b *builder) kernel(p profiles.Place) (hardware.Device, error) {
	cfg := kernel.Config{Name: p.Name, Models: []kernel.Loaded{b.set.model.loaded()}, Threads: HostThreads(), Observe: b.observe(p.Name)}
	if b.set.small != nil {
		cfg.Models = append(cfg.Models, b.set.small.loaded())
	}
	if n, ok := b.set.params["adapters"].(float64); ok && n > 0 {
		cfg.Models[0].Adapter = freshAdapter(b.set.model.Weights.Config, b.set.params.Int("rank"))
	}
	host, err := b.lab.device(profiles.Host)
	if err == nil {
		cfg.Digest = host.Digest()
		cfg.Energy = energyOf(host)
	}
	if p.Device != profiles.Host {
		sheet, err := b.lab.device(p.Device)
		if err != nil {
			return nil, err
		}
		if host == nil {
			return nil, fmt.Errorf("emulating a %s needs the profile of this machine", p.Device)
		}
		if cfg.Slowdown, err = slowdown(sheet, host, b.set.model.Spec); err != nil {
			return nil, err
		}
		cfg.Energy = energyOf(sheet)
	}
	d, err := kernel.New(b.env, cfg)
	if err == nil {
		b.kernels = append(b.kernels, d)
	}
	return d, err
}

// freshAdapter makes LoRA adapters on every matrix of a model, as GGUF files. Their B
// is zero: they cost what adapters cost, and the answers are the backbone's.
func freshAdapter(c llm.Config, rank int) func(name string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		l, err := train.NewLoRA(c, rank, float64(rank), rng.Stream(1, "adapter", name).Uint64(), "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
		if err != nil {
			return nil, err
		}
		var file bytes.Buffer
		err = l.Write(&file, c.Arch)
		return file.Bytes(), err
	}
}

// HostThreads is how many threads a node on this machine computes with: one,
// so that device and edge each have a core where there are two.
func HostThreads() int { return max(1, runtime.NumCPU()/2) }

// slowdown is the ratio of decode times of two profiles.
func slowdown(of, host *profiles.DeviceSheet, m *hardware.Model) (float64, error) {
	op := &hardware.Op{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: 1, Context: 64}}}
	a, b := costmodel.NewLaw(of).Time(op), costmodel.NewLaw(host).Time(op)
	r := a.Seconds() / b.Seconds()
	if r <= 0 || math.IsNaN(r) || math.IsInf(r, 0) {
		return 0, fmt.Errorf("decode takes %v on %q and %v here: no ratio", a, of.Name, b)
	}
	return r, nil
}

// energyOf is a sheet's power while busy, times the time.
func energyOf(d *profiles.DeviceSheet) func(time.Duration) (units.Joules, hardware.Source) {
	if d.Power.Active == nil {
		return nil
	}
	watts := units.Watts(d.Power.Active.Value)
	return func(busy time.Duration) (units.Joules, hardware.Source) {
		return units.Energy(watts, busy), hardware.Modelled
	}
}

// wire makes both directions of a user's link. Measured and modelled links
// follow the same states, drawn from the same luck. The radio draws from the battery of
// the user's device.
func (b *builder) wire(w profiles.Wire, user int, owner hardware.Device) (up, down hardware.Link, err error) {
	if w.Link == profiles.RealLink {
		return b.real(w, user)
	}
	sheet, err := b.lab.link(w.Link)
	if err != nil {
		return nil, nil, err
	}
	if c := b.set.cell; w.From == b.set.site.User().Name && (c.RTT > 0 || c.Mbps > 0) {
		sheet = sheet.With(c.RTT, c.Mbps*1e6/8)
	}
	channels, _ := b.wires.get(w.From+" "+w.To, func() ([2]*costmodel.Channel, error) {
		var extra time.Duration
		if w.ExtraRTT != nil {
			extra = units.Seconds(w.ExtraRTT.Value)
		}
		return [2]*costmodel.Channel{costmodel.NewChannel(sheet, costmodel.Up, extra), costmodel.NewChannel(sheet, costmodel.Down, extra)}, nil
	})
	radio := costmodel.NewRadio(sheet.Radio)
	if d, ok := owner.(*costmodel.Device); ok {
		radio.Draw(d)
	}
	radio.Connect(0) // as after a warm-up; idle gaps within the run are paid for
	opt := costmodel.LinkOptions{Seed: b.seed, Name: fmt.Sprint(w.From, " ", user), Radio: radio}
	var pair [2]hardware.Link
	for i, ch := range channels {
		state := costmodel.NewLinkState(ch, opt)
		if real, ok := b.env.(*world.Real); ok && b.set.cell.Mode == "measured" {
			l, err := netem.New(real, state.Spec(), state)
			if err != nil {
				return nil, nil, err
			}
			if b.ops != nil {
				l.Observe(func(what netem.Moment, due, at time.Duration) {
					b.ops.Message(ops.Wait{Link: state.Spec().Name, Resumed: what == netem.Resumed, Due: due, End: max(at, due)})
				})
			}
			pair[i] = l
			continue
		}
		l := costmodel.Wrap(b.env, state)
		l.SetLate(b.late())
		pair[i] = l
	}
	return pair[0], pair[1], nil
}

// handling is what this machine takes beside computing, where the cell models it; nil
// else.
func (b *builder) handling() *profiles.Handling {
	if b.set.cell.Mode != "modelled" || b.lab.Host == nil || !b.set.site.UsesHost() {
		return nil
	}
	return b.lab.Host.Host
}

// late is how unpunctual the links of this machine are.
func (b *builder) late() costmodel.Late {
	h := b.handling()
	if h == nil {
		return costmodel.Late{}
	}
	return costmodel.Late{After: units.Seconds(h.After), Idle: units.Seconds(h.Idle), Busy: units.Seconds(h.Busy), Resume: units.Seconds(h.Resume)}
}

func (b *builder) close() {
	for _, k := range b.kernels {
		k.Close()
	}
	for _, a := range b.agents {
		a.device.Close()
	}
}
