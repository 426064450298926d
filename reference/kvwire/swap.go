package kvwire

import (
	"fmt"
	"slices"
	"time"

	"meibench/internal/units"
	"meibench/reference/llm"
)

// Chunk is a range of tokens and the form it is put aside in.
type Chunk struct {
	Range Range
	Form  Form
}

// PlanChunks cuts tokens into chunks of size tokens and gives the share of them with the most importance the form fine, the
// others the form coarse; chunks rank by the mean importance of their tokens, and earlier ones win ties. Neighbours of one
// form become one chunk. Source of the idea: Yin et al. 2024 (LLMS), whose chunks have one of several bit widths by the
// attention that they got.
//
//	importance: one number per token, the attention it received for instance
func PlanChunks(importance []float64, size int, share float64, fine, coarse Form) []Chunk {
	if size < 1 {
		panic("kvwire: chunks of no tokens")
	}
	n := (len(importance) + size - 1) / size
	mean, order := make([]float64, n), make([]int, n)
	for i := range n {
		part := importance[i*size : min((i+1)*size, len(importance))]
		for _, x := range part {
			mean[i] += x
		}
		mean[i] /= float64(len(part))
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case mean[a] > mean[b]:
			return -1
		case mean[a] < mean[b]:
			return 1
		}
		return 0
	})
	forms := slices.Repeat([]Form{coarse}, n)
	for _, i := range order[:int(max(0, min(1, share))*float64(n))] {
		forms[i] = fine
	}
	var plan []Chunk
	for i, f := range forms {
		r := Range{i * size, min((i+1)*size, len(importance))}
		if k := len(plan) - 1; k >= 0 && plan[k].Form == f {
			plan[k].Range.To = r.To
			continue
		}
		plan = append(plan, Chunk{r, f})
	}
	return plan
}

// Whole is the plan that puts n tokens aside in one form.
func Whole(n int, f Form) []Chunk { return []Chunk{{Range{0, n}, f}} }

// Apps keeps the caches of several applications of one model within a budget: the one at work and those used last stay as
// they are, the others are put aside as bytes, least recently used first.
//
// It measures the time of its own work by the clock that it is given. One goroutine at a time.
type Apps struct {
	Model  Model
	Budget units.Bytes                          // of caches at rest and at work, by Resident; 0 keeps only the one at work
	Plan   func(app string, n int) []Chunk      // how n tokens are put aside; nil is Whole in F32
	New    func(app string) (*llm.Cache, error) // an empty cache
	Clock  func() time.Duration                 // nil measures nothing
	Keep   func(app string, messages [][]byte)  // where bytes go; nil keeps them in memory
	Fetch  func(app string) ([][]byte, error)   // where they come from, if Keep is set
	used   []string                             // resident applications, most recently used last
	caches map[string]*llm.Cache                // resident
	aside  map[string][][]byte                  // bytes of others
	known  map[string]bool                      // ever put aside
}

// Switch is what a change of application cost.
type Switch struct {
	Resident      bool          // its cache was there
	Out, In       units.Bytes   // bytes written and read
	OutTime, Time time.Duration // of putting others aside, and of all
	PutAside      []string      // applications, in order
}

// To makes an application the one at work and returns its cache, with what it held when it was last at work.
func (a *Apps) To(app string) (*llm.Cache, Switch, error) {
	if a.caches == nil {
		a.caches, a.aside, a.known = map[string]*llm.Cache{}, map[string][][]byte{}, map[string]bool{}
	}
	var s Switch
	began := a.now()
	c, ok := a.caches[app]
	if s.Resident = ok; !ok {
		var err error
		if c, err = a.New(app); err != nil {
			return nil, s, fmt.Errorf("switch to %q: %w", app, err)
		}
	}
	a.leave(app)
	a.used = append(a.used, app)
	a.caches[app] = c
	err := a.shrink(&s)
	s.OutTime = a.now() - began
	if err == nil && !ok && a.known[app] {
		err = a.load(app, c, &s)
	}
	if err != nil {
		if !ok { // what was put aside is still there
			a.leave(app)
			delete(a.caches, app)
		}
		return nil, s, fmt.Errorf("switch to %q: %w", app, err)
	}
	s.Time = a.now() - began
	return c, s, nil
}

// leave takes an application out of the order of use.
func (a *Apps) leave(app string) {
	a.used = slices.DeleteFunc(a.used, func(x string) bool { return x == app })
}

// Resident is the memory of the caches that are not put aside.
func (a *Apps) Resident() units.Bytes {
	var n units.Bytes
	for _, c := range a.caches {
		n += c.Resident()
	}
	return n
}

func (a *Apps) now() time.Duration {
	if a.Clock == nil {
		return 0
	}
	return a.Clock()
}

// shrink puts applications aside until the budget holds, but never the one at work.
func (a *Apps) shrink(s *Switch) error {
	for len(a.used) > 1 && a.Resident() > a.Budget {
		app := a.used[0]
		c := a.caches[app]
		plan := Whole(c.Len(), F32)
		if a.Plan != nil {
			plan = a.Plan(app, c.Len())
		}
		var messages [][]byte
		at := 0
		for _, k := range plan {
			if k.Range.From != at {
				return fmt.Errorf("put %q aside: the plan goes from token %d to %d", app, at, k.Range.From)
			}
			data, err := Marshal(c, k.Range, k.Form, a.Model)
			if err != nil {
				return fmt.Errorf("put %q aside: %w", app, err)
			}
			at = k.Range.To
			messages = append(messages, data)
			s.Out += units.Bytes(len(data))
		}
		if at != c.Len() {
			return fmt.Errorf("put %q aside: the plan covers %d of %d tokens", app, at, c.Len())
		}
		if a.Keep != nil {
			a.Keep(app, messages)
		} else {
			a.aside[app] = messages
		}
		a.known[app], a.used = true, a.used[1:]
		delete(a.caches, app)
		s.PutAside = append(s.PutAside, app)
	}
	return nil
}

// load fills a cache with what was put aside.
func (a *Apps) load(app string, c *llm.Cache, s *Switch) error {
	messages := a.aside[app]
	if a.Keep != nil {
		var err error
		if messages, err = a.Fetch(app); err != nil {
			return err
		}
	}
	for _, data := range messages {
		if err := Unmarshal(data, c, a.Model); err != nil {
			return err
		}
		s.In += units.Bytes(len(data))
	}
	delete(a.aside, app)
	return nil
}
