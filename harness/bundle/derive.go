package bundle

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"meibench/hardware/profiles"
	"meibench/harness/plan"
	"meibench/harness/results"
	"meibench/reference/models"
	"meibench/suites"
)

// Divisions and the mode of a bundle whose runs differ in theirs.
const (
	ClosedDivision = "closed"
	OpenDivision   = "open"
	MixedMode      = "mixed"
)

// OpenRun opens a run folder that has, or will have, a path in a bundle
// (runs/RUN). The caller closes its Set.
func OpenRun(dir, at string) (*Run, error) {
	set, err := results.Read(dir)
	if err != nil {
		return nil, err
	}
	r := &Run{Path: at, Set: set}
	p, err := plan.Read(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist): // made before there were plans
	case err != nil:
		return nil, errors.Join(err, set.Close())
	default:
		if r.Plan, err = p.Digest(); err != nil {
			return nil, errors.Join(err, set.Close())
		}
		r.asked = p.Runs()
	}
	_, err = os.Lstat(filepath.Join(dir, plan.ReceiptFile))
	r.Committed = err == nil
	return r, nil
}

// Derive makes the manifest and the summary of a bundle from its runs. Only what
// no run can know is taken from who: name, title, submitter, contact, licence
// and what it supersedes. Files are left to the caller.
func Derive(runs []*Run, who Manifest) (Manifest, Summary, error) {
	s, tried, err := summarise(runs)
	if err != nil {
		return Manifest{}, s, err
	}
	m := Manifest{Schema: Format, Name: who.Name, Title: who.Title, Submitter: who.Submitter, Contact: who.Contact,
		Licence: who.Licence, Supersedes: who.Supersedes, Attempts: tried}
	var last time.Time
	var modes, commits, gos []string
	for _, r := range runs {
		info := r.info()
		m.Runs = append(m.Runs, info)
		modes, commits, gos = append(modes, info.Modes...), append(commits, r.Set.Manifest.Commit), append(gos, r.Set.Manifest.GoVersion)
		if f := r.Set.Manifest.Finished; f.After(last) {
			last = *f
		}
		m.Open = append(m.Open, r.open()...)
	}
	slices.SortFunc(m.Runs, func(a, b RunInfo) int { return strings.Compare(a.Path, b.Path) })
	m.Created = last.UTC().Format(time.RFC3339)
	m.Harness = Harness{Commit: strings.Join(distinct(commits), " "), Go: strings.Join(distinct(gos), " ")}
	if modes = distinct(modes); len(modes) == 1 {
		m.Mode = modes[0]
	} else {
		m.Mode = MixedMode
	}
	slices.Sort(m.Open)
	if m.Division = ClosedDivision; len(m.Open) > 0 {
		m.Division = OpenDivision
	}
	return m, s, nil
}

// distinct is the sorted set of some words.
func distinct(words []string) []string {
	words = slices.Clone(words)
	slices.Sort(words)
	return slices.Compact(words)
}

// info is what a manifest says of a run.
func (r *Run) info() RunInfo {
	m := &r.Set.Manifest
	info := RunInfo{Path: r.Path, SuiteHash: m.SuiteHash, Contract: m.Contract, Plan: r.Plan, Committed: r.Committed, System: system(m),
		Models: slices.Sorted(maps.Keys(m.Models)), Seeds: m.Seeds, Command: m.Command, Modes: []string{}}
	var names []string
	for _, c := range r.Set.Runs() {
		if !slices.Contains(names, c.Cell.Suite) {
			names = append(names, c.Cell.Suite)
		}
		info.Modes = append(info.Modes, c.Cell.Mode)
	}
	info.Suite, info.Modes = strings.Join(names, "+"), distinct(info.Modes)
	return info
}

// system is a machine in one line.
func system(m *results.Manifest) string {
	parts := []string{cmp.Or(m.CPU, "unknown CPU")}
	if n := m.Host["cores"]; n != "" {
		parts = append(parts, n+" cores")
	}
	if n, err := strconv.ParseFloat(m.Host["memory_bytes"], 64); err == nil && n > 0 {
		parts = append(parts, strconv.FormatFloat(n/(1<<30), 'f', 1, 64)+" GiB")
	}
	return strings.Join(append(parts, m.GOARCH), ", ")
}

// mostNamed bounds the suites, models and profiles of a run that are looked up.
const mostNamed = 256

// open lists why a run cannot be in the closed division.
func (r *Run) open() (why []string) {
	m := &r.Set.Manifest
	add := func(format string, args ...any) {
		why = append(why, r.Path+": "+fmt.Sprintf(format, args...))
	}
	switch {
	case m.Commit == "":
		add("the program did not know its commit")
	case strings.Contains(m.Commit, "dirty"):
		add("the program was built from changed source")
	}
	if m.Quick {
		add("a quick run, NOT COMPARABLE")
	}
	if len(m.SuiteHash) > 64*mostNamed || len(m.Models) > mostNamed || len(m.Profiles) > mostNamed {
		add("more than %d suites, models or profiles", mostNamed) // nor are they looked up: that takes time
		return why
	}
	for _, hash := range strings.Split(m.SuiteHash, "+") {
		if !shipped()["suite "+hash] {
			add("suite %.16s is not one that meibench ships, or was overridden", hash)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Models)) {
		if !knownModel(name, m.Models[name]) {
			add("model %s is not one that meibench ships", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Profiles)) {
		if name != "device "+profiles.Host && !knownProfile(name, m.Profiles[name]) {
			add("%s is not as meibench ships it", name)
		}
	}
	if len(m.Endpoints) > 0 {
		add("servers answered (endpoint)")
	}
	if len(m.Agents) > 0 {
		add("other machines computed (agent)")
	}
	for _, mode := range r.info().Modes {
		if mode == "conformance" {
			add("conformance runs measure nothing")
		}
	}
	return why
}

// shipped is the set of suites and models with weights that this program holds,
// by their hashes.
var shipped = sync.OnceValue(func() map[string]bool {
	set := map[string]bool{}
	for _, name := range suites.Names() {
		if s, err := suites.Load(name); err == nil {
			set["suite "+s.Hash] = true
		}
	}
	for _, e := range models.Table {
		if b, err := models.Bytes(e.Name); err == nil {
			sum := sha256.Sum256(b)
			set["model "+e.Name+" "+hex.EncodeToString(sum[:])] = true
		}
	}
	return set
})

// knownModel reports whether a model is one of ours: a file, or the shape of a
// profile.
func knownModel(name, digest string) bool {
	if shipped()["model "+name+" "+digest] {
		return true
	}
	m, err := profiles.Model(name)
	return err == nil && m.Digest == digest
}

// knownProfile reports whether a profile is embedded with this content. The name
// begins with its kind.
func knownProfile(name, digest string) bool {
	have, ok := profileDigests()[name]
	return ok && have == digest
}

// profileDigests are those of the embedded profiles, by kind and name. Reading
// them all takes as long as checking some bundles does.
var profileDigests = sync.OnceValue(func() map[string]string {
	set := map[string]string{}
	for _, name := range profiles.Devices() {
		if d, err := profiles.Device(name); err == nil {
			set["device "+name] = d.Digest()
		}
	}
	for _, name := range profiles.Links() {
		if l, err := profiles.Link(name); err == nil {
			set["link "+name] = l.Digest()
		}
	}
	for _, name := range profiles.Sites() {
		if s, err := profiles.Site(name); err == nil {
			set["site "+name] = s.Digest()
		}
	}
	return set
})

// runPath is where a run folder goes in a bundle.
func runPath(name string) string { return path.Join(RunsFolder, name) }
