package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"meibench/harness/results"
	"meibench/harness/sweep"
)

// trial is the test: a suite run here, and through Slurm of one node and of four.
type trial struct {
	installed bool
	requests  int

	scratch, program string
}

// shards of the suite in the test: more than there are nodes.
const shards = 6

func (t *trial) run() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("test starts daemons and installs packages: run it as root, on a machine where that may be done")
	}
	if !t.installed {
		if _, err := exec.LookPath("slurmctld"); err == nil {
			return errors.New("there is a Slurm here: say -installed, and nothing is installed or removed")
		}
	}
	if t.scratch, err = os.MkdirTemp("", "meibench-slurm-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(t.scratch), t.nobodyLeft()) }()
	if err := os.Chmod(t.scratch, 0o711); err != nil { // munge wants to reach its socket
		return err
	}
	t.program = t.at("meibench")
	if out, err := exec.Command("go", "build", "-o", t.program, "./cmd/meibench").CombinedOutput(); err != nil {
		return fmt.Errorf("build meibench: %w: %s", err, out)
	}
	began := time.Now()
	if err := t.meibench("run", "placement", "--set", "requests="+strconv.Itoa(t.requests), "--no-report", "--quiet", "--out", t.at("local")); err != nil {
		return err
	}
	t.say("local run: %s", time.Since(began).Round(time.Second))
	if !t.installed {
		began = time.Now()
		remove, ierr := install()
		if ierr != nil {
			return ierr
		}
		t.say("installed %s: %s", strings.Join(packages, ", "), time.Since(began).Round(time.Second))
		defer func() {
			if rerr := remove(); rerr != nil {
				err = errors.Join(err, rerr)
			} else {
				t.say("packages purged, nothing of them is left")
			}
		}()
	}
	version, err := output("", "slurmctld", "-V")
	if err != nil {
		return err
	}
	t.say("%s", strings.TrimSpace(version))
	for _, nodes := range []int{1, 4} {
		if err := t.through(nodes); err != nil {
			return fmt.Errorf("%d node(s): %w", nodes, err)
		}
	}
	return nil
}

func (t *trial) at(name string) string { return filepath.Join(t.scratch, name) }

func (t *trial) say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func (t *trial) meibench(args ...string) error {
	if out, err := exec.Command(t.program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("meibench %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// through runs the suite through a cluster, with a task requeued and one killed.
func (t *trial) through(nodes int) (err error) {
	c := &cluster{Dir: t.at("cluster" + strconv.Itoa(nodes)), Nodes: nodes}
	defer func() {
		if err != nil {
			log, _ := os.ReadFile(c.at("log/slurmctld.log"))
			err = fmt.Errorf("%w\n%s", err, log[max(0, len(log)-4000):])
		}
		err = errors.Join(err, c.stop())
	}()
	began := time.Now()
	if err := c.start(); err != nil {
		return err
	}
	dir, out := t.at(fmt.Sprintf("sweep%d", nodes)), t.at(fmt.Sprintf("merged%d", nodes))
	if err := t.meibench("sweep", "placement", "--set", "requests="+strconv.Itoa(t.requests), "--out", dir, "--shards", strconv.Itoa(shards), "--backend", "slurm", "--mib", "900", "--quiet"); err != nil {
		return err
	}
	a := array{dir: dir, out: out, program: t.program, merge: []string{"--no-report", "--json"}, tries: 3, say: os.Stdout, table: io.Discard}
	sent := 0
	a.sent = func(job string) error {
		if sent++; sent > 1 {
			return nil
		}
		return errors.Join(disturb(dir, job, 0, requeue), disturb(dir, job, 2, kill))
	}
	if err := a.run(); err != nil {
		return err
	}
	if sent != 2 {
		return fmt.Errorf("%d arrays were sent: the killed task needs a second one, and nothing else", sent)
	}
	where, err := t.equal(out, nodes)
	if err != nil {
		return err
	}
	if err := t.refused(nodes); err != nil {
		return err
	}
	t.say("%d node(s): equal bytes after a requeued and a killed task; shards ran on %s; %s", nodes, where, time.Since(began).Round(time.Second))
	return nil
}

// refused sends a sweep whose plan this program cannot run as it was fixed: its task must
// end with exit code 42, and must not be sent again.
func (t *trial) refused(nodes int) error {
	dir := t.at(fmt.Sprintf("refused%d", nodes))
	if err := t.meibench("sweep", "placement", "--app", "driving", "--set", "requests=5", "--out", dir, "--shards", "2", "--backend", "slurm", "--mib", "900", "--quiet"); err != nil {
		return err
	}
	path := filepath.Join(dir, sweep.File)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte(`"contract":"`), []byte(`"contract":"0`), 1), 0o644); err != nil {
		return err
	}
	sent := 0
	a := array{dir: dir, out: t.at("never"), program: t.program, tries: 3, say: os.Stdout, table: io.Discard, sent: func(string) error { sent++; return nil }}
	if err := a.run(); err == nil || sent != 1 {
		return fmt.Errorf("a plan that cannot be run was sent %d times, and merging it gave %v", sent, err)
	}
	t.say("%d node(s): exit code 42 was not sent again", nodes)
	return nil
}

// disturb waits until a shard has written something, and does something to its task.
func disturb(dir, job string, shard int, how func(task string) error) error {
	partial := filepath.Join(dir, fmt.Sprintf("shard-%d.partial", shard))
	err := until(5*time.Minute, fmt.Sprintf("shard %d to write rows", shard), func() bool {
		info, err := os.Stat(filepath.Join(partial, "journal"))
		return err == nil && info.Size() > 1<<10
	})
	if err != nil {
		return err
	}
	return how(fmt.Sprintf("%s_%d", job, shard))
}

// requeue sends a running task back; Slurm would wait two minutes before it runs it
// again, which an operator may cut short.
func requeue(task string) error {
	if _, err := output("", "scontrol", "requeue", task); err != nil {
		return err
	}
	return until(time.Minute, "task "+task+" to be in the queue again", func() bool {
		text, err := output("", "squeue", "--noheader", "--array", "--format=%T", "--jobs="+task)
		if err != nil || !strings.HasPrefix(text, "PENDING") {
			return false
		}
		_, err = output("", "scontrol", "update", "JobId="+task, "StartTime=now")
		return err == nil
	})
}

// kill ends a task at once and for good.
func kill(task string) error {
	_, err := output("", "scancel", "--signal=KILL", "--full", task)
	return err
}

// equal compares a merged run with the local one, and says on which nodes shards ran.
func (t *trial) equal(out string, nodes int) (string, error) {
	for _, name := range []string{results.RequestsFile, results.SpansFile, results.CellsFile, results.BenchFile, "plan.json"} {
		a, err := os.ReadFile(filepath.Join(t.at("local"), name))
		if err != nil {
			return "", err
		}
		b, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			return "", err
		}
		if !bytes.Equal(a, b) {
			return "", fmt.Errorf("%s differs: %d bytes locally, %d through Slurm", name, len(a), len(b))
		}
	}
	if diff, err := t.differences(out); err != nil || len(diff) > 0 {
		return "", errors.Join(err, fmt.Errorf("run.json differs in more than the host: %v", diff))
	}
	text, err := os.ReadFile(filepath.Join(out, sweep.SharesFile))
	if err != nil {
		return "", err
	}
	var on []string
	for i := 1; i <= nodes; i++ {
		node := "edge" + strconv.Itoa(i)
		n := bytes.Count(text, []byte(`"node":"`+node+`"`))
		if n == 0 {
			return "", fmt.Errorf("no shard ran on %s: %s", node, text)
		}
		on = append(on, fmt.Sprintf("%s (%d)", node, n))
	}
	return strings.Join(on, ", "), nil
}

// differences are the fields in which run.json of a merged run differs from the local one.
func (t *trial) differences(out string) ([]string, error) {
	a, err := results.Read(t.at("local"))
	if err != nil {
		return nil, err
	}
	b, err := results.Read(out)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return sweep.Differences(a.Manifest, b.Manifest), errors.Join(a.Close(), b.Close())
}

// nobodyLeft looks for processes of the scratch folder and, where Slurm is only that of
// the test, for jobs.
func (t *trial) nobodyLeft() error {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil { // it ended
			continue
		}
		if bytes.Contains(text, []byte(t.scratch)) || !t.installed && bytes.HasPrefix(text, []byte("slurmstepd")) {
			return fmt.Errorf("process %s is left: %s", filepath.Base(filepath.Dir(f)), bytes.ReplaceAll(text, []byte{0}, []byte(" ")))
		}
	}
	return nil
}
