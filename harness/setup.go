package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/harness/eval"
	"meibench/harness/pipeline"
	"meibench/harness/results"
	"meibench/internal/units"
	"meibench/reference/library"
	"meibench/reference/models"
	"meibench/reference/quant"
	"meibench/reference/refine"
	"meibench/reference/token"
	"meibench/suites"
	"meibench/workloads"
	"meibench/workloads/tasks"
)

// setup is a cell with its names resolved.
type setup struct {
	cell     suites.Cell
	model    *Model
	work     *workloads.Workload
	trace    *recorded       // nil unless the cell replays one
	own      *workloads.File // the application, where it is a file
	pipe     pipeline.Entry
	params   pipeline.Params
	small    *Model                 // nil unless the pipeline uses one
	library  *library.Library       // nil unless the cell names one
	content  func(block int) []byte // of the library; nil: sizes only
	site     *profiles.SiteSheet
	contract results.Contract
	hash     string
}

// resolve looks every name of a cell up and checks that the cell can run here.
func (l *Lab) resolve(c suites.Cell, quick bool) (*setup, error) {
	s := &setup{cell: c}
	var err error
	if s.model, err = l.Model(c.Model); err != nil {
		return nil, err
	}
	if s.pipe, err = pipeline.Find(c.Pipeline); err != nil {
		return nil, err
	}
	if s.params, err = s.pipe.Resolve(c.Params); err != nil {
		return nil, err
	}
	if err := l.pair(s); err != nil {
		return nil, err
	}
	if err := l.stock(s); err != nil {
		return nil, err
	}
	if s.site, err = l.findSite(c.Site); err != nil {
		return nil, err
	}
	if s.site, err = l.withAgents(s.site, c.Mode); err != nil {
		return nil, err
	}
	if err := l.furnish(s.site); err != nil {
		return nil, err
	}
	if err := s.fits(); err != nil {
		return nil, err
	}
	if isPath(c.App) {
		if s.own, err = workloads.LoadFile(c.App); err != nil {
			return nil, err
		}
	}
	if c.Trace != "" {
		if s.trace, err = l.traces.get(c.Trace, func() (*recorded, error) { return readTrace(c.Trace) }); err != nil {
			return nil, err
		}
		s.cell.Scenario = string(workloads.Replay)
	}
	if s.work, err = s.workload(c.Requests); err != nil {
		return nil, err
	}
	if err := s.findable(); err != nil {
		return nil, err
	}
	if s.contract, err = s.terms(quick); err != nil {
		return nil, err
	}
	s.hash, err = s.contract.Hash()
	return s, err
}

// pair finds the small model of a pipeline that uses two.
func (l *Lab) pair(s *setup) (err error) {
	if !s.pipe.Two {
		return nil
	}
	if s.cell.Small == "" {
		return fmt.Errorf("pipeline %q needs a small model too: set small: to a model that shares the tokenizer of %q", s.cell.Pipeline, s.cell.Model)
	}
	if s.small, err = l.Model(s.cell.Small); err != nil {
		return err
	}
	if a, b := s.model.Spec.Vocab, s.small.Spec.Vocab; a != b {
		return fmt.Errorf("small model %q has %d tokens, model %q has %d: they must share a tokenizer", s.cell.Small, b, s.cell.Model, a)
	}
	if (s.model.Tok == nil) != (s.small.Tok == nil) {
		return fmt.Errorf("models %q and %q: one has weights and the other is only a shape", s.cell.Model, s.cell.Small)
	}
	return nil
}

// stock builds the library that the cell names, around its model.
func (l *Lab) stock(s *setup) (err error) {
	if s.cell.Library == "" {
		return nil
	}
	if !slices.ContainsFunc(s.pipe.Params, func(p pipeline.Param) bool { return p.Name == "zipf" }) {
		return fmt.Errorf("library %q: pipeline %q asks for no models: leave the key library out", s.cell.Library, s.cell.Pipeline)
	}
	if s.cell.Library == shippedLibrary {
		return s.shipped()
	}
	if s.cell.Mode == "measured" || s.cell.Mode == "emulated" {
		return fmt.Errorf("library %q runs modelled, mode %s sends real bytes: use library: %s", s.cell.Library, s.cell.Mode, shippedLibrary)
	}
	if s.cell.Library == planesLibrary {
		s.library, err = l.planes.get(s.cell.Model, func() (*library.Library, error) { return planes(s.cell.Model) })
		return err
	}
	if libraryFile(s.cell.Library) {
		s.library, err = library.Load(s.cell.Library)
		return err
	}
	if s.library, err = library.Build(s.cell.Library, shapeOf(s.model.Spec)); err != nil {
		err = fmt.Errorf("%w; meibench list libraries says what there is", err)
	}
	return err
}

// libraryFile reports whether a name is that of a file.
func libraryFile(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

// Library is what a name stands for without a cell: a file, or a library of a shape built around a model; those of real bytes with it.
func Library(name, model string) (*library.Library, error) {
	switch {
	case libraryFile(name):
		return library.Load(name)
	case name == shippedLibrary:
		l, _, err := models.Library()
		return l, err
	case name == planesLibrary:
		return planes(model)
	}
	m, err := profiles.Model(model)
	if err != nil {
		return nil, err
	}
	return library.Build(name, shapeOf(m))
}

// Libraries lists the names that library: takes, each with what it is.
func Libraries() [][2]string {
	return append(library.Kinds(), [2]string{planesLibrary, "one shipped model whose weights come in planes of bits, coarse ones first, each rung scored by exact match"},
		[2]string{shippedLibrary, "mei-base with the adapters that this project trained, real bytes with digests; the only one that runs measured"})
}

// shippedLibrary is the library of real bytes: mei-base with the adapters that come with the program.
const shippedLibrary = "shipped"

// planesLibrary is a shipped model whose weights come in planes of bits, each rung with its score.
const planesLibrary = "planes"

// planeAnswers is how many validation questions of each application and difficulty a rung answers.
const planeAnswers = 50

// usable is the share of the whole model's score below which a rung is not offered as a model: the upper two bits of mei-nano in
// q4_0, or of K types, answer next to nothing.
const usable = 0.5

// planes is the library of a shipped model.
func planes(name string) (*library.Library, error) {
	data, err := models.Bytes(name)
	if err != nil {
		return nil, fmt.Errorf("library %s: only shipped models are cut: %w", planesLibrary, err)
	}
	whole, err := models.Open(name)
	if err != nil {
		return nil, err
	}
	return planesOf(name, data, whole.Tokenizer)
}

// planesOf cuts a file into planes of bits (reference/refine) and scores what each rung of them answers: exact match of greedy
// answers on questions of the validation split, over all applications and levels. Rungs that answer too little are left out.
func planesOf(name string, data []byte, tok *token.Tokenizer) (*library.Library, error) {
	ladder, err := refine.Cut(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	var a *refine.Assembly
	scores := make([]float64, 0, ladder.Rungs)
	for i := range ladder.Pieces {
		piece, err := ladder.Data(i)
		if err == nil && i == 0 {
			a, err = refine.Assemble(piece, units.GiB)
		} else if err == nil {
			err = a.Add(i, piece)
		}
		if err != nil {
			return nil, err
		}
		if a.Rung() < len(scores) {
			continue
		}
		m, err := a.Model()
		if err != nil {
			return nil, err
		}
		score, err := exactMatch(&models.Loaded{Name: name, Model: m, Tokenizer: tok})
		if err != nil {
			return nil, err
		}
		scores = append(scores, score)
	}
	lib, err := ladder.Library(name, scores)
	if err != nil {
		return nil, err
	}
	lib.Models[0].Offer(usable)
	return lib, lib.Check()
}

// exactMatch is the share of validation questions, easy and hard ones of every application, that a model answers right.
func exactMatch(m *models.Loaded) (float64, error) {
	r, err := eval.Tasks(context.Background(), eval.NewLocal(m, 1), eval.Options{Split: tasks.Validation, N: planeAnswers, Seed: luckSeed})
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, app := range r.Applications {
		sum += app.Exact.Value
	}
	return sum / float64(len(r.Applications)), nil
}

func (s *setup) shipped() (err error) {
	if s.cell.Model != models.AdapterBase {
		return fmt.Errorf("library %q has adapters on %s, the cell's model is %q", shippedLibrary, models.AdapterBase, s.cell.Model)
	}
	s.library, s.content, err = models.Library()
	return err
}

// leastBits is how many bits of a weight a coarse model of a shape has at least. Two of four are worth a model in some files and none in
// others (mei-base in q4_0 answers 77 % right instead of 87 %, mei-nano less than half): where nobody can measure it, it is not offered.
const leastBits = 3

// shapeOf is what a library needs to know of a model.
func shapeOf(m *hardware.Model) library.Shape {
	at := func(lo, hi int) units.Bytes { return m.WeightBytes(hardware.Span{Lo: lo, Hi: hi}) }
	tuned := *m
	tuned.LoRARank = pipeline.AdapterRank
	s := library.Shape{Name: m.Name, Layers: m.Layers, Embed: at(0, 0), Adapter: tuned.AdapterBytes(m.All())}
	s.Layer = at(0, 1) - s.Embed
	if !m.Tied {
		s.Head = at(m.Layers, m.Layers)
	}
	if t, err := quant.Parse(m.Quant); err == nil {
		if share, bits, _ := refine.Coarse(t); bits >= leastBits {
			s.Coarse = share
		}
	}
	if m.Experts > 0 {
		s.Experts, s.Expert = m.Experts, units.Bytes(3*float64(m.Dim)*float64(m.FFN)*m.BytesPerWeight)
		s.Layer -= units.Bytes(m.Experts) * s.Expert
	}
	return s
}

// data names what besides the workload decides which requests there are.
func (s *setup) data() map[string]string {
	d := map[string]string{}
	if s.trace != nil {
		d["trace"] = s.trace.digest
	}
	if s.library != nil {
		d["library"] = s.library.Digest()
		d["demand"] = pipeline.DemandText(s.params)
	}
	if len(d) == 0 {
		return nil
	}
	return d
}

// models are those of the cell as pipelines know them.
func (s *setup) models(seed uint64, router func(*workloads.Request) float64) pipeline.Models {
	m := pipeline.Models{Main: s.model.Spec, Router: router, Library: s.library, Content: s.content, Seed: seed}
	if s.small != nil {
		m.Small = s.small.Spec
	}
	return m
}

// labels are the parameters of the cell as records show them: those of the
// pipeline, and what else tells cells of one application and pipeline apart.
func (s *setup) labels() map[string]any {
	p := maps.Clone(map[string]any(s.params))
	if p == nil {
		p = map[string]any{}
	}
	for k, v := range map[string]float64{"rtt": s.cell.RTT, "mbps": s.cell.Mbps, "rate": s.cell.Rate, "pool": float64(s.cell.Pool), "preamble": float64(s.cell.Preamble)} {
		if v > 0 {
			p[k] = v
		}
	}
	if s.small != nil {
		p["small"] = s.cell.Small
	}
	if s.library != nil {
		p["library"] = s.cell.Library
	}
	if s.cell.Find != nil {
		p["find"] = "capacity"
	}
	return p
}

// fits refuses a cell whose mode its model or site cannot serve.
func (s *setup) fits() error {
	if err := s.fitsServers(); err != nil {
		return err
	}
	if err := s.fitsAgents(); err != nil {
		return err
	}
	if s.site.Cells != nil && (s.cell.Mode != "modelled" || s.cell.RTT > 0 || s.cell.Mbps > 0) {
		return fmt.Errorf("site %q has cells: mode modelled only, and no rtt or mbps of a link", s.site.Name)
	}
	kernels := s.cell.Mode == "measured" || s.cell.Mode == "emulated"
	if (kernels || s.cell.Scale == "task") && s.model.Tok == nil {
		return fmt.Errorf("model %q is only a shape: mode %s at %s scale runs prompts and needs weights (have %s, or give a GGUF file; --set scale=field with --mode modelled needs lengths only)",
			s.cell.Model, s.cell.Mode, s.cell.Scale, strings.Join(shipped(), ", "))
	}
	if kernels && s.cell.Scale != "task" {
		return fmt.Errorf("mode %s runs real prompts: scale must be task, not %s", s.cell.Mode, s.cell.Scale)
	}
	if s.cell.Mode == "measured" {
		for _, p := range s.site.Nodes {
			if p.Device != profiles.Host && p.Served == nil && p.Agent == nil && p.Device != "" {
				return fmt.Errorf("mode measured runs on this machine, but node %q of site %q is a %s (use site this-machine, or mode emulated or modelled)",
					p.Name, s.site.Name, p.Device)
			}
		}
	}
	return nil
}

// workload is the stream of requests that the cell offers.
func (s *setup) workload(requests int) (*workloads.Workload, error) {
	spec := workloads.Spec{App: s.cell.App, Scenario: workloads.Scenario(s.cell.Scenario), Scale: workloads.Scale(s.cell.Scale),
		Rate: s.cell.Rate, Users: s.cell.Users, Requests: requests, Day: s.cell.Day, Pool: s.cell.Pool, Preamble: s.cell.Preamble, Context: contextOf(s.model)}
	deps := workloads.Deps{}
	if s.own != nil {
		spec.App, deps.App = s.own.App.Name, &s.own.App
	}
	if s.trace != nil {
		deps.Trace = s.trace.Trace
	}
	if s.model.Tok != nil {
		deps.Tokenizer = s.model.Tok
	}
	return workloads.New(spec, deps)
}

func contextOf(m *Model) int {
	if m.Weights != nil {
		return m.Weights.Context
	}
	return 0
}

// terms are what must be equal for two runs of this cell to be compared.
func (s *setup) terms(quick bool) (results.Contract, error) {
	canonical, err := s.work.Canonical()
	if err != nil {
		return results.Contract{}, err
	}
	var workload map[string]any
	if err := json.Unmarshal(canonical, &workload); err != nil {
		return results.Contract{}, err
	}
	if f := s.cell.Find; f != nil {
		workload["find"] = map[string]any{"capacity": map[string]any{"share": f.Share, "within": f.Within, "seeds": f.Seeds}}
	}
	l := s.work.Limits()
	c := results.Contract{
		Workload: workload, Model: s.model.Digest, Mode: s.cell.Mode, Quick: quick, Definitions: []string{"meibench/v1"},
		Limits: map[string]int64{"ttft_ns": int64(l.TTFT.Duration()), "tpot_ns": int64(l.TPOT.Duration()), "e2e_ns": int64(l.E2E.Duration())},
	}
	if s.model.Tok != nil {
		c.Tokenizer = s.model.Digest // the tokenizer is in the model's file
	}
	c.Data = s.data()
	return c, servedTerms(&c, s.site)
}
