package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"meibench/harness/bundle"
	"meibench/harness/ledger"
	"meibench/harness/verify"
	"meibench/internal/canon"
	"meibench/reports/board"
)

const leaderboardLong = `A leaderboard is a folder: board.yaml (its name and auditors), keys (of submitters
and auditors), bundles, verdicts, and a log of all that was accepted.

  add      verifies a bundle, enters it into the log and keeps it
  build    makes a static site of what was accepted; every bundle is checked again
  retract  stops ranking a bundle; it stays, with the reason

Nothing on the site is typed by hand, and nothing is ever removed.`

func newLeaderboard(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "leaderboard", Short: "keep a leaderboard of verified bundles", Long: leaderboardLong,
		Example: "  meibench leaderboard init board --name 'Edge at home' --origin example.org/edge\n  meibench leaderboard add board mine.meibench.zip\n  meibench leaderboard build board --out site",
	}
	c.AddCommand(newBoardInit(a), newBoardAdd(a), newBoardBuild(a), newBoardRetract(a))
	return c
}

func newBoardInit(a *app) *cobra.Command {
	var name, origin string
	c := &cobra.Command{
		Use: "init DIR", Short: "start a leaderboard with a log of its own", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if name == "" || origin == "" {
				return withCode(exitUsage, errors.New("--name is what readers see, --origin names the log for ever, such as example.org/edge: both are needed"))
			}
			if err := makeBoard(args[0], name, origin); err != nil {
				return withCode(exitUsage, err)
			}
			fmt.Fprintf(a.out, "leaderboard: %s\nput the public keys of submitters and auditors into %s\nnext: meibench leaderboard add %s BUNDLE\n", args[0], filepath.Join(args[0], "keys"), args[0])
			return nil
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the leaderboard")
	c.Flags().StringVar(&origin, "origin", "", "name of its log: a domain or a project")
	return c
}

func newBoardAdd(a *app) *cobra.Command {
	var rerun string
	var unsigned bool
	c := &cobra.Command{
		Use: "add DIR BUNDLE...", Short: "verify bundles and accept those that hold", Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			how, err := verify.ParseRerun(rerun)
			if err != nil {
				return withCode(exitUsage, err)
			}
			b, err := openBoard(args[0])
			if err != nil {
				return withCode(exitUsage, err)
			}
			var refused []error
			for _, path := range args[1:] {
				if err := a.addBundle(c.Context(), b, path, addHow{how, unsigned}); err != nil {
					refused = append(refused, fmt.Errorf("%s: %w", path, err))
				}
			}
			return withCode(exitGate, errors.Join(refused...))
		},
	}
	c.Flags().BoolVar(&unsigned, "unsigned", false, "accept bundles that no key of the folder keys signed; they are marked")
	c.Flags().StringVar(&rerun, "rerun", "", "what to run again: none, sample, modelled or all (default modelled, and a sample of kernel cells)")
	return c
}

// addHow says how bundles are taken in.
type addHow struct {
	rerun    verify.Rerun
	unsigned bool // also without a known signature
}

// addBundle verifies a bundle and takes it in.
func (a *app) addBundle(ctx context.Context, b *boardDir, path string, how addHow) (err error) {
	o := b.options()
	p := newProgress(a.err, a.quiet)
	o.Rerun, o.Progress, o.Draw = how.rerun, p, rand.Text()
	opened, err := bundle.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	if err := b.fits(opened); err != nil {
		return err
	}
	v := verify.New(o).Check(ctx, opened)
	p.Close()
	if err := verify.Text(a.out, path, &v); err != nil {
		return err
	}
	if v.Tier == bundle.Refused {
		return errors.New("refused")
	}
	if len(v.Signers) == 0 && !how.unsigned {
		return fmt.Errorf("no key in %s signed it: put the submitter's public key there if you know whose it is, or accept it as it is with --unsigned", filepath.Join(b.dir, "keys"))
	}
	at, err := b.accept(opened, &v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "accepted: %s is line %d of the log\n", opened.H1, at)
	return err
}

func newBoardRetract(a *app) *cobra.Command {
	var why string
	c := &cobra.Command{
		Use: "retract DIR H1", Short: "stop ranking a bundle; it stays, with the reason", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := openBoard(args[0])
			if err != nil {
				return withCode(exitUsage, err)
			}
			if why == "" {
				return withCode(exitUsage, errors.New("--why is what readers will see: it is needed"))
			}
			if _, ok := b.places()[args[1]]; !ok {
				return withCode(exitUsage, fmt.Errorf("no bundle %s was accepted here", args[1]))
			}
			_, err = b.log.Append(ledger.Entry{Kind: ledger.Retract, Digest: args[1], Text: why})
			return withCode(exitEnvironment, err)
		},
	}
	c.Flags().StringVar(&why, "why", "", "the reason")
	return c
}

func newBoardBuild(a *app) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "build DIR", Short: "make the static site", Args: cobra.ExactArgs(1),
		Long: "Make a static site of what was accepted. Every bundle is read and checked again, but for what\nis computed anew: that was done when it was added, and the log has the verdict.\nEqual folders make equal sites.",
		RunE: func(c *cobra.Command, args []string) error {
			b, err := openBoard(args[0])
			if err != nil {
				return withCode(exitUsage, err)
			}
			if out == "" {
				out = filepath.Join(args[0], "site")
			}
			in, err := b.input(c.Context(), newProgress(a.err, a.quiet))
			if err != nil {
				return withCode(exitGate, err)
			}
			if err := board.Build(in).Write(out); err != nil {
				return withCode(exitEnvironment, err)
			}
			if err := b.ship(in, out); err != nil {
				return withCode(exitEnvironment, err)
			}
			fmt.Fprintf(a.out, "leaderboard: %s, %d entries\n", filepath.Join(out, "index.html"), len(in.Entries))
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", "", "folder of the site (default DIR/site)")
	return c
}

// ship puts the bundles beside the pages, as links where the file system can.
func (b *boardDir) ship(in board.Input, out string) error {
	if err := os.MkdirAll(filepath.Join(out, "bundles"), 0o755); err != nil {
		return fmt.Errorf("write site: %w", err)
	}
	for _, e := range in.Entries {
		from, to := filepath.Join(b.dir, "bundles", e.File), filepath.Join(out, "bundles", e.File)
		if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("write site: %w", err)
		}
		if os.Link(from, to) == nil {
			continue
		}
		if err := copyFile(from, to); err != nil {
			return fmt.Errorf("write site: %w", err)
		}
	}
	return nil
}

// verdictDigest is what the log says of a verdict.
func verdictDigest(v *bundle.Verdict) (string, error) { return canon.Hash(v) }
