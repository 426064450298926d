package flash

import (
	"fmt"
	"math"

	"meibench/internal/units"
)

// Law is a device whose weights are partly in storage, for machines that are not here.
type Law struct {
	PerSec       float64 // bytes of storage per second, in long reads
	PerRead      float64 // seconds that a read takes beside its bytes, readers at once counted in
	MemoryPerSec float64 // bytes of memory per second: computing one token reads what it needs once
}

// ReadSec is the time of reading so many bytes in so many reads.
func (l Law) ReadSec(bytes units.Bytes, reads float64) float64 {
	return float64(bytes)/l.PerSec + float64(reads*l.PerRead)
}

// Step is what a way of running asks for per token.
type Step struct {
	Name  string
	Bytes units.Bytes // from storage
	Reads float64
	Used  units.Bytes // from memory: all weights that are multiplied
}

// TokenSec is the time of a token: neurons are known when their layer's input is, so nothing overlaps.
func (l Law) TokenSec(s Step) float64 {
	return l.ReadSec(s.Bytes, s.Reads) + float64(s.Used)/l.MemoryPerSec
}

// Shape is a model as the law sees it, all sizes in storage.
type Shape struct {
	Layers  int
	FFN     int         // neurons of a layer
	Neuron  units.Bytes // its three rows (two without a gate)
	Others  units.Bytes // attention, embeddings, norms, head: always in memory
	Active  float64     // share of neurons that a rule keeps
	Fresh   float64     // share of neurons that are active and not in the window
	PerRun  float64     // neighbours that one read brings, 1 at least
	Parts   int         // rows of a neuron: reads where they lie apart
	HotHits float64     // share of activations that hot neurons cover
}

// Check says what is wrong with a shape.
func (s Shape) Check() error {
	in := func(v float64) bool { return v >= 0 && v <= 1 }
	if s.Layers < 1 || s.FFN < 1 || s.Neuron < 1 || s.Others < 0 || s.Parts < 1 || !(s.PerRun >= 1) {
		return fmt.Errorf("model of %+v: want positive sizes and runs of 1 at least", s)
	}
	if !in(s.Active) || !in(s.Fresh) || !in(s.HotHits) || s.Fresh > s.Active {
		return fmt.Errorf("shares %g active, %g fresh, %g hot: want 0 to 1, and no more fresh than active", s.Active, s.Fresh, s.HotHits)
	}
	return nil
}

// Ladder is what each way asks for per token, the naive one first: all weights read for every token; attention kept and all
// neurons read; neurons by a predictor; with a window; with bundles; with hot neurons kept in place of the window.
func (s Shape) Ladder() ([]Step, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	neurons := float64(s.Layers) * float64(s.FFN)
	size := func(share float64) units.Bytes { return units.Bytes(math.Round(share * neurons * float64(s.Neuron))) }
	reads := func(share float64, parts int) float64 { return share * neurons / s.PerRun * float64(parts) }
	cold := s.Active * (1 - s.HotHits)
	layers := float64(s.Layers)
	sparse := s.Others + size(s.Active)
	return []Step{
		{"naive", s.Others + size(1), layers, s.Others + size(1)},
		{"dense neurons", size(1), layers, s.Others + size(1)},
		{"predictor", size(s.Active), reads(s.Active, s.Parts), sparse},
		{"predictor+window", size(s.Fresh), reads(s.Fresh, s.Parts), sparse},
		{"predictor+window+bundles", size(s.Fresh), reads(s.Fresh, 1), sparse},
		{"predictor+hot+bundles", size(cold), reads(cold, 1), sparse},
	}, nil
}

// TwoUnits is the time in which two units compute a token's active neurons side by side (PowerInfer, Song et al. 2023): the one
// that holds the hot ones, and the one that holds the cold.
func TwoUnits(hot, cold units.Bytes, hotPerSec, coldPerSec float64) float64 {
	return max(float64(hot)/hotPerSec, float64(cold)/coldPerSec)
}
