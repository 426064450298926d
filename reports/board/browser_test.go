package board

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/bundle"
	"meibench/internal/browse"
)

const (
	browsePatience = 5 * time.Second
	browseStep     = 20 * time.Millisecond
)

// arrive waits until a page with a heading is there.
func arrive(t *testing.T, p *browse.Page, heading string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var ready bool
		p.Eval(`document.readyState === "complete" && !!document.querySelector("h1")?.innerText.includes("`+heading+`")`, &ready)
		return ready
	}, browsePatience, browseStep, heading)
}

// TestAReaderInABrowser sorts a table, follows a cell to its entry and compares it
// with another, without a network.
func TestAReaderInABrowser(t *testing.T) {
	dir := t.TempDir()
	more := []bundle.Claim{claim("offload", 60, 1)}
	for i := range 6 {
		more = append(more, claim(fmt.Sprint("chain", i), 61+3*float64(i), 1))
	}
	in := Input{Name: "B", Contracts: contracts(), Entries: []Entry{
		entryOf("x", "ann", claim("local", 50, 1), claim("split", 80, 1)), entryOf("y", "bob", more...)}}
	require.NoError(t, Build(in).Write(dir))
	p := browse.Open(t, browse.File(t, filepath.Join(dir, "index.html")))
	p.Click("#overview tbody a")
	arrive(t, p, "assistant, the machine of the run, measured")
	require.Equal(t, "9 of 9 rows shown", p.Text("[role=status]"))
	p.Type("input[type=search]", "l")
	require.Equal(t, "9 of 9 rows shown", p.Text("[role=status]"))
	p.Choose("[role=search] label:nth-of-type(2) select", "=x")
	require.Equal(t, "2 of 9 rows shown", p.Text("[role=status]"))
	p.Choose("[role=search] label:nth-of-type(2) select", "*")
	p.Type("input[type=search]", "chain5")
	require.Equal(t, []string{"chain5"}, p.Texts("table.sortable tbody tr > :nth-child(3)"))
	p.Type("input[type=search]", "i") // of every model's name
	column := func() []string { return p.Texts("table.sortable tbody tr > :nth-child(3)") }
	require.Equal(t, "local offload chain0 chain1 chain2 chain3 chain4 chain5 split", strings.Join(column(), " "), "by rank")
	p.Click("table.sortable thead th:nth-child(6) button")
	p.Click("table.sortable thead th:nth-child(6) button")
	require.Equal(t, "split chain5 chain4 chain3 chain2 chain1 chain0 offload local", strings.Join(column(), " "), "E2E p50, the largest first")
	var sorted string
	p.Eval(`document.querySelector("thead th:nth-child(6)").getAttribute("aria-sort")`, &sorted)
	require.Equal(t, "descending", sorted)
	p.Click("table.sortable tbody tr:nth-child(9) th a")
	arrive(t, p, "x")
	require.Contains(t, p.Text("#cells"), "assistant: local")
	require.Contains(t, p.Text("#check"), "meibench verify")
	p.Click("#claims tbody tr:first-child td.badge a")
	arrive(t, p, "compare two cells")
	var offload string
	p.Eval(`[...document.getElementById("b").options].find(o => o.textContent.includes("offload")).value`, &offload)
	p.Choose("#b", offload)
	require.Eventually(t, func() bool { return strings.Contains(p.Text("#out"), "1.200") }, browsePatience, browseStep, "60 over 50")
	require.Contains(t, p.Text("#verdict"), "Same contract")
	require.Empty(t, p.Console())
	require.Empty(t, p.Requests())
}
