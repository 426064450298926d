package suites

import (
	"fmt"
	"slices"
	"strings"
)

// Narrow keeps the cells that every filter accepts; keep maps a cell's field
// (app, pipeline, site, model, mode, part) to the values wanted, empty meaning all.
func (s *Suite) Narrow(keep map[string][]string) error {
	fields := map[string]func(Cell) string{
		"app": func(c Cell) string { return c.App }, "pipeline": func(c Cell) string { return c.Pipeline },
		"site": func(c Cell) string { return c.Site }, "model": func(c Cell) string { return c.Model },
		"mode": func(c Cell) string { return c.Mode }, "part": func(c Cell) string { return c.Part },
	}
	for _, key := range []string{"app", "pipeline", "site", "model", "mode", "part"} {
		want := keep[key]
		if len(want) == 0 {
			continue
		}
		var have []string
		for _, c := range s.Cells {
			if v := fields[key](c); !slices.Contains(have, v) {
				have = append(have, v)
			}
		}
		for _, w := range want {
			if !slices.Contains(have, w) {
				return fmt.Errorf("suite %q has no cell with %s %s (have %s; --set %s=... replaces them)", s.Name, key, w, strings.Join(have, ", "), key)
			}
		}
		kept := slices.DeleteFunc(slices.Clone(s.Cells), func(c Cell) bool {
			return !slices.Contains(want, fields[key](c))
		})
		if len(kept) == 0 {
			return fmt.Errorf("suite %q: no cell is left after --%s %s", s.Name, key, strings.Join(want, ","))
		}
		s.Cells = kept
	}
	return nil
}
