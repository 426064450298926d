package learning

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"

	"meibench/hardware"
	"meibench/internal/rng"
	"meibench/reference/train"
	"meibench/reference/zeroth"
)

// probe is a step without gradients: the loss at two points along a random direction says how far to go along it (MeZO, Malladi et al.
// 2023, alg. 1); fwd takes the mean of several directions (FwdLLM, arXiv 2308.13894, without its filter).
func (s *School) probe(b *bench, l *lesson, batch *train.Batch, step int) {
	n := 1
	if s.job.Optimizer == "fwd" {
		n = max(1, s.job.Probes)
	}
	flat := b.params.Flat
	b.spare = append(b.spare[:0], flat...)
	eps := s.job.Step
	luck := rng.Stream(s.job.Seed, "learning", "probe", l.client, step)
	mean := 0.0
	var moves []scalar
	for range n {
		seed := luck.Uint32()
		if r, ok := s.rule.(*seeds); ok {
			seed = uint32(luck.IntN(r.count))
		}
		at := func(scale float64) float64 {
			copy(flat, b.spare) // exactly where it was: nothing drifts
			zeroth.Perturb(flat, s.direction(seed), float32(scale))
			loss, _ := b.learner.Evaluate([]train.Batch{*batch})
			return loss
		}
		up, down := at(eps), at(-eps)
		mean += (up + down) / float64(2*n)
		moves = append(moves, scalar{seed, float32(s.job.Rate * (up - down) / (2 * eps) / float64(n))})
	}
	copy(flat, b.spare)
	for _, m := range moves {
		zeroth.Perturb(flat, s.direction(m.seed), -m.by)
	}
	l.scalars = append(l.scalars, moves...)
	l.loss += mean
	l.scored++
}

// direction is the seed of the normal numbers that a short seed stands for.
func (s *School) direction(seed uint32) uint64 {
	l := rng.NewKey(s.job.Seed, "learning", "direction").At(uint64(seed))
	return l.Uint64()
}

// seedCount is how many directions FedKSeed has: the paper's range is 1,024 to 4,096 (arXiv 2312.06353, by its abstract: below 18 kB a round).
const seedCount = 1024

// seeds is FedKSeed: what is tuned is a sum of few known directions, so that clients and server exchange one number for each.
type seeds struct {
	s     *School
	count int
	seeds []uint64  // of the directions
	first []float32 // what is tuned, before anything was

	mu    sync.Mutex
	acc   []float32 // of the sum below
	tuned []float32
}

func newSeeds(s *School) (*seeds, error) {
	if s.job.Optimizer != "mezo" && s.job.Optimizer != "fwd" {
		return nil, fmt.Errorf("set up training: rule fedkseed sends steps along random directions, which optimizer %s does not take: set it to mezo or fwd", s.job.Optimizer)
	}
	r := &seeds{s: s, count: seedCount, first: slices.Clone(s.scorer.params.Flat)}
	for j := range r.count {
		r.seeds = append(r.seeds, s.direction(uint32(j)))
	}
	return r, nil
}

func (r *seeds) fresh() []float32 { return make([]float32, r.count) } // how far the server went along each direction

// rebuild is what is tuned, from the sums alone: the same bits for whoever does it.
func (r *seeds) rebuild(to, acc []float32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(acc, r.acc) || r.tuned == nil {
		r.acc, r.tuned = slices.Clone(acc), slices.Clone(r.first)
		zeroth.Rebuild(r.tuned, r.seeds, acc)
	}
	copy(to, r.tuned)
}

func (r *seeds) open(v *server, _ int) ([][]byte, error) { return [][]byte{floats(v.global)}, nil }

func (r *seeds) begin(b *bench, _ int, parts [][]byte) error {
	if len(parts) != 1 {
		return fmt.Errorf("the server's state has %d parts, want 1: it runs another rule", len(parts))
	}
	acc := make([]float32, r.count)
	if err := unfloats(acc, parts[0]); err != nil {
		return fmt.Errorf("the server's state: %w", err)
	}
	r.rebuild(b.params.Flat, acc)
	return nil
}

func (r *seeds) correct(*bench, *lesson, []float32) {}

func (r *seeds) finish(b *bench, l *lesson) ([][]byte, error) {
	out := make([]byte, 0, 8*len(l.scalars))
	for _, m := range l.scalars {
		if r.s.data.bad(l.client) {
			m.by = corrupt(r.s.job.Attack, []float32{m.by, m.by})[0]
		}
		out = binary.LittleEndian.AppendUint32(out, m.seed)
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(m.by))
	}
	return [][]byte{out}, nil
}

func (r *seeds) combine(v *server, st *hardware.Study, all []*message) error {
	var weights []float64
	var moves [][]zeroth.Move
	for i, m := range all {
		own, err := r.movesOf(m)
		if err != nil {
			r.s.refuse(st.Group, st.Who[i], err)
			continue
		}
		weights, moves = append(weights, float64(m.Samples)), append(moves, own)
	}
	if len(moves) == 0 {
		return fmt.Errorf("no update of %d clients can be used: %w", len(all), r.s.lastRefusal())
	}
	return zeroth.Gather(v.global, weights, moves)
}

// movesOf reads a client's steps along the directions that there are.
func (r *seeds) movesOf(m *message) (own []zeroth.Move, err error) {
	part, err := m.part(0)
	if err != nil {
		return nil, err
	}
	if len(part)%8 != 0 {
		return nil, fmt.Errorf("%d bytes are not a list of steps", len(part))
	}
	if m.Samples <= 0 {
		return nil, fmt.Errorf("an update from %d questions", m.Samples)
	}
	for at := 0; at < len(part); at += 8 {
		sc := scalar{binary.LittleEndian.Uint32(part[at:]), math.Float32frombits(binary.LittleEndian.Uint32(part[at+4:]))}
		if f := float64(sc.by); sc.seed >= uint32(r.count) || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("a step of %g along direction %d of %d", f, sc.seed, r.count)
		}
		own = append(own, zeroth.Move{Index: int(sc.seed), By: sc.by})
	}
	return own, nil
}

func (r *seeds) load(b *bench, v *server) error {
	r.rebuild(b.params.Flat, v.global)
	return nil
}
