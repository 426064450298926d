// Command killtest shows that a run survives kill -9 at any moment: it kills a
// modelled run again and again, resumes it, and compares what is left at the end
// with a run that nobody disturbed, byte for byte.
//
//	go run ./scripts/killtest -n 10
//	go run ./scripts/killtest -n 50 -- --set requests=50 --repeat 1
//
// requests.arrow, spans.arrow, cells.arrow, bench.txt and the printed table must
// be equal. The moments come from -seed; that they fall where it hurts is shown
// by the journal's size at each kill.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meibench/internal/rng"
)

// compared are the files of a run folder that hold its results.
var compared = []string{"requests.arrow", "spans.arrow", "cells.arrow", "bench.txt"}

type test struct {
	program string
	args    []string
	scratch string
	seed    uint64
	kills   int           // in all
	length  time.Duration // of an undisturbed run
	want    outcome
}

// outcome is what a run leaves.
type outcome struct {
	table []byte
	files map[string][]byte
}

func main() {
	n := flag.Int("n", 10, "runs to kill and resume")
	seed := flag.Uint64("seed", 1, "seed of the moments")
	suite := flag.String("suite", "placement", "suite to run; its sites must not be this machine, which is measured anew; flags for it come after --")
	program := flag.String("meibench", "", "program to test (default: built from this source)")
	flag.Parse()
	t := &test{program: *program, seed: *seed, args: append([]string{"run", *suite, "--mode", "modelled", "--no-report", "--quiet"}, flag.Args()...)}
	if err := t.run(*n); err != nil {
		fmt.Fprintln(os.Stderr, "killtest:", err)
		os.Exit(1)
	}
}

func (t *test) run(n int) (err error) {
	if t.scratch, err = os.MkdirTemp("", "killtest-"); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(t.scratch)
		}
	}()
	if t.program == "" {
		t.program = filepath.Join(t.scratch, "meibench")
		if out, err := exec.Command("go", "build", "-o", t.program, "./cmd/meibench").CombinedOutput(); err != nil {
			return fmt.Errorf("build meibench: %w: %s", err, out)
		}
	}
	began := time.Now()
	if t.want, err = t.finish("undisturbed"); err != nil {
		return err
	}
	t.length = time.Since(began)
	fmt.Printf("undisturbed: %v, %d bytes of requests\n", t.length.Round(time.Millisecond), len(t.want.files["requests.arrow"]))
	for i := range n {
		if err := t.round(i); err != nil {
			return fmt.Errorf("round %d (the folder is kept in %s): %w", i, t.scratch, err)
		}
	}
	fmt.Printf("%d runs survived %d kills\n", n, t.kills)
	return nil
}

// round kills one run up to five times, lets it end, and compares.
func (t *test) round(i int) error {
	name := fmt.Sprint("round-", i)
	r := rng.Stream(t.seed, "kill", i)
	var at []string
	for range 1 + r.IntN(5) {
		moment := time.Duration(r.Float64() * float64(t.length))
		killed, err := t.kill(name, moment)
		if err != nil {
			return err
		}
		if !killed {
			break
		}
		t.kills++
		at = append(at, fmt.Sprintf("%v (%d B)", moment.Round(time.Millisecond), size(filepath.Join(t.scratch, name, "journal"))))
	}
	got, err := t.finish(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(t.want.table, got.table) {
		return fmt.Errorf("the table differs.\n--- undisturbed\n%s\n--- resumed\n%s", t.want.table, got.table)
	}
	for _, f := range compared {
		if !bytes.Equal(t.want.files[f], got.files[f]) {
			return fmt.Errorf("%s differs: %d bytes undisturbed, %d resumed", f, len(t.want.files[f]), len(got.files[f]))
		}
	}
	fmt.Printf("round %d: equal after kills at %s\n", i, strings.Join(at, ", "))
	return os.RemoveAll(filepath.Join(t.scratch, name))
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// command is meibench run into a folder of that name, with --resume if a run has
// begun there: before run.json is written there is nothing to go on with.
func (t *test) command(ctx context.Context, name string) *exec.Cmd {
	dir := filepath.Join(t.scratch, name)
	args := append(slices.Clone(t.args), "--out", dir)
	if size(filepath.Join(dir, "run.json")) > 0 {
		args = append(args, "--resume")
	}
	return exec.CommandContext(ctx, t.program, args...)
}

// kill runs for a while; killed is false where the run ended before.
func (t *test) kill(name string, after time.Duration) (killed bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), after)
	defer cancel()
	out, err := t.command(ctx, name).CombinedOutput()
	if ctx.Err() != nil && err != nil { // CommandContext sends SIGKILL
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("the run failed by itself: %w: %s", err, out)
	}
	return false, nil
}

// finish runs to the end and reads what is left.
func (t *test) finish(name string) (outcome, error) {
	var table, complaint bytes.Buffer
	cmd := t.command(context.Background(), name)
	cmd.Stdout, cmd.Stderr = &table, &complaint
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 { // 1: a gate failed, the run is whole
			return outcome{}, fmt.Errorf("%s: %w: %s", cmd, err, complaint.Bytes())
		}
	}
	dir := filepath.Join(t.scratch, name)
	o := outcome{table: bytes.ReplaceAll(table.Bytes(), []byte(dir), []byte("OUT")), files: map[string][]byte{}}
	for _, f := range compared {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			return outcome{}, err
		}
		o.files[f] = b
	}
	return o, nil
}
