package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/reference/library"
	"meibench/reference/placement"
	"meibench/reference/shelf"
)

// stockParams are those of edge nodes that keep models of a library.
var stockParams = []Param{
	{Name: "policy", Names: policies(), Doc: "what an edge node keeps: aoc, fifo, frugal, lfu, lru and random replace as requests come (package reference/shelf); femtocaching, gen, gen-byte, independent, popular and spec place models once, by their popularity and the rates of users (package reference/placement)"},
	{Name: "share", Names: []string{"blocks", "whole"}, Doc: "models are kept and sent as blocks that they share, or each as a whole"},
	{Name: "room_mb", Default: 1000, Min: 0, Max: 1e9, Doc: "storage for models on each edge node, MB"},
	{Name: "cooperate", Names: []string{"yes", "no"}, Doc: "a node asks its neighbours before the cloud"},
	{Name: "sources", Names: []string{"nearest", "quickest"}, Doc: "where a node gets a block: from the nearest neighbour that has it, else the cloud; or where it would be there first, behind what is on its way already, so that several sources share a large model (ServerlessLLM's estimate)"},
	{Name: "replan", Names: []string{"no", "yes"}, Doc: "placing policies: place again when an epoch has ended, by the new popularity"},
	{Name: "moves", Names: []string{"free", "real"}, Doc: "placing policies: what a new plan brings is there at once, as if it had come when the network was idle; or comes over the links, and counts when it is there"},
	{Name: "planned_users", Default: 30, Min: 1, Max: 10_000, Doc: "placing policies: users, from number 0 on, whose places and rates at the start of an epoch decide"},
	{Name: "planned_ms", Default: 1000, Min: 1, Max: 1e8, Doc: "placing policies: time in which a model should reach a user"},
}

// stock is the storage for models of all edge nodes of a site (checklist C1, C2, C8, C9).
type stock struct {
	policy    string
	whole     bool
	room      units.Bytes
	cooperate bool
	quickest  bool
	prefetch  bool
	plan      planning

	// reach is the bytes per second at which a user's model comes from the node near the user, 0 = never: by it placing policies decide.
	reach func(user *hardware.User) float64

	env     world.Env
	site    *hardware.Site
	lib     *library.Library
	wants   *wants
	depots  []*depot                    // by node; nil = not an edge node
	content func(block int) []byte      // nil: sizes only
	first   int                         // edge node
	cloud   string                      // node that has everything
	moved   units.Bytes                 // over links between servers
	busy    map[[2]string]time.Duration // until when a way between servers has bytes of ours, by estimate
	churn   units.Bytes
	hits    int // prefetches that were right
	wasted  units.Bytes
}

func newStock(p Params) stock {
	return stock{policy: p.Name("policy"), whole: p.Name("share") == "whole", room: units.Bytes(p.Num("room_mb") * 1e6), cooperate: p.Name("cooperate") == "yes", quickest: p.Name("sources") == "quickest", plan: newPlanning(p)}
}

// depot is what one edge node has.
type depot struct {
	name    string
	shelf   *shelf.Shelf
	transit map[int]*transit
	asked   []int // models in order, for the comparison with a clairvoyant
}

// need is what a request wants of the storage of edge nodes: a model, or what is lacking of it where it is to be used.
type need struct {
	want  int   // model
	lacks []int // blocks that must come, in order of use
	log   *record.Request
	over  bool        // the request has ended, and its log is another's: what is under way for it still counts for nobody
	node  int         // where the latest blocks are held; -1 = nowhere yet
	held  []int       // blocks that it keeps for this need
	next  int         // node that fetches early what is still lacking; -1 = none
	early []int       // blocks held there
	sent  units.Bytes // moved there for it
}

// count adds to a counter of the request, unless it is over.
func (x *need) count(c record.Counter, n int64) {
	if !x.over {
		x.log.Count(c, n)
	}
}

// transit is a block that somebody is about to be sent, whether the node keeps it or not.
type transit struct {
	users int
	there bool
	ready time.Duration // when it came
	err   error
	wake  world.Cond
}

// start finds the nodes and fills their storage if the policy says beforehand with what.
func (s *stock) start(env world.Env, site *hardware.Site, w *wants) error {
	s.env, s.site, s.wants, s.lib, s.first, s.busy = env, site, w, w.lib, -1, map[[2]string]time.Duration{}
	if s.whole {
		s.lib = w.lib.Unshared()
	}
	s.depots = make([]*depot, len(site.Nodes))
	for i, n := range site.Nodes {
		switch n.Role {
		case hardware.EdgeRole:
			if s.first < 0 {
				s.first = i
			}
			s.depots[i] = &depot{name: n.Name, transit: map[int]*transit{}, shelf: s.shelf(s.room, s.policy, uint64(i))}
		case hardware.CloudRole:
			s.cloud = n.Name
		}
	}
	if s.first < 0 || s.cloud == "" {
		return fmt.Errorf("site %q: models are kept at edge nodes and come from a cloud node: want at least one of each", site.Name)
	}
	if s.plan.on {
		return s.place(0)
	}
	return nil
}

// policies are those of shelves, and those of placement but random: lru first, which is the default.
func policies() []string {
	var names []string
	for _, p := range shelf.Policies() {
		if p.Name != "lru" {
			names = append(names, p.Name)
		}
	}
	for _, p := range placement.Policies() {
		if p[0] != "random" {
			names = append(names, p[0])
		}
	}
	slices.Sort(names)
	return append([]string{"lru"}, names...)
}

// shelf is an empty one for the library.
func (s *stock) shelf(room units.Bytes, policy string, seed uint64) *shelf.Shelf {
	if s.plan.on {
		policy = "lru" // nothing comes but by plan
	}
	h, err := shelf.New(s.lib, room, policy, seed)
	if err != nil {
		panic(err) // of parameters that were checked
	}
	return h
}

// near is the edge node where a user's radio ends.
func (s *stock) near(u *hardware.User) int {
	if u.Near == nil {
		return s.first
	}
	return u.Near()
}

// request counts a need at a node's cache, and has the node get what the need lacks.
func (s *stock) request(x *need, node int) error {
	if err := s.replan(); err != nil {
		return err
	}
	d := s.depots[node]
	d.asked = append(d.asked, x.want)
	hit := true
	for _, b := range x.lacks {
		size := int64(s.lib.Blocks[b].Bytes)
		if s.has(node, b) || s.cooperate && s.source(node, b, -1) >= 0 {
			x.log.Count(record.CacheHitBytes, size)
		} else {
			x.log.Count(record.CacheMissBytes, size)
			hit = false
		}
	}
	if hit {
		x.log.Count(record.CacheHits, 1)
	} else {
		x.log.Count(record.CacheMisses, 1)
	}
	d.shelf.Ask(x.want)
	lacking := s.hold(node, x.lacks)
	if !s.plan.on {
		lacking = append(lacking, s.keep(x, node)...)
	}
	s.fetch(x, node, lacking, -1)
	return nil
}

// keep puts a need's model on a node's shelf and returns what the node lacks of it besides what the need waits for: blocks that
// the device has itself, and that the next who asks may not have.
func (s *stock) keep(x *need, node int) (besides []int) {
	d := s.depots[node]
	for _, b := range s.lib.Models[x.want].Blocks {
		if d.transit[b] == nil && !d.shelf.Has(b) {
			besides = append(besides, b)
		}
	}
	added := d.shelf.Put(x.want)
	s.churn += added
	x.log.Count(record.ChurnBytes, int64(added))
	if !slices.Contains(d.shelf.Models(), x.want) { // it does not fit
		return nil
	}
	for _, b := range besides {
		d.transit[b] = &transit{wake: s.env.NewCond()}
	}
	return besides
}

// has reports whether a node has a block now.
func (s *stock) has(node, b int) bool {
	d := s.depots[node]
	if t := d.transit[b]; t != nil {
		return t.there
	}
	return d.shelf.Has(b)
}

// hold keeps blocks at a node until they are released, and returns those that it has not got and nobody fetches.
func (s *stock) hold(node int, blocks []int) (lacking []int) {
	d := s.depots[node]
	for _, b := range blocks {
		t := d.transit[b]
		if t == nil {
			t = &transit{there: d.shelf.Has(b), wake: s.env.NewCond()}
			d.transit[b] = t
			if !t.there {
				lacking = append(lacking, b)
			}
		}
		t.users++
	}
	return lacking
}

// drop lets go of blocks that were held.
func (s *stock) drop(node int, blocks []int) {
	d := s.depots[node]
	for _, b := range blocks {
		if t := d.transit[b]; t != nil {
			if t.users--; t.users == 0 && (t.there || t.err != nil) {
				delete(d.transit, b)
			}
		}
	}
}

// payload is a block as it is sent.
func (s *stock) payload(b int) hardware.Payload {
	p := hardware.Payload{Bytes: s.lib.Blocks[b].Bytes}
	if s.content != nil {
		p.Data = s.content(b)
	}
	return p
}

// verify refuses bytes that are not those of a block.
func (s *stock) verify(b int, data []byte) error {
	if s.content == nil {
		return nil
	}
	block := &s.lib.Blocks[b]
	if sum := sha256.Sum256(data); units.Bytes(len(data)) != block.Bytes || hex.EncodeToString(sum[:]) != block.Digest {
		return fmt.Errorf("block %q: %d bytes with SHA-256 %x came, want %d with %s: not used", block.Name, len(data), sum[:6], block.Bytes, block.Digest)
	}
	return nil
}

// came notes that a block has come to a node, or will not. What failed is not kept.
func (s *stock) came(x *need, node, b int, err error) {
	d := s.depots[node]
	t := d.transit[b]
	t.there, t.err, t.ready = err == nil, err, s.env.Now()
	t.wake.Broadcast()
	if err != nil && x.want >= 0 {
		d.shelf.Remove(x.want)
	} else if err != nil { // of a plan
		for _, m := range s.lib.Users(b) {
			d.shelf.Remove(m)
		}
	}
	if t.users == 0 {
		delete(d.transit, b)
	}
}

// errGivenUp ends what is still under way for a need that has failed.
var errGivenUp = errors.New("the delivery was given up")

// await blocks until a node has a block that is held there, and returns when it came.
func (s *stock) await(node, b int) (time.Duration, error) {
	t := s.depots[node].transit[b]
	if t == nil {
		return 0, errGivenUp
	}
	for !t.there && t.err == nil {
		t.wake.Wait()
	}
	return t.ready, t.err
}

// follow moves what a need still lacks, the rest, to the node where its user is now.
func (s *stock) follow(x *need, to int, rest []int) {
	from := x.node
	if x.next >= 0 {
		if x.next == to {
			s.hits++
		} else {
			s.wasted += x.sent
		}
	}
	lacking := s.hold(to, rest)
	s.fetch(x, to, lacking, from)
	s.release(x)
	x.node, x.held, x.next = to, rest, -1
}

// ahead has the node to which the user is likely to go get what is still lacking.
func (s *stock) ahead(x *need, user *hardware.User, lacking func() []int) {
	if !s.prefetch || user.Next == nil || x.next >= 0 {
		return
	}
	node, ok := user.Next()
	if !ok || node == x.node || s.depots[node] == nil {
		return
	}
	x.next, x.early = node, lacking()
	slices.Reverse(x.early) // what is needed last is surest to be lacking still when the user comes
	missing := s.hold(node, x.early)
	x.sent = 0
	for _, b := range missing {
		x.sent += s.lib.Blocks[b].Bytes
	}
	s.fetch(x, node, missing, x.node)
}

// release lets go of everything that is held for a need.
func (s *stock) release(x *need) {
	if x.node >= 0 {
		s.drop(x.node, x.held)
	}
	if x.next >= 0 {
		s.drop(x.next, x.early)
	}
	x.held, x.early = nil, nil
}

// end lets go of everything, and counts a prefetch that nobody came for.
func (s *stock) end(x *need) {
	if x.next >= 0 {
		s.wasted += x.sent
	}
	s.release(x)
}

// against are the hits that every node's shelf would have had alone, by its policy, and those of a clairvoyant, for the models
// that its users asked for.
func (s *stock) against() (got, best int) {
	for _, d := range s.depots {
		if d == nil {
			continue
		}
		a, err := shelf.Replay(s.lib, s.room, s.policy, d.asked)
		b, err2 := shelf.Replay(s.lib, s.room, shelf.Clairvoyant, d.asked)
		if err == nil && err2 == nil {
			got, best = got+a.Hits, best+b.Hits
		}
	}
	return got, best
}

// figures are those of all nodes.
func (s *stock) figures() map[string]float64 {
	f := map[string]float64{"backhaul_bytes": float64(s.moved), "churn_bytes": float64(s.churn)}
	var kept, apart units.Bytes
	for _, d := range s.depots {
		if d == nil {
			continue
		}
		models := d.shelf.Models()
		kept += s.lib.Union(models)
		for _, i := range models {
			apart += s.lib.Whole(i)
		}
	}
	f["storage_bytes"] = float64(kept)
	if apart > 0 {
		f["storage_saved"] = 1 - float64(kept)/float64(apart)
	}
	if s.plan.on {
		f["static_hit"] = s.plan.hit
	} else if got, best := s.against(); best > 0 {
		f["regret"] = float64(best-got) / float64(best)
	}
	if s.prefetch {
		f["prefetch_hits"], f["prefetch_waste"] = float64(s.hits), float64(s.wasted)
	}
	return f
}
