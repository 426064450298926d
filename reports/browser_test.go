package reports

import (
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/browse"
)

// A reader sorts, filters, follows a cell, comes back by a link to the same view,
// reads in the dark, on a narrow screen and on paper; the page complains of nothing
// and asks nothing of a network.
func TestReportInABrowser(t *testing.T) {
	if browse.Find() == "" {
		t.Skip("no browser: install chromium, or name one in " + browse.Variable)
	}
	dir := t.TempDir()
	paths, err := Build(demo(t, 16)).Write(dir)
	require.NoError(t, err)
	p := browse.Open(t, browse.File(t, paths.HTML))

	sortColumn := func(n int) { p.Click("#rows-latency thead th:nth-child(" + strconv.Itoa(n) + ") button") }
	column := func() (out []float64) { // TTFT p50 of the first application, as shown
		p.Eval("[...document.querySelector('#rows-latency tbody').rows].filter(r => r.className !== 'group' && !r.hidden).map(r => Number(r.cells[3].dataset.sort))", &out)
		return out
	}
	before := column()
	require.False(t, sort.Float64sAreSorted(before))
	sortColumn(4)
	require.True(t, sort.Float64sAreSorted(column()))
	require.Equal(t, "ascending", attribute(p, "#rows-latency thead th:nth-child(4)", "aria-sort"))
	sortColumn(4)
	require.NotEqual(t, "ascending", attribute(p, "#rows-latency thead th:nth-child(4)", "aria-sort"))
	require.Greater(t, column()[0], column()[8])
	require.Equal(t, "group", attribute(p, "#rows-latency tbody tr", "class"), "the heading stays first")

	status := "#table-latency [role=status]"
	require.Equal(t, "45 of 45 rows shown", p.Text(status))
	p.Type("#table-latency input", "driving split")
	require.Equal(t, "3 of 45 rows shown", p.Text(status))
	require.Contains(t, strings.Join(p.Texts("#rows-latency tbody tr"), "\n"), "INVALID", "nothing is hidden but by the reader")
	p.Choose("#table-latency label:nth-of-type(4) select", "=modelled")
	require.Equal(t, "1 of 45 rows shown", p.Text(status))

	var view string
	p.Eval("location.href", &view)
	require.Contains(t, view, "#?rows-latency.sort=3d")
	again := browse.Open(t, view)
	require.Equal(t, "1 of 45 rows shown", again.Text(status), "a link shows the same view")
	require.Equal(t, "descending", attribute(again, "#rows-latency thead th:nth-child(4)", "aria-sort"))

	p.Click("#rows-latency tbody tr:not([hidden]):not(.group) th a")
	p.Wait("document.querySelector('details.cell:target')?.open") // the link opens the cell
	require.Contains(t, p.Text("details.cell:target"), "driving")
	looks(t, p)
	require.Empty(t, p.Console())
	require.Empty(t, p.Requests())
	require.Empty(t, again.Console())
}

func attribute(p *browse.Page, selector, name string) (value string) {
	p.Eval("document.querySelector('"+selector+"').getAttribute('"+name+"')", &value)
	return value
}

// looks checks schemes, widths and paper, and keeps the picture of the page if asked.
func looks(t *testing.T, p *browse.Page) {
	paper := func() (c string) { p.Eval("getComputedStyle(document.body).backgroundColor", &c); return c }
	light := paper()
	p.Prefer("prefers-color-scheme", "dark")
	require.NotEqual(t, light, paper())
	p.Prefer("prefers-color-scheme", "light")
	p.Window(320, 640)
	wide := 0
	p.Eval("document.documentElement.scrollWidth", &wide)
	require.LessOrEqual(t, wide, 320, "nothing but tables and figures, which scroll by themselves, is wider than a phone")
	require.True(t, strings.HasPrefix(string(p.PDF()), "%PDF"))
}

// TestPicture takes the picture that README shows, when asked to:
// MEIBENCH_PICTURE names the file and MEIBENCH_PAGE the page.
func TestPicture(t *testing.T) {
	file, page := os.Getenv("MEIBENCH_PICTURE"), os.Getenv("MEIBENCH_PAGE")
	if file == "" || page == "" {
		t.Skip("for `make picture`: MEIBENCH_PICTURE and MEIBENCH_PAGE name the file to write and the page to show")
	}
	p := browse.Open(t, browse.File(t, page))
	p.Window(1200, 900)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, p.Screenshot(), 0o644))
	require.Empty(t, p.Console())
}

// Hostile names do no harm in a browser, and without scripts the page is whole.
func TestHostilePageInABrowser(t *testing.T) {
	if browse.Find() == "" {
		t.Skip("no browser: install chromium, or name one in " + browse.Variable)
	}
	paths, err := Build(hostileData(t)).Write(t.TempDir())
	require.NoError(t, err)
	p := browse.Open(t, browse.File(t, paths.HTML))
	images := -1
	p.Eval("document.images.length", &images)
	require.Zero(t, images)
	require.Empty(t, p.Console(), "no script of a name ran, none was even refused")
	require.Empty(t, p.Requests())
}
