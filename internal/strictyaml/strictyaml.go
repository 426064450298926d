// Package strictyaml reads YAML files that people write, strictly, and keeps
// hostile ones small.
//
// Unknown and duplicate keys, aliases, anchors, tags and further documents are
// errors that name file, line and column. An alias can stand for any amount,
// and the reader's time grows with the square of the number of tokens (a
// mebibyte can take minutes), so both are bounded before it sees the text.
//
//	err := strictyaml.Decode("suite.yaml", text, 1<<20, &dst)
package strictyaml

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds of what is handed to the YAML reader.
const (
	maxNesting = 32     // levels; ours need six
	maxEntries = 10_000 // keys, items, lines and marks
)

// Decode reads one document into dst, which must be a pointer.
func Decode(name string, text []byte, maxBytes int, dst any) error {
	if _, err := Parse(name, text, maxBytes); err != nil {
		return err
	}
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(dst); err != nil {
		return Located(name, err)
	}
	return nil
}

// Peek reads some keys of a document into dst and passes over others: of a text that was decoded strictly where it counted.
func Peek(text []byte, maxBytes int, dst any) error {
	if _, err := Parse("text", text, maxBytes); err != nil {
		return err
	}
	return yaml.NewDecoder(bytes.NewReader(text)).Decode(dst)
}

// Encode writes what Decode reads.
func Encode(v any) ([]byte, error) { return yaml.Marshal(v) }

// Parse refuses what no file of ours has a use for and returns the tree.
func Parse(name string, text []byte, maxBytes int) (*ast.File, error) {
	if len(text) > maxBytes {
		return nil, fmt.Errorf("%s: the file has %d bytes: at most %d are read", name, len(text), maxBytes)
	}
	if err := Bound(name, string(text)); err != nil {
		return nil, err
	}
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, Located(name, err)
	}
	if len(tree.Docs) > 1 {
		return nil, fmt.Errorf("%s: %d documents: a file holds one; remove the lines ---", name, len(tree.Docs))
	}
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil {
		return nil, fmt.Errorf("%s: the file is empty", name)
	}
	refuse := &refusal{name: name}
	ast.Walk(refuse, tree.Docs[0].Body)
	return tree, refuse.err
}

// Bound counts marks that can open a level or an entry, wherever they stand: a
// text that passes is harmless to read, and no honest one comes near.
func Bound(name, text string) error {
	depth, entries := 0, 0
	for i, line := range strings.Split(text, "\n") {
		items, marks := strings.Count(line, "- "), 0
		for _, c := range []byte(line) {
			switch c {
			case '[', '{':
				depth++
				marks++
			case ']', '}':
				depth = max(0, depth-1)
				marks++
			case ',', ':', '&', '*', '!', '|', '>', '<', '?', '%', '@', '\'', '"':
				marks++
			}
			if depth > maxNesting {
				break
			}
		}
		indent := len(line) - len(strings.TrimLeft(line, " \t-?:"))
		if depth > maxNesting || items > maxNesting || indent > 8*maxNesting {
			return fmt.Errorf("%s:%d:1: nested too deeply: a file has at most %d levels", name, i+1, maxNesting)
		}
		if entries += 1 + items + marks; entries > maxEntries {
			return fmt.Errorf("%s:%d:1: more than %d keys, items, lines and marks: too many for a file of this kind", name, i+1, maxEntries)
		}
	}
	return nil
}

// refusal finds the first node of a kind that is not allowed.
type refusal struct {
	name string
	err  error
}

// Visit implements ast.Visitor.
func (r *refusal) Visit(n ast.Node) ast.Visitor {
	if n == nil || r.err != nil {
		return nil
	}
	switch n.Type() {
	case ast.AliasType, ast.AnchorType, ast.MergeKeyType, ast.TagType:
		p := n.GetToken().Position
		r.err = fmt.Errorf("%s:%d:%d: aliases, anchors and tags are not allowed here: write the value out", r.name, p.Line, p.Column)
	}
	return r
}

// Located turns the reader's "[line:column] what" into file:line:column, with
// the offending lines.
func Located(name string, err error) error {
	text := strings.TrimSpace(yaml.FormatError(err, false, true))
	var line, column int
	if n, _ := fmt.Sscanf(text, "[%d:%d]", &line, &column); n == 2 {
		_, what, _ := strings.Cut(text, "] ")
		return fmt.Errorf("%s:%d:%d: %s", name, line, column, what)
	}
	return fmt.Errorf("%s: %s", name, text)
}
