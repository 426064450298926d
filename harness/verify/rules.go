package verify

import (
	"fmt"
	"slices"
	"strings"

	"meibench/harness/bundle"
)

// Rule is one thing that is checked.
type Rule struct {
	ID       string
	Severity bundle.Severity // of what breaks it
	Title    string          // one line
	Text     string          // what is compared with what, and why
	Fix      string          // what who hands in can do
}

// Rules is the table of all rules, sorted by ID.
func Rules() []Rule { return slices.Clone(rules) }

// Lookup finds a rule by its ID; case does not matter.
func Lookup(id string) (Rule, error) {
	for _, r := range rules {
		if strings.EqualFold(r.ID, id) {
			return r, nil
		}
	}
	var have []string
	for _, r := range rules {
		have = append(have, r.ID)
	}
	return Rule{}, fmt.Errorf("unknown rule %q (have %s)", id, strings.Join(have, ", "))
}

// Explain is a rule in full.
func (r Rule) Explain() string {
	return fmt.Sprintf("%s (%s): %s\n\n%s\n\nFix: %s\n", r.ID, r.Severity, r.Title, r.Text, r.Fix)
}

const remake = "make the bundle again with meibench bundle from the run folders as meibench run left them"

var rules = []Rule{
	{"V001", bundle.Error, "the tree is a bundle, complete and with known names only",
		"DONE is written last, so a bundle without it is part of one. A name that no bundle has could be anything; links, devices, absolute names and names that differ by case alone are refused before they are looked at.",
		remake},
	{"V002", bundle.Error, "every file has the digest that manifest, SHA256SUMS, run.json and the h1 hash say",
		"SHA256SUMS lists every file, the manifest every file but itself and what is written after it, run.json the tables of its run; statement.json and bundle.note name the h1 hash of the whole. One changed byte breaks one of them.",
		remake},
	{"V003", bundle.Warning, "the bundle is signed by a known key",
		"The note is checked against the keys of --keys. Without a known signature nobody stands behind the numbers; what the other rules find is true all the same. Unknown signers are listed.",
		"sign with meibench bundle RUN... --key FILE and give the public key to who verifies"},
	{"V004", bundle.Error, "the receipt of a committed plan is one",
		"receipt.json must prove, by an RFC 6962 path to a signed checkpoint, that this very plan was the last entry of a log when its seed was drawn, and that the attempt came later. With --log the checkpoint must be signed by that log's key; without, only the path is checked and a note says so. With the log's folder, the checkpoint must be one of its history, and where it has ends of runs of the plan, one must have these tables.",
		"run meibench run --plan FILE with the receipt that meibench plan --commit wrote"},
	{"V005", bundle.Error, "who hands in is who signed",
		"The manifest names the submitter; a note by somebody else, or by another key under the same name, was put on by who packed the files again.",
		"let the submitter sign; others may co-sign beside, not instead"},
	{"V006", bundle.Error, "the bundle is in the log that the proof is of",
		"The proof that a leaderboard gives out must lead, by an RFC 6962 path, from this bundle's h1 hash to a checkpoint that a log of --log signed. Without --proof nothing is asked.",
		"take the proof from the page of the bundle's entry, and the key from the leaderboard"},
	{"V007", bundle.Warning, "a committed plan was tried once",
		"With --log DIR all entries of the log are read: if the plan was committed or begun more than once, this run is one of several, and somebody should ask for the others.",
		"hand in all attempts, or say why one broke off"},
	{"V010", bundle.Error, "manifest, summary, plan and tables can be read",
		"JSON files are strict: unknown fields, other format versions and broken text are refused. Arrow tables must be whole and hold what they say they hold.",
		remake},
	{"V011", bundle.Error, "the Arrow schemas are the published ones, field by field",
		"Name, order, type, nullability, unit and the words of fixed dictionaries are compared with what this program writes. Other readers see the columns that ours does not look at.",
		remake},
	{"V012", bundle.Error, "suite, models and profiles are what their names say",
		"Cells are compared with the embedded suite whose hash the plan carries, but for seed and repeats; digests of models and profiles with those that this program ships. In the open division a difference is a flag, since nothing there can be looked up.",
		"run the suite as it ships, or hand in to the open division"},
	{"V013", bundle.Error, "every row belongs to the run of a cell that it says it belongs to",
		"The columns of identity in requests.arrow and cells.arrow repeat what the cell says, and the extents of the cells cover every row once. What is in a column and not in the cell would be read by other tools only.",
		remake},
	{"V014", bundle.Error, "what the manifest says of the runs is what is in them",
		"Attempts, modes, division, contracts, plans, seeds and dates are derived from the run folders again.",
		remake},
	{"V020", bundle.Error, "every run of a cell that the plan asks for is there, and none besides",
		"A plan fixes cells and repeats before anything runs. A repeat that is missing is one that somebody did not like; one that is not in the plan is one of several from which it was picked.",
		"hand in all runs of the plan: meibench run --resume finishes one that was cut off"},
	{"V021", bundle.Error, "failed requests say why, and others have no error",
		"A row that is not ok has a reason; a row that is ok has none, and has tokens if any were asked for.",
		"do not edit rows; failures count as misses and may stay"},
	{"V022", bundle.Error, "seeds are those of the plan, by their derivation",
		"Repeat 0 has the seed of the cell, or of the receipt where the plan was committed; repeat r has the one derived from it. A seed that is chosen by its result is one that the plan does not lead to.",
		"run the plan as it is; for another seed make and commit another plan"},
	{"V023", bundle.Error, "requests were intended when the schedule says",
		"Arrival times follow from suite and seed and are derived again, to the nanosecond in open workloads. Where a request waits for others, the time follows from the recorded end of those; measured runs may be 50 ms later. Latencies count from the intended start, so whoever moves it moves them.",
		"do not edit rows"},
	{"V024", bundle.Error, "users, sessions, prompts, asked tokens, sensor bytes and deadlines are the schedule's",
		"What is asked follows from suite and seed too. A shorter prompt or a laxer deadline is another benchmark.",
		"do not edit rows"},
	{"V025", bundle.Error, "every request of the schedule has one row",
		"Requests are numbered from 0 without gaps. A missing row is a slow answer that somebody took out, or one that the client never sent.",
		"hand in all rows"},
	{"V026", bundle.Error, "contracts and limits are those that the plan's names lead to",
		"The contract hash is computed again from the resolved workload, model, limits and mode and compared with the cell, the plan and run.json; so are limits and parameters.",
		"run with the same version of meibench as the verifier, and do not edit cells"},
	{"V030", bundle.Error, "every metric of cells.arrow follows from the rows",
		"All per-run metrics are computed again and compared bit for bit.",
		remake},
	{"V031", bundle.Flag, "a percentile has the samples that it takes",
		"Of n requests the p99 is with 99 % confidence no higher than the largest only from 459 on, the p95 from 90 on; with fewer it is still the quantile of what was seen, and marked. Floors: one less than 1 % of luck that none of n lies beyond.",
		"more requests, or a lower percentile"},
	{"V032", bundle.Error, "every claim of summary.json follows from the rows",
		"Claims, their intervals and counts are derived from the rows again, for all cells and metrics, and compared to the last bit.",
		remake},
	{"V033", bundle.Error, "bench.txt is what the rows give, byte for byte",
		"benchstat reads this file and nothing else, so it must not say anything else.",
		remake},
	{"V034", bundle.Error, "rows keep the invariants of records",
		"Events in order of time, spans that follow each other and add up to the request, chunks that add up to its tokens, no more tokens than asked for, no negative energy, bytes or operations, quality in [0, 1].",
		"do not edit rows"},
	{"V036", bundle.Error, "what a run says of itself is what its rows say",
		"Offered and lost requests, planned and offered spans, horizon and workers of modelled runs are computed again from rows. The gate rests on them.",
		"do not edit cells"},
	{"V037", bundle.Error, "the validity gate gives what it gave",
		"record.Cell.Judge is computed again from the facts: each reason must be listed, and a run is valid exactly if there is none.",
		"leave INVALID runs INVALID: find the cause and run again"},
	{"V040", bundle.Error, "no answer is faster than its device can compute it",
		"From release to the last token lie a pass over the prompt and one pass per further token. The least time is that of the fastest device of the site that the pipeline may use, alone: by the cost law in modelled runs, a third of the law fitted on the machine itself in measured and emulated ones, or where there is no fit half the time that operations and memory take at the profile's peak. Cached answers end below it.",
		"declare caches: run a suite about caching"},
	{"V041", bundle.Error, "clocks agree: no request lies outside the time that its run took",
		"The rows of a measured run span at most the monotonic time of the run, and runs of a folder do not take longer together than from its start to its end.",
		"do not edit rows or cells"},
	{"V042", bundle.Error, "the lateness of the client is what rows say",
		"p99 of released - intended is computed again from the rows and compared with the fact that the gate judges: an open loop that waits for answers shows here.",
		"do not edit cells; a client that cannot keep up makes a run INVALID"},
	{"V045", bundle.Error, "no answer is faster than its link can carry it",
		"Where a pipeline must ask the edge before the first token, TTFT is at least the link's least round trip plus the prompt's bytes at its largest rate. The chance of links is cut, so both are exact. Bytes sent are at least those of the prompt.",
		"do not edit rows"},
	{"V046", bundle.Error, "nodes are not busier than they can be",
		"A node's busy time is at most its slots times the run, and operations on the device of one user lie beside each other at most as many as it has slots.",
		"do not edit rows or cells"},
	{"V047", bundle.Error, "energy lies within what the profile allows",
		"A request cannot draw more than the largest power of the devices of a part for as long as it took. In measured and emulated runs energy is power times busy time by the host's profile, so its sum must not fall short of busy time either where all of it is charged to requests.",
		"do not edit rows"},
	{"V050", bundle.Error, "answers are those of the model",
		"Prompts are asked again, in emulated mode, which has the same tokens and no clock to trust; the hash of every answer must be equal. Left out where answers depend on time, and where other kernels ran: then only quality is compared.",
		"hand in answers of the model that the plan names"},
	{"V051", bundle.Error, "answers have the length that the model gives them",
		"As V050, for the number of output tokens. An answer that is cut short is fast for the wrong reason.",
		"hand in answers as the model gave them"},
	{"V053", bundle.Error, "quality is what the answers score",
		"As V050, for the score of every answer.",
		"do not edit rows"},
	{"V054", bundle.Error, "outcomes are those of the answers",
		"As V050: a request that fails when it is run again was not ok, and one whose whole answer is there did not fail. One that failed on the day and is answered now is a warning in words only: machines fail.",
		"do not edit rows"},
	{"V060", bundle.Error, "modelled runs leave the same rows when they run again",
		"The plan's cells run again with the device profile of the bundle, and every field of every row, span and cell is compared. Nothing about a modelled number has to be believed.",
		"run with the same version of meibench as the verifier, and do not edit rows"},
	{"V062", bundle.Note, "what was not run again",
		"Runs of cells that could not or need not be computed again, and why: models or profiles that are not at hand, answers that depend on time, servers, or --rerun.",
		"give model files with --model, or --rerun all"},
	{"V070", bundle.Warning, "the program was built from a clean, known commit",
		"run.json names the commit. Without one, or with changes on top, nobody can build the same program.",
		"build from a clean checkout"},
}
