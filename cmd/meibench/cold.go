package main

import (
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"meibench/internal/units"
	"meibench/reference/coldstart"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/offload"
	"meibench/reference/storage"
)

const coldLong = `Measure how a model gets from storage to its first token, and how it runs when
memory does not hold it.

The first table has a cold start (the file dropped from the page cache; what the
cache held is shown) and a warm one for each way: mapped and packed, read, mapped
and used as it is, streamed layer by layer, and with only half of the layers
kept. "same" says whether tokens and logits were those of the first row.

The second table decodes with weights limited to shares of the model: what does
not fit is read for every token, around the page cache where the system can. The
least time per token is the bytes over the speed of storage, measured beside.

--sparse runs a dense model with a share of its feed-forward neurons, which are
read from storage when they are needed: what that costs in quality by rule, and
bytes, reads and tokens per second by way of keeping them. --experts does the
same for the experts of a mixture.

Without an argument the shipped mei-base is written to a temporary file. Storage is
what answers below this machine's page cache: a host may cache a virtual disk.`

// coldFlags are the flags of cold.
type coldFlags struct {
	ram     []float64
	n       int
	threads int
	prompt  string
	experts bool
	sparseFlags
}

func newCold(a *app) *cobra.Command {
	f := coldFlags{}
	c := &cobra.Command{
		Use: "cold [NAME | FILE.gguf]", Short: "time from storage to the first token, cold and warm, and tokens per second in less memory than the model takes", Long: coldLong,
		Example: "  meibench cold\n  meibench cold model.gguf --ram 0.25,0.5,1\n  meibench cold --sparse 0.25,0.5 --window 5\n  meibench cold mixture.gguf --experts", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return f.run(a, args) },
	}
	fl := c.Flags()
	fl.Float64SliceVar(&f.ram, "ram", []float64{0.4, 0.6, 0.8, 1}, "shares of the model's weights that memory holds")
	fl.IntVar(&f.n, "n", 32, "tokens to decode in each row of the second table")
	fl.IntVar(&f.threads, "threads", 1, "threads that compute")
	fl.StringVar(&f.prompt, "prompt", "me south straight , car east straight , dry ; may me go =>", "what the model reads")
	f.add(fl)
	fl.BoolVar(&f.experts, "experts", false, "in place of the tables, run a mixture whose experts come from storage: FILE, or one with drawn weights if no argument is given")
	c.MarkFlagsMutuallyExclusive("sparse", "experts")
	return c
}

// budgetRow is one line of the second table.
type budgetRow struct {
	Share     float64 `json:"share"`
	Held      int64   `json:"held_bytes"`
	PerToken  float64 `json:"bytes_per_token"`
	PerSec    float64 `json:"tokens_per_s"`
	Stall     float64 `json:"stall_share"`
	LeastTime float64 `json:"least_s_per_token"` // bytes over the speed of storage
	Same      bool    `json:"same"`
	Refused   string  `json:"refused,omitempty"`
}

func (f *coldFlags) run(a *app, args []string) error {
	if f.n < 2 || f.threads < 1 {
		return withCode(exitUsage, fmt.Errorf("--n %d, --threads %d: want 2 or more, and 1 or more", f.n, f.threads))
	}
	for _, r := range f.ram {
		if !(r > 0 && r <= 1) {
			return withCode(exitUsage, fmt.Errorf("--ram %g: want shares above 0 and at most 1", r))
		}
	}
	if err := f.check(); err != nil {
		return withCode(exitUsage, err)
	}
	switch {
	case len(f.keep) > 0:
		return f.runSparse(a, args)
	case f.experts:
		return f.runExperts(a, args)
	}
	path, remove, err := coldFile(args)
	if err != nil {
		return withCode(exitUsage, err)
	}
	defer remove()
	m, err := models.Load(path)
	if err != nil {
		return withCode(exitUsage, err)
	}
	ids := m.Tokenizer.EncodePrompt(f.prompt)
	if err := m.Model.Close(); err != nil {
		return err
	}
	rows, err := coldstart.Measure(path, coldstart.Options{Prompt: ids, Threads: f.threads, Progress: func(i, n int, name string) {
		if !a.quiet && !a.json {
			fmt.Fprintf(a.err, "[%d/%d] %s\n", i+1, n, name)
		}
	}})
	if err != nil {
		return withCode(exitIncomplete, err)
	}
	speed, mode, err := storage.Bandwidth(path, storage.Direct)
	if err != nil {
		return withCode(exitIncomplete, err)
	}
	ladder, err := f.ladder(path, ids, speed)
	if err != nil {
		return withCode(exitIncomplete, err)
	}
	if a.json {
		return writeJSON(a.out, map[string]any{"file": path, "starts": rows, "storage_bytes_per_s": speed, "storage_mode": mode.String(), "budgets": ladder})
	}
	return f.print(a, rows, ladder, fmt.Sprintf("storage: %.3g GB/s, read %s", speed/1e9, mode))
}

// coldFile is the file to measure, and what removes it if it was made for that.
func coldFile(args []string) (path string, remove func(), err error) {
	name := models.AdapterBase
	if len(args) == 1 {
		name = args[0]
	}
	data, err := models.Bytes(name)
	if err != nil { // a file
		if _, err := os.Stat(name); err != nil {
			return "", nil, fmt.Errorf("%s is no shipped model and no file: %w", name, err)
		}
		return name, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "meibench-cold-")
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, name+".gguf")
	return path, func() { os.RemoveAll(dir) }, os.WriteFile(path, data, 0o600)
}

// ladder decodes with less and less memory for weights; the last answer, with the most, is what the others are compared with.
func (f *coldFlags) ladder(path string, ids []int32, speed float64) ([]budgetRow, error) {
	whole, want, err := f.decode(path, ids, 0)
	if err != nil {
		return nil, err
	}
	var rows []budgetRow
	for _, share := range f.ram {
		budget := units.Bytes(share * float64(whole.Plan().Held()))
		s, got, err := f.decode(path, ids, budget)
		if err != nil {
			rows = append(rows, budgetRow{Share: share, Refused: err.Error()})
			continue
		}
		st := s.Stats()
		passes := float64(max(1, st.Passes))
		r := budgetRow{Share: share, Held: int64(s.Plan().Held()), PerToken: float64(s.Plan().PerPass), PerSec: passes / (st.Stall + st.Compute).Seconds(),
			Stall: st.StallShare(), Same: fmt.Sprint(got) == fmt.Sprint(want)}
		r.LeastTime = r.PerToken / speed
		rows = append(rows, r)
	}
	return rows, nil
}

// decode answers with so many bytes for weights, 0 = all, and counts without the prompt.
func (f *coldFlags) decode(path string, ids []int32, budget units.Bytes) (*offload.Stream, []int32, error) {
	s, err := offload.Open(path, offload.Options{Budget: budget, Threads: f.threads})
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	c, err := s.Model().NewCache(0, s.Model().Layers, len(ids)+f.n+1)
	if err != nil {
		return nil, nil, err
	}
	first, err := s.Generate(c, ids, 1, llm.Greedy)
	if err != nil {
		return nil, nil, err
	}
	s.ResetStats()
	out, err := s.Generate(c, first, f.n, llm.Greedy)
	return s, append(first, out...), err
}

func (f *coldFlags) print(a *app, rows []coldstart.Row, ladder []budgetRow, speed string) error {
	size := func(n int64) string {
		if n < 0 {
			return "?"
		}
		return fmt.Sprint(units.Bytes(n))
	}
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "way\tstart\tcached before\tfirst token s\topen\tload\tprefill\tstall\tread\tfrom storage\tmajor faults\tsame")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%s\t%s\t%d\t%t\n", r.Way, r.Start, size(r.HeldBefore), r.FirstToken.Seconds(), r.Open.Seconds(), r.Load.Seconds(), r.Prefill.Seconds(),
			r.Stall.Seconds(), size(r.CountedBytes), size(r.Use.ReadBytes), r.Use.Major, r.Same)
	}
	fmt.Fprintf(w, "\n%s\n", speed)
	fmt.Fprintln(w, "memory\theld\tread / token\ttoken/s\tstalled\tleast s / token\tsame")
	for _, r := range ladder {
		if r.Refused != "" {
			fmt.Fprintf(w, "%.0f %%\t%s\n", 100*r.Share, r.Refused)
			continue
		}
		fmt.Fprintf(w, "%.0f %%\t%s\t%s\t%.1f\t%.0f %%\t%.5f\t%t\n", 100*r.Share, size(r.Held), size(int64(r.PerToken)), r.PerSec, 100*r.Stall, r.LeastTime, r.Same)
	}
	return w.Flush()
}
