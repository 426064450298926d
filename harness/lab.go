package harness

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"meibench/hardware"
	"meibench/hardware/agent"
	"meibench/hardware/costmodel"
	"meibench/hardware/endpoint"
	"meibench/hardware/kernel"
	"meibench/hardware/profiles"
	"meibench/harness/eval"
	"meibench/harness/field"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/host"
	"meibench/reference/library"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/panel"
	"meibench/reference/tensor"
	"meibench/reference/token"
	"meibench/suites"
	"meibench/workloads"
	"meibench/workloads/traces"
)

// Lab resolves the names of a suite to things, each once. What it keeps may be
// asked for by cells that run side by side.
type Lab struct {
	// Host is the profile of this machine, which modelled cells of sites with
	// host nodes need. Measure is called once if it is nil then.
	Host    *profiles.DeviceSheet
	Measure func(models []*Model) (*profiles.DeviceSheet, error)
	// Sites are sites by name that are in no file.
	Sites map[string]*profiles.SiteSheet
	// Agents take the place of the nodes of these names in measured cells.
	Agents map[string]profiles.Agent
	// Timings keeps what operations took in runs of every mode (package ops); of
	// measured cells it is kept anyhow.
	Timings bool
	// Version is this program's, for agents.
	Version string

	models  kept[*Model]
	planes  kept[*library.Library]
	devices kept[*profiles.DeviceSheet]
	traces  kept[*recorded]
	links   kept[*profiles.LinkSheet]
	luck    kept[costmodel.Luck]
	leaks   kept[eval.Leak] // by model, application, cut and codec
	routers kept[func(*workloads.Request) float64]
	clients kept[*endpoint.Client]
	known   map[string]agent.Known // by address; only measured cells, which run alone, have agents
}

// Model is a model by name: always a shape, for models with weights at hand
// also these and a tokenizer.
type Model struct {
	Spec    *hardware.Model
	Weights *llm.Model       // nil if only the shape is known
	Tok     *token.Tokenizer // nil likewise
	Digest  string           // SHA-256 of the file; of the profile if there is no file
}

// loaded is the model as a kernel device takes it.
func (m *Model) loaded() kernel.Loaded {
	end := int32(-1)
	if m.Tok != nil {
		end = m.Tok.EOS()
	}
	return kernel.Loaded{Spec: m.Spec, Weights: m.Weights, End: end}
}

// Model finds a model: one that the project ships, a GGUF file (a name with a
// path separator or ending in .gguf), or the shape of a profile.
func (l *Lab) Model(name string) (*Model, error) {
	return l.models.get(name, func() (*Model, error) { return findModel(name) })
}

func findModel(name string) (*Model, error) {
	for _, e := range models.Table {
		if e.Name == name {
			m, err := models.Open(name)
			if err != nil {
				return nil, err
			}
			return whole(name, m)
		}
	}
	if isPath(name) || strings.HasSuffix(name, ".gguf") {
		m, err := models.Load(name)
		if err != nil {
			return nil, err
		}
		return whole(filepath.Base(name), m)
	}
	spec, err := profiles.Model(name)
	if err != nil {
		return nil, fmt.Errorf("model %q is not one that meibench ships (%s): %w", name, strings.Join(shipped(), ", "), err)
	}
	return &Model{Spec: spec, Digest: spec.Digest}, nil
}

// isPath tells a file from a name.
func isPath(name string) bool {
	return strings.ContainsRune(name, os.PathSeparator) || strings.HasSuffix(name, ".yaml")
}

func shipped() (names []string) {
	for _, e := range models.Table {
		names = append(names, e.Name)
	}
	return names
}

func whole(name string, m *models.Loaded) (*Model, error) {
	spec := Shape(name, m.Model)
	spec.Digest, spec.End = m.SHA256, m.Tokenizer.EOS()
	return &Model{Spec: spec, Weights: m.Model, Tok: m.Tokenizer, Digest: m.SHA256}, spec.Validate()
}

// Shape is what hardware needs to know of loaded weights. Bytes per weight are
// those of the layers' matrices on average; KV caches are F32 here.
func Shape(name string, m *llm.Model) *hardware.Model {
	c := m.Config
	spec := &hardware.Model{Name: name, Arch: string(c.Arch), Layers: c.Layers, Dim: c.Dim, Heads: c.Heads, KVHeads: c.KVHeads,
		HeadDim: c.HeadDim, FFN: c.FFN, Vocab: c.Vocab, Tied: c.Tied, KVBytes: 4, BytesPerWeight: 4}
	var bytes, weights float64
	for _, w := range m.Weights() {
		if w.Matrix != nil && strings.HasPrefix(w.Name, "blk.") {
			bytes += float64(w.Matrix.Bytes())
			weights += float64(w.N) * float64(w.K)
		}
	}
	if m.Lo < m.Hi {
		spec.Quant = strings.ToLower(fmt.Sprint(m.Blocks[m.Lo].Q.Type))
	}
	if weights > 0 {
		spec.BytesPerWeight = bytes / weights
	}
	return spec
}

// findSite finds a site; the files that a site file names are beside it.
func (l *Lab) findSite(name string) (*profiles.SiteSheet, error) {
	if s, ok := l.Sites[name]; ok {
		return s, nil
	}
	if !isPath(name) {
		return profiles.Site(name)
	}
	s, err := profiles.LoadSite(name)
	if err != nil {
		return nil, err
	}
	beside := func(file string) string {
		if isPath(file) && !filepath.IsAbs(file) {
			return filepath.Join(filepath.Dir(name), file)
		}
		return file
	}
	for i := range s.Nodes {
		s.Nodes[i].Device = beside(s.Nodes[i].Device)
		for k, file := range s.Nodes[i].Others {
			s.Nodes[i].Others[k] = beside(file)
		}
		if a := s.Nodes[i].Agent; a != nil {
			moved := a.Beside(filepath.Dir(name))
			s.Nodes[i].Agent = &moved
		}
	}
	for i := range s.Links {
		s.Links[i].Link = beside(s.Links[i].Link)
	}
	return s, nil
}

// furnish checks that all that a site names exists.
func (l *Lab) furnish(s *profiles.SiteSheet) error {
	for _, p := range s.Kinds() {
		if p.Device == profiles.Host || p.Device == "" {
			continue
		}
		if _, err := l.device(p.Device); err != nil {
			return fmt.Errorf("site %q, node %q: %w", s.Name, p.Name, err)
		}
	}
	for _, w := range s.Links {
		if w.Link == profiles.RealLink {
			continue
		}
		if _, err := l.link(w.Link); err != nil {
			return fmt.Errorf("site %q, link %s to %s: %w", s.Name, w.From, w.To, err)
		}
	}
	if s.Cells != nil {
		_, err := field.New(s, l.link)
		return err
	}
	return nil
}

// Check resolves every cell of a suite and runs none: the first name that does
// not exist, or mode that a site does not offer, is the error.
func (l *Lab) Check(s *suites.Suite) error {
	for _, c := range s.Cells {
		if _, err := l.resolve(c, false); err != nil {
			return &InputError{fmt.Errorf("suite %s, cell %s: %w", s.Name, c.Name, err)}
		}
	}
	return nil
}

// CheckSite resolves all that a site file names.
func (l *Lab) CheckSite(path string) error {
	s, err := l.findSite(path)
	if err != nil {
		return err
	}
	return l.furnish(s)
}

// recorded is a trace and what identifies it.
type recorded struct {
	*traces.Trace
	digest string // SHA-256 of its canonical form
}

func readTrace(path string) (*recorded, error) {
	t, err := traces.Open(path, traces.Options{Seed: 1})
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	if err := t.WriteCSV(sum); err != nil {
		return nil, err
	}
	return &recorded{t, hex.EncodeToString(sum.Sum(nil))}, nil
}

// manifest describes the run to come.
func (l *Lab) manifest(o Options, arms []*arm) (results.Manifest, error) {
	here := host.Here()
	m := results.Manifest{Command: o.Command, Expected: len(arms), Quick: o.Quick, Started: o.Now(),
		Commit: here.Commit, GoVersion: here.GoVersion, GOARCH: here.GOARCH, GOAMD64: here.GOAMD64, CPU: here.CPU,
		Kernel: here.Kernel, Governor: here.Governor, Host: here.More(),
		Profiles: map[string]string{}, Models: map[string]string{}}
	m.Host["kernels"], m.Host["integer_kernels"] = tensor.Kernel(), panel.IntegerKernel(tensor.Kernel())
	var text, hash []string
	for _, s := range o.Suites {
		text, hash = append(text, string(s.Text)), append(hash, s.Hash)
	}
	m.Suite, m.SuiteHash = strings.Join(text, "\n---\n"), strings.Join(hash, "+")
	distinct := map[string]results.Contract{}
	for _, a := range arms {
		l.digests(a.setup, m.Models, m.Profiles)
		distinct[a.setup.hash] = a.setup.contract
		if seed := fmt.Sprint(a.seed); !slices.Contains(m.Seeds, seed) {
			m.Seeds = append(m.Seeds, seed)
		}
	}
	keys := make([]string, 0, len(distinct))
	for k := range distinct {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		m.Contracts = append(m.Contracts, distinct[k])
	}
	sum := sha256.Sum256([]byte(strings.Join(keys, "\n")))
	m.Contract = hex.EncodeToString(sum[:])
	var err error
	m.Endpoints, err = l.endpoints(arms)
	return m, err
}

// digests adds those of the models and profiles of a cell.
func (l *Lab) digests(s *setup, models, sheets map[string]string) {
	if name := servedModel(s.site); name != "" {
		models[name] = "served"
	} else {
		models[s.cell.Model] = s.model.Digest
	}
	if s.small != nil {
		models[s.cell.Small] = s.small.Digest
	}
	sheets["site "+s.site.Name] = s.site.Digest()
	for _, p := range s.site.Kinds() {
		if d, err := l.device(p.Device); err == nil {
			sheets["device "+p.Device] = d.Digest()
		}
	}
	for _, w := range s.site.Links {
		if k, err := l.link(w.Link); err == nil {
			sheets["link "+w.Link] = k.Digest()
		}
	}
	if n := s.site.Cells; n != nil {
		for _, name := range []string{n.Backhaul, n.Radio} {
			if k, err := l.link(name); err == nil {
				sheets["link "+name] = k.Digest()
			}
		}
	}
}

// device finds a device profile; host is this machine's, if it is known.
func (l *Lab) device(name string) (*profiles.DeviceSheet, error) {
	if name == profiles.Host {
		if l.Host == nil {
			return nil, fmt.Errorf("the profile of this machine is not measured yet")
		}
		return l.Host, nil
	}
	return l.devices.get(name, func() (*profiles.DeviceSheet, error) {
		if isPath(name) {
			return profiles.LoadDevice(name)
		}
		return profiles.Device(name)
	})
}

// link finds a link profile.
func (l *Lab) link(name string) (*profiles.LinkSheet, error) {
	return l.links.get(name, func() (*profiles.LinkSheet, error) {
		if isPath(name) {
			return profiles.LoadLink(name)
		}
		return profiles.Link(name)
	})
}

// kept makes things at first use and keeps them by name. Cells that run side by
// side share it: who asks for a thing that another is making waits for it.
type kept[T any] struct {
	mu sync.Mutex
	of map[string]*thing[T]
}

type thing[T any] struct {
	mu   sync.Mutex
	v    T
	made bool
}

// get returns the thing of a name; an error is not kept.
func (k *kept[T]) get(name string, make func() (T, error)) (T, error) {
	k.mu.Lock()
	if k.of == nil {
		k.of = map[string]*thing[T]{}
	}
	t := k.of[name]
	if t == nil {
		t = &thing[T]{}
		k.of[name] = t
	}
	k.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.made {
		return t.v, nil
	}
	v, err := make()
	if err == nil {
		t.v, t.made = v, true
	}
	return v, err
}

// hostFile keeps the profile of this machine in the run folder, so that a run
// that is resumed goes on with the machine it began with.
const hostFile = "host.yaml"

// prepare makes sure that this machine's profile is there if an arm needs it.
func (l *Lab) prepare(o Options, arms []*arm) error {
	if l.Host != nil {
		return nil
	}
	if o.Resume {
		host, err := profiles.LoadDevice(filepath.Join(o.Out, hostFile))
		if err == nil {
			l.Host = host
			return nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	var run []*Model // on this machine, each once
	site := ""
	for _, a := range arms {
		if !a.setup.site.UsesHost() && a.cell.Mode != "emulated" {
			continue
		}
		site = a.setup.site.Name
		for _, m := range []*Model{a.setup.model, a.setup.small} {
			if m != nil && !slices.Contains(run, m) {
				run = append(run, m)
			}
		}
	}
	switch {
	case len(run) == 0:
		return nil
	case l.Measure == nil:
		return fmt.Errorf("site %q has nodes on this machine, whose profile is missing: make one with meibench profile", site)
	}
	o.Progress.Note("measuring this machine ...")
	host, err := l.Measure(run)
	if err != nil {
		return fmt.Errorf("measure this machine: %w", err)
	}
	l.Host = host
	return nil
}

// Prepare measures this machine if a run with these options needs its profile and
// the Lab has none.
func (l *Lab) Prepare(o Options) error {
	arms, err := l.plan(o)
	if err != nil {
		return &InputError{err}
	}
	return l.prepare(o, arms)
}

func (l *Lab) keepHost(dir string) error {
	text, err := l.Host.YAML()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, hostFile)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// tier is the least that is known of a device of a cell, and of its models on it; ""
// where nothing is modelled but links, or nothing is known yet. stated is the largest
// error that the profiles state of their calibration; 0 where one of them does not.
func (l *Lab) tier(s *setup) (tier string, stated float64) {
	if s.cell.Mode == "measured" {
		return "", 0
	}
	least, silent := -1, false
	for _, p := range s.site.Kinds() {
		if p.Device == "" || p.Served != nil {
			continue
		}
		sheet, err := l.device(p.Device)
		if err != nil {
			continue
		}
		law := costmodel.NewLaw(sheet)
		for _, m := range []*Model{s.model, s.small} {
			if m == nil {
				continue
			}
			if at := slices.Index(profiles.Tiers(), law.Tier(m.Spec)); least < 0 || at < least {
				least = at
			}
			miss := law.Stated(m.Spec)
			stated, silent = max(stated, miss), silent || miss == 0
		}
	}
	if silent {
		stated = 0
	}
	if least < 0 {
		return "", 0
	}
	return profiles.Tiers()[least], stated
}

// header is the record of an arm before it ran.
func (a *arm) header() record.Cell {
	l := a.setup.work.Limits()
	model := a.cell.Model
	if name := servedModel(a.setup.site); name != "" {
		model = name
	}
	return record.Cell{Index: a.index, Suite: a.suite, Name: a.cell.Name, App: a.cell.App, Pipeline: a.cell.Pipeline,
		Site: a.cell.Site, Model: model, Mode: a.cell.Mode, Seed: a.seed, Repeat: a.repeat, Contract: a.setup.hash, Brief: a.cell.Rows == "brief",
		TTFTLimit: l.TTFT.Duration(), TPOTLimit: l.TPOT.Duration(), E2ELimit: l.E2E.Duration(), Params: a.setup.labels()}
}
