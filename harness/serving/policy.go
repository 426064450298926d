package serving

import (
	"fmt"
	"strings"
	"time"

	"meibench/hardware"
	"meibench/internal/units"
)

// View is what a policy sees. Policies read it and change nothing.
type View struct {
	Waiting []*Job // oldest first
	Running []*Job // in the order they entered
	Answers int    // answers that run too and are only counted: each adds a token to its operation
	Most    int    // sequences per operation
	Bounded bool   // KV memory is limited
	Total   units.Bytes
	Free    units.Bytes
	Paged   bool
	Block   int // tokens
	Now     time.Duration
	Pace    Pace
}

// Slice is a part of a running job's work: so many of its tokens.
type Slice struct {
	Job    int // index in View.Running
	Tokens int
}

// Policy decides; see Policies. Both methods append to a slice and return it.
type Policy interface {
	// Admit says which waiting jobs enter now, by ascending index.
	Admit(v *View, to []int) []int
	// Step says what the phase-th operation of an iteration runs, by ascending
	// index. Phase 0 may be empty; the iteration ends at the first later phase
	// that is.
	Step(v *View, phase int, to []Slice) []Slice
	// Answers says whether the phase-th operation is that of View.Answers.
	Answers(phase int) bool
}

// PolicyInfo names a policy.
type PolicyInfo struct{ Name, Doc string }

// Policies lists the policies by name.
var Policies = []PolicyInfo{
	{"chunked", "every operation: one token of each running answer, the rest of a token budget from one prompt at a time (Sarathi-Serve, OSDI'24)"},
	{"continuous", "newcomers enter between steps and are prefilled together (Orca, OSDI'22)"},
	{"slo", "continuous; of what waits, the largest set that meets its deadlines enters (after DFTSP, a depth-first search with pruning)"},
	{"static", "a batch is filled, and runs until all its answers are done"},
}

// FindPolicy makes the policy that options name.
func FindPolicy(o Options) (Policy, error) {
	switch o.Policy {
	case "", "continuous":
		return continuous{}, nil
	case "chunked":
		if o.Chunk < 1 {
			return nil, fmt.Errorf("policy chunked: want at least 1 token per operation, got %d", o.Chunk)
		}
		return chunked{o.Chunk}, nil
	case "slo":
		return slo{}, nil
	case "static":
		return static{}, nil
	}
	var names []string
	for _, p := range Policies {
		names = append(names, p.Name)
	}
	return nil, fmt.Errorf("unknown policy %q (have %s)", o.Policy, strings.Join(names, ", "))
}

// whole is the memory of a job's KV cache at its longest.
func (v *View) whole(j *Job) units.Bytes { return v.room(j, j.Grow) }

// room is the memory of a cache of n tokens.
func (v *View) room(j *Job, n int) units.Bytes {
	if v.Paged && !j.session {
		n = (n + v.Block - 1) / v.Block * v.Block
	}
	return units.Bytes(n) * j.Held.perToken()
}

// Need is the memory a waiting job takes when it enters: all it will ever need,
// or in pages that of its prompt.
func (v *View) Need(j *Job) units.Bytes {
	if v.Paged && !j.session {
		return v.room(j, j.Context+j.Todo)
	}
	return v.whole(j)
}

// inOrder admits first come, first served, while there is room.
func (v *View) inOrder(to []int) []int {
	free, room := v.Free, v.Most-len(v.Running)-v.Answers
	for i, j := range v.Waiting {
		need := v.Need(j)
		if len(to) >= room || v.Bounded && need > free {
			break
		}
		free -= need
		to = append(to, i)
	}
	return to
}

// of appends the running jobs whose prompts are done, or are not.
func (v *View) of(to []Slice, prompts bool) []Slice {
	for i, j := range v.Running {
		if (j.kind == hardware.Prefill) != prompts {
			continue
		}
		n := 1
		if j.session {
			n = j.seq.New
		} else if prompts {
			n = j.Todo
		}
		to = append(to, Slice{i, n})
	}
	return to
}

// fused reports whether slices mix prompts and answers of whole jobs: they run
// as one operation.
func (v *View) fused(slices []Slice) bool {
	var prompt, answer bool
	for _, s := range slices {
		if j := v.Running[s.Job]; !j.session {
			prompt, answer = prompt || j.kind == hardware.Prefill, answer || j.kind == hardware.Decode
		}
	}
	return prompt && answer
}

// prompts reports whether slices of whole jobs are of prompts.
func (v *View) prompts(slices []Slice) bool {
	for _, s := range slices {
		if j := v.Running[s.Job]; !j.session && j.kind == hardware.Prefill {
			return true
		}
	}
	return false
}

// continuous batching: iteration-level scheduling.
type continuous struct{}

func (continuous) Admit(v *View, to []int) []int { return v.inOrder(to) }

func (continuous) Step(v *View, phase int, to []Slice) []Slice {
	switch phase {
	case 0:
		return v.of(to, true)
	case 1:
		return v.of(to, false)
	}
	return to
}

func (continuous) Answers(phase int) bool { return phase == 1 }

// static batching: nobody enters before all have left.
type static struct{ continuous }

func (static) Admit(v *View, to []int) []int {
	if len(v.Running)+v.Answers > 0 {
		return to
	}
	return v.inOrder(to)
}

// chunked prefill: every operation has at most budget tokens, answers first.
type chunked struct{ budget int }

func (chunked) Admit(v *View, to []int) []int { return v.inOrder(to) }

func (c chunked) Step(v *View, phase int, to []Slice) []Slice {
	if phase > 0 {
		return to
	}
	left := c.budget - v.Answers
	for _, j := range v.Running {
		if j.session {
			left -= j.seq.New
		} else if j.kind == hardware.Decode {
			left--
		}
	}
	left = max(left, 1) // a prompt always moves on
	for i, j := range v.Running {
		switch {
		case j.session:
			to = append(to, Slice{i, j.seq.New})
		case j.kind == hardware.Decode:
			to = append(to, Slice{i, 1})
		case left > 0:
			n := min(j.Todo, left)
			left -= n
			to = append(to, Slice{i, n})
		}
	}
	return to
}

func (chunked) Answers(phase int) bool { return phase == 0 }

// slo admits the largest set that meets its deadlines.
type slo struct{ continuous }

func (slo) Admit(v *View, to []int) []int { return Select(v, to) }

// Pace is how fast the server has been of late: what an SLO-aware policy
// predicts with. The zero Pace knows nothing and predicts no time at all.
type Pace struct {
	Token time.Duration // of a prompt token in a prefill
	Step  time.Duration // of a decode step
	Extra time.Duration // of one more sequence in it
}

// learning is the weight of the latest operation.
const learning = 8 // 1/8

func (p *Pace) learn(kind hardware.Kind, tokens int, took time.Duration) {
	mix := func(old *time.Duration, now time.Duration) {
		if *old == 0 {
			*old = now
			return
		}
		*old += (now - *old) / learning
	}
	switch kind {
	case hardware.Prefill:
		mix(&p.Token, took/time.Duration(max(tokens, 1)))
	case hardware.Decode:
		if tokens > 1 && took > p.Step && p.Step > 0 {
			mix(&p.Extra, (took-p.Step)/time.Duration(tokens-1))
			return
		}
		mix(&p.Step, took)
	}
}

// Time predicts how long a batch of so many sequences takes: its prompt tokens,
// then as many steps as the longest answer has.
func (p *Pace) Time(prompt, seqs, steps int) time.Duration {
	return time.Duration(prompt)*p.Token + time.Duration(max(steps-1, 0))*(p.Step+time.Duration(max(seqs-1, 0))*p.Extra)
}
