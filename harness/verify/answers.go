package verify

import (
	"fmt"
	"math"
	"strings"

	"meibench/hardware"
	"meibench/harness"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/canon"
)

// answer is what of a request does not depend on time.
type answer struct {
	ok      bool
	err     string
	tokens  int
	hash    uint64
	quality float64
}

type answers map[int]answer

func answerOf(r *record.Request) answer {
	return answer{r.Outcome == record.OK, r.Err, r.OutputTokens, r.OutputHash, r.Quality}
}

// mostAnswers bounds the answers that are kept between bundles.
const mostAnswers = 1 << 20

// kernels computes the answers of arms again, in emulated mode, and compares.
func (k *check) kernels(f *folder, arms []*arm) error {
	var fresh []*arm
	wanted := map[string]bool{}
	for _, a := range arms {
		id := question(a)
		if _, ok := k.answers[id]; !ok && !wanted[id] {
			wanted[id] = true
			fresh = append(fresh, a)
		}
	}
	if err := k.ask(fresh); err != nil {
		return err
	}
	runs := indexOf(f.set)
	for _, a := range arms {
		i, ok := runs[a.Key()]
		if !ok {
			continue
		}
		n, err := k.grade(f, i, a, k.answers[question(a)])
		if err != nil {
			return err
		}
		k.replay.Kernels++
		k.replay.Rows += n
	}
	return nil
}

// question identifies what decides the answers of an arm: all of its cell but the
// mode, and what only decides when.
func question(a *arm) string {
	c := a.Cell
	c.Name, c.Mode, c.Find, c.Warmup, c.Repeats, c.Seed, c.Part = "", "", nil, 0, 0, 0, ""
	h, err := canon.Hash([]any{c, a.Seed, a.terms.Model.Digest})
	if err != nil {
		panic(err) // the cell came from JSON
	}
	return h
}

// ask runs arms in emulated mode and keeps their answers.
func (k *check) ask(arms []*arm) error {
	if len(arms) == 0 {
		return nil
	}
	if k.Checker.answers == nil || k.held > mostAnswers {
		k.Checker.answers, k.held = map[string]answers{}, 0
	}
	emulated := func(a *harness.Arm) { a.Cell.Mode, a.Cell.Find, a.Cell.Warmup, a.Bare = "emulated", nil, 0, true }
	return k.runAgain(arms, emulated, func(set *results.Set) error {
		runs := indexOf(set)
		for _, a := range arms {
			list := answers{}
			for r, err := range set.Rows(runs[a.Key()]) {
				if err != nil {
					return err
				}
				list[r.ID] = answerOf(r)
			}
			k.Checker.answers[question(a)] = list
			k.held += len(list)
		}
		return nil
	})
}

// grade compares the answers of run i with those computed again.
func (k *check) grade(f *folder, i int, a *arm, own answers) (rows int, err error) {
	bits := sameKernels(f)
	if !bits {
		k.short = true
		k.rep.say("V062", f.in(results.ManifestFile, ""), "computed by %q kernels, here are others: words may differ, so only quality is compared", f.set.Manifest.Host["kernels"])
	}
	key := a.Key()
	for r, err := range f.set.Rows(i) {
		if err != nil {
			return rows, err
		}
		rows++
		at := f.in(results.RequestsFile, fmt.Sprintf("%s request %d", key.String(), r.ID))
		want, known := own[r.ID]
		if !known {
			k.rep.say("V054", at, "the replay has no such request")
			continue
		}
		k.mark(at, answerOf(r), want, bits)
	}
	return rows, nil
}

// mark compares one answer.
func (k *check) mark(at spot, got, want answer, bits bool) {
	switch {
	case got.ok && !want.ok && (strings.Contains(want.err, hardware.ErrLinkDown.Error()) || strings.Contains(want.err, hardware.ErrDown.Error())):
		k.short = true // weather is keyed by time, and times are others here
		k.rep.say("V062", at, "the replay met a link or a device that was down: not compared")
		return
	case got.ok && !want.ok:
		k.rep.say("V054", at, "is ok, the replay fails: %s", want.err)
		return
	case !got.ok && want.ok && want.tokens > 0 && got.tokens == want.tokens && got.hash == want.hash:
		k.rep.say("V054", at, "failed (%s), and the whole answer is there", got.err)
		return
	case !got.ok && want.ok:
		k.rep.sayAs("V054", "warning", at, "failed (%s), the replay does not: machines fail, and it counts as a miss", got.err)
		return
	case !got.ok:
		return
	}
	if got.quality != want.quality && !(math.IsNaN(got.quality) && math.IsNaN(want.quality)) {
		k.rep.say("V053", at, "quality %g, the model's answer scores %g", got.quality, want.quality)
	}
	if !bits {
		return
	}
	switch {
	case got.tokens != want.tokens:
		k.rep.say("V051", at, "%d output tokens, the model gives %d", got.tokens, want.tokens)
	case got.hash != want.hash:
		k.rep.say("V050", at, "answer %016x, the model's is %016x", got.hash, want.hash)
	}
}
