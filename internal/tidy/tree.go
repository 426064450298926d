package tidy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Finding is one broken rule: what is wrong and what to do.
type Finding struct {
	Rule  string
	Where string // as an exception would name it
	Line  int
	Size  int // for limits
	Text  string
}

// String is "file:line: rule: text".
func (f Finding) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", f.Where, f.Line, f.Rule, f.Text)
}

// unit is what the compiler sees at once: the files of a folder with one
// package name.
type unit struct {
	dir   string
	name  string
	files []*file
	info  types.Info
	scope *types.Scope
}

type file struct {
	path      string
	src       []byte
	ast       *ast.File
	test      bool
	generated bool
}

// tree is the whole repository.
type tree struct {
	fsys   fs.FS
	module string
	fset   *token.FileSet
	units  []*unit
	texts  []string // Markdown files
	found  []Finding
}

// Check returns what is wrong in a repository, sorted, before exceptions.
func Check(fsys fs.FS) ([]Finding, error) {
	mod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, err
	}
	name, _, _ := strings.Cut(string(mod), "\n")
	t := &tree{fsys: fsys, module: strings.TrimSpace(strings.TrimPrefix(name, "module")), fset: token.NewFileSet()}
	if err := t.load(); err != nil {
		return nil, err
	}
	for _, u := range t.units {
		t.resolve(u)
		t.packageRules(u)
		for _, f := range u.files {
			t.importRules(u, f)
			t.fileRules(u, f)
			t.funcRules(u, f)
			t.declRules(u, f)
			t.useRules(u, f)
		}
	}
	t.textRules()
	slices.SortFunc(t.found, func(a, b Finding) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(t.found), nil
}

// Excuse drops the findings that an exception covers and reports exceptions
// that cover nothing.
func Excuse(found []Finding, list []Exception) []Finding {
	used := make([]bool, len(list))
	rest := slices.DeleteFunc(slices.Clone(found), func(f Finding) bool {
		i := slices.IndexFunc(list, func(e Exception) bool { return e.Rule == f.Rule && e.Where == f.Where && f.Size <= e.Most })
		if i >= 0 {
			used[i] = true
		}
		return i >= 0
	})
	for i, e := range list {
		if !used[i] {
			rest = append(rest, Finding{Rule: "exception", Where: e.Where, Text: "rule " + e.Rule + " is kept now, or broken worse: delete the exception, or mend the code"})
		}
		if e.Why == "" {
			rest = append(rest, Finding{Rule: "exception", Where: e.Where, Text: "an exception needs a reason"})
		}
	}
	return rest
}

func (t *tree) add(rule, where string, pos token.Pos, format string, args ...any) {
	t.found = append(t.found, Finding{Rule: rule, Where: where, Line: t.fset.Position(pos).Line, Text: fmt.Sprintf(format, args...)})
}

// limit adds a finding if a size is beyond its bound.
func (t *tree) limit(rule, where string, pos token.Pos, size, most int) {
	if size > most {
		t.add(rule, where, pos, "%d, at most %d: split it", size, most)
		t.found[len(t.found)-1].Size = size
	}
}

var generatedLine = regexp.MustCompile(`(?m)\A// Code generated .* DO NOT EDIT\.$`)

func (t *tree) load() error {
	ignored := t.ignored()
	return fs.WalkDir(t.fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := len(d.Name()) > 1 && strings.ContainsAny(d.Name()[:1], "._")
		switch {
		case d.IsDir() && (hidden || d.Name() == "testdata" || ignored(p)):
			return fs.SkipDir
		case d.IsDir() || hidden || ignored(p):
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Size() > mostBytes && !strings.HasPrefix(p, "reference/models/") {
			t.add("size", p, 0, "%d bytes; only testdata and reference/models hold files over 1 MiB", info.Size())
		}
		switch path.Ext(p) {
		case ".go":
			return t.parse(p)
		case ".md":
			t.texts = append(t.texts, p)
		}
		return nil
	})
}

// ignored matches the plain patterns of .gitignore.
func (t *tree) ignored() func(string) bool {
	text, _ := fs.ReadFile(t.fsys, ".gitignore")
	return func(p string) bool {
		for _, pattern := range strings.Fields(string(text)) {
			name := path.Base(p)
			if strings.HasPrefix(pattern, "/") {
				name = "/" + p
			}
			if ok, _ := path.Match(strings.TrimSuffix(pattern, "/"), name); ok {
				return true
			}
		}
		return false
	}
}

func (t *tree) parse(p string) error {
	src, err := fs.ReadFile(t.fsys, p)
	if err != nil {
		return err
	}
	tree, err := parser.ParseFile(t.fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f := &file{path: p, src: src, ast: tree, test: strings.HasSuffix(p, "_test.go"), generated: generatedLine.Match(src)}
	dir, name := path.Dir(p), tree.Name.Name
	i := slices.IndexFunc(t.units, func(u *unit) bool { return u.dir == dir && u.name == name })
	if i < 0 {
		i = len(t.units)
		t.units = append(t.units, &unit{dir: dir, name: name})
	}
	t.units[i].files = append(t.units[i].files, f)
	return nil
}

// resolve ties names to what they denote. Imports are hollow: what another
// package holds is not looked at, so this is fast and needs no build.
func (t *tree) resolve(u *unit) {
	u.info.Uses = map[*ast.Ident]types.Object{}
	var files []*ast.File
	for _, f := range u.files {
		files = append(files, f.ast)
	}
	conf := types.Config{Importer: hollow{}, Error: func(error) {}}
	pkg, _ := conf.Check(u.dir, t.fset, files, &u.info)
	u.scope = pkg.Scope()
}

type hollow struct{}

var version = regexp.MustCompile(`^v\d+$`)

// Import implements types.Importer.
func (hollow) Import(p string) (*types.Package, error) {
	pkg := types.NewPackage(p, packageName(p))
	pkg.MarkComplete()
	return pkg, nil
}

// packageName guesses the name of a package from its path.
func packageName(p string) string {
	if version.MatchString(path.Base(p)) {
		p = path.Dir(p)
	}
	return strings.TrimPrefix(path.Base(p), "go-")
}

// within reports whether a path is a room's or, for "x/...", inside it.
func within(p, room string) bool {
	if folder, all := strings.CutSuffix(room, "..."); all {
		folder = strings.TrimSuffix(folder, "/")
		return folder == "" || p == folder || strings.HasPrefix(p, folder+"/")
	}
	return p == room
}
