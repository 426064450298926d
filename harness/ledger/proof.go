package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Receipt proves that an entry is in a log. It is complete: who has the log's
// public key needs nothing else.
type Receipt struct {
	Entry      Entry       `json:"entry"`
	Index      int64       `json:"index"`
	Checkpoint string      `json:"checkpoint"` // signed note
	Proof      []tlog.Hash `json:"proof"`      // RFC 6962 audit path
}

// Receipt is the proof of an entry under the latest checkpoint.
func (l *Log) Receipt(index int64) (r Receipt, err error) {
	if index < 0 || index >= l.head.Size {
		return r, fmt.Errorf("log %s: entry %d of %d", l.dir, index, l.head.Size)
	}
	proof, err := tlog.ProveRecord(l.head.Size, index, l)
	if err != nil {
		return r, fmt.Errorf("log %s: %w", l.dir, err)
	}
	return Receipt{l.entries[index], index, l.Checkpoint(), proof}, nil
}

// ReadReceipt reads a receipt from a JSON file.
func ReadReceipt(path string) (*Receipt, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read receipt: %w", err)
	}
	r := &Receipt{}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(r); err != nil {
		return nil, fmt.Errorf("read receipt %s: %w", path, err)
	}
	return r, nil
}

// Check verifies the checkpoint's signature by one of the given keys and the
// path from the entry to its root. It returns the head that the receipt is under.
func (r *Receipt) Check(known note.Verifiers) (Head, error) {
	head, err := CheckHead(r.Checkpoint, known)
	if err != nil {
		return head, err
	}
	return head, r.under(head)
}

// CheckPath verifies the path alone: that the checkpoint, whoever signed it,
// covers the entry.
func (r *Receipt) CheckPath() (Head, error) {
	text, _, err := open(r.Checkpoint, note.VerifierList())
	if err != nil {
		return Head{}, err
	}
	head, err := ParseHead(text)
	if err != nil {
		return head, err
	}
	return head, r.under(head)
}

func (r *Receipt) under(head Head) error {
	line, err := r.Entry.line()
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(r.Proof, head.Size, head.Root, r.Index, tlog.RecordHash(line)); err != nil {
		return fmt.Errorf("receipt: entry %d is not under the checkpoint of %s at size %d: %w", r.Index, head.Origin, head.Size, err)
	}
	return nil
}

// CheckHead verifies a checkpoint: it must be signed by a known key whose name is
// the origin of the log.
func CheckHead(checkpoint string, known note.Verifiers) (Head, error) {
	text, signers, err := open(checkpoint, known)
	if err != nil {
		return Head{}, err
	}
	head, err := ParseHead(text)
	if err != nil {
		return head, err
	}
	for _, s := range signers {
		if s == head.Origin {
			return head, nil
		}
	}
	return head, fmt.Errorf("checkpoint of %s: not signed by its log's key (known signers: %d)", head.Origin, len(signers))
}

const maxNote = 1 << 16

// open returns the text of a note and the names of the known keys that signed
// it, none of which is an error of its own.
func open(signed string, known note.Verifiers) (text string, signers []string, err error) {
	if len(signed) > maxNote {
		return "", nil, fmt.Errorf("checkpoint: %d bytes are too many", len(signed))
	}
	n, err := note.Open([]byte(signed), known)
	var none *note.UnverifiedNoteError
	if errors.As(err, &none) {
		n, err = none.Note, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("checkpoint: %w", err)
	}
	for _, s := range n.Sigs {
		signers = append(signers, s.Name)
	}
	return n.Text, signers, nil
}

// Extends reports whether the log continues the history of an earlier head: nil,
// or what is wrong. A log that was rolled back or forked does not.
func (l *Log) Extends(old Head) error {
	switch {
	case old.Origin != l.origin:
		return fmt.Errorf("log %s is %s, the checkpoint is of %s", l.dir, l.origin, old.Origin)
	case old.Size > l.head.Size:
		return fmt.Errorf("log %s has %d entries, the earlier checkpoint covers %d: entries were taken back", l.dir, l.head.Size, old.Size)
	case old.Size == 0:
		return nil
	}
	proof, err := tlog.ProveTree(l.head.Size, old.Size, l)
	if err == nil {
		err = tlog.CheckTree(proof, l.head.Size, l.head.Root, old.Size, old.Root)
	}
	if err != nil {
		return fmt.Errorf("log %s does not continue the earlier checkpoint of size %d: its history was rewritten: %w", l.dir, old.Size, err)
	}
	return nil
}

// Cosign adds a signature to a checkpoint: who signs has seen it, and the keeper
// of the log can no longer throw that history away unnoticed.
func Cosign(checkpoint string, signer note.Signer, known note.Verifiers) (string, error) {
	if _, err := CheckHead(checkpoint, known); err != nil {
		return "", err
	}
	n, err := note.Open([]byte(checkpoint), known)
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	out, err := note.Sign(n, signer)
	if err != nil {
		return "", fmt.Errorf("sign checkpoint: %w", err)
	}
	return string(out), nil
}
