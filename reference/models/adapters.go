package models

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"meibench/internal/units"
	"meibench/reference/library"
)

// AdapterBase is the model that the shipped adapters are for.
const AdapterBase = "mei-base"

const adapterEnd = ".lora.gguf"

// Adapters lists the applications that have a LoRA adapter on mei-base, sorted: trained by scripts/trainmodel on what mei-base
// still gets wrong of one application.
func Adapters() (apps []string) {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		if app, ok := strings.CutPrefix(e.Name(), AdapterBase+"-"); ok && strings.HasSuffix(app, adapterEnd) {
			apps = append(apps, strings.TrimSuffix(app, adapterEnd))
		}
	}
	slices.Sort(apps)
	return apps
}

// Adapter returns the GGUF file of an application's adapter.
func Adapter(app string) ([]byte, error) {
	if !slices.Contains(Adapters(), app) {
		return nil, fmt.Errorf("open adapter %q: unknown, have %s", app, strings.Join(Adapters(), ", "))
	}
	return files.ReadFile(path.Base(AdapterBase + "-" + app + adapterEnd))
}

// Library is mei-base with its adapters, a model for each application and named after it, as blocks with real bytes: content
// returns those of a block, which nobody may write to.
func Library() (l *library.Library, content func(block int) []byte, err error) {
	base, err := Open(AdapterBase)
	if err != nil {
		return nil, nil, err
	}
	whole, err := Bytes(AdapterBase)
	if err != nil {
		return nil, nil, err
	}
	l = &library.Library{Name: "mei-base with adapters", Source: "trained by this project, see reference/models/README.md"}
	var data [][]byte
	add := func(name string, b []byte, layers int) int {
		sum := sha256.Sum256(b)
		l.Blocks = append(l.Blocks, library.Block{Name: name, Digest: hex.EncodeToString(sum[:]), Bytes: units.Bytes(len(b)), Hi: layers})
		data = append(data, b)
		return len(data) - 1
	}
	backbone := add(AdapterBase+".gguf", whole, base.Model.Layers)
	for _, app := range Adapters() {
		file, err := Adapter(app)
		if err != nil {
			return nil, nil, err
		}
		name := AdapterBase + "-" + app + adapterEnd
		l.Models = append(l.Models, library.Model{Name: app, Family: AdapterBase, Blocks: []int{add(name, file, 0), backbone}, Adapter: name})
	}
	return l, func(b int) []byte { return data[b] }, l.Check()
}
