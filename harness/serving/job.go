package serving

import (
	"fmt"
	"math"
	"sort"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// Job is a request's stay at a server: a whole answer, or the steps of a Session.
type Job struct {
	ID       int64
	Held     Held
	Prompt   int     // tokens
	Tokens   []int32 // the prompt's ids; nil if modelled
	Limit    int     // tokens to make
	Adapter  string
	Deadline time.Duration // when its last token should be made, on the run's clock; 0 = none
	Sample   *hardware.Sample
	Exit     *hardware.Exit
	Wire     string
	Emit     func(out hardware.Out, u hardware.Usage) // a token
	// Down takes the tokens instead of Emit, each as a message like Token, if they
	// are only counted.
	Down   hardware.Trains
	Token  hardware.Payload
	Finish func(err error) // the end; nil error = all is well

	// What policies look at.
	Todo    int // prompt tokens not processed yet
	Left    int // tokens still to make
	Context int // tokens in its KV cache
	Grow    int // tokens its KV cache will hold at most

	// What it took, for the record of the request.
	nano, flop int64 // nJ and FLOP: whole numbers, so that their order does not matter
	Joules     hardware.Source
	Steps      int

	owed   []time.Duration // tokens made and not handed to Down
	member member          // of a crowd
	late   bool            // its link knows that it may owe tokens
	order  int             // of entry, over all jobs

	kind    hardware.Kind // of its next step
	seq     hardware.Seq  // of its next step
	held    units.Bytes   // KV memory taken
	session bool
	inside  bool // it entered and has not been freed
	over    bool // leave the running set after this operation

	token                               [1]int32 // backing for seq.Tokens, so that a decode step allocates nothing
	made                                []int32  // tokens made, kept where the server may preempt
	queued, admit, first, last, arrived time.Duration
}

// joins reports whether two jobs can share an operation of a kind.
func (j *Job) joins(o *Job, kind hardware.Kind) bool {
	return j.Held == o.Held && j.Exit == o.Exit && j.Sample == o.Sample && j.Wire == o.Wire &&
		(o.kind == kind || kind == hardware.Prefill && o.kind == hardware.Decode && !o.session && !j.session)
}

// slice prepares the next n tokens of a job.
func (j *Job) slice(n int) {
	if j.session {
		return
	}
	j.seq.Context, j.seq.New = j.Context, n
	if j.Todo == 0 {
		return // the token to decode is in place
	}
	if j.Tokens != nil {
		done := j.Context
		j.seq.Tokens = j.all()[done : done+n]
	}
}

// all is the prompt and, after a preemption, what had been answered.
func (j *Job) all() []int32 {
	if len(j.made) == 0 || j.Context+j.Todo <= j.Prompt {
		return j.Tokens
	}
	return append(j.Tokens[:j.Prompt:j.Prompt], j.made...)
}

// advance prepares the decode step that follows a token.
func (j *Job) advance(token int32) {
	j.kind = hardware.Decode
	j.seq.New = 1
	j.seq.Tokens = nil
	if token != hardware.NoToken {
		j.token[0] = token
		j.seq.Tokens = j.token[:]
		j.made = append(j.made, token)
	}
}

// Session is a sequence that a pipeline drives step by step.
type Session struct {
	srv  *Server
	job  *Job
	cond world.Cond
	out  hardware.Out
	use  hardware.Usage
	err  error
	done bool
}

// Step is one operation of a session.
type Step struct {
	Kind   hardware.Kind
	Seq    hardware.Seq // its ID is the session's
	Sample *hardware.Sample
	Exit   *hardware.Exit
	Wire   string
}

// Open makes a session whose KV cache may grow to so many tokens. Close it.
func (s *Server) Open(id int64, held Held, grow int) *Session {
	x := &Session{srv: s, cond: s.env.NewCond(), job: &Job{ID: id, Held: held, Grow: grow, session: true}}
	x.job.Emit = func(out hardware.Out, u hardware.Usage) { x.out, x.use = out, u }
	x.job.Finish = func(err error) {
		x.err, x.done = err, true
		x.cond.Signal()
	}
	return x
}

// Step runs one operation in a batch with what others ask for and returns its
// result. It blocks the calling process.
func (x *Session) Step(st Step) (hardware.Out, hardware.Usage, error) {
	x.Begin(st)
	return x.Wait()
}

// Begin hands a step to the server and returns at once; Wait returns its result.
func (x *Session) Begin(st Step) {
	j := x.job
	j.kind, j.Sample, j.Exit, j.Wire = st.Kind, st.Sample, st.Exit, st.Wire
	j.seq = st.Seq
	j.seq.ID = j.ID
	j.Context, j.Todo, j.Left = st.Seq.Context, st.Seq.New, 1
	x.done = false
	x.srv.Put(j)
}

// Wait blocks until the step that Begin handed over is done.
func (x *Session) Wait() (hardware.Out, hardware.Usage, error) {
	for !x.done {
		x.cond.Wait()
	}
	return x.out, x.use, x.err
}

// Take returns what the session's steps spent since the last call.
func (x *Session) Take() (flop units.FLOP, energy units.Joules, source hardware.Source) {
	j := x.job
	flop, energy, source = j.FLOP(), j.Energy(), j.Joules
	j.flop, j.nano, j.Steps, j.Joules = 0, 0, 0, 0
	return flop, energy, source
}

// Arrived is when a device on another machine got the job's first operation; 0 =
// at once.
func (j *Job) Arrived() time.Duration { return j.arrived }

// Close frees the session's memory.
func (x *Session) Close() { x.srv.Free(x.job) }

// Room reports whether a session of n tokens could enter at once.
func (s *Server) Room(h Held, n int) bool {
	return !s.view.Bounded || len(s.view.Waiting) == 0 && units.Bytes(n)*h.perToken() <= s.view.Free
}

// Crowded reports whether jobs wait to enter.
func (s *Server) Crowded() bool { return len(s.view.Waiting) > 0 || s.queue.Len() > 0 }

// Grow lets the session's KV cache become n tokens long, if memory allows.
func (x *Session) Grow(n int) error {
	j, v := x.job, &x.srv.view
	if n <= j.Grow || !j.inside {
		j.Grow = max(j.Grow, n)
		return nil
	}
	more := units.Bytes(n-j.Grow) * j.Held.perToken()
	if v.Bounded && more > v.Free {
		return fmt.Errorf("session %d needs %v more for its KV cache, %v are free: %w", j.ID, more, v.Free, hardware.ErrMemory)
	}
	j.Grow = n
	x.srv.take(j, more)
	return nil
}

// Energy and FLOP are what the job's operations took so far: its part of each, by
// tokens.
func (j *Job) Energy() units.Joules { return units.Joules(float64(j.nano) * 1e-9) }

// FLOP see Energy.
func (j *Job) FLOP() units.FLOP { return units.FLOP(j.flop) }

// nano is a part of an energy in whole nanojoules, whole a part of a number of
// operations.
func nano(joules, part float64) int64 { return int64(math.Round(float64(joules*part) * 1e9)) }

func whole(flop, part float64) int64 { return int64(float64(flop * part)) }

// emit hands a token to the user by the job's own function. Tokens that are only
// counted wait until the answer ends or something else wants to pass the link:
// so they pass in the same order however many steps are one event.
func (j *Job) emit(out hardware.Out, u hardware.Usage) {
	if j.Down == nil {
		j.Emit(out, u)
		return
	}
	if !j.late {
		j.late = true
		j.Down.Late(j)
	}
	j.owed = append(j.owed, u.End)
}

// Due is when the oldest token was made, or is going to be, that was not handed to
// the link.
func (j *Job) Due() (time.Duration, bool) {
	if len(j.owed) > 0 {
		return j.owed[0], true
	}
	return j.member.due()
}

// Pay hands tokens to the link: those that are due, or only the oldest.
func (j *Job) Pay(by time.Duration, all bool) {
	if n := due(j.owed, by, all); n > 0 {
		j.Down.Train(j.Token, j.owed[:n])
		if j.owed = j.owed[:copy(j.owed, j.owed[n:])]; !all {
			return
		}
	}
	if ends := j.member.owed(); len(ends) > 0 {
		n := due(ends, by, all)
		j.Down.Train(j.Token, ends[:n])
		j.member.told += n
	}
}

// due is how many of some tokens are due by a time, or one.
func due(ends []time.Duration, by time.Duration, all bool) int {
	if !all {
		return min(1, len(ends))
	}
	return sort.Search(len(ends), func(i int) bool { return ends[i] > by })
}

// Owed is memory for tokens not handed over yet; give it to the next job.
func (j *Job) Owed() []time.Duration { return j.owed }

// Lend gives the job such memory.
func (j *Job) Lend(memory []time.Duration) { j.owed = memory[:0] }
