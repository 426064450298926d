package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"meibench/harness/eval"
	"meibench/reference/models"
	"meibench/reference/tensor"
	"meibench/workloads/tasks"
)

const evalLong = `Score a model on the five generated tasks, or on its perplexity over a text.

The model is one that meibench ships, a GGUF file, or what an OpenAI-compatible
server runs. Questions are drawn from the test split; --n of them from each of
the easy and the hard levels of each application. Exact match carries its Wilson
interval, credit and perplexity theirs; all are 95 %.

Shipped models learned the answers of the tasks and nothing else, so their perplexity on prose, or on questions, is
worse than a blind guess over their 1024 tokens: it compares versions of one model on one text, not models.`

// evalFlags are the flags of eval.
type evalFlags struct {
	model, endpoint, text string
	keyEnv                string
	apps                  []string
	split                 string
	n, layers, threads    int
	window, stride        int
	seed                  uint64
}

func newEval(a *app) *cobra.Command {
	var f evalFlags
	c := &cobra.Command{
		Use: "eval", Short: "how good a model is: tasks with known answers, perplexity of a text", Long: evalLong,
		Example: "  meibench eval\n  meibench eval --model model.gguf --app ar,robotics --n 200\n" +
			"  meibench eval --endpoint http://localhost:8080 --n 50\n  meibench eval --model model.gguf --perplexity book.txt",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case f.n < 1:
				return withCode(exitUsage, fmt.Errorf("--n %d: want at least one question", f.n))
			case f.text != "" && f.layers != 0:
				return withCode(exitUsage, errors.New("--perplexity is of the whole model: leave out --layers"))
			case f.text != "":
				return f.perplexity(c.Context(), a)
			}
			return f.tasks(c.Context(), a)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.model, "model", "", "a shipped model ("+strings.Join(shippedModels(), ", ")+") or a GGUF file; with --endpoint the server's name for it (default "+models.Default+")")
	fl.StringVar(&f.endpoint, "endpoint", "", "address of an OpenAI-compatible server to ask instead")
	fl.StringVar(&f.keyEnv, "endpoint-key-env", "", "environment variable that holds the server's bearer key")
	fl.StringSliceVar(&f.apps, "app", nil, "applications (default all)")
	fl.StringVar(&f.split, "split", string(tasks.Test), "test, or validation where something is being chosen")
	fl.IntVar(&f.n, "n", 500, "questions per application and difficulty")
	fl.Uint64Var(&f.seed, "seed", 1, "seed of the questions, and of the bootstrap of perplexity")
	fl.IntVar(&f.layers, "layers", 0, "answer early, from the first so many layers (default all)")
	fl.IntVar(&f.threads, "threads", runtime.NumCPU(), "threads; they do not change the answers")
	fl.StringVar(&f.text, "perplexity", "", "text file: measure perplexity on it instead of the tasks")
	fl.IntVar(&f.window, "window", 0, "perplexity: tokens that the model sees at once (default 512, at most its context)")
	fl.IntVar(&f.stride, "stride", 0, "perplexity: tokens between windows (default half a window)")
	return c
}

func shippedModels() []string {
	return namesOf(models.Table, func(e models.Entry) string { return e.Name })
}

// load opens the model that is asked for.
func (f *evalFlags) load() (*models.Loaded, error) {
	name := f.model
	if name == "" {
		name = models.Default
	}
	if slices.Contains(shippedModels(), name) {
		return models.Open(name)
	}
	m, err := models.Load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no model %q: meibench ships %s, and there is no such file", name, strings.Join(shippedModels(), ", "))
	}
	return m, err
}

// subject is what is evaluated, and what to call it.
func (f *evalFlags) subject() (eval.Subject, string, error) {
	if f.endpoint != "" {
		if f.layers != 0 {
			return nil, "", errors.New("--layers needs a model at hand: a server answers from all of its layers")
		}
		return &eval.Endpoint{URL: f.endpoint, Model: f.model, KeyEnv: f.keyEnv}, strings.TrimSpace(f.endpoint + " " + f.model), nil
	}
	m, err := f.load()
	if err != nil {
		return nil, "", err
	}
	local := eval.NewLocal(m, f.threads)
	local.Layers = f.layers
	name := describe(m)
	if f.layers != 0 {
		name += fmt.Sprintf(", early exit behind %d of %d layers", f.layers, m.Model.Layers)
	}
	return local, name, nil
}

// describe tells a model from its likes: files of one model in several types share a name.
func describe(m *models.Loaded) string {
	return fmt.Sprintf("%s, %d parameters, head in %v, sha256 %s, kernels %s", m.Name, m.Model.TotalParams(), m.Model.HeadType(), m.SHA256, tensor.Kernel())
}

func (f *evalFlags) tasks(ctx context.Context, a *app) error {
	for _, name := range f.apps {
		if _, err := tasks.Lookup(name); err != nil {
			return oneOf("application", name, namesOf(tasks.Table, func(t tasks.Task) string { return t.Name }))
		}
	}
	s, name, err := f.subject()
	if err != nil {
		return withCode(exitUsage, err)
	}
	p := newProgress(a.err, a.quiet)
	defer p.Close()
	opts := eval.Options{Apps: f.apps, Split: tasks.Split(f.split), N: f.n, Seed: f.seed}
	asking := ""
	opts.Progress = func(app string, done, of int) {
		if app != asking {
			asking = app
			p.Cell(max(0, slices.Index(opts.Apps, app)), max(1, len(opts.Apps)), app, of)
		}
		p.Request(done)
	}
	r, err := eval.Tasks(ctx, s, opts)
	p.Close()
	if err != nil {
		return withCode(evalCode(f.endpoint, err), err)
	}
	if a.json {
		return writeJSON(a.out, struct {
			Model string `json:"model"`
			*eval.Report
		}{name, r})
	}
	return printScores(a, name, r)
}

// evalCode tells a server that cannot answer from a question that cannot be asked.
func evalCode(endpoint string, err error) int {
	if endpoint != "" && !errors.Is(err, context.Canceled) {
		return exitEnvironment
	}
	return exitUsage
}

func printScores(a *app, name string, r *eval.Report) error {
	fmt.Fprintf(a.out, "%s\n%s split, seed %d, greedy decoding, %.1f s\n\n", name, r.Split, r.Seed, r.Took.Seconds())
	tw := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "application\tpart\tn (distinct)\texact match\t95 % interval\tcredit\tbest constant")
	row := func(app, part string, s eval.Score) {
		fmt.Fprintf(tw, "%s\t%s\t%d (%d)\t%.1f %%\t%.1f to %.1f %%\t%.3f\t%.1f %%\n", app, part, s.N, s.Distinct,
			100*s.Exact.Value, 100*s.Exact.Lo, 100*s.Exact.Hi, s.Credit.Value, 100*s.Constant)
	}
	for _, app := range r.Applications {
		row(app.Name, "easy", app.Easy)
		row("", "hard", app.Hard)
		for i, s := range app.Levels {
			if s.N == 0 {
				continue
			}
			row("", fmt.Sprintf("level %d", i+1), s)
		}
	}
	return tw.Flush()
}

func (f *evalFlags) perplexity(ctx context.Context, a *app) error {
	if f.endpoint != "" {
		return withCode(exitUsage, errors.New("--perplexity needs a model at hand: the completions protocol does not give the likelihood of a prompt everywhere"))
	}
	data, err := os.ReadFile(f.text)
	if err != nil {
		return withCode(exitUsage, fmt.Errorf("read the text for --perplexity: %w", err))
	}
	m, err := f.load()
	if err != nil {
		return withCode(exitUsage, err)
	}
	p := newProgress(a.err, a.quiet)
	defer p.Close()
	opts := eval.TextOptions{Window: f.window, Stride: f.stride, Threads: f.threads, Seed: f.seed}
	opts.Progress = func(done, of int) {
		if done == 1 {
			p.Cell(0, 1, "perplexity, windows", of)
		}
		p.Request(done)
	}
	r, err := eval.Text(ctx, m, string(data), opts)
	p.Close()
	if err != nil {
		return withCode(exitUsage, err)
	}
	if a.json {
		return writeJSON(a.out, struct {
			Model  string `json:"model"`
			SHA256 string `json:"sha256"`
			*eval.Perplexity
		}{m.Name, m.SHA256, r})
	}
	interval := "interval unknown: one window"
	if r.Windows > 1 {
		interval = fmt.Sprintf("95 %% interval %.6g to %.6g", r.Value.Lo, r.Value.Hi)
	}
	fmt.Fprintf(a.out, "%s\nperplexity %.6g, %s\n%d tokens, %d scored in %d windows of %d every %d\n",
		describe(m), r.Value.Value, interval, r.Tokens, r.Scored, r.Windows, r.Window, r.Stride)
	return nil
}
