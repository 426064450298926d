package published

import (
	"meibench/internal/units"
	"meibench/reference/flash"
)

// ladders are the targets of weights in storage (checklist D5): time of reading per token from bytes and bandwidth.
func ladders() []Target {
	const (
		source = "Alizadeh et al. 2023 (LLM in a flash, arXiv 2312.11514), time of reading per token, OPT-6.7B on an M1 Max"
		note   = "bytes and bandwidth are the paper's, as a summary gives them; which technique a row is named after is the summary's word"
	)
	var all []Target
	for _, row := range []struct {
		id, way       string
		gb, gbPerSec  float64
		milliseconds  float64
		bytesAreShort bool // printed with one digit
	}{
		{"I16 flash 1", "naive", 13.4, 6.1, 2196, false},
		{"I16 flash 2", "predictor", 6.7, 6.1, 1090, false},
		{"I16 flash 3", "window", 0.9, 1.25, 738, true},
		{"I16 flash 4", "bundles", 0.2, 1.25, 164, true},
		{"I16 flash 5", "hybrid layout", 0.2, 2.25, 87, true},
	} {
		t := Target{ID: row.id, Quantity: "reading per token, " + row.way, Unit: "ms", Value: row.milliseconds, Source: source, Evidence: Summary, Tolerance: 0.025, Note: note,
			Ours: func() float64 {
				return 1000 * flash.Law{PerSec: row.gbPerSec * 1e9}.ReadSec(units.Bytes(row.gb*1e9), 0)
			}}
		if row.bytesAreShort {
			t.Note += "; bytes have one digit"
		}
		all = append(all, t)
	}
	return all
}
