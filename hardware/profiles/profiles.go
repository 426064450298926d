// Package profiles holds what is known about devices, links, models and sites
// as data: one strict YAML file each, every number with its unit, its source
// and how far to trust it.
//
//	memory_bandwidth: {value: 2.048e11, unit: B/s, source: "LLM-Viewer hardware_params.py", kind: spec}
//
// The one idea: a number without a source is a bug. Kind is spec (read in a
// specification), measured, paper, or assumed (nobody read it anywhere); reports
// mark what is assumed. Units are SI base units; a file that says Gbit/s is
// refused with the number it should have said.
//
//	d, err := profiles.Device("jetson-agx-orin-64")
//	m, err := profiles.Model("llama-3.2-1b:q4_0") // shape and weight format
//	l, err := profiles.Link("nr-midband-eu-2023")
//	s, err := profiles.Site("phone-5g-edge")
//
// What a device file leaves out of its cost law comes from the prior of its
// class and type (priors.yaml): medians and robust fits over published
// measurements. Digest identifies a profile by its content: comments, indentation
// and key order never change it.
//
// Files are strict: unknown keys, keys given twice, anchors and aliases,
// negative numbers and NaN are errors with file, line, column and the offending
// lines. The package computes nothing: what an operation costs is package
// costmodel's business.
package profiles

import (
	"embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"meibench/hardware"
	"meibench/internal/spell"
)

//go:embed devices/*.yaml links/*.yaml models/*.yaml sites/*.yaml priors.yaml formats.yaml
var builtin embed.FS

// Devices lists the built-in device profiles, sorted.
func Devices() []string { return list("devices") }

// Links lists the built-in link profiles, sorted.
func Links() []string { return list("links") }

// Models lists the built-in model shapes, sorted. Any of Formats may follow
// after a colon.
func Models() []string { return list("models") }

// Sites lists the built-in sites, sorted.
func Sites() []string { return list("sites") }

// list names the files of a folder; embed.FS lists them sorted.
func list(dir string) []string {
	entries, err := builtin.ReadDir(dir)
	if err != nil {
		panic("profiles: " + err.Error())
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".yaml")
	}
	sort.Strings(names)
	return names
}

// open decodes the built-in file of a name, or says what exists instead.
func open(kind, dir, name string, dst profile) error {
	data, err := builtin.ReadFile(dir + "/" + name + ".yaml")
	if err != nil {
		return unknown(kind, name, list(dir))
	}
	return decode("builtin/"+dir+"/"+name+".yaml", data, dst)
}

// Device returns a built-in device profile with its prior filled in.
func Device(name string) (*DeviceSheet, error) {
	d := &DeviceSheet{}
	if err := open("device", "devices", name, d); err != nil {
		return nil, err
	}
	return d, d.resolve()
}

// LoadDevice reads a device profile from a file, with its prior filled in.
func LoadDevice(path string) (*DeviceSheet, error) {
	d := &DeviceSheet{}
	if err := load(path, d); err != nil {
		return nil, err
	}
	return d, d.resolve()
}

// ParseDevice reads a device profile from memory, with its prior filled in; file
// is what errors call it.
func ParseDevice(file string, data []byte) (*DeviceSheet, error) {
	d := &DeviceSheet{}
	if err := decode(file, data, d); err != nil {
		return nil, err
	}
	return d, d.resolve()
}

// Link returns a built-in link profile.
func Link(name string) (*LinkSheet, error) {
	l := &LinkSheet{}
	if err := open("link", "links", name, l); err != nil {
		return nil, err
	}
	return l, nil
}

// LoadLink reads a link profile from a file, with the traces that it names.
func LoadLink(path string) (*LinkSheet, error) {
	l := &LinkSheet{}
	if err := load(path, l); err != nil {
		return nil, err
	}
	if l.Trace != nil {
		if err := l.Trace.read(filepath.Dir(path)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return l, nil
}

// Model returns a built-in model: a shape, or a shape and a weight format
// after a colon. Without a format the shape's default is taken.
func Model(name string) (*hardware.Model, error) {
	shape, format := split(name)
	s := &ModelSheet{}
	if err := open("model", "models", shape, s); err != nil {
		return nil, err
	}
	return s.in(format)
}

// LoadModel reads a model shape from a file and combines it with a weight
// format ("" = the shape's default).
func LoadModel(path, format string) (*hardware.Model, error) {
	s := &ModelSheet{}
	if err := load(path, s); err != nil {
		return nil, err
	}
	return s.in(strings.ToLower(format))
}

// Site returns a built-in site.
func Site(name string) (*SiteSheet, error) {
	s := &SiteSheet{}
	if err := open("site", "sites", name, s); err != nil {
		return nil, err
	}
	return s, nil
}

// LoadSite reads a site from a file.
func LoadSite(path string) (*SiteSheet, error) {
	s := &SiteSheet{}
	if err := load(path, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Formats lists the weight formats, sorted.
func Formats() []string {
	fs, err := readFormats()
	if err != nil {
		panic("profiles: " + err.Error())
	}
	names := make([]string, len(fs))
	for i, f := range fs {
		names[i] = f.Name
	}
	return names
}

// readFormats is read once: every model in a format needs it. Nobody changes it.
var readFormats = sync.OnceValues(func() ([]Format, error) {
	t := &formatTable{}
	data, err := builtin.ReadFile("formats.yaml")
	if err != nil {
		return nil, err
	}
	err = decode("builtin/formats.yaml", data, t)
	return t.Formats, err
})

// load reads a user's file, refusing oversized ones before reading them.
func load(path string, dst profile) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read profile: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return fmt.Errorf("read profile %s: %w", path, err)
	}
	return decode(filepath.ToSlash(path), data, dst)
}

// unknown says what exists and what was probably meant.
func unknown(kind, name string, have []string) error {
	if best := spell.Nearest(name, have); best != "" {
		return fmt.Errorf("unknown %s %q: did you mean %q?", kind, name, best)
	}
	return fmt.Errorf("unknown %s %q (have %s)", kind, name, strings.Join(have, ", "))
}
