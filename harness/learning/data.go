package learning

import (
	"fmt"
	"sync"

	"meibench/internal/rng"
	"meibench/reference/federate"
	"meibench/reference/token"
	"meibench/reference/train"
	"meibench/workloads/tasks"
)

// data is what clients have: questions of the train split, tokenised when they are first asked for.
type data struct {
	job    *Job
	tok    *token.Tokenizer
	apps   []tasks.Task
	shares [][]float64 // (clients, applications)

	mu   sync.Mutex
	kept map[int][]example // by client
}

// example is a question with its answer.
type example struct {
	ids    []int32
	prompt int
	app    int
	text   int // bytes of question and answer
}

func newData(j *Job, tok *token.Tokenizer) (*data, error) {
	d := &data{job: j, tok: tok, kept: map[int][]example{}}
	for _, a := range j.Apps {
		t, err := tasks.Lookup(a)
		if err != nil {
			return nil, err
		}
		d.apps = append(d.apps, t)
	}
	if j.Alpha > 0 {
		d.shares = federate.Dirichlet(j.Seed, j.Alpha, j.Clients, len(d.apps))
		return d, nil
	}
	even := make([]float64, len(d.apps))
	for i := range even {
		even[i] = 1 / float64(len(even))
	}
	for range j.Clients {
		d.shares = append(d.shares, even)
	}
	return d, nil
}

// example tokenises a question; tokens of the answer, and the end behind it, have a loss.
func (d *data) example(in tasks.Instance, app int) example {
	ids := d.tok.EncodePrompt(in.Prompt)
	prompt := len(ids)
	ids = append(append(ids, d.tok.Encode(in.Answer)...), d.tok.EOS())
	return example{ids, prompt, app, len(in.Prompt) + len(in.Answer)}
}

// of is the data of a client: the same in every run of a job. Applications are drawn by the client's shares.
func (d *data) of(client int) []example {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ok := d.kept[client]; ok {
		return e
	}
	out := make([]example, d.job.Samples)
	luck := rng.Stream(d.job.Seed, "learning", "data", client)
	for i := range out {
		app := d.pick(luck.Float64(), client)
		in := d.draw(app, d.job.Seed, client*d.job.Samples+i)
		if d.bad(client) && d.job.Attack == "noise" && luck.Float64() < d.job.Noisy {
			in.Answer = d.draw(app, d.job.Seed+1, client*d.job.Samples+i).Answer // somebody else's: well formed and wrong
		}
		out[i] = d.example(in, app)
	}
	if d.bad(client) && d.job.Attack == "copies" {
		for i := range out {
			out[i] = out[i%max(1, int(float64(len(out))*(1-d.job.Noisy)))]
		}
	}
	d.kept[client] = out
	return out
}

func (d *data) pick(u float64, client int) int {
	for app, share := range d.shares[client] {
		if u -= share; u < 0 {
			return app
		}
	}
	return len(d.apps) - 1
}

// draw is the nth question of an application that may be trained on.
func (d *data) draw(app int, seed uint64, n int) tasks.Instance {
	const tries = 256
	for try := range tries {
		in := d.apps[app].Generate(seed, n*tries+try)
		if in.Split == tasks.Train && (d.job.Levels == 0 || in.Level <= d.job.Levels) {
			return in
		}
	}
	panic(fmt.Sprintf("learning: no question of %s up to level %d among %d", d.apps[app].Name, d.job.Levels, tries))
}

// bad reports whether a client is one of the bad ones.
func (d *data) bad(client int) bool {
	k := rng.NewKey(d.job.Seed, "learning", "bad").At(uint64(client))
	return d.job.Bad > 0 && k.Float64() < d.job.Bad
}

// batch is what a client computes in a step: questions in an order of luck, all of them before one comes again.
func (d *data) batch(client, step int) *train.Batch {
	own := d.of(client)
	b := &train.Batch{}
	if d.job.Clip > 0 { // every question by its own luck, as the account of privacy wants it: so many in the mean, or none
		luck := rng.Stream(d.job.Seed, "learning", "poisson", client, step)
		for _, e := range own {
			if luck.Float64() < d.job.rate() {
				b.Add(e.ids, e.prompt, 0)
			}
		}
		return b
	}
	for i := range d.job.Batch {
		n := step*d.job.Batch + i
		pass := rng.Stream(d.job.Seed, "learning", "order", client, n/len(own))
		e := own[pass.Perm(len(own))[n%len(own)]]
		b.Add(e.ids, e.prompt, 0)
	}
	return b
}

// held are questions that nobody trains on, n of each application.
func (d *data) held(split tasks.Split, n int) [][]train.Batch {
	out := make([][]train.Batch, len(d.apps))
	for app, t := range d.apps {
		var b train.Batch
		for id, found := 0, 0; found < n; id++ {
			in := t.Generate(scoreSeed, id)
			if in.Split != split || d.job.Levels > 0 && in.Level > d.job.Levels {
				continue
			}
			e := d.example(in, app)
			b.Add(e.ids, e.prompt, 0)
			if found++; len(b.Lens) == scoreBatch || found == n {
				out[app] = append(out[app], b)
				b = train.Batch{}
			}
		}
	}
	return out
}

// scoreSeed draws the questions that models in training are scored on; scoreBatch of them are computed together.
const (
	scoreSeed  = 2028
	scoreBatch = 16
)
