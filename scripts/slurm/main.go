// Command slurm runs a sweep as a Slurm job array, and shows that it works.
//
//	meibench sweep placement --out sweeps/a --shards 16 --backend slurm
//	go run ./scripts/slurm submit -dir sweeps/a -out runs/a
//
// submit sends the shards that are not done as one array, waits for it, sends again what
// failed and may be tried again (exit code 42 may not), and merges. It can be stopped and
// started again at any time.
//
//	sudo go run ./scripts/slurm test
//
// test sets up Debian's Slurm in a temporary folder, with one node and then with four on
// this machine, runs a small modelled suite through an array in which one task is
// requeued and one is killed, and compares the merged run with a local one byte by byte.
// It installs the packages if they are missing, and takes all away again: daemons, files,
// packages, users. It needs root and apt-get; -installed uses what is there and installs
// nothing.
//
// There is no cluster manager here: sbatch, squeue, scontrol and scancel do the work.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"meibench/harness/sweep"
)

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "slurm:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	if len(args) == 0 {
		return errors.New("say submit or test (go doc ./scripts/slurm)")
	}
	fs := flag.NewFlagSet(args[0], flag.ExitOnError)
	switch args[0] {
	case "submit":
		a := array{say: os.Stdout, table: os.Stdout}
		fs.StringVar(&a.dir, "dir", "", "folder of the sweep, with array.sbatch from meibench sweep --backend slurm")
		fs.StringVar(&a.out, "out", "", "run folder to write")
		fs.IntVar(&a.tries, "tries", 3, "times to send a shard that fails")
		fs.StringVar(&a.program, "meibench", "meibench", "program to merge with")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		if a.dir == "" || a.out == "" {
			return errors.New("submit needs -dir and -out")
		}
		return a.run()
	case "test":
		t := trial{}
		fs.BoolVar(&t.installed, "installed", false, "use the Slurm that is there; install and remove no package")
		fs.IntVar(&t.requests, "requests", 600, "requests of every cell of the suite")
		if err := fs.Parse(args[1:]); err != nil {
			return err
		}
		return t.run()
	}
	return fmt.Errorf("%q: say submit or test (go doc ./scripts/slurm)", args[0])
}

// array is a sweep on its way through Slurm.
type array struct {
	dir, out, program string
	merge             []string // more arguments of meibench merge
	tries             int
	say, table        io.Writer

	sent func(job string) error // called when an array is sent, for the test
}

// run sends, waits and sends again until the sweep is whole, and merges it.
func (a *array) run() error {
	d, err := sweep.Open(a.dir)
	if err != nil {
		return err
	}
	if err := fits(d.Sheet.Shards); err != nil {
		return err
	}
	never := map[int]bool{} // shards that ended with 42
	for try := 1; ; try++ {
		missing, err := undone(d)
		if err != nil {
			return err
		}
		missing = slices.DeleteFunc(missing, func(i int) bool { return never[i] })
		if len(missing) == 0 || try > a.tries {
			break
		}
		codes, err := a.send(missing)
		if err != nil {
			return err
		}
		for i, code := range codes {
			never[i] = code == sweep.ExitNoRetry || code == sweep.ExitUsage
		}
	}
	merge := exec.Command(a.program, append([]string{"merge", a.dir, "--out", a.out}, a.merge...)...)
	merge.Stdout, merge.Stderr = a.table, os.Stderr
	return merge.Run() // which names what is missing
}

// undone lists the shards that are not done.
func undone(d *sweep.Dir) (out []int, err error) {
	for i := range d.Sheet.Shards {
		done, err := d.Done(i)
		if err != nil {
			return nil, err
		}
		if !done {
			out = append(out, i)
		}
	}
	return out, nil
}

var mostTasks = regexp.MustCompile(`(?m)^MaxArraySize\s*=\s*(\d+)`)

// fits refuses a sweep of more shards than an array of this site may have tasks.
func fits(shards int) error {
	text, err := output("", "scontrol", "show", "config")
	if err != nil {
		return err
	}
	m := mostTasks.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	if most, err := strconv.Atoi(m[1]); err == nil && shards > most {
		return fmt.Errorf("the sweep is in %d shards, and an array may have indices below %d here (MaxArraySize): begin it with --shards %d", shards, most, most)
	}
	return nil
}

// send runs an array of some shards and waits for its end. It returns the exit codes of
// the tasks that Slurm still knows.
func (a *array) send(shards []int) (map[int]int, error) {
	job, err := output(a.dir, "sbatch", "--parsable", "--array="+list(shards), "array.sbatch")
	if err != nil {
		return nil, err
	}
	job, _, _ = strings.Cut(strings.TrimSpace(job), ";")
	fmt.Fprintf(a.say, "job %s: shards %s\n", job, list(shards))
	if a.sent != nil {
		if err := a.sent(job); err != nil {
			return nil, err
		}
	}
	// A job that depends on the array is the one thing to wait for: sbatch --wait sleeps well.
	wait := exec.Command("sbatch", "--wait", "--quiet", "--dependency=afterany:"+job, "--job-name=meibench-end", "--output=/dev/null", "--wrap", "true")
	wait.Stderr = os.Stderr
	if err := wait.Run(); err != nil {
		return nil, fmt.Errorf("wait for job %s: %w", job, err)
	}
	text, err := output("", "scontrol", "show", "job", "--oneliner", job)
	if err != nil { // Slurm forgets jobs that ended long ago (MinJobAge)
		return nil, nil
	}
	return exitCodes(text), nil
}

var ended = regexp.MustCompile(`(?m)^.*\bArrayTaskId=(\d+)\s.*\bExitCode=(\d+):(\d+)`)

// exitCodes reads them from what scontrol shows of an array.
func exitCodes(text string) map[int]int {
	out := map[int]int{}
	for _, m := range ended.FindAllStringSubmatch(text, -1) {
		i, err := strconv.Atoi(m[1])
		code, err2 := strconv.Atoi(m[2])
		if err == nil && err2 == nil {
			out[i] = code
		}
	}
	return out
}

// list is 0,1,2,5 as Slurm takes it: 0-2,5.
func list(shards []int) string {
	var out []string
	for i := 0; i < len(shards); {
		k := i
		for k+1 < len(shards) && shards[k+1] == shards[k]+1 {
			k++
		}
		part := strconv.Itoa(shards[i])
		if k > i {
			part += "-" + strconv.Itoa(shards[k])
		}
		out, i = append(out, part), k+1
	}
	return strings.Join(out, ",")
}

// output runs a program in a folder and returns what it prints.
func output(dir, name string, args ...string) (string, error) {
	c := exec.Command(name, args...)
	c.Dir = dir
	text, err := c.Output()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("%s is not here: run this where Slurm's commands are (Debian: slurm-client)", name)
	case errors.As(err, &exit):
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(text), err
}
