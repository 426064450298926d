package eval

import (
	"context"
	"fmt"
	"strings"

	"meibench/internal/units"
	"meibench/reference/evict"
	"meibench/reference/models"
	"meibench/reference/quant"
	"meibench/reference/token"
	"meibench/workloads/tasks"
)

// Bounded is a model of this machine with a memory that keeps less than everything: one that evicts, or rounds harder. It
// is a [Subject], so what forgetting costs is measured in answers.
type Bounded struct {
	Model *models.Loaded
	Make  func() (evict.Memory, error) // an empty memory of all layers
	Peak  units.Bytes                  // the largest memory of any prompt so far
}

// Answer decodes one prompt at a time.
func (b *Bounded) Answer(ctx context.Context, prompts []string, most int, done func(int)) ([]string, error) {
	memory, err := b.Make()
	if err != nil {
		return nil, err
	}
	r := evict.NewOn(b.Model.Model, memory, 1)
	defer r.Close()
	out := make([]string, len(prompts))
	for i, p := range prompts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.Reset()
		ids, err := r.Generate(b.Model.Tokenizer.EncodePrompt(p), most, b.Model.Tokenizer.Ends)
		if err != nil {
			return nil, fmt.Errorf("answer prompt %d: %w", i, err)
		}
		out[i] = Output(b.Model.Tokenizer, ids)
		b.Peak = max(b.Peak, memory.Peak())
		if done != nil {
			done(i + 1)
		}
	}
	return out, nil
}

// Needle is a question that one place of its prompt answers.
type Needle struct {
	tasks.Instance
	Depth float64 // of that place among those of its kind: 0 is the first, 1 the last
}

// Needles are n questions of the test split that ask where one of five or six objects of a scene is.
func Needles(seed uint64, n int) ([]Needle, error) {
	t, err := tasks.Lookup("ar")
	if err != nil {
		return nil, err
	}
	var out []Needle
	for id := 0; len(out) < n; id++ {
		in := t.Generate(seed, id)
		scene, question, ok := strings.Cut(strings.TrimPrefix(in.Prompt, "see "), " ; ")
		name, asked := strings.CutPrefix(question, "where is the ")
		if !ok || !asked || in.Split != tasks.Test || in.Level != 3 {
			continue
		}
		objects := strings.Split(scene, " , ")
		for i, o := range objects {
			if strings.HasPrefix(o, strings.TrimSuffix(name, " =>")+" ") {
				out = append(out, Needle{in, float64(i) / float64(len(objects)-1)})
			}
		}
	}
	return out, nil
}

// Depths is the number of parts in which [Recall] counts.
const Depths = 3

// Recall is the share of needles that a subject finds, in all and by thirds of depth: early, middle, late.
func Recall(ctx context.Context, s Subject, needles []Needle) (all Score, parts [Depths]Score, err error) {
	prompts := make([]string, len(needles))
	for i, n := range needles {
		prompts[i] = n.Prompt
	}
	outputs, err := s.Answer(ctx, prompts, AnswerMost, func(int) {})
	if err != nil {
		return all, parts, fmt.Errorf("recall needles: %w", err)
	}
	var hits [Depths]int
	found := 0
	for i, n := range needles {
		k := min(Depths-1, int(n.Depth*Depths))
		parts[k].N++
		if tasks.Exact(n.Instance, outputs[i]) {
			hits[k]++
			found++
		}
	}
	for k := range parts {
		parts[k].Exact = wilson(hits[k], parts[k].N)
	}
	all = Score{N: len(needles), Exact: wilson(found, len(needles))}
	return all, parts, nil
}

// Stream is a long conversation: question after question of the test split, each with its answer and an end of text, in one
// text. Models of this project were trained on answers only, so these are what a perplexity should count.
type Stream struct {
	IDs    []int32
	Answer []bool // token by token: part of an answer, its end included
}

// NewStream makes a stream of at least so many tokens, of all applications in turn.
func NewStream(tok *token.Tokenizer, seed uint64, tokens int) Stream {
	s := Stream{IDs: tok.EncodePrompt("")}
	for id := 0; len(s.IDs) < tokens; id++ {
		for _, t := range tasks.Table {
			in := t.Generate(seed, id)
			if in.Split != tasks.Test {
				continue
			}
			s.IDs = append(s.IDs, tok.Encode(in.Prompt)...)
			s.Answer = append(s.Answer, make([]bool, len(s.IDs)-len(s.Answer))...)
			s.IDs = append(append(s.IDs, tok.Encode(in.Answer)...), tok.EOS())
			for len(s.Answer) < len(s.IDs) {
				s.Answer = append(s.Answer, true)
			}
		}
	}
	return s
}

// Counts is the choice of tokens for [evict.Runner.Read]: answers from token from on.
func (s Stream) Counts(from int) func(i int) bool {
	return func(i int) bool { return i >= from && s.Answer[i] }
}

// Sinks is what the first tokens are worth to a window: perplexities of the answers of a stream longer than the cache. The
// published effect, on models trained on long texts, is a window that is more than ten times worse than one that keeps 4
// sinks, and sinks within a tenth of recomputing (Xiao et al. 2024).
type Sinks struct {
	Budget, Tokens, Scored       int
	Window, Streaming, Recompute float64
}

// MeasureSinks reads a stream of tokens with budgets of so many, and counts answers behind the first budget tokens.
func MeasureSinks(m *models.Loaded, budget, tokens int, seed uint64) (Sinks, error) {
	s := NewStream(m.Tokenizer, seed, tokens)
	counts := s.Counts(budget + 1)
	again, err := evict.Recompute(m.Model, s.IDs, budget, 1, counts)
	if err != nil {
		return Sinks{}, fmt.Errorf("measure sinks: %w", err)
	}
	out := Sinks{Budget: budget, Tokens: len(s.IDs), Scored: again.Count, Recompute: again.Perplexity()}
	for _, p := range []struct {
		evict.Policy
		to *float64
	}{{evict.Window(budget), &out.Window}, {evict.Streaming(4, budget-4), &out.Streaming}} {
		r, err := evict.New(m.Model, p.Policy, evict.Options{})
		if err != nil {
			return Sinks{}, fmt.Errorf("measure sinks: %w", err)
		}
		score, err := r.Read(s.IDs, 1, counts)
		r.Close()
		if err != nil {
			return Sinks{}, fmt.Errorf("measure sinks: %w", err)
		}
		*p.to = score.Perplexity()
	}
	return out, nil
}

// MemoryRow is what a bounded memory is worth: needles found, and the most bytes that it took.
type MemoryRow struct {
	Policy string
	Budget int // tokens; 0 for none
	All    Score
	Parts  [Depths]Score // early, middle, late
	Peak   units.Bytes
}

// MeasureRecall asks n needles of a model with every policy of [evict.Table] that is named, for every budget.
func MeasureRecall(ctx context.Context, m *models.Loaded, policies []string, budgets []int, o Options) ([]MemoryRow, error) {
	needles, err := Needles(o.Seed, o.N)
	if err != nil {
		return nil, err
	}
	var rows []MemoryRow
	for _, name := range policies {
		for _, budget := range budgets {
			p, err := evict.ByName(name, budget)
			if err != nil {
				return nil, err
			}
			b := &Bounded{Model: m, Make: func() (evict.Memory, error) {
				return evict.NewCache(m.Model.Config, p, quant.F32, 0, m.Model.Layers)
			}}
			row := MemoryRow{Policy: name, Budget: budget}
			if row.All, row.Parts, err = Recall(ctx, b, needles); err != nil {
				return nil, fmt.Errorf("%s with %d tokens: %w", name, budget, err)
			}
			row.Peak = b.Peak
			rows = append(rows, row)
		}
	}
	return rows, nil
}
