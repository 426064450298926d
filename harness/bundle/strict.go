package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"meibench/internal/canon"
)

// Refusal is the error of a bundle that is not to be read: which file breaks
// which rule, and what to do. Rules are numbered as in package verify: V001
// names and form, V002 digests, V010 manifest and summary, V011 tables.
type Refusal struct {
	File string // in the bundle; "" = the bundle itself
	Rule string
	Why  string
	Fix  string
}

// Error names file, rule and fix.
func (r *Refusal) Error() string {
	where := r.File
	if where == "" {
		where = "the bundle"
	}
	return fmt.Sprintf("%s %s: %s; %s", r.Rule, where, r.Why, r.Fix)
}

func refuse(rule, file, fix, why string, args ...any) error {
	return &Refusal{File: file, Rule: rule, Fix: fix, Why: fmt.Sprintf(why, args...)}
}

// Rules of refusals.
const (
	ruleForm     = "V001"
	ruleDigest   = "V002"
	ruleManifest = "V010"
	ruleTables   = "V011"
)

// fixMake is what helps against most refusals.
const fixMake = "make it again with meibench bundle"

const (
	mostName  = 100 // bytes of a name
	mostDepth = 64  // of JSON
)

// reserved are names that some systems keep for devices.
var reserved = []string{"aux", "con", "nul", "prn"}

// goodName reports whether a name may be that of an entry or a run: ASCII
// letters, digits, dots, hyphens and underscores, beginning with a letter or
// digit, not ending with a dot.
func goodName(s string) bool {
	if s == "" || len(s) > mostName || strings.HasSuffix(s, ".") {
		return false
	}
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '-' && c != '_') {
			return false
		}
	}
	base, _, _ := strings.Cut(strings.ToLower(s), ".")
	for _, r := range reserved {
		if base == r {
			return false
		}
	}
	return len(base) != 4 || base[:3] != "com" && base[:3] != "lpt"
}

// plainText returns the first character that no text of a bundle may hold:
// controls, and marks that change the direction of what follows or cannot be
// seen.
func plainText(s string) (bad rune, ok bool) {
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || r == utf8.RuneError {
			return r, false
		}
	}
	return 0, true
}

// readCanonical reads a value from the one text that canon.JSON and a newline
// make of it. So unknown, repeated and misspelt fields, blanks and anything
// after the end are errors, and two files with one meaning are one file.
func readCanonical(b []byte, v any) error {
	if !utf8.Valid(b) {
		return errors.New("it is not UTF-8")
	}
	if err := scan(b); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	want, err := canon.JSON(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(b, append(want, '\n')) {
		return errors.New("it is not in canonical form: keys sorted, no blanks, numbers and absent fields as meibench writes them")
	}
	return nil
}

// scan checks depth, repeated keys and the characters of texts.
func scan(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	type level struct {
		keys map[string]bool // nil in a list
		name bool            // a key comes next
	}
	var open []level
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		top := len(open) - 1
		isKey := top >= 0 && open[top].name
		if s, ok := tok.(string); ok {
			if r, ok := plainText(s); !ok {
				return fmt.Errorf("the text %.60q holds the character %U, which cannot be seen", s, r)
			}
			if isKey {
				if open[top].keys[s] {
					return fmt.Errorf("the key %.60q is there twice", s)
				}
				open[top].keys[s], open[top].name = true, false
				continue
			}
		}
		if tok == json.Delim('}') || tok == json.Delim(']') {
			open = open[:top]
			continue
		}
		if top >= 0 && open[top].keys != nil {
			open[top].name = true // after this value
		}
		switch tok {
		case json.Delim('{'):
			open = append(open, level{map[string]bool{}, true})
		case json.Delim('['):
			open = append(open, level{})
		}
		if len(open) > mostDepth {
			return fmt.Errorf("it nests deeper than %d", mostDepth)
		}
	}
}
