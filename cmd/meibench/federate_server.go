package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"meibench/hardware"
	"meibench/hardware/agent"
	"meibench/hardware/kernel"
	"meibench/hardware/world"
	"meibench/harness"
	"meibench/harness/learning"
	"meibench/harness/pipeline"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/workloads"
	"meibench/workloads/tasks"
)

// federation is a server at work. What changes in rounds is guarded by the turn of its world.
type federation struct {
	*federateFlags
	a        *app
	model    *harness.Model
	school   *learning.School
	pipe     pipeline.Pipeline
	params   pipeline.Params
	env      *world.Real
	stations []*station
	next     int    // round
	picks    []byte // of the checkpoint: what the choice of clients rests on
	untuned  learning.Score
	lines    []federateRound
	tally    []clientLine

	asked  map[int]bool   // clients of this round, and whether they are still at it
	absent map[int]string // of this round: why
}

// station is an agent, and what it said of itself.
type station struct {
	address string
	dev     *agent.Device
	known   bool // it has told its roster
	stale   bool // it has failed since
	roster
}

// remark is what a round says of a client.
type remark struct {
	Client int    `json:"client"`
	Why    string `json:"why"`
}

// federateRound is what a round came to.
type federateRound struct {
	Round        int      `json:"round"`
	Participants int      `json:"participants"` // whose updates counted
	Absent       []remark `json:"absent"`
	Refused      []remark `json:"refused"`
	Loss         float64  `json:"loss_nat"`
	Seconds      float64  `json:"sec"`
	UpBytes      int64    `json:"up_bytes"`   // of updates
	DownBytes    int64    `json:"down_bytes"` // of states
	WireReceived int64    `json:"wire_received_bytes"`
	WireSent     int64    `json:"wire_sent_bytes"`
}

// clientLine is what became of a client over all rounds of this process.
type clientLine struct {
	Client  int    `json:"client"`
	Agent   string `json:"agent"`
	Counted int    `json:"counted"`
	Absent  int    `json:"absent"`
	Refused int    `json:"refused"`
	Last    string `json:"last_reason"`
}

// goOn sets the server to its checkpoint, if there is one, after it has scored the base.
func (s *federation) goOn() (err error) {
	if s.untuned, err = s.school.Score(tasks.Test, s.params.Int("score")); err != nil {
		return err
	}
	if s.checkpoint == "" {
		return nil
	}
	b, err := os.ReadFile(s.checkpoint)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		s.next, s.picks, err = s.school.Restore(b)
	}
	if err != nil {
		return fmt.Errorf("--checkpoint %s: %w", s.checkpoint, err)
	}
	s.say("going on with round %d of %d from %s", s.next, s.rounds, s.checkpoint)
	return nil
}

func (s *federation) say(format string, args ...any) {
	if !s.a.quiet {
		fmt.Fprintf(s.a.err, format+"\n", args...)
	}
}

// connect makes the site: this machine aggregates, each user's device is an agent's. Agents that are down now may join later, if one is there.
func (s *federation) connect() error {
	cred := agent.Credentials{Insecure: s.insecure}
	if s.certs != "" {
		cred = agent.InDir(s.certs)
	}
	config := func(address string) agent.Config {
		return agent.Config{Name: "client agent", Address: address, Models: []*hardware.Model{s.model.Spec}, Credentials: cred, Version: version(), Timeout: s.timeout}
	}
	var down []error
	var known *agent.Known
	for _, address := range s.agents {
		d, err := agent.Dial(s.env, config(address))
		if err != nil && !errors.Is(err, hardware.ErrDown) {
			return withCode(exitUsage, fmt.Errorf("agent %s: %w", address, err))
		}
		if err != nil {
			down = append(down, fmt.Errorf("agent %s: %w", address, err))
		} else if k := d.Known(); known == nil {
			known = &k
		}
		s.stations = append(s.stations, &station{address: address, dev: d})
	}
	if known == nil {
		return withCode(exitEnvironment, errors.Join(down...))
	}
	for _, err := range down {
		s.say("not there yet: %v", err)
	}
	for _, st := range s.stations {
		if st.dev != nil {
			continue
		}
		c := config(st.address)
		c.Known = known
		var err error
		if st.dev, err = agent.Dial(s.env, c); err != nil {
			return withCode(exitEnvironment, fmt.Errorf("agent %s: %w", st.address, err))
		}
	}
	here, err := kernel.New(s.env, kernel.Config{Name: "server", Models: []kernel.Loaded{s.model.Loaded()}, Threads: harness.HostThreads()})
	if err != nil {
		return err
	}
	site := &hardware.Site{Name: "federation", Nodes: []hardware.Node{{Name: "server", Role: hardware.EdgeRole, Device: here}}}
	users := map[int]*hardware.User{}
	site.NewUser = func(id int) *hardware.User {
		if users[id] == nil {
			users[id] = &hardware.User{ID: id, Device: &pupil{s, id}, Up: agent.NewLink(s.env, fmt.Sprint("up ", id)), Down: agent.NewLink(s.env, fmt.Sprint("down ", id))}
		}
		return users[id]
	}
	if err := s.pipe.Start(s.env, site, pipeline.Models{Main: s.model.Spec, Class: s.school, Seed: s.school.Job().Seed}); err != nil {
		return withCode(exitUsage, err)
	}
	if s.picks != nil {
		err = s.pipe.(rememberer).Remember(s.picks)
	}
	return withCode(exitUsage, err)
}

// rememberer is a pipeline that goes on where another was.
type rememberer interface {
	Memory() []byte
	Remember(b []byte) error
}

// all runs the rounds that are left.
func (s *federation) all(ctx context.Context) error {
	if err := s.rollCall(); err != nil {
		return withCode(exitUsage, err)
	}
	if err := s.keep(); err != nil { // now, not after the first round's work
		return withCode(exitEnvironment, err)
	}
	tries := 0
	for s.next < s.rounds {
		line, err := s.round()
		if ctx.Err() != nil {
			return withCode(exitInterrupted, ctx.Err())
		}
		if tries++; err != nil && tries >= s.tries {
			return withCode(exitIncomplete, fmt.Errorf("round %d came to nothing %d times, the last time because: %w", s.next, tries, err))
		}
		if err != nil {
			s.say("round %d: %v: asking again in %v", s.next, err, s.retryWait)
			s.env.Sleep(s.retryWait)
			continue
		}
		tries = 0
		s.lines = append(s.lines, *line)
		s.next++
		if err := s.keep(); err != nil {
			return withCode(exitEnvironment, err)
		}
		s.say("round %d: %d of %d clients, %d absent, %d refused, loss %.4f, %d B up, %d B down, %.2f s", line.Round, line.Participants, line.Participants+len(line.Absent)+len(line.Refused),
			len(line.Absent), len(line.Refused), line.Loss, line.UpBytes, line.DownBytes, line.Seconds)
	}
	return nil
}

// round does one, and says who was left out of it and why.
func (s *federation) round() (*federateRound, error) {
	clear(s.asked)
	clear(s.absent)
	log := record.Request{}
	begun := s.env.Now()
	log.Reset(s.next, begun)
	told := len(s.school.Refusals(0))
	sent, received := s.traffic()
	err := s.pipe.Handle(&workloads.Request{ID: s.next}, &log)
	line := &federateRound{Round: s.next, Loss: float64(log.Counts[record.LossMicro]) / 1e6, Seconds: (s.env.Now() - begun).Seconds(),
		UpBytes: int64(log.UpBytes), DownBytes: int64(log.DownBytes), Absent: []remark{}, Refused: []remark{}}
	for id := range s.tally {
		if at, in := s.asked[id]; at { // it had not answered when the round went on
			s.absent[id] = "no update by the deadline"
		} else if in && s.absent[id] == "" && err == nil {
			s.tally[id].Counted++
		}
	}
	for _, r := range s.school.Refusals(told) {
		if err == nil {
			s.tally[r.Client].Counted--
		}
		line.Refused = append(line.Refused, remark{r.Client, r.Why.Error()})
		s.tally[r.Client].Refused++
		s.tally[r.Client].Last = r.Why.Error()
		s.say("refused: client %d: %v", r.Client, r.Why)
	}
	for _, id := range slices.Sorted(maps.Keys(s.absent)) {
		line.Absent = append(line.Absent, remark{id, s.absent[id]})
		s.tally[id].Absent++
		s.tally[id].Last = s.absent[id]
		s.say("absent: client %d: %s", id, s.absent[id])
	}
	line.Participants = int(log.Counts[record.Participants]) - len(line.Refused)
	sent2, received2 := s.traffic()
	line.WireSent, line.WireReceived = int64(sent2-sent), int64(received2-received)
	return line, err
}

// traffic is what has passed on all connections, below gRPC and TLS.
func (s *federation) traffic() (sent, received units.Bytes) {
	for _, st := range s.stations {
		t := st.dev.Peer().Traffic
		sent, received = sent+t.Sent, received+t.Received
	}
	return sent, received
}

// keep writes the checkpoint.
func (s *federation) keep() error {
	if s.checkpoint == "" {
		return nil
	}
	b, err := s.school.Checkpoint(s.next, s.pipe.(rememberer).Memory())
	if err == nil {
		err = writeWhole(s.checkpoint, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("--checkpoint: %w", err)
	}
	return nil
}

func (s *federation) close() {
	for _, st := range s.stations {
		st.dev.Close()
	}
}

// tell prints what came of it, and writes the adapter.
func (s *federation) tell() error {
	score, err := s.school.Score(tasks.Test, s.params.Int("score"))
	if err != nil {
		return err
	}
	if s.out != "" {
		var b bytes.Buffer
		if err := s.school.Tuned().LoRA().Write(&b, s.model.Weights.Arch); err != nil {
			return err
		}
		if err := writeWhole(s.out, b.Bytes(), 0o644); err != nil {
			return withCode(exitEnvironment, fmt.Errorf("--out: %w", err))
		}
	}
	if s.a.json {
		e := json.NewEncoder(s.a.out)
		e.SetIndent("", "  ")
		return e.Encode(map[string]any{"rounds": s.lines, "clients": s.tally, "exact": score.Exact, "exact_untuned": s.untuned.Exact, "loss_nat": score.Loss, "adapter": s.out})
	}
	w := tabwriter.NewWriter(s.a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "client\tagent\tcounted\tabsent\trefused\tlast reason")
	for _, c := range s.tally {
		fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%d\t%s\n", c.Client, c.Agent, c.Counted, c.Absent, c.Refused, strings.ReplaceAll(c.Last, "\n", " "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(s.a.out, "%d rounds; %.1f %% of held-out questions right (%.1f %% untuned), loss %.4f nats per token\n", s.rounds, 100*score.Exact, 100*s.untuned.Exact, score.Loss)
	if s.out != "" {
		fmt.Fprintf(s.a.out, "adapter: %s\n", s.out)
	}
	return nil
}

// rollCall asks all agents that are there for whom they answer: a job that differs, or a client that nobody answers for, ends it here.
func (s *federation) rollCall() error {
	for _, st := range s.stations {
		err := s.enrol(st)
		if errors.Is(err, hardware.ErrDown) {
			continue
		}
		if err != nil {
			return fmt.Errorf("agent %s: %w", st.address, err)
		}
		who := "all clients"
		if !st.All {
			who = "clients " + ranges(st.Clients)
		}
		s.say("agent %s answers for %s", st.address, who)
	}
	for id := range s.tally {
		if _, err := s.home(id); err != nil && !errors.Is(err, hardware.ErrDown) {
			return err
		}
	}
	return nil
}

// enrol asks an agent for its roster.
func (s *federation) enrol(st *station) error {
	if !st.dev.Spec().Ops.Has(hardware.TrainStep) {
		return errors.New("it trains nothing: start it with --train JOB")
	}
	job, err := json.Marshal(s.school.Job())
	if err != nil {
		return err
	}
	res, err := st.dev.Run(&hardware.Op{Kind: hardware.Aggregate, Model: s.model.Spec, Layers: s.model.Spec.All(), Study: &hardware.Study{Verb: enrol, In: [][]byte{job}}})
	if err != nil {
		return err
	}
	var r roster
	if err := json.Unmarshal(res.Seqs[0].Hidden.Data, &r); err != nil {
		return fmt.Errorf("read its roster: %w", err)
	}
	st.known, st.stale, st.roster = true, false, r
	return nil
}

// home is the agent of a client: the one that names it, or else, of those that were told no names, the one whose turn it is.
func (s *federation) home(id int) (*station, error) {
	if st := s.named(id); st != nil {
		return st, s.again(st)
	}
	var missing error
	for _, st := range s.stations {
		if !st.known {
			if err := s.enrol(st); err != nil {
				missing = fmt.Errorf("agent %s: %w", st.address, err)
			}
		}
	}
	if st := s.named(id); st != nil {
		return st, nil
	}
	for i := range s.stations {
		st := s.stations[(id+i)%len(s.stations)]
		if !st.known {
			return nil, missing // it may be the client's: nobody else stands in
		}
		if st.All {
			return st, s.again(st)
		}
	}
	return nil, fmt.Errorf("no agent answers for client %d of %d: start one with --clients %d", id, len(s.tally), id)
}

// named is the agent that names a client.
func (s *federation) named(id int) *station {
	for _, st := range s.stations {
		if st.known && !st.All && slices.Contains(st.Clients, id) {
			return st
		}
	}
	return nil
}

// again asks an agent that failed for its roster again: it may have been started with another job.
func (s *federation) again(st *station) error {
	if !st.stale {
		return nil
	}
	return s.enrol(st)
}

// pupil is a client's device: that of its agent.
type pupil struct {
	s  *federation
	id int
}

// Spec is what every client can do.
func (p *pupil) Spec() hardware.DeviceSpec {
	return hardware.DeviceSpec{Name: fmt.Sprint("client ", p.id), Slots: 1, Ops: hardware.Set(hardware.TrainStep), Time: hardware.Measured}
}

// Run has the client train, and notes why it did not.
func (p *pupil) Run(op *hardware.Op) (hardware.Result, error) {
	s := p.s
	round := s.next
	s.asked[p.id] = true
	st, err := s.home(p.id)
	var res hardware.Result
	if err == nil {
		s.tally[p.id].Agent = st.address
		study := *op.Study
		study.In = [][]byte{study.In[0], s.school.Pass(study.Group, p.id, s.params.Int("buffer") == 0)}
		ours := *op
		ours.Study = &study
		res, err = st.dev.Run(&ours)
	}
	if err != nil {
		s.school.Forget(p.id)
		if st != nil {
			st.stale = true
		}
	}
	if round != s.next || !s.asked[p.id] {
		return res, err // the round went on without it
	}
	s.asked[p.id] = false
	if err != nil {
		s.absent[p.id] = err.Error()
	}
	return res, err
}
