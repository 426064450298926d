package partition

import (
	"fmt"
	"math"
	"slices"
)

// Cluster is EdgeShard's problem for latency: N layers on M devices, each layer on any device, devices used as often as pays. Layer
// 0 is on Source, and the token goes back there.
type Cluster struct {
	ComputeSec  [][]float64 // (N, M) time of each layer
	Out         []float64   // (N) bytes that leave each layer; the last is the token
	BytesPerSec [][]float64 // (M, M) from, to; not read for a device and itself
	Need        []float64   // (N) bytes of each layer
	Memory      []float64   // (M) bytes
	Source      int
}

// send is the hand-over after layer i.
func (c Cluster) send(i, from, to int) float64 {
	if from == to {
		return 0
	}
	return c.Out[i] / c.BytesPerSec[from][to]
}

// Sec is the time of one token with layer i on device where[i].
func (c Cluster) Sec(where []int) (sec float64) {
	for i, j := range where {
		if i > 0 {
			sec += c.send(i-1, where[i-1], j)
		}
		sec += c.ComputeSec[i][j]
	}
	last := len(where) - 1
	return sec + c.send(last, where[last], c.Source)
}

// Fits says whether the devices hold their layers.
func (c Cluster) Fits(where []int) bool {
	left := slices.Clone(c.Memory)
	for i, j := range where {
		if left[j] -= c.Need[i]; left[j] < 0 {
			return false
		}
	}
	return true
}

// label is a way to place the first layers.
type label struct {
	sec   float64
	where []int
	left  []float64 // memory of each device
}

// LatencyDP is EdgeShard's dynamic program: for each layer and device the quickest way there, with the memory that this way left. With
// limits on memory it is a heuristic, as a slower way may leave room that is needed later: it is never under LatencyExact, and
// may find no plan where there is one. Steps: N M².
func (c Cluster) LatencyDP() (where []int, sec float64, err error) {
	return c.search(func(labels []label, l label) []label {
		if len(labels) > 0 && labels[0].sec <= l.sec {
			return labels
		}
		return []label{l}
	})
}

// LatencyExact is the plan of least time. It keeps, for each layer and device, all ways of which none is both as quick and as sparing
// of every memory as another; how many there are can grow exponentially with the layers if memories bind.
func (c Cluster) LatencyExact() (where []int, sec float64, err error) {
	dominates := func(a, b label) bool {
		if a.sec > b.sec {
			return false
		}
		for j := range a.left {
			if a.left[j] < b.left[j] {
				return false
			}
		}
		return true
	}
	return c.search(func(labels []label, l label) []label {
		for _, o := range labels {
			if dominates(o, l) {
				return labels
			}
		}
		return append(slices.DeleteFunc(labels, func(o label) bool { return dominates(l, o) }), l)
	})
}

// search goes through the layers; keep adds a label to those of a device.
func (c Cluster) search(keep func([]label, label) []label) ([]int, float64, error) {
	devices := len(c.Memory)
	now := make([][]label, devices)
	if start, ok := c.place(label{left: c.Memory}, 0, c.Source); ok {
		now[c.Source] = []label{start}
	}
	for i := 1; i < len(c.Need); i++ {
		next := make([][]label, devices)
		for j := range devices {
			for k := range devices {
				for _, l := range now[k] {
					if further, ok := c.place(l, i, j); ok {
						next[j] = keep(next[j], further)
					}
				}
			}
		}
		now = next
	}
	best := label{sec: math.Inf(1)}
	for j, labels := range now {
		for _, l := range labels {
			if l.sec += c.send(len(c.Need)-1, j, c.Source); l.sec < best.sec {
				best = l
			}
		}
	}
	if best.where == nil {
		return nil, 0, fmt.Errorf("place layers on devices: %w", ErrNoRoom)
	}
	return best.where, best.sec, nil
}

// place puts layer i on device j.
func (c Cluster) place(l label, i, j int) (label, bool) {
	if l.left[j] < c.Need[i] {
		return l, false
	}
	if i > 0 {
		l.sec += c.send(i-1, l.where[i-1], j)
	}
	l.sec += c.ComputeSec[i][j]
	l.where = append(slices.Clone(l.where), j)
	l.left = slices.Clone(l.left)
	l.left[j] -= c.Need[i]
	return l, true
}
