package serving

import (
	"slices"

	"meibench/hardware"
)

// page makes sure that the batch has blocks for what it is about to add. Where
// memory is short, the jobs that entered last lose their caches and wait again,
// in front of the others; what they had is computed again later (vLLM, SOSP'23,
// preemption by recomputation).
func (s *Server) page() {
	v := &s.view
	for k := 0; k < len(s.batch); k++ {
		j := s.batch[k]
		if j.session {
			continue
		}
		more := v.room(j, j.Context+j.seq.New) - j.held
		for v.Bounded && more > v.Free {
			victim := s.victim()
			if victim == nil {
				break
			}
			s.preempt(victim)
			if victim == j {
				break
			}
		}
		if !j.inside {
			k-- // it was its own victim and left the batch
			continue
		}
		if more > 0 {
			s.take(j, more)
		}
	}
}

// victim is the whole answer that entered last.
func (s *Server) victim() *Job {
	v := &s.view
	for i := len(v.Running) - 1; i >= 0; i-- {
		if j := v.Running[i]; !j.session && j.inside && !j.over {
			return j
		}
	}
	return nil
}

func (s *Server) preempt(j *Job) {
	s.stats.Preempted++
	s.stats.Redone += j.Context
	s.drop(j)
	s.give(j)
	j.inside, j.over = false, true // leaves the running set at the end of the operation
	j.Todo, j.Context, j.kind = j.Prompt+j.Limit-j.Left, 0, hardware.Prefill
	if i := slices.Index(s.batch, j); i >= 0 {
		s.batch = slices.Delete(s.batch, i, i+1)
	}
	s.view.Waiting = slices.Insert(s.view.Waiting, 0, j)
}

// shelf is the adapters in memory, the least recently used first.
type shelf struct {
	most int
	have []string
}

// touch marks an adapter as used; it reports whether it has to be loaded, and
// which one has to go for it.
func (h *shelf) touch(name string) (load bool, evict string) {
	if i := slices.Index(h.have, name); i >= 0 {
		h.have = append(slices.Delete(h.have, i, i+1), name)
		return false, ""
	}
	if h.most > 0 && len(h.have) >= h.most {
		evict, h.have = h.have[0], h.have[1:]
	}
	h.have = append(h.have, name)
	return true, evict
}

// room reports whether the adapters of a batch and one job more fit together.
func (h *shelf) room(batch []*Job, j *Job) bool {
	if h.most == 0 || j.Adapter == "" {
		return true
	}
	n := 1
	for i, b := range batch {
		if b.Adapter == j.Adapter {
			return true
		}
		if b.Adapter != "" && !slices.ContainsFunc(batch[:i], func(o *Job) bool { return o.Adapter == b.Adapter }) {
			n++
		}
	}
	return n <= h.most
}

// fetch loads the adapters that the batch needs and the device does not have.
// Those that are there count as used first, so that none of them has to go.
func (s *Server) fetch() error {
	for _, j := range s.batch {
		if slices.Contains(s.shelf.have, j.Adapter) {
			s.shelf.touch(j.Adapter)
		}
	}
	for _, j := range s.batch {
		if j.Adapter == "" {
			continue
		}
		load, evict := s.shelf.touch(j.Adapter)
		if !load {
			continue
		}
		if evict != "" {
			op := hardware.Op{Kind: hardware.Drop, Model: j.Held.Model, Layers: j.Held.Span, Seqs: []hardware.Seq{{Adapter: evict}}}
			_, _ = s.dev.Run(&op)
		}
		s.stats.Swaps++
		op := hardware.Op{Kind: hardware.Load, Model: j.Held.Model, Layers: j.Held.Span, Bytes: j.Held.Model.AdapterBytes(j.Held.Span),
			Seqs: []hardware.Seq{{Adapter: j.Adapter}}}
		if _, err := s.dev.Run(&op); err != nil {
			return err
		}
	}
	return nil
}
