// Package spell finds the name that somebody probably meant.
//
//	spell.Nearest("asistant", []string{"ar", "assistant"}) // "assistant"
package spell

import "strings"

// Nearest is the candidate closest to name: one that contains it, or one within
// three edits; "" if none is. Of equals the first wins.
func Nearest(name string, candidates []string) (best string) {
	at := 4
	for _, c := range candidates {
		d := distance(name, c)
		if name != "" && strings.Contains(c, name) {
			d = min(d, 1)
		}
		if d < at {
			best, at = c, d
		}
	}
	return best
}

// distance is Levenshtein's, over bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
