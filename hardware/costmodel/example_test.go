package costmodel_test

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
)

// A law answers what an operation takes, without any clock: one decode step of a
// 1B model in 4 bits reads 0.70 GB, so an L4 (300 GB/s, of which 78 % are
// reached) needs 3 ms and 4.1 ms of overhead, whether for one user or for eight.
func ExampleLaw() {
	sheet, _ := profiles.Device("nvidia-l4")
	model, _ := profiles.Model("llama-3.2-1b:q4_0")
	law := costmodel.NewLaw(sheet)
	for _, batch := range []int64{1, 8} {
		op := hardware.Op{Kind: hardware.Decode, Model: model, Layers: model.All()}
		for id := range batch {
			op.Seqs = append(op.Seqs, hardware.Seq{ID: id, Context: 100, New: 1})
		}
		fmt.Println(batch, law.Time(&op).Round(100*time.Microsecond))
	}
	// Output:
	// 1 7.1ms
	// 8 7.6ms
}

// A modelled device and link in a modelled world.
func Example() {
	env := world.NewSim(nil)
	phone, _ := profiles.Device("snapdragon-8-gen-3")
	radio, _ := profiles.Link("lte-static-us-2021")
	model, _ := profiles.Model("qwen2.5-0.5b:q4_0")
	dev := costmodel.New(env, phone, costmodel.Options{Seed: 1})
	up := costmodel.NewLink(env, radio, costmodel.Up, costmodel.LinkOptions{Seed: 1, Constant: true})
	env.Go("user", func() {
		op := hardware.Op{Kind: hardware.Prefill, Model: model, Layers: hardware.Span{Hi: 8}, Seqs: []hardware.Seq{{ID: 1, New: 64}}}
		res, err := dev.Run(&op)
		if err != nil {
			fmt.Println(err)
			return
		}
		d, err := up.Send(res.Seqs[0].Hidden) // 64 tokens × 896 activations × 4 bytes
		fmt.Println(d.Payload.Bytes, d.Usage.End > res.Usage.End, err)
	})
	fmt.Println(env.Run())
	// Output:
	// 224 KiB true <nil>
	// <nil>
}
