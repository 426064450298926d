package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/workloads"
)

// streets is a site of two edge nodes and a cloud whose users have radios of their own, to be moved by hand.
type streets struct {
	*scene
	radios map[int]*toyCaster
	at     map[int]int // users' nodes
	cells  map[int]int
	next   map[int]int // where their radios say that they will go; absent: nothing
	ports  map[string]*toyLink
}

func newStreets(env world.Runner, set map[string]any) (*streets, error) {
	return streetsWith(env, "deliver", set)
}

func streetsWith(env world.Runner, pipe string, set map[string]any) (*streets, error) {
	s := &streets{scene: newScene(env), radios: map[int]*toyCaster{}, at: map[int]int{}, cells: map[int]int{}, next: map[int]int{}, ports: map[string]*toyLink{}}
	s.site.NewUser = func(id int) *hardware.User {
		s.radios[id] = &toyCaster{&toyLink{env: env, name: "down", rate: 4e6 / float64(1+id), delay: ms(5)}, func() int { return s.cells[id] }}
		return &hardware.User{ID: id, Device: newToy(env, "device", ms(2), ms(4), 0), Up: &toyLink{env: env, name: "up", rate: 1e6, delay: ms(5)},
			Down: s.radios[id], Near: func() int { return s.at[id] }, Next: func() (int, bool) { n, ok := s.next[id]; return n, ok }}
	}
	s.site.Nodes = []hardware.Node{{Name: "edge-1", Role: hardware.EdgeRole, Device: s.edge}, {Name: "edge-2", Role: hardware.EdgeRole, Device: s.edge},
		{Name: "cloud", Role: hardware.CloudRole, Device: s.edge}}
	for _, way := range [][2]string{{"cloud", "edge-1"}, {"cloud", "edge-2"}, {"edge-1", "edge-2"}, {"edge-2", "edge-1"}} {
		rate := 1e6
		if way[0] != "cloud" {
			rate = 10e6
		}
		s.ports[way[0]+way[1]] = &toyLink{env: env, name: way[0], rate: rate, delay: ms(10)}
		s.site.Joins = append(s.site.Joins, hardware.Join{From: way[0], To: way[1], Link: s.ports[way[0]+way[1]]})
	}
	s.cloud = s.ports["cloudedge-1"]
	return s, s.use(pipe, set)
}

// ask adds a request of a user.
func (s *streets) ask(at float64, user int) *streets {
	s.reqs = append(s.reqs, workloads.Request{ArriveAt: ms(at), User: user, PromptTokens: 4, OutputTokens: 2})
	return s
}

// all makes every request want one model.
func (s *streets) all(model int) *streets {
	return s.want(model)
}

// want makes the requests want these models in turn.
func (s *streets) want(models ...int) *streets {
	draw := func(n, _, _ int) int { return models[n%len(models)] }
	switch p := s.pipe.(type) {
	case *deliver:
		p.wants.draw = draw
	case *host:
		p.wants.draw = draw
	}
	return s
}

func down(l *record.Request) time.Duration { return time.Duration(l.Counts[record.DeliveryTime]) }

// One user, nothing kept: every time by hand. The name goes up in 5.256 ms; the cloud sends 10 kB and 2 x 100 kB over 1 MB/s
// and 10 ms, one behind the other; the radio sends each at 4 MB/s with 5 ms as it comes.
func TestC6DeliveryByHand(t *testing.T) {
	s, err := newStreets(world.NewSim(nil), nil)
	require.NoError(t, err)
	s.all(0).ask(0, 0).ask(1000, 0).run(t)
	at := 5.256 + 210 + 10 + 25 + 5
	require.Equal(t, ms(at), down(s.logs[0]))
	require.Equal(t, ms(at)+ms(4*2), s.logs[0].FirstToken, "then the prompt")
	require.EqualValues(t, 210_000, s.logs[0].Counts[record.BackhaulBytes])
	require.EqualValues(t, 1, s.logs[0].Counts[record.CacheMisses])
	require.EqualValues(t, 210_000, s.logs[0].Counts[record.CacheMissBytes])
	require.EqualValues(t, 210_000, s.logs[0].Counts[record.ChurnBytes])
	require.EqualValues(t, 210_000, s.logs[0].DownBytes)

	hit := s.logs[1] // the node has it: three blocks by radio one after another
	require.Equal(t, ms(5.256+52.5+5), down(hit))
	require.EqualValues(t, 1, hit.Counts[record.CacheHits])
	require.Zero(t, hit.Counts[record.BackhaulBytes])
	require.EqualValues(t, 1, hit.Counts[record.OnTime])
	f := s.pipe.(*deliver).Figures()
	require.EqualValues(t, 210_000, f["storage_bytes"])
	require.EqualValues(t, 210_000, f["backhaul_bytes"])
}

// A device that keeps the backbone is sent an adapter alone, and one that has everything nothing.
func TestC7DevicesAreSentWhatTheyLack(t *testing.T) {
	s, err := newStreets(world.NewSim(nil), map[string]any{"keep_mb": 1.0})
	require.NoError(t, err)
	wants := []int{0, 1, 1}
	s.pipe.(*deliver).wants.draw = func(n, _, _ int) int { return wants[n] }
	s.ask(0, 0).ask(1000, 0).ask(2000, 0).run(t)
	require.EqualValues(t, 210_000, s.logs[0].DownBytes)
	require.EqualValues(t, 10_000, s.logs[1].DownBytes)
	require.EqualValues(t, 200_000, s.logs[1].Counts[record.HeldBytes])
	require.Zero(t, s.logs[2].DownBytes)
	require.EqualValues(t, 210_000, s.logs[2].Counts[record.HeldBytes])
	require.Zero(t, s.logs[2].Counts[record.CacheHits]+s.logs[2].Counts[record.CacheMisses], "nobody was asked")
}

// Models kept as wholes take the room of their copies, and a node that has one adapter's model has nothing of another.
func TestC2BlocksAgainstWholes(t *testing.T) {
	run := func(share string) *streets {
		s, err := newStreets(world.NewSim(nil), map[string]any{"share": share, "room_mb": 0.5})
		require.NoError(t, err)
		wants := []int{0, 1, 2, 3, 0}
		s.pipe.(*deliver).wants.draw = func(n, _, _ int) int { return wants[n] }
		for i := range wants {
			s.ask(float64(1000*i), 0)
		}
		s.run(t)
		return s
	}
	blocks, whole := run("blocks"), run("whole")
	require.EqualValues(t, 240_000, blocks.ports["cloudedge-1"].bulk, "a backbone and four adapters")
	require.EqualValues(t, 5*210_000, whole.ports["cloudedge-1"].bulk, "two fit, and the least recently used went")
	require.EqualValues(t, 1, blocks.logs[4].Counts[record.CacheHits])
	require.EqualValues(t, 1, whole.logs[4].Counts[record.CacheMisses])
	require.InDelta(t, 1-240.0/840, blocks.pipe.(*deliver).Figures()["storage_saved"], 1e-9)
	require.Zero(t, whole.pipe.(*deliver).Figures()["storage_saved"])
}

// Three users of one cell who want one model: one transmission at the rate of the slowest; of two models on one backbone,
// the backbone goes once and the adapters to each alone.
func TestC6SharedBlocksGoOnce(t *testing.T) {
	run := func(cast string, wants ...int) *streets {
		s, err := newStreets(world.NewSim(nil), map[string]any{"cast": cast, "window_ms": 20.0})
		require.NoError(t, err)
		s.pipe.(*deliver).wants.draw = func(n, _, _ int) int { return wants[n] }
		for i := range wants {
			s.ask(float64(i), i)
		}
		s.run(t)
		return s
	}
	sent := func(s *streets) (n units.Bytes) {
		for _, r := range s.radios {
			n += r.bulk
		}
		return n
	}
	require.EqualValues(t, 630_000, sent(run("unicast", 0, 0, 0)))
	same := run("multicast", 0, 0, 0)
	require.EqualValues(t, 210_000, sent(same))
	for _, l := range same.logs {
		require.EqualValues(t, 210_000, l.Counts[record.CastBytes])
		require.EqualValues(t, 210_000, l.DownBytes)
		require.Equal(t, same.logs[0].LastToken/ms(1), l.LastToken/ms(1), "all at the rate of the slowest")
	}
	two := run("multicast", 0, 1, 0)
	require.EqualValues(t, 200_000+10_000+10_000, sent(two))
	require.EqualValues(t, 200_000, two.logs[1].Counts[record.CastBytes])
	require.EqualValues(t, 210_000, sent(run("multicast", 0)), "one user: as unicast")
	again := func(cast string) time.Duration { // when the node has it
		s, err := newStreets(world.NewSim(nil), map[string]any{"cast": cast, "window_ms": 20.0})
		require.NoError(t, err)
		s.all(0).ask(0, 0).ask(1000, 0).run(t)
		return down(s.logs[1])
	}
	require.Equal(t, again("unicast")+ms(20), again("multicast"), "but for the window")
}

// Execution that overlaps with the download ends after the longer of the two and before their sum; a first rung answers earlier and
// worse, and the rest still comes.
func TestC7ProgressiveDelivery(t *testing.T) {
	ask := func(progress string, model int) *record.Request {
		s, err := newStreets(world.NewSim(nil), map[string]any{"progress": progress, "pieces": 2.0})
		require.NoError(t, err)
		s.pipe.(*deliver).wants.draw = func(n, _, _ int) int { return model }
		s.reqs = append(s.reqs, workloads.Request{PromptTokens: 50, OutputTokens: 3})
		s.run(t)
		return s.logs[0]
	}
	run := func(progress string) *record.Request { return ask(progress, 5) }
	plain := ask("layers", 0) // whose last block is that of the upper layers
	require.Equal(t, plain.FirstToken, down(plain)+ms(50), "only the upper half was left to compute")
	whole, layers, refine := run("whole"), run("layers"), run("refine")
	prompt := ms(100)
	require.Equal(t, whole.FirstToken, down(whole)+prompt)
	require.Equal(t, layers.FirstToken, down(layers)+prompt/2, "the lower half was computed while the upper came")
	require.Equal(t, down(whole), down(layers))
	require.Less(t, refine.Counts[record.UsableTime], refine.Counts[record.DeliveryTime])
	require.Equal(t, refine.FirstToken, time.Duration(refine.Counts[record.UsableTime])+prompt)
	require.Equal(t, down(whole), down(refine), "the refinement comes all the same")
	require.Equal(t, [3]float64{1, 1, 0.5}, [3]float64{whole.Quality, layers.Quality, refine.Quality})
}

// A user who changes nodes in the middle is sent the rest by the new node, which gets it from the old one; it waits less if
// that began when the radio knew. What was fetched for somebody who did not come is waste.
func TestX3DeliveryFollowsTheUser(t *testing.T) {
	run := func(set map[string]any, to int) *streets {
		s, err := newStreets(world.NewSim(nil), set)
		require.NoError(t, err)
		s.all(0)
		s.ask(0, 1).ask(1000, 1) // user 1 has 2 MB/s; the node knows the model the second time
		s.env.Go("walk", func() {
			s.env.Sleep(ms(1002))
			s.next[1] = 1
			s.env.Sleep(ms(8)) // two of three blocks are on their way
			s.at[1] = to
		})
		s.run(t)
		return s
	}
	still := run(nil, 0)
	require.Zero(t, still.logs[1].Counts[record.Handovers])
	moved := run(nil, 1)
	l := moved.logs[1]
	require.EqualValues(t, 1, l.Counts[record.Handovers])
	require.EqualValues(t, 1, l.Counts[record.Stalls])
	require.Positive(t, l.Counts[record.StallTime])
	require.EqualValues(t, 100_000, moved.ports["edge-1edge-2"].bulk, "the block that was not on its way yet")
	require.Equal(t, units.Bytes(210_000), l.DownBytes)
	early := run(map[string]any{"ahead": "yes"}, 1)
	e := early.logs[1]
	require.EqualValues(t, 1, e.Counts[record.Handovers])
	require.Less(t, e.Counts[record.StallTime], l.Counts[record.StallTime])
	require.LessOrEqual(t, down(e), down(l))
	f := early.pipe.(*deliver).Figures()
	require.EqualValues(t, 1, f["prefetch_hits"])
	require.Zero(t, f["prefetch_waste"])
	far, err := newStreets(world.NewSim(nil), nil) // gone while the first node still fetches
	require.NoError(t, err)
	far.all(0).ask(0, 1)
	far.env.Go("walk", func() { far.env.Sleep(ms(17)); far.at[1] = 1 })
	far.run(t)
	require.Equal(t, record.OK, far.logs[0].Outcome)
	for _, d := range far.pipe.(*deliver).stock.depots[:2] {
		require.Empty(t, d.transit, "what nobody waits for any more is let go of when it comes")
	}
	waste := run(map[string]any{"ahead": "yes"}, 0).pipe.(*deliver).Figures()
	require.Zero(t, waste["prefetch_hits"])
	require.Positive(t, waste["prefetch_waste"])
}

// A neighbour that has a model spares the cloud, unless nodes do not cooperate.
func TestC8NeighboursBeforeTheCloud(t *testing.T) {
	for cooperate, want := range map[string]units.Bytes{"yes": 0, "no": 210_000} {
		s, err := newStreets(world.NewSim(nil), map[string]any{"cooperate": cooperate})
		require.NoError(t, err)
		s.at[1] = 1
		s.all(0).ask(0, 0).ask(1000, 1).run(t)
		require.Equal(t, want, s.ports["cloudedge-2"].bulk, cooperate)
		require.Equal(t, 210_000-want, s.ports["edge-1edge-2"].bulk, cooperate)
		require.EqualValues(t, 210_000, s.logs[1].Counts[record.BackhaulBytes])
		hits := int64(0)
		if want == 0 {
			hits = 1
		}
		require.Equal(t, hits, s.logs[1].Counts[record.CacheHits], cooperate)
	}
}

// Blocks with bytes are checked where they come: what was tampered with at the cloud is used by nobody, and the request fails.
func TestX6TamperedBlocksAreNotUsed(t *testing.T) {
	for _, tamper := range []bool{false, true} {
		s, err := newStreets(world.NewSim(nil), nil)
		require.NoError(t, err)
		data := withBytes(s)
		if tamper {
			data[1][77] ^= 1
		}
		s.pipe.(*deliver).stock.content = func(b int) []byte { return data[b] }
		s.all(0).ask(0, 0).run(t)
		if !tamper {
			require.Equal(t, record.OK, s.logs[0].Outcome, s.logs[0].Err)
			continue
		}
		require.Equal(t, record.Failed, s.logs[0].Outcome)
		require.Contains(t, s.logs[0].Err, `block "high"`)
		require.Contains(t, s.logs[0].Err, "not used")
		require.Zero(t, s.pipe.(*deliver).stock.depots[0].shelf.Used(), "nor kept")
	}
}

// A node that keeps a model has all of it fetched, also what the device that asked had itself: who comes next may not.
func TestC8NodesHaveWhatTheyKeep(t *testing.T) {
	for _, kept := range []float64{0, 1} {
		s, err := newStreets(world.NewSim(nil), map[string]any{"keep_mb": kept, "cooperate": "no"})
		require.NoError(t, err)
		s.pipe.(*deliver).wants.draw = func(n, _, _ int) int { return min(n, 1) }
		s.ask(0, 0).ask(1000, 0).ask(3000, 1)
		s.at[1] = 1
		s.env.Go("walk", func() { s.env.Sleep(ms(900)); s.at[0] = 1 })
		s.run(t)
		require.EqualValues(t, 210_000, s.ports["cloudedge-2"].bulk, "keep %g", kept)
		require.EqualValues(t, 210_000, s.pipe.(*deliver).stock.depots[1].shelf.Used())
		require.EqualValues(t, 1, s.logs[2].Counts[record.CacheHits])
		require.EqualValues(t, 210_000, s.logs[2].DownBytes)
	}
}

// Real bytes in one transmission for several, of whom one leaves in the middle: all have all of them.
func TestC6CastBytesAreWhole(t *testing.T) {
	s, err := newStreets(world.NewSim(nil), map[string]any{"cast": "multicast", "window_ms": 20.0})
	require.NoError(t, err)
	data := withBytes(s)
	s.pipe.(*deliver).stock.content = func(b int) []byte { return data[b] }
	s.all(0).ask(0, 0).ask(1, 1).ask(2, 2)
	s.env.Go("walk", func() { s.env.Sleep(ms(120)); s.cells[2] = 1 })
	s.run(t)
	for _, l := range s.logs {
		require.Equal(t, record.OK, l.Outcome, l.Err)
		require.EqualValues(t, 210_000, l.DownBytes)
	}
}

// withBytes gives the blocks of the library content and digests.
func withBytes(s *streets) [][]byte {
	lib := s.pipe.(*deliver).stock.lib
	data := make([][]byte, len(lib.Blocks))
	for b := range lib.Blocks {
		data[b] = bytes.Repeat([]byte{byte(b)}, int(lib.Blocks[b].Bytes))
		sum := sha256.Sum256(data[b])
		lib.Blocks[b].Digest = hex.EncodeToString(sum[:])
	}
	return data
}

// Whatever is asked of whom and when, in all ways: everybody is sent what they lack exactly once, and nothing is held in the end.
func TestC8FlowsAreConserved(t *testing.T) {
	for _, set := range []map[string]any{{}, {"cast": "multicast", "window_ms": 97.131}, {"progress": "layers", "keep_mb": 0.3}, {"cast": "hybrid", "window_ms": 97.131, "progress": "refine", "ahead": "yes"},
		{"share": "whole", "room_mb": 0.5}, {"room_mb": 0.0}, {"cooperate": "no", "room_mb": 0.25}} {
		t.Run(fmt.Sprint(set), func(t *testing.T) {
			bothWorlds(t, func(env world.Runner) (rows []string) {
				s, err := newStreets(env, set)
				require.NoError(t, err)
				load(s.scene)
				for i := range s.reqs {
					s.reqs[i].User = i % 7
				}
				s.env.Go("walk", func() {
					for i := range 200 {
						s.env.Sleep(ms(37.123457))
						s.next[i%7] = 1 - s.at[i%7]
						s.cells[i%5] = i % 2 // another cell, the same node or not
						if i%3 > 0 {
							s.at[i%7] = 1 - s.at[i%7]
							delete(s.next, i%7)
							s.cells[i%7] = s.at[i%7]
						}
					}
				})
				s.run(t)
				p := s.pipe.(*deliver)
				for i, l := range s.logs {
					require.Equal(t, record.OK, l.Outcome, l.Err)
					sum := units.Bytes(l.Counts[record.HeldBytes]) + l.DownBytes
					require.Equal(t, int64(l.DownBytes), l.Counts[record.CacheHitBytes]+l.Counts[record.CacheMissBytes], "request %d", i)
					require.Contains(t, []units.Bytes{210_000, 270_000}, sum, "request %d", i)
					rows = append(rows, fmt.Sprintf("%+v", *l))
				}
				for _, d := range p.stock.depots {
					if d != nil {
						received := s.ports["cloud"+d.name].bulk
						for from, l := range s.ports {
							if strings.HasPrefix(from, "edge") && strings.HasSuffix(from, d.name) {
								received += l.bulk
							}
						}
						require.LessOrEqual(t, d.shelf.Used(), received, "%s has what came", d.name)
						require.Empty(t, d.transit, d.name)
						require.LessOrEqual(t, p.lib().Union(d.shelf.Models()), p.stock.room)
					}
				}
				return rows
			})
		})
	}
}

func TestDeliverSaysWhatIsMissing(t *testing.T) {
	_, err := newStreets(world.NewSim(nil), map[string]any{"cast": "multicast"})
	require.NoError(t, err)
	s := newScene(world.NewSim(nil))
	require.ErrorContains(t, s.use("deliver", map[string]any{"cast": "multicast"}), "needs users in radio cells")
	s.site.Nodes = s.site.Nodes[:1]
	e, err := Find("deliver")
	require.NoError(t, err)
	params, err := e.Resolve(nil)
	require.NoError(t, err)
	require.ErrorContains(t, e.New(params).Start(s.env, s.site, Models{Main: toyModel}), "give it library:")
	require.ErrorContains(t, e.New(params).Start(s.env, s.site, Models{Main: toyModel, Library: toyLibrary()}), "a cloud node")
}

// A placing policy fills nodes before anybody asks, by the room there is; nothing comes or goes but at a new plan.
func TestC9PlansAreKeptUntilTheEpochEnds(t *testing.T) {
	run := func(set map[string]any) *streets {
		s, err := newStreets(world.NewSim(nil), set)
		require.NoError(t, err)
		for i := range 12 {
			s.ask(float64(400*i), i%3)
		}
		s.run(t)
		return s
	}
	for _, policy := range []string{"gen", "independent", "popular", "spec"} {
		s := run(map[string]any{"policy": policy, "room_mb": 0.225})
		f := s.pipe.(*deliver).Figures()
		require.Zero(t, f["churn_bytes"], policy)
		require.Positive(t, f["static_hit"], policy)
		require.LessOrEqual(t, f["static_hit"], 1.0)
		for _, d := range s.pipe.(*deliver).stock.depots[:2] {
			require.Positive(t, d.shelf.Used(), policy)
			require.LessOrEqual(t, d.shelf.Used(), units.Bytes(225_000), policy)
		}
	}
	shared, whole := run(map[string]any{"policy": "gen", "room_mb": 0.225}), run(map[string]any{"policy": "gen", "room_mb": 0.225, "share": "whole"})
	require.Greater(t, shared.pipe.(*deliver).Figures()["static_hit"], whole.pipe.(*deliver).Figures()["static_hit"])
	still := run(map[string]any{"policy": "gen", "room_mb": 0.225, "replan": "yes", "epoch_s": 1.0})
	require.Zero(t, still.pipe.(*deliver).Figures()["churn_bytes"], "no drift: the same plan again")
	drift := run(map[string]any{"policy": "gen", "room_mb": 0.225, "replan": "yes", "epoch_s": 1.0, "drift": 1.0})
	require.Positive(t, drift.pipe.(*deliver).Figures()["churn_bytes"])
}
