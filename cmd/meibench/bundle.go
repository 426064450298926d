package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"meibench/harness/bundle"
)

// bundleFlags are the flags of meibench bundle.
type bundleFlags struct {
	opt       bundle.Options
	key       string
	out       string
	dir       bool
	checklist bool
}

const bundleLong = `Make a bundle of finished run folders: what is handed in to a leaderboard or put
beside a paper. It holds the runs, digests of every file, every number that may be
published (derived again from the rows), how to run it again, an artifact
checklist, RO-Crate and Croissant metadata, and a signature.

Nothing in it is typed by hand, and the same runs and key make the same bytes.
What would give away hosts, users or folders is taken out of run.json, and listed;
--identify leaves it in. docs/bundles.md has the details.`

func newBundle(a *app) *cobra.Command {
	f := &bundleFlags{}
	c := &cobra.Command{
		Use: "bundle RUN...", Short: "make a bundle of run folders, to be handed in", Long: bundleLong,
		Example: "  meibench bundle keygen alice\n  meibench bundle runs/a runs/b --name pi5 --key alice.key\n  meibench bundle sign pi5.meibench.zip --key bob.key",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return f.make(a, args) },
	}
	fs := c.Flags()
	fs.StringVar(&f.opt.Name, "name", "", "name of the entry (default that of the first run folder)")
	fs.StringVar(&f.opt.Title, "title", "", "one line for readers")
	fs.StringVar(&f.key, "key", "", "private key to sign with, from meibench bundle keygen")
	fs.StringVar(&f.out, "out", "", "file to write (default NAME"+bundle.Extension+"), or folder with --dir (default NAME)")
	fs.BoolVar(&f.dir, "dir", false, "write a folder instead of a zip; both are the same bundle")
	fs.BoolVar(&f.opt.Open, "open", false, "take runs that can only be in the open division, such as quick ones")
	fs.BoolVar(&f.opt.Identify, "identify", false, "leave paths, and names of hosts and users, in")
	fs.StringVar(&f.opt.Contact, "contact", "", "whom to ask; left out unless given")
	fs.StringVar(&f.opt.Licence, "licence", bundle.DefaultLicence, "licence of the data, as SPDX calls it")
	fs.StringVar(&f.opt.Supersedes, "supersedes", "", "h1 of an earlier bundle that this one replaces")
	fs.BoolVar(&f.checklist, "checklist", false, "print the artifact checklist, and write nothing")
	c.AddCommand(newKeygen(a), newCosign(a))
	return c
}

// bundleResult is what --json prints.
type bundleResult struct {
	File       string             `json:"file"`
	H1         string             `json:"h1"`
	Name       string             `json:"name"`
	Submitter  string             `json:"submitter"`
	Division   string             `json:"division"`
	Open       []string           `json:"open,omitempty"`
	Claims     int                `json:"claims"`
	Attempts   bundle.Attempts    `json:"attempts"`
	Redactions []bundle.Redaction `json:"redactions,omitempty"`
	Next       string             `json:"next"`
}

func (f *bundleFlags) make(a *app, runs []string) error {
	if f.key != "" {
		key, err := bundle.LoadKey(f.key)
		if err != nil {
			return withCode(exitUsage, err)
		}
		f.opt.Key = key
	}
	f.opt.Private = bundle.Here()
	d, err := bundle.Prepare(runs, f.opt)
	if err != nil {
		return withCode(exitUsage, err)
	}
	if f.checklist {
		return f.printChecklist(a, d)
	}
	out := f.out
	if out == "" {
		if out = d.Name(); !f.dir {
			out += bundle.Extension
		}
	}
	if exists(out) {
		return withCode(exitUsage, fmt.Errorf("%s is there: choose another --out or --name", out))
	}
	f.sayRedactions(a, d)
	res, err := f.write(d, out)
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	if f.opt.Key == nil {
		fmt.Fprintln(a.err, "warning: nobody signed it; sign it with --key FILE (meibench bundle keygen NAME makes a key)")
	}
	if a.json {
		return writeJSON(a.out, res)
	}
	res.text(a)
	return nil
}

// sayRedactions lists what is taken out, before anything is written.
func (f *bundleFlags) sayRedactions(a *app, d *bundle.Draft) {
	if a.json {
		return
	}
	if f.opt.Identify {
		fmt.Fprintln(a.out, "redacted: nothing (--identify)")
		return
	}
	fmt.Fprintf(a.out, "redacted: %d place(s)\n", len(d.Redactions))
	for _, r := range d.Redactions {
		fmt.Fprintf(a.out, "  %s: %q becomes %q\n", r.File, r.Old, r.New)
	}
}

// write writes the bundle and opens it as anyone else would.
func (f *bundleFlags) write(d *bundle.Draft, out string) (res bundleResult, err error) {
	folder := out
	if !f.dir {
		if folder, err = os.MkdirTemp(filepath.Dir(out), ".bundle-"); err != nil {
			return res, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	}
	if err := d.Write(folder); err != nil {
		return res, err
	}
	if !f.dir {
		if err := bundle.Pack(folder, out); err != nil {
			return res, err
		}
	}
	b, err := bundle.Open(out)
	if err != nil {
		return res, fmt.Errorf("what was written cannot be read back: %w", err)
	}
	m := &b.Manifest
	res = bundleResult{File: out, H1: b.H1, Name: m.Name, Submitter: m.Submitter, Division: m.Division, Open: m.Open, Claims: len(b.Summary.Claims),
		Attempts: m.Attempts, Redactions: d.Redactions, Next: "meibench verify " + out}
	return res, b.Close()
}

func (r *bundleResult) text(a *app) {
	fmt.Fprintln(a.out, "division:", r.Division)
	for _, why := range r.Open {
		fmt.Fprintf(a.out, "  %s\n", why)
	}
	t := r.Attempts
	fmt.Fprintf(a.out, "claims: %d, from %d of %d runs of cells (%d INVALID) and %d requests (%d missed)\n", r.Claims, t.Done, t.Cells, t.Invalid, t.Requests, t.Missed)
	if r.Submitter != "" {
		fmt.Fprintln(a.out, "signed by:", r.Submitter)
	}
	fmt.Fprintln(a.out, "identity:", r.H1)
	fmt.Fprintln(a.out, "bundle:", r.File)
	fmt.Fprintln(a.out, "next:", r.Next)
}

// printChecklist makes the bundle aside and prints one file of it.
func (f *bundleFlags) printChecklist(a *app, d *bundle.Draft) (err error) {
	folder, err := os.MkdirTemp("", "meibench-checklist-")
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	if err := d.Write(folder); err != nil {
		return withCode(exitEnvironment, err)
	}
	text, err := os.ReadFile(filepath.Join(folder, bundle.ChecklistFile))
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	_, err = a.out.Write(text)
	return err
}

func newKeygen(a *app) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "keygen NAME", Short: "make a key to sign bundles with",
		Long: "Make NAME.key, which signs and is yours alone, and NAME.pub, the line by which others\n" +
			"check what you signed (meibench verify --keys). Ed25519, in the form of Go's signed notes.",
		Example: "  meibench bundle keygen alice --out ~/.config/meibench",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			key, pub, err := bundle.Generate(dir, args[0])
			if err != nil {
				return withCode(exitUsage, err)
			}
			text, err := os.ReadFile(pub)
			if err != nil {
				return withCode(exitEnvironment, err)
			}
			if a.json {
				return writeJSON(a.out, map[string]string{"key": key, "pub": pub, "public": strings.TrimSpace(string(text))})
			}
			fmt.Fprintf(a.out, "private key: %s (keep it; there is no copy)\npublic key: %s\n%s", key, pub, text)
			return nil
		},
	}
	c.Flags().StringVar(&dir, "out", ".", "folder to put the two files into")
	return c
}

func newCosign(a *app) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "sign BUNDLE", Short: "add a signature to a bundle",
		Long: "Add a signature to a bundle, as an auditor does, or who ran it again and got the same.\n" +
			"The bundle stays the same: neither its files nor its h1 change. A folder is signed in place.",
		Example: "  meibench bundle sign pi5.meibench.zip --key bob.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if file == "" {
				return withCode(exitUsage, errors.New("--key is missing: the private key to sign with (meibench bundle keygen NAME makes one)"))
			}
			key, err := bundle.LoadKey(file)
			if err != nil {
				return withCode(exitUsage, err)
			}
			if err := bundle.Sign(args[0], key); err != nil {
				return withCode(exitOfBundle(err), err)
			}
			b, err := bundle.Open(args[0])
			if err != nil {
				return withCode(exitOfBundle(err), err)
			}
			defer b.Close()
			list, err := b.Signers()
			if err != nil {
				return withCode(exitOfBundle(err), err)
			}
			if a.json {
				return writeJSON(a.out, map[string]any{"h1": b.H1, "signatures": list})
			}
			fmt.Fprintf(a.out, "%s has %d signature(s) now, the last by %s\n", b.H1, len(list), key.Name())
			return nil
		},
	}
	c.Flags().StringVar(&file, "key", "", "private key to sign with")
	return c
}

// exitOfBundle is the exit code of an error of bundle.Open: a bundle that is
// refused, or one that is not there.
func exitOfBundle(err error) int {
	var r *bundle.Refusal
	if errors.As(err, &r) {
		return exitGate
	}
	return exitUsage
}
