package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"meibench/harness/eval"
	"meibench/internal/units"
	"meibench/reference/flash"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/quant"
	"meibench/reference/sparse"
	"meibench/reference/storage"
	"meibench/workloads/tasks"
)

// sparseFlags are the flags of cold for neurons.
type sparseFlags struct {
	keep      []float64
	rank      int
	window    int
	questions int
	on, as    string
	// readMicros is what a read takes beside its bytes, in microseconds, reads at once counted in.
	readMicros float64
}

func (f *sparseFlags) add(fl *pflag.FlagSet) {
	fl.Float64SliceVar(&f.keep, "sparse", nil, "in place of the tables, run with these shares of each layer's neurons, read from storage when they are needed")
	fl.IntVar(&f.rank, "rank", 64, "with --sparse: rank of the predictor")
	fl.IntVar(&f.window, "window", 5, "with --sparse: tokens that an idle neuron stays in memory")
	fl.IntVar(&f.questions, "questions", 20, "with --sparse: questions per application and difficulty that each rule answers; 0 for none")
	fl.StringVar(&f.on, "on", "", "with --sparse and --as: also work it out for this device (meibench list devices)")
	fl.StringVar(&f.as, "as", "", "with --sparse and --on: and this model (meibench list models)")
	fl.Float64Var(&f.readMicros, "read-us", 10, "with --on: what one read takes beside its bytes, in microseconds (assumed)")
}

func (f *sparseFlags) check() error {
	for _, k := range f.keep {
		if !(k > 0 && k <= 1) {
			return fmt.Errorf("--sparse %g: want shares above 0 and at most 1", k)
		}
	}
	if (f.on == "") != (f.as == "") || len(f.keep) == 0 && f.on != "" || !(f.readMicros >= 0) {
		return fmt.Errorf("--on %q, --as %q, --read-us %g: want both names or none, with --sparse, and 0 or more", f.on, f.as, f.readMicros)
	}
	if f.rank < 1 || f.window < 1 || f.questions < 0 {
		return fmt.Errorf("--rank %d, --window %d, --questions %d: want 1 or more, 1 or more, and 0 or more", f.rank, f.window, f.questions)
	}
	return nil
}

// calibration is how many tokens a predictor is fitted to, heldOut how many it is judged by.
const calibration, heldOut = 4096, 1024

// ruleRow is what a rule costs in quality.
type ruleRow struct {
	Rule      string   `json:"rule"`
	Share     float64  `json:"asked_share"`
	Kept      float64  `json:"kept_share"`
	Recall    float64  `json:"recall"`
	Precision float64  `json:"precision"`
	Same      float64  `json:"same_tokens"` // share of held-out positions with the dense model's next token
	Exact     *float64 `json:"exact_match,omitempty"`
}

// hotRow is how much of the activations a set of hot neurons covers.
type hotRow struct {
	Share   float64 `json:"hot_share"`
	Covered float64 `json:"covered_share"`        // on the text that chose it
	HeldOut float64 `json:"covered_share_unseen"` // on another text
}

// sparseReport is what cold --sparse found.
type sparseReport struct {
	Predictor units.Bytes `json:"predictor_bytes"`
	Neurons   units.Bytes `json:"neuron_bytes"`
	Others    units.Bytes `json:"other_weight_bytes"`
	Rules     []ruleRow   `json:"rules"`
	Ways      []flash.Row `json:"ways"` // by a predictor, at the first share
	Hot       []hotRow    `json:"hot"`
	Speed     float64     `json:"storage_bytes_per_s"`
	Mode      string      `json:"storage_mode"`
	Modelled  []rungRow   `json:"modelled,omitempty"` // on another device, see modelledNote
}

// lessons are texts of every application and level of a split, question and answer.
func lessons(m *models.Loaded, split tasks.Split, most int) (out [][]int32) {
	for n, tokens := 1, 0; tokens < most && n < most; n++ {
		for _, t := range tasks.Table {
			for level := 1; level <= tasks.Levels; level++ {
				all := t.DrawLevel(1, split, level, n)
				in := all[n-1]
				ids := append(m.Tokenizer.EncodePrompt(in.Prompt), m.Tokenizer.Encode(in.Answer)...)
				out, tokens = append(out, ids), tokens+len(ids)
			}
		}
	}
	return out
}

func (f *coldFlags) runSparse(a *app, args []string) error {
	path, remove, err := coldFile(args)
	if err != nil {
		return withCode(exitUsage, err)
	}
	defer remove()
	m, err := models.Load(path)
	if err != nil {
		return withCode(exitUsage, err)
	}
	defer m.Model.Close()
	s := study{coldFlags: f, m: m, path: path, say: func(format string, v ...any) {
		if !a.quiet && !a.json {
			fmt.Fprintf(a.err, format+"\n", v...)
		}
	}}
	report, err := s.run()
	if err != nil {
		return withCode(exitIncomplete, err)
	}
	if a.json {
		return writeJSON(a.out, map[string]any{"file": path, "sparse": report})
	}
	return report.print(a)
}

// study is a run of cold --sparse.
type study struct {
	*coldFlags
	m                *models.Loaded
	path             string
	say              func(format string, v ...any)
	samples, unseen  *sparse.Samples
	texts            [][]int32 // held out
	predictors       []*sparse.Predictor
	counts, unCounts [][]int
}

func (s *study) run() (*sparseReport, error) {
	if err := s.fit(); err != nil {
		return nil, err
	}
	var err error
	r := &sparseReport{Predictor: s.predictors[0].Bytes()}
	for i, keep := range s.keep {
		rows, err := s.rules(i, keep)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			rows = rows[1:] // dense is there once
		}
		r.Rules = append(r.Rules, rows...)
	}
	total := 0
	for _, row := range s.counts {
		total += len(row)
	}
	for _, share := range s.ram {
		hot, err := sparse.Hot(s.counts, nil, int(share*float64(total)))
		if err != nil {
			return nil, err
		}
		r.Hot = append(r.Hot, hotRow{share, sparse.Covered(s.counts, hot), sparse.Covered(s.unCounts, hot)})
	}
	if err := s.ways(r); err != nil || s.on == "" {
		return r, err
	}
	r.Modelled, err = s.sparseFlags.ladder(r, s.keep[0], s.counts, s.unCounts)
	return r, err
}

// fit calibrates on the train split and looks at held-out text of the validation split.
func (s *study) fit() (err error) {
	s.say("calibrating on %d tokens", calibration)
	if s.samples, err = sparse.Sample(s.m.Model, lessons(s.m, tasks.Train, calibration), calibration); err != nil {
		return err
	}
	s.texts = lessons(s.m, tasks.Validation, heldOut)
	if s.unseen, err = sparse.Sample(s.m.Model, s.texts, heldOut); err != nil {
		return err
	}
	for _, keep := range s.keep {
		p, err := sparse.Fit(s.samples, keep, s.rank)
		if err != nil {
			return err
		}
		s.predictors = append(s.predictors, p)
	}
	if s.counts, err = s.samples.Counts(s.keep[0]); err != nil {
		return err
	}
	s.unCounts, err = s.unseen.Counts(s.keep[0])
	return err
}

// rules measures what each rule of a share costs in quality.
func (s *study) rules(i int, keep float64) (rows []ruleRow, err error) {
	bounds, err := s.samples.Threshold(keep)
	if err != nil {
		return nil, err
	}
	for _, c := range []struct {
		name  string
		share float64
		rule  sparse.Rule
	}{{"dense", 1, sparse.All}, {"oracle", keep, sparse.Oracle(keep)}, {"threshold", keep, sparse.Threshold(bounds)}, {"predictor", keep, s.predictors[i].Rule(keep)}} {
		if i > 0 && c.name == "dense" {
			rows = append(rows, ruleRow{})
			continue
		}
		s.say("rule %s, %.0f %% of the neurons", c.name, 100*c.share)
		tally := sparse.NewTally(c.rule, keep)
		row := ruleRow{Rule: c.name, Share: c.share}
		if row.Same, err = sparse.Agreement(s.m.Model, tally, s.texts, heldOut); err != nil {
			return nil, err
		}
		row.Kept, row.Recall, row.Precision = tally.Kept(), tally.Recall(), tally.Precision()
		if s.questions > 0 {
			subject := eval.NewLocal(s.m, 1)
			subject.Prepare = c.rule.Attach
			got, err := eval.Tasks(context.Background(), subject, eval.Options{N: s.questions, Seed: 1})
			if err != nil {
				return nil, err
			}
			exact := 0.0
			for _, app := range got.Applications {
				exact += app.Exact.Value / float64(len(got.Applications))
			}
			row.Exact = &exact
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// ways runs from storage.
func (s *study) ways(r *sparseReport) error {
	dir, err := os.MkdirTemp("", "meibench-neurons-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rows, err := flash.Study{Model: s.path, Dir: dir, Rule: func() sparse.Rule { return s.predictors[0].Rule(s.keep[0]) }, Keep: s.keep[0], Counts: s.counts,
		Window: s.window, Budgets: s.ram, Texts: s.texts, Tokens: s.n, Threads: s.threads, Readers: 4,
		Progress: func(i, n int, name string) { s.say("[%d/%d] %s", i+1, n, name) }}.Measure()
	if err != nil {
		return err
	}
	speed, mode, err := storage.Bandwidth(s.path, storage.Direct)
	r.Ways, r.Speed, r.Mode = rows, speed, mode.String()
	r.Neurons = units.Bytes(rows[1].Room)
	r.Others = s.m.Model.WeightBytes(0, s.m.Model.Layers) - feedBytes(s.m.Model)
	return err
}

// feedBytes is the size of a model's feed-forward matrices as it holds them.
func feedBytes(m *llm.Model) (n units.Bytes) {
	for l := range m.Blocks {
		for _, w := range []*llm.Matrix{&m.Blocks[l].Gate, &m.Blocks[l].Up, &m.Blocks[l].Down} {
			n += matrixBytes(w.Type, w.N, w.K)
		}
	}
	return n
}

func matrixBytes(t quant.Type, n, k int) units.Bytes {
	row, err := t.RowBytes(k)
	if err != nil {
		panic("cold: a loaded matrix has whole rows: " + err.Error())
	}
	return units.Bytes(n * row)
}

func (r *sparseReport) print(a *app) error {
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "neurons: %v; all other weights: %v; predictor: %v\n\n", r.Neurons, r.Others, r.Predictor)
	fmt.Fprintln(w, "rule\tshare\tkept\trecall\tprecision\tsame tokens\texact match")
	for _, q := range r.Rules {
		exact := "-"
		if q.Exact != nil {
			exact = fmt.Sprintf("%.1f %%", 100**q.Exact)
		}
		fmt.Fprintf(w, "%s\t%.0f %%\t%.1f %%\t%.1f %%\t%.1f %%\t%.1f %%\t%s\n", q.Rule, 100*q.Share, 100*q.Kept, 100*q.Recall, 100*q.Precision, 100*q.Same, exact)
	}
	fmt.Fprintf(w, "\nneurons in storage (%.3g GB/s in long reads, %s)\n", r.Speed/1e9, r.Mode)
	fmt.Fprintln(w, "way\trows\tmemory\tused\tread / token\tmoved / token\treads / token\tin memory\ttoken/s\tstall s / token\tleast s / token\tsame")
	for _, x := range r.Ways {
		if x.Refused != "" {
			fmt.Fprintf(w, "%s\t%s\n", x.Way, x.Refused)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%v\t%v\t%v\t%v\t%.1f\t%.1f %%\t%.1f\t%.5f\t%.5f\t%t\n", x.Way, x.Layout, units.Bytes(x.Room), units.Bytes(x.Peak), units.Bytes(x.PerToken), units.Bytes(x.Moved), x.Reads, 100*x.Hits,
			x.PerSec, x.StallSec, x.PerToken/r.Speed, x.Same)
	}
	fmt.Fprintln(w, "\nhot neurons\tactivations covered\ton other text")
	for _, h := range r.Hot {
		fmt.Fprintf(w, "%.0f %%\t%.1f %%\t%.1f %%\n", 100*h.Share, 100*h.Covered, 100*h.HeldOut)
	}
	if r.Modelled != nil {
		r.printModelled(w)
	}
	return w.Flush()
}
