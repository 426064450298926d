package kernel_test

import (
	"fmt"

	"meibench/hardware"
	"meibench/hardware/kernel"
	"meibench/hardware/world"
	"meibench/reference/llm"
)

// One prefill on half a model, in virtual time: the activations are real.
func ExampleNew() {
	weights, err := llm.New(llm.Config{Arch: llm.Llama, Layers: 4, Dim: 32, Heads: 4, KVHeads: 2, FFN: 64, Vocab: 50, Context: 64}, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	spec := &hardware.Model{Name: "toy", Layers: 4, Dim: 32, Heads: 4, KVHeads: 2, HeadDim: 8, FFN: 64, Vocab: 50, BytesPerWeight: 4, KVBytes: 4}
	sim := world.NewSim(nil)
	dev, err := kernel.New(sim, kernel.Config{Name: "phone", Models: []kernel.Loaded{{Spec: spec, Weights: weights, End: -1}}, Slowdown: 10})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	sim.Go("user", func() {
		res, err := dev.Run(&hardware.Op{Kind: hardware.Prefill, Model: spec, Layers: hardware.Span{Hi: 2},
			Seqs: []hardware.Seq{{ID: 1, New: 3, Tokens: []int32{7, 8, 9}}}})
		fmt.Println(res.Seqs[0].Hidden.Bytes, res.Usage.Time, err)
	})
	if err := sim.Run(); err != nil {
		fmt.Println(err)
	}
	// Output: 384 B emulated <nil>
}
