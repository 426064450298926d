package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"meibench/internal/units"
	"meibench/reference/convert"
	"meibench/reference/gguf"
)

// quantizeFlags are how a model is written again.
type quantizeFlags struct {
	recipe  string
	pure    bool
	dryRun  bool
	threads int
}

func newQuantize(a *app) *cobra.Command {
	f := &quantizeFlags{}
	c := &cobra.Command{
		Use: "quantize IN.gguf OUT.gguf", Short: "write a model again with its weights in fewer bits",
		Long: "Write a GGUF model again with its weights in another format. Any format that can be decoded goes in; weights\n" +
			"that were quantised before lose a second time, so start from F16, BF16 or F32 where there is a choice.\n" +
			"Which tensor takes which type is llama-quantize's choice for the same name, other engines load the result,\n" +
			"and the bytes do not depend on the machine or on --threads. Memory stays small whatever the model's size, and\n" +
			"OUT.gguf appears only when it is complete.\n\nRecipes for --type:\n" + recipeList(),
		Example: "  meibench quantize model-f16.gguf model-q4_k_m.gguf --type q4_k_m\n  meibench quantize model-f16.gguf --type q8_0 --dry-run",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && !f.dryRun {
				return withCode(exitUsage, fmt.Errorf("quantize %s: where to? name a second file, or ask for --dry-run", args[0]))
			}
			return a.quantize(c.Context(), f, append(args, "")[:2])
		},
	}
	c.Flags().StringVarP(&f.recipe, "type", "t", "q4_k_m", "recipe, one of those above")
	c.Flags().BoolVar(&f.pure, "pure", false, "every matrix in the recipe's base type, no mix")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "print types and sizes, tensor by tensor, and write nothing")
	c.Flags().IntVar(&f.threads, "threads", runtime.NumCPU(), "threads to convert with")
	_ = c.RegisterFlagCompletionFunc("type", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return convert.Names(), cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

func recipeList() string {
	var b strings.Builder
	for _, r := range convert.Table {
		fmt.Fprintf(&b, "  %-10s %s\n", r.Name, r.Doc)
	}
	return strings.TrimRight(b.String(), "\n")
}

func (a *app) quantize(ctx context.Context, f *quantizeFlags, paths []string) error {
	recipe, err := convert.Find(f.recipe)
	if err != nil {
		return oneOf("recipe", f.recipe, convert.Names())
	}
	if f.threads < 1 {
		return withCode(exitUsage, fmt.Errorf("--threads %d: want at least 1", f.threads))
	}
	in, err := gguf.Open(paths[0])
	if err != nil {
		return withCode(exitUsage, err)
	}
	defer in.Close()
	plan, err := convert.NewPlan(in, recipe, f.pure)
	if err != nil {
		return withCode(exitUsage, fmt.Errorf("quantize %s: %w", paths[0], err))
	}
	if n := plan.Requantised(); n > 0 && !a.quiet {
		fmt.Fprintf(a.err, "warning: %d tensor(s) of %s were quantised before and are rounded a second time\n", n, paths[0])
	}
	if !f.dryRun {
		if err := a.writeQuantized(ctx, plan, f.threads, paths); err != nil {
			return err
		}
	}
	return a.showPlan(plan, f.dryRun, paths[1])
}

// writeQuantized writes the new file beside its final name and renames it when it is complete.
func (a *app) writeQuantized(ctx context.Context, plan *convert.Plan, threads int, paths []string) error {
	from, err := os.Stat(paths[0])
	if err != nil {
		return withCode(exitUsage, err)
	}
	if to, err := os.Stat(paths[1]); err == nil && os.SameFile(from, to) {
		return withCode(exitUsage, fmt.Errorf("quantize %s: input and output are one file: choose another name", paths[0]))
	}
	p := newProgress(a.err, a.quiet)
	defer p.Close()
	began := time.Now()
	err = replaceFile(paths[1], func(w io.Writer) error {
		return plan.Write(ctx, w, convert.Options{Threads: threads, Progress: func(i int, s convert.Step) {
			p.Cell(i, len(plan.Steps), fmt.Sprintf("%s %v to %v", s.From.Name, s.From.Type, s.To), 0)
		}})
	})
	if err != nil {
		code := exitEnvironment
		if ctx.Err() != nil {
			code = exitInterrupted
		}
		return withCode(code, fmt.Errorf("quantize %s: %w", paths[0], err))
	}
	p.Note("wrote %s in %s", paths[1], time.Since(began).Round(100*time.Millisecond))
	return nil
}

// replaceFile lets write fill a file that appears under its name only when it is complete and on disk.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// quantized is the result as JSON.
type quantized struct {
	Out         string            `json:"out,omitempty"`
	Type        string            `json:"type"`
	DryRun      bool              `json:"dry_run"`
	BytesBefore int64             `json:"tensor_bytes_before"`
	BytesAfter  int64             `json:"tensor_bytes_after"`
	BitsBefore  float64           `json:"bits_per_weight_before"`
	BitsAfter   float64           `json:"bits_per_weight_after"`
	Tensors     []quantizedTensor `json:"tensors"`
}

type quantizedTensor struct {
	Name  string `json:"name"`
	Dims  []int  `json:"dims"`
	From  string `json:"from"`
	To    string `json:"to"`
	Want  string `json:"want,omitempty"` // if rows did not fit its blocks
	Bytes int64  `json:"bytes"`
}

// showPlan prints what was done, or would be: each tensor for a dry run, else how many went from which type to which.
func (a *app) showPlan(plan *convert.Plan, dry bool, out string) error {
	weights := 0
	q := quantized{Out: out, Type: plan.Recipe.Name, DryRun: dry, BytesBefore: plan.File.DataBytes(), BytesAfter: plan.Bytes()}
	for _, s := range plan.Steps {
		weights += s.From.Elements()
		t := quantizedTensor{Name: s.From.Name, Dims: s.From.Dims, From: s.From.Type.String(), To: s.To.String(), Bytes: s.Bytes}
		if s.Want != s.To {
			t.Want = s.Want.String()
		}
		q.Tensors = append(q.Tensors, t)
	}
	if weights > 0 {
		q.BitsBefore, q.BitsAfter = 8*float64(q.BytesBefore)/float64(weights), 8*float64(q.BytesAfter)/float64(weights)
	}
	if a.json {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(q)
	}
	tw := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	if dry {
		q.tensorTable(tw)
	} else {
		q.typeTable(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.out, "%d tensors: %v to %v, %.2f to %.2f bits per weight\n",
		len(q.Tensors), units.Bytes(q.BytesBefore), units.Bytes(q.BytesAfter), q.BitsBefore, q.BitsAfter)
	return err
}

func (q *quantized) tensorTable(w io.Writer) {
	fmt.Fprintln(w, "tensor\tshape\tfrom\tto\tsize")
	for _, t := range q.Tensors {
		to := t.To
		if t.Want != "" {
			to += " (rows do not fit " + t.Want + ")"
		}
		fmt.Fprintf(w, "%s\t%v\t%s\t%s\t%v\n", t.Name, t.Dims, t.From, to, units.Bytes(t.Bytes))
	}
}

func (q *quantized) typeTable(w io.Writer) {
	type pair struct{ from, to string }
	count, bytes := map[pair]int{}, map[pair]int64{}
	var order []pair
	for _, t := range q.Tensors {
		p := pair{t.From, t.To}
		if count[p] == 0 {
			order = append(order, p)
		}
		count[p]++
		bytes[p] += t.Bytes
	}
	fmt.Fprintln(w, "from\tto\ttensors\tsize")
	for _, p := range order {
		fmt.Fprintf(w, "%s\t%s\t%d\t%v\n", p.from, p.to, count[p], units.Bytes(bytes[p]))
	}
}
