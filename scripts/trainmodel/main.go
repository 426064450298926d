// Trainmodel makes the reference models of this project from a seed: it trains
// the vocabulary and the model on generated tasks and measures what came out.
//
//	go run ./scripts/trainmodel -dir checkpoints -out reference/models
//	meibench eval --model reference/models/mei-nano.gguf
//
// The same seed and recipe give the same bytes on any number of threads on one
// kind of CPU. An interrupted run continues from its checkpoint.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"meibench/reference/token"
	"meibench/reference/train"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "trainmodel:", err)
		os.Exit(1)
	}
}

type options struct {
	model, dir, out   string
	checkpoint        string // file, in place of one in dir
	threads, n, steps int
	done              int // steps taken when the model is written
	every             time.Duration
}

func run(args []string) error {
	var o options
	f := flag.NewFlagSet("trainmodel", flag.ContinueOnError)
	f.StringVar(&o.model, "model", "all", "recipe to train")
	adapter := f.String("adapter", "", "train the LoRA adapter of an application on mei-base instead, or of all")
	f.StringVar(&o.dir, "dir", ".", "folder of the checkpoints, to resume from and to save to")
	f.StringVar(&o.out, "out", ".", "folder for the GGUF files")
	f.IntVar(&o.threads, "threads", runtime.NumCPU(), "threads; they do not change the result")
	f.IntVar(&o.n, "n", 200, "validation instances per task and level, measured at the end")
	f.IntVar(&o.steps, "steps", 0, "stop after this many steps in all (0: the recipe's)")
	f.DurationVar(&o.every, "every", time.Minute, "time between checkpoints")
	if err := f.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	if *adapter != "" {
		return adaptAll(*adapter, o)
	}
	if o.model == "all" {
		for _, name := range order() {
			o.model = name
			if err := trainOne(o); err != nil {
				return err
			}
		}
		return nil
	}
	return trainOne(o)
}

func trainOne(o options) error {
	r, err := lookup(o.model)
	if err != nil {
		return err
	}
	return fit(r, o)
}

func fit(r recipe, o options) error {
	meta, err := token.Train(vocabularyTexts(r.Seed), vocabulary, vocabularyPre)
	if err != nil {
		return err
	}
	tok, err := token.New(meta)
	if err != nil {
		return err
	}
	r.Shape.Vocab = tok.Len()
	s, err := resume(r, o)
	if err != nil {
		return err
	}
	l, err := train.NewLearner(s.params, o.threads)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d parameters, %d tokens, from step %d\n", r.Name, len(s.params.Flat), tok.Len(), s.opt.Adam.Steps)
	if err := steps(r, o, s, l, tok); err != nil {
		return err
	}
	brief(os.Stdout, measure(l, tok, o.n))
	o.done = s.opt.Adam.Steps
	return writeModel(o, r, s.params, tok)
}

// steps trains until the recipe, or -steps, is done.
func steps(r recipe, o options, s *state, l *train.Learner, tok *token.Tokenizer) error {
	ready := make(chan []train.Batch, 4) // the next steps' text is made while this one is computed
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(ready)
		for b := range r.stream(tok, s.opt.Adam.Steps) {
			select {
			case ready <- b:
			case <-stop:
				return
			}
		}
	}()
	saved, shown, loss := time.Now(), time.Now(), 0.0
	for b := range ready {
		if o.steps > 0 && s.opt.Adam.Steps >= o.steps {
			break
		}
		rate := r.rate(s.opt.Adam.Steps)
		now, grad := l.Gradient(b)
		norm := s.opt.Step(s.params, grad, rate)
		loss += 0.02 * (now - loss)
		if s.opt.Adam.Steps%100 == 0 {
			fmt.Printf("step %d loss %.4f norm %.2f rate %.5f %.0fs\n", s.opt.Adam.Steps, loss, norm, rate, time.Since(shown).Seconds())
			if s.opt.Adam.Steps%500 == 0 {
				brief(os.Stdout, measure(l, tok, 60))
			}
		}
		if s.opt.Adam.Steps == r.Keep {
			if err := s.save(o.keptFile(r.Name, r.Keep)); err != nil {
				return err
			}
		}
		if time.Since(saved) > o.every {
			if err := s.save(o.checkpointFile()); err != nil {
				return err
			}
			saved = time.Now()
		}
	}
	return s.save(o.checkpointFile())
}
