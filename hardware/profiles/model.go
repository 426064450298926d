package profiles

import (
	"fmt"
	"strings"

	"meibench/hardware"
)

// ModelSheet is the profile of a decoder-only transformer: the public facts of its
// configuration, from which package hardware counts bytes and operations.
type ModelSheet struct {
	Name    string `yaml:"name" json:"name"`
	Arch    string `yaml:"arch" json:"arch"` // GGUF architecture name
	Summary string `yaml:"summary" json:"summary"`

	Layers  Quantity `yaml:"layers" json:"layers" unit:"1" want:"count"`
	Dim     Quantity `yaml:"dim" json:"dim" unit:"1" want:"count"`
	Heads   Quantity `yaml:"heads" json:"heads" unit:"1" want:"count"`
	KVHeads Quantity `yaml:"kv_heads" json:"kv_heads" unit:"1" want:"count"`
	HeadDim Quantity `yaml:"head_dim" json:"head_dim" unit:"1" want:"count"`
	FFN     Quantity `yaml:"ffn" json:"ffn" unit:"1" want:"count"`
	Vocab   Quantity `yaml:"vocab" json:"vocab" unit:"1" want:"count"`

	// Of a mixture of experts: feed-forward networks per layer, and how many of
	// them one token uses. Without them the model is dense.
	Experts     *Quantity `yaml:"experts,omitempty" json:"experts,omitempty" unit:"1" want:"count"`
	ExpertsUsed *Quantity `yaml:"experts_used,omitempty" json:"experts_used,omitempty" unit:"1" want:"count"`

	Tied    bool     `yaml:"tied" json:"tied"` // head shares the embedding's weights
	Default string   `yaml:"default_format" json:"default_format"`
	KVBytes Quantity `yaml:"kv_bytes" json:"kv_bytes" unit:"B" want:"positive"` // per cached element
}

// Format is a number format of weights.
type Format struct {
	Name           string   `yaml:"name" json:"name"` // GGUF name: f16, q8_0, q4_0, ...
	BytesPerWeight Quantity `yaml:"bytes_per_weight" json:"bytes_per_weight" unit:"B" want:"positive"`
}

func (s *ModelSheet) title() string { return s.Name }

func (s *ModelSheet) check(c *checker) {
	if s.Heads.Value > 0 && s.KVHeads.Value > 0 && int(s.Heads.Value)%int(s.KVHeads.Value) != 0 {
		c.add("$.kv_heads.value", "must divide heads (%g), got %g", s.Heads.Value, s.KVHeads.Value)
	}
	switch {
	case (s.Experts == nil) != (s.ExpertsUsed == nil):
		c.add("$.experts", "experts and experts_used go together")
	case s.Experts != nil && s.ExpertsUsed.Value > s.Experts.Value:
		c.add("$.experts_used.value", "a token cannot use %g of %g experts", s.ExpertsUsed.Value, s.Experts.Value)
	}
	if s.Default == "" {
		c.add("$.default_format", "is missing: e.g. q4_0")
	}
}

// model combines a shape and a format.
func (s *ModelSheet) model(f Format) (*hardware.Model, error) {
	m := &hardware.Model{
		Name: s.Name + ":" + f.Name, Arch: s.Arch, Quant: f.Name,
		Layers: int(s.Layers.Value), Dim: int(s.Dim.Value),
		Heads: int(s.Heads.Value), KVHeads: int(s.KVHeads.Value), HeadDim: int(s.HeadDim.Value),
		FFN: int(s.FFN.Value), Vocab: int(s.Vocab.Value), Tied: s.Tied,
		Experts: count(s.Experts), ExpertsUsed: count(s.ExpertsUsed),
		BytesPerWeight: f.BytesPerWeight.Value, KVBytes: s.KVBytes.Value,
		Digest: digest(struct {
			Shape  *ModelSheet `json:"shape"`
			Format Format      `json:"format"`
		}{s, f}),
	}
	return m, m.Validate()
}

// count is a whole number that may be missing.
func count(q *Quantity) int {
	if q == nil {
		return 0
	}
	return int(q.Value)
}

// split cuts a model name into its shape and format: llama-3.2-1b:q4_0.
func split(name string) (shape, format string) {
	shape, format, _ = strings.Cut(name, ":")
	return shape, strings.ToLower(format)
}

// formatTable is the file formats.yaml.
type formatTable struct {
	Name    string   `yaml:"name"`
	Formats []Format `yaml:"formats"`
}

func (t *formatTable) title() string { return t.Name }

func (t *formatTable) check(c *checker) {
	for i, f := range t.Formats {
		if i > 0 && t.Formats[i-1].Name >= f.Name {
			c.add(fmt.Sprintf("$.formats[%d].name", i), "formats must be sorted and unique")
		}
	}
}
