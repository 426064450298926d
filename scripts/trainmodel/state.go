package main

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
	return filepath.Join(o.dir, o.model+".ckpt")
}

// keptFile is where a run keeps the checkpoint that others begin with: beside
// this run's own.
func (o options) keptFile(model string, step int) string {
	return filepath.Join(filepath.Dir(o.checkpointFile()), fmt.Sprintf("%s-%d.ckpt", model, step))
}

// resume loads the checkpoint if there is one, else that of the recipe to begin
// with, else starts afresh.
func resume(r recipe, o options) (*state, error) {
	p, err := train.New(r.Shape)
	if err != nil {
		return nil, err
	}
	p.Init(r.Seed)
	s := &state{recipe: r, params: p, opt: train.NewMuon(p, o.threads)}
	s.opt.Adam.Decay = r.Decay
	in, err := load(o.checkpointFile())
	switch {
	case errors.Is(err, fs.ErrNotExist) && r.From != "":
		return s, s.begin(o)
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return nil, err
	}
	if !continues(in.Recipe, r, in.Opt.Adam.Steps) || len(in.Flat) != len(p.Flat) {
		return nil, fmt.Errorf("resume from %s: it was made by another recipe; delete it or give another -dir", o.checkpointFile())
	}
	copy(p.Flat, in.Flat)
	s.opt.Adam, s.opt.M = in.Opt.Adam, in.Opt.M
	return s, nil
}

func load(name string) (*saved, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var in saved
	if err := gob.NewDecoder(f).Decode(&in); err != nil {
		return nil, fmt.Errorf("read checkpoint %s: %w", name, err)
	}
	return &in, nil
}

// begin grows the model that the recipe begins with, and its moments.
func (s *state) begin(o options) error {
	name := o.keptFile(s.recipe.From, s.recipe.FromStep)
	in, err := load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("begin with step %d of %s: no file %s: train %s first, in the same folder", s.recipe.FromStep, s.recipe.From, name, s.recipe.From)
	} else if err != nil {
		return err
	}
	from, err := train.New(in.Recipe.Shape)
	if err != nil {
		return err
	}
	if in.Recipe.Name != s.recipe.From || in.Opt.Adam.Steps != s.recipe.FromStep || len(in.Flat) != len(from.Flat) {
		return fmt.Errorf("begin with step %d of %s: %s holds step %d of %s", s.recipe.FromStep, s.recipe.From, name, in.Opt.Adam.Steps, in.Recipe.Name)
	}
	copy(from.Flat, in.Flat)
	adam := in.Opt.Adam
	s.opt.Adam.Steps = adam.Steps
	return errors.Join(s.params.Grow(from), s.params.Spread(s.opt.M, from, in.Opt.M),
		s.params.Spread(s.opt.Adam.M, from, adam.M), s.params.Spread(s.opt.Adam.V, from, adam.V))
}

// continues reports whether two recipes agree on everything up to a step.
func continues(a, b recipe, step int) bool {
	if step <= min(a.Hold, b.Hold) {
		a.Hold, a.Steps = b.Hold, b.Steps
	}
	if (a.LateFrom == 0 || step <= a.LateFrom) && (b.LateFrom == 0 || step <= b.LateFrom) {
		a.Late, a.LateFrom = b.Late, b.LateFrom
	}
	if step <= min(a.Keep, b.Keep) {
		a.Keep = b.Keep
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
