package predict

import (
	"fmt"
	"strings"
)

// Bar is one promise about accuracy: ours against what must and what should be
// reached. Median and 90 % point in percent; a bar on one number leaves P90 at 0.
type Bar struct {
	Name    string     `json:"name"`
	N       int        `json:"n"`
	Ours    [2]float64 `json:"ours"`
	Must    [2]float64 `json:"must"`
	Aim     [2]float64 `json:"aim"`
	MustMet bool       `json:"must_met"`
	AimMet  bool       `json:"aim_met"`
	AtLeast bool       `json:"at_least,omitempty"` // ours is one number, to be at least must
	Between bool       `json:"between,omitempty"`  // ours is one number, to be within must
}

// met reports whether ours is within a bound (Must or Aim).
func (b *Bar) met(bound [2]float64) bool {
	switch {
	case b.Between:
		return bound[0] <= b.Ours[0] && b.Ours[0] <= bound[1]
	case b.AtLeast:
		return b.Ours[0] >= bound[0]
	}
	return b.Ours[0] <= bound[0] && b.Ours[1] <= bound[1]
}

func pair(e Errors) [2]float64 { return [2]float64{e.Median, e.P90} }

// Bars computes every bar on rows, leaving devices out. tiers are the summaries
// of the study on the rows after 0, 1, 2 and 3 calibration rows.
func Bars(rows []Row, c *Catalogue, tiers [MostCalibration + 1]Accuracy) []Bar {
	bar := func(name string, e Errors, must, aim [2]float64) Bar {
		return Bar{Name: name, N: e.N, Ours: pair(e), Must: must, Aim: aim}
	}
	prior := tiers[0]
	bars := []Bar{
		bar("decode, unseen device, prior tier", prior.Decode, [2]float64{20, 85}, [2]float64{15, 60}),
		bar("decode after one calibration row", tiers[1].Decode, [2]float64{13, 50}, [2]float64{10, 40}),
		bar("decode after two", tiers[2].Decode, [2]float64{11, 40}, [2]float64{8, 32}),
		bar("decode after three", tiers[3].Decode, [2]float64{9, 38}, [2]float64{6, 25}),
		bar("prefill, unseen device", prior.Prefill, [2]float64{30, 100}, [2]float64{20, 60}),
		bar("prefill length curve from two points", PromptCurve(rows, c), [2]float64{1, 7}, [2]float64{1, 5}),
		bar("context slope from two points", ContextSlope(rows, c), [2]float64{1, 3}, [2]float64{0.5, 2}),
		bar("dense batch from two points, llama.cpp", DenseBatch(rows, c, "llama.cpp"), [2]float64{8, 20}, [2]float64{5, 15}),
		bar("batch of experts, coverage law", ExpertBatch(rows, c, ""), [2]float64{15, 35}, [2]float64{10, 25}),
		bar("joules per token, H100 batch curves", BatchEnergy(rows, c, "H100"), [2]float64{4, 15}, [2]float64{3, 10}),
		{Name: "nominal 80 % interval covers, decode", N: prior.Decode.N, Ours: [2]float64{prior.Cover}, Must: [2]float64{78, 85}, Aim: [2]float64{78, 85}, Between: true},
		{Name: "share of rows predicted", N: prior.Rows, Ours: [2]float64{prior.Share}, Must: [2]float64{95}, Aim: [2]float64{99}, AtLeast: true},
	}
	for i := range bars {
		b := &bars[i]
		b.MustMet, b.AimMet = b.met(b.Must), b.met(b.Aim)
	}
	return bars
}

// writeBars writes the table of bars.
func writeBars(b *strings.Builder, bars []Bar) {
	fmt.Fprintf(b, "\nbars (median / 90 %% point, percent)        n        ours            must                 aim\n")
	for i := range bars {
		v := &bars[i]
		fmt.Fprintf(b, "  %-38s %5d  %13s  %13s %-6s  %13s %s\n", v.Name, v.N, v.show(v.Ours, false), v.show(v.Must, v.Between), verdict(v.MustMet), v.show(v.Aim, v.Between), verdict(v.AimMet))
	}
}

func (b *Bar) show(p [2]float64, span bool) string {
	switch {
	case span:
		return fmt.Sprintf("%g-%g", p[0], p[1])
	case b.Between || b.AtLeast:
		return fmt.Sprintf("%.1f", p[0])
	}
	return fmt.Sprintf("%.1f / %.1f", p[0], p[1])
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}
