package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"meibench/reference/models"
	"meibench/reference/token"
	"meibench/reference/train"
	"meibench/workloads/tasks"
)

// tuning is everything that decides the bytes of an adapter.
type tuning struct {
	Base        string
	Seed        uint64
	Rank        int
	Alpha       float64
	Targets     []string
	Steps       int
	Sequences   int // per step
	WarmUp      int
	Peak, Floor float64 // learning rates
}

// adapting is the recipe of all adapters: one an application, on the lessons of that application alone.
var adapting = tuning{Base: "mei-base", Seed: 1, Rank: 4, Alpha: 8, Targets: []string{"attn_q", "attn_v", "ffn_down"},
	Steps: 400, Sequences: 32, WarmUp: 20, Peak: 5e-3, Floor: 2e-5}

// adaptAll trains the adapter of an application, or of each.
func adaptAll(app string, o options) error {
	found := false
	for i, t := range tasks.Table {
		if app == "all" || app == t.Name {
			found = true
			if err := adapt(adapting, i, o); err != nil {
				return fmt.Errorf("adapter of %s: %w", t.Name, err)
			}
		}
	}
	if !found {
		return fmt.Errorf("train adapter: unknown application %q", app)
	}
	return nil
}

// adapt trains one adapter and writes it.
func adapt(a tuning, task int, o options) error {
	base, err := models.Open(a.Base)
	if err != nil {
		return err
	}
	p, err := train.From(base.Model)
	if err != nil {
		return err
	}
	name := tasks.Table[task].Name
	l, err := train.NewLoRA(p.Model.Config, a.Rank, a.Alpha, a.Seed, a.Targets...)
	if err != nil {
		return err
	}
	t, err := train.NewTuner(p, l, o.threads)
	if err != nil {
		return err
	}
	fmt.Printf("%s on %s: %d of %d parameters\n", name, a.Base, len(l.Flat), len(p.Flat))
	steps := a.Steps
	if o.steps > 0 {
		steps = min(steps, o.steps)
	}
	r := recipe{Seed: a.Seed + 1, Mix: []int{task}, Sequences: a.Sequences} // lessons that the base did not begin with
	loss := 0.0
	for step := range steps {
		now, err := t.Step(r.lessons(base.Tokenizer, step), train.Cosine(step, a.WarmUp, a.Steps, a.Peak, a.Floor))
		if err != nil {
			return err
		}
		if loss += 0.05 * (now - loss); step%50 == 49 {
			fmt.Printf("step %d loss %.4f\n", step+1, loss)
		}
	}
	if o.n > 0 {
		if err := compare(p, t.Merged(), base.Tokenizer, o, name); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	if err := l.Write(&b, string(p.Model.Arch)); err != nil {
		return err
	}
	file := filepath.Join(o.out, adapterFile(a.Base, name))
	fmt.Printf("wrote %s: %d bytes\n", file, b.Len())
	return os.WriteFile(file, b.Bytes(), 0o644)
}

func adapterFile(base, app string) string { return base + "-" + app + ".lora.gguf" }

// Every easy-th sequence of an adapter's step is of any level, the others are of level hard or more.
const (
	easy = 8
	hard = 4
)

// lessons are the batches of a step.
func (r recipe) lessons(tok *token.Tokenizer, step int) []train.Batch {
	batches := make([]train.Batch, (r.Sequences+batchSize-1)/batchSize)
	for i := range r.Sequences {
		lesson := r.lesson(step*r.Sequences + i)
		for try := 1; i%easy != 0 && lesson[0].Level < hard; try++ { // what the base has still to learn
			lesson = r.lesson(step*r.Sequences + i + try<<24)
		}
		addLesson(&batches[i/batchSize], tok, lesson)
	}
	return batches
}

// compare prints the validation scores of base and adapter.
func compare(base, tuned *train.Params, tok *token.Tokenizer, o options, name string) error {
	for _, p := range []*train.Params{base, tuned} {
		l, err := train.NewLearner(p, o.threads)
		if err != nil {
			return err
		}
		own := slices.DeleteFunc(measure(l, tok, o.n), func(s score) bool { return !strings.EqualFold(s.task, name) })
		brief(os.Stdout, own)
	}
	return nil
}
