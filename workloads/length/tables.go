package length

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"meibench/internal/sourced"
)

//go:embed token_quantiles.csv
var quantileCSV string

// SGDTurns is the table of user turns in a task dialogue.
const SGDTurns = "sgd/user_turns"

// sgdTurns is the probability of 2, 3, ... 17 user turns in the 17,193
// dialogues of the Schema-Guided Dialogue corpus, rounded to a thousandth. The
// sum is 0.996; the rest is rounding and is shared out in proportion.
var sgdTurns = [...]float64{.002, .013, .036, .064, .087, .109, .130, .132, .121, .100, .078, .053, .035, .019, .011, .006}

// Sources of the embedded tables by the part of their name before the slash,
// sorted.
var tableSources = [...]struct {
	prefix, source string
	kind           sourced.Kind
}{
	{"azure23_code", "Azure LLM inference trace 2023, code, 8,819 requests (Patel et al., ISCA 2024)", sourced.Measured},
	{"azure23_conv", "Azure LLM inference trace 2023, conversation, 19,366 requests (Patel et al., ISCA 2024)", sourced.Measured},
	{"mooncake_conversation", "Mooncake conversation trace, 12,031 requests (Qin et al., FAST 2025)", sourced.Measured},
	{"mooncake_synthetic", "Mooncake synthetic trace, 3,993 requests (Qin et al., FAST 2025)", sourced.Measured},
	{"servegen_deepseek-r1", "ServeGen deepseek-r1, published client distributions (Xiang et al., arXiv 2505.09999)", sourced.Measured},
	{"servegen_mm-image", "ServeGen mm-image, published client distributions (Xiang et al., arXiv 2505.09999)", sourced.Measured},
	{"sgd", "Schema-Guided Dialogue, user turns of 17,193 dialogues", sourced.Measured},
}

// table is an embedded distribution.
type table struct {
	source string
	kind   sourced.Kind
	mean   float64   // published mean
	v      []float64 // 101 percentiles
	turns  bool      // the SGD table instead
}

// Tables lists the names of the embedded tables, sorted.
func Tables() []string {
	var names []string
	for _, row := range rows() {
		f := strings.SplitN(row, ",", 3)
		names = append(names, f[0]+"/"+f[1])
	}
	names = append(names, SGDTurns)
	slices.Sort(names)
	return names
}

func rows() []string {
	return strings.Split(strings.TrimSpace(quantileCSV), "\n")[1:]
}

// lookup finds an embedded table. A malformed row is a broken build, caught by
// the package's tests.
func lookup(name string) (*table, error) {
	prefix, field, _ := strings.Cut(name, "/")
	t := &table{turns: name == SGDTurns}
	for _, s := range tableSources {
		if s.prefix == prefix {
			t.source, t.kind = s.source, s.kind
		}
	}
	if t.turns {
		return t, nil
	}
	for _, row := range rows() {
		if !strings.HasPrefix(row, prefix+","+field+",") {
			continue
		}
		cols := strings.Split(strings.TrimSpace(row), ",")
		for i, c := range cols[3:] { // source, field, n, then mean, q0 ... q100
			x, err := strconv.ParseFloat(c, 64)
			if err != nil {
				return nil, fmt.Errorf("table %q, column %d: %w", name, i+4, err)
			}
			t.v = append(t.v, x)
		}
		t.mean, t.v = t.v[0], t.v[1:]
		return t, nil
	}
	return nil, fmt.Errorf("unknown table %q (have %s)", name, strings.Join(Tables(), ", "))
}

func (t *table) dist() *Dist {
	if t.turns {
		return turnsDist()
	}
	return &Dist{kind: Quantiles, v: t.v, bend: bend(t.v, t.mean)}
}

func turnsDist() *Dist {
	d := &Dist{kind: Quantiles, p: []float64{0}, bend: 1, step: true}
	sum, at := 0.0, 0.0
	for _, p := range sgdTurns {
		sum += p
	}
	for i, p := range sgdTurns {
		at += p / sum
		d.p = append(d.p, at)
		d.v = append(d.v, float64(i+2))
	}
	d.p[len(sgdTurns)] = 1
	d.v = append(d.v, d.v[len(d.v)-1])
	return d
}

// bend returns the exponent of the segment above the last but one percentile
// that makes the mean of the interpolated table the published one. Straight
// segments are kept where no exponent can.
func bend(v []float64, mean float64) float64 {
	last := len(v) - 1
	rest := mean * float64(last)
	for i := range last - 1 {
		rest -= (v[i] + v[i+1]) / 2
	}
	low, high := v[last-1], v[last]
	if !(rest > low && rest < high) {
		return 1
	}
	return (high-low)/(rest-low) - 1
}
