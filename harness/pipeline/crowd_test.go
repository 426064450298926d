package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/rng"
	"meibench/workloads"
)

// oneByOne hides that a device can stride: a server then runs every step.
type oneByOne struct{ hardware.Device }

// crowdCase is a server under load, drawn by its number.
type crowdCase struct {
	params   map[string]any
	memory   float64
	requests []workloads.Request
	link     string
	device   string
}

func drawCrowd(n int) crowdCase {
	luck := rng.NewKey(7, "crowd case").At(uint64(n))
	pick := func(k int) int { return int(luck.Uint64() % uint64(k)) }
	c := crowdCase{link: []string{"nr-midband-eu-2023", "wifi6-home", "lte-bus-nyc-2020", "ble-1m"}[pick(4)],
		device: []string{"nvidia-l4", "jetson-orin-nano-super", "smart-watch"}[pick(3)]}
	c.params = map[string]any{"policy": []string{"continuous", "chunked", "static", "slo"}[pick(4)], "kv": []string{"reserve", "paged"}[pick(2)],
		"batch": float64(1 + pick(24)), "chunk": float64(32 + pick(300))}
	c.memory = 2.55e9 + 1e7*float64(pick(30)) // weights of 2.47 GB and 32 KiB a token: from hardly any cache to plenty
	at, users := time.Duration(0), 1+pick(12)
	gap := []float64{2e6, 2e7, 1e8, 1e9}[pick(4)]
	for i := range 40 + pick(60) {
		at += time.Duration(gap * rng.Exp(&luck))
		c.requests = append(c.requests, workloads.Request{ID: i, User: pick(users), ArriveAt: at, PromptTokens: 1 + pick(400), OutputTokens: 1 + pick(200), TextBytes: 300})
	}
	return c
}

// play serves the requests and returns what came of each, and of the server.
func (c *crowdCase) play(t *testing.T, stride bool) (rows []string, figures map[string]float64, events uint64) {
	env := world.NewSim(nil)
	sheet, err := profiles.Device(c.device)
	require.NoError(t, err)
	small := *sheet
	small.Thermal, small.Memory.Value, small.MemoryShare.Value = nil, c.memory, 1
	model, err := profiles.Model("llama-3.2-1b:f16")
	require.NoError(t, err)
	wire, err := profiles.Link(c.link)
	require.NoError(t, err)
	device := costmodel.New(env, &small, costmodel.Options{Seed: 3})
	var dev hardware.Device = device
	if !stride {
		dev = oneByOne{dev}
	}
	site := &hardware.Site{Name: "crowd", Nodes: []hardware.Node{{Name: "edge", Role: hardware.EdgeRole, Device: dev}},
		NewUser: func(id int) *hardware.User {
			up, down := costmodel.NewPair(env, wire, costmodel.LinkOptions{Seed: 5, Name: fmt.Sprint(id)})
			return &hardware.User{ID: id, Up: up, Down: down}
		}}
	e, err := Find("offload")
	require.NoError(t, err)
	p, err := e.Resolve(c.params)
	require.NoError(t, err)
	pipe := e.New(p)
	require.NoError(t, pipe.Start(env, site, Models{Main: model}))
	logs := make([]record.Request, len(c.requests))
	for i := range c.requests {
		env.Go("request", func() {
			req, log := &c.requests[i], &logs[i]
			env.Sleep(req.ArriveAt)
			log.Reset(req.ID, req.ArriveAt)
			log.PromptTokens, log.AskedTokens, log.Released = req.PromptTokens, req.OutputTokens, env.Now()
			log.Finish(env.Now(), pipe.Handle(req, log))
		})
	}
	require.NoError(t, env.Run())
	for i := range logs {
		require.NoError(t, logs[i].Check())
		rows = append(rows, fmt.Sprintf("%+v", logs[i]))
	}
	figures = pipe.(Figurer).Figures()
	stats := pipe.(*offload).edge.servers[0].Stats()
	require.Equal(t, stats.Taken, stats.Freed)
	figures["taken"], figures["redone"], figures["tokens"] = float64(stats.Taken), float64(stats.Redone), float64(stats.Tokens)
	figures["busy"], figures["memory left"] = device.Busy().Seconds(), float64(device.Used())
	return rows, figures, env.Events()
}

// TestStridesEqualSteps: steps of an unchanged batch that are one event end, to the
// nanosecond, when they do one by one; joules, bytes and the server's counts are
// the same too.
func TestStridesEqualSteps(t *testing.T) {
	var few, many uint64
	preempted := 0.0
	for n := range 80 {
		c := drawCrowd(n)
		want, counted, steps := c.play(t, false)
		got, strode, strides := c.play(t, true)
		for i := range want {
			require.Equal(t, want[i], got[i], "case %d: %v, link %s, %.3g B", n, c.params, c.link, c.memory)
		}
		require.Equal(t, counted, strode, "case %d: %v", n, c.params)
		preempted += counted["preempted"]
		few, many = few+strides, many+steps
	}
	require.Greater(t, preempted, 50.0, "memory was short at times")
	require.Less(t, 2*few, many, "strides save events")
}
