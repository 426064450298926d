package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"meibench/hardware/profiles"
)

// Host is what is known about this machine.
type Host struct {
	Limits  *Limits
	Kernels []Kernel       // may be nil: then the prior of the machine's class says how efficient kernels are
	Fits    []profiles.Fit // one for each model
	Threads int            // per operation, as in measured runs; at least 1
}

// HostSheet writes what is known as the device profile named "host", checks it
// as any profile file is checked, and returns it with its prior filled in.
func HostSheet(h Host) (*profiles.DeviceSheet, error) {
	d, err := h.sheet()
	if err != nil {
		return nil, fmt.Errorf("profile of this machine: %w", err)
	}
	text, err := d.YAML()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "probe-*")
	if err != nil {
		return nil, fmt.Errorf("profile of this machine: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, profiles.Host+".yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, fmt.Errorf("profile of this machine: %w", err)
	}
	return profiles.LoadDevice(path)
}

// class picks the prior that fills in what was not measured.
func (m Machine) class() string {
	switch {
	case m.OS == "darwin" && m.Arch == "arm64":
		return "apple_soc"
	case strings.HasPrefix(m.Arch, "arm"):
		return "sbc"
	}
	return "desktop_cpu"
}

func (h Host) sheet() (*profiles.DeviceSheet, error) {
	l, m := h.Limits, h.Limits.Machine
	h.Threads = max(h.Threads, 1)
	who := fmt.Sprintf("meibench profile on %s, %s", m.CPU, l.When.Format("2006-01-02"))
	number := func(v float64, unit, how string, kind profiles.Kind) profiles.Quantity {
		return profiles.Quantity{Value: v, Unit: unit, Source: how, Kind: kind}
	}
	measured := func(v float64, unit, how string) profiles.Quantity {
		return number(v, unit, who+": "+how, profiles.Measured)
	}
	d := &profiles.DeviceSheet{Name: profiles.Host, Class: m.class(), Type: "cpu", Law: profiles.Law{Tier: profiles.TierMicrobenchmark},
		Summary:     fmt.Sprintf("this machine: %s, %d core(s), operations on %d thread(s)", m.CPU, m.Cores, h.Threads),
		MemoryShare: number(0.8, "1", "the rest is the system's and this program's", profiles.Assumed),
		StorageRead: number(5e8, "B/s", "order of magnitude of a SATA SSD; storage was not measured", profiles.Assumed),
		Slots:       number(1, "1", "hardware/kernel runs one operation at a time", profiles.Spec),
		Power:       h.power(measured),
		Fitted:      h.Fits,
	}
	threads := fmt.Sprintf("%d thread(s)", h.Threads)
	peak, ok := l.at(PeakF32, "", h.Threads)
	if !ok {
		return nil, fmt.Errorf("no figure %s", PeakF32)
	}
	d.PeakFP16 = measured(peak, "FLOP/s", "F32 multiply-adds, in which the kernels compute F16 weights too, "+threads)
	if v, ok := l.at(PeakInt8, "", h.Threads); ok {
		q := measured(v, "OP/s", "int8 dot products, "+threads)
		d.PeakInt8 = &q
	}
	rate, ok := l.at(DRAMRead, "", h.Threads)
	if !ok {
		return nil, fmt.Errorf("no figure %s", DRAMRead)
	}
	d.Bandwidth = measured(rate, "B/s", "read of main memory, "+threads)
	d.Memory = number(1<<33, "B", "the system does not say; 8 GiB", profiles.Assumed)
	if m.Memory > 0 {
		d.Memory = measured(float64(m.Memory), "B", "as the system says")
	}
	if f, ok := l.Best(StorageRead, 0); ok {
		d.StorageRead = measured(f.Value, "B/s", f.Method)
	}
	d.Law = h.law(measured)
	return d, nil
}

// law says how efficient the reference kernels are, for models without a fit of
// their own. Models of a fit do not use it.
func (h Host) law(measured func(v float64, unit, how string) profiles.Quantity) (law profiles.Law) {
	var one, many struct{ flop, bytes, sec float64 }
	for _, k := range h.Kernels {
		if !strings.HasPrefix(k.Op, "matmul") {
			continue
		}
		s := &many
		switch k.Tokens {
		case 1:
			s = &one
		case 64:
		default:
			continue
		}
		s.flop, s.bytes, s.sec = s.flop+k.FLOP, s.bytes+k.Bytes, s.sec+k.Time.Seconds()
	}
	l := h.Limits
	if peak, ok := l.at(PeakF32, "", h.Threads); ok && many.sec > 0 {
		q := measured(min(many.flop/many.sec/peak, 1), "1", "matrix products of one layer and the head, 64 tokens, over the F32 peak")
		law.MFU, law.MFUPeak = &q, "fp16"
	}
	if rate, ok := l.at(DRAMRead, "", h.Threads); ok && one.sec > 0 {
		q := measured(min(one.bytes/one.sec/rate, 1), "1", "matrix products of one layer and the head, 1 token, over the read bandwidth")
		law.Efficiency = &q
	}
	return law
}

// power is what the packages draw if their counters can be read. What a busy
// thread adds is its share of what all busy threads add.
func (h Host) power(measured func(v float64, unit, how string) profiles.Quantity) profiles.Power {
	idle, ok := h.Limits.Best(PowerIdle, 0)
	busy, too := h.Limits.Best(PowerBusy, 0)
	cores := float64(max(h.Limits.Machine.Cores, 1))
	if ok && too && busy.Value > idle.Value {
		share := min(float64(h.Threads)/cores, 1)
		active := measured(share*(busy.Value-idle.Value), "W", fmt.Sprintf("RAPL, %.0f %% of what all threads add", 100*share))
		return profiles.Power{Scope: "chip", Idle: measured(idle.Value, "W", idle.Method), Active: &active}
	}
	why := "no readable energy counters"
	for _, f := range h.Limits.Figures {
		if f.Name == PowerIdle {
			why = f.Method
		}
	}
	const perCore, atRest = 6, 1.5 // W
	active := profiles.Quantity{Value: perCore * float64(h.Threads), Unit: "W", Kind: profiles.Assumed,
		Source: fmt.Sprintf("%d W per busy core, order of magnitude of a server or desktop core; %s", perCore, why)}
	return profiles.Power{Scope: "chip", Active: &active, Idle: profiles.Quantity{Value: atRest * cores, Unit: "W", Kind: profiles.Assumed,
		Source: fmt.Sprintf("%.1f W per core at rest, order of magnitude; %s", atRest, why)}}
}
