package harness

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"

	"meibench/hardware/costmodel"
	"meibench/harness/eval"
	"meibench/internal/portable"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/route"
	"meibench/workloads"
	"meibench/workloads/tasks"
)

// Sizes of what laws are measured on. Questions are of the validation split for
// luck and of the train split for routers: never of the test split that runs ask.
const (
	luckQuestions   = 48
	routerQuestions = 240
	luckSeed        = 20_241
	quantiles       = 33
	routerPlaces    = 256 // of hashed n-grams
	routerRuns      = 2   // tokens in the longest run
)

// stand-ins for models that are only a shape.
const (
	standInModel = "mei-small"
	standInSmall = "mei-nano"
)

// laws are what modelled devices draw from in the cells of one application and
// pair of models.
type laws struct {
	luck    costmodel.Luck
	warning string // where the models measured are not those of the cell
}

// luckOf measures, by running the reference kernels on some questions, what a
// modelled device cannot know: how often drafts are accepted and how sure models
// are. Cells of pipelines that need neither have none.
func (l *Lab) luckOf(s *setup) (laws, error) {
	var none laws
	if s.cell.Mode != "modelled" && s.cell.Mode != "conformance" || !s.pipe.Two && s.cell.Pipeline != "exit" && s.cell.Pipeline != "speculate" {
		return none, nil
	}
	main, small, warning, err := l.standIns(s)
	if err != nil {
		return none, err
	}
	task, err := s.task()
	if err != nil {
		return none, err
	}
	depth := 0 // of a draft that is the model's own lower part
	if d, ok := s.params["draft"]; ok && d == "self" {
		depth = layersOf(main.Weights.Layers, s.params.Num("exit"))
	}
	measure, _ := s.params["measure"].(string)
	key := fmt.Sprintln(main.Digest, small.Digest, task.Name, depth, measure)
	luck, err := l.luck.get(key, func() (costmodel.Luck, error) {
		return measureLuck(main, small, task, lens{depth, measure})
	})
	return laws{luck, warning}, err
}

// layersOf resolves a number of layers that may be a share of the depth.
func layersOf(layers int, n float64) int {
	if n < 1 {
		n *= float64(layers)
	}
	return min(max(int(n), 1), layers-1)
}

// standIns are the models with weights whose laws a cell uses: its own, or where
// it has only shapes the shipped ones.
func (l *Lab) standIns(s *setup) (main, small *Model, warning string, err error) {
	main, small = s.model, s.small
	if main.Weights == nil {
		if main, err = l.Model(standInModel); err != nil {
			return nil, nil, "", err
		}
		warning = fmt.Sprintf("acceptance and confidence are drawn from laws measured on %s and %s: assumed for %s", standInModel, standInSmall, s.cell.Model)
	}
	if small == nil || small.Weights == nil {
		if small, err = l.Model(standInSmall); err != nil {
			return nil, nil, "", err
		}
	}
	return main, small, warning, nil
}

// task is what the cell's application asks at task scale.
func (s *setup) task() (tasks.Task, error) { return tasks.Lookup(s.work.App().Task) }

// lens says which laws are wanted: of the draft's depth, 0 for the small model,
// and by which measure of confidence.
type lens struct {
	depth   int
	measure string
}

// of measures logits.
func (v lens) of(s *llm.Sampler, logits []float32) float64 {
	c := s.Confidence(logits)
	switch v.measure {
	case "margin":
		return c.Margin
	case "entropy":
		return min(1, max(0, 1-c.Entropy/portable.Log(float64(len(logits)))))
	}
	return c.MaxProb
}

// measureLuck follows the model's own answers: at each of their tokens it asks the
// draft, the small model and the exits what they would have said, and how surely.
func measureLuck(main, small *Model, task tasks.Task, v lens) (costmodel.Luck, error) {
	m := main.Weights
	work, draft := m.NewWork(1), small.Weights.NewWork(1)
	defer work.Close()
	defer draft.Close()
	exits := make([][]float64, m.Layers) // by layers run
	var sure []float64                   // of the small model, or without one of the model
	var sampler llm.Sampler
	agreed, asked := 0, 0
	for _, q := range task.Draw(luckSeed, tasks.Validation, "", luckQuestions) {
		prompt := main.Tok.EncodePrompt(q.Prompt)
		text, err := answerOf(work, main, prompt)
		if err != nil {
			return costmodel.Luck{}, err
		}
		for depth := 1; depth < m.Layers; depth++ {
			err := along(work, depth, text, len(prompt), func(i int, logits []float32) {
				exits[depth] = append(exits[depth], v.of(&sampler, logits))
				if depth == v.depth {
					asked++
					if llm.Greedy(logits) == text[i] {
						agreed++
					}
				}
			})
			if err != nil {
				return costmodel.Luck{}, err
			}
		}
		err = along(draft, small.Weights.Layers, text, len(prompt), func(i int, logits []float32) {
			sure = append(sure, v.of(&sampler, logits))
			if v.depth == 0 {
				asked++
				if llm.Greedy(logits) == text[i] {
					agreed++
				}
			}
		})
		if err != nil {
			return costmodel.Luck{}, err
		}
	}
	luck := costmodel.Luck{Accept: float64(agreed) / float64(max(asked, 1)), Confidence: quantilesOf(sure)}
	for depth := 1; depth < m.Layers; depth++ {
		luck.Exits = append(luck.Exits, costmodel.ExitLuck{Depth: float64(depth) / float64(m.Layers), Confidence: quantilesOf(exits[depth])})
	}
	return luck, nil
}

// answerOf is a prompt and the model's greedy answer behind it.
func answerOf(w *llm.Work, m *Model, prompt []int32) ([]int32, error) {
	most := min(eval.AnswerMost, m.Weights.Context-len(prompt))
	c, err := m.Weights.NewCache(0, m.Weights.Layers, len(prompt)+most)
	if err != nil {
		return nil, err
	}
	text := slices.Clone(prompt)
	seqs := []llm.Seq{{IDs: prompt, Cache: c}}
	for range most {
		if err := w.Forward(0, m.Weights.Layers, seqs); err != nil {
			return nil, err
		}
		next := llm.Greedy(seqs[0].Out)
		text = append(text, next)
		if next == m.Tok.EOS() {
			break
		}
		seqs[0].IDs = []int32{next}
	}
	return text, nil
}

// along runs the first layers of a model over a text and hands out the logits
// before each of its tokens from position from on.
func along(w *llm.Work, layers int, text []int32, from int, each func(i int, logits []float32)) error {
	c, err := w.Model.NewCache(0, layers, len(text))
	if err != nil {
		return err
	}
	for i := from; i < len(text); i++ {
		seqs := []llm.Seq{{IDs: text[c.Len():i], Cache: c, Want: llm.LastLogits}}
		if err := w.Forward(0, layers, seqs); err != nil {
			return err
		}
		each(i, seqs[0].Out)
	}
	return nil
}

// quantilesOf are evenly spaced quantiles of some values, least and largest included.
func quantilesOf(x []float64) []float64 {
	if len(x) == 0 {
		return nil
	}
	sort.Float64s(x)
	q := make([]float64, quantiles)
	for i := range q {
		at := float64(i) / float64(quantiles-1) * float64(len(x)-1)
		k := int(at)
		q[i] = x[k]
		if k+1 < len(x) {
			q[i] += float64((at - float64(k)) * (x[k+1] - x[k]))
		}
	}
	return q
}

// routerOf fits a router for the pair of models on the train split: a question
// needs the model if the small one is wrong and the model is right. Its score is
// a question's rank among those.
func (l *Lab) routerOf(s *setup) (func(*workloads.Request) float64, error) {
	if s.cell.Pipeline != "route" || s.model.Tok == nil {
		return nil, nil
	}
	task, err := s.task()
	if err != nil {
		return nil, err
	}
	key := fmt.Sprintln(s.model.Digest, s.small.Digest, task.Name)
	return l.routers.get(key, func() (func(*workloads.Request) float64, error) {
		return fitRouter(s.model, s.small, task)
	})
}

func fitRouter(main, small *Model, task tasks.Task) (func(*workloads.Request) float64, error) {
	var prompts []string
	questions := task.Draw(luckSeed, tasks.Train, "", routerQuestions)
	for _, q := range questions {
		prompts = append(prompts, q.Prompt)
	}
	right := func(m *Model) ([]bool, error) {
		local := eval.NewLocal(&models.Loaded{Model: m.Weights, Tokenizer: m.Tok}, 1)
		answers, err := local.Answer(context.Background(), prompts, eval.AnswerMost, func(int) {})
		ok := make([]bool, len(answers))
		for i := range answers {
			ok[i] = tasks.Exact(questions[i], answers[i])
		}
		return ok, err
	}
	strong, err := right(main)
	if err != nil {
		return nil, err
	}
	weak, err := right(small)
	if err != nil {
		return nil, err
	}
	x, y := make([][]float64, len(prompts)), make([]float64, len(prompts))
	for i, p := range prompts {
		x[i] = route.NGrams(main.Tok.EncodePrompt(p), routerRuns, routerPlaces)
		if strong[i] && !weak[i] {
			y[i] = 1
		}
	}
	r := route.Fit(x, y, 1)
	scores := make([]float64, len(x))
	for i := range x {
		scores[i] = r.Score(x[i])
	}
	sort.Float64s(scores)
	return func(req *workloads.Request) float64 {
		if req.Prompt == nil {
			return math.NaN()
		}
		return float64(sort.SearchFloat64s(scores, r.Score(route.NGrams(req.Prompt, routerRuns, routerPlaces)))) / float64(len(scores))
	}, nil
}

// leakOf is the share of a prompt's tokens that an attack reads from what pipeline
// split sends; ok is false where nothing is split or there are no weights. It is
// measured once per model, application, cut and codec.
func (l *Lab) leakOf(ctx context.Context, s *setup) (share float64, ok bool, err error) {
	if s.cell.Pipeline != "split" || s.model.Weights == nil || s.model.Tok == nil {
		return 0, false, nil
	}
	task, err := s.task()
	if err != nil {
		return 0, false, nil // an application of somebody else has no prompts of ours
	}
	layers := s.model.Weights.Layers
	cut, wire := layersOf(layers, s.params.Num("cut")), s.params.Name("wire")
	key := fmt.Sprintln(s.model.Digest, task.Name, cut, wire)
	leak, err := l.leaks.get(key, func() (eval.Leak, error) {
		setup := eval.LeakSetup{Model: &models.Loaded{Model: s.model.Weights, Tokenizer: s.model.Tok}, Task: task, Cut: cut, Wire: wire}
		return setup.Measure(ctx)
	})
	return leak.Share(), err == nil, err
}
