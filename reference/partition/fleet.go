package partition

import (
	"errors"
	"fmt"
	"math"
)

// Fleet is a model of N layers and machines of some types, each with Count machines. A machine takes one run of layers or none.
type Fleet struct {
	ComputeSec  [][]float64 // (N, types) time of each layer
	Out         []float64   // (N) bytes that leave each layer
	BytesPerSec [][]float64 // (types, types) from, to; also between two machines of one type
	PingSec     [][]float64 // (types, types) added to each hand-over; nil for none
	Need        []float64   // (N) bytes of each layer
	Memory      []float64   // (types) bytes of each machine
	Queue       float64     // buffers, in sizes of what enters and leaves a machine, that count against its memory
	Count       []int       // (types) machines
	First       int         // the type that holds layer 0, for privacy; -1 for any
}

// Stage is a run of layers [Lo, Hi) on a machine of a type.
type Stage struct{ Type, Lo, Hi int }

const mostStates = 1 << 24

// ErrNoRoom says that no plan fits the memories.
var ErrNoRoom = errors.New("no plan fits the memories: have more or larger machines, or fewer bits")

// Throughput is the pipeline whose slowest stage, computing or sending, is quickest, and that stage's seconds; among those the
// one with the most even stages. It is EdgeShard's plan for throughput (arXiv 2405.14371) with one machine a type, and
// PipeEdge's (Hu et al., DSD 2022) with several: what counts is how many of a type are taken, not which. Steps:
// N² types² times the product of Count+1.
func (f Fleet) Throughput() ([]Stage, float64, error) {
	_, worst, err := f.plan(func(sofar, compute, send float64) float64 { return max(sofar, compute, send) })
	if err != nil {
		return nil, 0, err
	}
	stages, _, err := f.plan(func(sofar, compute, send float64) float64 {
		if compute > worst || send > worst {
			return math.Inf(1)
		}
		return sofar + float64(compute*compute)
	})
	return stages, worst, err
}

// Latency is the pipeline that takes one token through all layers in the least time: LinguaLinked's objective (ACL 2024 demo), with
// the ping of a pair counted if the pair is used.
func (f Fleet) Latency() ([]Stage, float64, error) {
	return f.plan(func(sofar, compute, send float64) float64 { return sofar + compute + send })
}

// Bottleneck is the time of a plan's slowest stage or hand-over.
func (f Fleet) Bottleneck(stages []Stage) (worst float64) {
	for i, s := range stages {
		worst = max(worst, f.compute(s))
		if i > 0 {
			worst = max(worst, f.send(s.Lo, stages[i-1].Type, s.Type))
		}
	}
	return worst
}

func (f Fleet) compute(s Stage) (sec float64) {
	for i := s.Lo; i < s.Hi; i++ {
		sec += f.ComputeSec[i][s.Type]
	}
	return sec
}

// send is the hand-over before layer i.
func (f Fleet) send(i, from, to int) float64 {
	sec := f.Out[i-1] / f.BytesPerSec[from][to]
	if f.PingSec != nil {
		sec += f.PingSec[from][to]
	}
	return sec
}

// fits says whether a stage's layers and buffers fit its machine.
func (f Fleet) fits(s Stage) bool {
	need := sum(f.Need[s.Lo:s.Hi]) + float64(f.Queue*f.Out[s.Hi-1])
	if s.Lo > 0 {
		need += float64(f.Queue * f.Out[s.Lo-1])
	}
	return need <= f.Memory[s.Type]
}

// step is the best way to a state: layers placed, machines used per type (a number with a digit per type), last type.
type step struct {
	cost        float64
	from        int // layers placed before the last stage
	last        int // its predecessor's type
	reached     bool
	predecessor int // and machines used
}

// plan is the dynamic program over all pipelines; grow must not fall with the cost so far.
func (f Fleet) plan(grow func(sofar, compute, send float64) float64) ([]Stage, float64, error) {
	layers, types := len(f.Need), len(f.Count)
	weight, sets := make([]int, types), 1
	for u, n := range f.Count {
		weight[u] = sets
		if sets *= n + 1; sets*types*(layers+1) > mostStates {
			return nil, 0, fmt.Errorf("plan a pipeline: %d layers on %d types of machines have too many states: group equal machines into types", layers, types)
		}
	}
	table := make([]step, (layers+1)*sets*types)
	at := func(i, set, u int) *step { return &table[(i*sets+set)*types+u] }
	extend := func(i, set, u int, sofar float64) {
		for v := range types {
			if set/weight[v]%(f.Count[v]+1) == f.Count[v] || i == 0 && f.First >= 0 && v != f.First {
				continue
			}
			var send, compute float64
			if i > 0 {
				send = f.send(i, u, v)
			}
			for j := i + 1; j <= layers; j++ {
				compute += f.ComputeSec[j-1][v]
				if !f.fits(Stage{v, i, j}) {
					continue
				}
				cost := grow(sofar, compute, send)
				if s := at(j, set+weight[v], v); !math.IsInf(cost, 1) && (!s.reached || cost < s.cost) {
					*s = step{cost, i, u, true, set}
				}
			}
		}
	}
	extend(0, 0, 0, 0)
	for i := 1; i < layers; i++ {
		for set := range sets {
			for u := range types {
				if s := at(i, set, u); s.reached {
					extend(i, set, u, s.cost)
				}
			}
		}
	}
	var best *step
	set, u := 0, 0
	for n := range sets {
		for v := range types {
			if s := at(layers, n, v); s.reached && (best == nil || s.cost < best.cost) {
				best, set, u = s, n, v
			}
		}
	}
	if best == nil {
		return nil, 0, fmt.Errorf("plan a pipeline: %w", ErrNoRoom)
	}
	var stages []Stage
	for i := layers; i > 0; {
		s := at(i, set, u)
		stages = append([]Stage{{u, s.from, i}}, stages...)
		i, set, u = s.from, s.predecessor, s.last
	}
	return stages, best.cost, nil
}

// BubbleShare is the idle share of a pipeline's stages while it makes tokens for several micro-batches, if the next token of all waits
// for this token of all (EdgeShard's Bubble): 1 - m Σt / (S (Σt + (m-1) max t)). Of S equal stages it is (S-1)/(S+m-1).
func BubbleShare(stageSec []float64, microBatches int) float64 {
	total, worst, m := sum(stageSec), most(stageSec), float64(microBatches)
	return 1 - float64(m*total)/float64(float64(len(stageSec))*(total+float64((m-1)*worst)))
}

// NoBubbleShare is the idle share if each micro-batch goes on to its next token at once: a cycle then takes as long as one
// micro-batch needs through all stages, or the slowest stage for all micro-batches. 0 for equal stages and m >= S.
func NoBubbleShare(stageSec []float64, microBatches int) float64 {
	total, m := sum(stageSec), float64(microBatches)
	return 1 - float64(m*total)/float64(float64(len(stageSec))*max(total, float64(m*most(stageSec))))
}

func most(x []float64) (m float64) {
	for _, v := range x {
		m = max(m, v)
	}
	return m
}
