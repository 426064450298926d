package verify

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/canon"
	"meibench/internal/units"
	"meibench/workloads"
)

// when is what a schedule says of a request.
type when struct {
	at, deadline        time.Duration
	user, session, turn int
	prompt, asked       int
	sensor, text        units.Bytes
}

func whenOf(r *workloads.Request) when {
	return when{r.ArriveAt, r.Deadline, r.User, r.Session, r.Turn, r.PromptTokens, r.OutputTokens, r.SensorBytes, r.TextBytes}
}

// mostKept bounds the requests whose schedules are kept between bundles: 100 bytes each.
const mostKept = 1 << 20

// schedule is what an open arm offers, by number; it is kept for other cells and
// bundles that ask the same.
func (k *check) schedule(a *arm, most int) []when {
	c := a.terms.Contract
	work, ok := k.works[a.terms.Header.Contract]
	if !ok {
		var err error
		if work, err = canon.Hash([]any{c.Workload, c.Data, c.Tokenizer}); err != nil {
			panic(err) // it was hashed before, as part of the contract
		}
		if len(k.works) >= mostTerms {
			clear(k.works)
		}
		k.works[a.terms.Header.Contract] = work
	}
	key := fmt.Sprint(work, " ", a.Seed, " ", most)
	if s, ok := k.plans[key]; ok {
		return s
	}
	var s []when
	for r := range a.terms.Schedule() {
		if s = append(s, whenOf(&r)); len(s) > most {
			break
		}
	}
	if k.kept += len(s); k.kept > mostKept {
		clear(k.plans)
		k.kept = len(s)
	}
	k.plans[key] = s
	return s
}

// follower compares rows with a schedule as they come.
type follower struct {
	k       *check
	arm     *arm
	served  bool // the server counts tokens
	sought  bool // the rate was searched for: times are not those of the plan
	plan    []when
	ended   []past // closed workloads: rows, to be followed when all are there
	missing int
	first   int // missing
	next    int // number expected
}

// past is a row of a closed workload.
type past struct {
	id       int
	at, done time.Duration
	when     when
}

// slackClosed is how much later than the recorded end of a request a measured
// client may have thought that it was: its own work between the two.
const slackClosed = 50 * time.Millisecond

func (k *check) follower(f *folder, a *arm, c *record.Cell) *follower {
	s := &follower{k: k, arm: a, served: c.Pipeline == "endpoint", sought: a.Cell.Find != nil, first: -1}
	if !a.terms.Closed() {
		rows := 0
		for _, run := range f.set.Runs() {
			if results.KeyOf(&run.Cell) == results.KeyOf(c) {
				rows = run.Rows
			}
		}
		s.plan = k.schedule(a, max(rows, min(a.terms.Planned, mostKept)))
	}
	return s
}

// row compares one row.
func (s *follower) row(at spot, r *record.Request) {
	got := when{r.Intended, r.Deadline, r.User, r.Session, r.Turn, r.PromptTokens, r.AskedTokens, r.SensorBytes, 0}
	if s.arm.terms.Closed() {
		s.ended = append(s.ended, past{r.ID, r.Intended, r.Done, got})
		return
	}
	for ; s.next < r.ID; s.next++ {
		if s.missing++; s.first < 0 {
			s.first = s.next
		}
		if s.missing > mostKept {
			break
		}
	}
	s.next = r.ID + 1
	if r.ID >= len(s.plan) {
		s.k.rep.say("V025", at, "the schedule has %d requests", len(s.plan))
		return
	}
	want := s.plan[r.ID]
	if r.Intended != want.at && !s.sought {
		s.k.rep.say("V023", at, "intended at %v, the schedule says %v", r.Intended, want.at)
	}
	s.same(at, got, want)
}

// same compares what was asked.
func (s *follower) same(at spot, got, want when) {
	want.text, want.at = 0, got.at
	if s.served {
		got.prompt = want.prompt
	}
	if got != want {
		s.k.rep.say("V024", at, "%s", differ(got, want))
	}
}

func differ(got, want when) string {
	for _, x := range []struct {
		name      string
		got, want any
	}{{"user", got.user, want.user}, {"session", got.session, want.session}, {"turn", got.turn, want.turn}, {"prompt tokens", got.prompt, want.prompt},
		{"asked tokens", got.asked, want.asked}, {"sensor bytes", got.sensor, want.sensor}, {"deadline", got.deadline, want.deadline}} {
		if x.got != x.want {
			return fmt.Sprintf("%s: %v, the schedule says %v", x.name, x.got, x.want)
		}
	}
	return "differs from the schedule"
}

// end says which rows are missing and follows closed workloads.
func (s *follower) end(at spot, rows int) {
	if s.arm.terms.Closed() {
		s.follow(at)
	} else if n := len(s.plan); s.next < n {
		if s.first < 0 {
			s.first = s.next
		}
		s.missing += n - s.next
	}
	if s.missing > 0 {
		s.k.rep.say("V025", at, "%d request(s) of the schedule have no row, the first is request %d", s.missing, s.first)
	}
}

// follow replays who waited for whom: each recorded end gives the requests that
// follow from it, and those must be the ones that are there.
func (s *follower) follow(at spot) {
	rows := make(map[int]*past, len(s.ended))
	for i := range s.ended {
		rows[s.ended[i].id] = &s.ended[i]
	}
	asked := map[int]workloads.Request{}
	expect := func(r workloads.Request, exact bool) {
		asked[r.ID] = r
		p, ok := rows[r.ID]
		here := spot{at.file, fmt.Sprintf("%s request %d", at.row, r.ID)}
		if !ok {
			s.k.rep.say("V025", here, "follows from the requests before it and has no row")
			return
		}
		if d := p.at - r.ArriveAt; d != 0 && (exact || d < 0 || d > slackClosed) && !s.sought {
			s.k.rep.say("V023", here, "intended at %v, from the end of the request before it follows %v", p.at, r.ArriveAt)
		}
		s.same(here, p.when, whenOf(&r))
	}
	for r := range s.arm.terms.Schedule() {
		if len(asked) > len(s.ended) {
			break
		}
		expect(r, true)
	}
	ends := slices.Clone(s.ended) // rows points into the other
	slices.SortFunc(ends, func(a, b past) int { return cmp.Or(cmp.Compare(a.done, b.done), cmp.Compare(a.id, b.id)) })
	follow := s.arm.terms.Follow()
	for _, p := range ends {
		r, ok := asked[p.id]
		if !ok {
			s.k.rep.say("V025", spot{at.file, fmt.Sprintf("%s request %d", at.row, p.id)}, "follows from no request that ended before it")
			continue
		}
		r.ArriveAt = p.at
		for _, next := range follow(r, p.done) {
			expect(next, s.arm.Cell.Mode != "measured")
		}
	}
}
