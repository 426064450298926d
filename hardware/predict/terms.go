package predict

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// vendorOf is the maker of a device, as far as its name says.
func vendorOf(device string) string {
	d := strings.ToLower(device)
	for _, v := range []struct{ text, name string }{
		{"nvidia", "nvidia"}, {"apple", "apple"}, {"amd", "amd"}, {"intel", "intel"}, {"snapdragon", "qualcomm"},
		{"qualcomm", "qualcomm"}, {"rockchip", "rockchip"}, {"raspberry", "raspberry"},
	} {
		if strings.Contains(d, v.text) {
			return v.name
		}
	}
	return "other"
}

// smallHost reports whether a graphics card sits on one PCIe lane of a
// single-board computer.
func smallHost(name string) bool {
	for _, w := range []string{"Pi 5", "Pi CM5", "HiFive", "Radxa"} {
		if strings.Contains(name, w) {
			return true
		}
	}
	return false
}

// formatOf groups weight formats by how they are unpacked.
func formatOf(r *Row) string {
	q, b := strings.ToUpper(r.Quant), bytesPerWeight(r)
	switch {
	case strings.HasPrefix(q, "IQ4"):
		return "iq4"
	case strings.HasPrefix(q, "IQ"):
		return "iq"
	case b < 0.5:
		return "low"
	case strings.Contains(q, "_K"):
		return "k"
	case b < 0.75:
		return "4"
	case b < 1.3:
		return "8"
	}
	return "16"
}

// instructionSet is the kind of cores of a CPU.
func instructionSet(vendor string) string {
	switch vendor {
	case "apple":
		return "apple"
	case "intel", "amd":
		return "x86"
	}
	return "arm"
}

var (
	yearText  = regexp.MustCompile(`20(2[2-9])(?:-([01][0-9]))?`)
	buildText = regexp.MustCompile(`(?:^b|\()([1-9][0-9]{3})(?:\)|$| )`)
)

// yearsOf is the age of a runtime's version, years after 2025, as far as its
// text says: a date, or a build of llama.cpp (4384 is of December 2024, 7948 of
// February 2026).
func yearsOf(r *Row) (years float64, known bool) {
	if m := buildText.FindStringSubmatch(r.FrameworkVersion); m != nil {
		n, _ := strconv.ParseFloat(m[1], 64)
		return (n-4384)*0.000317 - 0.03, true
	}
	if m := yearText.FindStringSubmatch(r.FrameworkVersion); m != nil {
		y, _ := strconv.ParseFloat(m[1], 64)
		month := 6.0
		if m[2] != "" {
			month, _ = strconv.ParseFloat(m[2], 64)
		}
		return y - 25 + month/12, true
	}
	return 0, false
}

// middle puts the middle of sizes at a step of 18 ms of reference.
const middle = 4

// stepTerms are the effects on a decoding step of one sequence.
func (m *sample) stepTerms() []term {
	kind, class, run, dev := m.kind, m.spec.Class, m.run, m.spec.Device
	vendor := vendorOf(dev)
	size := m.base + middle
	gb := math.Log(m.gb)
	t := []term{
		effect(1, 10, "one"),
		effect(1, 0.3, "type", kind),
		effect(1, 0.6, "class", class, kind),
		effect(1, 0.2, "vendor", vendor, kind),
		effect(1, 0.12, "runtime", run, kind),
		effect(1, 0.15, "runtime", run, class, kind),
		effect(1, 0.2, "format", formatOf(m.row), kind),
		effect(size, 0.2, "size").with(withTime),
		effect(size, 0.15, "size", kind).with(withTime),
		effect(size, 0.15, "size", class, kind).with(withTime),
		effect(gb, 0.1, "bytes").with(withWeights),
		effect(gb, 0.3, "bytes", kind).with(withWeights),
		ownEffect(1, 0.6, "device", dev, kind),
		ownEffect(1, 0.5, "device", dev, kind, run),
		ownEffect(size, 0.2, "device size", dev, kind, run).with(withTime),
	}
	if m.kind == "gpu" && class == "desktop_gpu" && smallHost(m.row.Device) && (vendor == "amd" || vendor == "intel") {
		t = append(t, effect(1, 1, "small host"))
	}
	if kind == "cpu" {
		t = append(t, effect(1, 0.2, "cores", instructionSet(vendor)))
		if n := threadsOf(m.row.Accelerator); n > 0 {
			t = append(t, effect(math.Log(float64(n)/6), 0.3, "threads"))
		}
		if f := formatOf(m.row); f == "iq" || f == "low" || f == "k" {
			t = append(t, effect(1, 0.3, "unpack", f, run))
		}
	}
	if m.row.ActiveB < m.row.ParamsB {
		t = append(t, effect(1, 0.3, "experts"), effect(1, 0.15, "experts", class, kind))
	}
	if y, ok := yearsOf(m.row); ok {
		t = append(t, effect(y, 0.1, "year"), effect(y, 0.1, "year", kind))
	}
	if kind == "gpu" {
		t = append(t, effect(math.Log(m.peak)-31, 0.1, "peak"))
	}
	if m.tuned {
		t = append(t, ownEffect(1, 0.2, "device format", dev, kind, run, formatOf(m.row)))
	}
	return t
}

// regimeTerms are the effects of what makes a row none of the plain ones.
func (m *sample) regimeTerms() []term {
	r, class, kind := m.row, m.spec.Class, m.kind
	var t []term
	if r.Batch > 1.01 {
		b := math.Log(r.Batch)
		t = append(t, effect(1, 0.2, "batched"), effect(b, 0.2, "batch"), effect(b*b, 0.05, "batch squared"),
			effect(b, 0.2, "batch", class, kind), effect(b, 0.2, "batch", m.run),
			ownEffect(b, 0.2, "device batch", m.spec.Device))
		if r.ActiveB < r.ParamsB {
			t = append(t, effect(b, 0.2, "batch experts"))
		}
	}
	if r.NGPU > 1 {
		n := math.Log(float64(r.NGPU))
		t = append(t, effect(1, 0.3, "many"), effect(n, 0.3, "devices"), effect(n, 0.2, "devices", m.run), ownEffect(n, 0.2, "device many", m.spec.Device))
	}
	for _, f := range []struct {
		is   bool
		name string
	}{
		{strings.Contains(r.Notes, "sparse"), "sparse"}, {strings.Contains(r.Notes, "sustained"), "sustained"}, {perLayer(r), "per-layer"},
		{r.Accelerator == "GPU/CPU" || r.Accelerator == "system", "mixed"},
		{m.spec.MemoryGB > 0 && r.ParamsB*bytesPerWeight(r) > m.spec.MemoryGB*float64(r.NGPU), "too large"},
	} {
		if f.is {
			t = append(t, effect(1, 0.5, f.name), effect(1, 0.3, f.name, class, kind))
		}
	}
	if r.Context > shortContext {
		c := math.Log(r.Context / shortContext)
		t = append(t, effect(c, 0.2, "context"), effect(c, 0.2, "context", class, kind), effect(c, 0.15, "context", m.run))
	}
	if n := threadsOf(r.Accelerator); kind == "cpu" && (n == 1 || n == 2) {
		c := math.Log(float64(n) / 4)
		t = append(t, effect(c, 1, "few threads"), effect(c, 0.3, "few threads", m.run))
	}
	return append(t, ownEffect(1, 0.4, "device odd", m.spec.Device, m.run))
}

// promptTerms are the effects on a prompt token.
func (m *sample) promptTerms() []term {
	kind, class, run, dev := m.kind, m.spec.Class, m.run, m.spec.Device
	vendor := vendorOf(dev)
	size := math.Log(activeB(m.row) / 7)
	t := []term{
		effect(1, 10, "one"),
		effect(1, 0.5, "type", kind),
		effect(1, 0.3, "class", class, kind),
		effect(1, 0.15, "vendor", vendor, kind),
		effect(1, 0.2, "runtime", run, kind),
		effect(1, 0.1, "runtime", run, class, kind),
		effect(1, 0.2, "format", formatOf(m.row), kind),
		effect(size, 0.3, "size").with(withWeights),
		effect(size, 0.2, "size", kind).with(withWeights),
		effect(size, 0.1, "size", class, kind).with(withWeights),
		effect(math.Log(m.peak)-30, 0.2, "peak", kind),
		ownEffect(1, 0.3, "device", dev, kind),
		ownEffect(1, 0.25, "device", dev, kind, run),
		ownEffect(size, 0.2, "device size", dev, kind, run).with(withWeights),
	}
	if m.row.PromptTokens == 0 {
		t = append(t, effect(1, 0.5, "length not stated"), effect(1, 0.5, "length not stated", run))
	}
	if n := promptLength(m.row); n != usualPrompt {
		c := math.Log(n / usualPrompt)
		t = append(t, effect(c, 0.2, "length"), effect(c, 0.1, "length", class, kind), effect(c, 0.1, "length", run, kind))
	}
	if m.row.Batch > 1.01 {
		t = append(t, effect(math.Log(m.row.Batch), 0.3, "batch"), effect(math.Log(m.row.Batch), 0.2, "batch", run))
	}
	if y, ok := yearsOf(m.row); ok {
		t = append(t, effect(y, 0.1, "year"), effect(y, 0.1, "year", kind))
	}
	if n := m.row.NGPU; n > 1 {
		t = append(t, effect(math.Log(float64(n)), 0.3, "devices"), effect(math.Log(float64(n)), 0.2, "devices", run))
	}
	if c := m.row.Context; c > promptLength(m.row) {
		t = append(t, effect(math.Log(c/promptLength(m.row)), 0.15, "depth"))
	}
	if m.row.ActiveB < m.row.ParamsB {
		t = append(t, effect(1, 0.5, "experts"), effect(1, 0.2, "experts", class, kind))
	}
	if kind == "cpu" {
		if f := formatOf(m.row); f == "iq" || f == "low" || f == "k" || f == "iq4" {
			t = append(t, effect(1, 0.4, "unpack", run))
		}
		t = append(t, effect(1, 0.3, "cores", instructionSet(vendor)))
	}
	return t
}
