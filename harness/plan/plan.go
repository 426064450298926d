// Package plan fixes what will be run before it is run.
//
//	p, err := lab.Plan(options)              // package harness resolves every name
//	err = p.Write("plan.json")
//	r, err := plan.Commit(log, p)            // into a log, before the run
//	err = r.Check(p, verifiers)              // anyone, afterwards
//	seed, err := r.Seed()                    // what the run has to use
//
// A plan holds every cell with its parameters, its repeats and its contract, and
// the digests of models and profiles. Every run folder keeps its plan, so that
// `meibench run --plan` repeats the run without the command line that made it.
//
// A plan that is committed has no seed of its own choice: the seed is derived
// from the root of the log at the moment when the plan became its last entry.
// Nobody can know it before, so a seed cannot be picked by its result; who
// commits again to get another leaves each try in the log. What a log proves and
// what not is said in package ledger.
package plan

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"meibench/harness/ledger"
	"meibench/internal/canon"
	"meibench/suites"
)

// Formats of plans and receipts.
const (
	Format        = "meibench.plan/v1"
	ReceiptFormat = "meibench.receipt/v1"
)

// Names of the files in a run folder.
const (
	File        = "plan.json"
	ReceiptFile = "receipt.json"
)

// Plan is what will be run. Its digest does not depend on who runs it, where or
// when: the profile of the machine at hand is no part of it.
type Plan struct {
	Format   string            `json:"format"`
	Quick    bool              `json:"quick,omitempty"`
	Suites   []Suite           `json:"suites"`
	Models   map[string]string `json:"models"`   // model -> SHA-256
	Profiles map[string]string `json:"profiles"` // site, device and link profiles -> SHA-256
}

// Suite is a suite with its cells as they will be run.
type Suite struct {
	Name     string `json:"name"`
	Question string `json:"question"`
	Hash     string `json:"hash"` // as in package suites, overrides included
	Text     string `json:"text"` // of the file, which overrides may have changed
	Cells    []Cell `json:"cells"`
}

// Cell is a cell and the terms under which its runs may be compared.
type Cell struct {
	suites.Cell
	Contract string `json:"contract"`
}

// Digest is the SHA-256 of the canonical form, in hex.
func (p *Plan) Digest() (string, error) { return canon.Hash(p) }

// Runs is how many runs of cells the plan asks for.
func (p *Plan) Runs() (n int) {
	for _, s := range p.Suites {
		for _, c := range s.Cells {
			n += c.Repeats
		}
	}
	return n
}

// Load is the plan's suites, to be run.
func (p *Plan) Load() (out []*suites.Suite) {
	for _, s := range p.Suites {
		suite := &suites.Suite{Name: s.Name, Question: s.Question, Text: []byte(s.Text), Hash: s.Hash}
		for _, c := range s.Cells {
			suite.Cells = append(suite.Cells, c.Cell)
		}
		out = append(out, suite)
	}
	return out
}

// Only is the plan with some of its cells, named SUITE/NAME or by their name alone;
// no names mean all. A name that no cell has is an error. Its digest is another.
func (p *Plan) Only(names []string) (*Plan, error) {
	if len(names) == 0 {
		return p, nil
	}
	out, found := *p, map[string]bool{}
	out.Suites = nil
	for _, s := range p.Suites {
		var cells []Cell
		for _, c := range s.Cells {
			for _, n := range names {
				if n == c.Name || n == s.Name+"/"+c.Name {
					found[n] = true
					cells = append(cells, c)
					break
				}
			}
		}
		if s.Cells = cells; len(cells) > 0 {
			out.Suites = append(out.Suites, s)
		}
	}
	for _, n := range names {
		if !found[n] {
			return nil, fmt.Errorf("the plan has no cell %q: its report lists them", n)
		}
	}
	return &out, nil
}

// Write writes the plan to a file, in canonical form.
func (p *Plan) Write(path string) error { return write(path, p) }

func write(path string, v any) error {
	b, err := canon.JSON(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

const mostBytes = 64 << 20

// Read reads a plan; a folder is a run folder, whose plan is meant. A run made
// before there were plans has none: os.ErrNotExist.
func Read(path string) (*Plan, error) {
	p := &Plan{}
	path, err := strict(path, File, p)
	if err != nil {
		return nil, err
	}
	if p.Format != Format {
		return nil, fmt.Errorf("read plan %s: format is %q, this program reads %q", path, p.Format, Format)
	}
	if len(p.Suites) == 0 {
		return nil, fmt.Errorf("read plan %s: there is no suite in it", path)
	}
	return p, nil
}

// strict reads a JSON file without unknown fields.
func strict(path, inside string, v any) (string, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, inside)
	}
	f, err := os.Open(path)
	if err != nil {
		return path, fmt.Errorf("read plan: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostBytes+1))
	if err != nil {
		return path, fmt.Errorf("read plan %s: %w", path, err)
	}
	if len(b) > mostBytes {
		return path, fmt.Errorf("read plan %s: more than %d bytes", path, mostBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return path, fmt.Errorf("read plan %s: %w", path, err)
	}
	return path, nil
}

// Receipt is the proof that a plan was in a log before its run.
type Receipt struct {
	Format  string          `json:"format"`
	Plan    ledger.Receipt  `json:"plan"`              // under the checkpoint in which the plan is the last entry
	Attempt *ledger.Receipt `json:"attempt,omitempty"` // that the run began
}

// Commit puts a plan into a log.
func Commit(log *ledger.Log, p *Plan) (*Receipt, error) {
	digest, err := p.Digest()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range p.Suites {
		names = append(names, s.Name)
	}
	at, err := log.Append(ledger.Entry{Kind: ledger.Plan, Digest: digest, Text: fmt.Sprintf("%.200s, %d runs of cells", strings.Join(names, "+"), p.Runs())})
	if err != nil {
		return nil, err
	}
	in, err := log.Receipt(at)
	if err != nil {
		return nil, err
	}
	return &Receipt{Format: ReceiptFormat, Plan: in}, nil
}

// Begin records that a run of a committed plan begins, and adds the proof.
func (r *Receipt) Begin(log *ledger.Log) error {
	if _, err := r.Plan.Check(note.VerifierList(log.Verifier())); err != nil {
		return fmt.Errorf("the plan was committed to another log: %w", err)
	}
	at, err := log.Append(ledger.Entry{Kind: ledger.Attempt, Of: r.Plan.Entry.Digest})
	if err != nil {
		return err
	}
	in, err := log.Receipt(at)
	r.Attempt = &in
	return err
}

// End records how a run of a committed plan ended: tables is the digest of its
// tables, "" if there are none.
func (r *Receipt) End(log *ledger.Log, tables, text string) error {
	_, err := log.Append(ledger.Entry{Kind: ledger.Result, Digest: tables, Of: r.Plan.Entry.Digest, Text: text})
	return err
}

// Seed is the seed of the run: 53 bits of the SHA-256 over the log's root with
// the plan as its last entry, and the plan. JSON readers do not round it.
func (r *Receipt) Seed() (uint64, error) {
	head, err := r.Plan.CheckPath()
	if err != nil {
		return 0, err
	}
	sum := sha256.Sum256([]byte("meibench seed v1\n" + head.Text() + r.Plan.Entry.Digest + "\n"))
	return max(1, binary.BigEndian.Uint64(sum[:8])>>11), nil
}

// Check verifies that the plan is the last entry under a checkpoint that one of
// the known logs signed, and that the attempt belongs to it and came later.
func (r *Receipt) Check(p *Plan, known note.Verifiers) error {
	digest, err := p.Digest()
	if err != nil {
		return err
	}
	if e := r.Plan.Entry; e.Kind != ledger.Plan || e.Digest != digest {
		return fmt.Errorf("receipt: it is of %s %.16s, not of this plan, %.16s", e.Kind, e.Digest, digest)
	}
	head, err := r.Plan.Check(known)
	if err != nil {
		return err
	}
	if head.Size != r.Plan.Index+1 {
		return fmt.Errorf("receipt: the plan is entry %d of %d under its checkpoint; the seed is that of the checkpoint in which it is the last", r.Plan.Index, head.Size)
	}
	if r.Attempt == nil {
		return nil
	}
	began, err := r.Attempt.Check(known)
	if err != nil {
		return fmt.Errorf("attempt: %w", err)
	}
	if e := r.Attempt.Entry; e.Kind != ledger.Attempt || e.Of != digest || r.Attempt.Index <= r.Plan.Index || began.Origin != head.Origin {
		return errors.New("receipt: the attempt in it is not one of this plan")
	}
	return nil
}

// Write writes the receipt to a file.
func (r *Receipt) Write(path string) error { return write(path, r) }

// ReadReceipt reads a receipt; a folder is a run folder, whose receipt is meant.
// A run whose plan was not committed has none: os.ErrNotExist.
func ReadReceipt(path string) (*Receipt, error) {
	r := &Receipt{}
	path, err := strict(path, ReceiptFile, r)
	if err != nil {
		return nil, err
	}
	if r.Format != ReceiptFormat {
		return nil, fmt.Errorf("read receipt %s: format is %q, this program reads %q", path, r.Format, ReceiptFormat)
	}
	return r, nil
}
