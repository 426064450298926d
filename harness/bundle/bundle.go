// Package bundle is the form in which results are handed in: run folders with
// the plan they followed, the machine they ran on, digests of every file, and a
// signature. Nothing in it is typed by hand.
//
// A bundle is a folder or the same tree as a zip of stored files; both have the
// same h1 hash (golang.org/x/mod/sumdb/dirhash), so packing does not change what
// a bundle is.
//
//	NAME/
//	  manifest.json      Manifest, canonical JSON
//	  runs/RUN/…         run folders as meibench run wrote them: run.json, plan.json, receipt.json,
//	                     requests.arrow, spans.arrow, cells.arrow, bench.txt, host.yaml
//	  summary.json       Summary: every number that may be published, derived from rows
//	  README.md  CHECKLIST.md  CITATION.cff  ro-crate-metadata.json  croissant.json
//	  SHA256SUMS         of all files above; `sha256sum -c` reads it
//	  statement.json     in-toto Statement v1 about the h1 and SHA256SUMS
//	  bundle.note        note signed by who hands it in
//	  DONE               empty, written last
//
// SHA256SUMS lists every file but itself, the statement, the note and the mark,
// sorted by path. The h1 is over the same files; dirhash hashes the very lines
// that sha256sum prints, so the h1 is the SHA-256 of SHA256SUMS, in base64. A
// signature may be added later: the note is not in what it signs.
//
//	draft, err := bundle.Prepare(dirs, bundle.Options{Name: "pi5", Key: key})
//	... draft.Redactions says what will be taken out
//	err = draft.Write("pi5")
//	err = bundle.Pack("pi5", "pi5.meibench.zip")
//
//	b, err := bundle.Open("pi5.meibench.zip") // from anyone
//	defer b.Close()
//	summary, err := bundle.Summarise(b.Runs)  // does it equal b.Summary?
//
// Open takes what Write and Pack make and nothing else, within limits; what it
// refuses is a *Refusal that names file, rule and fix.
//
// The package writes and reads; whether what a bundle claims is true is the
// business of verify. It does not encrypt, and a signature says who, not whether.
package bundle

// Format is what manifests say. A reader refuses any other.
const Format = "meibench.bundle/v1"

// Names of the files at the top of a bundle.
const (
	ManifestFile  = "manifest.json"
	SummaryFile   = "summary.json"
	SumsFile      = "SHA256SUMS"
	StatementFile = "statement.json"
	NoteFile      = "bundle.note"
	DoneFile      = "DONE"
	ReadmeFile    = "README.md"
	ChecklistFile = "CHECKLIST.md"
	CitationFile  = "CITATION.cff"
	CrateFile     = "ro-crate-metadata.json"
	CroissantFile = "croissant.json"
	RunsFolder    = "runs"
)

// Manifest is manifest.json: who hands in what. Unknown fields are errors.
type Manifest struct {
	Schema     string    `json:"schema"`               // Format
	Name       string    `json:"name"`                 // of the entry: letters, digits, - and _
	Title      string    `json:"title,omitempty"`      // one line for readers
	Submitter  string    `json:"submitter"`            // name of the signing key
	Contact    string    `json:"contact,omitempty"`    // only if asked for
	Licence    string    `json:"licence"`              // SPDX, of the data
	Created    string    `json:"created"`              // RFC 3339, the end of the last run: not the time of packing
	Mode       string    `json:"mode"`                 // measured, emulated, modelled or mixed
	Division   string    `json:"division"`             // closed: shipped suite and models, clean build; open: anything else
	Open       []string  `json:"open,omitempty"`       // why the division is open
	Supersedes string    `json:"supersedes,omitempty"` // h1 of an earlier bundle
	Harness    Harness   `json:"harness"`
	Runs       []RunInfo `json:"runs"`
	Attempts   Attempts  `json:"attempts"` // over all runs
	Files      []File    `json:"files"`    // sorted by path: all but this one, sums, statement, note and mark
}

// Harness is the program that made the runs.
type Harness struct {
	Commit string `json:"commit"` // "" where the build had none
	Go     string `json:"go"`
}

// RunInfo is one run folder.
type RunInfo struct {
	Path      string   `json:"path"`              // runs/RUN
	Suite     string   `json:"suite"`             // names, joined by +
	SuiteHash string   `json:"suite_hash"`        // as in run.json
	Contract  string   `json:"contract"`          // hash over the contracts of all cells
	Plan      string   `json:"plan"`              // SHA-256 of the plan
	Committed bool     `json:"committed"`         // the plan was in a log before the run: receipt.json
	System    string   `json:"system"`            // CPU, cores, memory in one line
	Modes     []string `json:"modes"`             // sorted
	Models    []string `json:"models"`            // sorted names
	Seeds     []string `json:"seeds,omitempty"`   // as in run.json
	Command   []string `json:"command,omitempty"` // with paths taken out unless identified
}

// Attempts says what was tried. What failed stays in.
type Attempts struct {
	Cells    int   `json:"cells"`    // runs of cells that the plans ask for
	Done     int   `json:"done"`     // runs of cells that are there
	Invalid  int   `json:"invalid"`  // of these, INVALID
	Requests int64 `json:"requests"` // rows
	Missed   int64 `json:"missed"`   // rows whose outcome is not ok
}

// File is one file of a bundle.
type File struct {
	Path   string `json:"path"` // slashes, relative
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Summary is summary.json: every number that a leaderboard may print.
type Summary struct {
	Schema string  `json:"schema"` // meibench.summary/v1
	Claims []Claim `json:"claims"` // by run, cell index, metric name
}

// SummaryFormat is what summaries say.
const SummaryFormat = "meibench.summary/v1"

// Claim is one cell of a suite with its metrics: repeats and seeds are the
// sample, one value each.
type Claim struct {
	ID       string            `json:"id"` // first 16 hex digits of the hash of run, suite, cell
	Run      string            `json:"run"`
	Suite    string            `json:"suite"`
	Cell     string            `json:"cell"`
	App      string            `json:"app"`
	Pipeline string            `json:"pipeline"`
	Site     string            `json:"site"`
	Model    string            `json:"model"`
	Mode     string            `json:"mode"`
	Params   map[string]any    `json:"params,omitempty"`
	Contract string            `json:"contract"`
	Runs     int               `json:"runs"` // repeats and seeds
	Requests int               `json:"requests"`
	Good     int               `json:"good"` // within all limits
	Valid    bool              `json:"valid"`
	Invalid  []string          `json:"invalid,omitempty"`
	Tier     string            `json:"tier,omitempty"`   // of a modelled or emulated cell: what is known of its devices
	Stated   float64           `json:"stated,omitempty"` // error of E2E p50 where their profile was calibrated, as that says; 0 = it does not
	Metrics  map[string]Metric `json:"metrics"`          // by the names of record.Metrics; those without a value are left out
}

// Metric is a median over runs of a cell with its order-statistic interval at
// 95 %; the interval is null where the runs are too few for one.
type Metric struct {
	Value float64  `json:"value"`
	Low   *float64 `json:"low"`
	High  *float64 `json:"high"`
	N     int      `json:"n"` // runs of the cell with a value
	Unit  string   `json:"unit"`
}

// Severity of a finding.
type Severity string

// Severities, from harmless to fatal.
const (
	Note    Severity = "note"
	Flag    Severity = "flag" // the row stays and is marked
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Finding is one thing that verify has to say of a bundle.
type Finding struct {
	Rule     string   `json:"rule"` // V001 …
	Severity Severity `json:"severity"`
	File     string   `json:"file,omitempty"`
	Row      string   `json:"row,omitempty"` // suite/cell seed repeat, request
	Text     string   `json:"text"`
	Fix      string   `json:"fix,omitempty"`
	Count    int      `json:"count,omitempty"` // how many like it; this is the first
}

// Tier says how far a bundle has been checked.
type Tier uint8

// Tiers of trust. The numbers are those of the rows of leaderboards.
const (
	Refused    Tier = iota // an error was found
	Reported               // T0: the form is right
	Consistent             // T1: everything that follows from the rows follows
	Replayed               // T2: computed again, with the same result
	Reproduced             // T3: another key on another unit of the same device got the same
	Audited                // T4: by a named auditor
)

// String is the tier in words.
func (t Tier) String() string {
	return [...]string{"refused", "reported", "consistent", "replayed", "reproduced", "audited"}[t]
}

// Verdict is the outcome of verify on a bundle.
type Verdict struct {
	Bundle    string    `json:"bundle"` // h1
	Tier      Tier      `json:"tier"`
	Signers   []string  `json:"signers,omitempty"` // known keys that signed
	Committed bool      `json:"committed"`         // all plans were in a log before their runs, proved by receipts under a known key
	Findings  []Finding `json:"findings"`
	Replay    Replay    `json:"replay"`
}

// Replay counts what was computed again.
type Replay struct {
	Modelled int    `json:"modelled"`      // runs of cells, equal in every byte
	Kernels  int    `json:"kernels"`       // runs of cells whose answers were computed again
	Rows     int    `json:"rows"`          // requests compared
	Left     int    `json:"left"`          // runs of cells that were not run again
	Why      string `json:"why,omitempty"` // what was left and why
}
