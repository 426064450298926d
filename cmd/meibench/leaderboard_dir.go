package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"meibench/harness/bundle"
	"meibench/harness/ledger"
	"meibench/harness/results"
	"meibench/harness/verify"
	"meibench/internal/canon"
	"meibench/internal/strictyaml"
	"meibench/reports/board"
)

// boardFile is board.yaml.
type boardFile struct {
	Name     string   `yaml:"name"`
	Auditors []string `yaml:"auditors"` // names of keys whose signature on a bundle is an audit
}

// boardDir is the folder of a leaderboard.
type boardDir struct {
	dir  string
	conf boardFile
	keys []note.Verifier
	log  *ledger.Log
}

func makeBoard(dir, name, origin string) error {
	for _, sub := range []string{"bundles", "keys", "verdicts"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return fmt.Errorf("make leaderboard: %w", err)
		}
	}
	path := filepath.Join(dir, "board.yaml")
	if exists(path) {
		return fmt.Errorf("%s is there: the folder holds a leaderboard", path)
	}
	if _, err := ledger.Create(filepath.Join(dir, "log"), origin); err != nil {
		return err
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("name: %s\nauditors: [] # names of keys in the folder keys whose signature on a bundle is an audit\n", quoted)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("make leaderboard: %w", err)
	}
	return nil
}

func openBoard(dir string) (*boardDir, error) {
	b := &boardDir{dir: dir}
	path := filepath.Join(dir, "board.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open leaderboard: %w (is it a folder that meibench leaderboard init made?)", err)
	}
	if err := strictyaml.Decode(path, text, 1<<16, &b.conf); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "keys", "*.pub"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("open leaderboard: %w", err)
		}
		list, err := bundle.Verifiers(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		if len(list) != 1 || list[0].Name()+".pub" != filepath.Base(f) {
			return nil, fmt.Errorf("%s: want one key, whose name is that of the file: names are what the leaderboard knows submitters and auditors by", f)
		}
		b.keys = append(b.keys, list...)
	}
	b.log, err = ledger.Open(filepath.Join(dir, "log"))
	return b, err
}

func (b *boardDir) options() verify.Options {
	return verify.Options{Keys: b.keys, Ledgers: []*ledger.Log{b.log}}
}

// places are the lines of accepted bundles by h1.
func (b *boardDir) places() map[string]int64 {
	out := map[string]int64{}
	for i, e := range b.log.Entries() {
		if _, ok := out[e.Digest]; e.Kind == ledger.Bundle && !ok {
			out[e.Digest] = int64(i)
		}
	}
	return out
}

// fits refuses what is here already, or takes the place of what is not.
func (b *boardDir) fits(n *bundle.Bundle) error {
	have := b.places()
	if at, ok := have[n.H1]; ok {
		return fmt.Errorf("%s was accepted before, as line %d of the log", n.H1, at)
	}
	if was := n.Manifest.Supersedes; was != "" {
		if _, ok := have[was]; !ok {
			return fmt.Errorf("it supersedes %s, which was never accepted here", was)
		}
	}
	return nil
}

// accept keeps a bundle and its verdict, and then enters both into the log: what
// a crash leaves without a line does not count.
func (b *boardDir) accept(n *bundle.Bundle, v *bundle.Verdict) (int64, error) {
	file := filepath.Join(b.dir, "bundles", board.FileID(n.H1)+".meibench.zip")
	if info, err := os.Stat(n.Path); err != nil {
		return 0, err
	} else if info.IsDir() {
		if err := bundle.Pack(n.Dir, file); err != nil {
			return 0, err
		}
	} else if err := copyFile(n.Path, file); err != nil {
		return 0, err
	}
	text, err := canon.JSON(v)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "verdicts", board.FileID(n.H1)+".json"), append(text, '\n'), 0o644); err != nil {
		return 0, fmt.Errorf("keep the verdict: %w", err)
	}
	digest, err := verdictDigest(v)
	if err != nil {
		return 0, err
	}
	var plans []string
	for i := range n.Manifest.Runs {
		if p := n.Manifest.Runs[i].Plan; p != "" && !slices.Contains(plans, p) {
			plans = append(plans, p)
		}
	}
	return b.log.Append(ledger.Entry{Kind: ledger.Bundle, Digest: n.H1, Of: strings.Join(plans, "+"), Text: n.Manifest.Name + " by " + n.Manifest.Submitter},
		ledger.Entry{Kind: ledger.Verdict, Digest: digest, Of: n.H1, Text: v.Tier.String()})
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// input reads and checks every accepted bundle, on all processors.
func (b *boardDir) input(ctx context.Context, p *progress) (board.Input, error) {
	defer p.Close()
	in := board.Input{Name: b.conf.Name, Auditors: b.conf.Auditors, Log: b.log.Entries(), Checkpoint: b.log.Checkpoint(), Contracts: map[string]results.Contract{}}
	var err error
	if in.LogKey, err = b.log.PublicKey(); err != nil {
		return in, err
	}
	var lines []int64
	for _, at := range b.places() {
		lines = append(lines, at)
	}
	slices.Sort(lines)
	in.Entries = make([]board.Entry, len(lines))
	var (
		wait sync.WaitGroup
		lock sync.Mutex // guards next, bad and in.Contracts
		next int
		bad  []error
	)
	for range min(runtime.GOMAXPROCS(0), len(lines)) {
		wait.Go(func() {
			checker := verify.New(func() verify.Options { o := b.options(); o.Rerun = verify.None; return o }())
			for ctx.Err() == nil {
				lock.Lock()
				i := next
				next++
				lock.Unlock()
				if i >= len(lines) {
					return
				}
				e, terms, err := b.entry(ctx, checker, lines[i])
				lock.Lock()
				if err != nil {
					bad = append(bad, err)
				}
				for h, c := range terms {
					in.Contracts[h] = c
				}
				in.Entries[i] = e
				lock.Unlock()
			}
		})
	}
	wait.Wait()
	return in, errors.Join(append(bad, ctx.Err())...)
}

// entry checks the bundle of a line of the log.
func (b *boardDir) entry(ctx context.Context, c *verify.Checker, line int64) (e board.Entry, terms map[string]results.Contract, err error) {
	h1 := b.log.Entries()[line].Digest
	e.Bundle, e.File = h1, board.FileID(h1)+".meibench.zip"
	path := filepath.Join(b.dir, "bundles", e.File)
	n, err := bundle.Open(path)
	if err != nil {
		return e, nil, fmt.Errorf("%s, line %d of the log: %w (put back the file that was accepted)", path, line, err)
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if n.H1 != h1 {
		return e, nil, fmt.Errorf("%s: it is %s now, the log has %s: the file was changed; put back the one that was accepted", n.Path, n.H1, h1)
	}
	then, err := b.verdict(h1)
	if err != nil {
		return e, nil, err
	}
	now := c.Check(ctx, n)
	if now.Tier == bundle.Refused {
		return e, nil, fmt.Errorf("%s: it was accepted and does not hold any more: %s %s", n.Path, now.Findings[0].Rule, now.Findings[0].Text) // errors come first
	}
	e.Verdict = then
	e.Verdict.Signers = now.Signers // keys may have become known since
	if info, err := os.Stat(n.Path); err == nil {
		e.Bytes = info.Size()
	}
	e.Manifest, e.Summary = n.Manifest, n.Summary
	r, err := b.log.Receipt(line)
	if err != nil {
		return e, nil, err
	}
	e.Receipt = &r
	for _, l := range b.log.Entries() {
		if l.Kind == ledger.Retract && l.Digest == h1 {
			e.Retracted = l.Text
		}
	}
	terms = map[string]results.Contract{}
	for _, run := range n.Runs {
		for _, t := range run.Set.Manifest.Contracts {
			h, err := t.Hash()
			if err != nil {
				return e, nil, err
			}
			terms[h] = t
		}
	}
	return e, terms, nil
}

// verdict is what verify said when the bundle was added. The log has its digest.
func (b *boardDir) verdict(h1 string) (v bundle.Verdict, err error) {
	path := filepath.Join(b.dir, "verdicts", board.FileID(h1)+".json")
	text, err := os.ReadFile(path)
	if err != nil {
		return v, fmt.Errorf("verdict: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, fmt.Errorf("%s: %w", path, err)
	}
	digest, err := verdictDigest(&v)
	if err != nil {
		return v, err
	}
	for _, l := range b.log.Entries() {
		if l.Kind == ledger.Verdict && l.Of == h1 && l.Digest == digest {
			return v, nil
		}
	}
	return v, fmt.Errorf("%s: no line of the log has this verdict: it was changed", path)
}
