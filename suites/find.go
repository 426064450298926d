package suites

import "fmt"

// Capacity asks for the largest rate at which a share of the requests meets all
// limits, instead of what happens at one rate. In a suite file:
//
//	defaults:
//	  find: {capacity: {share: 0.9, within: 0.05, seeds: 6}}
//
// or find: {capacity: {}} for these values; --set find=capacity does the same,
// --set find=nothing undoes it. The search begins at the cell's rate.
type Capacity struct {
	Share  float64 `json:"share"`  // of requests that meet all limits, in (0, 1]
	Within float64 `json:"within"` // relative width of the bracket, in [0.001, 1]
	Seeds  int     `json:"seeds"`  // searches with a seed of their own; 1 to 100
}

// What holds where a suite says no more than that capacity is wanted. The
// smallest and the largest of six seeds enclose the median over all seeds with
// 96.9 %.
const (
	defaultShare  = 0.9
	defaultWithin = 0.05
	defaultSeeds  = 6
)

// find is the YAML form; absent values take the defaults.
type find struct {
	Capacity *terms `yaml:"capacity" json:"capacity,omitempty"`
}

type terms struct {
	Share  *float64 `yaml:"share" json:"share,omitempty"`
	Within *float64 `yaml:"within" json:"within,omitempty"`
	Seeds  *whole   `yaml:"seeds" json:"seeds,omitempty"`
}

// look sets what to find by its name.
func (s *settings) look(v any) error {
	switch v {
	case "capacity":
		if s.Find == nil || s.Find.Capacity == nil {
			s.Find = &find{Capacity: new(terms)}
		}
	case "nothing":
		s.Find = nil
	default:
		return fmt.Errorf("want capacity or nothing, got %v (its share, width and seeds stand under defaults.find.capacity)", v)
	}
	return nil
}

func (f *find) capacity() *Capacity {
	if f == nil || f.Capacity == nil {
		return nil
	}
	c := Capacity{defaultShare, defaultWithin, defaultSeeds}
	if v := f.Capacity.Share; v != nil {
		c.Share = *v
	}
	if v := f.Capacity.Within; v != nil {
		c.Within = *v
	}
	if v := f.Capacity.Seeds; v != nil {
		c.Seeds = int(*v)
	}
	return &c
}

func (c *Capacity) check() error {
	switch {
	case c == nil:
		return nil
	case !(c.Share > 0 && c.Share <= 1):
		return fmt.Errorf("find.capacity.share: want a share of requests in (0, 1], got %g", c.Share)
	case !(c.Within >= 0.001 && c.Within <= 1):
		return fmt.Errorf("find.capacity.within: want a relative width from 0.001 to 1, got %g", c.Within)
	case c.Seeds > 100:
		return fmt.Errorf("find.capacity.seeds: want 1 to 100, got %d", c.Seeds)
	}
	return nil
}
