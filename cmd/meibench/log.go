package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"meibench/harness/ledger"
)

const logLong = `An append-only log of plans, attempts, results and bundles that anyone can check:
lines, a Merkle tree over them, and a signed checkpoint.

What is under a checkpoint cannot be changed, removed or put in later unnoticed
by who holds that checkpoint. Give checkpoints away, and let others sign them.`

func newLog(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "log", Short: "an append-only log of plans, attempts and bundles", Long: logLong,
		Example: "  meibench log init board/log --origin board.example\n  meibench log show board/log\n  meibench log check board/log --since checkpoint.old",
	}
	c.AddCommand(newLogInit(a), newLogShow(a), newLogCheck(a), newLogSign(a))
	return c
}

func newLogInit(a *app) *cobra.Command {
	var origin string
	c := &cobra.Command{
		Use: "init DIR", Short: "start a log with a key of its own", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if origin == "" {
				return withCode(exitUsage, errors.New("--origin names the log for ever, such as example.org/board"))
			}
			l, err := ledger.Create(args[0], origin)
			if err != nil {
				return withCode(exitUsage, err)
			}
			key, err := l.PublicKey()
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "log: %s\npublic key: %s\nkeep %s/%s to yourself: who has it can append\n", args[0], key, args[0], ledger.PrivateFile)
			return nil
		},
	}
	c.Flags().StringVar(&origin, "origin", "", "name of the log: a domain or a project, such as example.org/board")
	return c
}

func newLogShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show DIR", Short: "the entries of a log", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := ledger.Open(args[0])
			if err != nil {
				return withCode(exitUsage, err)
			}
			if a.json {
				return writeJSON(a.out, l.Entries())
			}
			for i, e := range l.Entries() {
				of := ""
				if e.Of != "" {
					of = " of " + short(e.Of)
				}
				fmt.Fprintln(a.out, strings.TrimRight(fmt.Sprintf("%5d  %-8s%s %s  %s", i, e.Kind, of, short(e.Digest), e.Text), " "))
			}
			fmt.Fprintf(a.out, "%d entries, root %s\n", l.Head().Size, l.Head().Root)
			return nil
		},
	}
}

// short is the beginning of a digest.
func short(digest string) string {
	if kind, sum, ok := strings.Cut(digest, ":"); ok { // h1:…
		return kind + ":" + sum[:min(len(sum), 12)]
	}
	return digest[:min(len(digest), 16)]
}

func newLogCheck(a *app) *cobra.Command {
	var since string
	c := &cobra.Command{
		Use: "check DIR", Short: "check a log: signature, root, and that it continues an earlier checkpoint", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := ledger.Open(args[0])
			if err != nil {
				return withCode(exitGate, err)
			}
			if since == "" {
				fmt.Fprintf(a.out, "ok: %d entries under the checkpoint of %s; --since FILE compares with a checkpoint that you kept\n", l.Head().Size, l.Head().Origin)
				return nil
			}
			text, err := os.ReadFile(since)
			if err != nil {
				return withCode(exitUsage, err)
			}
			old, err := ledger.CheckHead(string(text), note.VerifierList(l.Verifier()))
			if err == nil {
				err = l.Extends(old)
			}
			if err != nil {
				return withCode(exitGate, err)
			}
			fmt.Fprintf(a.out, "ok: %d entries, the first %d are those of the earlier checkpoint\n", l.Head().Size, old.Size)
			return nil
		},
	}
	c.Flags().StringVar(&since, "since", "", "a checkpoint that you kept")
	return c
}

func newLogSign(a *app) *cobra.Command {
	var key, public string
	c := &cobra.Command{
		Use: "sign CHECKPOINT", Short: "sign another's checkpoint as a witness; the result goes to stdout", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return withCode(exitUsage, err)
			}
			signer, verifier, err := witness(key, public)
			if err != nil {
				return withCode(exitUsage, err)
			}
			both, err := ledger.Cosign(string(text), signer, note.VerifierList(verifier))
			if err != nil {
				return withCode(exitGate, err)
			}
			_, err = fmt.Fprint(a.out, both)
			return err
		},
	}
	c.Flags().StringVar(&key, "key", "", "file with your private key, from meibench bundle keygen")
	c.Flags().StringVar(&public, "log-key", "", "file with the log's public key (log.pub)")
	return c
}

// witness reads the key that signs and the one that must have signed.
func witness(key, public string) (note.Signer, note.Verifier, error) {
	if key == "" || public == "" {
		return nil, nil, errors.New("--key and --log-key are needed: yours to sign with, the log's to check before")
	}
	private, err := os.ReadFile(key)
	if err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(public)
	if err != nil {
		return nil, nil, err
	}
	signer, err := note.NewSigner(strings.TrimSpace(string(private)))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", key, err)
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", public, err)
	}
	return signer, verifier, nil
}
