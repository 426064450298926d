package depot

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/tensor"
	"meibench/reference/token"
)

// Early is an answer that was begun before the model had come.
type Early struct {
	Text    string        `json:"text"`
	IDs     []int32       `json:"ids"`
	First   time.Duration `json:"first_ns"`   // from the call to the first token
	Fetched time.Duration `json:"fetched_ns"` // from the call to the whole, verified file at path
	Layers  []Layer       `json:"layers"`     // how the prompt passed
}

// Layer is when, from the call on, all that a layer needs had come, and when the prompt had passed it, loading it included.
type Layer struct {
	Came  time.Duration `json:"came_ns"`
	Began time.Duration `json:"began_ns"`
	Done  time.Duration `json:"done_ns"`
}

// arrivals knows how many blocks, counted from the first, are in the file.
type arrivals struct {
	mu   sync.Mutex
	cond *sync.Cond
	have []bool
	at   []time.Duration // when each came
	file *os.File
	err  error
}

// wait returns the file once blocks [0, n) are in it, or why they will not come.
func (a *arrivals) wait(n int) (*os.File, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.err == nil && slices.Contains(a.have[:n], false) {
		a.cond.Wait()
	}
	return a.file, a.err
}

// came is when the last of the first n blocks did.
func (a *arrivals) came(n int) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Max(a.at[:n])
}

// FetchRun fetches a model to path and answers a prompt greedily with at most most tokens. Each layer is loaded and run as
// soon as its blocks are there, so that the prompt has passed through the first layers while the last are on the way. The
// tokens are those of the model loaded as a whole.
func (c *Client) FetchRun(ctx context.Context, m *Model, path, prompt string, most int) (*Early, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	if most < 1 {
		return nil, fmt.Errorf("run %s: %d tokens: want 1 or more", m.Name, most)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	start := time.Now()
	a := &arrivals{have: make([]bool, len(m.Blocks)), at: make([]time.Duration, len(m.Blocks))}
	a.cond = sync.NewCond(&a.mu)
	out, ended, release := &Early{}, make(chan error, 1), make(chan struct{})
	go func() {
		err := c.fetch(ctx, m, path, func(i int, f *os.File) {
			a.mu.Lock()
			a.have[i], a.at[i], a.file = true, time.Since(start), f
			a.mu.Unlock()
			a.cond.Broadcast()
		}, func() { out.Fetched = time.Since(start); <-release })
		a.mu.Lock()
		a.err = err
		a.mu.Unlock()
		a.cond.Broadcast()
		ended <- err
	}()
	err := a.answer(m, prompt, most, out, start)
	close(release)
	if err != nil {
		stop()
	}
	if e := <-ended; e != nil {
		return nil, e
	}
	return out, err
}

// answer loads layers as they come, then decodes.
func (a *arrivals) answer(m *Model, prompt string, most int, out *Early, start time.Time) error {
	f, err := a.wait(a.before(m, 0))
	if err != nil {
		return err
	}
	g, err := gguf.Read(f, m.Bytes) // not by its name, which changes once all has come
	if err != nil {
		return err
	}
	tok, err := tokenizer(g)
	if err != nil {
		return err
	}
	cfg, err := llm.ReadConfig(g)
	if err != nil {
		return err
	}
	ids := tok.EncodePrompt(prompt)
	pool := tensor.NewPool(1)
	defer pool.Close()
	var spans []span
	var x []float32
	for l := range cfg.Layers {
		n := a.before(m, l+1)
		if _, err := a.wait(n); err != nil {
			return err
		}
		step := Layer{Came: a.came(n), Began: time.Since(start)}
		s, err := open(g, l, len(ids)+most, pool)
		if err != nil {
			return err
		}
		defer s.model.Close()
		if x, err = s.forward(ids, x); err != nil {
			return err
		}
		spans = append(spans, s)
		step.Done = time.Since(start)
		out.Layers = append(out.Layers, step)
	}
	for {
		id := llm.Greedy(x)
		if len(out.IDs) == 0 {
			out.First = time.Since(start)
		}
		if id == tok.EOS() {
			break
		}
		if out.IDs = append(out.IDs, id); len(out.IDs) == most {
			break
		}
		for _, s := range spans {
			if x, err = s.forward([]int32{id}, x); err != nil {
				return err
			}
		}
	}
	out.Text = tok.Decode(out.IDs)
	return nil
}

// before counts the blocks that layers below l need; the last layer needs all, for it has the head.
func (a *arrivals) before(m *Model, l int) int {
	last := m.Blocks[len(m.Blocks)-1].Layer
	n := 0
	for _, b := range m.Blocks {
		if b.Layer < l || l >= last {
			n++
		}
	}
	return n
}

func tokenizer(g *gguf.File) (*token.Tokenizer, error) {
	kv := make(map[string]any, len(g.KV))
	for _, e := range g.KV {
		kv[e.Key] = e.Value
	}
	meta, err := token.FromMap(kv)
	if err != nil {
		return nil, err
	}
	return token.New(meta)
}

// span is a model of one layer with its cache.
type span struct {
	l     int
	model *llm.Model
	work  *llm.Work
	cache *llm.Cache
}

func open(g *gguf.File, l, capacity int, pool *tensor.Pool) (s span, err error) {
	s.l = l
	if s.model, err = llm.FromFile(g, llm.ReadOptions{Lo: l, Hi: l + 1}); err != nil {
		return s, err
	}
	if err = s.model.Pack(1); err != nil {
		return s, err
	}
	s.work = s.model.NewWorkOn(pool)
	s.cache, err = s.model.NewCache(l, l+1, capacity)
	return s, err
}

// forward runs the layer for ids, or for hidden states unless it is the first.
func (s span) forward(ids []int32, x []float32) ([]float32, error) {
	seq := []llm.Seq{{Cache: s.cache}}
	if s.l == 0 {
		seq[0].IDs = ids
	} else {
		seq[0].Hidden = x
	}
	err := s.work.Forward(s.l, s.l+1, seq)
	return seq[0].Out, err
}
