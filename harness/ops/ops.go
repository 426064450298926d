// Package ops keeps what every operation on a device took in a run: the rows from
// which a calibration learns the device's law. They are evidence beside the
// records, in a folder of their own; no metric comes from them, and a run without
// them is whole.
//
//	rec := ops.NewRecorder()
//	cfg.Observe = rec.On("edge")                 // of a kernel device or a modelled one
//	err := rec.Write(dir, ops.Run{Suite: "twin", Cell: "local", Index: 3})
//
//	for _, t := range must(ops.Read(dir)) { ... } // one table for each run of a cell
//
// A table is a file of comma-separated values below a line that says of which run
// it is. It is written when the run of the cell is over, at once: a run that was
// cut off leaves none, and its second try replaces nothing.
//
// What it does not do: keep operations whose law is another one (adapters, bounded
// caches, early exits), and more than Most operations of a run.
package ops

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"meibench/hardware"
	"meibench/hardware/costmodel"
)

// Dir is the folder of the tables in a run folder.
const Dir = "ops"

// Most is how many operations of one run of a cell are kept: the first ones.
const Most = 100_000

const format = "#meibench.ops/v1 "

// Op is an operation that was timed.
type Op struct {
	Node       string
	Kind       hardware.Kind // Prefill, Decode or Verify
	Model      string
	Lo, Hi     int // layers
	Sequences  int
	Tokens     int           // new ones, of all sequences
	Pairs      int64         // (query, key) pairs of attention: Σ new × context + new × (new+1)/2
	Start, End time.Duration // on the run's clock
}

// Wait is what passed beside computing: from when a message was due until it was
// there, or from then until its sender went on.
type Wait struct {
	Link     string
	Resumed  bool          // else a message
	Due, End time.Duration // on the run's clock
}

// Row is what the coefficients of a law multiply, for a model with so many layers.
func (o *Op) Row(layers int) costmodel.Row {
	return costmodel.RowFor(o.Kind, hardware.Span{Lo: o.Lo, Hi: o.Hi}, layers, o.Size())
}

// Size is how much there was to do.
func (o *Op) Size() costmodel.Size {
	return costmodel.Size{Sequences: o.Sequences, Tokens: o.Tokens, Pairs: float64(o.Pairs)}
}

// Run says of which run of which cell a table is.
type Run struct {
	Suite  string `json:"suite"`
	Cell   string `json:"cell"`
	Index  int    `json:"index"`
	Repeat int    `json:"repeat"`
	Seed   uint64 `json:"seed"`
	Left   int    `json:"left_out"` // operations beyond Most
}

// Table are the operations of one run of a cell, in the order in which they ended.
type Table struct {
	Run
	Ops   []Op
	Waits []Wait // on shaped links, likewise
}

// Recorder gathers the operations of one run. It belongs to one world, whose turn
// guards it.
type Recorder struct {
	ops   []Op
	waits []Wait
	left  int
}

// Message notes a wait on a link.
func (r *Recorder) Message(w Wait) {
	if len(r.waits) < Most {
		r.waits = append(r.waits, w)
	}
}

// NewRecorder returns one with room for some thousand operations.
func NewRecorder() *Recorder { return &Recorder{ops: make([]Op, 0, 4096)} }

// On is what a device of a node tells its operations to.
func (r *Recorder) On(node string) func(op *hardware.Op, start, end time.Duration) {
	return func(op *hardware.Op, start, end time.Duration) {
		switch {
		case op.Kind != hardware.Prefill && op.Kind != hardware.Decode && op.Kind != hardware.Verify:
			return
		case op.Keep != nil || op.Exit != nil || len(op.Seqs) > 0 && op.Seqs[0].Adapter != "":
			return
		case len(r.ops) >= Most:
			r.left++
			return
		}
		o := Op{Node: node, Kind: op.Kind, Model: op.Model.Name, Lo: op.Layers.Lo, Hi: op.Layers.Hi, Sequences: len(op.Seqs) + op.Crowd.Seqs,
			Tokens: op.Crowd.Seqs, Pairs: int64(op.Crowd.Context + op.Crowd.Seqs), Start: start, End: end}
		for i := range op.Seqs {
			n, c := int64(op.Seqs[i].New), int64(op.Seqs[i].Context)
			o.Tokens += int(n)
			o.Pairs += n*c + n*(n+1)/2
		}
		r.ops = append(r.ops, o)
	}
}

func name(r Run) string { return fmt.Sprintf("%05d-%03d.csv", r.Index, r.Repeat) }

// columns are those of a table.
func columns() []string {
	return []string{"node", "kind", "model", "layer_lo", "layer_hi", "sequences", "tokens", "pairs", "start_ns", "end_ns"}
}

// Write keeps what was gathered beside the records of a run. A run without
// operations leaves no table.
func (r *Recorder) Write(dir string, run Run) error {
	if len(r.ops) == 0 {
		return nil
	}
	run.Left = r.left
	dir = filepath.Join(dir, Dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write operations: %w", err)
	}
	var b bytes.Buffer
	b.WriteString(format)
	head, err := json.Marshal(run)
	if err != nil {
		return err
	}
	b.Write(append(head, '\n'))
	b.WriteString(strings.Join(columns(), ",") + "\n")
	w := csv.NewWriter(&b)
	num := strconv.Itoa
	for i := range r.ops {
		o := &r.ops[i]
		err = errors.Join(err, w.Write([]string{o.Node, o.Kind.String(), o.Model, num(o.Lo), num(o.Hi), num(o.Sequences), num(o.Tokens),
			strconv.FormatInt(o.Pairs, 10), strconv.FormatInt(int64(o.Start), 10), strconv.FormatInt(int64(o.End), 10)}))
	}
	for _, x := range r.waits {
		what := "message"
		if x.Resumed {
			what = "resumed"
		}
		err = errors.Join(err, w.Write([]string{x.Link, what, "", "0", "0", "0", "0", "0", strconv.FormatInt(int64(x.Due), 10), strconv.FormatInt(int64(x.End), 10)}))
	}
	w.Flush()
	path := filepath.Join(dir, name(run))
	err = errors.Join(err, w.Error(), os.WriteFile(path+".part", b.Bytes(), 0o644))
	if err == nil {
		err = os.Rename(path+".part", path)
	}
	if err != nil {
		return fmt.Errorf("write operations %s: %w", path, err)
	}
	return nil
}

// Read reads the tables of a run folder, in the order of cells and repeats. A
// folder that kept none has none.
func Read(dir string) ([]Table, error) {
	files, err := filepath.Glob(filepath.Join(dir, Dir, "*.csv"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var out []Table
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read operations: %w", err)
		}
		t, err := Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		out = append(out, *t)
	}
	return out, nil
}

// Parse reads one table that anyone may have made.
func Parse(text []byte) (*Table, error) {
	in := bufio.NewReader(bytes.NewReader(text))
	head, err := in.ReadString('\n')
	rest, ok := strings.CutPrefix(head, format)
	if err != nil || !ok {
		return nil, errors.New("not a table of operations: its first line should begin with " + strings.TrimSpace(format))
	}
	t := &Table{}
	dec := json.NewDecoder(strings.NewReader(rest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&t.Run); err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	r := csv.NewReader(in)
	r.ReuseRecord = true
	r.FieldsPerRecord = len(columns())
	got, err := r.Read()
	if err != nil || !slices.Equal(got, columns()) {
		return nil, fmt.Errorf("line 2: want the columns %s", strings.Join(columns(), ","))
	}
	names := map[string]string{}
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
		if len(t.Ops) >= Most || len(t.Waits) >= Most {
			return nil, fmt.Errorf("more than %d operations: no run keeps so many", Most)
		}
		line, _ := r.FieldPos(0)
		if rec[1] == "message" || rec[1] == "resumed" {
			w, err := parseWait(rec, names)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", line+1, err)
			}
			t.Waits = append(t.Waits, w)
			continue
		}
		o, err := parse(rec, names)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line+1, err)
		}
		t.Ops = append(t.Ops, o)
	}
}

// most bounds every count: no model has so many layers, no batch so many tokens.
const most = 1 << 30

// intern keeps one copy of a word: there are two in a hundred thousand rows.
func intern(names map[string]string, s string) string {
	if k, ok := names[s]; ok {
		return k
	}
	s = strings.Clone(s)
	names[s] = s
	return s
}

func parseWait(rec []string, names map[string]string) (w Wait, err error) {
	w.Link, w.Resumed = intern(names, rec[0]), rec[1] == "resumed"
	for i, to := range []*time.Duration{&w.Due, &w.End} {
		n, err := strconv.ParseInt(rec[8+i], 10, 64)
		if err != nil || n < 0 {
			return w, fmt.Errorf("%s %q: want a whole number from 0 up", columns()[8+i], rec[8+i])
		}
		*to = time.Duration(n)
	}
	if w.End < w.Due {
		return w, fmt.Errorf("time goes back: a message due at %d ns came at %d ns", w.Due, w.End)
	}
	return w, nil
}

func parse(rec []string, names map[string]string) (o Op, err error) {
	o.Node, o.Model = intern(names, rec[0]), intern(names, rec[2])
	switch rec[1] {
	case hardware.Prefill.String():
		o.Kind = hardware.Prefill
	case hardware.Decode.String():
		o.Kind = hardware.Decode
	case hardware.Verify.String():
		o.Kind = hardware.Verify
	default:
		return o, fmt.Errorf("kind %q: want prefill, decode or verify", rec[1])
	}
	var n [7]int64
	for i := range n {
		if n[i], err = strconv.ParseInt(rec[3+i], 10, 64); err != nil || n[i] < 0 {
			return o, fmt.Errorf("%s %q: want a whole number from 0 up", columns()[3+i], rec[3+i])
		}
		if i < 4 && n[i] > most {
			return o, fmt.Errorf("%s %d is absurd", columns()[3+i], n[i])
		}
	}
	o.Lo, o.Hi, o.Sequences, o.Tokens, o.Pairs = int(n[0]), int(n[1]), int(n[2]), int(n[3]), n[4]
	o.Start, o.End = time.Duration(n[5]), time.Duration(n[6])
	switch {
	case o.Lo >= o.Hi:
		return o, fmt.Errorf("layers [%d, %d) are none", o.Lo, o.Hi)
	case o.Sequences < 1 || o.Tokens < o.Sequences:
		return o, fmt.Errorf("%d sequences with %d new tokens: want at least one each", o.Sequences, o.Tokens)
	case o.Kind == hardware.Decode && o.Tokens != o.Sequences:
		return o, fmt.Errorf("a decode step of %d sequences made %d tokens", o.Sequences, o.Tokens)
	case o.End < o.Start:
		return o, fmt.Errorf("time goes back: it started at %d ns and ended at %d ns", o.Start, o.End)
	}
	return o, nil
}
