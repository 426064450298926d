package pipeline

import (
	"slices"

	"meibench/internal/units"
	"meibench/reference/library"
)

// shelf keeps models of a library in so many bytes, every block once; the least recently used model goes.
type shelf struct {
	lib  *library.Library
	room units.Bytes
	kept []int // models, least recently used first
	of   []int // by block: models here that have it
	used units.Bytes
}

func newShelf(l *library.Library, room units.Bytes) *shelf {
	return &shelf{lib: l, room: room, of: make([]int, len(l.Blocks))}
}

// has reports whether a block is kept.
func (s *shelf) has(b int) bool { return s.of[b] > 0 }

// models are those that are kept whole.
func (s *shelf) models() []int { return s.kept }

// ask notes that a model is wanted.
func (s *shelf) ask(m int) {
	if i := slices.Index(s.kept, m); i >= 0 {
		s.kept = append(slices.Delete(s.kept, i, i+1), m)
	}
}

// put keeps a model, if it fits at all, and returns the bytes that were not there before.
func (s *shelf) put(m int) (added units.Bytes) {
	if slices.Contains(s.kept, m) || s.lib.Whole(m) > s.room {
		return 0
	}
	for _, b := range s.lib.Models[m].Blocks {
		if s.of[b]++; s.of[b] == 1 {
			added += s.lib.Blocks[b].Bytes
		}
	}
	s.used += added
	s.kept = append(s.kept, m)
	for s.used > s.room {
		s.remove(s.kept[0])
	}
	return added
}

// remove gives a model up, with the blocks that no other has.
func (s *shelf) remove(m int) {
	i := slices.Index(s.kept, m)
	if i < 0 {
		return
	}
	s.kept = slices.Delete(s.kept, i, i+1)
	for _, b := range s.lib.Models[m].Blocks {
		if s.of[b]--; s.of[b] == 0 {
			s.used -= s.lib.Blocks[b].Bytes
		}
	}
}
