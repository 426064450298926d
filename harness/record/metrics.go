package record

import (
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// Scope is what a metric has one value for.
type Scope uint8

// Scopes.
const (
	PerRequest Scope = iota + 1
	PerRun           // one value per cell and repeat
)

// Better is the direction in which a metric improves.
type Better uint8

// Directions. Neither is for sizes that describe the work, not the result.
const (
	Neither Better = iota
	Lower
	Higher
)

// String is the direction as Unit lines of the Go benchmark format spell it.
func (b Better) String() string { return [...]string{"", "lower", "higher"}[b] }

// Metric is the definition of one figure. All times count from the intended
// start unless the documentation says otherwise.
type Metric struct {
	Name   string // column name; snake case, unique
	Bench  string // unit in Go benchmark text; "" for per-request metrics, which never go there
	Unit   string // SI base unit: sec, B, J, FLOP, tok, and ratios of them; share is in [0, 1]
	Scope  Scope
	Better Better
	Exact  bool // follows from workload and seed alone, whatever the mode; otherwise sampled
	Doc    string

	of   func(*Request) float64 // per request; NaN where it has none
	base string                 // per run: the per-request metric over OK requests ...
	rank float64                // ... whose quantile this is
	less float64                // ... less this quantile; 0 = nothing
	run  func(*totals) float64  // per run, otherwise
}

// Of is a per-request metric's value, NaN where the request has none (no token,
// unknown energy). It panics for metrics of a run.
func (m *Metric) Of(r *Request) float64 { return m.of(r) }

// Metrics is the table of all metrics, sorted by scope, then name.
func Metrics() []Metric { return slices.Concat(requestMetrics(), runMetrics()) }

// Lookup finds a metric by name. Per-request and per-run names are distinct.
func Lookup(name string) (Metric, bool) {
	all := Metrics()
	i := slices.IndexFunc(all, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		return Metric{}, false
	}
	return all[i], true
}

func each(name, unit string, b Better, doc string, of func(*Request) float64) Metric {
	return Metric{Name: name, Unit: unit, Scope: PerRequest, Better: b, Doc: doc, of: of}
}

func exact(m Metric) Metric { m.Exact = true; return m }

// requestMetrics is the table of per-request metrics, sorted by name. It is made
// once and only read: summaries of small runs would spend more on it than on rows.
var requestMetrics = sync.OnceValue(func() []Metric {
	ms := []Metric{
		exact(each("asked_tokens", "tok", Neither, "output tokens asked for", func(r *Request) float64 { return float64(r.AskedTokens) })),
		each("batch_time", "sec", Lower, "time served in a batch with others", spent(Batch)),
		each("compute_time", "sec", Lower, "time in operations for this request alone", spent(Compute)),
		each("delivery", "sec", Lower, "from asking for a model to having all of it; requests that asked for one", timeOf(DeliveryTime)),
		each("derived_bytes_out", "B", Lower, "data computed from user data that left the device", func(r *Request) float64 { return float64(r.DerivedBytesOut) }),
		each("down_bytes", "B", Lower, "bytes towards the user over all links", func(r *Request) float64 { return float64(r.DownBytes) }),
		each("e2e", "sec", Lower, "done - intended", func(r *Request) float64 { return since(r.Done, r.Intended) }),
		each("energy", "J", Lower, "sum over parts; unknown if a step of any part is", energy),
		each("energy_cloud", "J", Lower, "spent in the cloud", energyOf(CloudPart)),
		each("energy_device", "J", Lower, "spent by the device without its radio", energyOf(DevicePart)),
		each("energy_edge", "J", Lower, "spent at the edge", energyOf(EdgePart)),
		each("energy_radio", "J", Lower, "spent by the device's radio", energyOf(RadioPart)),
		each("energy_token", "J/token", Lower, "energy / output tokens", func(r *Request) float64 { return over(energy(r), r.OutputTokens) }),
		each("flop", "FLOP", Lower, "floating-point operations executed", func(r *Request) float64 { return float64(r.FLOP) }),
		each("itl_max", "sec", Lower, "largest gap between successive chunks with tokens", itlMax),
		each("late", "sec", Lower, "released - intended: how late the client was", func(r *Request) float64 { return since(r.Released, r.Intended) }),
		each("output_tokens", "tok", Neither, "tokens that reached the user", func(r *Request) float64 { return float64(r.OutputTokens) }),
		each("peak_bytes", "B", Lower, "resident high-water mark on the device", func(r *Request) float64 { return float64(r.PeakBytes) }),
		exact(each("prompt_tokens", "tok", Neither, "length of the prompt", func(r *Request) float64 { return float64(r.PromptTokens) })),
		each("quality", "score", Higher, "task score in [0, 1]", func(r *Request) float64 { return r.Quality }),
		each("queue_time", "sec", Lower, "time waiting for a device, a link or admission", spent(Queue)),
		each("raw_bytes_out", "B", Lower, "user data that left the device", func(r *Request) float64 { return float64(r.RawBytesOut) }),
		exact(each("sensor_bytes", "B", Neither, "sensor data that comes with the prompt", func(r *Request) float64 { return float64(r.SensorBytes) })),
		each("tpot", "sec", Lower, "(last token - first token) / (tokens - 1), two tokens or more", TPOTOf),
		each("transfer_time", "sec", Lower, "time on links", spent(Transfer)),
		each("ttfat", "sec", Lower, "first token that is not reasoning - intended", func(r *Request) float64 { return since(r.FirstAnswerToken, r.Intended) }),
		each("ttft", "sec", Lower, "first token - intended: no coordinated omission", func(r *Request) float64 { return since(r.FirstToken, r.Intended) }),
		each("ttft_service", "sec", Lower, "first token - sent", func(r *Request) float64 { return since(r.FirstToken, r.Sent) }),
		each("usable", "sec", Lower, "from asking for a model to the first part that answers; requests that asked for one", timeOf(UsableTime)),
		each("up_bytes", "B", Lower, "bytes away from the user over all links", func(r *Request) float64 { return float64(r.UpBytes) }),
		each("wait_time", "sec", Lower, "any other time", spent(Wait)),
	}
	for c, k := range counters {
		ms = append(ms, each(k.name, k.unit, Neither, k.doc, func(r *Request) float64 { return float64(r.Counts[c]) }))
	}
	return byName(ms)
})

func byName(ms []Metric) []Metric {
	slices.SortFunc(ms, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return ms
}

// quantile makes the per-run metric base_pNN.
func quantile(base, p string, doc string) Metric {
	ranks := map[string]float64{"p50": 0.5, "p95": 0.95, "p99": 0.99}
	all := requestMetrics()
	b := all[slices.IndexFunc(all, func(m Metric) bool { return m.Name == base })]
	name := base + "_" + p
	return Metric{Name: name, Bench: strings.ReplaceAll(name, "_", "-") + "-" + b.Unit, Unit: b.Unit, Scope: PerRun,
		Better: b.Better, Doc: doc, base: base, rank: ranks[p], of: b.of}
}

// quantileBases are the per-request metrics that a run reports by quantiles over
// its OK requests, each the smallest value with at least that share at or below.
var quantileBases = [...]string{"delivery", "e2e", "itl_max", "late", "queue_time", "tpot", "ttft", "ttft_service", "usable"}

// label is how a per-run metric is called: its column, its unit in benchmark
// text, its unit.
type label struct{ name, bench, unit string }

func whole(l label, b Better, doc string, run func(*totals) float64) Metric {
	return Metric{Name: l.name, Bench: l.bench, Unit: l.unit, Scope: PerRun, Better: b, Doc: doc, run: run}
}

// runMetrics is the table of per-run metrics, sorted by name; also only read.
var runMetrics = sync.OnceValue(func() []Metric {
	ms := []Metric{
		whole(label{"accept_rate", "accept-share", "share"}, Higher, "accepted / drafted tokens", func(t *totals) float64 { return t.ratio(Accepted, Drafted) }),
		whole(label{"byte_hit_ratio", "byte-hit-share", "share"}, Higher, "bytes found in caches / bytes looked for", func(t *totals) float64 { return t.share(CacheHitBytes, CacheMissBytes) }),
		whole(label{"cast_share", "cast-share", "share"}, Neither, "bytes that came in transmissions for several users / bytes towards users", func(t *totals) float64 { return float64(t.counts[CastBytes]) / t.down }),
		whole(label{"held_share", "held-share", "share"}, Higher, "bytes of models that devices had themselves / bytes of the models asked for", func(t *totals) float64 { return t.heldShare() }),
		whole(label{"hit_ratio", "hit-share", "share"}, Higher, "objects found in caches / objects looked for", func(t *totals) float64 { return t.share(CacheHits, CacheMisses) }),
		whole(label{"memory_hit_ratio", "memory-hit-share", "share"}, Higher, "requests whose model was in a server's memory / requests for one", func(t *totals) float64 { return t.share(MemoryHits, MemoryMisses) }),
		whole(label{"load_time_request", "load-sec/req", "sec/req"}, Lower, "time in which servers brought models to memory / requests", func(t *totals) float64 { return t.loading(LoadTime, 1e-9) }),
		whole(label{"load_bytes_request", "load-B/req", "B/req"}, Lower, "bytes that servers brought to memory / requests", func(t *totals) float64 { return t.loading(LoadBytes, 1) }),
		whole(label{"fresh_context", "fresh-context-examples", "examples"}, Higher, "examples that a request's model had in its context, each faded by its age / requests", func(t *totals) float64 { return t.loading(FreshContext, 1e-3) }),
		whole(label{"layer_share", "layer-share", "share"}, Lower, "layers executed / layers without early exit", func(t *totals) float64 { return t.ratio(LayersRun, LayersFull) }),
		whole(label{"escalated_share", "escalated-share", "share"}, Neither, "times that a larger model was asked / requests", func(t *totals) float64 { return float64(t.counts[Escalated]) / float64(t.requests) }),
		whole(label{"prefix_reuse", "prefix-reuse-share", "share"}, Higher, "prompt tokens that a cache already had / prompt tokens", func(t *totals) float64 { return float64(t.counts[ReusedTokens]) / t.prompt }),
		whole(label{"relayed_share", "relayed-share", "share"}, Neither, "bytes that came from other users' devices / these and bytes towards users by radio", func(t *totals) float64 { return t.relayedShare() }),
		whole(label{"recalled_share", "recalled-share", "share"}, Higher, "answers taken from those to questions that were alike / questions looked up", func(t *totals) float64 { return t.share(Recalled, NotRecalled) }),
		whole(label{"recalled_wrong_share", "recalled-wrong-share", "share"}, Lower, "of the answers taken from those to questions that were alike, those to questions whose right answer is another", func(t *totals) float64 { return t.ratio(RecalledWrong, Recalled) }),
		whole(label{"on_time_share", "on-time-share", "share"}, Higher, "models that arrived within their time budget / models asked for with one", func(t *totals) float64 { return t.share(OnTime, TooLate) }),
		whole(label{"tokens_per_verify", "tok/verify", "tok"}, Higher, "(accepted tokens + passes) / passes: each pass adds one token of its own", func(t *totals) float64 { return 1 + t.ratio(Accepted, Verified) }),
		whole(label{"completed_rate", "completed-req/s", "req/s"}, Higher, "OK requests / time from the first intended start to the last end", func(t *totals) float64 { return float64(t.ok) / t.makespan() }),
		whole(label{"concurrency", "concurrency-req", "req"}, Neither, "mean requests in the system: summed e2e of all / makespan", func(t *totals) float64 { return t.inSystem / t.makespan() }),
		whole(label{"down_bytes_request", "down-B/req", "B/req"}, Lower, "bytes towards the user / requests", func(t *totals) float64 { return t.down / float64(t.requests) }),
		whole(label{"energy_per_good", "J/good-req", "J/req"}, Lower, "energy of all requests / good requests", func(t *totals) float64 { return t.joules() / float64(t.good) }),
		whole(label{"energy_per_quality", "J/correct", "J/score"}, Lower, "energy of all requests / summed quality: J per correct answer", func(t *totals) float64 { return t.joules() / t.quality }),
		whole(label{"energy_per_request", "J/req", "J/req"}, Lower, "energy of all requests / requests", func(t *totals) float64 { return t.joules() / float64(t.requests) }),
		whole(label{"energy_per_token", "J/token", "J/token"}, Lower, "energy of all requests / tokens that reached users", func(t *totals) float64 { return t.joules() / t.tokens }),
		whole(label{"good_token_rate", "good-tok/s", "tok/s"}, Higher, "tokens of good requests / offered time", func(t *totals) float64 { return t.goodTokens / t.offered() }),
		whole(label{"goodput", "goodput-req/s", "req/s"}, Higher, "requests OK and within all limits by the intended clock / offered time", func(t *totals) float64 { return float64(t.good) / t.offered() }),
		whole(label{"goodput_share", "goodput-share", "share"}, Higher, "requests OK and within all limits / requests; failures are misses", func(t *totals) float64 { return float64(t.good) / float64(t.requests) }),
		whole(label{"makespan", "makespan-sec", "sec"}, Lower, "first intended start to last end", func(t *totals) float64 { return t.makespan() }),
		whole(label{"miss_share", "miss-share", "share"}, Lower, "requests that failed, timed out, were rejected or cancelled / requests", func(t *totals) float64 { return 1 - float64(t.ok)/float64(t.requests) }),
		exact(whole(label{"offered_rate", "offered-req/s", "req/s"}, Neither, "requests / offered time", func(t *totals) float64 { return float64(t.requests) / t.offered() })),
		whole(label{"quality_mean", "quality-score", "score"}, Higher, "mean task score of the requests that have one; failures without one are left out", func(t *totals) float64 { return t.quality / float64(t.scored) }),
		exact(whole(label{"requests", "requests", "req"}, Neither, "requests of the run", func(t *totals) float64 { return float64(t.requests) })),
		whole(label{"token_rate", "tok/s", "tok/s"}, Higher, "tokens of OK requests / makespan", func(t *totals) float64 { return t.okTokens / t.makespan() }),
		whole(label{"up_bytes_request", "up-B/req", "B/req"}, Lower, "bytes away from the user / requests", func(t *totals) float64 { return t.up / float64(t.requests) }),
		whole(label{"utilisation_max", "utilisation-max-share", "share"}, Neither, "busy share of the busiest node's slots over the makespan", func(t *totals) float64 { return t.utilisation() }),
	}
	for _, base := range quantileBases {
		for _, p := range [...]string{"p50", "p95", "p99"} {
			ms = append(ms, quantile(base, p, p+" of "+base+" over OK requests"))
		}
	}
	ms = append(ms, levelMetrics()...)
	ms = append(ms, steadiness()...)
	for _, f := range figures {
		ms = append(ms, whole(f.label, f.better, f.doc, func(t *totals) float64 { return t.figure(f.name) }))
	}
	return byName(ms)
})

// ofRounds reports whether a metric of requests says something of rounds of training, which have no tokens, limits or answers. Figures do:
// the harness gives a cell those that it has.
func (m *Metric) ofRounds() bool {
	return IsFigure(m.Name) || m.base == "e2e" || m.base == "queue_time" || slices.Contains(roundMetrics[:], m.Name)
}

var roundMetrics = [...]string{"completed_rate", "down_bytes_request", "energy_per_request", "makespan", "miss_share", "requests", "up_bytes_request", "utilisation_max"}

func since(at, from time.Duration) float64 {
	if at == Unset || from == Unset {
		return math.NaN()
	}
	return (at - from).Seconds()
}

func over(x float64, n int) float64 {
	if n == 0 {
		return math.NaN()
	}
	return x / float64(n)
}

func spent(k Kind) func(*Request) float64 {
	return func(r *Request) float64 {
		if r.Brief {
			return math.NaN()
		}
		var d time.Duration
		for i := range r.Spans {
			if r.Spans[i].Kind == k {
				d += r.Spans[i].End - r.Spans[i].Start
			}
		}
		return d.Seconds()
	}
}

// timeOf is a counter of nanoseconds; 0 means that the request has no such time.
func timeOf(c Counter) func(*Request) float64 {
	return func(r *Request) float64 {
		if r.Counts[c] == 0 {
			return math.NaN()
		}
		return time.Duration(r.Counts[c]).Seconds()
	}
}

func energyOf(p Part) func(*Request) float64 {
	return func(r *Request) float64 {
		if !r.Energy[p].Known() {
			return math.NaN()
		}
		return float64(r.Energy[p].Joules)
	}
}

// energy is the sum of the known parts. A part that was not involved counts
// nothing; one with a step that could not tell makes the sum unknown.
func energy(r *Request) float64 {
	sum, known := 0.0, false
	for _, e := range r.Energy {
		if e.Unknown {
			return math.NaN()
		}
		if e.Known() {
			sum, known = sum+float64(e.Joules), true
		}
	}
	if !known {
		return math.NaN()
	}
	return sum
}

func itlMax(r *Request) float64 {
	if r.Brief {
		return math.NaN()
	}
	gap, last := Unset, Unset
	for _, c := range r.Chunks {
		if c.Tokens == 0 {
			continue
		}
		if last != Unset {
			gap = max(gap, c.At-last)
		}
		last = c.At
	}
	if gap == Unset {
		return math.NaN()
	}
	return gap.Seconds()
}

// loading is a counter of servers that bring models to memory, per request; NaN where none does.
func (t *totals) loading(c Counter, unit float64) float64 {
	if t.counts[MemoryHits]+t.counts[MemoryMisses] == 0 {
		return math.NaN()
	}
	return float64(float64(t.counts[c])*unit) / float64(t.requests)
}

// relayedShare is NaN where no device sends to another.
func (t *totals) relayedShare() float64 {
	if t.counts[RelayedBytes] == 0 {
		return math.NaN()
	}
	return float64(t.counts[RelayedBytes]) / (float64(t.counts[RelayedBytes]) + t.down)
}
