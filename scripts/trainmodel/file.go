package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"

	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/quant"
	"meibench/reference/token"
	"meibench/workloads/tasks"
)

// writeModel writes the model with matrices in F16 and its tokenizer.
func writeModel(o options, r recipe, p *llm.Trainable, tok *token.Tokenizer) error {
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

// openModel reads model and tokenizer of a GGUF file.
func openModel(name string) (*llm.Model, *token.Tokenizer, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, err
	}
	f, err := gguf.Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, nil, err
	}
	kv := map[string]any{}
	for _, e := range f.KV {
		kv[e.Key] = e.Value
	}
	meta, err := token.FromMap(kv)
	if err != nil {
		return nil, nil, err
	}
	tok, err := token.New(meta)
	if err != nil {
		return nil, nil, err
	}
	m, err := llm.FromFile(f, llm.ReadOptions{})
	return m, tok, err
}

// evaluateFile measures a file by generating, as its users will.
func evaluateFile(w io.Writer, o options) error {
	m, tok, err := openModel(o.eval)
	if err != nil {
		return err
	}
	var scores []score
	var fault error
	cases(o.n, func(t tasks.Task, d tasks.Difficulty, instances []tasks.Instance) {
		outputs := make([]string, len(instances))
		var wait sync.WaitGroup
		errs := make([]error, o.threads)
		for thread := range o.threads {
			wait.Go(func() {
				work := m.NewWork(1)
				defer work.Close()
				for i := thread; i < len(instances) && errs[thread] == nil; i += o.threads {
					outputs[i], errs[thread] = answer(work, tok, instances[i].Prompt)
				}
			})
		}
		wait.Wait()
		s := score{task: t.Name, difficulty: d}
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
	report(w, scores)
	return fault
}

// answer is the model's greedy answer to a prompt.
func answer(w *llm.Work, tok *token.Tokenizer, prompt string) (string, error) {
	const most = 24 // tokens; the longest answers have 20
	ids := tok.EncodePrompt(prompt)
	c, err := w.Model.NewCache(0, w.Model.Layers, len(ids)+most)
	if err != nil {
		return "", err
	}
	out, err := w.Generate(c, ids, most, llm.Greedy, func(id int32) bool { return id == tok.EOS() })
	return tok.Decode(out), err
}
