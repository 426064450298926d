package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"

	"meibench/reference/gguf"
	"meibench/reference/models"
	"meibench/reference/quant"
	"meibench/reference/token"
	"meibench/reference/train"
	"meibench/workloads/tasks"
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
	name := o.out
	if name == "" {
		name = r.Name + ".gguf"
	}
	fmt.Printf("wrote %s: %d bytes\n", name, b.Len())
	return os.WriteFile(name, b.Bytes(), 0o644)
}

const answerMax = 24 // tokens; the longest answers have under 20

// evaluateFile measures a file by generating, as its users will.
func evaluateFile(w io.Writer, o options) error {
	m, err := models.Load(o.eval)
	if err != nil {
		return err
	}
	var scores []score
	var fault error
	cases(reportSeed, o.n, func(t tasks.Task, d tasks.Difficulty, instances []tasks.Instance) {
		outputs := make([]string, len(instances))
		var wait sync.WaitGroup
		errs := make([]error, o.threads)
		for thread := range o.threads {
			wait.Go(func() {
				work := m.Model.NewWork(1)
				defer work.Close()
				for i := thread; i < len(instances) && errs[thread] == nil; i += o.threads {
					outputs[i], errs[thread] = m.Answer(work, instances[i].Prompt, answerMax)
				}
			})
		}
		wait.Wait()
		s := newScore(t, d, instances)
		for i, in := range instances {
			s.add(t.Score(in, outputs[i]), tasks.Exact(in, outputs[i]))
		}
		for _, e := range errs {
			if e != nil {
				fault = e
			}
		}
		scores = append(scores, s)
	})
	fmt.Fprintf(w, "%s: %d parameters, sha256 %s, greedy decoding, seed %d of the test splits\n\n", m.Name, m.Model.TotalParams(), m.SHA256, reportSeed)
	report(w, scores)
	return fault
}
