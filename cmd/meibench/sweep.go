package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meibench/harness"
	"meibench/harness/plan"
	"meibench/harness/sweep"
	"meibench/internal/host"
)

// sweepFlags are the flags of meibench sweep.
type sweepFlags struct {
	run     runFlags
	shard   string
	shards  int
	backend string
	folder  string
	needs   sweep.Needs
}

const sweepLong = `Run suites, or a plan (a file from meibench plan), in parts: on all cores of this
machine, as a Slurm job array, or as a Kubernetes indexed job. All runs of cells are
dealt to shards by their estimated cost; meibench merge puts them together into the
run folder that one meibench run would have left, with the same bytes.

--out is the folder of the sweep. The first call with a suite fixes what is run;
calls without one go on with it. Each shard is written to shard-I.partial and becomes
shard-I when it is whole. Whatever was killed at whatever moment: the same command
again skips what is done and goes on with the rest.

Without --shard all shards run here, modelled cells side by side on --jobs cores.
Measured and emulated cells always run one at a time, and alone on their machine.
--shard auto takes the shard from SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX.

--backend slurm writes array.sbatch into the folder, --backend k8s job.yaml, and
neither runs anything; scripts/slurm submits and collects. See docs/sweeps.md.

With --shard the exit code is 42 where another try would fail in the same way.`

func newSweep(a *app) *cobra.Command {
	s := &sweepFlags{run: runFlags{filters: map[string]*[]string{}}}
	c := &cobra.Command{
		Use: "sweep [SUITE...|PLAN] --out DIR", Short: "run suites in parts, on many cores or machines", Long: sweepLong,
		Example: "  meibench sweep placement --set rate=1,2,4 --out sweeps/a\n  meibench sweep placement --out sweeps/b --shard 0/4\n  meibench sweep placement --out sweeps/c --shards 16 --backend slurm\n  meibench merge sweeps/a --out runs/a",
		RunE: func(c *cobra.Command, args []string) error {
			err := s.do(c.Context(), a, c.Flags(), args)
			var how *coded
			if s.shard != "" && errors.As(err, &how) && how.code == exitUsage {
				return &coded{exitNoRetry, how.err}
			}
			return err
		},
	}
	s.register(c.Flags())
	s.run.complete(c)
	return c
}

func (s *sweepFlags) register(fs *pflag.FlagSet) {
	s.run.narrow(fs)
	fs.StringVar(&s.run.out, "out", "", "folder of the sweep")
	fs.StringVar(&s.run.profile, "profile", "", "profile of this machine, from meibench profile, for cells of sites with nodes here (default: measured once)")
	fs.IntVar(&s.run.jobs, "jobs", 0, "modelled cells that run side by side (default one per core); no byte of the results depends on it")
	fs.StringVar(&s.shard, "shard", "", "run only shard i of n, as i/n from 0, or auto: the one that Slurm or Kubernetes gave to this process")
	fs.IntVar(&s.shards, "shards", 0, "in how many shards to cut (default n of --shard i/n, or what the folder says, or 1)")
	fs.StringVar(&s.backend, "backend", "local", "local, slurm (write array.sbatch and run nothing) or k8s (write job.yaml and run nothing)")
	fs.StringVar(&s.folder, "folder", "", "the folder of the sweep as the cluster's machines see it (default --out as an absolute path)")
	fs.StringVar(&s.needs.Program, "program", "", "meibench as the cluster's machines see it (slurm: default this program; k8s: default meibench)")
	fs.StringVar(&s.needs.Name, "name", "meibench-sweep", "name of the job")
	fs.IntVar(&s.needs.CPUs, "cpus", 1, "CPUs of one shard on a cluster")
	fs.IntVar(&s.needs.MiB, "mib", 2048, "memory of one shard on a cluster, in MiB")
	fs.DurationVar(&s.needs.Time, "time", time.Hour, "time for one shard on a cluster, at the most")
	fs.IntVar(&s.needs.AtOnce, "at-once", 0, "shards that may run side by side on a cluster (default as many as it likes)")
	fs.StringVar(&s.needs.Image, "image", "", "k8s: container image with meibench in it")
	fs.StringVar(&s.needs.Claim, "claim", "", "k8s: volume claim (ReadWriteMany) that holds the folder of the sweep")
}

// do begins a sweep or goes on with one, and does what the flags ask of it.
func (s *sweepFlags) do(ctx context.Context, a *app, flags *pflag.FlagSet, args []string) error {
	switch {
	case s.run.out == "":
		return withCode(exitUsage, errors.New("--out is missing: name the folder of the sweep"))
	case s.run.jobs < 0 || s.shards < 0:
		return withCode(exitUsage, fmt.Errorf("--jobs %d, --shards %d: want 1 or more, or 0 for the default", s.run.jobs, s.shards))
	case !slices.Contains([]string{"local", "slurm", "k8s"}, s.backend):
		return oneOf("backend", s.backend, []string{"local", "slurm", "k8s"})
	case s.backend != "local" && s.shard != "":
		return withCode(exitUsage, errors.New("--backend writes a file for a cluster, --shard runs one part here: leave out one of them"))
	}
	d, part, err := s.begin(ctx, a, flags, args)
	if err != nil {
		return sweepFailed(ctx, err)
	}
	if s.backend != "local" {
		return s.hand(a, d)
	}
	p := newProgress(a.err, a.quiet)
	defer p.Close()
	opt := sweep.Options{Jobs: s.run.jobs, Gate: &sweep.Node{Note: p.Note}, Node: sweep.NodeName(os.Getenv), Progress: p, Now: time.Now}
	lab := &harness.Lab{Version: version()}
	if s.shard == "" {
		err = d.RunAll(ctx, lab, opt)
	} else {
		err = d.Run(ctx, lab, part.I, opt)
	}
	if err != nil {
		return sweepFailed(ctx, err)
	}
	return s.tell(a, d, part)
}

// tell says what is done, and what is next.
func (s *sweepFlags) tell(a *app, d *sweep.Dir, part plan.Shard) error {
	done, err := d.Status()
	if err != nil {
		return withCode(exitIncomplete, err)
	}
	if a.json {
		return writeJSON(a.out, map[string]any{"dir": d.Path, "shards": d.Sheet.Shards, "done": done})
	}
	if part.N > 0 {
		fmt.Fprintf(a.out, "shard %s is done: %s\n", part, d.Name(part.I))
	}
	fmt.Fprintf(a.out, "%d of %d shards are done\n", done, d.Sheet.Shards)
	if done == d.Sheet.Shards {
		fmt.Fprintf(a.out, "next: meibench merge %s --out RESULTS\n", d.Path)
	}
	return nil
}

// sweepFailed picks the exit code.
func sweepFailed(ctx context.Context, err error) error {
	var bad *harness.InputError
	switch {
	case ctx.Err() != nil:
		return &coded{exitInterrupted, errors.New("interrupted; the same command goes on where it stopped")}
	case errors.As(err, &bad):
		return withCode(exitUsage, err)
	}
	return withCode(exitIncomplete, err)
}

// begin finds out what the sweep is and in how many shards, and which of them is asked for.
func (s *sweepFlags) begin(ctx context.Context, a *app, flags *pflag.FlagSet, args []string) (d *sweep.Dir, part plan.Shard, err error) {
	d, err = sweep.Open(s.run.out)
	if errors.Is(err, fs.ErrNotExist) {
		d, err = nil, nil
	}
	if err != nil {
		return nil, part, err
	}
	n := s.shards
	if d != nil {
		if n != 0 && n != d.Sheet.Shards {
			return nil, part, withCode(exitUsage, fmt.Errorf("%s is a sweep in %d shards, not %d: leave out --shards, or choose another --out", d.Path, d.Sheet.Shards, n))
		}
		n = d.Sheet.Shards
	}
	if part, err = s.part(n); err != nil {
		return nil, part, withCode(exitUsage, err)
	}
	if n = cmp.Or(n, part.N, 1); s.shard != "" && part.N != n {
		return nil, part, withCode(exitUsage, fmt.Errorf("--shard %s: the sweep is in %d shards", part, n))
	}
	var chosen []string
	flags.Visit(func(f *pflag.Flag) {
		if fixesPlan(f.Name) {
			chosen = append(chosen, "--"+f.Name)
		}
	})
	if len(args) == 0 && len(chosen) == 0 && d != nil {
		return d, part, nil
	}
	if len(args) == 0 {
		return nil, part, withCode(exitUsage, fmt.Errorf("no suite or plan is named, and %s holds no sweep yet (meibench list suites)", s.run.out))
	}
	sheet, err := s.sheet(ctx, a, d, args)
	if err != nil {
		return nil, part, withCode(exitUsage, err)
	}
	sheet.Shards, sheet.Command = n, s.asRun(flags, args)
	d, err = sweep.Begin(s.run.out, sheet)
	return d, part, err
}

// part is the shard that --shard asks for; the zero value is all.
func (s *sweepFlags) part(n int) (plan.Shard, error) {
	switch s.shard {
	case "":
		return plan.Shard{}, nil
	case "auto":
		return plan.ShardOf(os.Getenv, n)
	}
	return plan.ParseShard(s.shard)
}

// fixesPlan reports whether a flag changes what a sweep runs.
func fixesPlan(name string) bool {
	return slices.Contains([]string{"app", "part", "pipeline", "site", "mode", "model", "set", "seed", "repeat", "quick", "profile"}, name)
}

// sheet fixes what the sweep runs. was is the sweep in the folder, nil if there is none:
// then this machine is measured if cells need it.
func (s *sweepFlags) sheet(ctx context.Context, a *app, was *sweep.Dir, args []string) (*sweep.Sheet, error) {
	lab, err := s.run.lab(ctx, a)
	if err != nil {
		return nil, err
	}
	out := &sweep.Sheet{}
	if isPlan(args) {
		p := planned{file: args[0]}
		if p.plan, err = plan.Read(p.file); err != nil {
			return nil, err
		}
		p.receipt, err = plan.ReadReceipt(receiptBeside(p.file))
		if err == nil {
			err = p.checkPath()
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err != nil {
			return nil, err
		}
		out.Plan, out.Receipt = p.plan, p.receipt
	} else {
		list, err := s.run.suites(args)
		if err != nil {
			return nil, err
		}
		if out.Plan, err = lab.Plan(harness.Options{Suites: list, Seed: s.run.seed, Repeats: s.run.repeats, Quick: s.run.quick}); err != nil {
			return nil, err
		}
	}
	if was != nil {
		return out, nil
	}
	opt := harness.Options{Suites: out.Plan.Load(), Quick: out.Plan.Quick, Progress: newProgress(a.err, a.quiet)}
	if err := lab.Prepare(opt); err != nil || lab.Host == nil {
		return out, err
	}
	if runsHere(out.Plan) {
		out.CPU = host.Here().CPU
	}
	text, err := lab.Host.YAML()
	out.Host = string(text)
	return out, err
}

// runsHere reports whether a plan has cells that are not modelled.
func runsHere(p *plan.Plan) bool {
	for _, s := range p.Suites {
		if slices.ContainsFunc(s.Cells, func(c plan.Cell) bool { return c.Mode != "modelled" }) {
			return true
		}
	}
	return false
}

// isPlan tells a plan from suites.
func isPlan(args []string) bool {
	return len(args) == 1 && (strings.HasSuffix(args[0], ".json") || exists(filepath.Join(args[0], plan.File)))
}

// asRun is the meibench run that would leave what the sweep leaves.
func (s *sweepFlags) asRun(flags *pflag.FlagSet, args []string) []string {
	if isPlan(args) {
		return []string{"meibench", "run", "--plan", args[0]}
	}
	out := append([]string{"meibench", "run"}, args...)
	flags.Visit(func(f *pflag.Flag) {
		if !fixesPlan(f.Name) {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			out = append(out, "--"+f.Name+"="+v)
		}
	})
	return out
}

// hand writes what a cluster runs into the folder of the sweep.
func (s *sweepFlags) hand(a *app, d *sweep.Dir) error {
	n := s.needs
	n.Shards, n.Alone, n.Dir = d.Sheet.Shards, runsHere(d.Sheet.Plan), s.folder
	if n.Dir == "" {
		full, err := filepath.Abs(d.Path)
		if err != nil {
			return withCode(exitEnvironment, err)
		}
		n.Dir = full
	}
	make, name, next := sweep.Script, "array.sbatch", fmt.Sprintf("cd %s && sbatch --array=0-%d array.sbatch", d.Path, n.Shards-1)
	if s.backend == "k8s" {
		n.Program = cmp.Or(n.Program, "meibench")
		make, name, next = sweep.Manifest, "job.yaml", "kubectl apply -f "+filepath.Join(d.Path, "job.yaml")
	} else if n.Program == "" {
		exe, err := os.Executable()
		if err != nil {
			return withCode(exitEnvironment, err)
		}
		n.Program = exe
	}
	text, err := make(n)
	if err != nil {
		return withCode(exitUsage, err)
	}
	path := filepath.Join(d.Path, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return withCode(exitEnvironment, err)
	}
	fmt.Fprintf(a.out, "wrote %s: %d shards, %d runs of cells\nnext: %s\nthen: meibench merge %s --out RESULTS\n", path, n.Shards, d.Sheet.Plan.Runs(), next, d.Path)
	return nil
}
