package main

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"meibench/reference/train"
)

// state is what a run needs to go on.
type state struct {
	recipe recipe // a checkpoint of another is refused
	params *train.Params
	opt    *train.Muon
}

// saved is a state in a file.
type saved struct {
	Recipe recipe
	Flat   []float32
	Opt    train.Muon
}

func (o options) checkpointFile() string {
	if o.checkpoint != "" {
		return o.checkpoint
	}
	return o.model + ".ckpt"
}

// resume loads the checkpoint if there is one, else starts afresh.
func resume(r recipe, o options) (*state, error) {
	p, err := train.New(r.Shape)
	if err != nil {
		return nil, err
	}
	p.Init(r.Seed)
	s := &state{recipe: r, params: p, opt: train.NewMuon(p, o.threads)}
	s.opt.Adam.Decay = r.Decay
	f, err := os.Open(o.checkpointFile())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	var in saved
	if err := gob.NewDecoder(f).Decode(&in); err != nil {
		return nil, fmt.Errorf("resume from %s: %w", f.Name(), err)
	}
	if !continues(in.Recipe, r, in.Opt.Adam.Steps) || len(in.Flat) != len(p.Flat) {
		return nil, fmt.Errorf("resume from %s: it was made by another recipe; delete it or give another -checkpoint", f.Name())
	}
	copy(p.Flat, in.Flat)
	s.opt.Adam, s.opt.M = in.Opt.Adam, in.Opt.M
	return s, nil
}

// continues reports whether two recipes agree on everything up to a step.
func continues(a, b recipe, step int) bool {
	if step <= min(a.Hold, b.Hold) {
		a.Hold, a.Steps = b.Hold, b.Steps
	}
	return fmt.Sprint(a) == fmt.Sprint(b)
}

// save replaces the checkpoint in one step, so that a crash leaves the old one.
func (s *state) save(name string) error {
	f, err := os.Create(name + ".new")
	if err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	err = errors.Join(gob.NewEncoder(f).Encode(saved{s.recipe, s.params.Flat, *s.opt}), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	return os.Rename(name+".new", name)
}
