package harness

import (
	"fmt"
	"math"
	"runtime"

	"meibench/hardware"
	"meibench/harness/learning"
	"meibench/harness/pipeline"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/train"
	"meibench/workloads"
	"meibench/workloads/tasks"
)

// trains reports whether a cell's pipeline trains something.
func (s *setup) trains() bool { _, ok := s.params["optimizer"]; return ok }

// job is what a cell's parameters say of its training.
func (s *setup) job(seed uint64) learning.Job {
	p := s.params
	j := learning.Job{
		Method: train.Method{Kind: p.Name("method"), Rank: p.Int("rank"), Alpha: p.Num("alpha"), Width: p.Int("width"), Tokens: p.Int("tokens"), From: p.Int("from"),
			Targets: map[string][]string{"qv": {"attn_q", "attn_v"}, "qv-down": {"attn_q", "attn_v", "ffn_down"}, "all": {"attn_", "ffn_gate", "ffn_up", "ffn_down"}}[p.Name("matrices")]},
		Base: p.Name("base"), Apps: []string{p.Name("data")}, Levels: p.Int("levels"), Samples: p.Int("samples"), Alpha: p.Num("dirichlet"),
		Clients: p.Int("clients"), Batch: p.Int("batch"), Recompute: p.Name("recompute") == "yes", Optimizer: p.Name("optimizer"), Rate: p.Num("learning_rate"), Probes: p.Int("probes"), Step: p.Num("epsilon"),
		Model: s.model.Digest, Rule: "fedavg", Server: 1, Robust: "mean", Code: "f32", Attack: "none", Seed: seed,
	}
	if j.Apps[0] == "mix" {
		j.Apps = nil
		for _, t := range tasks.HeldOut {
			j.Apps = append(j.Apps, t.Name)
		}
	}
	if _, ok := p["rule"]; ok {
		j.Rule, j.Spread, j.Mu, j.Server = p.Name("rule"), p.Name("ranks") == "spread", p.Num("mu"), p.Num("server_rate")
		j.Robust, j.Code, j.Bad, j.Attack, j.Noisy = p.Name("robust"), p.Name("code"), p.Num("bad"), p.Name("attack"), p.Num("noisy")
		j.Secure, j.Buffer = p.Name("secure") == "yes", p.Num("buffer") > 0
		j.Clip, j.Noise = p.Num("clip"), p.Num("noise")
	}
	if wire, ok := p["wire"]; ok {
		j.Wire = wire.(string)
	}
	return j
}

// Job is what parameters of pipeline federate say of training a model: for processes that train without a suite.
func Job(m *Model, p pipeline.Params, seed uint64) learning.Job {
	return (&setup{model: m, params: p}).job(seed)
}

// classOf sets up what a cell trains: the trainer where the model has weights, else its sizes.
func (s *setup) classOf(seed uint64) (pipeline.Class, *learning.School, error) {
	j := s.job(seed)
	cut, split := s.params["cut"].(float64)
	split = split && !s.pipe.Sizes // which decides on cuts itself
	c := learning.Cut{}
	if split {
		L, tail := s.model.Spec.Layers, s.params.Int("tail")
		c = learning.Cut{Lo: int(cut), Hi: L - tail, Tail: s.params.Name("labels") == "keep", Shared: s.params.Name("order") != "v1"}
	}
	var bounds []int
	if _, ok := s.params["stages"]; ok {
		var err error
		if bounds, err = pipeline.Bounds(s.model.Spec.Layers, s.params.Int("stages"), s.params.Int("bottom")); err != nil {
			return nil, nil, err
		}
	}
	if s.model.Weights == nil || s.pipe.Sizes {
		sizes := learning.NewSizes(j, shapeConfig(s.model.Spec), c)
		sizes.Bounds = bounds
		return sizes, nil, sizes.Check()
	}
	o := learning.Options{Hands: runtime.GOMAXPROCS(0), Threads: 1}
	if s.cell.Mode != "modelled" {
		o = learning.Options{Hands: 2, Threads: HostThreads()}
	}
	school, err := learning.New(j, s.model.Weights, s.model.Tok, o)
	if err == nil && split {
		err = school.Split(c)
	}
	if err == nil && bounds != nil {
		err = school.Stages(bounds, s.params.Int("micros"), s.params.Name("cache") == "yes")
	}
	return school, school, err
}

// shapeConfig is a shape as package llm has it.
func shapeConfig(m *hardware.Model) llm.Config {
	return llm.Config{Arch: m.Arch, Layers: m.Layers, Dim: m.Dim, Heads: m.Heads, KVHeads: m.KVHeads, HeadDim: m.HeadDim, FFN: m.FFN, Vocab: m.Vocab, Tied: m.Tied, Context: 1 << 12}
}

// progress is what a run of rounds has come to.
type progress struct {
	rounds      int
	took        float64 // seconds
	bytes       float64
	joules      float64
	known       bool // the joules
	up, down    units.Bytes
	base        float64 // score before the first round
	last        learning.Score
	reached     bool
	atRounds    int
	atTook      float64
	atBytes     float64
	atJoules    float64
	scoredAfter bool
}

// enrol sets up what is trained, where something is, and scores what training begins with.
func (t *trial) enrol() (err error) {
	if !t.arm.setup.trains() {
		return nil
	}
	if t.class, t.school, err = t.arm.setup.classOf(t.arm.seed); err != nil || t.school == nil || t.rush {
		return err
	}
	score, err := t.school.Score(tasks.Test, t.arm.setup.params.Int("score"))
	t.rounds.base = score.Exact
	return err
}

// learned scores a round where one is due, and adds it up. Scoring takes no time of the run.
func (t *trial) learned(_ *workloads.Request, log *record.Request) error {
	p, set := &t.rounds, t.arm.setup
	p.rounds++
	p.took += (log.Done - log.Intended).Seconds()
	p.up, p.down = p.up+log.UpBytes, p.down+log.DownBytes
	p.bytes += float64(log.UpBytes + log.DownBytes)
	if p.rounds == 1 {
		p.known = true
	}
	for _, e := range log.Energy {
		if e.Source != 0 && !e.Unknown {
			p.joules += float64(e.Joules)
		}
		p.known = p.known && !e.Unknown
	}
	every := set.params.Int("every")
	if t.school == nil || t.rush || p.rounds%every != 0 && p.rounds != t.planned {
		return nil
	}
	score, err := t.school.Score(tasks.Test, set.params.Int("score"))
	if err != nil {
		return fmt.Errorf("score round %d: %w", p.rounds, err)
	}
	p.last, p.scoredAfter = score, true
	log.Quality = score.Exact
	log.Count(record.HeldLossMicro, int64(math.Round(1e6*score.Loss)))
	if !p.reached && score.Exact >= set.params.Num("target") {
		p.reached, p.atRounds, p.atTook, p.atBytes, p.atJoules = true, p.rounds, p.took, p.bytes, p.joules
	}
	return nil
}

// lessons notes what a run of rounds has come to.
func (t *trial) lessons() error {
	p := &t.rounds
	if t.class == nil || p.rounds == 0 {
		return nil
	}
	n := float64(p.rounds)
	t.figure("round_up_bytes", float64(p.up)/n)
	t.figure("round_down_bytes", float64(p.down)/n)
	if trained, of := t.class.(interface{ Trained() (n, of int) }).Trained(); of > 0 {
		t.figure("train_share", float64(trained)/float64(of))
	}
	if t.school == nil {
		return nil
	}
	t.figure("score_base", p.base)
	if p.scoredAfter {
		t.figure("loss_final", p.last.Loss)
		t.figure("score_final", p.last.Exact)
		t.figure("worst_client", p.last.Worst)
	}
	if p.reached {
		t.figure("rounds", float64(p.atRounds))
		t.figure("target_time", p.atTook)
		t.figure("target_bytes", p.atBytes)
		if p.known && p.joules > 0 {
			t.figure("target_joules", p.atJoules)
		}
	}
	delta, _ := t.arm.setup.params["delta"].(float64)
	more, err := t.school.Figures(p.rounds, t.arm.setup.params.Int("steps"), delta)
	for name, v := range more {
		t.figure(name, v)
	}
	return err
}
