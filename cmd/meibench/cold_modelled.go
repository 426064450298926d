package main

import (
	"fmt"
	"text/tabwriter"

	"meibench/hardware/profiles"
	"meibench/internal/units"
	"meibench/reference/flash"
	"meibench/reference/sparse"
)

// modelledNote says what a modelled ladder stands on.
const modelledNote = "modelled: sizes are the model's, rates the device's profile (sequential reads; often assumed, see meibench list devices), the time of a read is --read-us (assumed), " +
	"and shares of neurons, window and runs are those measured above on another model"

// rungRow is a way of running on a device that is not here.
type rungRow struct {
	Way      string  `json:"way"`
	PerToken float64 `json:"bytes_per_token"`
	Reads    float64 `json:"reads_per_token"`
	ReadSec  float64 `json:"read_s_per_token"`
	TokenSec float64 `json:"s_per_token"`
}

// ladder is the same ways for a model and a device of the profiles, with the shares that were measured here.
func (f *sparseFlags) ladder(r *sparseReport, keep float64, counts, unseen [][]int) ([]rungRow, error) {
	d, err := profiles.Device(f.on)
	if err != nil {
		return nil, err
	}
	m, err := profiles.Model(f.as)
	if err != nil {
		return nil, err
	}
	if m.Experts > 0 {
		return nil, fmt.Errorf("model %q has %d experts: want a dense one", m.Name, m.Experts)
	}
	windowed, ok := findWay(r.Ways, "+ bundles")
	if !ok || windowed.Refused != "" {
		return nil, fmt.Errorf("no window was measured: %s", windowed.Refused)
	}
	total := 0
	for _, row := range counts {
		total += len(row)
	}
	hot, err := sparse.Hot(counts, nil, total/2)
	if err != nil {
		return nil, err
	}
	neuron := 3 * float64(m.Dim) * m.BytesPerWeight
	size := float64(r.Neurons) / float64(total) // of a neuron here
	s := flash.Shape{Layers: m.Layers, FFN: m.FFN, Neuron: units.Bytes(neuron), Active: keep, Fresh: min(keep, windowed.PerToken/float64(r.Neurons)), Parts: 3, PerRun: 1,
		HotHits: sparse.Covered(unseen, hot)}
	if windowed.Reads > 0 {
		s.PerRun = max(1, windowed.PerToken/size/windowed.Reads)
	}
	s.Others = max(0, m.WeightBytes(m.All())-units.Bytes(float64(m.Layers)*float64(m.FFN)*neuron))
	law := flash.Law{PerSec: d.StorageRead.Value, PerRead: f.readMicros * 1e-6, MemoryPerSec: d.Bandwidth.Value}
	if d.Law.Efficiency != nil {
		law.MemoryPerSec *= d.Law.Efficiency.Value
	}
	steps, err := s.Ladder()
	if err != nil {
		return nil, err
	}
	var rows []rungRow
	for _, x := range steps {
		rows = append(rows, rungRow{x.Name, float64(x.Bytes), x.Reads, law.ReadSec(x.Bytes, x.Reads), law.TokenSec(x)})
	}
	return rows, nil
}

func findWay(rows []flash.Row, name string) (flash.Row, bool) {
	for _, r := range rows {
		if r.Way == name {
			return r, true
		}
	}
	return flash.Row{}, false
}

func (r *sparseReport) printModelled(w *tabwriter.Writer) {
	fmt.Fprintf(w, "\n%s\n", modelledNote)
	fmt.Fprintln(w, "way\tread / token\treads / token\treading s / token\ts / token")
	for _, x := range r.Modelled {
		fmt.Fprintf(w, "%s\t%v\t%.0f\t%.4f\t%.4f\n", x.Way, units.Bytes(x.PerToken), x.Reads, x.ReadSec, x.TokenSec)
	}
}
