package harness

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/kernel"
	"meibench/hardware/netem"
	"meibench/hardware/world"
	"meibench/harness/pipeline"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
	"meibench/workloads"
)

// unshaped lets every message go at once: what is left is the loopback.
type unshaped struct{}

func (unshaped) Next(now time.Duration, _ units.Bytes) (hardware.Transit, error) {
	return hardware.Transit{Start: now, Sent: now, Arrive: now}, nil
}

// BenchmarkSplitOverhead is what a split costs beyond its link: a model whole on one
// kernel device, and cut in two over unshaped loopback sockets with F32 activations,
// decoding one token after the other. Requests take turns, so that a drift of the
// machine falls on both, and medians over requests count. whole and split are the
// time of a decode step, link is the part of the latter on the links, and share is
// what remains of it over the whole model's: 1 = nothing is lost.
func BenchmarkSplitOverhead(b *testing.B) {
	for _, name := range []string{"mei-nano", "mei-small", "random-42m"} {
		model, err := splittable(name)
		require.NoError(b, err)
		b.Run("model="+name, func(b *testing.B) {
			whole, split, link, err := decodes(model, b.N)
			require.NoError(b, err)
			b.ReportMetric(0, "ns/op") // of a pair of requests: no figure of interest
			b.ReportMetric(whole, "whole-sec/token")
			b.ReportMetric(split, "split-sec/token")
			b.ReportMetric(link, "link-sec/token")
			b.ReportMetric((split-link)/whole, "share")
		})
	}
}

// splittable is a shipped model, or one with random weights in q8_0 that is large
// enough for its matrices to count.
func splittable(name string) (*Model, error) {
	if name != "random-42m" {
		return (&Lab{}).Model(name)
	}
	w, err := llm.New(llm.Config{Arch: "llama", Layers: 12, Dim: 512, Heads: 8, KVHeads: 4, FFN: 1536, Vocab: 8192, Context: 256, Tied: true}, 1)
	if err != nil {
		return nil, err
	}
	if w, err = w.As(quant.Q8_0); err != nil {
		return nil, err
	}
	return &Model{Spec: Shape(name, w), Weights: w}, w.Pack(HostThreads())
}

// decodes answers n requests by either pipeline in turn and returns the median times
// of a decode step, in seconds.
func decodes(m *Model, n int) (whole, split, link float64, err error) {
	env := world.NewReal(context.Background())
	site, err := loopback(env, m)
	if err != nil {
		return 0, 0, 0, err
	}
	var pipes []pipeline.Pipeline
	for _, name := range []string{"local", "split"} {
		entry, err := pipeline.Find(name)
		if err != nil {
			return 0, 0, 0, err
		}
		params, err := entry.Resolve(nil)
		if err != nil {
			return 0, 0, 0, err
		}
		pipes = append(pipes, entry.New(params))
		if err := pipes[len(pipes)-1].Start(env, site, pipeline.Models{Main: m.Spec}); err != nil {
			return 0, 0, 0, err
		}
	}
	steps, links := [2][]float64{}, []float64{}
	var failed error
	env.Go("requests", func() {
		for id := 0; id < 2*(n+1) && failed == nil; id++ {
			var step, sent float64
			if step, sent, failed = decode(env, pipes[id%2], id); id < 2 {
				continue // warms up
			}
			if steps[id%2] = append(steps[id%2], step); id%2 == 1 {
				links = append(links, sent)
			}
		}
	})
	if err := errors.Join(env.Run(), failed); err != nil {
		return 0, 0, 0, err
	}
	return median(steps[0]), median(steps[1]), median(links), nil
}

// decode answers one request and returns the mean time of its decode steps, and of
// what they spent on links.
func decode(env world.Env, p pipeline.Pipeline, id int) (step, link float64, err error) {
	req := workloads.Request{ID: id, PromptTokens: 16, Prompt: make([]int32, 16), OutputTokens: 128}
	for i := range req.Prompt {
		req.Prompt[i] = int32(5 + 7*i)
	}
	log := &record.Request{}
	log.Reset(id, env.Now())
	if err := p.Handle(&req, log); err != nil {
		return 0, 0, err
	}
	for _, s := range log.Spans {
		if s.Kind == record.Transfer && s.Start >= log.FirstToken {
			link += (s.End - s.Start).Seconds()
		}
	}
	n := float64(log.OutputTokens - 1)
	return (log.LastToken - log.FirstToken).Seconds() / n, link / n, nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// loopback is a device and an edge node of this machine's kernels, joined by
// unshaped sockets. Answers have no end: every request gets all its tokens.
func loopback(env *world.Real, m *Model) (*hardware.Site, error) {
	held := m.loaded()
	held.End = -1
	user := &hardware.User{}
	site := &hardware.Site{Name: "loopback", NewUser: func(int) *hardware.User { return user }}
	for i, name := range []string{"device", "edge"} {
		d, err := kernel.New(env, kernel.Config{Name: name, Models: []kernel.Loaded{held}, Threads: HostThreads()})
		if err != nil {
			return nil, err
		}
		l, err := netem.New(env, hardware.LinkSpec{Name: name}, unshaped{})
		if err != nil {
			return nil, err
		}
		if i == 0 {
			user.Device, user.Up = d, l
		} else {
			user.Down, site.Nodes = l, []hardware.Node{{Name: name, Role: hardware.EdgeRole, Device: d}}
		}
	}
	return site, nil
}
