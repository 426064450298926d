package twin

import (
	"errors"
	"slices"
	"time"

	"meibench/hardware/profiles"
	"meibench/harness/record"
	"meibench/harness/results"
)

// asleep is the time without messages from which on a receiver has gone to sleep.
const asleep = time.Millisecond

// handling is what the machine took beside computing: for messages on shaped links,
// and from a request's time to its first step.
func (o *Observation) handling(source string) (*profiles.Handling, error) {
	var idle, busy, resumed []float64
	for _, t := range o.ops {
		last := map[string]time.Duration{}
		for _, w := range t.Waits {
			late := (w.End - w.Due).Seconds()
			switch {
			case w.Resumed:
				resumed = append(resumed, late)
			case w.Due-last[w.Link] >= asleep:
				idle = append(idle, late)
			default:
				busy = append(busy, late)
			}
			if !w.Resumed {
				last[w.Link] = w.End
			}
		}
	}
	starts, err := o.starts()
	if err != nil {
		return nil, err
	}
	h := &profiles.Handling{After: asleep.Seconds(), Idle: usual(idle), Busy: usual(busy), Resume: usual(resumed), Start: usual(starts),
		Source: source, Kind: profiles.Measured}
	if h.Busy == 0 { // no message ever came soon after another
		h.Busy = h.Idle
	}
	return h, nil
}

// starts are the times from when requests were due to the start of their first step:
// on a link or a device, whichever a pipeline asks first.
func (o *Observation) starts() (out []float64, err error) {
	set, err := results.Read(o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	for i, c := range set.Runs() {
		if c.Cell.Mode != o.mode || !c.Cell.Valid {
			continue
		}
		due := map[int]time.Duration{}
		for r, err := range set.Rows(i) {
			if err != nil {
				return nil, err
			}
			due[r.ID] = r.Intended
		}
		for s, err := range set.Spans(i) {
			if err != nil {
				return nil, err
			}
			at, waiting := due[s.ID]
			if !waiting || s.Kind == record.Queue || s.Kind == record.Wait {
				continue
			}
			out = append(out, (s.Start - at).Seconds())
			delete(due, s.ID)
		}
	}
	return out, nil
}

// usual is the mean of the values up to four times their median: what lies above
// waited for something else, a device that was busy or a processor that was taken
// away. 0 of none.
func usual(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	limit, sum, n := 4*v[(len(v)-1)/2], 0.0, 0
	for _, x := range v {
		if x <= limit {
			sum += x
			n++
		}
	}
	return sum / float64(n)
}
