package predict

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Row is one published measurement of a language model's speed. A number that
// its source does not give is 0. What the notes say is parsed into the fields
// below Notes.
type Row struct {
	File string // where the row was read
	Line int    // its line there, from 1

	Device, Accelerator, Framework, FrameworkVersion string
	Model                                            string
	ParamsB                                          float64 // parameters, 1e9
	Quant                                            string
	BytesPerWeight                                   float64 // B, averaged over all weights
	PromptTokens, GenTokens                          float64 // tokens
	Prefill, Decode                                  float64 // tokens/s; Decode is the aggregate over the batch
	PowerW                                           float64 // W, scope as the source says
	Source, Notes                                    string

	ActiveB   float64 // 1e9 parameters read per token (ParamsB unless the notes say active_b)
	Batch     float64 // sequences decoded at once (1 unless the notes say batch)
	NGPU      int     // accelerators used at once
	Context   float64 // tokens in the KV cache while decoding; -1 if unknown
	JPerToken float64 // J per generated token, 0 if unknown

	calibrates bool // the row calibrates the device that is predicted
}

// rowColumns are the columns of a file of rows; required ones may not be empty.
var rowColumns = []column{
	{"device", true}, {"accelerator", true}, {"framework", true}, {"framework_version", false}, {"model", true},
	{"params_b", false}, {"quant", false}, {"bytes_per_weight", false}, {"prompt_tokens", false}, {"gen_tokens", false},
	{"prefill_tok_s", false}, {"decode_tok_s", false}, {"power_w", false}, {"source", false}, {"notes", false},
}

// column is a column of a CSV file; a needed one must be filled in every line.
type column struct {
	name   string
	needed bool
}

// ReadRows reads a file of published rows (the columns of
// published_llm_speed.csv in any order). A column too many or too few, a number
// that is none, or a needed field that is empty is an error that names
// file:line:column.
func ReadRows(r io.Reader, file string) ([]Row, error) {
	t, err := readTable(r, file, rowColumns)
	if err != nil {
		return nil, err
	}
	var rows []Row
	for t.next() {
		row := Row{
			File: file, Line: t.line, Device: t.text("device"), Accelerator: t.text("accelerator"), Framework: t.text("framework"),
			FrameworkVersion: t.text("framework_version"), Model: t.text("model"), Quant: t.text("quant"),
			Source: t.text("source"), Notes: t.text("notes"),
			ParamsB: t.number("params_b"), BytesPerWeight: t.number("bytes_per_weight"),
			PromptTokens: t.number("prompt_tokens"), GenTokens: t.number("gen_tokens"),
			Prefill: t.number("prefill_tok_s"), Decode: t.number("decode_tok_s"), PowerW: t.number("power_w"),
		}
		row.readNotes()
		rows = append(rows, row)
	}
	if t.err == nil && len(rows) == 0 {
		t.err = fmt.Errorf("%s: no rows below the header: give at least one measurement", file)
	}
	return rows, t.err
}

// The numbers that notes hold. A note is free text with key=value items.
var (
	noteActive  = regexp.MustCompile(`active_b=([0-9]+\.?[0-9]*)`)
	noteBatch   = regexp.MustCompile(`batch=([0-9]+\.?[0-9]*)`)
	noteContext = regexp.MustCompile(`context=([0-9]+\.?[0-9]*)`)
	noteJoules  = regexp.MustCompile(`J_per_token=([0-9]+\.?[0-9]*)`)
	noteNGPU    = regexp.MustCompile(`ngpu=([0-9]+)`)
	manyDevices = regexp.MustCompile(` x([0-9]+)`)
)

func noted(re *regexp.Regexp, text string, otherwise float64) float64 {
	m := re.FindStringSubmatch(text)
	if m == nil {
		return otherwise
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil || math.IsInf(v, 0) {
		return otherwise
	}
	return v
}

// maxNGPU bounds what a note may claim; a larger number is a slip of the pen.
const maxNGPU = 1 << 16

func (r *Row) readNotes() {
	r.ActiveB = noted(noteActive, r.Notes, r.ParamsB)
	if r.ActiveB <= 0 {
		r.ActiveB = r.ParamsB
	}
	r.Batch = noted(noteBatch, r.Notes, 1)
	if r.Batch < 1 {
		r.Batch = 1
	}
	n := noted(noteNGPU, r.Notes, noted(manyDevices, r.Accelerator, 1))
	r.NGPU = int(min(max(n, 1), maxNGPU))
	r.JPerToken = noted(noteJoules, r.Notes, 0)
	start := 0.0
	if strings.Contains(r.Notes, "tg starts from empty") {
		start = r.GenTokens / 2
	} else {
		start = -1
	}
	r.Context = noted(noteContext, r.Notes, start)
}

// table reads a strict CSV file line by line and keeps the first error.
type table struct {
	csv   *csv.Reader
	file  string
	at    map[string]int
	need  []column
	cells []string
	line  int
	err   error
}

// byteOrderMark is what some editors put before the first column's name.
const byteOrderMark = "\xef\xbb\xbf"

func readTable(r io.Reader, file string, columns []column) (*table, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	c := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte(byteOrderMark))))
	c.FieldsPerRecord = -1
	head, err := c.Read()
	if err != nil {
		return nil, fmt.Errorf("%s:1: no header: %w; write the columns %s", file, err, columnNames(columns))
	}
	t := &table{csv: c, file: file, at: map[string]int{}, need: columns}
	for i, name := range head {
		if !slices.ContainsFunc(columns, func(c column) bool { return c.name == name }) {
			return nil, fmt.Errorf("%s:1:%q: unknown column; the columns are %s", file, name, columnNames(columns))
		}
		if _, twice := t.at[name]; twice {
			return nil, fmt.Errorf("%s:1:%s: the column is there twice", file, name)
		}
		t.at[name] = i
	}
	for _, c := range columns {
		if _, ok := t.at[c.name]; !ok {
			return nil, fmt.Errorf("%s:1:%s: the column is missing; the columns are %s", file, c.name, columnNames(columns))
		}
	}
	return t, nil
}

func columnNames(columns []column) string {
	var names []string
	for _, c := range columns {
		names = append(names, c.name)
	}
	return strings.Join(names, ",")
}

// next moves to the next line; it is false at the end and after an error.
func (t *table) next() bool {
	if t.err != nil {
		return false
	}
	cells, err := t.csv.Read()
	if errors.Is(err, io.EOF) {
		return false
	}
	if err != nil {
		var p *csv.ParseError
		if errors.As(err, &p) {
			t.err = fmt.Errorf("%s:%d: not CSV at byte %d of the line: %w", t.file, p.Line, p.Column, p.Err)
		} else {
			t.err = fmt.Errorf("%s: %w", t.file, err)
		}
		return false
	}
	t.line, _ = t.csv.FieldPos(0)
	if len(cells) != len(t.at) {
		t.err = fmt.Errorf("%s:%d: %d fields, and the header has %d: quote text that holds a comma", t.file, t.line, len(cells), len(t.at))
		return false
	}
	t.cells = cells
	for _, c := range t.need {
		if c.needed && strings.TrimSpace(cells[t.at[c.name]]) == "" {
			t.fail(c.name, "empty, and it is needed")
			return false
		}
	}
	return true
}

func (t *table) fail(column, what string) {
	if t.err == nil {
		t.err = fmt.Errorf("%s:%d:%s: %s", t.file, t.line, column, what)
	}
}

func (t *table) text(column string) string {
	return strings.TrimSpace(t.cells[t.at[column]])
}

// number reads a number of at least 0; empty is 0.
func (t *table) number(column string) float64 {
	s := t.text(column)
	if s == "" {
		return 0
	}
	v, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil:
		t.fail(column, fmt.Sprintf("%q is no number: write one, or leave the field empty", s))
	case math.IsNaN(v) || math.IsInf(v, 0) || v < 0:
		t.fail(column, fmt.Sprintf("%s is no possible value: write a finite number of at least 0", s))
	default:
		return v
	}
	return 0
}
