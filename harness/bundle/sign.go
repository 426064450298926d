package bundle

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// noteHead is the first line of what is signed.
const noteHead = "meibench bundle v1"

// unsigned stands for the submitter of a bundle that nobody handed in.
const unsigned = "-"

// NoteText is what is signed about a bundle: its h1, the SHA-256 of SHA256SUMS
// in hexadecimal (the same digest, as other tools print it) and who hands it in,
// each on a line of its own.
func NoteText(sums []byte, submitter string) string {
	if submitter == "" {
		submitter = unsigned
	}
	sum := sha256.Sum256(sums)
	return strings.Join([]string{noteHead, hash1(sums), hex.EncodeToString(sum[:]), submitter}, "\n") + "\n"
}

// hash1 is the h1 of golang.org/x/mod/sumdb/dirhash over the files that a
// SHA256SUMS lists: dirhash hashes the very lines that sha256sum prints.
func hash1(sums []byte) string {
	sum := sha256.Sum256(sums)
	return "h1:" + base64.StdEncoding.EncodeToString(sum[:])
}

// Key is a private key of who hands in or confirms bundles.
type Key struct{ signer note.Signer }

// Name is the key's name: that of the submitter in what it signs.
func (k *Key) Name() string { return k.signer.Name() }

// Generate makes a key pair: NAME.key, readable by its owner only, and NAME.pub,
// the line to give to others. It never replaces a file.
func Generate(dir, name string) (key, pub string, err error) {
	if !goodName(name) {
		return "", "", fmt.Errorf("key name %q: want letters, digits, dots, hyphens and underscores, at most %d", name, mostName)
	}
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", err
	}
	key, pub = filepath.Join(dir, name+".key"), filepath.Join(dir, name+".pub")
	for _, f := range []struct {
		path, text string
		mode       os.FileMode
	}{{key, private, 0o600}, {pub, public, 0o644}} {
		if err := create(f.path, []byte(f.text+"\n"), f.mode); err != nil {
			return "", "", fmt.Errorf("make a key: %w (keys are never replaced: choose another name or --out)", err)
		}
	}
	return key, pub, nil
}

// create writes a file that was not there.
func create(path string, content []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// LoadKey reads a private key.
func LoadKey(path string) (*Key, error) {
	b, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w (make one with meibench bundle keygen NAME)", err)
	}
	s, err := note.NewSigner(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w (it must be a .key file of meibench bundle keygen, not the .pub)", path, err)
	}
	if !goodName(s.Name()) {
		return nil, fmt.Errorf("read key %s: its name %q is none that a bundle can carry", path, s.Name())
	}
	return &Key{signer: s}, nil
}

// readSmall reads a file that cannot be large.
func readSmall(path string) ([]byte, error) {
	const most = 1 << 20
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > most || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no small file", path)
	}
	return os.ReadFile(path)
}

// Verifiers reads public keys from a text, one a line; lines that are empty or
// begin with # say nothing.
func Verifiers(text string) (list []note.Verifier, err error) {
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		v, err := note.NewVerifier(line)
		if err != nil {
			return nil, fmt.Errorf("public key in line %d: %w", i+1, err)
		}
		list = append(list, v)
	}
	return list, nil
}

// sign adds a signature to a note that may have some. A key that has signed
// leaves it as it is.
func sign(text string, old []byte, key *Key) ([]byte, error) {
	n := &note.Note{Text: text}
	if len(old) > 0 {
		var err error
		if n, err = parseNote(old); err != nil {
			return nil, err
		}
		if n.Text != text {
			return nil, refuse(ruleDigest, NoteFile, fixMake, "it is a note about something else")
		}
		for _, s := range n.UnverifiedSigs {
			if s.Name == key.Name() && s.Hash == key.signer.KeyHash() {
				return old, nil
			}
		}
	}
	return note.Sign(n, key.signer)
}

// parseNote takes a note apart without believing a signature in it.
func parseNote(b []byte) (*note.Note, error) {
	n, err := note.Open(b, note.VerifierList())
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) {
		return unverified.Note, nil
	}
	if err == nil {
		err = errors.New("it has no signature")
	}
	return n, refuse(ruleDigest, NoteFile, fixMake, "it is no signed note: %v", err)
}

// Signer is a signature on a bundle.
type Signer struct {
	Name  string
	Hash  uint32 // of the key, as notes write it
	Known bool   // the signature was checked with a known key
}

// Signers lists the signatures on a bundle, in the order of the note. Those of
// known keys are checked, and one that does not fit is an error; of others no
// more is known than what they call themselves. A bundle without a note has
// none.
func (b *Bundle) Signers(known ...note.Verifier) (list []Signer, err error) {
	if b.Note == nil {
		return nil, nil
	}
	n, err := note.Open(b.Note, note.VerifierList(known...))
	var unverified *note.UnverifiedNoteError
	switch {
	case errors.As(err, &unverified):
		n = unverified.Note
	case err != nil:
		return nil, refuse(ruleDigest, NoteFile, "ask for the bundle that was signed", "a signature does not fit: %v", err)
	}
	for _, s := range n.Sigs {
		list = append(list, Signer{s.Name, s.Hash, true})
	}
	for _, s := range n.UnverifiedSigs {
		list = append(list, Signer{s.Name, s.Hash, false})
	}
	return list, nil
}

// Sign adds a signature to a bundle, a folder or a zip: of an auditor, or of who
// got the same results. What is signed does not change, and so neither does the
// h1.
func Sign(path string, key *Key) (err error) {
	b, err := Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	signed, err := sign(NoteText(b.Sums, b.Manifest.Submitter), b.Note, key)
	if err != nil {
		return err
	}
	to := filepath.Join(b.Dir, NoteFile)
	if err := os.WriteFile(to+".tmp", signed, 0o644); err != nil {
		return err
	}
	if err := os.Rename(to+".tmp", to); err != nil || b.Dir == path {
		return err
	}
	return Pack(b.Dir, path)
}
