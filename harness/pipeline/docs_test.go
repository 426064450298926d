package pipeline

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/golden"
)

// TestPagesNameEveryPipeline: docs/pipelines.md has a section and a row for every
// pipeline of the table and no other, and the tables of parameters are those of
// the code; -update writes these.
func TestPagesNameEveryPipeline(t *testing.T) {
	const page = "../../docs/pipelines.md"
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	sections, rows, tables := []string{"server"}, []string(nil), map[string]string{"server": parameters(serverParams)}
	for _, e := range Table {
		own, shared := e.Params, hasServer(e)
		if shared {
			own = own[len(serverParams):]
		}
		tables[e.Name] = parameters(own)
		if shared {
			tables[e.Name] += "\nand those of the [server](#server).\n"
		}
		sections, rows = append(sections, e.Name), append(rows, e.Name)
	}
	require.Equal(t, sections, all(`(?m)^## (.*)$`, text))
	require.Equal(t, sections, all(`(?m)^<!-- parameters of (.*) -->$`, text))
	require.Equal(t, rows, all(`(?m)^\| \[(\w+)\]\(#`, text))
	now := regexp.MustCompile(`(?ms)^<!-- parameters of (\w+) -->\n.*?(\n## |\z)`).ReplaceAllStringFunc(string(text), func(part string) string {
		head, _, _ := strings.Cut(part, "\n")
		name := strings.Fields(head)[3]
		_, next, more := strings.Cut(part, "\n## ")
		out := head + "\n" + tables[name]
		if more {
			out += "\n## " + next
		}
		return out
	})
	golden.Check(t, page, []byte(now))
}

func hasServer(e Entry) bool {
	return len(e.Params) >= len(serverParams) && e.Params[0].Name == serverParams[0].Name
}

func all(pattern string, text []byte) (out []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(text, -1) {
		out = append(out, string(m[1]))
	}
	return out
}

// parameters are a table as the page has it.
func parameters(ps []Param) string {
	if len(ps) == 0 {
		return "No parameters of its own.\n"
	}
	var b strings.Builder
	b.WriteString("| parameter | default | values | what it is |\n|---|---|---|---|\n")
	for _, p := range ps {
		def, values := fmt.Sprintf("%g", p.Default), fmt.Sprintf("%.10g to %.10g", p.Min, p.Max)
		if len(p.Names) > 0 {
			def, values = p.Names[0], strings.Join(p.Names, ", ")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.Name, def, values, p.Doc)
	}
	return b.String()
}
