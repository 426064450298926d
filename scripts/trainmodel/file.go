package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"meibench/reference/gguf"
	"meibench/reference/quant"
	"meibench/reference/token"
	"meibench/reference/train"
)

// writeModel writes the model with matrices in F16 and its tokenizer.
func writeModel(o options, r recipe, p *train.Params, tok *token.Tokenizer) error {
	half, err := p.Model.As(quant.F16)
	if err != nil {
		return err
	}
	meta := []gguf.KV{
		{Key: "general.name", Value: r.Name},
		{Key: "general.description", Value: fmt.Sprintf("meibench reference model, trained from seed %d for %d of %d steps", r.Seed, o.done, r.Steps)},
	}
	kv := tok.Metadata().Map()
	keys := make([]string, 0, len(kv))
	for k := range kv {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		meta = append(meta, gguf.KV{Key: k, Value: kv[k]})
	}
	var b bytes.Buffer
	if err := half.Write(&b, meta...); err != nil {
		return err
	}
	name := filepath.Join(o.out, r.Name+".gguf")
	fmt.Printf("wrote %s: %d bytes\n", name, b.Len())
	return os.WriteFile(name, b.Bytes(), 0o644)
}
