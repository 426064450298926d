package flash

import (
	"cmp"
	"fmt"
	"slices"
)

// window is the neurons of one layer that are in memory: a preallocated matrix whose first rows are in use, in no order. What
// leaves is replaced by the last row (Alizadeh et al. 2023, section 3.3), so nothing else moves.
type window struct {
	keep     int // tokens that an idle neuron stays; 0: none outlives its token
	capacity int // rows
	row      int // bytes of a row: a neuron
	memory   []byte
	ids      []int32 // neuron of each row
	slot     []int32 // row of each neuron, -1 if it is not there
	last     []int   // token at which each neuron was last active
	hot      []bool  // neurons that never leave; nil for none
	missing  []int32 // of the last hold
	moves    int     // rows moved by deletions
	most     int     // rows that were in use at once
}

func newWindow(F, keep, capacity, row int) *window {
	w := &window{keep: keep, capacity: capacity, row: row, slot: make([]int32, F), last: make([]int, F)}
	for i := range w.slot {
		w.slot[i] = -1
	}
	return w
}

// hold makes room for the neurons that are active at a token, sorted, and returns those that are not there: their rows are
// theirs now and wait to be filled.
func (w *window) hold(token int, active []int32) (missing []int32, err error) {
	w.missing = w.missing[:0]
	w.expire(token)
	for _, n := range active {
		w.last[n] = token
		if w.slot[n] < 0 {
			w.missing = append(w.missing, n)
		}
	}
	if over := len(w.ids) + len(w.missing) - w.capacity; over > 0 {
		if err := w.evict(token, over); err != nil {
			return nil, err
		}
	}
	for _, n := range w.missing {
		w.slot[n] = int32(len(w.ids))
		w.ids = append(w.ids, n)
	}
	w.most = max(w.most, len(w.ids))
	return w.missing, nil
}

// expire drops what has been idle for longer than the window; without a window, everything that may leave.
func (w *window) expire(token int) {
	if w.keep == 0 && w.hot == nil {
		for _, n := range w.ids {
			w.slot[n] = -1
		}
		w.ids = w.ids[:0]
		return
	}
	for i := len(w.ids) - 1; i >= 0; i-- {
		n := w.ids[i]
		if !w.stays(n) && (w.keep == 0 || w.last[n] < token-w.keep) {
			w.remove(i)
		}
	}
}

func (w *window) stays(n int32) bool { return w.hot != nil && w.hot[n] }

// evict drops the neurons that were idle longest, the lower number among equals, and none that is active.
func (w *window) evict(token, over int) error {
	var idle []int32
	for _, n := range w.ids {
		if w.last[n] < token && !w.stays(n) {
			idle = append(idle, n)
		}
	}
	if len(idle) < over {
		return fmt.Errorf("%d neurons are active or hot at once and the window has %d rows: want a larger budget, fewer hot or a smaller share",
			w.capacity+over-len(idle), w.capacity)
	}
	slices.SortFunc(idle, func(a, b int32) int { return cmp.Or(cmp.Compare(w.last[a], w.last[b]), cmp.Compare(a, b)) })
	for _, n := range idle[:over] {
		w.remove(int(w.slot[n]))
	}
	return nil
}

// remove puts the last row in the place of row i.
func (w *window) remove(i int) {
	n, end := w.ids[i], len(w.ids)-1
	if i != end {
		copy(w.at(i), w.at(end))
		w.ids[i] = w.ids[end]
		w.slot[w.ids[i]] = int32(i)
		w.moves++
	}
	w.slot[n], w.ids = -1, w.ids[:end]
}

// at is the memory of a row.
func (w *window) at(i int) []byte { return w.memory[i*w.row : (i+1)*w.row] }
