package results

import (
	"cmp"
	"container/heap"
	"fmt"
	"io"
	"slices"

	"meibench/harness/record"
)

// merge calls each with every request of a block in order of ID. Frames are
// sorted runs; one is read when its lowest ID comes up, so memory holds as many
// frames as overlap: one or two where rows came nearly in order.
func merge(f io.ReaderAt, b *block, each func(*record.Request) error) error {
	waiting := slices.Clone(b.frames)
	slices.SortStableFunc(waiting, func(a, b frame) int { return cmp.Compare(a.min, b.min) })
	var open cursors
	var spare []*cursor
	last, any := 0, false
	for len(waiting) > 0 || len(open) > 0 {
		for len(waiting) > 0 && (len(open) == 0 || waiting[0].min <= open[0].row.ID) {
			c := &cursor{}
			if n := len(spare); n > 0 {
				c, spare = spare[n-1], spare[:n-1]
			}
			if err := c.load(f, waiting[0]); err != nil {
				return err
			}
			heap.Push(&open, c)
			waiting = waiting[1:]
		}
		c := open[0]
		if any && c.row.ID <= last {
			return fmt.Errorf("%s: request %d was recorded twice: IDs must be unique within a run of a cell", KeyOf(&b.cell), c.row.ID)
		}
		last, any = c.row.ID, true
		if err := each(&c.row); err != nil {
			return err
		}
		switch more, err := c.next(); {
		case err != nil:
			return err
		case more:
			heap.Fix(&open, 0)
		default:
			spare = append(spare, heap.Pop(&open).(*cursor))
		}
	}
	return nil
}

// cursor reads the rows of a frame one by one.
type cursor struct {
	buf   []byte
	d     decoder
	nodes []string
	left  int
	row   record.Request
}

// load reads a frame and its first row.
func (c *cursor) load(f io.ReaderAt, h frame) error {
	if cap(c.buf) < int(h.len) {
		c.buf = make([]byte, h.len)
	}
	c.buf = c.buf[:h.len]
	if _, err := f.ReadAt(c.buf, h.off); err != nil {
		return fmt.Errorf("read rows from the run's journal at byte %d: %w", h.off, err)
	}
	c.d = decoder{b: c.buf[1:]}
	c.d.uvarint()
	var again frame
	again, c.nodes = rowsHead(&c.d)
	if c.d.bad || again.count != h.count {
		return errFrame
	}
	c.left = h.count
	_, err := c.next()
	return err
}

// next reads the next row; false at the end.
func (c *cursor) next() (bool, error) {
	if c.left == 0 {
		if len(c.d.b) > 0 {
			return false, errFrame
		}
		return false, nil
	}
	c.left--
	c.d.row(&c.row, c.nodes)
	if c.d.bad {
		return false, errFrame
	}
	if err := c.row.Check(); err != nil {
		return false, fmt.Errorf("%w (%w)", err, errFrame)
	}
	return true, nil
}

// cursors is a heap of open frames by the ID of their next row.
type cursors []*cursor

func (h cursors) Len() int           { return len(h) }
func (h cursors) Less(i, j int) bool { return h[i].row.ID < h[j].row.ID }
func (h cursors) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *cursors) Push(x any)        { *h = append(*h, x.(*cursor)) }
func (h *cursors) Pop() any {
	old := *h
	c := old[len(old)-1]
	*h = old[:len(old)-1]
	return c
}
