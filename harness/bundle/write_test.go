package bundle

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/dirhash"

	"meibench/harness/record"
	"meibench/harness/results"
)

// key makes a key pair in a folder of the test.
func key(t testing.TB, name string) (*Key, string) {
	k, pub, err := Generate(t.TempDir(), name)
	require.NoError(t, err)
	info, err := os.Stat(k)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	key, err := LoadKey(k)
	require.NoError(t, err)
	text, err := os.ReadFile(pub)
	require.NoError(t, err)
	return key, string(text)
}

// written makes a bundle of two runs in a folder.
func written(t testing.TB, opt Options) string {
	dir := t.TempDir()
	a := made(t, filepath.Join(dir, "a"), spec{cells: 2, repeats: 2, requests: 9, host: "name: host\n"})
	b := made(t, filepath.Join(dir, "b"), spec{cells: 1, repeats: 6, requests: 9})
	out := filepath.Join(dir, "out")
	require.NoError(t, Write(out, []string{b, a}, opt))
	return out
}

// packed is a bundle as a zip.
func packed(t testing.TB) string {
	file := filepath.Join(t.TempDir(), "x"+Extension)
	require.NoError(t, Pack(written(t, Options{Name: "x"}), file))
	return file
}

func read(t testing.TB, parts ...string) string {
	b, err := os.ReadFile(filepath.Join(parts...))
	require.NoError(t, err)
	return string(b)
}

func TestWriteThenOpen(t *testing.T) {
	k, pub := key(t, "alice")
	dir := written(t, Options{Name: "entry-1", Title: "First <entry>", Key: k, Contact: "a@example.org"})
	b, err := Open(dir)
	require.NoError(t, err)
	defer b.Close()
	require.Equal(t, "entry-1", b.Manifest.Name)
	require.Equal(t, "alice", b.Manifest.Submitter)
	require.Equal(t, DefaultLicence, b.Manifest.Licence)
	require.Equal(t, []string{"runs/a", "runs/b"}, []string{b.Manifest.Runs[0].Path, b.Manifest.Runs[1].Path})
	require.Len(t, b.Summary.Claims, 3)
	require.Equal(t, []string{"meibench", "run", "--out", "runs/a"}, b.Manifest.Runs[0].Command)
	again, err := Summarise(b.Runs)
	require.NoError(t, err)
	require.Equal(t, b.Summary, again, "what is read derives what is claimed")
	m, _, err := Derive(b.Runs, b.Manifest)
	require.NoError(t, err)
	m.Files = b.Manifest.Files
	require.Equal(t, b.Manifest, m)

	known, err := Verifiers("# keys\n\n" + pub)
	require.NoError(t, err)
	signers, err := b.Signers(known...)
	require.NoError(t, err)
	require.Equal(t, []Signer{{"alice", known[0].KeyHash(), true}}, signers)
	signers, err = b.Signers()
	require.NoError(t, err)
	require.False(t, signers[0].Known, "nobody is believed for a name")
}

// sha256sum is the oracle of SHA256SUMS, dirhash that of h1.
func TestOtherToolsAgree(t *testing.T) {
	dir := written(t, Options{})
	b, err := Open(dir)
	require.NoError(t, err)
	defer b.Close()
	if tool, err := exec.LookPath("sha256sum"); err == nil {
		cmd := exec.Command(tool, "-c", "--strict", SumsFile)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		require.Equal(t, len(b.Manifest.Files)+1, strings.Count(string(out), ": OK"))
	} else {
		t.Log("sha256sum is not here: not run")
	}
	zip1, zip2 := filepath.Join(t.TempDir(), "1.zip"), filepath.Join(t.TempDir(), "2.zip")
	require.NoError(t, Pack(dir, zip1))
	require.NoError(t, Pack(dir, zip2))
	require.Equal(t, read(t, zip1), read(t, zip2))
	inZip, err := dirhash.HashZip(zip1, dirhash.Hash1)
	require.NoError(t, err)
	inDir, err := dirhash.HashDir(dir, "", dirhash.Hash1)
	require.NoError(t, err)
	require.Equal(t, inDir, inZip)
	for _, name := range outside { // what speaks of the h1 is not in it
		require.NoError(t, os.RemoveAll(filepath.Join(dir, name)))
	}
	inDir, err = dirhash.HashDir(dir, "", dirhash.Hash1)
	require.NoError(t, err)
	require.Equal(t, inDir, b.H1)
	z, err := Open(zip1)
	require.NoError(t, err)
	require.Equal(t, b.H1, z.H1)
	kept := z.Dir
	require.NoError(t, z.Close())
	require.NoDirExists(t, kept)
}

func TestSameRunsSameBytes(t *testing.T) {
	k, _ := key(t, "alice")
	dir := t.TempDir()
	a := made(t, filepath.Join(dir, "a"), spec{cells: 1, repeats: 2, requests: 5})
	b := made(t, filepath.Join(dir, "b"), spec{cells: 1, repeats: 2, requests: 5})
	one, two := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	require.NoError(t, Write(one, []string{a, b}, Options{Name: "n", Key: k}))
	require.NoError(t, Write(two, []string{b, a}, Options{Name: "n", Key: k}))
	names, err := tree(one, Limits{}.orDefault())
	require.NoError(t, err)
	require.Contains(t, names, NoteFile)
	for _, n := range names {
		require.Equal(t, read(t, one, n), read(t, two, n), n)
	}
	require.Equal(t, read(t, a, results.RequestsFile), read(t, one, "runs/a", results.RequestsFile), "tables are not touched")
}

func TestWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	good := made(t, filepath.Join(dir, "good"), spec{cells: 1, repeats: 1, requests: 3})
	quick := made(t, filepath.Join(dir, "quick"), spec{cells: 1, repeats: 1, requests: 3, manifest: func(m *results.Manifest) { m.Quick = true }})
	part := made(t, filepath.Join(dir, "part"), spec{cells: 1, repeats: 1, requests: 3, manifest: func(m *results.Manifest) { m.Expected = 2 }})
	twin := made(t, filepath.Join(dir, "x", "Good"), spec{cells: 1, repeats: 1, requests: 3})
	odd := made(t, filepath.Join(dir, "a b"), spec{cells: 1, repeats: 1, requests: 3})
	touched := made(t, filepath.Join(dir, "touched"), spec{cells: 1, repeats: 1, requests: 3})
	bench := filepath.Join(touched, results.BenchFile)
	require.NoError(t, os.WriteFile(bench, []byte(strings.Replace(read(t, bench), "1", "2", 1)), 0o644))
	evil := made(t, filepath.Join(dir, "evil"), spec{cells: 1, repeats: 1, requests: 3, cell: func(c *record.Cell) { c.App = "a\u202eb" }})
	for _, c := range []struct {
		runs []string
		opt  Options
		want string
	}{
		{nil, Options{}, "no run folder"},
		{[]string{dir}, Options{}, "run.json"},
		{[]string{quick}, Options{}, "hand it in to the open division with --open"},
		{[]string{part}, Options{Open: true}, "1 of 2 runs of cells are there"},
		{[]string{good, twin}, Options{}, "both would be runs/Good"},
		{[]string{odd}, Options{}, "rename the folder"},
		{[]string{touched}, Options{}, "was changed after the run"},
		{[]string{evil}, Options{}, "U+202E"},
		{[]string{good}, Options{Name: "../x"}, "bundle name"},
		{[]string{good}, Options{Title: "a\nb"}, "--title"},
		{[]string{good}, Options{Supersedes: "h1:x"}, "--supersedes"},
	} {
		err := Write(filepath.Join(t.TempDir(), "out"), c.runs, c.opt)
		require.ErrorContains(t, err, c.want)
	}
	out := filepath.Join(dir, "out")
	require.NoError(t, Write(out, []string{quick}, Options{Open: true}))
	require.ErrorContains(t, Write(out, []string{good}, Options{}), "the folder holds something")
	b, err := Open(out)
	require.NoError(t, err)
	require.Contains(t, b.Manifest.Open, "runs/quick: a quick run, NOT COMPARABLE")
	require.NoError(t, b.Close())
}

func TestRedaction(t *testing.T) {
	dir := t.TempDir()
	a := made(t, filepath.Join(dir, "a"), spec{cells: 1, repeats: 1, requests: 3, manifest: func(m *results.Manifest) {
		m.Command = []string{"/home/alice/go/bin/meibench", "run", "--model=/data/x/m.gguf", "--endpoint", "http://gpu7.lab:8000/v1", "--agent", "edge=10.0.0.7:9000", "--out", "~/runs/a", "--set", "rate=1,2"}
		m.Endpoints = []results.Endpoint{{URL: "http://gpu7.lab:8000/v1"}, {URL: "http://127.0.0.1:8000/v1"}}
		m.Agents = []results.Agent{{Address: "10.0.0.7:9000"}}
		m.Warnings = []string{"journal of alice on box42 was torn"}
	}})
	d, err := Prepare([]string{a}, Options{Private: []string{"alice", "box42"}})
	require.NoError(t, err)
	out := filepath.Join(dir, "out")
	require.NoError(t, d.Write(out))
	text := read(t, out, "runs/a", results.ManifestFile)
	for _, secret := range []string{"alice", "gpu7", "10.0.0.7", "/data", "box42"} {
		require.NotContains(t, text, secret)
		require.NotContains(t, read(t, out, ManifestFile), secret)
		require.NotContains(t, read(t, out, ReadmeFile), secret)
		require.NotContains(t, read(t, out, CrateFile), secret)
	}
	b, err := Open(out)
	require.NoError(t, err)
	require.Equal(t, []string{"meibench", "run", "--model=PATH/m.gguf", "--endpoint", "http://HOST/v1", "--agent", "edge=HOST:9000", "--out", "PATH/a", "--set", "rate=1,2"}, b.Manifest.Runs[0].Command)
	require.Equal(t, "http://127.0.0.1:8000/v1", b.Runs[0].Set.Manifest.Endpoints[1].URL)
	require.NoError(t, b.Close())
	var said []string
	for _, r := range d.Redactions {
		require.Equal(t, "runs/a/run.json", r.File)
		said = append(said, r.Old)
	}
	require.Contains(t, said, "journal of alice on box42 was torn")

	require.NoError(t, Write(filepath.Join(dir, "open"), []string{a}, Options{Identify: true, Private: []string{"alice"}}))
	require.Contains(t, read(t, dir, "open", "runs/a", results.ManifestFile), "/home/alice/go/bin/meibench")
}

func TestNamesThatSayNothingStay(t *testing.T) {
	for _, name := range Here() {
		require.NotContains(t, common, " "+strings.ToLower(name)+" ")
	}
	p := newPrivacy([]string{"NAME", "box42"})
	require.Equal(t, "NAME NAME NAME x/y a /sys/class/z", p.clean("box42 box42 NAME x/y a /sys/class/z"))
	require.Equal(t, "PATH/c 'PATH/d' PATH/e", p.clean(`/a/b/c '~/d' C:\x\e`))
	require.Empty(t, p.found("1/2 tokens/s and/or https in/out"))
}

func TestAddressesAreTakenOut(t *testing.T) {
	for in, want := range map[string]string{
		"http://gpu7.lab:8000/v1":                  "http://HOST/v1",
		"https://u:secret@gpu7/v1?key=k#f":         "https://HOST/v1",
		"http://127.0.0.1:8000/v1?key=k":           "http://127.0.0.1:8000/v1",
		"http://u:secret@localhost/v1":             "http://HOST/v1",
		"http://localhost.evil.example/v1":         "http://HOST/v1",
		"--endpoint=http://[fe80::1]:9/v1":         "--endpoint=http://HOST/v1",
		"edge=pi5.lab:9000,cloud=big:9000,x=y:900": "edge=HOST:9000,cloud=HOST:9000,x=HOST:900",
		"edge=localhost:9000":                      "edge=localhost:9000",
		"10.0.0.7:9000":                            "HOST:9000",
		"rate=1,2,4":                               "rate=1,2,4",
		"llama-3.2-1b:q4_0":                        "llama-3.2-1b:q4_0",
		"--out":                                    "--out",
	} {
		require.Equal(t, want, noAddress(in))
	}
}

// What stands in tables cannot be taken out without a lie.
func TestPrivateTablesAreRefused(t *testing.T) {
	dir := t.TempDir()
	a := made(t, filepath.Join(dir, "a"), spec{cells: 1, repeats: 1, requests: 3, cell: func(c *record.Cell) { c.App = "/home/alice/app.yaml" }})
	_, err := Prepare([]string{a}, Options{})
	require.ErrorContains(t, err, `cells.arrow names "/home/alice/app.yaml"`)
	_, err = Prepare([]string{a}, Options{Identify: true})
	require.NoError(t, err)
	c := made(t, filepath.Join(dir, "c"), spec{cells: 1, repeats: 1, requests: 3, manifest: func(m *results.Manifest) {
		m.Endpoints = []results.Endpoint{{URL: "http://edge:1/v1"}, {URL: "http://127.0.0.1:1/v1"}, {URL: "http://10.0.0.7:1/v1"}}
		m.Agents = []results.Agent{{Address: "pi.lab:9"}}
	}, cell: func(c *record.Cell) { c.Warnings = []string{"10.0.0.7 was slow, 127.0.0.1 was not"} }})
	_, err = Prepare([]string{c}, Options{})
	require.ErrorContains(t, err, `names "10.0.0.7"`)
	require.Equal(t, []string{"10.0.0.7", "pi.lab"}, hosts(&results.Manifest{Agents: []results.Agent{{Address: "pi.lab:9"}, {Address: "[::1]:2"}},
		Endpoints: []results.Endpoint{{URL: "http://edge:1/v1"}, {URL: "http://127.0.0.1:1/v1"}, {URL: "https://10.0.0.7/v1"}}}))
	b := made(t, filepath.Join(dir, "b"), spec{cells: 1, repeats: 1, requests: 3, host: "source: read /sys/class/powercap/x on box42\n"})
	_, err = Prepare([]string{b}, Options{})
	require.NoError(t, err, "paths of the system are the same everywhere")
	_, err = Prepare([]string{b}, Options{Private: []string{"box42"}})
	require.ErrorContains(t, err, "host.yaml names")
}

func TestTextsFollowFromTheRuns(t *testing.T) {
	dir := written(t, Options{Name: "x"})
	readme := read(t, dir, ReadmeFile)
	require.Contains(t, readme, "10 of 10 runs of cells")
	require.Contains(t, readme, "\nmeibench run --out again/a\nmeibench compare runs/a again/a\n")
	require.Contains(t, readme, "@misc{x,")
	require.Contains(t, readme, "| goodput (req/s) | ttft\\_p50 (sec) | e2e\\_p50 (sec) | quality\\_mean (score) | energy\\_per\\_request (J/req) |")
	list := read(t, dir, ChecklistFile)
	require.Contains(t, list, "| How many runs stand behind a number? | 2 to 6 runs of a cell (repeats and seeds) |")
	require.Contains(t, list, "| Where is it archived, under which DOI? | not recorded |")
	require.Contains(t, list, "| Who is to be asked? | not recorded |")
	for _, name := range headline {
		m, ok := record.Lookup(name)
		require.True(t, ok && m.Scope == record.PerRun, name)
	}
	require.True(t, strings.HasPrefix(read(t, dir, CitationFile), "cff-version: 1.2.0\n"))
	require.Equal(t, "a\\|b\\_\\*&lt;script&gt;\\`", md("a|b_*<script>`"))
}

// The rules that RO-Crate 1.1 and Croissant 1.0 state and that can be checked
// without a network.
func TestMetadataFollowsItsRules(t *testing.T) {
	dir := written(t, Options{Name: "x"})
	var crate struct {
		Context []any            `json:"@context"`
		Graph   []map[string]any `json:"@graph"`
	}
	require.NoError(t, json.Unmarshal([]byte(read(t, dir, CrateFile)), &crate))
	require.Equal(t, "https://w3id.org/ro/crate/1.1/context", crate.Context[0])
	byID := map[string]map[string]any{}
	for _, e := range crate.Graph {
		id := e["@id"].(string)
		require.NotContains(t, byID, id, "each entity once")
		require.NotEmpty(t, e["@type"], id)
		byID[id] = e
	}
	require.Equal(t, map[string]any{"@id": "https://w3id.org/ro/crate/1.1"}, byID[CrateFile]["conformsTo"])
	require.Equal(t, map[string]any{"@id": "./"}, byID[CrateFile]["about"])
	for _, need := range []string{"name", "description", "datePublished", "license", "hasPart", "mentions"} {
		require.NotEmpty(t, byID["./"][need], need)
	}
	actions := 0
	var walk func(v any)
	walk = func(v any) { // every reference is to an entity of the graph
		switch v := v.(type) {
		case map[string]any:
			if id, ok := v["@id"].(string); ok && len(v) == 1 && !strings.HasPrefix(id, "http") {
				require.Contains(t, byID, id)
			}
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	for _, e := range crate.Graph {
		walk(e)
		switch e["@type"] {
		case "CreateAction":
			actions++
			for _, need := range []string{"name", "instrument", "result", "endTime"} {
				require.NotEmpty(t, e[need], need)
			}
		case "File":
			require.FileExists(t, filepath.Join(dir, e["@id"].(string)))
		}
	}
	require.Equal(t, 2, actions)
	testCroissant(t, dir)
}

func testCroissant(t *testing.T, dir string) {
	var doc struct {
		Context      map[string]any `json:"@context"`
		Type         string         `json:"@type"`
		ConformsTo   string         `json:"conformsTo"`
		Name         string
		Description  string
		License      string
		Distribution []struct {
			ID     string `json:"@id"`
			SHA256 string
			Format string `json:"encodingFormat"`
			URL    string `json:"contentUrl"`
		}
		RecordSet []struct {
			ID    string `json:"@id"`
			Field []struct {
				ID     string `json:"@id"`
				Type   string `json:"dataType"`
				Source struct {
					FileObject struct {
						ID string `json:"@id"`
					}
					Extract struct{ Column string }
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(read(t, dir, CroissantFile)), &doc))
	require.Equal(t, []string{"sc:Dataset", "http://mlcommons.org/croissant/1.0", "x"}, []string{doc.Type, doc.ConformsTo, doc.Name})
	require.NotEmpty(t, doc.Description)
	require.NotEmpty(t, doc.License)
	require.Equal(t, "cr:recordSet", doc.Context["recordSet"])
	files := map[string]bool{}
	for _, f := range doc.Distribution {
		files[f.ID] = true
		require.Contains(t, read(t, dir, SumsFile), f.SHA256+"  "+f.URL+"\n")
		require.NotEmpty(t, f.Format)
	}
	require.Len(t, doc.RecordSet, 6, "three tables of two runs")
	columns := map[string]string{}
	for _, s := range doc.RecordSet {
		for _, f := range s.Field {
			require.True(t, files[f.Source.FileObject.ID])
			require.Equal(t, s.ID+"/"+f.Source.Extract.Column, f.ID)
			columns[f.ID] = f.Type
		}
	}
	require.Equal(t, []string{"sc:Integer", "sc:Float", "sc:Text", "sc:Integer"},
		[]string{columns["a/requests/sent_ns"], columns["b/requests/quality"], columns["a/spans/node"], columns["a/requests/chunk_tokens"]})
}

func TestStatement(t *testing.T) {
	dir := written(t, Options{Name: "x"})
	var s struct {
		Type    string `json:"_type"`
		Subject []struct {
			Name   string
			Digest map[string]string
		}
		PredicateType string
		Predicate     map[string]any
	}
	require.NoError(t, json.Unmarshal([]byte(read(t, dir, StatementFile)), &s))
	require.Equal(t, "https://in-toto.io/Statement/v1", s.Type)
	require.Equal(t, SumsFile, s.Subject[0].Name)
	d, err := results.DigestFile(filepath.Join(dir, SumsFile))
	require.NoError(t, err)
	require.Equal(t, d.SHA256, s.Subject[0].Digest["sha256"])
	require.NotEmpty(t, s.PredicateType)
	require.NotEmpty(t, s.Predicate)
}
