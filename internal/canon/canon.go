// Package canon writes JSON in one way only, so that equal values are equal
// bytes and equal hashes: object keys sorted at every level, no spaces, no HTML
// escapes. Numbers are as encoding/json prints them.
//
// Contracts, suites and manifests are identified by their canonical form, so a
// comment or an indent in a YAML file never changes what a run is compared with.
//
// It is not RFC 8785: that prescribes ECMAScript number text, which nobody here
// needs to match.
package canon

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// JSON is the canonical form of v, without a newline at the end. It fails on
// what JSON cannot say: NaN, infinities, functions.
func JSON(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("canonical JSON of %T: %w", v, err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // keep digits that a float64 would lose
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, fmt.Errorf("canonical JSON of %T: %w", v, err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(tree); err != nil {
		return nil, fmt.Errorf("canonical JSON of %T: %w", v, err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Hash is the SHA-256 of the canonical form, in hex.
func Hash(v any) (string, error) {
	b, err := JSON(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
