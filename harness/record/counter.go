package record

// Counter names what a request may do any number of times. Tables have a column
// for each counter that a run used; to add one, add a line here and to the table
// below, never in the middle: journals store numbers.
type Counter uint8

// Counters.
const (
	Drafted        Counter = iota // tokens that a draft model or head proposed
	Accepted                      // of these, tokens that the target model accepted
	Verified                      // passes of the target model over drafts
	ReusedTokens                  // prompt tokens whose keys and values a cache already had
	CacheHits                     // models, blocks, adapters or experts found where they were needed
	CacheMisses                   // of these, not found
	CacheHitBytes                 // size of what was found
	CacheMissBytes                // size of what was not
	LayersRun                     // layers executed, summed over output tokens
	LayersFull                    // layers that a model without early exit would have executed
	Escalated                     // times that a smaller model passed the request on to a larger one
	Handovers                     // changes of cell during the request
	Retries                       // transfers or operations that were repeated
	Stalls                        // hand-overs that held up the answer
	StallTime                     // nanoseconds by which they held it up, beyond the mean time between tokens
	BackhaulBytes                 // bytes over links between servers for the request
	Recomputed                    // tokens computed again because the user moved
	Place                         // number of the edge node that served the request last, from 1
	DeliveryTime                  // nanoseconds from asking for a model to having all of it
	UsableTime                    // nanoseconds from asking for a model to the first part that answers
	HeldBytes                     // bytes of the model asked for that the device had itself
	CastBytes                     // bytes that came in transmissions for several users at once
	ChurnBytes                    // bytes that entered caches of servers for the request
	OnTime                        // models that arrived within their time budget
	TooLate                       // models that did not
	MemoryHits                    // models that were in a server's memory when a request came for them
	MemoryMisses                  // models that were not
	LoadTime                      // nanoseconds in which a server brought a model to memory for the request, and served nobody
	LoadBytes                     // bytes that it brought
	FreshContext                  // thousandths of examples that the model had from requests before, each faded by its age
	Elsewhere                     // requests that another node than the nearest answered
	Recalled                      // answers taken from those to questions that were alike
	RecalledWrong                 // of these, to questions whose right answer is another
	NotRecalled                   // questions that no earlier one was like enough
	RelayedBytes                  // bytes that came from other users' devices
	Participants                  // clients of a training round whose updates counted
	Absent                        // clients of it whose updates came too late, or never
	LossMicro                     // millionths of nats: mean loss of a training round's clients on their own data
	HeldLossMicro                 // likewise of what came of it, on held-out questions
	NumCounters
)

type counter struct{ name, unit, doc string }

// counters is in the order of the constants.
var counters = [NumCounters]counter{
	{"drafted_tokens", "tok", "tokens that a draft proposed"},
	{"accepted_tokens", "tok", "drafted tokens that the target model accepted"},
	{"verify_passes", "passes", "passes of the target model over drafts"},
	{"reused_tokens", "tok", "prompt tokens whose keys and values a cache already had"},
	{"cache_hits", "objects", "models, blocks, adapters or experts found where they were needed"},
	{"cache_misses", "objects", "models, blocks, adapters or experts not found"},
	{"cache_hit_bytes", "B", "size of what the caches had"},
	{"cache_miss_bytes", "B", "size of what the caches lacked"},
	{"layers_run", "layers", "layers executed, summed over output tokens"},
	{"layers_full", "layers", "layers of a pass without early exit, summed over output tokens"},
	{"escalated", "times", "times that a smaller model passed the request on"},
	{"handovers", "times", "changes of cell during the request"},
	{"retries", "times", "transfers or operations that were repeated"},
	{"handover_stalls", "times", "hand-overs that held up the answer"},
	{"handover_stall_time", "ns", "time by which hand-overs held the answer up, beyond the mean time between its tokens"},
	{"request_backhaul_bytes", "B", "bytes over links between servers for the request"},
	{"recomputed_tokens", "tok", "tokens computed again because the user moved"},
	{"place", "number", "edge node that served the request last, from 1; absent where a site has no cells"},
	{"delivery_ns", "ns", "from asking for a model to having all of it"},
	{"usable_ns", "ns", "from asking for a model to the first part that answers"},
	{"held_bytes", "B", "bytes of the model asked for that the device had itself"},
	{"cast_bytes", "B", "bytes that came in transmissions for several users at once"},
	{"request_churn_bytes", "B", "bytes that entered caches of servers for the request"},
	{"on_time", "models", "models that arrived within their time budget"},
	{"too_late", "models", "models that did not arrive within their time budget"},
	{"memory_hits", "models", "models that were in a server's memory when a request came for them"},
	{"memory_misses", "models", "models that were not in a server's memory when a request came for them"},
	{"load_ns", "ns", "time in which a server brought a model to memory for the request"},
	{"load_bytes", "B", "bytes that a server brought to memory for the request"},
	{"fresh_context_milli", "1/1000", "thousandths of examples that the model had from requests before, each faded by its age"},
	{"elsewhere", "requests", "requests that another node than the nearest answered"},
	{"recalled", "answers", "answers taken from those to questions that were alike"},
	{"recalled_wrong", "answers", "answers taken from those to questions that were alike whose right answer is another"},
	{"not_recalled", "questions", "questions that no earlier one was like enough"},
	{"relayed_bytes", "B", "bytes of models that came from other users' devices"},
	{"participants", "clients", "clients of a training round whose updates counted"},
	{"absent", "clients", "clients of a training round whose updates came too late, or never"},
	{"train_loss_micro", "1e-6 nat", "mean loss of a training round's clients on their own data, per token"},
	{"held_loss_micro", "1e-6 nat", "loss on held-out questions of what a training round made, per token"},
}

// String is the counter as it appears in records.
func (c Counter) String() string {
	if c < NumCounters {
		return counters[c].name
	}
	return "none"
}

// Unit is what the counter counts.
func (c Counter) Unit() string { return counters[c].unit }

// Count adds to a counter.
func (r *Request) Count(c Counter, n int64) { r.Counts[c] += n }

// figure is a per-run value that no row can tell: the harness or a workload
// computes it and puts it in Cell.Figures under its name.
type figure struct {
	label
	better Better
	doc    string
}

// figures is the table of figures, sorted by name.
var figures = []figure{
	{label{"adapter_swaps", "adapter-swaps", "times"}, Lower, "LoRA adapters that the server had to load"},
	{label{"aggregation_error", "aggregation-error", "ratio"}, Lower, "distance between the aggregate and the ideal update, over the ideal's norm"},
	{label{"airtime", "airtime-sec", "sec"}, Lower, "time that the radio channel was occupied"},
	{label{"attack_success", "attack-success-share", "share"}, Lower, "share of attacks that reached their goal"},
	{label{"availability", "availability-share", "share"}, Higher, "share of the time, from the first request on, in which a replica could serve"},
	{label{"backhaul_bytes", "backhaul-B", "B"}, Lower, "bytes over links between servers"},
	{label{"batch_max", "batch-max-seqs", "sequences"}, Higher, "most sequences in one operation of the server"},
	{label{"batch_mean", "batch-mean-seqs", "sequences"}, Higher, "sequences in an operation of the server, mean"},
	{label{"battery_share_100", "battery-share/100req", "share"}, Lower, "share of a full battery that 100 requests take: what users' batteries lost in the run, idle included"},
	{label{"bubble_share", "bubble-share", "share"}, Lower, "share of pipeline slots that stood idle while work was under way"},
	{label{"capacity_dips", "capacity-dips", "1"}, Lower, "rates below the capacity at which the limits were missed all the same"},
	{label{"capacity_hi", "capacity-hi-req/s", "req/s"}, Higher, "upper end of the capacity: the largest, over seeds, of the smallest rates that failed; absent if none failed"},
	{label{"capacity_lo", "capacity-lo-req/s", "req/s"}, Higher, "lower end of the capacity: the smallest, over seeds, of the largest rates that passed"},
	{label{"capacity_probes", "capacity-probes", "1"}, Neither, "rates tried, all seeds together"},
	{label{"capacity_rps", "capacity-req/s", "req/s"}, Higher, "largest rate at which the share of requests asked for meets all limits: the median over seeds; 0 = at no rate"},
	{label{"cell_airtime_down", "cell-airtime-down-share", "share"}, Neither, "share of the time in which a cell sent, mean over cells"},
	{label{"cell_airtime_down_max", "cell-airtime-down-max-share", "share"}, Neither, "share of the time in which the busiest cell sent"},
	{label{"cell_airtime_up", "cell-airtime-up-share", "share"}, Neither, "share of the time in which a cell received, mean over cells"},
	{label{"cell_airtime_up_max", "cell-airtime-up-max-share", "share"}, Neither, "share of the time in which the busiest cell received"},
	{label{"cell_changes", "cell-changes", "times"}, Lower, "changes of cell while connected, all users together"},
	{label{"churn_bytes", "churn-B", "B"}, Lower, "bytes that entered caches after the first fill"},
	{label{"cut_mean", "cut-mean-layers", "layers"}, Neither, "layers of clients in split training, as decided, mean over rounds"},
	{label{"decision_evaluations", "decision-evaluations", "1"}, Lower, "allocations that the policy looked at, mean over decisions"},
	{label{"decision_time", "decision-sec", "sec"}, Lower, "time that the policy itself took"},
	{label{"epsilon", "epsilon", "1"}, Lower, "differential privacy spent, at the delta of the cell's parameters"},
	{label{"expert_skip", "expert-skip-share", "share"}, Lower, "share of the experts that gates chose which were skipped because their nodes were slow"},
	{label{"fairness", "fairness-jain", "ratio"}, Higher, "Jain's index of what users got: 1 = all alike"},
	{label{"fairness_down", "fairness-down-jain", "ratio"}, Higher, "Jain's index of users' rates while they receive"},
	{label{"fairness_up", "fairness-up-jain", "ratio"}, Higher, "Jain's index of users' rates while they send"},
	{label{"idle_share", "idle-share", "share"}, Lower, "share of the clients' time in training rounds that was waiting for other clients"},
	{label{"interruption", "interruption-sec", "sec"}, Lower, "service interruption by handovers, summed"},
	{label{"kl", "kl-nat", "nat"}, Lower, "Kullback-Leibler divergence from the reference model, mean per token"},
	{label{"load_cold", "load-cold-sec", "sec"}, Lower, "time to load the model with nothing in memory"},
	{label{"load_warm", "load-warm-sec", "sec"}, Lower, "time to load the model from the page cache"},
	{label{"loss_final", "loss-final-nat", "nat"}, Lower, "loss at the end of training, mean per token"},
	{label{"lost_updates", "lost-updates-share", "share"}, Lower, "share of the clients' updates that came too late for their round, or never"},
	{label{"luck_accept", "luck-accept-share", "share"}, Higher, "probability with which modelled devices accept a draft, measured on the models' own answers"},
	{label{"membership_advantage", "membership-advantage", "share"}, Lower, "how much better than luck an attack tells questions that were trained on from others, by the losses of what was trained: largest difference of its rates of right and wrong alarms"},
	{label{"node_time", "node-on-sec", "sec"}, Lower, "time that replicas were on, starting or ending, all together"},
	{label{"optimum_ratio", "optimum-ratio", "ratio"}, Higher, "objective of the best decision for the modelled instance over that of the decision taken, mean over decisions; 1 = optimal"},
	{label{"outage_share", "outage-share", "share"}, Lower, "share of messages that met a place without radio service"},
	{label{"outage_time", "outage-sec", "sec"}, Lower, "time that transfers waited for radio service, summed"},
	{label{"perplexity", "perplexity", "1"}, Lower, "exp of the mean negative log-likelihood per token"},
	{label{"ping_pongs", "ping-pongs", "times"}, Lower, "hand-overs back to the node that was left within 5 s"},
	{label{"policy_violations", "violations", "1"}, Lower, "requests whose data went where its locality class forbids; must be 0"},
	{label{"preempted", "preempted-jobs", "times"}, Lower, "times that a request lost its KV cache to another and was computed again"},
	{label{"prefetch_hits", "prefetch-hits", "times"}, Higher, "hand-overs to a node to which the cache was already being copied"},
	{label{"prefetch_waste", "prefetch-waste-B", "B"}, Lower, "bytes copied to nodes to which the user did not go"},
	{label{"prefix_store_peak", "prefix-store-peak-B", "B"}, Lower, "most bytes of keys and values that stores of prompts' prefixes held, all nodes together"},
	{label{"radio_bytes_down", "radio-down-B", "B"}, Neither, "bytes that arrived at users by radio, with framing"},
	{label{"radio_bytes_up", "radio-up-B", "B"}, Neither, "bytes that arrived from users by radio, with framing"},
	{label{"radio_failed", "radio-failed", "times"}, Lower, "messages given up for want of radio service"},
	{label{"rank_mean", "rank-mean", "1"}, Neither, "LoRA rank, as decided, mean over rounds"},
	{label{"recovered_share", "recovered-share", "share"}, Lower, "share of the prompt's tokens that an attack reads from the activations that leave the device"},
	{label{"recovery", "recovery-sec", "sec"}, Lower, "from a node's failure to the next token"},
	{label{"refused_updates", "refused-updates", "1"}, Neither, "updates that the server did not take: of a wrong size, of numbers that are none, or of somebody else's name"},
	{label{"regret", "regret-share", "share"}, Lower, "loss against the clairvoyant policy, over the latter's value"},
	{label{"replica_changes", "replica-changes", "times"}, Lower, "times that a replica came or went"},
	{label{"replicas_max", "replicas-max", "1"}, Lower, "most replicas that were on at a time"},
	{label{"replicas_mean", "replicas-mean", "1"}, Lower, "replicas that were on or starting, mean over time"},
	{label{"requests_per_charge", "req/charge", "req"}, Higher, "requests that a full battery lasts for, idle between them included as in the run"},
	{label{"round_cost", "round-cost-sec", "sec"}, Lower, "what decisions expect to cost: rounds that their rank needs x seconds and weighted joules of a round, mean"},
	{label{"round_down_bytes", "round-down-B", "B"}, Lower, "bytes to all clients, mean per training round"},
	{label{"round_error", "round-error-share", "share"}, Lower, "by how much the seconds of rounds differ from what decisions expected, over these, mean"},
	{label{"round_up_bytes", "round-up-B", "B"}, Lower, "bytes from all clients, mean per training round"},
	{label{"rounds", "rounds", "1"}, Lower, "training rounds to the target"},
	{label{"score_base", "score-base-share", "share"}, Higher, "share of held-out questions answered right before the first training round"},
	{label{"score_final", "score-final-share", "share"}, Higher, "share of held-out questions answered right after the last training round that was scored"},
	{label{"sinr_down", "sinr-down-dB", "dB"}, Higher, "signal to interference and noise at users, mean over messages"},
	{label{"sinr_up", "sinr-up-dB", "dB"}, Higher, "signal to interference and noise at bases, mean over messages"},
	{label{"spectral_down", "spectral-down-bit/s/Hz", "bit/s/Hz"}, Higher, "bits to users per second and hertz of a cell in use"},
	{label{"spectral_up", "spectral-up-bit/s/Hz", "bit/s/Hz"}, Higher, "bits from users per second and hertz of a cell in use"},
	{label{"static_hit", "static-hit-share", "share"}, Higher, "hit ratio that the placement promised: users' probabilities whose model can come in time"},
	{label{"storage_bytes", "storage-B", "B"}, Lower, "bytes that caches held at the end"},
	{label{"storage_saved", "storage-saved-share", "share"}, Higher, "share of the bytes of the models that caches hold which sharing of blocks saves, at the end, all nodes together"},
	{label{"sustained_speed", "sustained-speed-share", "share"}, Higher, "share of their full speed that the users' devices keep up under continuous work of the run's kind, by the thermal law of their profile; absent where there is none"},
	{label{"switches", "switches", "times"}, Lower, "models brought to the memory of servers"},
	{label{"system_cost", "system-cost-sec", "sec"}, Lower, "what an answered request cost, in seconds: its time, the loading of models for it, and what it lacks of fresh context, as the pipeline's parameters weigh it, mean"},
	{label{"target_bytes", "target-B", "B"}, Lower, "bytes over users' links to the training target; absent if it was not reached"},
	{label{"target_joules", "target-J", "J"}, Lower, "joules of all parts to the training target; absent if it was not reached, or if some are not known"},
	{label{"target_time", "target-sec", "sec"}, Lower, "time to the training target; absent if it was not reached"},
	{label{"throttle_time", "throttle-sec", "sec"}, Higher, "from the start to the first throttling; absent if there was none"},
	{label{"train_share", "train-share", "share"}, Lower, "share of parameters that training changes"},
	{label{"worst_client", "worst-client-share", "share"}, Higher, "share of right answers, weighted by a client's mix of applications, of the client that fares worst"},
	{label{"worst_user", "worst-user-sec", "sec"}, Lower, "median end-to-end time of the user who waits longest"},
}

// IsFigure reports whether Cell.Figures may hold a name.
func IsFigure(name string) bool {
	for _, f := range figures {
		if f.name == name {
			return true
		}
	}
	return false
}
