package learning

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"sync"

	"meibench/hardware"
	"meibench/internal/units"
	"meibench/reference/federate"
	"meibench/reference/llm"
	"meibench/reference/quant"
	"meibench/reference/token"
	"meibench/reference/train"
	"meibench/reference/update"
	"meibench/workloads/tasks"
)

// School is the trainer of a job: the states of all clients and servers that are on this machine.
type School struct {
	job  Job
	is   [sha256.Size]byte // digest of the job
	data *data
	raw  *llm.Model    // the base as it came
	base *train.Params // all weights in F32, of which methods share what they do not train; rules that merge change it
	from *llm.Model    // what methods are laid on: base, or a quantised copy

	mu       sync.Mutex
	clients  map[int]*client
	servers  map[int]*server
	benches  map[int]chan *bench // by rank; of as many as may work at a time
	hands    int
	threads  int
	rule     rule
	remember bool
	whole    bool // updates travel as they are
	scorer   *bench
	exams    map[tasks.Split][][]train.Batch

	splits splits
	stages stages
	adam   *train.AdamW // of training on pooled data
}

// client is what a device keeps of a client from round to round.
type client struct {
	mu       sync.Mutex
	variate  []float32     // SCAFFOLD
	residual *update.State // of the code: what was not sent yet
	own      []float32     // FedSA: factors that stay
	last     said
	before   kept // what it had before last
	counted  int  // the server's word on what counted, before last; see Pass
	synced   int  // rules that change the base: the changes that it has
}

// server is what a node that aggregates keeps.
type server struct {
	global  []float32 // what is tuned
	variate []float32 // SCAFFOLD
	opt     *federate.Server
	weight  float64   // questions behind global since the last meeting
	errors  []float64 // of aggregation, by round
	refused []refusal
	taken   map[int]int // by client: 1 + the round of its last update that counted
}

// refusal is an update that the server did not take.
type refusal struct {
	client int
	why    error
}

// bench is memory to train one client with.
type bench struct {
	params  *train.Params
	learner *train.Learner
	first   []float32 // what training begins with
	start   []float32
	spare   []float32
}

// Options are of the machine, not of the job.
type Options struct {
	Hands   int // studies at a time
	Threads int // of each
}

// New sets a job up on a base whose tokenizer is tok. The base is read, not changed; if it is quantised and the method leaves it alone, it stays so.
func New(j Job, base *llm.Model, tok *token.Tokenizer, o Options) (*School, error) {
	if err := j.check(); err != nil {
		return nil, err
	}
	s := &School{job: j, is: sha256.Sum256(j.text()), raw: base, clients: map[int]*client{}, servers: map[int]*server{}, benches: map[int]chan *bench{}, hands: max(1, o.Hands), threads: max(1, o.Threads), exams: map[tasks.Split][][]train.Batch{}}
	var err error
	if s.data, err = newData(&s.job, tok); err != nil {
		return nil, err
	}
	if s.base, err = train.From(base); err != nil {
		return nil, err
	}
	s.from = s.base.Model
	if j.Base != "" && j.Base != "f32" {
		t, err := quant.Parse(j.Base)
		if err != nil {
			return nil, err
		}
		if !frozen(j.Method.Kind) || merges(j.Rule) {
			return nil, fmt.Errorf("set up training: a base in %s stays as it is, method %s with rule %s changes it: choose base f32", j.Base, j.Method.Kind, j.Rule)
		}
		if s.from, err = base.As(t); err != nil {
			return nil, fmt.Errorf("set up training: %w", err)
		}
	}
	for range s.hands {
		if err := s.addBench(j.Method.Rank, s.threads); err != nil {
			return nil, err
		}
	}
	if s.scorer, err = s.bench(j.Method.Rank, s.hands*s.threads); err != nil {
		return nil, err
	}
	s.rule, err = newRule(s)
	return s, err
}

// frozen reports whether a method leaves the matrices of the base alone.
func frozen(kind string) bool { return !slices.Contains([]string{"full", "layers"}, kind) }

func (s *School) addBench(rank, threads int) error {
	b, err := s.bench(rank, threads)
	if err != nil {
		return err
	}
	if s.benches[rank] == nil {
		s.benches[rank] = make(chan *bench, s.hands)
	}
	s.benches[rank] <- b
	return nil
}

func (s *School) bench(rank, threads int) (*bench, error) {
	m := s.job.Method
	m.Rank = rank
	p, err := train.Tune(s.from, m, s.job.Seed)
	if err != nil {
		return nil, err
	}
	l, err := train.NewLearner(p, threads)
	if err == nil {
		l.Recompute = s.job.Recompute
	}
	return &bench{params: p, learner: l, first: slices.Clone(p.Flat)}, err
}

// with lends a bench, when one is free.
func (s *School) with(rank int, do func(b *bench) ([]byte, error)) ([]byte, error) {
	b := <-s.benches[rank]
	defer func() { s.benches[rank] <- b }()
	return do(b)
}

// client is the state of a client, made when it is first asked for.
func (s *School) client(id int) *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[id]
	if c == nil {
		c = &client{}
		s.clients[id] = c
	}
	return c
}

// server is the state of a group's server, which begins where the method begins.
func (s *School) server(group int) *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.servers[group]
	if v == nil {
		v = &server{global: s.rule.fresh(), taken: map[int]int{}}
		if top := s.servers[-1]; top != nil {
			v.global = slices.Clone(top.global)
		}
		s.servers[group] = v
	}
	return v
}

// Train does what a study says; see hardware.Trainer.
func (s *School) Train(st *hardware.Study) ([]byte, error) {
	verbs := map[string]func(*hardware.Study) ([]byte, error){
		"open": s.open, "local": s.local, "combine": s.combine, "state": s.state, "meet": s.meet, "adopt": s.adopt,
		"central": s.central, "stage": s.stage, "stageback": s.stageBack, "update": s.update,
		"give": s.give, "take": s.take, "front": s.front, "middle": s.middle, "back": s.back, "body": s.body, "tail": s.tail, "bodyback": s.bodyBack, "halves": s.halves,
	}
	do := verbs[st.Verb]
	if do == nil {
		return nil, fmt.Errorf("train: nobody knows how to %q", st.Verb)
	}
	if n := s.takers(st.Verb); st.Client < 0 || st.Client >= n {
		return nil, fmt.Errorf("train: %s: number %d of %d", st.Verb, st.Client, n)
	}
	reply, err := do(st)
	if err != nil {
		return nil, fmt.Errorf("%s, client %d, round %d: %w", st.Verb, st.Client, st.Round, err)
	}
	return reply, nil
}

// takers is how many there are to be asked: clients, or stages of devices in a row.
func (s *School) takers(verb string) int {
	if verb == "stage" || verb == "stageback" || verb == "update" {
		return len(s.stages.all)
	}
	return s.job.Clients
}

// Trainer is the school.
func (s *School) Trainer() hardware.Trainer { return s }

// Lens are the tokens of each sequence of a client's step.
func (s *School) Lens(client, step int) []int { return s.data.batch(client, step).Lens }

// Data is the size of a client's data as text.
func (s *School) Data(client int) (bytes units.Bytes, samples int) {
	for _, e := range s.data.of(client) {
		bytes += units.Bytes(e.text)
	}
	return bytes, len(s.data.of(client))
}

// Loss is what a client's reply says of its own.
func (s *School) Loss(reply []byte) float64 {
	if m, err := decode(reply); err == nil && likely(m.Loss) {
		return m.Loss
	}
	return 0
}

// likely reports whether a number may be a loss.
func likely(loss float64) bool { return loss >= 0 && loss < 1e9 }

// Sizes are those of dense states and updates; a trainer's messages have their own.
func (s *School) Sizes(int) (down, up units.Bytes) {
	n := units.Bytes(headBytes + 4 + 4*len(s.scorer.params.Flat))
	return n, n
}

// Trained is how many numbers the method trains, and of how many.
func (s *School) Trained() (n, of int) { return len(s.scorer.params.Flat), len(s.base.Flat) }

// Held is the memory of training beside weights.
func (s *School) Held(span hardware.Span, tokens int) units.Bytes {
	return held(s.base.Model.Config, &s.job, span, tokens, len(s.scorer.params.Flat))
}

// SplitSizes are those of a split.
func (s *School) SplitSizes(tokens int) (up, down, half units.Bytes) {
	c := s.splits.cut
	n := 0
	for _, where := range s.clientSides() {
		if v, err := s.side(0, 0, where); err == nil {
			n += len(gathered(nil, v))
		}
	}
	acts := units.Bytes(headBytes + 4 + s.wireCodec().Bytes(tokens, s.base.Model.Dim))
	up, down, half = acts+4, acts, units.Bytes(headBytes+4+4*n)
	if !c.Tail {
		up += units.Bytes(4 + 8*tokens)
	}
	return up, down, half
}

// Passes is the work of a step.
func (s *School) Passes() (forward, backward float64) { return passes(&s.job) }

// passes counts forward passes of a step: beside a frozen base the gradients of its weights are not worked out.
func passes(j *Job) (forward, backward float64) {
	switch {
	case zerothOrder(j.Optimizer):
		return 2 * float64(max(1, j.Probes)), 0
	case frozen(j.Method.Kind):
		forward, backward = 1, 1
	default:
		forward, backward = 1, 2
	}
	if j.Recompute {
		backward++
	}
	return forward, backward
}

// held counts gradients, the state of the optimiser, and activations of a span: per layer its input, two norms, queries, keys, values,
// what attention makes, the three rows of the feed-forward network, all in F32, as package train keeps them; attention weights are left out.
func held(c llm.Config, j *Job, span hardware.Span, tokens, trained int) units.Bytes {
	states := map[string]int{"sgd": 1, "adamw": 3}[j.Optimizer]
	share := float64(span.Len()) / float64(c.Layers)
	n := float64(4*states*trained) * share
	if !zerothOrder(j.Optimizer) {
		perLayer, layers := 4*c.Dim+2*c.QDim()+2*c.KVDim()+3*c.FFN, span.Len()
		if j.Recompute { // the inputs of all, and the rest of one
			n += 4 * float64(tokens) * float64(c.Dim*layers)
			layers = min(layers, 1)
		}
		n += 4 * float64(tokens) * float64(perLayer*layers)
	}
	return units.Bytes(math.Ceil(n))
}

// Score is how good what the top server, or the first, has tuned is on questions that nobody trains on: n of each application.
type Score struct {
	Loss  float64   // mean over applications, nats per token
	Exact float64   // share of questions answered right, mean over applications
	Apps  []float64 // exact match of each application
	Worst float64   // of the client whose mix of applications fares worst
}

// Score scores on a split.
func (s *School) Score(split tasks.Split, n int) (Score, error) {
	group := 0
	if s.servers[-1] != nil {
		group = -1
	}
	return s.scoreOf(s.server(group), split, n)
}

func (s *School) scoreOf(v *server, split tasks.Split, n int) (Score, error) {
	exams := s.exams[split]
	if exams == nil {
		exams = s.data.held(split, n)
		s.exams[split] = exams
	}
	if own := s.personal(); len(own) > 0 {
		return s.meanScore(own, v, exams)
	}
	if err := s.rule.load(s.scorer, v); err != nil {
		return Score{}, err
	}
	return s.marks(exams), nil
}

// mostPersonal is how many clients are scored where each has a model of its own.
const mostPersonal = 8

// personal are the first clients with factors that stay with them.
func (s *School) personal() (ids []int) {
	for id := range s.job.Clients {
		if c := s.clients[id]; c != nil && c.own != nil && len(ids) < mostPersonal {
			ids = append(ids, id)
		}
	}
	return ids
}

// meanScore is the mean over clients with models of their own.
func (s *School) meanScore(ids []int, v *server, exams [][]train.Batch) (Score, error) {
	out := Score{Apps: make([]float64, len(exams)), Worst: 1}
	share := 1 / float64(len(ids))
	for _, id := range ids {
		parts, err := s.rule.open(v, id)
		if err != nil {
			return Score{}, err
		}
		if err := s.rule.begin(s.scorer, id, parts); err != nil {
			return Score{}, err
		}
		one := s.marks(exams)
		out.Loss, out.Exact, out.Worst = out.Loss+share*one.Loss, out.Exact+share*one.Exact, min(out.Worst, one.Worst)
		for i, a := range one.Apps {
			out.Apps[i] += share * a
		}
	}
	return out, nil
}

// marks scores what the scorer's bench has.
func (s *School) marks(exams [][]train.Batch) Score {
	out := Score{Worst: 1}
	for _, exam := range exams {
		loss, exact := s.scorer.learner.Evaluate(exam)
		right, asked := 0, 0
		for _, batch := range exact {
			for _, hit := range batch {
				asked++
				if hit {
					right++
				}
			}
		}
		share := float64(right) / float64(max(1, asked))
		out.Apps = append(out.Apps, share)
		out.Loss += loss / float64(len(exams))
		out.Exact += share / float64(len(exams))
	}
	for _, shares := range s.data.shares {
		mean := 0.0
		for app, share := range shares {
			mean += share * out.Apps[app]
		}
		out.Worst = min(out.Worst, mean)
	}
	return out
}

// Adapter is what the top server has tuned, as parameters that share the base.
func (s *School) Tuned() *train.Params {
	group := 0
	if s.servers[-1] != nil {
		group = -1
	}
	if err := s.rule.load(s.scorer, s.server(group)); err != nil {
		panic(err) // it was loaded before
	}
	return s.scorer.params
}
