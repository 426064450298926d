package placement

import (
	"fmt"
	"math"
)

// Layer is one step of a model that a device or an edge server may run, in seconds; a layer that the device lacks must be
// downloaded before it runs there.
type Layer struct {
	Device, Edge float64 // to compute it
	Fetch        float64 // to download it to the device; 0 = it is there
	Up, Down     float64 // to move its input from the device to the edge, and back
}

// Route is where each layer runs, true = at the edge, and the time of it all.
type Route struct {
	AtEdge []bool
	Time   float64
}

func checkLayers(layers []Layer, last float64) error {
	if len(layers) == 0 || !(last >= 0) {
		return fmt.Errorf("route of %d layers, %g s to return the answer: want at least one layer and a time of 0 or more", len(layers), last)
	}
	for i, l := range layers {
		for _, v := range []float64{l.Device, l.Edge, l.Fetch, l.Up, l.Down} {
			if !(v >= 0) || math.IsInf(v, 0) {
				return fmt.Errorf("route: layer %d has a time of %g s: want 0 or more", i, v)
			}
		}
	}
	return nil
}

// Shortest is the quickest way to run a request that begins and ends on the device while the model is not all there: each layer
// runs at the edge, or on the device, downloaded first if need be. It is the shortest path of JointDNN's graph (Eshratifar et al.,
// arXiv 1801.08618) with an edge "download layer i" beside each layer of the device. last is the time to return the answer from
// the edge.
func Shortest(layers []Layer, last float64) (Route, error) {
	if err := checkLayers(layers, last); err != nil {
		return Route{}, err
	}
	best := [2]float64{0, math.Inf(1)} // before the layer: the data are on the device, at the edge
	from := make([][2]int, len(layers))
	for i, l := range layers {
		device, edge := best[0], best[1]
		var next [2]float64
		next[0], from[i][0] = device, 0
		if v := edge + l.Down; v < next[0] {
			next[0], from[i][0] = v, 1
		}
		next[0] += l.Fetch + l.Device
		next[1], from[i][1] = edge, 1
		if v := device + l.Up; v < next[1] {
			next[1], from[i][1] = v, 0
		}
		next[1] += l.Edge
		best = next
	}
	r, at := Route{AtEdge: make([]bool, len(layers)), Time: best[0]}, 0
	if v := best[1] + last; v < r.Time {
		r.Time, at = v, 1
	}
	for i := len(layers) - 1; i >= 0; i-- {
		r.AtEdge[i] = at == 1
		at = from[i][at]
	}
	return r, nil
}

// Overlapped is when a device has run all its layers that come one after another while it computes: layer i starts when it has come
// and the one before is done.
func Overlapped(layers []Layer) (done, loaded, computed float64) {
	for _, l := range layers {
		loaded += l.Fetch
		computed += l.Device
		done = max(done, loaded) + l.Device
	}
	return done, loaded, computed
}

// Tier is a place from which a server can load a model.
type Tier struct {
	Name  string
	Queue float64 // s until its turn
	Rate  float64 // bytes per second
}

// Quickest is the tier from which bytes are there first, by ServerlessLLM's estimate (OSDI'24): queue + bytes / rate. Of equal ones
// the first.
func Quickest(tiers []Tier, bytes float64) (at int, seconds float64, err error) {
	at, seconds = -1, math.Inf(1)
	for i, t := range tiers {
		if !(t.Rate > 0) || !(t.Queue >= 0) || !(bytes >= 0) {
			return -1, 0, fmt.Errorf("tier %q: %g s in line, %g bytes per second for %g bytes: want a positive rate and nothing negative", t.Name, t.Queue, t.Rate, bytes)
		}
		if v := t.Queue + bytes/t.Rate; v < seconds {
			at, seconds = i, v
		}
	}
	if at < 0 {
		return -1, 0, fmt.Errorf("no tier to load from")
	}
	return at, seconds, nil
}
