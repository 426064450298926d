// Package verify checks what somebody hands in, offline and without trusting
// them: a bundle, or a run folder.
//
//	c := verify.New(verify.Options{Keys: keys, Rerun: verify.Default})
//	v := c.Check(ctx, b)          // b from bundle.Open
//	err := verify.Text(os.Stdout, "mine.meibench.zip", &v)
//
// The one idea: everything that follows from something else in the bundle is
// derived again and compared: names from digests, schedules from seeds, facts and
// metrics from rows, claims from metrics, modelled rows from the plan, answers
// from the model. What is left are the clocks of measured runs, which are held
// against physics and no more; docs/verify.md says what that cannot see.
//
// Rules is the table of checks. A finding names its rule, file and row. The tier
// of a verdict says how far the checks went: reported, consistent or replayed;
// reproduced and audited are given by who has several bundles.
//
// A Checker keeps models, profiles and schedules between bundles. It is for one
// goroutine at a time.
package verify

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"meibench/harness"
	"meibench/harness/bundle"
	"meibench/harness/ledger"
	"meibench/harness/results"
)

// Rerun says what is run again.
type Rerun string

// What is run again. The sample of kernels is drawn by the bundle's h1 hash.
const (
	Default  Rerun = ""         // modelled runs, and a sample of kernel runs
	None     Rerun = "none"     // nothing
	Sample   Rerun = "sample"   // a sample of modelled and of kernel runs
	Modelled Rerun = "modelled" // modelled runs
	All      Rerun = "all"      // modelled and kernel runs
)

// ParseRerun reads the name of a Rerun; "" is Default.
func ParseRerun(s string) (Rerun, error) {
	for _, r := range []Rerun{Default, None, Sample, Modelled, All} {
		if s == string(r) {
			return r, nil
		}
	}
	return "", fmt.Errorf("rerun %q: want none, sample, modelled or all", s)
}

// Options say what is known and how far to go.
type Options struct {
	Strict   bool             // warnings are errors
	Keys     []note.Verifier  // of submitters and auditors that are known
	Logs     []note.Verifier  // keys of logs in which plans may be committed
	Proof    *ledger.Receipt  // that the bundle is in one of the logs; nil = nothing is asked
	Ledgers  []*ledger.Log    // whole logs: their keys count as known, and other attempts at a plan show
	Rerun    Rerun            // what is run again
	Draw     string           // seed of the sample, which who hands in must not know; "" = the bundle's h1, which he could grind
	Models   []string         // GGUF files for models that are not shipped, found by digest
	Progress harness.Progress // hears of runs that are made again; nil = nobody
}

// Checker checks bundles one after the other.
type Checker struct {
	o       Options
	lab     *harness.Lab
	terms   map[string]*harness.Terms // by cell
	files   map[string]string         // SHA-256 -> file of Options.Models
	plans   map[string][]when         // schedules, by workload and seed
	works   map[string]string         // what a schedule is of, by contract
	sheet   map[string]string         // digests of embedded profiles
	kept    int                       // requests in plans
	answers map[string]answers        // computed again, by question
	held    int                       // requests in answers
	err     error                     // of Options.Models
}

// New makes a Checker. Nothing is read yet but the digests of model files.
func New(o Options) *Checker {
	if o.Progress == nil {
		o.Progress = silent{}
	}
	c := &Checker{o: o, lab: &harness.Lab{}, files: map[string]string{}, plans: map[string][]when{}, terms: map[string]*harness.Terms{}, works: map[string]string{}, sheet: map[string]string{}}
	for _, f := range o.Models {
		d, err := results.DigestFile(f)
		if err != nil {
			c.err = errors.Join(c.err, fmt.Errorf("model: %w", err))
			continue
		}
		c.files[d.SHA256] = f
	}
	return c
}

// Err is what is wrong with the options; nil if they can be used.
func (c *Checker) Err() error { return c.err }

// check is the check of one bundle.
type check struct {
	*Checker
	ctx    context.Context
	rep    report
	seed   string // of the sample
	open   bool   // in the open division
	replay bundle.Replay
	why    map[string]int // what was left, by reason
	short  bool           // of a replay: something was left that is not a matter of samples
	runs   []*folder
}

// CheckRun checks a run folder as meibench run leaves it: every rule but those
// that need a bundle around it.
func (c *Checker) CheckRun(ctx context.Context, dir string) bundle.Verdict {
	k := c.begin(ctx, "")
	k.open = true
	set, err := results.Read(dir)
	if err != nil {
		k.rep.say("V010", spot{}, "%s", plain(err, dir))
		return k.end()
	}
	defer set.Close()
	k.folder(dir, "", set)
	return k.end()
}

func (c *Checker) begin(ctx context.Context, h1 string) *check {
	return &check{Checker: c, ctx: ctx, rep: report{strict: c.o.Strict}, seed: h1, why: map[string]int{}}
}

// folder checks a run folder; at is its path in the bundle, "" if it is alone.
func (k *check) folder(dir, at string, set *results.Set) {
	defer func() { // what nobody thought of must not take a whole site down
		if v := recover(); v != nil {
			k.rep.say("V010", spot{file: at}, "cannot be checked: %v", v)
		}
	}()
	f := &folder{dir: dir, at: at, set: set, sound: map[results.Key]bool{}, arms: map[results.Key]*arm{}}
	k.runs = append(k.runs, f)
	k.form(f)
	k.planned(f)
	k.rows(f)
	if k.rep.refused() { // a replay would only say it again
		k.leave("something else is wrong already", len(f.set.Runs()))
		return
	}
	k.again(f)
}

// end draws the conclusion.
func (k *check) end() bundle.Verdict {
	v := bundle.Verdict{Tier: bundle.Reported, Replay: k.replay, Findings: k.rep.findings, Committed: len(k.runs) > 0}
	for _, f := range k.runs {
		v.Committed = v.Committed && f.committed
	}
	for _, why := range sorted(k.why) {
		v.Replay.Left += k.why[why]
		v.Replay.Why = strings.TrimPrefix(v.Replay.Why+"; "+fmt.Sprintf("%d: %s", k.why[why], why), "; ")
	}
	if v.Replay.Left > 0 {
		k.rep.say("V062", spot{}, "%s", v.Replay.Why)
	}
	v.Findings = k.rep.findings
	slices.SortStableFunc(v.Findings, func(a, b bundle.Finding) int { return weight(b.Severity) - weight(a.Severity) })
	switch {
	case k.rep.refused():
		v.Tier = bundle.Refused
	case !k.short && v.Replay.Rows > 0:
		v.Tier = bundle.Replayed
	case k.underived():
		v.Tier = bundle.Reported
	default:
		v.Tier = bundle.Consistent
	}
	return v
}

// underived reports whether some run's schedule and contract could not be derived.
func (k *check) underived() bool {
	for _, f := range k.runs {
		for _, a := range f.arms {
			if a.terms == nil {
				return true
			}
		}
	}
	return false
}

// leave notes that runs of cells were not made again.
func (k *check) leave(why string, n int) { k.why[why] += n }

func weight(s bundle.Severity) int {
	return slices.Index([]bundle.Severity{bundle.Note, bundle.Flag, bundle.Warning, bundle.Error}, s)
}

// in is the place of a file of a run folder.
func (f *folder) in(name, row string) spot { return spot{path.Join(f.at, name), row} }

type silent struct{}

func (silent) Cell(int, int, string, int) {}
func (silent) Request(int)                {}
func (silent) Note(string, ...any)        {}
