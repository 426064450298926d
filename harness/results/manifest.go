package results

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"meibench/internal/canon"
)

// Format names the layout of a run folder. A reader refuses any other.
const Format = "meibench.run/v1"

// Names of the files of a run folder.
const (
	ManifestFile = "run.json"
	RequestsFile = "requests.arrow"
	SpansFile    = "spans.arrow"
	CellsFile    = "cells.arrow"
	BenchFile    = "bench.txt"
	journalFile  = "journal"
)

// Manifest is run.json: what a reader must know about a run that is in no row.
// It is canonical JSON. Nothing in it decides whether two runs may be compared;
// that is the contract of each cell.
type Manifest struct {
	Format    string            `json:"format"`
	Command   []string          `json:"command"`    // the command line
	Commit    string            `json:"commit"`     // of this program, with "+dirty" where it was
	GoVersion string            `json:"go_version"` // runtime.Version()
	GOARCH    string            `json:"goarch"`
	GOAMD64   string            `json:"goamd64,omitempty"`   // decides whether Go fuses x*y+z on amd64
	CPU       string            `json:"cpu"`                 // model name
	Kernel    string            `json:"kernel"`              // of the operating system
	Governor  string            `json:"governor"`            // CPU frequency governor, "" where unknown
	Host      map[string]string `json:"host,omitempty"`      // anything else about the machine
	Suite     string            `json:"suite"`               // the suite file's text
	SuiteHash string            `json:"suite_hash"`          // SHA-256 of its canonical JSON
	Profiles  map[string]string `json:"profiles"`            // hardware profile -> SHA-256
	Models    map[string]string `json:"models"`              // model -> SHA-256 of its bytes
	Endpoints []Endpoint        `json:"endpoints,omitempty"` // real servers that were asked
	Agents    []Agent           `json:"agents,omitempty"`    // other machines that computed, as last seen
	Seeds     []string          `json:"seeds"`               // decimal: JSON readers round large integers
	Contract  string            `json:"contract"`            // hash over the contracts of all cells
	Contracts []Contract        `json:"contracts"`           // the distinct contracts, sorted by hash
	Expected  int               `json:"expected"`            // runs of cells that make the run complete; 0 = unknown
	Quick     bool              `json:"quick"`               // NOT COMPARABLE
	Started   time.Time         `json:"started"`

	// What Finish adds.
	Finished *time.Time        `json:"finished,omitempty"`
	Complete bool              `json:"complete"` // all expected runs of cells are there
	Blocks   int               `json:"blocks"`   // runs of cells
	Rows     int64             `json:"rows"`
	Spans    int64             `json:"spans"`
	Files    map[string]Digest `json:"files,omitempty"`
	Warnings []string          `json:"warnings,omitempty"` // such as a torn journal that was repaired
}

// Endpoint is a real server that a run asked. Keys are never part of it.
type Endpoint struct {
	Site   string         `json:"site"`
	Node   string         `json:"node"`
	URL    string         `json:"url"`
	Model  string         `json:"model"`            // as the server calls it
	API    string         `json:"api"`              // completions or chat
	Server string         `json:"server,omitempty"` // its Server header
	Extra  map[string]any `json:"extra,omitempty"`  // further fields of each request
}

// Agent is another machine that computed for a run: who it is, how its clock
// relates to this one's, and what passed between them. Times are nanoseconds.
type Agent struct {
	Site          string            `json:"site"`
	Node          string            `json:"node"`
	Address       string            `json:"address"`
	Version       string            `json:"version"` // of its program
	TLS           bool              `json:"tls"`
	Models        map[string]string `json:"models"` // that it holds -> SHA-256
	Offset        int64             `json:"offset_ns"`
	Uncertainty   int64             `json:"offset_uncertainty_ns"`
	RTT           int64             `json:"min_rtt_ns"`
	Drift         float64           `json:"drift_ppm"`
	DriftUnsure   float64           `json:"drift_uncertainty_ppm"` // 0: not watched for long enough
	Samples       int               `json:"clock_samples"`
	Clamped       int               `json:"clamped_stamps"` // that lay outside their call after mapping
	FarthestClamp int64             `json:"farthest_clamp_ns"`
	Operations    int               `json:"operations"`
	Failures      int               `json:"failures"` // operations that failed because it was down
	Reconnects    int               `json:"reconnects"`
	Sent          int64             `json:"sent_bytes"` // below gRPC and TLS
	Received      int64             `json:"received_bytes"`
	Payload       int64             `json:"payload_bytes"` // of these, what pipelines moved
	Setup         int64             `json:"setup_bytes"`   // of these, before the first operation
	Framing       int64             `json:"framing_bytes"` // the rest
}

// SetAgents notes what a run of a cell learnt of agents and saves the manifest.
// The clock is the one seen last; counts are sums over the cells.
func (r *Run) SetAgents(list []Agent) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.manifest
	m.AddAgents(list)
	if err := m.save(r.disk, r.dir); err != nil {
		return err
	}
	r.manifest = m
	return nil
}

// AddAgents takes in what was learnt of agents after what the manifest knows of them.
func (m *Manifest) AddAgents(list []Agent) {
	m.Agents = slices.Clone(m.Agents)
	for _, a := range list {
		i := slices.IndexFunc(m.Agents, func(b Agent) bool { return b.Site == a.Site && b.Node == a.Node && b.Address == a.Address })
		if i < 0 {
			m.Agents = append(m.Agents, a)
		} else {
			m.Agents[i] = a.after(m.Agents[i])
		}
	}
}

// after adds what was counted before.
func (a Agent) after(b Agent) Agent {
	a.Samples += b.Samples
	a.Clamped += b.Clamped
	a.FarthestClamp = max(a.FarthestClamp, b.FarthestClamp)
	a.Operations += b.Operations
	a.Failures += b.Failures
	a.Reconnects += b.Reconnects
	a.Sent += b.Sent
	a.Received += b.Received
	a.Payload += b.Payload
	a.Setup += b.Setup
	a.Framing += b.Framing
	return a
}

// Digest identifies a file's content.
type Digest struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// readManifest loads run.json of a folder. A missing file is os.ErrNotExist.
func readManifest(dir string) (m Manifest, err error) {
	path := filepath.Join(dir, ManifestFile)
	f, err := os.Open(path)
	if err != nil {
		return m, fmt.Errorf("read run %s: %w (is it a folder that meibench run wrote?)", dir, err)
	}
	defer f.Close()
	const limit = 64 << 20
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return m, diskError("read", path, err)
	}
	if len(b) > limit {
		return m, fmt.Errorf("read %s: more than %d bytes: no manifest is that large", path, limit)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&m); err != nil {
		return m, fmt.Errorf("read %s: %w", path, err)
	}
	if m.Format != Format {
		return m, fmt.Errorf("read %s: format is %q, this program reads %q", path, m.Format, Format)
	}
	return m, nil
}

// disk is the part of the file system that writes go through; tests replace it
// by one that fails.
type disk interface {
	create(path string) (file, error)
	rename(from, to string) error
	remove(path string)
	syncDir(path string) error
}

type realDisk struct{}

func (realDisk) create(path string) (file, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
}
func (realDisk) rename(from, to string) error { return os.Rename(from, to) }
func (realDisk) remove(path string)           { _ = os.Remove(path) }
func (realDisk) syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, os.ErrInvalid) || errors.Is(err, errors.ErrUnsupported) {
		err = nil // some file systems cannot
	}
	return errors.Join(err, d.Close())
}

const tempSuffix = ".tmp"

// writeWhole writes a file under a temporary name and syncs it. The caller
// renames it when all files of a set are written.
func writeWhole(d disk, path string, fill func(*sink) error) (dig Digest, err error) {
	f, err := d.create(path + tempSuffix)
	if err != nil {
		return dig, diskError("create", path+tempSuffix, err)
	}
	s := newSink(f)
	err = fill(s)
	if cerr := s.close(); cerr != nil { // the cause of what fill may have met
		err = cerr
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		d.remove(path + tempSuffix) // give the space back
		return dig, diskError("write", path+tempSuffix, err)
	}
	return Digest{s.pos, hex.EncodeToString(s.hash.Sum(nil))}, nil
}

// replace writes a file so that at any moment either the old or the new content
// is under its name.
func replace(d disk, path string, content []byte) error {
	if _, err := writeWhole(d, path, func(w *sink) error { _, err := w.Write(content); return err }); err != nil {
		return err
	}
	if err := d.rename(path+tempSuffix, path); err != nil {
		return diskError("replace", path, err)
	}
	if err := d.syncDir(filepath.Dir(path)); err != nil {
		return diskError("sync the folder of", path, err)
	}
	return nil
}

func (m *Manifest) save(d disk, dir string) error {
	b, err := canon.JSON(m)
	if err != nil {
		return err
	}
	return replace(d, filepath.Join(dir, ManifestFile), append(b, '\n'))
}

// DigestFile hashes a file for a manifest.
func DigestFile(path string) (Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return Digest{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return Digest{n, hex.EncodeToString(h.Sum(nil))}, err
}

// Contract is what must be equal for two runs of a cell to be compared or
// ranked. What is compared (pipeline, site, policy, commit) is not in it.
type Contract struct {
	Workload    map[string]any    `json:"workload,omitempty"`    // name and every parameter that shapes the requests
	Data        map[string]string `json:"data,omitempty"`        // data set or trace -> SHA-256
	Model       string            `json:"model"`                 // SHA-256 of the model's bytes, or of its description where modelled
	Tokenizer   string            `json:"tokenizer"`             // SHA-256
	Limits      map[string]int64  `json:"limits,omitempty"`      // ttft_ns, tpot_ns, e2e_ns
	Definitions []string          `json:"definitions,omitempty"` // IDs of the metric definitions, sorted
	Mode        string            `json:"mode"`                  // measured, emulated, modelled, conformance
	Quick       bool              `json:"quick"`                 // shortened runs compare with nothing but each other
}

// Hash is the SHA-256 of the contract's canonical JSON, in hex. It fails only
// if a workload parameter is nothing that JSON can say.
func (c Contract) Hash() (string, error) { return canon.Hash(c) }

// NeededShare is the share of requests that have to meet the application's limits:
// the largest percentile that the limits of the workload's tier name; 0 if they
// name none.
func (c *Contract) NeededShare() (share float64) {
	spec, _ := c.Workload["spec"].(map[string]any)
	app, _ := c.Workload["app"].(map[string]any)
	tier, _ := spec["tier"].(string)
	limits, _ := app["limits"].([]any)
	for _, l := range limits {
		limit, _ := l.(map[string]any)
		of, _ := limit["tier"].(string)
		p, ok := limit["percentile"].(float64)
		if ok && p > share && p <= 1 && (tier == "" || of == "" || of == tier) {
			share = p
		}
	}
	return share
}

// Difference is one field in which two contracts differ. Old and New are
// canonical JSON.
type Difference struct{ Field, Old, New string }

// String reads "workload.rate: 2 -> 3".
func (d Difference) String() string { return fmt.Sprintf("%s: %s -> %s", d.Field, d.Old, d.New) }

// Diff returns the fields in which two contracts differ, in the order of
// declaration and then by key; empty if they are the same contract.
func Diff(a, b Contract) []Difference {
	var out []Difference
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range va.NumField() {
		name, _, _ := strings.Cut(va.Type().Field(i).Tag.Get("json"), ",")
		out = append(out, diff(name, va.Field(i).Interface(), vb.Field(i).Interface())...)
	}
	return out
}

func diff(path string, a, b any) []Difference {
	ja, jb := text(a), text(b)
	if ja == jb {
		return nil
	}
	ma, mb := reflect.ValueOf(a), reflect.ValueOf(b)
	if !ma.IsValid() || !mb.IsValid() || ma.Kind() != reflect.Map || mb.Kind() != reflect.Map {
		return []Difference{{path, ja, jb}}
	}
	var out []Difference
	for _, k := range keysOf(ma, mb) {
		out = append(out, diff(path+"."+k, at(ma, k), at(mb, k))...)
	}
	return out
}

// text is the canonical form, "none" for what is absent.
func text(v any) string {
	if v == nil {
		return "none"
	}
	if r := reflect.ValueOf(v); (r.Kind() == reflect.Map || r.Kind() == reflect.Slice) && r.Len() == 0 {
		return "none"
	}
	b, err := canon.JSON(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func keysOf(ms ...reflect.Value) []string {
	seen := map[string]bool{}
	for _, m := range ms {
		for _, k := range m.MapKeys() {
			seen[k.String()] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func at(m reflect.Value, key string) any {
	if v := m.MapIndex(reflect.ValueOf(key)); v.IsValid() {
		return v.Interface()
	}
	return nil
}
