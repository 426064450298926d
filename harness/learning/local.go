package learning

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"

	"meibench/hardware"
	"meibench/reference/train"
	"meibench/reference/update"
)

// Optimizers of clients: sgd keeps nothing, adamw begins anew in every round; mezo steps along random directions by two
// losses, fwd averages several of them (see package federate).
var Optimizers = []string{"adamw", "fwd", "mezo", "sgd"}

func zerothOrder(optimizer string) bool { return optimizer == "mezo" || optimizer == "fwd" }

// rule is a way to put updates together: what a client gets, what it sends, and what the server makes of it.
type rule interface {
	fresh() []float32                                            // what a server has at first
	open(v *server, client int) ([][]byte, error)                // the parts that a client gets
	begin(b *bench, client int, parts [][]byte) error            // sets the client's parameters
	finish(b *bench, l *lesson) ([][]byte, error)                // the parts of its update
	combine(v *server, st *hardware.Study, all []*message) error // changes the server's state
	load(b *bench, v *server) error                              // sets parameters to what the server has
	correct(b *bench, l *lesson, grad []float32)                 // changes a gradient before the step
}

// lesson is what a client does in a round.
type lesson struct {
	client, group, round int
	steps                int
	state                *client
	from                 *message
	loss                 float64  // summed over scored steps
	scored               int      // steps with questions
	scalars              []scalar // zeroth-order: what each step moved, along which direction
}

// scalar is a step along a direction that a seed stands for.
type scalar struct {
	seed uint32
	by   float32
}

// open is what the server sends a client.
func (s *School) open(st *hardware.Study) ([]byte, error) {
	v := s.server(st.Group)
	parts, err := s.rule.open(v, st.Client)
	if err != nil {
		return nil, err
	}
	m := message{Round: st.Round, Client: st.Client, Loss: math.NaN(), Parts: parts}
	return m.encode(), nil
}

// local trains a client from what the server sent, for Count steps, and returns its update. A second message is a Pass.
func (s *School) local(st *hardware.Study) ([]byte, error) {
	if len(st.In) != 1 && len(st.In) != 2 {
		return nil, fmt.Errorf("want the server's state, got %d messages", len(st.In))
	}
	if st.Round < 0 || st.Round > mostRounds || st.Step < 0 || st.Step > 1<<40 || st.Count < 0 || st.Count > 1<<20 {
		return nil, fmt.Errorf("%d steps from step %d: no round has these", st.Count, st.Step)
	}
	from, err := decode(st.In[0])
	if err != nil {
		return nil, err
	}
	c := s.client(st.Client)
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.last.round + 1
	if len(st.In) == 2 {
		if taken, err = s.admitted(st.In[1], taken); err != nil {
			return nil, err
		}
	}
	asked := sha256.Sum256(st.In[0])
	if c.last.reply != nil && c.last.round == st.Round && c.last.asked == asked {
		return c.last.reply, nil // the server was gone before it had put the round together
	}
	c.follow(taken)
	if !s.remember {
		return s.train(st, from, c)
	}
	before := c.keep()
	reply, err := s.train(st, from, c)
	if err != nil {
		c.take(before)
		return nil, err
	}
	c.before, c.counted, c.last = before, taken, said{st.Round, asked, reply}
	return reply, nil
}

// mostRounds is more than anybody runs.
const mostRounds = 1 << 30

// said is a client's last reply: a round asked for again gets it again, and changes nothing that the client keeps.
type said struct {
	round int
	asked [32]byte
	reply []byte
}

// kept is what of a client changes in a round.
type kept struct {
	Variate  []byte `json:",omitempty"`
	Residual []byte `json:",omitempty"`
	Own      []byte `json:",omitempty"`
}

func (c *client) keep() kept {
	k := kept{Variate: floats(c.variate), Own: floats(c.own)}
	if c.residual != nil {
		k.Residual = c.residual.Marshal()
	}
	return k
}

// take goes back to what was kept.
func (c *client) take(k kept) error {
	next := client{}
	for _, v := range []struct {
		to   *[]float32
		from []byte
	}{{&next.variate, k.Variate}, {&next.own, k.Own}} {
		if len(v.from) == 0 {
			continue
		}
		*v.to = make([]float32, len(v.from)/4)
		if err := unfloats(*v.to, v.from); err != nil {
			return err
		}
	}
	if len(k.Residual) > 0 {
		next.residual = &update.State{}
		if err := next.residual.Unmarshal(k.Residual); err != nil {
			return err
		}
	}
	c.variate, c.own, c.residual = next.variate, next.own, next.residual
	return nil
}

// follow brings what a client keeps to where the server is: if its last update did not count (it came too late, or the server died), to before it; if
// the server counts what this client does not know of, or began anew, to the beginning.
func (c *client) follow(taken int) {
	if c.last.reply == nil || taken == c.last.round+1 {
		return
	}
	back := kept{}
	if taken == c.counted {
		back = c.before
	}
	if c.take(back) != nil {
		panic("learning: what a client kept cannot be read") // it was read, or written, before
	}
}

// Remember has clients keep their last reply, for servers that may ask for a round again.
func (s *School) Remember() { s.remember = true }

// Pass is what a server sends a client on another machine beside its state: the digest of its job, and which of the client's updates was the last
// that counted; of a server that goes on before all have come, which one that was is not known yet.
func (s *School) Pass(group, client int, known bool) []byte {
	taken := uint32(math.MaxUint32)
	if known {
		taken = uint32(s.server(group).taken[client])
	}
	return binary.LittleEndian.AppendUint32(s.is[:len(s.is):len(s.is)], taken)
}

// admitted reads a Pass.
func (s *School) admitted(pass []byte, unknown int) (taken int, err error) {
	if len(pass) != len(s.is)+4 {
		return 0, fmt.Errorf("a pass of %d bytes, want %d", len(pass), len(s.is)+4)
	}
	if !bytes.Equal(pass[:len(s.is)], s.is[:]) {
		return 0, fmt.Errorf("the server's job has digest %.6x, this client's %.6x: give both the same file", pass, s.is[:])
	}
	if n := binary.LittleEndian.Uint32(pass[len(s.is):]); n != math.MaxUint32 {
		return int(n), nil
	}
	return unknown, nil
}

// train is local, when it is asked for the first time.
func (s *School) train(st *hardware.Study, from *message, c *client) ([]byte, error) {
	return s.with(s.rankOf(st.Client), func(b *bench) ([]byte, error) {
		if err := s.rule.begin(b, st.Client, from.Parts); err != nil {
			return nil, err
		}
		b.start = append(b.start[:0], b.params.Flat...)
		l := &lesson{client: st.Client, group: st.Group, round: st.Round, steps: st.Count, state: c, from: from}
		if err := s.steps(b, l, st.Step); err != nil {
			return nil, err
		}
		parts, err := s.rule.finish(b, l)
		if err != nil {
			return nil, err
		}
		_, samples := s.Data(st.Client)
		if s.job.Attack == "count" && s.data.bad(st.Client) {
			samples *= 10
		}
		m := message{Round: st.Round, Client: st.Client, Samples: samples, Loss: l.loss / float64(max(1, l.scored)), Parts: parts}
		return m.encode(), nil
	})
}

// rankOf is the rank of a client's adapters.
func (s *School) rankOf(client int) int {
	ranks := ranksOf(&s.job)
	return ranks[client%len(ranks)]
}

// steps takes the steps of a round; the first is number from of the client's life.
func (s *School) steps(b *bench, l *lesson, from int) error {
	opt := train.NewAdamW(b.params)
	opt.Decay = 0
	for i := range l.steps {
		batch := s.data.batch(l.client, from+i)
		if zerothOrder(s.job.Optimizer) {
			s.probe(b, l, batch, from+i)
			continue
		}
		loss, grad := s.gradient(b, l, batch, from+i)
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return fmt.Errorf("step %d: the loss is %g: the learning rate %g is too large, or what came is no model", i, loss, s.job.Rate)
		}
		if l.loss += loss; len(batch.Lens) > 0 {
			l.scored++
		}
		s.rule.correct(b, l, grad.Flat)
		if s.job.Optimizer == "sgd" {
			rate := float32(s.job.Rate)
			for i, g := range grad.Flat {
				b.params.Flat[i] -= float32(rate * g)
			}
			continue
		}
		opt.Step(b.params, grad, s.job.Rate)
	}
	return nil
}

// gradient is that of a batch, or, under differential privacy, the noisy mean of those of its questions, each cut to length.
func (s *School) gradient(b *bench, l *lesson, batch *train.Batch, step int) (loss float64, grad *train.Params) {
	if s.job.Clip == 0 {
		return b.learner.Gradient([]train.Batch{*batch})
	}
	return s.private(b, l, batch, step)
}

// keptClient is a client's state, as a file has it.
type keptClient struct {
	Format  string
	Job     string // digest
	Now     kept
	Before  kept
	Counted int
	Round   int
	Asked   []byte `json:",omitempty"`
	Reply   []byte `json:",omitempty"`
}

const clientFormat = "meibench/client/1"

// KeepClient is a client's state as bytes; TakeClient goes on with it, in a process that was started again.
func (s *School) KeepClient(id int) ([]byte, error) {
	c := s.client(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	return seal(&keptClient{clientFormat, s.job.Digest(), c.keep(), c.before, c.counted, c.last.round, c.last.asked[:], c.last.reply})
}

// TakeClient sets a client's state to what KeepClient wrote. If it cannot, the state is as it was.
func (s *School) TakeClient(id int, b []byte) error {
	var k keptClient
	if err := unseal(b, &k); err != nil {
		return fmt.Errorf("read the state of client %d: %w", id, err)
	}
	if k.Format != clientFormat || len(k.Asked) != sha256.Size {
		return fmt.Errorf("read the state of client %d: format %q, want %q", id, k.Format, clientFormat)
	}
	if k.Job != s.job.Digest() {
		return fmt.Errorf("read the state of client %d: it is of another job: choose another folder, or remove it", id)
	}
	c := s.client(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	err := (&client{}).take(k.Before)
	if err == nil {
		err = c.take(k.Now)
	}
	if err != nil {
		return fmt.Errorf("read the state of client %d: %w", id, err)
	}
	c.before, c.counted, c.last = k.Before, k.Counted, said{round: k.Round, reply: k.Reply}
	copy(c.last.asked[:], k.Asked)
	return nil
}
