// Package partition decides where a model is cut and which machine gets which layers.
//
// Numbers in, decisions out: layer times, bytes between layers, links and memories go in as plain slices, in seconds and bytes.
//
//	cut, sec := profile.Best(link, partition.Latency)      // device and edge, one cut (Neurosurgeon)
//	stages, worst, err := fleet.Throughput()               // many nodes, the slowest stage least (EdgeShard, PipeEdge)
//	where, sec, err := cluster.LatencyExact()              // many nodes, one token's time least, memory limits kept
//	chooser := partition.NewHysteresis(profile, 0.2)       // a cut that follows a changing link
//
// Every search has an exhaustive one beside it in the tests. The package measures nothing and moves nothing, and knows no
// waiting: a machine that others use too must come with times that say so.
package partition

// Profile is a model of L layers on a device and an edge server, for one request or one token.
type Profile struct {
	DeviceSec []float64 // (L) time of each layer on the device
	EdgeSec   []float64 // (L) time of each layer on the edge
	Bytes     []float64 // (L+1) what crosses a cut before layer k; Bytes[0] is the input, Bytes[L] the result
}

// Link joins the device and the edge.
type Link struct {
	UpBytesPerSec, DownBytesPerSec float64
	RTTSec                         float64
}

// Objective turns a plan's times into what is least.
type Objective func(deviceSec, sendSec, waitSec float64) float64

// Latency is the time from input to result.
func Latency(deviceSec, sendSec, waitSec float64) float64 { return deviceSec + sendSec + waitSec }

// Energy is the device's energy in joules at these powers in watts: computing, sending, and waiting for the answer
// (Neurosurgeon counts the first two; its waiting power is 0).
func Energy(computeWatts, sendWatts, waitWatts float64) Objective {
	return func(deviceSec, sendSec, waitSec float64) float64 {
		return float64(computeWatts*deviceSec) + float64(sendWatts*sendSec) + float64(waitWatts*waitSec)
	}
}

func sum(x []float64) (s float64) {
	for _, v := range x {
		s += v
	}
	return s
}

// Cost is what cut k costs: layers before k on the device, the others on the edge; k = L is the device alone, which sends
// nothing, and k = 0 the edge alone.
func (p Profile) Cost(k int, l Link, least Objective) float64 { return p.CostU(k, 0, l, least) }

// CostU is the U-shaped plan: the first a layers and the last c on the device, the middle on the edge. With nothing in the
// middle nothing is sent.
func (p Profile) CostU(a, c int, l Link, least Objective) float64 {
	back := len(p.DeviceSec) - c
	device := sum(p.DeviceSec[:a]) + sum(p.DeviceSec[back:])
	if a == back {
		return least(device, 0, 0)
	}
	return least(device, p.Bytes[a]/l.UpBytesPerSec, l.RTTSec+sum(p.EdgeSec[a:back])+p.Bytes[back]/l.DownBytesPerSec)
}

// Best is the cut of least cost, the smaller among equals (Kang et al., Neurosurgeon, ASPLOS 2017).
func (p Profile) Best(l Link, least Objective) (cut int, cost float64) {
	cost = p.Cost(0, l, least)
	for k := 1; k <= len(p.DeviceSec); k++ {
		if c := p.Cost(k, l, least); c < cost {
			cut, cost = k, c
		}
	}
	return cut, cost
}

// BestU is the U-shaped plan of least cost with at least minA layers before and minC after the middle, which keeps input and
// output on the device.
func (p Profile) BestU(minA, minC int, l Link, least Objective) (a, c int, cost float64) {
	layers := len(p.DeviceSec)
	a, c = layers, 0
	cost = p.CostU(a, c, l, least)
	for i := minA; i <= layers-minC; i++ {
		for j := minC; i+j <= layers; j++ {
			if v := p.CostU(i, j, l, least); v < cost {
				a, c, cost = i, j, v
			}
		}
	}
	return a, c, cost
}

// Path runs every layer where the whole is quickest, with as many crossings as pay: the shortest path over (layer, side) from the
// input on the device to the result on the device (JointDNN, arXiv 1801.08618). onEdge says for each layer where it runs. A
// crossing costs half a round trip and its bytes.
func (p Profile) Path(l Link) (onEdge []bool, sec float64) {
	layers := len(p.DeviceSec)
	from := make([][2]int, layers) // the side before, of the best way to run layer i on each side
	at := [2]float64{0, l.RTTSec/2 + p.Bytes[0]/l.UpBytesPerSec}
	came := [2]int{0, 0}
	for i := range layers {
		from[i] = came
		ran := [2]float64{at[0] + p.DeviceSec[i], at[1] + p.EdgeSec[i]}
		at, came = ran, [2]int{0, 1}
		if v := ran[1] + l.RTTSec/2 + p.Bytes[i+1]/l.DownBytesPerSec; v < ran[0] {
			at[0], came[0] = v, 1
		}
		if v := ran[0] + l.RTTSec/2 + p.Bytes[i+1]/l.UpBytesPerSec; v < ran[1] {
			at[1], came[1] = v, 0
		}
	}
	onEdge = make([]bool, layers)
	side := came[0]
	for i := layers - 1; i >= 0; i-- {
		onEdge[i] = side == 1
		side = from[i][side]
	}
	return onEdge, at[0]
}

// Weights is a model whose weights are rounded to fewer bits on either side of its cut so that it fits while its cache grows (OPSC,
// arXiv 2511.04002, with a limit per side).
type Weights struct {
	Params          []float64 // (L) numbers in each layer
	KVBytesPerToken []float64 // (L) growth of each layer's cache
	DeviceBytes     float64   // memory of the device
	EdgeBytes       float64   // memory of the edge
}

// Rounding is a cut and the bits of the weights before and behind it.
type Rounding struct{ Cut, Front, Back int }

// MostTokens is how long text can grow before one side's memory is full, at most limit; -1 if the weights alone do not fit.
func (w Weights) MostTokens(r Rounding, limit int) int {
	front := fill(w.Params[:r.Cut], w.KVBytesPerToken[:r.Cut], r.Front, w.DeviceBytes)
	back := fill(w.Params[r.Cut:], w.KVBytesPerToken[r.Cut:], r.Back, w.EdgeBytes)
	return int(max(-1, min(front, back, float64(limit))))
}

func fill(params, kv []float64, bits int, memory float64) float64 {
	left, growth := memory-float64(sum(params)*float64(bits))/8, sum(kv)
	switch {
	case left < 0:
		return -1
	case growth == 0:
		return 1 << 62
	}
	return float64(int64(left / growth))
}

// Choose is the rounding of least cost, among cuts 0 to L and the given bits, with which the text can grow to tokens; the first of
// equals in order of cut, front and back. ok is false if none fits.
func (w Weights) Choose(tokens int, bits []int, cost func(Rounding) float64) (best Rounding, ok bool) {
	for cut := range len(w.Params) + 1 {
		for _, front := range bits {
			for _, back := range bits {
				r := Rounding{cut, front, back}
				if w.MostTokens(r, tokens) >= tokens && (!ok || cost(r) < cost(best)) {
					best, ok = r, true
				}
			}
		}
	}
	return best, ok
}
