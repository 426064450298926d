// Package published lists figures from the literature beside ours: what a paper, its code or a derivation says, where it
// says so, how surely we know that, and a function that computes the same with the packages of this project.
//
//	for _, t := range published.All() {
//		ours := t.Ours()
//		fmt.Println(t.ID, t.Quantity, t.Value, ours, t.Meets(ours))
//	}
//
// A miss is a result and is shown like a hit. Targets that need workloads, a trained model's answers for instance, are not
// here: they are measured where those live.
package published

import (
	"fmt"
	"math"
	"slices"
)

// How surely a value is known.
const (
	Paper    = "paper"    // read in a copy of the paper
	Code     = "code"     // read in the authors' code or data
	Abstract = "abstract" // read in abstract or first page
	Summary  = "summary"  // read in somebody else's summary
	Derived  = "derived"  // not printed anywhere: computed by us from a printed formula or rule, in another program
	Recalled = "recalled" // from memory, not checked: never to be printed as the paper's
)

// Target is one figure.
type Target struct {
	ID        string // line of the project's list of algorithms, and a word
	Quantity  string
	Unit      string // "" for a ratio
	Value     float64
	Source    string
	Evidence  string  // one of the constants above
	Tolerance float64 // relative
	Note      string  // what differs between theirs and ours, if anything
	Ours      func() float64
}

// Meets reports whether a value of ours is within the tolerance.
func (t Target) Meets(ours float64) bool {
	return math.Abs(ours-t.Value) <= t.Tolerance*math.Abs(t.Value)
}

// All lists the targets, sorted by ID.
func All() []Target {
	all := slices.Concat(caches(), collaboration(), deliveries(), ladders(), placements())
	slices.SortStableFunc(all, func(a, b Target) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return all
}

// Check says what is wrong with a list, or returns nil: a name twice, an unknown tag, no source, no way to compute ours.
func Check(list []Target) error {
	seen := map[string]bool{}
	for _, t := range list {
		tags := []string{Paper, Code, Abstract, Summary, Derived, Recalled}
		switch {
		case t.ID == "" || t.Quantity == "" || t.Source == "" || seen[t.ID]:
			return fmt.Errorf("published target %q: its name, quantity and source must be there, and its name once", t.ID)
		case !slices.Contains(tags, t.Evidence):
			return fmt.Errorf("published target %q: evidence %q, want one of %v", t.ID, t.Evidence, tags)
		case t.Ours == nil || !(t.Tolerance > 0 && t.Tolerance < 1):
			return fmt.Errorf("published target %q: want a function and a tolerance above 0 and below 1, got %g", t.ID, t.Tolerance)
		}
		seen[t.ID] = true
	}
	return nil
}
