package results

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"meibench/internal/canon"
)

// Contract is what must be equal for two runs of a cell to be compared or
// ranked. What is compared (pipeline, site, policy, commit) is not in it.
type Contract struct {
	Workload    map[string]any    `json:"workload"`    // name and every parameter that shapes the requests
	Data        map[string]string `json:"data"`        // data set or trace -> SHA-256
	Model       string            `json:"model"`       // SHA-256 of the model's bytes, or of its description where modelled
	Tokenizer   string            `json:"tokenizer"`   // SHA-256
	Limits      map[string]int64  `json:"limits"`      // ttft_ns, tpot_ns, e2e_ns
	Definitions []string          `json:"definitions"` // IDs of the metric definitions, sorted
	Mode        string            `json:"mode"`        // measured, emulated, modelled, conformance
	Quick       bool              `json:"quick"`       // shortened runs compare with nothing but each other
}

// Hash is the SHA-256 of the contract's canonical JSON, in hex. It fails only
// if a workload parameter is nothing that JSON can say.
func (c Contract) Hash() (string, error) { return canon.Hash(c) }

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
