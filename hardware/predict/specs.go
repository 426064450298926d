package predict

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"sync"
)

// Spec is what a data sheet says of a device. A number it does not give is 0.
type Spec struct {
	Line       int
	Device     string
	Class      string
	FP16TFLOPS float64 // 1e12 FLOP/s, dense
	Int8TOPS   float64 // 1e12 OP/s
	BandwidthGBs,
	MemoryGB,
	TDPW float64
	Source, Confidence string
	Matches            []string // names under which rows refer to the device
}

var specColumns = []column{
	{"device", true}, {"class", true}, {"fp16_tflops", false}, {"int8_tops", false}, {"mem_bw_gbs", false},
	{"mem_gb", false}, {"tdp_w", false}, {"source", false}, {"confidence", false}, {"matches", false},
}

// ReadSpecs reads a file of device specifications (the columns of
// device_specs.csv in any order), as strictly as ReadRows. A name may match one
// device only. A device without matches is known by its own name.
func ReadSpecs(r io.Reader, file string) ([]Spec, error) {
	t, err := readTable(r, file, specColumns)
	if err != nil {
		return nil, err
	}
	var specs []Spec
	owner := map[string]string{}
	for t.next() {
		s := Spec{
			Line: t.line, Device: t.text("device"), Class: t.text("class"), Source: t.text("source"), Confidence: t.text("confidence"),
			FP16TFLOPS: t.number("fp16_tflops"), Int8TOPS: t.number("int8_tops"), BandwidthGBs: t.number("mem_bw_gbs"),
			MemoryGB: t.number("mem_gb"), TDPW: t.number("tdp_w"),
		}
		for _, m := range strings.Split(t.text("matches"), ";") {
			if m = strings.TrimSpace(m); m != "" {
				s.Matches = append(s.Matches, m)
			}
		}
		for _, m := range s.names() {
			if other, taken := owner[m]; taken {
				t.fail("matches", fmt.Sprintf("%q already names the device %q", m, other))
			}
			owner[m] = s.Device
		}
		specs = append(specs, s)
	}
	if t.err == nil && len(specs) == 0 {
		t.err = fmt.Errorf("%s: no devices below the header: give at least one", file)
	}
	return specs, t.err
}

// names are all names of a device, its own included.
func (s *Spec) names() []string {
	out := append([]string{}, s.Matches...)
	for _, m := range out {
		if m == s.Device {
			return out
		}
	}
	return append(out, s.Device)
}

// Catalogue finds devices by the names that rows use.
type Catalogue struct {
	specs  []*Spec
	byName map[string]*Spec
}

// NewCatalogue joins lists of specifications. A device of a later list replaces
// one of an earlier list that has the same name, and takes over the names it
// matches.
func NewCatalogue(lists ...[]Spec) *Catalogue {
	c := &Catalogue{byName: map[string]*Spec{}}
	byDevice := map[string]*Spec{}
	for _, list := range lists {
		for i := range list {
			s := list[i]
			if old := byDevice[s.Device]; old != nil {
				for name, to := range c.byName {
					if to == old {
						delete(c.byName, name)
					}
				}
			}
			byDevice[s.Device] = &s
			for _, n := range s.names() {
				c.byName[n] = &s
			}
		}
	}
	for _, s := range byDevice {
		c.specs = append(c.specs, s)
	}
	sort.Slice(c.specs, func(i, j int) bool { return c.specs[i].Device < c.specs[j].Device })
	return c
}

// Find is the device that a row names, or nil.
func (c *Catalogue) Find(name string) *Spec { return c.byName[name] }

// Specs are all devices, sorted by name.
func (c *Catalogue) Specs() []*Spec { return c.specs }

//go:embed data/published_llm_speed.csv
var publishedRows []byte

//go:embed data/device_specs.csv
var publishedSpecs []byte

// published is what is embedded, read once. Nobody changes it.
var published = sync.OnceValues(func() (*embedded, error) {
	rows, err := ReadRows(bytes.NewReader(publishedRows), "published_llm_speed.csv")
	if err != nil {
		return nil, err
	}
	specs, err := ReadSpecs(bytes.NewReader(publishedSpecs), "device_specs.csv")
	if err != nil {
		return nil, err
	}
	return &embedded{rows, specs}, nil
})

type embedded struct {
	rows  []Row
	specs []Spec
}

// Published returns the embedded rows and specifications; the caller may change
// the slices.
func Published() ([]Row, []Spec, error) {
	e, err := published()
	if err != nil {
		return nil, nil, err
	}
	return append([]Row{}, e.rows...), append([]Spec{}, e.specs...), nil
}

// LoadRows reads a file of rows by path.
func LoadRows(path string) ([]Row, error) { return load(path, ReadRows) }

// LoadSpecs reads a file of device specifications by path.
func LoadSpecs(path string) ([]Spec, error) { return load(path, ReadSpecs) }

func load[T any](path string, read func(io.Reader, string) ([]T, error)) ([]T, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	return read(f, path)
}
