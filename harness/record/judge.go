package record

import (
	"cmp"
	"fmt"
	"time"
)

// Budgets of a measured run. A run that leaves them measured its client or its
// host as much as the system; leaderboards do not take it.
const (
	MaxLate        = time.Millisecond // p99 of issue lateness, or MaxLateShare of the TTFT limit (E2E limit where there is none) if that is more
	MaxLateShare   = 0.01
	MaxClientShare = 0.5   // client CPU time over its cores' time
	MaxClockDrift  = 0.001 // |monotonic / wall - 1|
	MaxPause       = time.Millisecond
	MaxMismatch    = 0.01 // share of requests whose token counts disagree
	MaxRateError   = 0.01 // |offered rate / scheduled rate - 1|
	MaxSteal       = 0.01
)

// Judge returns the reasons why a run of a cell is invalid, none if it is
// valid. It is a pure function of the cell's fields. Lost requests, disagreeing
// token counts and a wrong rate spoil every mode; what a busy client or host
// spoils is only the runs that read real clocks: measured ones, and for pauses
// and steal also emulated ones.
func (c *Cell) Judge() []string {
	var why []string
	say := func(bad bool, format string, a ...any) {
		if bad {
			why = append(why, fmt.Sprintf(format, a...))
		}
	}
	f := &c.Facts
	say(f.Dropped > 0, "%d requests or rows dropped: want 0", f.Dropped)
	if f.Offered > 0 {
		share := float64(f.Mismatched) / float64(f.Offered)
		say(share > MaxMismatch, "token counts of %.3g%% of requests disagree with the server's: want <= %g%%", 100*share, 100*MaxMismatch)
	}
	late := max(MaxLate, time.Duration(float64(cmp.Or(c.TTFTLimit, c.E2ELimit))*MaxLateShare))
	if rate, ok := f.rateRatio(late); ok {
		say(rate < 1-MaxRateError || rate > 1+MaxRateError, "offered rate is %.4g of the scheduled rate: want within %g%%", rate, 100*MaxRateError)
	}
	if c.Mode != "measured" && c.Mode != "emulated" {
		return why
	}
	say(f.PauseP99 > MaxPause, "garbage-collection pause p99 %v: want <= %v", f.PauseP99, MaxPause)
	say(f.StealKnown && f.StealShare > MaxSteal, "host steal %.3g%%: want <= %g%%", 100*f.StealShare, 100*MaxSteal)
	if c.Mode != "measured" {
		return why
	}
	say(f.LateP99 > late, "requests released late, p99 %v: want <= %v", f.LateP99, late)
	if f.Cores > 0 && c.Wall > 0 {
		share := c.ClientCPU.Seconds() / (c.Wall.Seconds() * float64(f.Cores))
		say(share > MaxClientShare, "client used %.3g%% of its %d cores: want <= %g%%", 100*share, f.Cores, 100*MaxClientShare)
	}
	if f.MonoTook > 0 && f.WallTook > 0 {
		ratio := f.MonoTook.Seconds() / f.WallTook.Seconds()
		say(ratio < 1-MaxClockDrift || ratio > 1+MaxClockDrift, "monotonic clock ran %.6g of the wall clock: want within %g%%", ratio, 100*MaxClockDrift)
	}
	return why
}

// rateRatio is the offered rate over the scheduled one: of the counts alone if
// the schedule has no extent, or if spans differ by no more than one request may be late: few requests in a short time
// have no other rate.
func (f *Facts) rateRatio(late time.Duration) (float64, bool) {
	if f.Planned == 0 {
		return 0, false
	}
	r := float64(f.Offered) / float64(f.Planned)
	if f.PlannedSpan > 0 && f.OfferedSpan > 0 && (f.PlannedSpan-f.OfferedSpan).Abs() > late {
		r *= f.PlannedSpan.Seconds() / f.OfferedSpan.Seconds()
	}
	return r, true
}
