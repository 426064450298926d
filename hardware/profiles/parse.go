package profiles

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"meibench/internal/strictyaml"
)

// MaxFileBytes is the largest profile file that is read. The largest embedded
// one is under 16 kB; a measured host profile with many fits stays under 256 kB.
const MaxFileBytes = 1 << 20

// Error is one thing wrong with a profile file and where it is.
type Error struct {
	File         string
	Line, Column int // counted from 1; 0 if the position is unknown
	Message      string
	Excerpt      string // the offending line and its neighbours
}

// Error prints file:line:column, the message and the offending lines.
func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s = fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Column)
	}
	s += ": " + e.Message
	if e.Excerpt != "" {
		s += "\n" + e.Excerpt
	}
	return s
}

// file is a YAML document on its way into a struct.
type file struct {
	name string
	data []byte
	tree *ast.File
}

func (f *file) fail(tk *token.Token, format string, args ...any) *Error {
	e := &Error{File: f.name, Message: fmt.Sprintf(format, args...)}
	if tk != nil && tk.Position != nil {
		e.Line, e.Column = tk.Position.Line, tk.Position.Column
		e.Excerpt = excerpt(string(f.data), e.Line, e.Column)
	}
	return e
}

// excerpt shows the line and one neighbour on each side.
func excerpt(src string, line, column int) string {
	lines := strings.Split(src, "\n")
	var b strings.Builder
	for n := max(1, line-1); n <= min(len(lines), line+1); n++ {
		text := strings.TrimRight(lines[n-1], "\r")
		if n != line {
			fmt.Fprintf(&b, "  %4d | %s\n", n, text)
			continue
		}
		fmt.Fprintf(&b, "> %4d | %s\n       | %s^\n", n, text, strings.Repeat(" ", max(0, column-1)))
	}
	return strings.TrimRight(b.String(), "\n")
}

// strict decodes one YAML document into dst: known keys only, none twice, no
// anchors, aliases or tags, one document, bounded size.
func strict(name string, data []byte, dst any) (*file, error) {
	f := &file{name: name, data: data}
	if len(data) > MaxFileBytes {
		return nil, &Error{File: name, Message: fmt.Sprintf("file has %d bytes: a profile has at most %d", len(data), MaxFileBytes)}
	}
	if err := strictyaml.Bound(name, string(data)); err != nil {
		return nil, err
	}
	for _, tk := range lexer.Tokenize(string(data)) {
		switch tk.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return nil, f.fail(tk, "anchors, aliases and merge keys are not allowed: write the value out")
		case token.TagType:
			return nil, f.fail(tk, "tags are not allowed: remove %q", tk.Value)
		}
	}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, f.wrap(err)
	}
	f.tree = tree
	if len(tree.Docs) != 1 || tree.Docs[0].Body == nil {
		return nil, &Error{File: name, Message: fmt.Sprintf("want exactly one YAML document, got %d", len(tree.Docs))}
	}
	if err := yaml.UnmarshalWithOptions(data, dst, yaml.Strict()); err != nil {
		return nil, f.wrap(err)
	}
	return f, nil
}

// wrap turns a YAML library error into one with file, line and column.
func (f *file) wrap(err error) error {
	var located yaml.Error
	if !errors.As(err, &located) {
		return &Error{File: f.name, Message: err.Error()}
	}
	hint := ""
	var unknown *yaml.UnknownFieldError
	var unexpected *yaml.UnexpectedNodeTypeError
	var mismatch *yaml.TypeError
	switch {
	case errors.As(err, &unknown):
		hint = ": check the spelling, or see the schema in go doc meibench/hardware/profiles"
	case errors.As(err, &unexpected), errors.As(err, &mismatch):
		hint = ": a number is written {value: ..., unit: ..., source: ..., kind: ...}"
	}
	return f.fail(located.GetToken(), "%s%s", located.GetMessage(), hint)
}

// at finds the position of a YAML path, or of its nearest ancestor that exists.
func (f *file) at(path string) *token.Token {
	for p := path; p != "" && p != "$"; {
		if yp, err := yaml.PathString(p); err == nil {
			if node, err := yp.FilterFile(f.tree); err == nil && node != nil {
				return start(node)
			}
		}
		cut := strings.LastIndexAny(p, ".[")
		if cut < 0 {
			break
		}
		p = p[:cut]
	}
	return start(f.tree.Docs[0].Body)
}

// start is the first token of a node: a mapping's own token is its first colon.
func start(node ast.Node) *token.Token {
	if m, ok := node.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return m.Values[0].Key.GetToken()
	}
	return node.GetToken()
}

// verdict turns collected problems into one error.
func (f *file) verdict(c *checker) error {
	errs := make([]error, len(c.problems))
	for i, p := range c.problems {
		errs[i] = f.fail(f.at(p.path), "%s %s", strings.TrimPrefix(p.path, "$."), p.message)
	}
	return errors.Join(errs...)
}

var nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*$`)

// profile is what the four kinds of file have in common.
type profile interface {
	title() string
	check(c *checker)
}

// decode reads one profile file into dst and checks it.
func decode(name string, data []byte, dst profile) error {
	f, err := strict(name, data, dst)
	if err != nil {
		return err
	}
	c := &checker{}
	if !nameRule.MatchString(dst.title()) {
		c.add("$.name", "must be lower-case letters, digits, dots and dashes, got %q", dst.title())
	} else if base := strings.TrimSuffix(path.Base(name), ".yaml"); strings.HasPrefix(name, "builtin/") && base != dst.title() {
		c.add("$.name", "must equal the file name %q, got %q", base, dst.title())
	}
	c.walk(reflect.ValueOf(dst).Elem(), "$", "", "")
	dst.check(c)
	return f.verdict(c)
}

// digest is the SHA-256 of v's canonical JSON: fixed key order, shortest
// numbers. Comments, indentation and the order of keys do not reach it.
func digest(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("profiles: cannot encode a checked profile: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
