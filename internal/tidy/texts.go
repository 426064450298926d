package tidy

import (
	"go/ast"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]*)(?:\s+"[^"]*")?\)`)
	inline  = regexp.MustCompile("`[^`]*`")
	notSlug = regexp.MustCompile(`[^\pL\pN _-]+`)
	aWord   = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	aFlag   = regexp.MustCompile(`^--?([a-z][a-z0-9-]*)`)
	target  = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`)
)

// textRules checks the Markdown files.
func (t *tree) textRules() {
	verbs := t.verbs()
	makefile, _ := fs.ReadFile(t.fsys, "Makefile")
	for _, p := range t.texts {
		src, err := fs.ReadFile(t.fsys, p)
		if err != nil {
			t.add("link", p, 0, "cannot be read: %v", err)
		}
		fenced := false
		for i, line := range strings.Split(string(src), "\n") {
			before := len(t.found)
			switch command, shell := strings.CutPrefix(strings.TrimSpace(line), "$ "); {
			case strings.HasPrefix(strings.TrimSpace(line), "```"):
				fenced = !fenced
			case fenced && shell:
				t.command(p, strings.Fields(command), verbs, string(makefile))
			case !fenced:
				for _, m := range link.FindAllStringSubmatch(inline.ReplaceAllString(line, ""), -1) {
					t.link(p, m[1])
				}
			}
			for k := range t.found[before:] {
				t.found[before+k].Line = i + 1
			}
		}
	}
}

func (t *tree) link(from, to string) {
	if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
		return
	}
	file, anchor, _ := strings.Cut(to, "#")
	p := from
	if file != "" {
		p = path.Join(path.Dir(from), file)
	}
	if _, err := fs.Stat(t.fsys, p); err != nil {
		t.add("link", from, 0, "%s: there is no %s", to, p)
		return
	}
	if src, err := fs.ReadFile(t.fsys, p); err == nil && anchor != "" && path.Ext(p) == ".md" && !slices.Contains(anchors(string(src)), anchor) {
		t.add("link", from, 0, "%s: %s has no such heading", to, p)
	}
}

// anchors are the headings of a page as a forge names them.
func anchors(src string) (out []string) {
	for line := range strings.Lines(src) {
		if text := strings.TrimLeft(line, "#"); text != line {
			text = notSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(text)), "")
			out = append(out, strings.ReplaceAll(text, " ", "-"))
		}
	}
	return out
}

// verbs maps the commands of cmd/meibench to the flags that their files define;
// "" holds the flags of files without a command, which all share.
func (t *tree) verbs() map[string][]string {
	verbs := map[string][]string{"": {"help", "h", "version"}, "help": nil, "completion": nil}
	for _, u := range t.units {
		for _, f := range u.files {
			if u.dir != "cmd/meibench" || f.test {
				continue
			}
			names, flags := commandsIn(f.ast)
			for _, name := range names {
				verbs[name] = append(verbs[name], flags...)
			}
			if len(names) == 0 || slices.Contains(names, "meibench") {
				verbs[""] = append(verbs[""], flags...)
			}
		}
	}
	return verbs
}

// commandsIn finds the commands of a file of cmd, the first word of every Use
// field, and what may be a flag: any word that stands there as a string.
func commandsIn(f *ast.File) (names, flags []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Use" {
				name, _, _ := strings.Cut(literal(n.Value), " ")
				names = append(names, name)
			}
		case *ast.BasicLit:
			if text := literal(n); aWord.MatchString(text) {
				flags = append(flags, text)
			}
		}
		return true
	})
	return names, flags
}

// literal is the text of a string literal, or "".
func literal(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	text, _ := strconv.Unquote(lit.Value)
	return text
}

// command checks one `$ ` line of a page.
func (t *tree) command(p string, words []string, verbs map[string][]string, makefile string) {
	if end := slices.IndexFunc(words, func(w string) bool { return strings.ContainsAny(w[:1], "|>;&#") }); end >= 0 {
		words = words[:end]
	}
	for len(words) > 0 && strings.Contains(words[0], "=") { // VAR=value in front
		words = words[1:]
	}
	if len(words) > 3 && words[0] == "go" && words[1] == "run" && strings.TrimPrefix(words[2], "./") == "cmd/meibench" {
		words = words[2:]
	}
	if len(words) < 2 {
		return
	}
	switch name := path.Base(words[0]); name {
	case "make":
		if !slices.ContainsFunc(target.FindAllStringSubmatch(makefile, -1), func(m []string) bool { return m[1] == words[1] }) {
			t.add("command", p, 0, "the Makefile has no target %q", words[1])
		}
	case "meibench":
		flags, ok := verbs[words[1]]
		if !ok {
			t.add("command", p, 0, "meibench has no command %q", words[1])
			return
		}
		for _, w := range words[2:] {
			if m := aFlag.FindStringSubmatch(w); m != nil && !slices.Contains(flags, m[1]) && !slices.Contains(verbs[""], m[1]) {
				t.add("command", p, 0, "meibench %s has no flag %s", words[1], w)
			}
		}
	}
}
