package verify

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/harness/plan"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/canon"
	"meibench/suites"
)

// folder is a run folder under check.
type folder struct {
	dir, at   string // at: in the bundle
	set       *results.Set
	plan      *plan.Plan
	receipt   *plan.Receipt
	committed bool
	foreign   bool // some profile is of another version
	host      *profiles.DeviceSheet
	arms      map[results.Key]*arm
	sound     map[results.Key]bool // rows that can be compared with a replay
}

// arm is a run of a cell that the plan asks for, with what it promises.
type arm struct {
	harness.Arm
	terms  *harness.Terms // nil where a name cannot be resolved
	why    string         // it cannot
	models map[string]string
}

const hostFile = "host.yaml"

// plain is an error without the folder in which the bundle was unpacked.
func plain(err error, dir string) string {
	return strings.ReplaceAll(strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), ""), dir, "run")
}

// form checks digests, schemas and who each row says it is.
func (k *check) form(f *folder) {
	m := f.set.Manifest
	for _, name := range []string{results.RequestsFile, results.SpansFile, results.CellsFile, results.BenchFile} {
		got, err := results.DigestFile(filepath.Join(f.dir, name))
		if err != nil {
			k.rep.say("V010", f.in(name, ""), "%s", plain(err, f.dir))
		} else if want := m.Files[name]; got != want {
			k.rep.say("V002", f.in(name, ""), "is %d bytes with SHA-256 %.16s…, run.json says %d and %.16s…", got.Bytes, got.SHA256, want.Bytes, want.SHA256)
		}
	}
	faults, err := f.set.Audit()
	if err != nil {
		k.rep.say("V010", f.in("", ""), "%s", plain(err, f.dir))
	}
	for _, fault := range faults {
		rule := "V013"
		if fault.Schema {
			rule = "V011"
		}
		k.rep.say(rule, f.in(fault.File, fault.Row), "%s", fault.Text)
	}
	if !m.Complete {
		k.rep.say("V020", f.in(results.ManifestFile, ""), "the run is not complete: %d of %d runs of cells", m.Blocks, m.Expected)
	}
	switch {
	case m.Commit == "" || m.Commit == "unknown":
		k.rep.say("V070", f.in(results.ManifestFile, ""), "the commit of the program is not known")
	case strings.HasSuffix(m.Commit, "+dirty"):
		k.rep.say("V070", f.in(results.ManifestFile, ""), "built from %.16s with changes that are in no commit", m.Commit)
	}
	f.host, err = profiles.LoadDevice(filepath.Join(f.dir, hostFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.rep.say("V010", f.in(hostFile, ""), "%s", plain(err, f.dir))
	}
	k.lab.Host = f.host
}

// planned checks the plan, its receipt, and that the runs are those it asks for.
func (k *check) planned(f *folder) {
	var err error
	if f.plan, err = plan.Read(f.dir); err != nil {
		k.rep.say("V010", f.in(plan.File, ""), "%s", plain(err, f.dir))
		return
	}
	k.receipt(f)
	k.released(f)
	k.sheets(f)
	quick, m := f.plan.Quick, f.set.Manifest
	if m.Quick != quick {
		k.rep.say("V014", f.in(results.ManifestFile, ""), "says quick is %v, the plan %v", m.Quick, quick)
	}
	if err := tame(f.plan); err != nil {
		k.rep.say("V010", f.in(plan.File, ""), "%s", err)
		return
	}
	if err := k.armsOf(f); err != nil {
		k.rep.say("V022", f.in(plan.ReceiptFile, ""), "%s", plain(err, f.dir))
		return
	}
	have := map[results.Key]bool{}
	for _, run := range f.set.Runs() {
		key := results.KeyOf(&run.Cell)
		have[key] = true
		if f.arms[key] == nil {
			k.stranger(f, key)
		}
	}
	for _, key := range keys(f.arms) {
		if !have[key] {
			k.rep.say("V020", f.in(results.CellsFile, key.String()), "the plan asks for this run of a cell and it is not there")
		}
	}
	if m.Expected != len(f.arms) {
		k.rep.say("V020", f.in(results.ManifestFile, ""), "expects %d runs of cells, the plan asks for %d", m.Expected, len(f.arms))
	}
	k.runJSON(f)
}

// Bounds of what a plan may ask a verifier to do.
const (
	mostRuns     = 100_000
	mostUsers    = 1_000_000
	mostRequests = 20_000_000
)

// tame refuses plans that would take a verifier beyond reason.
func tame(p *plan.Plan) error {
	runs := 0
	for _, s := range p.Suites {
		for _, c := range s.Cells {
			if c.Repeats < 1 || c.Repeats > mostRuns || c.Requests < 1 || c.Requests > mostRequests || c.Users > mostUsers {
				return fmt.Errorf("cell %s: %d repeats of %d requests by %d users are not checked", c.Name, c.Repeats, c.Requests, c.Users)
			}
			runs += c.Repeats
		}
	}
	if runs > mostRuns {
		return fmt.Errorf("%d runs of cells are not checked: at most %d are", runs, mostRuns)
	}
	return nil
}

// receipt checks the proof that the plan was fixed before the run.
func (k *check) receipt(f *folder) {
	r, err := plan.ReadReceipt(f.dir)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		k.rep.say("V010", f.in(plan.ReceiptFile, ""), "%s", plain(err, f.dir))
		return
	}
	f.receipt = r
	at := f.in(plan.ReceiptFile, "")
	digest, err := f.plan.Digest()
	if err != nil {
		k.rep.say("V010", f.in(plan.File, ""), "%s", err)
		return
	}
	if len(k.o.Logs)+len(k.o.Ledgers) == 0 {
		if _, err := r.Plan.CheckPath(); err != nil {
			k.rep.say("V004", at, "%s", err)
		} else if r.Plan.Entry.Digest != digest {
			k.rep.say("V004", at, "is of plan %.16s…, the plan is %.16s…", r.Plan.Entry.Digest, digest)
		} else {
			k.rep.sayAs("V004", "note", at, "the path to the checkpoint is right; who keeps the log was not checked: no --log was given")
		}
		return
	}
	known := k.o.verifiers()
	if err := r.Check(f.plan, known); err != nil {
		k.rep.say("V004", at, "%s", err)
		return
	}
	f.committed = r.Attempt != nil // else it may be the best of many
	head, err := r.Plan.Check(known)
	tables, err2 := canon.Hash(f.set.Manifest.Files)
	if err = errors.Join(err, err2); err != nil {
		k.rep.say("V004", at, "%s", err)
		return
	}
	k.logged(f, head, digest, tables)
	if r.Attempt == nil {
		k.rep.sayAs("V004", "warning", at, "the plan is in the log, the attempt is not: there may have been others")
	}
}

// stranger says what is wrong with a run of a cell that the plan does not ask
// for: if it is there with another seed, the seed is.
func (k *check) stranger(f *folder, key results.Key) {
	for _, want := range keys(f.arms) {
		if want.Suite == key.Suite && want.Cell == key.Cell && want.Repeat == key.Repeat {
			k.rep.say("V022", f.in(results.CellsFile, key.String()), "the plan leads to seed %d for this repeat", want.Seed)
			return
		}
	}
	k.rep.say("V020", f.in(results.CellsFile, key.String()), "the plan does not ask for this run of a cell")
}

// armsOf resolves what the plan asks for. Names that are files are not looked up:
// they are files of somebody else's machine.
func (k *check) armsOf(f *folder) error {
	seed := uint64(0)
	if f.receipt != nil {
		var err error
		if seed, err = f.receipt.Seed(); err != nil {
			return err
		}
	}
	index := 0
	for _, s := range f.plan.Suites {
		for _, c := range s.Cells {
			base := c.Cell
			if seed != 0 {
				base.Seed = seed
			}
			one := harness.Arm{Suite: s.Name, Index: index, Cell: harness.Shorten(base, f.plan.Quick), Quick: f.plan.Quick}
			terms, why := k.termsOf(f, one, c.Contract)
			if terms != nil && terms.Header.Contract != c.Contract {
				k.rep.say("V026", f.in(plan.File, s.Name+"/"+c.Name), "contract %.16s…, its names lead to %.16s…", c.Contract, terms.Header.Contract)
			}
			for r := range c.Repeats {
				one.Repeat, one.Seed = r, harness.RepeatSeed(base.Seed, r)
				a := &arm{Arm: one, why: why, models: f.set.Manifest.Models}
				if terms != nil {
					a.terms = terms.With(one.Seed, r)
				}
				f.arms[one.Key()] = a
			}
			index++
		}
	}
	return nil
}

// terms resolves a cell, or says why it cannot be.
func (k *check) termsOf(f *folder, a harness.Arm, contract string) (*harness.Terms, string) {
	for _, name := range []string{a.Cell.App, a.Cell.Site, a.Cell.Trace} {
		if isFile(name) {
			return nil, "applications, sites and traces that are files are not in a bundle"
		}
	}
	for _, name := range []*string{&a.Cell.Model, &a.Cell.Small} {
		if !isFile(*name) {
			continue
		}
		file, ok := k.files[f.set.Manifest.Models[*name]]
		if !ok {
			return nil, "models that meibench does not ship: give the file with --model"
		}
		*name = file
	}
	if t := k.served(f, a, contract); t != nil {
		return t, ""
	}
	t, err := k.known(a)
	if err != nil {
		k.rep.sayAs("V012", k.looser(), f.in(plan.File, a.Suite+"/"+a.Cell.Name), "%s", plain(err, f.dir))
		return nil, "names that this program does not know"
	}
	return t, ""
}

// served resolves a cell that asked a real server, which is in no profile: what
// run.json says of it takes the place of the site. Nobody is asked. Nil if there
// is no such server.
func (k *check) served(f *folder, a harness.Arm, contract string) (t *harness.Terms) {
	i := slices.IndexFunc(f.set.Manifest.Endpoints, func(e results.Endpoint) bool { return e.Site == a.Cell.Site })
	if i < 0 || a.Cell.Pipeline != "endpoint" || slices.Contains(profiles.Sites(), a.Cell.Site) {
		return nil
	}
	e := f.set.Manifest.Endpoints[i]
	defer func() { k.lab.Sites = nil }()
	for _, api := range []string{e.API, ""} { // run.json has the default by its name, the contract as it was asked for
		site := harness.EndpointSite(e.Site, profiles.Served{URL: e.URL, Model: e.Model, API: api, Extra: e.Extra})
		k.lab.Sites = map[string]*profiles.SiteSheet{e.Site: site}
		var err error
		if t, err = k.lab.Terms(a); err == nil && t.Header.Contract == contract {
			return t
		}
	}
	return t
}

// known keeps terms between bundles: of one suite they differ in seeds alone.
func (c *Checker) known(a harness.Arm) (*harness.Terms, error) {
	cell := a.Cell
	cell.Seed, cell.Repeats = 0, 0
	key, err := canon.JSON([]any{a.Suite, a.Index, cell, a.Quick})
	if err != nil {
		return nil, err
	}
	if t, ok := c.terms[string(key)]; ok {
		return t, nil
	}
	t, err := c.lab.Terms(a)
	if err == nil {
		if len(c.terms) >= mostTerms {
			clear(c.terms)
		}
		c.terms[string(key)] = t
	}
	return t, err
}

// mostTerms bounds the cells whose terms are kept.
const mostTerms = 10_000

// looser is the severity of what only the closed division forbids.
func (k *check) looser() bundleSeverity {
	if k.open {
		return "flag"
	}
	return ""
}

// isFile tells a file from a name, as package harness does, and more strictly.
func isFile(name string) bool {
	return strings.ContainsAny(name, `/\`) || strings.HasSuffix(name, ".gguf") || strings.HasSuffix(name, ".yaml")
}

// released compares the plan's suites with those that meibench ships.
func (k *check) released(f *folder) {
	for _, s := range f.plan.Suites {
		at := f.in(plan.File, s.Name)
		if !slices.Contains(suites.Names(), s.Name) {
			k.rep.sayAs("V012", k.looser(), at, "suite %q is not one that meibench ships", s.Name)
			continue
		}
		ours, err := suites.Load(s.Name)
		if err != nil {
			k.rep.say("V012", at, "%s", err)
			continue
		}
		if ours.Hash != s.Hash {
			k.rep.sayAs("V012", k.looser(), at, "hash %.16s… is not that of the suite of this name, %.16s…: it was changed, or is of another version", s.Hash, ours.Hash)
			continue
		}
		cells := map[string]suites.Cell{}
		for _, c := range ours.Cells {
			cells[c.Name] = c
		}
		for _, c := range s.Cells {
			want, ok := cells[c.Name]
			want.Seed, want.Repeats = c.Seed, c.Repeats
			if !ok || !equalJSON(want, c.Cell) {
				k.rep.say("V012", f.in(plan.File, s.Name+"/"+c.Name), "the cell is not that of the suite whose hash the plan carries")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.plan.Models)) {
		if isFile(name) || f.plan.Models[name] == "served" {
			continue
		}
		m, err := k.lab.Model(name)
		if err != nil || m.Digest != f.plan.Models[name] {
			k.rep.sayAs("V012", k.looser(), f.in(plan.File, ""), "model %q has SHA-256 %.16s…, which is not that of the model of this name", name, f.plan.Models[name])
		}
	}
}

// sheets compares the digests of profiles with those of this program. Where they
// differ nothing modelled can be made again.
func (k *check) sheets(f *folder) {
	m := f.set.Manifest
	for _, name := range slices.Sorted(maps.Keys(f.plan.Profiles)) {
		if m.Profiles[name] != f.plan.Profiles[name] && !strings.HasPrefix(name, "link ") { // run.json of older versions has no links
			k.rep.say("V026", f.in(results.ManifestFile, ""), "%s has SHA-256 %.16s…, in the plan %.16s…", name, m.Profiles[name], f.plan.Profiles[name])
		}
		if have := k.digest(name); have != f.plan.Profiles[name] && !isFile(name) {
			f.foreign = true
			k.rep.sayAs("V012", k.looser(), f.in(plan.File, ""), "%s has SHA-256 %.16s…, which is not that of the profile of this name", name, f.plan.Profiles[name])
		}
	}
	if f.host != nil {
		if got, want := f.host.Digest(), m.Profiles["device "+profiles.Host]; want != "" && got != want {
			k.rep.say("V002", f.in(hostFile, ""), "is profile %.16s…, run.json says %.16s…", got, want)
		}
	}
}

// digest is that of an embedded profile, "" if there is none; its name begins with
// its kind. Those that exist are kept: they are few.
func (c *Checker) digest(name string) string {
	have, ok := c.sheet[name]
	if !ok {
		if have = c.read(name); have != "" {
			c.sheet[name] = have
		}
	}
	return have
}

func (c *Checker) read(name string) string {
	kind, name, _ := strings.Cut(name, " ")
	if isFile(name) {
		return ""
	}
	switch kind {
	case "device":
		if d, err := c.lab.Device(name); err == nil {
			return d.Digest()
		}
	case "link":
		if l, err := profiles.Link(name); err == nil {
			return l.Digest()
		}
	case "site":
		if s, err := profiles.Site(name); err == nil {
			return s.Digest()
		}
	}
	return ""
}

// runJSON compares what run.json says of contracts, seeds and models with the plan.
func (k *check) runJSON(f *folder) {
	m, at := f.set.Manifest, f.in(results.ManifestFile, "")
	for _, name := range slices.Sorted(maps.Keys(f.plan.Models)) {
		if m.Models[name] != f.plan.Models[name] {
			k.rep.say("V026", at, "model %q has SHA-256 %.16s…, in the plan %.16s…", name, m.Models[name], f.plan.Models[name])
		}
	}
	var hashes []string
	for _, s := range f.plan.Suites {
		hashes = append(hashes, s.Hash)
	}
	if got, want := m.SuiteHash, strings.Join(hashes, "+"); got != want {
		k.rep.say("V026", at, "suite hash %.16s…, in the plan %.16s…", got, want)
	}
	contracts := map[string]bool{}
	for _, c := range m.Contracts {
		h, err := c.Hash()
		if err != nil {
			k.rep.say("V026", at, "contract: %s", err)
		}
		contracts[h] = true
	}
	if want := hashOf(strings.Join(slices.Sorted(maps.Keys(contracts)), "\n")); m.Contract != want {
		k.rep.say("V026", at, "contract %.16s… is not the hash over its contracts, %.16s…", m.Contract, want)
	}
	seeds := map[string]bool{}
	for key := range f.arms {
		seeds[fmt.Sprint(key.Seed)] = true
	}
	if want, got := slices.Sorted(maps.Keys(seeds)), slices.Sorted(slices.Values(m.Seeds)); !slices.Equal(got, want) {
		k.rep.say("V022", at, "seeds %v, the plan leads to %v", got, want)
	}
	for _, run := range f.set.Runs() {
		if !contracts[run.Cell.Contract] {
			k.rep.say("V026", at, "the contract of %s is not among its contracts", results.KeyOf(&run.Cell))
		}
	}
}

// header compares a cell with what the plan leads to.
func (k *check) header(f *folder, a *arm, c *record.Cell) {
	key := results.KeyOf(c).String()
	if c.Index != a.Index || c.App != a.Cell.App || c.Pipeline != a.Cell.Pipeline || c.Site != a.Cell.Site || c.Mode != a.Cell.Mode {
		k.rep.say("V026", f.in(results.CellsFile, key), "is %s %s on %s, %s, cell %d; the plan says %s %s on %s, %s, cell %d", c.App, c.Pipeline, c.Site, c.Mode, c.Index,
			a.Cell.App, a.Cell.Pipeline, a.Cell.Site, a.Cell.Mode, a.Index)
	}
	if a.terms == nil {
		return
	}
	h := a.terms.Header
	if c.Contract != h.Contract {
		k.rep.say("V026", f.in(results.CellsFile, key), "contract %.16s…, the plan leads to %.16s…", c.Contract, h.Contract)
	}
	if c.TTFTLimit != h.TTFTLimit || c.TPOTLimit != h.TPOTLimit || c.E2ELimit != h.E2ELimit {
		k.rep.say("V026", f.in(results.CellsFile, key), "limits %v, %v, %v; the application's are %v, %v, %v", c.TTFTLimit, c.TPOTLimit, c.E2ELimit, h.TTFTLimit, h.TPOTLimit, h.E2ELimit)
	}
	if c.Brief != h.Brief {
		k.rep.say("V026", f.in(results.CellsFile, key), "keeps brief rows: %v; the plan says %v", c.Brief, h.Brief)
	}
	if (c.Tier != "" && c.Tier != h.Tier || c.Stated != 0 && c.Stated != h.Stated) && !f.foreign && (f.host != nil || !a.terms.Site.UsesHost()) {
		k.rep.say("V026", f.in(results.CellsFile, key), "says that its devices are known by tier %q with an error of %g; their profiles say %q, %g", c.Tier, c.Stated, h.Tier, h.Stated)
	}
	model := a.Cell.Model
	if c.Pipeline == "endpoint" {
		model = h.Model // as the server calls it
	}
	if c.Model != model || !equalJSON(c.Params, h.Params) {
		k.rep.say("V026", f.in(results.CellsFile, key), "model %q, parameters %v; the plan leads to %q, %v", c.Model, c.Params, model, h.Params)
	}
}
