// Package serving is what an edge or a cloud node runs: one process that takes
// jobs from many users and forms operations of several sequences for its device
// (checklist I2, I3).
//
// Which jobs enter, and which of them are in the next operation, is a Policy: a
// pure function over a View, tested with tables. The Server keeps what policies
// need true: memory for KV caches, adapters that are loaded, sequences that end.
//
//	srv, err := serving.New(env, node, serving.Options{Policy: "chunked", Most: 16, Chunk: 512}, serving.Held{Model: m, Span: m.All()})
//	srv.Put(&serving.Job{ID: 7, Prompt: 300, Limit: 80, Emit: ..., Finish: ...}) // a whole answer
//	s := srv.Open(8, held, 380)                                                  // or one step at a time
//	out, err := s.Step(serving.Step{Kind: hardware.Verify, Seq: seq})
//
// Whole answers may be preempted and computed again when pages run out; sessions
// reserve the memory that they were opened with. What the package does not do:
// move caches between nodes, or run two operations at once on one node.
package serving

import (
	"errors"
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// Options of a server. The zero value batches continuously, one sequence at a time.
type Options struct {
	Policy   string // of Policies; "" = continuous
	Most     int    // sequences per operation; at least 1
	Chunk    int    // chunked: tokens per operation
	Paged    bool   // take KV memory in blocks as a sequence grows, not at once
	Block    int    // tokens per block; 0 = 16, as vLLM (SOSP'23)
	Reject   bool   // slo: refuse what can no longer meet its deadline
	Adapters int    // LoRA adapters in memory at most; 0 = all stay
	// Weights is the memory that is for weights, which whoever puts the jobs brings and drops, adapters too; 0 = the server
	// holds what it was told at the start and loads adapters itself.
	Weights units.Bytes
}

// Held is a part of a model that a server holds.
type Held struct {
	Model *hardware.Model
	Span  hardware.Span
}

// perToken is the KV memory of one token.
func (h Held) perToken() units.Bytes { return h.Model.KVBytesPerToken(h.Span) }

// ErrNeverFits is the end of a request whose KV cache exceeds what the server has.
var ErrNeverFits = errors.New("serving: the request's KV cache can never fit")

// ErrHopeless is the end of a request that an SLO-aware server refuses.
var ErrHopeless = errors.New("serving: the deadline cannot be met any more")

// Server batches the jobs of one node.
type Server struct {
	env    world.Env
	dev    hardware.Device
	name   string
	opt    Options
	policy Policy
	queue  *world.Queue[*Job] // nil in it means: look again
	view   View
	op     hardware.Op
	batch  []*Job // of the operation that runs
	admits []int
	slices []Slice
	shelf  shelf
	stats  Stats
	crowd  crowd
	order  int             // of the job that enters next
	aside  hardware.Op     // of one sequence, for what takes no time
	one    [1]hardware.Seq // its
}

// Stats are what a server did so far. In a server at rest Taken equals Freed,
// and Tokens is what its jobs asked for plus Redone.
type Stats struct {
	Operations   int           // run on the device
	Sequences    int           // summed over operations
	Tokens       int           // processed, prompts included
	Redone       int           // of these, tokens computed again after preemption
	Preempted    int           // times that a job lost its cache
	Taken, Freed units.Bytes   // KV memory
	Swaps        int           // adapters loaded
	Largest      int           // most sequences in one operation
	Deciding     time.Duration // spent in the policy, where time passes while it thinks: in measured runs
}

// Stats returns what the server did so far.
func (s *Server) Stats() Stats { return s.stats }

// Figures are the stats that a run records, by the names of record's table.
func (s *Server) Figures() map[string]float64 {
	st := &s.stats
	return map[string]float64{
		"batch_mean": float64(st.Sequences) / float64(max(st.Operations, 1)), "batch_max": float64(st.Largest),
		"preempted": float64(st.Preempted), "adapter_swaps": float64(st.Swaps), "decision_time": st.Deciding.Seconds(),
	}
}

// Name is the node's.
func (s *Server) Name() string { return s.name }

// Device is what the server runs on.
func (s *Server) Device() hardware.Device { return s.dev }

// New starts a server on a node. What it holds is booked against the device's
// memory; the rest is for KV caches.
func New(env world.Env, node hardware.Node, o Options, held ...Held) (*Server, error) {
	o.Most, o.Block = max(o.Most, 1), max(o.Block, 0)
	if o.Block == 0 {
		o.Block = 16
	}
	policy, err := FindPolicy(o)
	if err != nil {
		return nil, fmt.Errorf("node %q: %w", node.Name, err)
	}
	s := &Server{env: env, dev: node.Device, name: node.Name, opt: o, policy: policy, queue: world.NewQueue[*Job](env)}
	s.view.Most, s.view.Paged, s.view.Block = o.Most, o.Paged, o.Block
	s.shelf.most = o.Adapters
	s.crowd = newCrowd(env, node.Device, o)
	if mem := node.Device.Spec().Memory; mem > 0 {
		free := mem
		for _, h := range held {
			free -= h.Model.WeightBytes(h.Span)
		}
		if o.Weights > 0 {
			free = mem - o.Weights
		}
		if free <= 0 && o.Weights > 0 {
			return nil, fmt.Errorf("node %q: %v for weights leave nothing of the device's %v for KV caches: %w", node.Name, o.Weights, mem, hardware.ErrMemory)
		}
		if free <= 0 {
			h := held[0]
			return nil, fmt.Errorf("node %q: model %q needs %v for layers %d to %d, the device has %v: %w",
				node.Name, h.Model.Name, h.Model.WeightBytes(h.Span), h.Span.Lo, h.Span.Hi, mem, hardware.ErrMemory)
		}
		s.view.Bounded, s.view.Total, s.view.Free = true, free, free
	}
	env.Serve("server "+node.Name, s.loop)
	return s, nil
}

// Put hands a job to the server and returns at once.
func (s *Server) Put(j *Job) {
	j.queued, j.admit = s.env.Now(), -1
	if !j.session {
		j.kind, j.Todo, j.Left = hardware.Prefill, j.Prompt, j.Limit
		j.Grow = j.Prompt + j.Limit
		j.seq = hardware.Seq{ID: j.ID, Adapter: j.Adapter}
	}
	s.queue.Put(j)
	s.poke()
}

func (s *Server) loop() {
	for {
		s.admit()
		s.gather()
		if s.tight() {
			s.disperse()
			s.crowd.apart = true
		}
		if s.march() {
			continue
		}
		for phase := 0; ; phase++ {
			began := s.env.Now()
			s.slices = s.policy.Step(&s.view, phase, s.slices[:0])
			s.stats.Deciding += s.env.Now() - began
			answers := s.view.Answers > 0 && s.policy.Answers(phase)
			if len(s.slices) == 0 && !answers && phase > 0 {
				break
			}
			s.runAll(answers)
		}
	}
}

// admit lets jobs in; it returns with at least one to run, waiting for one if
// need be.
func (s *Server) admit() {
	v := &s.view
	for {
		for j, ok := s.queue.TryGet(); ok; j, ok = s.queue.TryGet() {
			s.sort(j)
		}
		v.Now = s.env.Now()
		if s.opt.Reject {
			s.refuse()
		}
		s.admits = s.policy.Admit(v, s.admits[:0])
		s.stats.Deciding += s.env.Now() - v.Now
		s.enter(s.admits)
		if len(v.Running)+v.Answers > 0 {
			return
		}
		j, _ := s.queue.Get()
		s.sort(j)
	}
}

// sort puts an arrival where it belongs: what can never fit is refused, a step
// of a sequence that has its memory joins what runs.
func (s *Server) sort(j *Job) {
	v := &s.view
	switch {
	case j == nil:
	case j.inside:
		v.Running = append(v.Running, j)
	case v.Bounded && v.whole(j) > v.Total:
		j.Finish(fmt.Errorf("%w: %v needed, %v in all", ErrNeverFits, v.whole(j), v.Total))
	default:
		v.Waiting = append(v.Waiting, j)
	}
}

// refuse ends waiting jobs that could not meet their deadline if they ran alone
// and at once.
func (s *Server) refuse() {
	v, keep := &s.view, s.view.Waiting[:0]
	for _, j := range v.Waiting {
		if j.Deadline > 0 && !j.session && v.Now+v.Pace.Time(j.Todo, 1, j.Left) > j.Deadline {
			j.Finish(ErrHopeless)
			continue
		}
		keep = append(keep, j)
	}
	clear(v.Waiting[len(keep):])
	v.Waiting = keep
}

// enter moves jobs from waiting to running and takes their memory. The indices
// ascend.
func (s *Server) enter(which []int) {
	v := &s.view
	if len(which) == 0 {
		return
	}
	for _, i := range which {
		j := v.Waiting[i]
		s.take(j, v.Need(j))
		j.inside = true
		j.order, s.order = s.order, s.order+1
		v.Running = append(v.Running, j)
	}
	if n := len(which); which[n-1] == n-1 { // the front of the line, however long it is
		clear(v.Waiting[:n])
		v.Waiting = v.Waiting[n:]
		return
	}
	keep, k := v.Waiting[:0], 0
	for i, j := range v.Waiting {
		if k < len(which) && which[k] == i {
			k++
			continue
		}
		keep = append(keep, j)
	}
	clear(v.Waiting[len(keep):])
	v.Waiting = keep
}

func (s *Server) take(j *Job, n units.Bytes) {
	j.held += n
	s.stats.Taken += n
	if s.view.Bounded {
		s.view.Free -= n
	}
}

func (s *Server) give(j *Job) {
	s.stats.Freed += j.held
	if s.view.Bounded {
		s.view.Free += j.held
	}
	j.held = 0
}

// runAll runs the slices of a phase, as few operations as their kinds, models
// and spans allow.
func (s *Server) runAll(answers bool) {
	v := &s.view
	if answers && len(s.slices) == 0 {
		s.batch = s.batch[:0]
		s.run(nil, hardware.Decode, true)
		return
	}
	for len(s.slices) > 0 {
		first := v.Running[s.slices[0].Job]
		kind := first.kind
		if !first.session && (v.fused(s.slices) || answers && v.prompts(s.slices)) {
			kind = hardware.Prefill
		}
		beside := 0
		if answers {
			beside = v.Answers
		}
		s.batch, s.op.Seqs = s.batch[:0], s.op.Seqs[:0]
		rest := s.slices[:0]
		for _, sl := range s.slices {
			j := v.Running[sl.Job]
			if j.over { // lost its memory to one before it
				continue
			}
			if !first.joins(j, kind) || !s.shelf.room(s.batch, j) || len(s.batch)+beside >= s.opt.Most { // sessions that hold their memory may be more
				rest = append(rest, sl)
				continue
			}
			j.slice(sl.Tokens)
			s.batch = append(s.batch, j)
		}
		s.slices = rest
		if s.opt.Paged {
			s.page()
		}
		s.run(first, kind, answers)
		answers = false // they are in the first operation of a phase
		s.reindex()
	}
}

// run runs one operation for the batch, and the crowd if it takes part, and hands
// out its results.
func (s *Server) run(first *Job, kind hardware.Kind, answers bool) {
	if s.opt.Weights > 0 {
		// they are there
	} else if err := s.fetch(); err != nil {
		s.share(hardware.Result{}, err, 0)
		return
	}
	tokens, seqs := 0, len(s.batch)
	for _, j := range s.batch {
		s.op.Seqs = append(s.op.Seqs, j.seq)
		tokens += j.seq.New
	}
	switch {
	case answers && first == nil:
		s.op = s.crowd.operation()
	case len(s.batch) == 0 && !answers:
		return
	default:
		s.op = hardware.Op{Kind: kind, Model: first.Held.Model, Layers: first.Held.Span, Seqs: s.op.Seqs, Exit: first.Exit, Sample: first.Sample, Wire: first.Wire}
	}
	if answers {
		s.op.Kind, s.op.Crowd = kind, s.crowd.operation().Crowd
		tokens += s.op.Crowd.Seqs
		seqs += s.op.Crowd.Seqs
	}
	s.stats.Operations++
	s.stats.Sequences += seqs
	s.stats.Tokens += tokens
	s.stats.Largest = max(s.stats.Largest, seqs)
	res, err := s.dev.Run(&s.op)
	if err == nil {
		s.view.Pace.learn(kind, tokens, res.Usage.End-res.Usage.Start)
	}
	if answers && err == nil {
		s.stepped(&res, tokens)
	}
	s.share(res, err, tokens)
	switch {
	case answers && err == nil:
		s.retire()
	case answers:
		s.scatter(err)
	}
}

// scatter ends every answer of the crowd: the device refuses to go on.
func (s *Server) scatter(err error) {
	s.disperse()
	for _, j := range s.view.Running {
		if s.crowd.plain(j) && j.kind == hardware.Decode && !j.over {
			s.end(j, err)
		}
	}
	s.reindex()
}

// share hands each job of the batch its part of a result, an operation of so
// many tokens, and retires the ones that are done.
func (s *Server) share(res hardware.Result, err error, tokens int) {
	for k, j := range s.batch {
		if err != nil {
			s.end(j, err)
			continue
		}
		out := res.Seqs[k]
		j.account(res.Usage, float64(j.seq.New)/float64(tokens))
		j.Context += j.seq.New
		if j.session {
			j.over = true
			j.Emit(out, res.Usage)
			j.Finish(nil)
			continue
		}
		if j.Todo -= min(j.Todo, j.seq.New); j.Todo > 0 {
			continue // a chunk of the prompt: its token means nothing
		}
		j.Left--
		done := j.Left <= 0 || out.End
		j.advance(out.Token)
		j.emit(out, res.Usage)
		if done {
			s.end(j, nil)
		}
	}
	if now := s.env.Now(); len(s.batch) > 0 && now > s.view.Now {
		s.view.Now = now
	}
}

func (s *Server) end(j *Job, err error) {
	j.over = true
	if j.Down != nil {
		j.Down.Settle(s.env.Now())
	}
	j.Finish(err)
}

// reindex takes the jobs that are over out of what runs, and keeps the indices
// of slices still to run true.
func (s *Server) reindex() {
	v := &s.view
	keep, left := v.Running[:0], s.slices[:0]
	shift, k := 0, 0
	for i, j := range v.Running {
		if k < len(s.slices) && s.slices[k].Job == i {
			if !j.over {
				left = append(left, Slice{i - shift, s.slices[k].Tokens})
			}
			k++
		}
		if j.over {
			shift++
			j.over = false
			continue
		}
		keep = append(keep, j)
	}
	s.slices = left
	clear(v.Running[len(keep):])
	v.Running = keep
}

// Free returns a sequence's KV memory and tells the device. Every job that was
// put must be freed once, after its Finish; a job that never entered holds
// nothing, and freeing it does nothing.
func (s *Server) Free(j *Job) {
	if !j.inside {
		return
	}
	j.inside, s.crowd.apart = false, false
	s.give(j)
	s.drop(j)
	if s.view.Bounded {
		s.queue.Put(nil)
		s.poke()
	}
}

func (s *Server) drop(j *Job) {
	s.one[0] = hardware.Seq{ID: j.ID}
	s.aside = hardware.Op{Kind: hardware.Drop, Model: j.Held.Model, Layers: j.Held.Span, Seqs: s.one[:]}
	_, _ = s.dev.Run(&s.aside)
}

func (j *Job) account(u hardware.Usage, part float64) {
	if j.admit < 0 {
		j.admit, j.arrived = u.Start, u.Arrived
	}
	if j.session || j.kind == hardware.Prefill && j.Left == j.Limit {
		j.first = u.End
	}
	j.last = u.End
	j.nano += nano(float64(u.Energy), part)
	j.flop += whole(float64(u.FLOP), part)
	if j.Steps++; j.Steps == 1 || u.Joules < j.Joules { // one unknown makes the sum unknown
		j.Joules = u.Joules
	}
}

// Admitted is when the job's first operation began, First when its prompt was
// done, Last when its last operation ended.
func (j *Job) Admitted() time.Duration { return j.admit }

// First is when the operation that ended the prompt ended.
func (j *Job) First() time.Duration { return j.first }

// Last is when the job's last operation ended.
func (j *Job) Last() time.Duration { return j.last }
