package workloads

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"time"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/workloads/arrival"
)

// Requests returns the requests of a seed that wait for no other, in order of
// arrival: all of them in open scenarios, the first of every stream, user or
// session in closed ones (see Driver). The sequence can be ranged over again
// and gives the same requests; it allocates nothing per field-scale request.
func (w *Workload) Requests(seed uint64) iter.Seq[Request] {
	return func(yield func(Request) bool) {
		m := w.maker(seed)
		switch w.spec.Scenario {
		case SingleStream:
			m.batch(min(1, w.limit()), yield)
		case MultiStream:
			m.batch(min(QuerySize, w.limit()), yield)
		case Offline:
			m.batch(w.spec.Requests, yield)
		case ClosedLoop:
			m.users(yield)
		case MultiTurn:
			m.sessions(yield)
		case Replay:
			m.replay(yield)
		default:
			m.open(yield)
		}
	}
}

// limit is the largest number of requests.
func (w *Workload) limit() int {
	if w.spec.Requests == 0 {
		return math.MaxInt
	}
	return w.spec.Requests
}

func (w *Workload) within(at time.Duration) bool {
	return w.spec.Horizon == 0 || at <= w.spec.Horizon
}

// maker makes the requests of one seed.
type maker struct {
	w                          *Workload
	seed                       uint64
	sizes, who, talks, thought rng.Key
	luck                       *rng.Luck // scratch: a local would move to the heap
}

func (w *Workload) maker(seed uint64) *maker {
	name := w.app.Name
	return &maker{w: w, seed: seed, luck: new(rng.Luck),
		sizes: rng.NewKey(seed, "sizes", name), who: rng.NewKey(seed, "users", name),
		talks: rng.NewKey(seed, "turns", name), thought: rng.NewKey(seed, "think", name)}
}

// open yields what the arrival process yields.
func (m *maker) open(yield func(Request) bool) {
	g, limit := m.arrivals(), m.w.limit()
	var r Request
	for id := range limit {
		at, user, ok := g.Next()
		if !ok || !m.w.within(at) {
			return
		}
		if user < 0 {
			user = m.user(id)
		}
		m.request(&r, at, place{id: id, user: user, session: id, query: id})
		if !yield(r) {
			return
		}
	}
}

func (m *maker) arrivals() *arrival.Generator {
	g, err := m.w.arrivals.Start(arrival.Run{Seed: m.seed, Name: m.w.app.Name, Sources: m.w.spec.Users, Factor: m.w.factor})
	if err != nil {
		panic("workloads: arrivals that New accepted do not start: " + err.Error())
	}
	return g
}

// batch yields n requests of one query at time zero.
func (m *maker) batch(n int, yield func(Request) bool) {
	var r Request
	for id := range n {
		if m.request(&r, 0, m.alone(id, 0)); !yield(r) {
			return
		}
	}
}

// users yields the first request of every user, after a first thought.
func (m *maker) users(yield func(Request) bool) {
	first := make([]place, min(m.w.spec.Users, m.w.limit()))
	at := make([]time.Duration, len(first))
	for u := range first {
		first[u] = place{id: u, user: u, session: u, query: u}
		at[u] = m.think(u)
	}
	slices.SortFunc(first, func(a, b place) int { return cmp.Or(cmp.Compare(at[a.id], at[b.id]), cmp.Compare(a.id, b.id)) })
	var r Request
	for _, p := range first {
		if !m.w.within(at[p.id]) {
			return
		}
		if m.request(&r, at[p.id], p); !yield(r) {
			return
		}
	}
}

// sessions yields the first turn of every session. A session takes as many
// numbers as it has turns.
func (m *maker) sessions(yield func(Request) bool) {
	g, limit := m.arrivals(), m.w.limit()
	var r Request
	for id, session := 0, 0; id < limit; session++ {
		at, user, ok := g.Next()
		if !ok || !m.w.within(at) {
			return
		}
		if user < 0 {
			user = m.user(session)
		}
		if m.request(&r, at, place{id: id, user: user, session: session, query: id}); !yield(r) {
			return
		}
		id += m.turns(session)
	}
}

// replay yields the rows of the trace.
func (m *maker) replay(yield func(Request) bool) {
	t, limit := m.w.trace, m.w.limit()
	var r Request
	for id := range min(len(t.Rows), limit) {
		row := &t.Rows[id]
		at := row.At
		if m.w.factor != 1 {
			at = duration(row.At.Seconds() / m.w.factor)
		}
		if !m.w.within(at) {
			return
		}
		p := place{id: id, user: int(row.User), session: int(row.Session), turn: int(row.Turn), query: id}
		if p.session < 0 {
			p.session = id
		}
		if p.user < 0 {
			p.user = m.user(p.session)
		}
		m.request(&r, at, p)
		if m.w.spec.Scale == Field {
			m.record(&r, id)
		}
		if !yield(r) {
			return
		}
	}
}

// record puts the recorded lengths of row i in place of drawn ones.
func (m *maker) record(r *Request, i int) {
	row := &m.w.trace.Rows[i]
	vision := 0
	if m.w.imageTokens != nil && row.Images > 0 {
		*m.luck = m.sizes.At(uint64(i))
		vision = min(int(row.Images)*m.w.imageTokens.Count(m.luck.Float64(), 0), int(row.Prompt))
	}
	r.SensorBytes = 0
	m.sized(r, int(row.Prompt)-vision, vision, int(row.Output))
	r.Blocks, r.BlockTokens = m.w.trace.Blocks(i), m.w.trace.BlockTokens
}

// place is where a request stands in the workload.
type place struct{ id, user, session, turn, query int }

// alone is the place of a request that is a session of its own.
func (m *maker) alone(id, query int) place {
	return place{id: id, user: m.user(id), session: id, query: query}
}

// user picks who has a session.
func (m *maker) user(session int) int {
	if m.w.spec.Users == 1 {
		return 0
	}
	*m.luck = m.who.At(uint64(session))
	return int(m.luck.Float64() * float64(m.w.spec.Users))
}

// turns is how many turns a session has.
func (m *maker) turns(session int) int {
	if m.w.turns == nil {
		return 1
	}
	*m.luck = m.talks.At(uint64(session))
	return m.w.turns.Count(m.luck.Float64(), 1)
}

// think is the pause before request id.
func (m *maker) think(id int) time.Duration {
	if m.w.wait == nil {
		return 0
	}
	*m.luck = m.thought.At(uint64(id))
	return duration(m.w.wait.At(m.luck.Float64()))
}

// request draws everything about a request from its number.
func (m *maker) request(r *Request, at time.Duration, p place) {
	w := m.w
	*r = Request{ID: p.id, App: w.app.Name, User: p.user, Session: p.session, Turn: p.turn, Query: p.query,
		ArriveAt: at, Deadline: w.deadline, Zone: w.app.Privacy.Zone}
	*m.luck = m.sizes.At(uint64(p.id))
	// Three draws in any case, so that an application that gains images keeps
	// the lengths of its texts.
	perImage, images, sensor := m.luck.Float64(), m.luck.Float64(), m.luck.Float64()
	vision := 0
	if w.images != nil {
		vision = w.images.Count(images, 0) * w.imageTokens.Count(perImage, 0)
	}
	if w.sensor != nil {
		r.SensorBytes = units.Bytes(w.sensor.Count(sensor, 0))
	}
	joint := &w.first
	if p.turn > 0 {
		joint = &w.follow
	}
	text, output := joint.Draw(m.luck)
	m.sized(r, text, vision, output)
	if n := w.spec.Preamble; n > 0 && p.turn == 0 {
		r.PromptTokens += n
		if c := w.spec.Context; c > 0 {
			r.PromptTokens = min(r.PromptTokens, c-r.OutputTokens)
		}
		r.CommonTokens = min(n, r.PromptTokens)
	}
	if w.spec.Scale == Task {
		w.write(r, m.seed)
	}
}

// sized sets the lengths of a request and clips them to the context: an answer
// takes at most half of it, a prompt what remains.
func (m *maker) sized(r *Request, text, vision, output int) {
	w := m.w
	r.SensorBytes += units.Bytes(float64(float64(vision)*w.app.BytesPerImageToken.Value) + 0.5)
	r.TextBytes = units.Bytes(float64(float64(text)*w.app.BytesPerToken.Value) + 0.5)
	prompt := text + vision
	if c := w.spec.Context; c > 0 {
		output = min(output, c/2)
		prompt = min(prompt, c-output)
		vision = min(vision, prompt)
	}
	r.PromptTokens, r.VisionTokens, r.OutputTokens = prompt, vision, output
}
