package results

import (
	"io"
	"sync"
	"time"

	"github.com/apache/arrow/go/v17/arrow"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/internal/canon"
)

// Formats of the tables, in their schema's metadata.
const (
	RequestsFormat = "meibench.requests/v1"
	SpansFormat    = "meibench.spans/v1"
	CellsFormat    = "meibench.cells/v1"
)

// Column names, in the order of times, counts and sizes.
func timeNames() [9]string {
	return [...]string{"released_ns", "sent_ns", "first_byte_ns", "first_chunk_ns", "first_token_ns", "first_answer_token_ns", "last_token_ns", "done_ns", "deadline_ns"}
}
func countNames() [7]string {
	return [...]string{"id", "user", "session", "turn", "prompt_tokens", "asked_tokens", "output_tokens"}
}
func sizeNames() [6]string {
	return [...]string{"sensor_bytes", "up_bytes", "down_bytes", "raw_bytes_out", "derived_bytes_out", "peak_bytes"}
}
func sourceNames() []string {
	return []string{hardware.Modelled.String(), hardware.Emulated.String(), hardware.Measured.String(), "unknown"}
}
func outcomeNames() (out []string) {
	for o := record.OK; o <= record.Cancelled; o++ {
		out = append(out, o.String())
	}
	return out
}
func kindNames() (out []string) {
	for k := record.Compute; k <= record.Wait; k++ {
		out = append(out, k.String())
	}
	return out
}

// identity are the columns that say of which run of which cell a row is. Each
// costs a byte or four: dictionaries of what the blocks hold.
type identity struct {
	words  []*words
	of     []func(*record.Cell) string
	seed   *nums[uint64]
	repeat *nums[int32]
	now    []int32
	cell   *record.Cell
}

// identified is a column of identity in words.
type identified struct {
	name string
	of   func(*record.Cell) string
}

func identities() []identified {
	return []identified{
		{"suite", func(c *record.Cell) string { return c.Suite }}, {"cell", func(c *record.Cell) string { return c.Name }},
		{"app", func(c *record.Cell) string { return c.App }}, {"pipeline", func(c *record.Cell) string { return c.Pipeline }},
		{"site", func(c *record.Cell) string { return c.Site }}, {"model", func(c *record.Cell) string { return c.Model }},
		{"mode", func(c *record.Cell) string { return c.Mode }},
	}
}

func newIdentity(blocks []*block) *identity {
	id := &identity{seed: newNums[uint64](head{name: "seed"}), repeat: newNums[int32](head{name: "repeat"})}
	for _, f := range identities() {
		list := distinct(blocks, func(b *block) string { return f.of(&b.cell) })
		id.words, id.of = append(id.words, newWords(head{name: f.name}, list)), append(id.of, f.of)
	}
	id.now = make([]int32, len(id.words))
	return id
}

func (id *identity) set(c *record.Cell) {
	id.cell = c
	for i, w := range id.words {
		id.now[i] = w.at[id.of[i](c)]
	}
}

func (id *identity) put() {
	for i, w := range id.words {
		w.put(id.now[i])
	}
	id.seed.put(id.cell.Seed)
	id.repeat.put(int32(id.cell.Repeat))
}

func (id *identity) columns() (out []column) {
	for _, w := range id.words {
		out = append(out, w)
	}
	return append(out, id.seed, id.repeat)
}

// requests is the table of requests.
type requests struct {
	*table
	id       *identity
	counts   [7]*nums[int64]
	intended *nums[int64]
	times    [9]*nums[int64]
	sizes    [6]*nums[int64]
	flop     *nums[float64]
	quality  *nums[float64]
	joules   [record.NumParts]*nums[float64]
	sources  [record.NumParts]*words
	outcome  *words
	err      *texts
	counters [record.NumCounters]*nums[int64] // nil for those that no block used
	hash     *nums[uint64]                    // nil likewise
	chunkAt  *lists[int64]
	chunkTok *lists[int32]
}

func newRequests(out io.WriteSeeker, blocks []*block) (*requests, error) {
	t := &requests{id: newIdentity(blocks), intended: newNums[int64](head{name: "intended_ns", unit: "ns"}),
		flop: newNums[float64](head{name: "flop", unit: "FLOP"}), quality: newNums[float64](nullable("quality", "score")),
		outcome: newWords(head{name: "outcome"}, outcomeNames()), err: newTexts("err"),
		chunkAt: newLists[int64]("chunk_at_ns", "ns"), chunkTok: newLists[int32]("chunk_tokens", "tok")}
	cols := t.id.columns()
	for i, name := range countNames() {
		t.counts[i] = newNums[int64](head{name: name})
		cols = append(cols, t.counts[i])
	}
	cols = append(cols, t.intended)
	for i, name := range timeNames() {
		t.times[i] = newNums[int64](nullable(name, "ns"))
		cols = append(cols, t.times[i])
	}
	for i, name := range sizeNames() {
		t.sizes[i] = newNums[int64](head{name: name, unit: "B"})
		cols = append(cols, t.sizes[i])
	}
	for p := range record.NumParts {
		t.joules[p] = newNums[float64](nullable("energy_"+p.String(), "J"))
		t.sources[p] = newWords(nullable("energy_"+p.String()+"_source", ""), sourceNames())
		cols = append(cols, t.joules[p], t.sources[p])
	}
	cols = append(cols, t.flop, t.quality, t.outcome, t.err, t.chunkAt, t.chunkTok)
	used := uint64(0)
	for _, b := range blocks {
		used |= b.used
	}
	for c := range record.NumCounters {
		if used&(1<<c) != 0 {
			t.counters[c] = newNums[int64](head{name: c.String(), unit: c.Unit()})
			cols = append(cols, t.counters[c])
		}
	}
	if used&hashUsed != 0 {
		t.hash = newNums[uint64](nullable("output_hash", ""))
		cols = append(cols, t.hash)
	}
	var err error
	t.table, err = newTable(out, RequestsFormat, cols)
	return t, err
}

func (t *requests) put(r *record.Request) error {
	t.id.put()
	for i, c := range counts(r) {
		t.counts[i].put(int64(*c))
	}
	t.intended.put(int64(r.Intended))
	for i, at := range times(r) {
		if *at == record.Unset {
			t.times[i].putNull()
		} else {
			t.times[i].put(int64(*at))
		}
	}
	for i, s := range sizes(r) {
		t.sizes[i].put(int64(*s))
	}
	for p := range r.Energy {
		t.putEnergy(p, &r.Energy[p])
	}
	for c, col := range t.counters {
		if col != nil {
			col.put(r.Counts[c])
		}
	}
	t.putHash(r.OutputHash)
	t.flop.put(float64(r.FLOP))
	putReal(t.quality, r.Quality)
	t.outcome.put(int32(r.Outcome - record.OK))
	t.err.put(r.Err)
	for _, c := range r.Chunks {
		t.chunkAt.v = append(t.chunkAt.v, int64(c.At))
		t.chunkTok.v = append(t.chunkTok.v, int32(c.Tokens))
	}
	t.chunkAt.end()
	t.chunkTok.end()
	return t.row()
}

// putHash writes what identifies an answer, if some row of the table has it.
func (t *requests) putHash(h uint64) {
	switch {
	case t.hash == nil:
	case h == 0:
		t.hash.putNull()
	default:
		t.hash.put(h)
	}
}

const unknownSource = int32(hardware.Measured) // the word after the last real source

// putEnergy writes an energy as its joules and its source. A part that was not
// involved has neither; one with a step that could not tell has the source
// "unknown" and no joules.
func (t *requests) putEnergy(p int, e *record.Energy) {
	switch {
	case e.Unknown:
		t.joules[p].putNull()
		t.sources[p].put(unknownSource)
	case e.Source == 0 || e.Source > uint8(hardware.Measured):
		t.joules[p].putNull()
		t.sources[p].putNull()
	default:
		t.joules[p].put(float64(e.Joules))
		t.sources[p].put(int32(e.Source - 1))
	}
}

// spans is the table of spans, in the order of the requests and then of time.
// A span knows its run of a cell as a row of the table of cells: with a handful
// of spans per request, more would make this the largest table by far.
type spans struct {
	*table
	run        *nums[int32]
	now        int32
	request    *nums[int64]
	kind, node *words
	start, end *nums[int64]
}

func newSpans(out io.WriteSeeker, blocks []*block) (*spans, error) {
	seen := []string{}
	for _, b := range blocks {
		seen = append(seen, b.nodes...)
	}
	nodes := distinct(seen, func(s string) string { return s })
	t := &spans{run: newNums[int32](head{name: "run"}), request: newNums[int64](head{name: "id"}), kind: newWords(head{name: "kind"}, kindNames()),
		node: newWords(head{name: "node"}, nodes), start: newNums[int64](head{name: "start_ns", unit: "ns"}), end: newNums[int64](head{name: "end_ns", unit: "ns"})}
	var err error
	t.table, err = newTable(out, SpansFormat, []column{t.run, t.request, t.kind, t.node, t.start, t.end})
	return t, err
}

func (t *spans) put(r *record.Request) error {
	for i := range r.Spans {
		s := &r.Spans[i]
		t.run.put(t.now)
		t.request.put(int64(r.ID))
		t.kind.put(int32(s.Kind - record.Compute))
		t.node.word(s.Node)
		t.start.put(int64(s.Start))
		t.end.put(int64(s.End))
		if err := t.row(); err != nil {
			return err
		}
	}
	return nil
}

// extent says where a block's rows are in the tables.
type extent struct {
	FirstRow, Rows, FirstSpan, Spans int64
}

// cells is the table of runs of cells: their identity and limits, where their
// rows are, every per-run metric, and the whole cell as JSON.
type cells struct {
	*table
	id      *identity
	ints    []*nums[int64]
	texts   []*texts
	metrics []*nums[float64]
}

func cellInts() []string {
	return []string{"index", "ttft_limit_ns", "tpot_limit_ns", "e2e_limit_ns", "wall_ns", "horizon_ns", "client_cpu_ns", "events", "valid", "first_row", "rows", "first_span", "spans"}
}

func newCells(out io.WriteSeeker, blocks []*block, metrics []record.Metric) (*cells, error) {
	t := &cells{id: newIdentity(blocks)}
	cols := t.id.columns()
	for _, name := range cellInts() {
		c := newNums[int64](head{name: name})
		t.ints, cols = append(t.ints, c), append(cols, c)
	}
	for _, name := range cellTexts() {
		c := newTexts(name)
		t.texts, cols = append(t.texts, c), append(cols, c)
	}
	for _, m := range metrics {
		c := newNums[float64](nullable(m.Name, m.Unit))
		t.metrics, cols = append(t.metrics, c), append(cols, c)
	}
	var err error
	t.table, err = newTable(out, CellsFormat, cols)
	return t, err
}

func cellTexts() []string { return []string{"contract", "params", "invalid", "cell_json", "tier"} }

// cellColumns are the plain columns of a run of a cell, in the order of cellInts
// and cellTexts.
func cellColumns(c *record.Cell, e extent) (ints []int64, texts []string, err error) {
	valid := int64(0)
	if c.Valid {
		valid = 1
	}
	d := func(d time.Duration) int64 { return int64(d) }
	ints = []int64{int64(c.Index), d(c.TTFTLimit), d(c.TPOTLimit), d(c.E2ELimit), d(c.Wall), d(c.Horizon), d(c.ClientCPU),
		int64(c.Events), valid, e.FirstRow, e.Rows, e.FirstSpan, e.Spans}
	texts = []string{c.Contract}
	for _, v := range []any{c.Params, c.Invalid, c} {
		b, err := canon.JSON(v)
		if err != nil {
			return nil, nil, err
		}
		texts = append(texts, string(b))
	}
	return ints, append(texts, c.Tier), nil
}

func (t *cells) put(c *record.Cell, e extent, values []record.Value) error {
	t.id.set(c)
	t.id.put()
	ints, texts, err := cellColumns(c, e)
	if err != nil {
		return err
	}
	for i, v := range ints {
		t.ints[i].put(v)
	}
	for i, s := range texts {
		t.texts[i].put(s)
	}
	for i, v := range values {
		putReal(t.metrics[i], v.V)
	}
	return t.row()
}

// standard is a column as it is published: its field, and its words where they
// are fixed.
type standard struct {
	field arrow.Field
	words arrow.Array
}

// published are the columns of the three tables, with all that a run may use.
var published = sync.OnceValues(func() (out [3][]standard, err error) {
	all := []*block{{used: 1<<record.NumCounters - 1 | hashUsed}}
	req, err := newRequests(nowhere{}, all)
	if err != nil {
		return out, err
	}
	spn, err := newSpans(nowhere{}, all)
	if err != nil {
		return out, err
	}
	cel, err := newCells(nowhere{}, all, runMetrics())
	if err != nil {
		return out, err
	}
	fixed := map[string]bool{"outcome": true, "kind": true}
	for p := range record.NumParts {
		fixed["energy_"+p.String()+"_source"] = true
	}
	for i, t := range []*table{req.table, spn.table, cel.table} {
		for _, c := range t.cols {
			one := standard{field: c.field()}
			if w, ok := c.(*words); ok && fixed[w.name] {
				one.words = w.dict
			}
			out[i] = append(out[i], one)
		}
	}
	return out, nil
})

// nowhere takes what a table writes before its first row.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error)    { return len(p), nil }
func (nowhere) Seek(int64, int) (int64, error) { return 0, nil }

// optional reports whether a table may lack a column: one of requests that is not
// used, one of cells that came later.
func optional(name string) bool {
	for c := range record.NumCounters {
		if c.String() == name {
			return true
		}
	}
	return name == "output_hash" || name == "tier" // runs from before it was noted have none
}
