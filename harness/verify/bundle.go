package verify

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"meibench/harness/bundle"
	"meibench/harness/ledger"
)

// Check checks a bundle that bundle.Open took.
func (c *Checker) Check(ctx context.Context, b *bundle.Bundle) bundle.Verdict {
	k := c.begin(ctx, b.H1)
	k.open = b.Manifest.Division != bundle.ClosedDivision
	signers := k.signed(b)
	k.entered(b.H1)
	for _, r := range b.Runs {
		k.folder(filepath.Join(b.Dir, filepath.FromSlash(r.Path)), r.Path, r.Set)
	}
	k.derived(b)
	v := k.end()
	v.Bundle, v.Signers = b.H1, signers
	return v
}

// Refused is the verdict on a bundle that bundle.Open refused; false for errors
// of another kind, such as those of the disk.
func Refused(err error) (bundle.Verdict, bool) {
	var r *bundle.Refusal
	if !errors.As(err, &r) {
		return bundle.Verdict{}, false
	}
	rule := r.Rule
	if _, err := Lookup(rule); err != nil {
		rule = "V001"
	}
	return bundle.Verdict{Tier: bundle.Refused, Findings: []bundle.Finding{{Rule: rule, Severity: bundle.Error, File: clean(r.File), Text: clean(r.Why), Fix: r.Fix, Count: 1}}}, true
}

// entered checks that the bundle is in a log.
func (k *check) entered(h1 string) {
	p := k.o.Proof
	if p == nil {
		return
	}
	if _, err := p.Check(k.o.verifiers()); err != nil {
		k.rep.say("V006", spot{}, "%s", err)
		return
	}
	if p.Entry.Kind != ledger.Bundle || p.Entry.Digest != h1 {
		k.rep.say("V006", spot{}, "the proof is of %s %s", p.Entry.Kind, p.Entry.Digest)
	}
}

// signed checks who signed, and returns the names of known signers.
func (k *check) signed(b *bundle.Bundle) (known []string) {
	at := spot{file: bundle.NoteFile}
	list, err := b.Signers(k.o.Keys...)
	if err != nil {
		k.rep.say("V005", at, "%s", err)
		return nil
	}
	if len(list) == 0 {
		k.rep.say("V003", at, "nobody signed")
		return nil
	}
	submitter := b.Manifest.Submitter
	theirs := submitter == "" // nobody hands in: others may have confirmed it
	for _, s := range list {
		theirs = theirs || s.Name == submitter
		switch {
		case s.Known:
			known = append(known, s.Name)
		case slices.ContainsFunc(k.o.Keys, func(v note.Verifier) bool { return v.Name() == s.Name && v.KeyHash() != s.Hash }):
			k.rep.say("V005", at, "signed by a key named %q that is not the known key of this name", s.Name)
		default:
			k.rep.sayAs("V003", bundle.Note, at, "signed by %q, whose key is not known", s.Name)
		}
	}
	if !theirs {
		k.rep.say("V005", at, "the manifest says that %q hands in, who did not sign", submitter)
	}
	if len(known) == 0 {
		k.rep.say("V003", at, "no signature is by a known key")
	}
	return known
}

// derived compares manifest and summary with what the runs give.
func (k *check) derived(b *bundle.Bundle) {
	m, s, err := bundle.Derive(b.Runs, b.Manifest)
	if err != nil {
		if !k.rep.refused() { // else the rows have said it
			k.rep.say("V032", spot{file: bundle.SummaryFile}, "%s", plain(err, b.Dir))
		}
		return
	}
	m.Files = b.Manifest.Files
	if !equalJSON(m, b.Manifest) {
		k.rep.say("V014", spot{file: bundle.ManifestFile}, "%s", unlike(b.Manifest, m))
	}
	k.summary(b.Summary.Claims, s.Claims)
}

// summary compares claims one by one.
func (k *check) summary(theirs, ours []bundle.Claim) {
	at := spot{file: bundle.SummaryFile}
	if len(theirs) != len(ours) {
		k.rep.say("V032", at, "%d claims, the runs give %d", len(theirs), len(ours))
		return
	}
	for i, c := range theirs {
		at.row = c.Run + " " + c.Suite + "/" + c.Cell
		w := ours[i]
		if reflect.DeepEqual(c, w) || equalJSON(c, w) {
			continue
		}
		said := false
		for _, name := range slices.Concat(sorted(c.Metrics), sorted(w.Metrics)) {
			if a, b := c.Metrics[name], w.Metrics[name]; !equalJSON(a, b) {
				k.rep.say("V032", at, "%s: %s, the rows give %s", name, figure(a), figure(b))
				said = true
				break
			}
		}
		if !said {
			k.rep.say("V032", at, "%s", unlike(c, w))
		}
	}
}

func figure(m bundle.Metric) string {
	s := fmt.Sprintf("%v %s of %d", m.Value, m.Unit, m.N)
	if m.Low != nil && m.High != nil {
		s += fmt.Sprintf(" [%v, %v]", *m.Low, *m.High)
	}
	return s
}

// unlike names the first field in which what is said differs from what is derived.
func unlike(theirs, ours any) string {
	a, b := reflect.ValueOf(theirs), reflect.ValueOf(ours)
	for i := range a.NumField() {
		if x, y := a.Field(i).Interface(), b.Field(i).Interface(); !equalJSON(x, y) {
			return fmt.Sprintf("%s: %v, the runs give %v", a.Type().Field(i).Name, x, y)
		}
	}
	return "differs from what the runs give"
}
