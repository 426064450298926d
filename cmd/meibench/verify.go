package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"meibench/harness/bundle"
	"meibench/harness/ledger"
	"meibench/harness/results"
	"meibench/harness/verify"
)

// Exit codes of verify that other commands do not have in this sense.
const (
	exitRefused    = exitGate
	exitUnreadable = exitEnvironment
)

type verifyFlags struct {
	strict  bool
	keys    []string
	logs    []string
	proof   string
	rerun   string
	models  []string
	explain string
}

const verifyLong = `verify checks a bundle, or a run folder, offline and without trusting who made it:
digests and signature, the shape of every table, every row, the plan and its place
in a log, schedules from seeds, every published number from its rows, times and
energy against physics; and it runs modelled cells again, and a sample of those
with kernels for their answers.

One line is printed for each kind of finding, then one verdict. The tier says how
far the checks went: T0 reported, T1 consistent, T2 replayed.

Exit codes: 0 accepted, 1 refused, 2 usage, 3 unreadable. Rules are listed by
--explain all; docs/verify.md says what verify cannot see.`

func newVerify(a *app) *cobra.Command {
	f := &verifyFlags{}
	c := &cobra.Command{
		Use: "verify BUNDLE...", Short: "check a bundle or a run folder without trusting who made it", Long: verifyLong,
		Example: "  meibench verify mine.meibench.zip --keys known-keys\n  meibench verify runs/a --rerun none\n  meibench verify --explain V040",
		RunE:    func(c *cobra.Command, args []string) error { return a.verify(c.Context(), f, args) },
	}
	fs := c.Flags()
	fs.BoolVar(&f.strict, "strict", false, "warnings are errors")
	fs.StringSliceVar(&f.keys, "keys", nil, "file of known public keys, one a line, as meibench bundle keygen writes them")
	fs.StringSliceVar(&f.logs, "log", nil, "folder of a log, or file with its public key, in which plans are committed")
	fs.StringVar(&f.proof, "proof", "", "file with the proof that the bundle is in the log, from the site of a leaderboard; needs --log")
	fs.StringVar(&f.rerun, "rerun", "", "what to run again: none, sample, modelled or all (default modelled, and a sample of kernel cells)")
	fs.StringSliceVar(&f.models, "model", nil, "GGUF file of a model that is not shipped, found by its digest")
	fs.StringVar(&f.explain, "explain", "", "explain a rule, such as V040, or all")
	return c
}

func (a *app) verify(ctx context.Context, f *verifyFlags, args []string) error {
	if f.explain != "" {
		return a.explain(f.explain)
	}
	if len(args) == 0 {
		return withCode(exitUsage, errors.New("verify needs a bundle or a run folder (or --explain RULE)"))
	}
	o, err := f.options()
	if err != nil {
		return withCode(exitUsage, err)
	}
	p := newProgress(a.err, a.quiet)
	o.Progress = p
	c := verify.New(o)
	if err := c.Err(); err != nil {
		return withCode(exitUsage, err)
	}
	code := 0
	var all []bundle.Verdict
	for _, path := range args {
		v, err := verifyOne(ctx, c, path)
		p.Close()
		if err != nil {
			return withCode(exitUnreadable, err)
		}
		if v.Tier == bundle.Refused {
			code = exitRefused
		}
		if all = append(all, v); !a.json {
			if err := verify.Text(a.out, path, &v); err != nil {
				return err
			}
		}
	}
	if a.json {
		var out any = all
		if len(all) == 1 {
			out = all[0]
		}
		if err := writeJSON(a.out, out); err != nil {
			return err
		}
	}
	if code != 0 {
		return &coded{code, errors.New("")} // the verdict has said it
	}
	return nil
}

// verifyOne checks a run folder or a bundle.
func verifyOne(ctx context.Context, c *verify.Checker, path string) (bundle.Verdict, error) {
	if _, err := os.Stat(filepath.Join(path, results.ManifestFile)); err == nil {
		return c.CheckRun(ctx, path), nil
	}
	b, err := bundle.Open(path)
	if err != nil {
		if v, ok := verify.Refused(err); ok {
			return v, nil
		}
		return bundle.Verdict{}, err
	}
	defer b.Close()
	return c.Check(ctx, b), nil
}

func (a *app) explain(id string) error {
	if strings.EqualFold(id, "all") {
		for _, r := range verify.Rules() {
			fmt.Fprintf(a.out, "%s %-8s %s\n", r.ID, r.Severity, r.Title)
		}
		return nil
	}
	r, err := verify.Lookup(id)
	if err != nil {
		return withCode(exitUsage, err)
	}
	_, err = fmt.Fprint(a.out, r.Explain())
	return err
}

func (f *verifyFlags) options() (o verify.Options, err error) {
	if o.Rerun, err = verify.ParseRerun(f.rerun); err != nil {
		return o, fmt.Errorf("--rerun: %w", err)
	}
	o.Strict, o.Models, o.Draw = f.strict, f.models, rand.Text()
	for _, path := range f.keys {
		list, err := publicKeys(path)
		if err != nil {
			return o, fmt.Errorf("--keys: %w", err)
		}
		o.Keys = append(o.Keys, list...)
	}
	for _, path := range f.logs {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			log, err := ledger.Open(path)
			if err != nil {
				return o, fmt.Errorf("--log: %w", err)
			}
			o.Ledgers = append(o.Ledgers, log)
			continue
		}
		list, err := publicKeys(path)
		if err != nil {
			return o, fmt.Errorf("--log: %w", err)
		}
		o.Logs = append(o.Logs, list...)
	}
	if f.proof == "" {
		return o, nil
	}
	if len(o.Logs)+len(o.Ledgers) == 0 {
		return o, errors.New("--proof needs --log: a proof holds for who has the log's key")
	}
	o.Proof, err = ledger.ReadReceipt(f.proof)
	return o, err
}

// publicKeys reads a file of keys, one a line.
func publicKeys(path string) (list []note.Verifier, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err = bundle.Verifiers(string(text))
	if err == nil && len(list) == 0 {
		err = errors.New("there is no key in it")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}
