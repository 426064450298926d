package published

import (
	"slices"

	"meibench/reference/codec"
	"meibench/reference/partition"
	"meibench/reference/route"
	"meibench/reference/spec"
)

func clip(law codec.Clip, bits int) func() float64 {
	return func() float64 { return codec.ClipFactor(law, bits) }
}

func speed(alpha float64, gamma int) func() float64 {
	return func() float64 { return spec.SpeedUp(alpha, gamma, 0) }
}

func operations(alpha float64, gamma int) func() float64 {
	return func() float64 { return spec.Operations(alpha, gamma, 0) }
}

// splitDecode predicts a row of DSSD's results from its own rates and the overhead of the row without network.
func splitDecode(rttSec, targetOnly, draftOnly float64) func() float64 {
	return func() float64 {
		base := spec.Measured{PerSec: 13.86, TargetOnly: 7.66, DraftOnly: 106.62, Gamma: 6, AcceptShare: 0.392}
		row := spec.Measured{RTTSec: rttSec, TargetOnly: targetOnly, DraftOnly: draftOnly, Gamma: 6, AcceptShare: 0.392}
		return row.Predict(base.Overhead())
	}
}

// lookahead is a split model that accepts 1.25 tokens a step, with the time beside the round trip fitted at 9 tokens/s and 80 ms.
func lookahead(rttSec float64) float64 {
	return spec.Law{Alpha: 0.25, VerifySec: 1.25/9 - 0.080, RTTSec: rttSec}.PerSec(1)
}

// specInfer is a tree of depth 8 that has width children at the third level and one elsewhere.
func specInfer(width int) func() float64 {
	return func() float64 {
		return spec.TopTokens([]float64{0.66, 0.87, 0.87, 0.87, 0.87}, []int{1, 1, width, 1, 1, 1, 1, 1})
	}
}

// MMLU and GSM8K by RouteLLM's published per-question results.
func mmlu() []route.Outcome {
	return route.Counts{Questions: 14037, WeakRight: 9558, StrongRight: 11312, OnlyStrong: 2496}.Outcomes()
}
func gsm8k() []route.Outcome {
	return route.Counts{Questions: 1307, WeakRight: 833, StrongRight: 1121, OnlyStrong: 382}.Outcomes()
}

func weak(outcomes func() []route.Outcome) func() float64 {
	return func() float64 { return 100 * route.Curve(outcomes()).At(0) }
}

func strong(outcomes func() []route.Outcome) func() float64 {
	return func() float64 { return 100 * route.Curve(outcomes()).At(1) }
}

func needed(outcomes func() []route.Outcome) func() float64 {
	return func() float64 { share, _ := route.Oracle(outcomes()); return 100 * share }
}

func ceiling(outcomes func() []route.Outcome) func() float64 {
	return func() float64 { _, best := route.Oracle(outcomes()); return 100 * best }
}

// ianvs is the oracle's accuracy in percent from the edge's accuracy and the share sent to the cloud, in hundredths of a percent.
func ianvs(edge, cloud, sent int) func() float64 {
	return ceiling(func() []route.Outcome {
		return route.Counts{Questions: 10000, WeakRight: edge, StrongRight: cloud, OnlyStrong: sent}.Outcomes()
	})
}

func randomAPGR() float64 { return route.Curve(mmlu()).APGR() }

func randomCPT(y float64) func() float64 {
	return func() float64 { return 100 * route.Curve(mmlu()).CPT(y) }
}

const moreRTTSec = 0.0975

// between is the middle of the bracket, in milliseconds.
func between(n int) func() float64 {
	return func() float64 {
		return 500 * (partition.ExtraChainSec(n, moreRTTSec) + partition.ExtraStarSec(n, moreRTTSec))
	}
}

// Llama-2 in float32 on EdgeShard's testbed: bytes and bytes/s; nominal memory rates of the machines.
const (
	orinBytes, orinRate   = 32e9, 204.8e9
	cloudBytes, cloudRate = 24e9, 936e9
	edgeLink, cloudLink   = 50e6 / 8, 1e6 / 8
	hiddenBytes           = 4096 * 4
)

func soloMs() float64 { return 1000 * 27e9 / orinRate }

// edgeShardGain is soloMs over the latency plan on 12 Orin, one of them the source, and the server.
func edgeShardGain() float64 {
	const layers, devices, server = 32, 13, 12
	c := partition.Cluster{Memory: append(slices.Repeat([]float64{orinBytes}, server), cloudBytes)}
	for range layers {
		const bytes = 27e9 / layers
		c.Need = append(c.Need, bytes)
		c.Out = append(c.Out, hiddenBytes)
		c.ComputeSec = append(c.ComputeSec, append(slices.Repeat([]float64{bytes / orinRate}, server), bytes/cloudRate))
	}
	c.Out[layers-1] = 4
	for range devices {
		c.BytesPerSec = append(c.BytesPerSec, slices.Repeat([]float64{edgeLink}, devices))
	}
	c.BytesPerSec[0][server], c.BytesPerSec[server][0] = cloudLink, cloudLink
	_, sec, err := c.LatencyDP()
	if err != nil {
		panic("published: the model fits its testbed: " + err.Error())
	}
	return soloMs() / 1000 / sec
}

// edgeShardMemory counts, of the 12 cells of three models and four methods, those in which weights alone fit or do not as published.
func edgeShardMemory() (agree float64) {
	fits := func(bytes float64) [4]bool {
		return [4]bool{
			bytes <= orinBytes,                      // the source alone
			bytes/2 <= min(orinBytes, cloudBytes),   // half on the source, half on the server
			bytes <= orinBytes+cloudBytes,           // any share of the two
			bytes <= 12*orinBytes+2*16e9+cloudBytes, // all machines
		}
	}
	for _, model := range []struct {
		bytes  float64
		worked [4]bool
	}{
		{27e9, [4]bool{true, true, true, true}},
		{52e9, [4]bool{false, true, true, true}},
		{276e9, [4]bool{false, false, false, true}},
	} {
		for i, ok := range fits(model.bytes) {
			if ok == model.worked[i] {
				agree++
			}
		}
	}
	return agree
}
