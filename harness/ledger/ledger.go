// Package ledger is an append-only log that anyone can check: plans before they
// are run, attempts, results and bundles as they come.
//
//	l, err := ledger.Create(dir, "board.example")   // makes a key too
//	i, err := l.Append(ledger.Entry{Kind: ledger.Plan, Digest: digest})
//	r, err := l.Receipt(i)                          // proves the entry to who has the public key
//	root, err := r.Check(verifiers)
//
// A log is a folder: entries (one line of canonical JSON each), checkpoint (size
// and root of the Merkle tree over the lines, RFC 6962, as a note signed with
// Ed25519) and the keys. The tree and the notes are those of the Go checksum
// database (golang.org/x/mod/sumdb), and checkpoints have the form of C2SP
// tlog-checkpoint, so other tools read them.
//
// What it proves: an entry that a checkpoint covers cannot be changed, removed
// or put in later without the root changing, and two checkpoints can be shown to
// be of one history. What it does not: who keeps the key can throw away a history
// that nobody else has seen. A checkpoint is worth something once another party
// holds it; let them sign it (Cosign).
package ledger

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"meibench/internal/canon"
	"meibench/internal/filelock"
)

// Names of the files of a log.
const (
	EntriesFile    = "entries"
	CheckpointFile = "checkpoint"
	PublicFile     = "log.pub"
	PrivateFile    = "log.key"
)

// Kinds of entries.
const (
	Attempt = "attempt" // a run of a plan was started; Of is the plan
	Bundle  = "bundle"  // a bundle was accepted; Digest is its h1, Of the plan
	Plan    = "plan"    // a plan was fixed; Digest is its SHA-256
	Result  = "result"  // a run ended; Digest is that of its tables, Of the plan
	Retract = "retract" // Digest is no longer to be shown, Text says why
	Verdict = "verdict" // of verify on a bundle; Digest is its SHA-256, Of the h1
)

// Entry is a line of the log.
type Entry struct {
	Kind   string `json:"kind"`
	Digest string `json:"digest,omitempty"`
	Of     string `json:"of,omitempty"`   // the digest that this belongs to
	Text   string `json:"text,omitempty"` // for people; no new lines
}

const (
	maxLine    = 4096
	maxEntries = 1 << 24
)

func (e Entry) line() ([]byte, error) {
	switch e.Kind {
	case Attempt, Bundle, Plan, Result, Retract, Verdict:
	default:
		return nil, fmt.Errorf("log entry: unknown kind %q", e.Kind)
	}
	b, err := canon.JSON(e)
	if err == nil && len(b) > maxLine {
		err = fmt.Errorf("log entry: %d bytes, at most %d fit", len(b), maxLine)
	}
	return b, err
}

// Log is a log that is open. It is not for use by several goroutines at once;
// several processes may append to one folder, one after the other.
type Log struct {
	dir        string
	origin     string
	verifier   note.Verifier
	signer     note.Signer // nil if only the public key is there
	entries    []Entry
	hashes     []tlog.Hash
	checkpoint []byte
	head       Head
}

// Head is the state of a log.
type Head struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// Text is the body of a checkpoint.
func (h Head) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", h.Origin, h.Size, base64.StdEncoding.EncodeToString(h.Root[:]))
}

// ParseHead reads the body of a checkpoint; lines after the third are for
// extensions and do not matter here.
func ParseHead(text string) (h Head, err error) {
	parts := strings.SplitN(text, "\n", 4)
	if len(parts) < 4 || parts[0] == "" {
		return h, errors.New("checkpoint: want three lines: origin, size, root")
	}
	h.Origin = parts[0]
	if h.Size, err = strconv.ParseInt(parts[1], 10, 64); err != nil || h.Size < 0 || strconv.FormatInt(h.Size, 10) != parts[1] {
		return h, fmt.Errorf("checkpoint: %q is no size", parts[1])
	}
	root, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(root) != len(h.Root) {
		return h, fmt.Errorf("checkpoint: %q is no root", parts[2])
	}
	copy(h.Root[:], root)
	return h, nil
}

var goodOrigin = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$`)

// Create starts a log in a folder, which it makes, with a fresh key. The origin
// names the log for ever: a domain or a project, such as example.org/board.
func Create(dir, origin string) (*Log, error) {
	if !goodOrigin.MatchString(origin) {
		return nil, fmt.Errorf("create log: origin %q: want letters, digits and . _ / -, at most 100", origin)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, CheckpointFile)); err == nil {
		return nil, fmt.Errorf("create log: %s already holds one: open it, or choose another folder", dir)
	}
	private, public, err := note.GenerateKey(nil, origin)
	if err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	l := &Log{dir: dir, origin: origin}
	if err := l.keys(private, public); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name, text string
		mode       os.FileMode
	}{{PrivateFile, private + "\n", 0o600}, {PublicFile, public + "\n", 0o644}, {EntriesFile, "", 0o644}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.text), f.mode); err != nil {
			return nil, fmt.Errorf("create log: %w", err)
		}
	}
	return l, l.seal()
}

func (l *Log) keys(private, public string) (err error) {
	if l.verifier, err = note.NewVerifier(strings.TrimSpace(public)); err != nil {
		return fmt.Errorf("log %s: public key: %w", l.dir, err)
	}
	if private != "" {
		if l.signer, err = note.NewSigner(strings.TrimSpace(private)); err != nil {
			return fmt.Errorf("log %s: private key: %w", l.dir, err)
		}
		if l.signer.KeyHash() != l.verifier.KeyHash() || l.signer.Name() != l.verifier.Name() {
			return fmt.Errorf("log %s: %s and %s are not one key", l.dir, PrivateFile, PublicFile)
		}
	}
	l.origin = l.verifier.Name()
	return nil
}

// Open reads a log and checks all of it: the signature of the checkpoint and the
// root over every line. Lines beyond the checkpoint are what a crash left of an
// append that never counted; they are ignored.
func Open(dir string) (*Log, error) {
	l := &Log{dir: dir}
	public, err := os.ReadFile(filepath.Join(dir, PublicFile))
	if err != nil {
		return nil, fmt.Errorf("open log: %w (is it a folder that meibench log init made?)", err)
	}
	private, err := os.ReadFile(filepath.Join(dir, PrivateFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := l.keys(string(private), string(public)); err != nil {
		return nil, err
	}
	return l, l.load()
}

func (l *Log) load() error {
	text, err := os.ReadFile(filepath.Join(l.dir, CheckpointFile))
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	head, err := CheckHead(string(text), note.VerifierList(l.verifier))
	if err != nil {
		return fmt.Errorf("open log %s: %w", l.dir, err)
	}
	lines, err := os.ReadFile(filepath.Join(l.dir, EntriesFile))
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	l.entries, l.hashes = nil, nil
	if head.Size > maxEntries {
		return fmt.Errorf("open log %s: %d entries are more than any log has", l.dir, head.Size)
	}
	for n := range head.Size {
		line, rest, whole := bytes.Cut(lines, []byte("\n"))
		if !whole {
			return fmt.Errorf("open log %s: the checkpoint covers %d entries, %d are there: entries were removed", l.dir, head.Size, n)
		}
		lines = rest
		if err := l.take(line); err != nil {
			return fmt.Errorf("open log %s: line %d: %w", l.dir, n+1, err)
		}
	}
	root, err := tlog.TreeHash(head.Size, l)
	if err != nil {
		return fmt.Errorf("open log %s: %w", l.dir, err)
	}
	if root != head.Root {
		return fmt.Errorf("open log %s: the entries do not hash to the root of the checkpoint: a line was changed, removed or put in", l.dir)
	}
	l.checkpoint, l.head = text, head
	return nil
}

// take adds a line to what is in memory.
func (l *Log) take(line []byte) error {
	if len(line) > maxLine {
		return fmt.Errorf("%d bytes, at most %d fit", len(line), maxLine)
	}
	var e Entry
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return err
	}
	if again, err := e.line(); err != nil || !bytes.Equal(again, line) {
		return errors.Join(err, errors.New("not the canonical form of an entry"))
	}
	hashes, err := tlog.StoredHashes(int64(len(l.entries)), line, l)
	if err != nil {
		return err
	}
	l.entries, l.hashes = append(l.entries, e), append(l.hashes, hashes...)
	return nil
}

// ReadHashes serves package tlog.
func (l *Log) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, k := range at {
		if k < 0 || k >= int64(len(l.hashes)) {
			return nil, fmt.Errorf("log: hash %d of %d", k, len(l.hashes))
		}
		out[i] = l.hashes[k]
	}
	return out, nil
}

// Append adds entries, all or none, and signs a new checkpoint. It returns the
// index of the first. What other processes have appended since is taken in
// first.
func (l *Log) Append(entries ...Entry) (first int64, err error) {
	if l.signer == nil {
		return 0, fmt.Errorf("append to log %s: %s is missing: only who keeps the log can append", l.dir, PrivateFile)
	}
	f, err := os.OpenFile(filepath.Join(l.dir, EntriesFile), os.O_RDWR, 0o644)
	if err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := filelock.Exclusive(f); err != nil {
		return 0, fmt.Errorf("append to log %s: %w: try again", l.dir, err)
	}
	if err := l.load(); err != nil {
		return 0, err
	}
	first = l.head.Size
	if err := l.write(f, entries); err != nil {
		return 0, errors.Join(fmt.Errorf("append to log %s: %w", l.dir, err), l.load())
	}
	return first, l.seal()
}

// write puts lines behind those that the checkpoint covers.
func (l *Log) write(f *os.File, entries []Entry) error {
	end := int64(0)
	for _, e := range l.entries {
		line, err := e.line()
		if err != nil {
			return err
		}
		end += int64(len(line)) + 1
	}
	if err := f.Truncate(end); err != nil { // what a crash left
		return err
	}
	var out bytes.Buffer
	for _, e := range entries {
		line, err := e.line()
		if err != nil {
			return err
		}
		if err := l.take(line); err != nil {
			return err
		}
		out.Write(append(line, '\n'))
	}
	if _, err := f.WriteAt(out.Bytes(), end); err != nil {
		return err
	}
	return f.Sync()
}

// seal signs a checkpoint over all entries and puts it in the place of the old.
func (l *Log) seal() error {
	root, err := tlog.TreeHash(int64(len(l.entries)), l)
	if err != nil {
		return fmt.Errorf("log %s: %w", l.dir, err)
	}
	head := Head{l.origin, int64(len(l.entries)), root}
	text, err := note.Sign(&note.Note{Text: head.Text()}, l.signer)
	if err != nil {
		return fmt.Errorf("sign checkpoint of log %s: %w", l.dir, err)
	}
	path := filepath.Join(l.dir, CheckpointFile)
	if err := replace(path, text); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	l.checkpoint, l.head = text, head
	return nil
}

// replace writes a file so that at any moment either the old or the new content
// is under its name, also if the machine stops.
func replace(path string, text []byte) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Head is the state that the checkpoint covers.
func (l *Log) Head() Head { return l.head }

// Checkpoint is the signed note over the head.
func (l *Log) Checkpoint() string { return string(l.checkpoint) }

// Entries are all entries, oldest first. The caller must not change them.
func (l *Log) Entries() []Entry { return l.entries }

// Verifier is the log's public key.
func (l *Log) Verifier() note.Verifier { return l.verifier }

// PublicKey is the log's public key as a line of text.
func (l *Log) PublicKey() (string, error) {
	b, err := os.ReadFile(filepath.Join(l.dir, PublicFile))
	return strings.TrimSpace(string(b)), err
}
