package train

import (
	"fmt"
	"strings"
)

// Grow copies a shallower model of the same width into p, which has been
// initialised: layer i of L becomes layer i·M/L of M. The layers between keep
// their first values, which add nearly nothing to the residual stream, so the
// deeper model begins as good as the shallower one was and learns on from there.
//
// Note: half of the cost of a deep model's first thousand steps is saved so; see
// Gong et al. 2019, "Efficient training of BERT by progressively stacking".
func (p *Params) Grow(from *Params) error {
	return p.Spread(p.Flat, from, from.Flat)
}

// Spread is Grow for other values in the order of the parameters, such as the
// moments of an optimiser: src, in the order of from, goes to its places in dst.
func (p *Params) Spread(dst []float32, from *Params, src []float32) error {
	a, b := from.Model.Config, p.Model.Config
	deeper := a
	if deeper.Layers = b.Layers; deeper != b || a.Layers > b.Layers {
		return fmt.Errorf("grow a model of %d layers into one of %d: they differ in more than depth, or it is not deeper", a.Layers, b.Layers)
	}
	if len(src) != len(from.Flat) || len(dst) != len(p.Flat) {
		return fmt.Errorf("grow a model: %d and %d values for %d and %d parameters", len(src), len(dst), len(from.Flat), len(p.Flat))
	}
	places, at := map[string]int{}, 0
	for _, w := range p.Model.Weights() {
		places[w.Name] = at
		at += w.N * w.K
	}
	at = 0
	for _, w := range from.Model.Weights() {
		name, layer, rest := w.Name, 0, ""
		if n, _ := fmt.Sscanf(w.Name, "blk.%d.%s", &layer, &rest); n == 2 && strings.HasPrefix(w.Name, "blk.") {
			name = fmt.Sprintf("blk.%d.%s", layer*b.Layers/a.Layers, rest)
		}
		copy(dst[places[name]:], src[at:at+w.N*w.K])
		at += w.N * w.K
	}
	return nil
}
