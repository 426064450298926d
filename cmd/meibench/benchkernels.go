package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meibench/hardware/probe"
	"meibench/internal/host"
	"meibench/internal/units"
	"meibench/reference/convert"
	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/quant"
	"meibench/reference/tensor"
	"meibench/reports/engine"
)

const benchKernelsLong = `Measure the kernels of the reference engine, and what share of this machine's limits they reach.

Without --model: every operation of one synthetic transformer layer, by type of
weights, number of tokens and threads. Weights are read from copies that no cache
holds, as in a real decode.

With --model: prompts (pp), generation (tg), and both behind a filled cache
(@ d4096), with the rows of llama-bench; its JSON, JSONL and CSV are read by what
reads those of llama-bench.

Limits are measured first: memory and caches by reading, arithmetic by multiplying
in registers, each with its best loop. A share is the least time that the limits
allow, over the time that was taken; "limit" names what binds. MEIBENCH_CPU
forces the kernels of a lower tier.`

// benchFlags are the flags of bench-kernels.
type benchFlags struct {
	shape          string
	types          []string
	tokens, depths []int

	models       []string
	prompts, gen []int
	threads      []int
	repeats      int
	cache        string

	output, bench, figure string

	limits *probe.Limits // measured already; nil: measure
	memory units.Bytes   // of copies; 0 is the usual one
	target time.Duration // of a trial; 0 is the usual one
}

func newBenchKernels(a *app) *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use: "bench-kernels", Short: "how fast the reference engine is, beside the limits of this machine", Long: benchKernelsLong,
		Example: "  meibench bench-kernels\n  meibench bench-kernels --shape qwen2.5-0.5b --types q8_0,q4_0 --tokens 1,512 --figure roofline.svg\n" +
			"  meibench bench-kernels --model model.gguf -p 512 -n 128 -d 0,4096 -t 1,2\n" +
			"  meibench bench-kernels --model a.gguf --model b.gguf -o jsonl > rows.jsonl\n" +
			"  meibench bench-kernels --bench new.txt && benchstat old.txt new.txt",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.settle(a, c.Flags().Changed); err != nil {
				return withCode(exitUsage, err)
			}
			return f.run(c.Context(), a)
		},
	}
	var layers []string
	for _, l := range probe.Layers {
		layers = append(layers, l.Name)
	}
	all := []int{1}
	if n := runtime.NumCPU(); n > 1 {
		all = append(all, n)
	}
	fl := c.Flags()
	fl.StringVar(&f.shape, "shape", "tinyllama", "layer: "+strings.Join(layers, ", ")+", or sizes such as C=2048,F=5632,H=32,G=4,D=64")
	fl.StringSliceVar(&f.types, "types", []string{"q8_0", "q4_0", "q4_k", "q5_k", "q6_k", "f16", "bf16", "f32"}, "types of weights: "+strings.ToLower(fmt.Sprint(quant.Encodable())))
	fl.IntSliceVar(&f.tokens, "tokens", []int{1, 8, 512}, "tokens at once")
	fl.StringArrayVarP(&f.models, "model", "m", nil, "GGUF file or shipped model ("+strings.Join(shippedModels(), ", ")+") to run whole; may be repeated")
	fl.IntSliceVarP(&f.prompts, "prompt", "p", []int{512}, "with --model: tokens of a prompt; 0 for none (default with a shipped model, whose context is 256: 128)")
	fl.IntSliceVarP(&f.gen, "gen", "n", []int{128}, "with --model: tokens to generate; 0 for none (default with a shipped model 64)")
	fl.IntSliceVarP(&f.depths, "depth", "d", []int{0}, "tokens that are in the cache before (default without --model 512,4096)")
	fl.IntSliceVarP(&f.threads, "threads", "t", all, "numbers of threads")
	fl.IntVarP(&f.repeats, "repeats", "r", 5, "with --model: repeats of each test, after a warm-up")
	fl.StringVar(&f.cache, "cache-type", "f16", "keys and values: "+strings.ToLower(fmt.Sprint(tensor.KVTypes())))
	fl.StringVarP(&f.output, "output", "o", "table", strings.Join(engine.Formats, ", "))
	fl.StringVar(&f.bench, "bench", "", "also write Go benchmark text for benchstat")
	fl.StringVar(&f.figure, "figure", "", "also draw the roofline: FILE.svg, FILE.png or FILE.pdf")
	return c
}

// settle checks flags against each other before anything is measured.
func (f *benchFlags) settle(a *app, changed func(flag string) bool) error {
	others, why := []string{"prompt", "gen", "repeats"}, "says how a whole model runs: name one with --model"
	if len(f.models) > 0 {
		others, why = []string{"shape", "types", "tokens"}, "is for the synthetic layer: leave out --model"
	} else if !changed("depth") {
		f.depths = []int{512, 4096}
	}
	for _, name := range others {
		if changed(name) {
			return fmt.Errorf("--%s %s", name, why)
		}
	}
	shipped := func(name string) bool { return slices.Contains(shippedModels(), name) }
	if slices.ContainsFunc(f.models, shipped) { // whose context is 256
		if !changed("prompt") {
			f.prompts = []int{128}
		}
		if !changed("gen") {
			f.gen = []int{64}
		}
	}
	if len(f.models) > 0 && len(f.tests(0)) == 0 {
		return errors.New("nothing to measure: --prompt and --gen are both 0")
	}
	if a.json && !changed("output") {
		f.output = "json"
	}
	if !slices.Contains(engine.Formats, f.output) {
		return oneOf("output", f.output, engine.Formats)
	}
	if ext := filepath.Ext(f.figure); f.figure != "" && !slices.Contains([]string{".svg", ".png", ".pdf"}, ext) {
		return fmt.Errorf("--figure %s: want a name that ends in .svg, .png or .pdf", f.figure)
	}
	for _, list := range []struct {
		flag  string
		have  []int
		least int
	}{{"prompt", f.prompts, 0}, {"gen", f.gen, 0}, {"depth", f.depths, 0}, {"tokens", f.tokens, 1}, {"threads", f.threads, 1}, {"repeats", []int{f.repeats}, 1}} {
		if len(list.have) == 0 || slices.Min(list.have) < list.least {
			return fmt.Errorf("--%s %v: want numbers from %d", list.flag, list.have, list.least)
		}
	}
	return nil
}

// typeOf finds a type by name among those that are possible.
func typeOf(kind, name string, have []quant.Type) (quant.Type, error) {
	var names []string
	for _, t := range have {
		if strings.EqualFold(t.String(), name) {
			return t, nil
		}
		names = append(names, strings.ToLower(t.String()))
	}
	return 0, oneOf(kind, name, names)
}

// run measures, and prints what there is even if it was interrupted.
func (f *benchFlags) run(ctx context.Context, a *app) error {
	cache, err := typeOf("cache type", f.cache, tensor.KVTypes())
	if err != nil {
		return err
	}
	plan, err := f.plan(cache)
	if err != nil {
		return withCode(exitUsage, err)
	}
	p := newProgress(a.err, a.quiet)
	defer p.Close()
	if err := tensor.KernelErr(); err != nil {
		fmt.Fprintln(a.err, "warning:", err)
	}
	var list []*benchModel
	for _, name := range f.models {
		m, err := f.find(name)
		if err != nil {
			return withCode(exitUsage, err)
		}
		defer m.file.Close()
		list = append(list, m)
	}
	r := &engine.Report{Commit: revision(), Limits: f.limits, Layer: plan.Layer}
	if r.Limits == nil {
		r.Limits, err = probe.Measure(ctx, probe.Options{Quick: true, Threads: slices.Max(f.threads), Progress: func(what string) { p.Cell(0, 1, "limits: "+what, 0) }})
		if err != nil {
			return withCode(exitEnvironment, err)
		}
	}
	say := func(i, n int, what string) { p.Cell(i, n, what, 0) }
	if len(list) > 0 {
		err = f.rows(ctx, r, list, say)
	} else {
		plan.Limits, plan.Progress = r.Limits, say
		r.Kernels, err = probe.MeasureLayer(ctx, plan)
	}
	p.Close()
	for _, warning := range r.Limits.Warnings {
		fmt.Fprintln(a.err, "warning:", warning)
	}
	if err != nil && len(r.Rows) == 0 {
		return withCode(exitEnvironment, err)
	}
	return errors.Join(f.write(a, r), withCode(exitIncomplete, err))
}

// plan is what is measured of a layer.
func (f *benchFlags) plan(cache quant.Type) (plan probe.KernelPlan, err error) {
	plan = probe.KernelPlan{Tokens: f.tokens, Threads: f.threads, Depths: f.depths, Cache: cache, Memory: f.memory, Target: f.target}
	for _, name := range f.types {
		t, err := typeOf("type", name, quant.Encodable())
		if err != nil {
			return plan, err
		}
		plan.Types = append(plan.Types, t)
	}
	if len(f.models) > 0 {
		return plan, nil
	}
	plan.Layer, err = probe.ParseLayer(f.shape)
	if err != nil {
		return plan, err
	}
	return plan, plan.Check()
}

// benchModel is a model to run, and what to print of it.
type benchModel struct {
	file  *gguf.File
	load  func(*gguf.File, llm.ReadOptions) (*llm.Model, error)
	about engine.Model
}

// find opens a shipped model or a file and checks that it can run every test, before anything is loaded or measured.
func (f *benchFlags) find(name string) (m *benchModel, err error) {
	m = &benchModel{load: llm.OpenFile}
	if slices.Contains(shippedModels(), name) {
		var data []byte
		if data, err = models.Bytes(name); err == nil {
			m.file, err = gguf.Read(bytes.NewReader(data), int64(len(data)))
		}
		m.load = llm.FromFile
	} else if m.file, err = gguf.Open(name); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no model %q: meibench ships %s, and there is no such file", name, strings.Join(shippedModels(), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("open model %s: %w", name, err)
	}
	c, err := llm.ReadConfig(m.file)
	if err != nil {
		m.file.Close()
		return nil, fmt.Errorf("open model %s: %w", name, err)
	}
	m.about = aboutOf(name, m.file)
	for _, t := range f.tests(0) {
		if need := t.Depth + t.Tokens(); need > c.Context {
			m.file.Close()
			return nil, fmt.Errorf("model %s: %s needs %d tokens, its context is %d: choose smaller --prompt, --gen or --depth", name, t.Name(), need, c.Context)
		}
	}
	return m, nil
}

// open loads and packs the weights.
func (m *benchModel) open(threads int) (*llm.Model, error) {
	w, err := m.load(m.file, llm.ReadOptions{Threads: threads, Budget: host.Available()})
	if err == nil {
		err = w.Pack(threads)
	}
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return w, nil
}

// aboutOf reads off a file what it holds.
func aboutOf(name string, f *gguf.File) engine.Model {
	about := engine.Model{File: name}
	sizes := map[quant.Type]int64{}
	var most quant.Type
	for _, t := range f.Tensors {
		about.Bytes += units.Bytes(t.Bytes)
		about.Params += t.Elements()
		sizes[t.Type] += t.Bytes
		if sizes[t.Type] > sizes[most] {
			most = t.Type
		}
	}
	weights := most.String()
	if id, err := f.Uint("general.file_type"); err == nil {
		for _, r := range convert.Table {
			if uint64(r.FileType) == id {
				weights = strings.ToUpper(r.Name)
			}
		}
	}
	arch, _ := f.Get("general.architecture")
	size := fmt.Sprintf("%.3gM", float64(about.Params)/1e6)
	if about.Params >= 1e9 {
		size = fmt.Sprintf("%.3gB", float64(about.Params)/1e9)
	}
	about.Type = fmt.Sprint(arch, " ", size, " ", weights)
	return about
}

// tests are the rows of a model, in llama-bench's order.
func (f *benchFlags) tests(cache quant.Type) (list []probe.EngineTest) {
	for _, threads := range f.threads {
		for _, depth := range f.depths {
			t := probe.EngineTest{Depth: depth, Threads: threads, Cache: cache, Repeats: f.repeats}
			for _, t.Prompt = range f.prompts {
				if t.Prompt > 0 {
					list = append(list, t)
				}
			}
			t.Prompt = 0
			for _, t.Gen = range f.gen {
				if t.Gen > 0 {
					list = append(list, t)
				}
			}
		}
	}
	return list
}

// rows runs every test of every model, one model in memory at a time.
func (f *benchFlags) rows(ctx context.Context, r *engine.Report, list []*benchModel, say func(i, n int, what string)) error {
	for i, m := range list {
		runtime.GC() // the memory of the model before
		err := f.rowsOf(ctx, r, m, func(j, n int, what string) { say(i*n+j, len(list)*n, what) })
		if err != nil {
			return fmt.Errorf("measure %s: %w", m.about.File, err)
		}
	}
	return nil
}

// rowsOf runs the tests of one model.
func (f *benchFlags) rowsOf(ctx context.Context, r *engine.Report, m *benchModel, say func(i, n int, what string)) error {
	cache, err := typeOf("cache type", f.cache, tensor.KVTypes())
	if err != nil {
		return err
	}
	tests := f.tests(cache)
	say(0, len(tests), m.about.File)
	w, err := m.open(slices.Max(f.threads))
	if err != nil {
		return err
	}
	for i, t := range tests {
		say(i, len(tests), fmt.Sprintf("%s, %s, %d thread(s)", m.about.File, t.Name(), t.Threads))
		row, err := probe.MeasureEngine(ctx, w, t)
		if err != nil {
			return fmt.Errorf("%s: %w", t.Name(), err)
		}
		r.Rows = append(r.Rows, engine.Row{EngineRow: *row, Model: m.about, Work: probe.EngineWork(w, t)})
	}
	return nil
}

// write prints the result and the files that were asked for.
func (f *benchFlags) write(a *app, r *engine.Report) error {
	if err := r.Write(a.out, f.output); err != nil {
		return err
	}
	if f.bench != "" {
		if err := replaceFile(f.bench, r.Bench); err != nil {
			return withCode(exitEnvironment, fmt.Errorf("write benchmark text: %w", err))
		}
	}
	if f.figure == "" {
		return nil
	}
	err := replaceFile(f.figure, func(w io.Writer) (err error) {
		pic, data := r.Figure(), []byte(nil)
		switch filepath.Ext(f.figure) {
		case ".png":
			data, err = pic.PNG()
		case ".pdf":
			data, err = pic.PDF()
		default:
			data = pic.SVG()
		}
		if err == nil {
			_, err = w.Write(data)
		}
		return err
	})
	if err != nil {
		return withCode(exitEnvironment, fmt.Errorf("draw the roofline: %w", err))
	}
	return nil
}

// revision is the commit that this program was built from, shortened as git does.
func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value[:min(len(s.Value), 9)]
			}
		}
	}
	return "unknown"
}
