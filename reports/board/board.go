// Package board makes a leaderboard of accepted bundles: a folder of pages that
// anyone can host, from a file system as well as from a server.
//
//	site := board.Build(board.Input{Name: "Mobile edge", Entries: entries, ...})
//	err := site.Write("site")
//
// The one idea: nothing is typed by hand. Every number comes from the summary of
// a bundle, which verify has derived again from rows; ranks come from one rule
// that stands on every page; what is not ranked stays in the table with the
// reason. Equal input makes equal bytes.
//
// The package checks no bundle and asks no clock: verify does, before.
package board

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"meibench/hardware/profiles"
	"meibench/harness/bundle"
	"meibench/harness/ledger"
	"meibench/harness/results"
)

// Input is what a site is made of.
type Input struct {
	Name      string // of the leaderboard
	Entries   []Entry
	Contracts map[string]results.Contract // by hash, for the words about terms
	Auditors  []string                    // names of keys whose signature on a bundle is an audit

	Log        []ledger.Entry // nil without a log
	Checkpoint string         // signed note
	LogKey     string         // public key, a line of text
}

// Entry is an accepted bundle.
type Entry struct {
	Bundle  string // h1
	File    string // name of the bundle's file in the folder bundles of the site; "" if it is not there
	Bytes   int64
	Verdict bundle.Verdict
	bundle.Manifest
	Summary   bundle.Summary
	Receipt   *ledger.Receipt // of the bundle's entry in the log; nil if it is in none
	Retracted string          // why; "" = not
}

// Site is a leaderboard, ready to be written.
type Site struct {
	in         Input
	entries    []*entry // in order of the log, then of the h1
	categories []*category
	classes    map[string]string // of sites
}

// entry is an Entry with what the board found out.
type entry struct {
	*Entry
	id      string   // of its page
	rows    []*row   // its claims
	next    *entry   // that supersedes it
	earlier []*entry // that it supersedes, oldest first
	audited bool
	plans   []planUse
}

// planUse is what the log says of a plan of an entry.
type planUse struct {
	Digest              string
	Commits             int // 0 = not committed
	Begun, Ended, Whole int // attempts, results, results that were complete
}

// row is a claim in its table.
type row struct {
	entry *entry
	claim *bundle.Claim
	run   *bundle.RunInfo

	telling string // parameters that tell it from others of its pipeline in its table

	rank   int    // from 1; 0 = not ranked
	tied   bool   // shares its rank
	why    string // not ranked
	meets  meets
	tier   bundle.Tier
	twin   *twinError
	by     []string // whose entries reproduce it
	copies []string // entries with the same times to the last digit
	number int      // of its table's rows, for a stable order
}

// category is application × site class × mode.
type category struct {
	App, Class, Mode string
	tables           []*table
}

// table is the rows of a category under one contract; of those that train, under one exam too.
type table struct {
	Contract string
	Division string
	terms    *results.Contract // nil if no bundle spells it out
	need     float64           // share of requests that have to meet the limits; 0 = there are none
	exam     string            // of cells that train
	rows     []*row
}

// Build sorts the claims of all entries into tables and ranks them.
func Build(in Input) *Site {
	s := &Site{in: in, classes: map[string]string{}}
	for i := range in.Entries {
		e := &entry{Entry: &in.Entries[i]}
		e.id = FileID(e.Bundle)
		e.audited = slices.ContainsFunc(e.Verdict.Signers, func(k string) bool { return k != e.Submitter && slices.Contains(in.Auditors, k) })
		s.entries = append(s.entries, e)
	}
	slices.SortFunc(s.entries, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.place(), b.place()), cmp.Compare(a.Bundle, b.Bundle))
	})
	s.history()
	s.attempts()
	byKey := map[[6]string]*table{}
	categories := map[[3]string]*category{}
	for _, e := range s.entries {
		for i := range e.Summary.Claims {
			s.enter(e, &e.Summary.Claims[i], categories, byKey)
		}
	}
	s.reproduced()
	for _, k := range slices.SortedFunc(maps.Keys(categories), func(a, b [3]string) int { return slices.Compare(a[:], b[:]) }) {
		c := categories[k]
		slices.SortFunc(c.tables, func(a, b *table) int {
			return cmp.Or(cmp.Compare(a.Division, b.Division), cmp.Compare(a.Contract, b.Contract), cmp.Compare(a.exam, b.exam))
		})
		for _, t := range c.tables {
			t.tell()
			t.order()
		}
		s.categories = append(s.categories, c)
	}
	return s
}

// place is where the log has the entry; what is in no log comes last.
func (e *entry) place() int64 {
	if e.Receipt == nil {
		return 1 << 62
	}
	return e.Receipt.Index
}

// enter puts a claim into its table.
func (s *Site) enter(e *entry, c *bundle.Claim, categories map[[3]string]*category, tables map[[6]string]*table) {
	run := slices.IndexFunc(e.Runs, func(r bundle.RunInfo) bool { return r.Path == bundle.RunsFolder+"/"+c.Run || r.Path == c.Run })
	r := &row{entry: e, claim: c, run: &bundle.RunInfo{}, tier: e.Verdict.Tier}
	if run >= 0 {
		r.run = &e.Runs[run]
	}
	if e.audited {
		r.tier = bundle.Audited
	}
	e.rows = append(e.rows, r)
	key := [3]string{c.App, s.class(c.Site), c.Mode}
	cat := categories[key]
	if cat == nil {
		cat = &category{App: key[0], Class: key[1], Mode: key[2]}
		categories[key] = cat
	}
	full := [6]string{key[0], key[1], key[2], c.Contract, e.Division, exam(c)}
	t := tables[full]
	if t == nil {
		t = &table{Contract: c.Contract, Division: e.Division, exam: exam(c)}
		if terms, ok := s.in.Contracts[c.Contract]; ok {
			t.terms = &terms
		}
		if t.terms != nil && t.exam == "" {
			t.need = t.terms.NeededShare()
		}
		tables[full] = t
		cat.tables = append(cat.tables, t)
	}
	r.number = len(t.rows)
	t.rows = append(t.rows, r)
}

// class is SiteClass, each site looked up once.
func (s *Site) class(site string) string {
	c, ok := s.classes[site]
	if !ok {
		c = SiteClass(site)
		s.classes[site] = c
	}
	return c
}

// SiteClass says what the user of a site holds: the class of the device profile
// of the site's user, such as phone_soc; host for the machine of the run; other
// for sites that are not shipped.
func SiteClass(site string) string {
	sheet, err := profiles.Site(site)
	if err != nil {
		return "other"
	}
	device := sheet.User().Device
	if device == profiles.Host {
		return profiles.Host
	}
	d, err := profiles.Device(device)
	if err != nil || d.Class == "" {
		return "other"
	}
	return d.Class
}

// history joins entries of one name and submitter, as known keys show them: a
// later one takes the place of the ones before, which stay readable.
func (s *Site) history() {
	last := map[string]*entry{}
	for _, e := range s.entries {
		if e.Retracted != "" || !slices.Contains(e.Verdict.Signers, e.Submitter) {
			continue // it takes nobody's place
		}
		key := e.Submitter + "\x00" + e.Name
		if was := last[key]; was != nil {
			was.next = e
			e.earlier = append(slices.Clone(was.earlier), was)
		}
		last[key] = e
	}
}

// attempts looks up what the log says of each plan.
func (s *Site) attempts() {
	found := uses(s.in.Log)
	for _, e := range s.entries {
		var seen []string
		for i := range e.Runs {
			d := e.Runs[i].Plan
			if d == "" || slices.Contains(seen, d) {
				continue
			}
			seen = append(seen, d)
			if u := found[d]; u != nil {
				e.plans = append(e.plans, *u)
			} else {
				e.plans = append(e.plans, planUse{Digest: d})
			}
		}
	}
}

// uses counts by plan what a log says.
func uses(log []ledger.Entry) map[string]*planUse {
	found := map[string]*planUse{}
	for _, l := range log {
		digest := l.Of
		if l.Kind == ledger.Plan {
			digest = l.Digest
		}
		u := found[digest]
		if u == nil {
			u = &planUse{Digest: digest}
			found[digest] = u
		}
		switch l.Kind {
		case ledger.Plan:
			u.Commits++
		case ledger.Attempt:
			u.Begun++
		case ledger.Result:
			u.Ended++
			if l.Text == "complete" {
				u.Whole++
			}
		}
	}
	return found
}

// tell finds, for each row, the parameters in which rows of its pipeline differ.
func (t *table) tell() {
	values := map[string]map[string]bool{} // pipeline and key -> values
	key := func(r *row, k string) string { return r.claim.Pipeline + "\x00" + k }
	for _, r := range t.rows {
		for k, v := range r.claim.Params {
			if values[key(r, k)] == nil {
				values[key(r, k)] = map[string]bool{}
			}
			values[key(r, k)][paramText(v)] = true
		}
	}
	for _, r := range t.rows {
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(r.claim.Params)) {
			if len(values[key(r, k)]) > 1 {
				parts = append(parts, k+"="+paramText(r.claim.Params[k]))
			}
		}
		r.telling = strings.Join(parts, " ")
	}
}

// label is what a claim ran, as tables show it.
func (r *row) label() string {
	parts := []string{r.claim.Pipeline}
	for _, k := range slices.Sorted(maps.Keys(r.claim.Params)) {
		parts = append(parts, k+"="+paramText(r.claim.Params[k]))
	}
	return strings.Join(parts, " ")
}
