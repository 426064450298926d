package profiles

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml"

	"meibench/hardware/thermal"
	"meibench/internal/units"
)

// Host is the device name that stands for the machine the run is on. Its
// profile is measured at run time (meibench profile) and given to the site.
const Host = "host"

// DeviceSheet is the profile of a place that computes.
type DeviceSheet struct {
	Name    string `yaml:"name" json:"name"`
	Class   string `yaml:"class" json:"class"` // phone_soc, laptop_soc, edge_module, sbc, desktop_gpu, ...: picks the prior
	Type    string `yaml:"type" json:"type"`   // cpu, gpu or npu: which part of it computes
	Summary string `yaml:"summary" json:"summary"`

	PeakFP16    Quantity  `yaml:"peak_fp16" json:"peak_fp16" unit:"FLOP/s" want:"positive"`
	PeakInt8    *Quantity `yaml:"peak_int8,omitempty" json:"peak_int8,omitempty" unit:"OP/s" want:"positive"`
	Bandwidth   Quantity  `yaml:"memory_bandwidth" json:"memory_bandwidth" unit:"B/s" want:"positive"`
	Memory      Quantity  `yaml:"memory" json:"memory" unit:"B" want:"positive"`
	MemoryShare Quantity  `yaml:"memory_share" json:"memory_share" unit:"1" want:"share"` // what models may use of it
	StorageRead Quantity  `yaml:"storage_read" json:"storage_read" unit:"B/s" want:"positive"`
	Slots       Quantity  `yaml:"slots" json:"slots" unit:"1" want:"count"` // operations in flight

	Law     Law       `yaml:"law,omitempty" json:"law"` // what is left out comes from the prior of class and type
	Power   Power     `yaml:"power" json:"power"`
	Thermal *Thermal  `yaml:"thermal,omitempty" json:"thermal,omitempty"`
	Battery *Quantity `yaml:"battery,omitempty" json:"battery,omitempty" unit:"J" want:"positive"`
	Fitted  []Fit     `yaml:"fitted,omitempty" json:"fitted,omitempty"`
	Host    *Handling `yaml:"handling,omitempty" json:"handling,omitempty"` // what this machine takes beside computing; only of the host
}

// Law holds the parameters of the analytic cost law
//
//	t = pass overhead + layers × layer overhead
//	  + max(weight bytes/(efficiency × bandwidth) + KV bytes/(KV efficiency × bandwidth),
//	        FLOP/(MFU × peak))
//
// A pass over a span of layers pays FixedShare of the pass overhead whatever its
// length and the rest in proportion to its layers.
type Law struct {
	Efficiency    *Quantity `yaml:"efficiency,omitempty" json:"efficiency,omitempty" unit:"1" want:"positive"`
	KVEfficiency  *Quantity `yaml:"kv_efficiency,omitempty" json:"kv_efficiency,omitempty" unit:"1" want:"positive"`
	PassOverhead  *Quantity `yaml:"pass_overhead,omitempty" json:"pass_overhead,omitempty" unit:"s"`
	FixedShare    *Quantity `yaml:"fixed_share,omitempty" json:"fixed_share,omitempty" unit:"1" want:"share"`
	LayerOverhead *Quantity `yaml:"layer_overhead,omitempty" json:"layer_overhead,omitempty" unit:"s"`
	MFU           *Quantity `yaml:"mfu,omitempty" json:"mfu,omitempty" unit:"1" want:"positive"`
	MFUPeak       string    `yaml:"mfu_peak,omitempty" json:"mfu_peak,omitempty"` // fp16 (default) or int8: the peak that MFU is a share of
	Tier          string    `yaml:"tier,omitempty" json:"tier,omitempty"`         // how the numbers came to be: prior (default), microbenchmark or calibrated
	Encode        *Quantity `yaml:"encode,omitempty" json:"encode,omitempty" unit:"FLOP/B" want:"positive"`
	Interval      *Interval `yaml:"interval,omitempty" json:"interval,omitempty"` // of what the law says; nil: none is known
}

// Handling is what a machine that runs a measured cell takes for what is no computing:
// to wake who waits for a message or for a request's time. Modelled links and
// arrivals are punctual without it.
type Handling struct {
	After  float64 `yaml:"after" json:"after"`   // s without a message from which on a receiver sleeps
	Idle   float64 `yaml:"idle" json:"idle"`     // s that a message is late at a receiver that slept
	Busy   float64 `yaml:"busy" json:"busy"`     // s that it is late at one that did not
	Resume float64 `yaml:"resume" json:"resume"` // s from a message's arrival until its sender's process goes on
	Start  float64 `yaml:"start" json:"start"`   // s from a request's time until its first step
	Source string  `yaml:"source" json:"source"`
	Kind   Kind    `yaml:"kind" json:"kind"`
}

// Tiers of knowledge about a device, from the least: the figures of its class, its
// own limits measured, its law improved by a few runs, and a table for this device,
// model and engine.
const (
	TierPrior          = "prior"
	TierMicrobenchmark = "microbenchmark"
	TierCalibrated     = "calibrated"
	TierFitted         = "fitted"
)

// Tiers are all of them, from the least.
func Tiers() []string {
	return []string{TierPrior, TierMicrobenchmark, TierCalibrated, TierFitted}
}

// Interval bounds the time that an operation takes, as shares of the time that the
// law says: nominally 80 % of times lie between Lo and Hi of it.
type Interval struct {
	Decode  Bounds `yaml:"decode" json:"decode"`   // of the decode steps of an answer
	Prefill Bounds `yaml:"prefill" json:"prefill"` // also of what a user waits for the first token
	Source  string `yaml:"source" json:"source"`
}

// Bounds are a lower and an upper one: 0 < Lo <= Hi.
type Bounds struct {
	Lo float64 `yaml:"lo" json:"lo" want:"positive"`
	Hi float64 `yaml:"hi" json:"hi" want:"positive"`
}

func (b Bounds) check(c *checker, at string) {
	if b.Lo > b.Hi {
		c.add(at, "lo %g is above hi %g", b.Lo, b.Hi)
	}
}

func (i *Interval) check(c *checker, at string) {
	if i == nil {
		return
	}
	i.Decode.check(c, at+".decode")
	i.Prefill.check(c, at+".prefill")
	if len(i.Source) < 3 {
		c.add(at+".source", "is missing: say what the interval was taken from")
	}
}

// Power holds the energy law: energy = idle/slots × time + active × busy time
// + per byte × bytes moved + per FLOP × FLOP, at most cap × time.
type Power struct {
	Scope   string    `yaml:"scope" json:"scope"` // what the figures include: chip, gpu, module, device (battery) or wall
	Idle    Quantity  `yaml:"idle" json:"idle" unit:"W"`
	Active  *Quantity `yaml:"active,omitempty" json:"active,omitempty" unit:"W"`
	PerByte *Quantity `yaml:"per_byte,omitempty" json:"per_byte,omitempty" unit:"J/B"`
	PerFLOP *Quantity `yaml:"per_flop,omitempty" json:"per_flop,omitempty" unit:"J/FLOP"`
	Cap     *Quantity `yaml:"cap,omitempty" json:"cap,omitempty" unit:"W" want:"positive"`
}

// Thermal holds the throttling law. Where there are traces to fit it to, that is the
// network. Without one, the speed under load falls from 1 towards Retained with time
// constant Heat and recovers with time constant Cool; with one, these three only sum it up.
type Thermal struct {
	Retained Quantity `yaml:"retained" json:"retained" unit:"1" want:"share"`
	Heat     Quantity `yaml:"heat" json:"heat" unit:"s" want:"positive"`
	Cool     Quantity `yaml:"cool" json:"cool" unit:"s" want:"positive"`

	Network *Network `yaml:"network,omitempty" json:"network,omitempty"`
}

// Network holds a device's two-node thermal law; see package thermal. Thresholds are those
// of the first step of clock, spans reach from the first step to the last.
type Network struct {
	DieR       Quantity `yaml:"die_r" json:"die_r" unit:"K/W" want:"positive"`
	DieC       Quantity `yaml:"die_c" json:"die_c" unit:"J/K" want:"positive"`
	CaseR      Quantity `yaml:"case_r" json:"case_r" unit:"K/W" want:"positive"`
	CaseC      Quantity `yaml:"case_c" json:"case_c" unit:"J/K" want:"positive"`
	Ambient    Quantity `yaml:"ambient" json:"ambient" unit:"degC"`
	DieLimit   Quantity `yaml:"die_limit" json:"die_limit" unit:"degC" want:"positive"`
	DieSpan    Quantity `yaml:"die_span" json:"die_span" unit:"K" want:"positive"`
	SkinLimit  Quantity `yaml:"skin_limit" json:"skin_limit" unit:"degC" want:"positive"`
	SkinSpan   Quantity `yaml:"skin_span" json:"skin_span" unit:"K" want:"positive"`
	Hysteresis Quantity `yaml:"hysteresis" json:"hysteresis" unit:"K"`
	Steps      Quantity `yaml:"steps" json:"steps" unit:"1" want:"count"`      // of clock below the full one
	Floor      Quantity `yaml:"floor" json:"floor" unit:"1" want:"share"`      // of the full clock at the last step
	Period     Quantity `yaml:"period" json:"period" unit:"s" want:"positive"` // of the governor
}

// Law is the network as arithmetic takes it, for a device that draws so many watts at rest.
func (n *Network) Law(idle float64) thermal.Law {
	return thermal.Law{DieR: n.DieR.Value, DieC: n.DieC.Value, CaseR: n.CaseR.Value, CaseC: n.CaseC.Value, Ambient: n.Ambient.Value, Idle: idle,
		Die: n.DieLimit.Value, DieSpan: n.DieSpan.Value, Skin: n.SkinLimit.Value, SkinSpan: n.SkinSpan.Value, Hysteresis: n.Hysteresis.Value,
		Steps: int(n.Steps.Value), Floor: n.Floor.Value, Period: units.Seconds(n.Period.Value).Round(time.Microsecond)}
}

func (t *Thermal) check(c *checker, idle float64) {
	if t == nil {
		return
	}
	if t.Retained.Value == 0 {
		c.add("$.thermal.retained.value", "must be greater than 0: a device that stops is not a profile")
	}
	if t.Network == nil {
		return
	}
	law := t.Network.Law(idle)
	if err := law.Check(); err != nil {
		c.add("$.thermal.network", "%v", err)
	}
}

// Fit is a cost law measured on one machine for one model and one kernel. It
// replaces the analytic law for operations on that model.
type Fit struct {
	Model   string       `yaml:"model" json:"model"`                       // profile name with format, e.g. llama-3.2-1b:q4_0
	Digest  string       `yaml:"digest,omitempty" json:"digest,omitempty"` // SHA-256 of the model file; "" matches by name
	Kernel  string       `yaml:"kernel" json:"kernel"`                     // what ran: engine, version, instruction set, threads
	Source  string       `yaml:"source" json:"source"`
	Kind    Kind         `yaml:"kind" json:"kind"`
	Prefill Coefficients `yaml:"prefill" json:"prefill"` // also Verify
	Decode  Coefficients `yaml:"decode" json:"decode"`
	Wake    Wake         `yaml:"wake,omitempty" json:"wake,omitzero"`
	Gap     float64      `yaml:"gap,omitempty" json:"gap,omitempty"` // s from the end of an operation until its caller goes on
	Spread  *Spread      `yaml:"spread,omitempty" json:"spread,omitempty"`

	Interval *Interval         `yaml:"interval,omitempty" json:"interval,omitempty"`
	Errors   []Miss            `yaml:"errors,omitempty" json:"errors,omitempty"`
	Seen     map[string]string `yaml:"seen,omitempty" json:"seen,omitempty"` // SHA-256 of the files that it was learnt from

	Samples     int     `yaml:"samples" json:"samples"`
	MedianError float64 `yaml:"median_error" json:"median_error"` // relative, on the samples themselves
	P90Error    float64 `yaml:"p90_error" json:"p90_error"`
}

// Wake is what an operation takes more when its device had nothing to do before:
// processors sleep meanwhile, and other programs use the caches. An operation on a
// span of layers pays its share. What it leaves of the cold is paid by the next:
// Fade of it, and Fade of that by the one after.
type Wake struct {
	After   float64 `yaml:"after" json:"after"`                         // s of idleness from which on it is paid
	Decode  float64 `yaml:"decode" json:"decode"`                       // s, for the whole model
	Prefill float64 `yaml:"prefill,omitempty" json:"prefill,omitempty"` // s likewise; 0 where the prefill law has it in it
	Fade    float64 `yaml:"fade,omitempty" json:"fade,omitempty" want:"share"`
}

// Spread is by how much the times of a machine differ from its law, as evenly spaced
// quantiles of time / law, from the least to the largest. There are two: what all
// operations of a stretch of time have in common, since whatever disturbs a machine
// lasts, and what each has of its own. Empty: the law is exact.
type Spread struct {
	Slot  float64   `yaml:"slot,omitempty" json:"slot,omitempty"` // s: how long the first one lasts
	Slots []float64 `yaml:"slots,omitempty,flow" json:"slots,omitempty" want:"positive"`
	Ops   []float64 `yaml:"ops,omitempty,flow" json:"ops,omitempty" want:"positive"`
}

// mostQuantiles bounds a list that a file brings.
const mostQuantiles = 1024

func (s *Spread) check(c *checker, at string) {
	if len(s.Slots) > 0 && s.Slot < 1e-4 {
		c.add(at+".slot", "a stretch of %g s is too short: want at least 0.0001", s.Slot)
	}
	for _, q := range []struct {
		name string
		v    []float64
	}{{".slots", s.Slots}, {".ops", s.Ops}} {
		if len(q.v) == 1 || len(q.v) > mostQuantiles {
			c.add(at+q.name, "%d quantiles: want 2 to %d, the first the least and the last the largest", len(q.v), mostQuantiles)
		}
		for i := range q.v {
			if i > 0 && q.v[i] < q.v[i-1] {
				c.add(at+q.name, "quantiles must not fall: %g after %g", q.v[i], q.v[i-1])
				break
			}
		}
	}
}

// Miss is by how much predictions of requests missed what was measured, in the runs
// that a profile was made from: relative, without sign.
type Miss struct {
	Metric   string  `yaml:"metric" json:"metric"` // e2e, ttft or tpot
	Requests int     `yaml:"requests" json:"requests"`
	Mean     float64 `yaml:"mean" json:"mean"` // of the mean
	P50      float64 `yaml:"p50" json:"p50"`   // of the quantiles
	P90      float64 `yaml:"p90" json:"p90"`
	P95      float64 `yaml:"p95" json:"p95"`
	P99      float64 `yaml:"p99" json:"p99"`
	Covered  float64 `yaml:"covered" json:"covered" want:"share"` // share of requests inside the nominal 80 % interval
}

// Coefficients give the seconds of one operation on a span of layers:
//
//	Pass + Layers × (Layer + Token × tokens + Pair × pairs) + [span has the head] × (Head + HeadToken × sequences)
//
// tokens is the sum of the sequences' new tokens, pairs the (query, key) pairs
// that attention touches: Σ new × context + new × (new+1)/2. So a prefill of N
// tokens costs a + bN + cN² and a decode step of B sequences a + bB + c Σ context.
type Coefficients struct {
	Pass      float64 `yaml:"pass" json:"pass"`             // s per operation
	Layer     float64 `yaml:"layer" json:"layer"`           // s per layer
	Token     float64 `yaml:"token" json:"token"`           // s per layer and token
	Pair      float64 `yaml:"pair" json:"pair"`             // s per layer and pair
	Head      float64 `yaml:"head" json:"head"`             // s per operation that reaches the head
	HeadToken float64 `yaml:"head_token" json:"head_token"` // s per sequence through the head

	// Where a batch law has two segments, tokens beyond Knee cost More each, per layer.
	Knee float64 `yaml:"knee,omitempty" json:"knee,omitempty"` // tokens; 0 = one segment
	More float64 `yaml:"more,omitempty" json:"more,omitempty"`
}

// Digest is the SHA-256 that identifies the profile, prior included.
func (d *DeviceSheet) Digest() string { return digest(d) }

// YAML writes the profile as a file that LoadDevice reads back.
func (d *DeviceSheet) YAML() ([]byte, error) {
	b, err := yaml.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write device profile %q: %w", d.Name, err)
	}
	return b, nil
}

func (d *DeviceSheet) title() string { return d.Name }

func (d *DeviceSheet) check(c *checker) {
	switch d.Type {
	case "cpu", "gpu", "npu":
	default:
		c.add("$.type", "type %q: want cpu, gpu or npu", d.Type)
	}
	switch d.Power.Scope {
	case "chip", "gpu", "module", "device", "wall":
	default:
		c.add("$.power.scope", "scope %q: want chip, gpu, module, device or wall", d.Power.Scope)
	}
	if p := d.Power; p.Active == nil && p.PerByte == nil && p.PerFLOP == nil {
		c.add("$.power", "says nothing about work: give active, per_byte or per_flop")
	}
	if e := d.Law.Efficiency; e != nil && e.Value > 1.25 {
		c.add("$.law.efficiency.value", "%g of the memory bandwidth is more than a cache can explain", e.Value)
	}
	d.Law.Interval.check(c, "$.law.interval")
	if h := d.Host; h != nil && (len(h.Source) < 3 || h.Kind == "") {
		c.add("$.handling.source", "source and kind are missing: say who measured it and when")
	}
	switch d.Law.Tier {
	case "", TierPrior, TierMicrobenchmark, TierCalibrated:
	default:
		c.add("$.law.tier", "tier %q: want prior, microbenchmark or calibrated", d.Law.Tier)
	}
	switch {
	case d.Law.MFUPeak != "" && d.Law.MFUPeak != "fp16" && d.Law.MFUPeak != "int8":
		c.add("$.law.mfu_peak", "mfu_peak %q: want fp16 or int8", d.Law.MFUPeak)
	case d.Law.MFUPeak == "int8" && d.PeakInt8 == nil:
		c.add("$.law.mfu_peak", "is int8 but peak_int8 is missing")
	}
	d.Thermal.check(c, d.Power.Idle.Value)
	for i, f := range d.Fitted {
		at := fmt.Sprintf("$.fitted[%d]", i)
		if f.Model == "" || f.Kernel == "" {
			c.add(at, "needs model and kernel")
		}
		if f.Spread != nil {
			f.Spread.check(c, at+".spread")
		}
		f.Interval.check(c, at+".interval")
		if len(f.Source) < 3 || f.Kind == "" {
			c.add(at+".source", "source and kind are missing: say who measured it and when")
		}
	}
}
