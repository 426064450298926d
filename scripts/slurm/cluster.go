package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"
)

// cluster is Slurm on this machine, with all that it writes in one folder.
type cluster struct {
	Dir        string
	Host       string
	Nodes      int
	Ctl, First int // ports of slurmctld and of the first slurmd

	daemons []string // names of their pid files, in the order in which they were started
}

// conf follows the recipe of the Slurm manual for several slurmd on one host. All state,
// spool, log and pid files and the socket of munge are in the cluster's folder.
const conf = `ClusterName=meibench
SlurmctldHost={{.Host}}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={{.Dir}}/munge.socket
CredType=cred/munge
SlurmctldPort={{.Ctl}}
StateSaveLocation={{.Dir}}/state
SlurmdSpoolDir={{.Dir}}/spool/%n
SlurmctldPidFile={{.Dir}}/slurmctld.pid
SlurmdPidFile={{.Dir}}/slurmd-%n.pid
SlurmctldLogFile={{.Dir}}/log/slurmctld.log
SlurmdLogFile={{.Dir}}/log/slurmd-%n.log
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
KillWait=5
ReturnToService=2
NodeName=edge[1-{{.Nodes}}] NodeHostname={{.Host}} NodeAddr=127.0.0.1 Port=[{{.First}}-{{.Last}}] CPUs=1 Boards=1 SocketsPerBoard=1 CoresPerSocket=1 ThreadsPerCore=1 RealMemory=2000 State=UNKNOWN
PartitionName=bench Nodes=ALL Default=YES MaxTime=INFINITE State=UP
`

// Last is the port of the last slurmd.
func (c *cluster) Last() int { return c.First + c.Nodes - 1 }

// start makes the folder and starts munged, slurmctld and one slurmd for each node. The
// environment of this process names the cluster from then on.
func (c *cluster) start() error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	c.Host, _, _ = strings.Cut(name, ".")
	if c.Ctl, err = freePorts(1 + c.Nodes); err != nil {
		return err
	}
	c.First = c.Ctl + 1
	for _, d := range []string{"state", "log", "spool"} {
		if err := os.MkdirAll(filepath.Join(c.Dir, d), 0o755); err != nil {
			return err
		}
	}
	key := make([]byte, 1024)
	_, _ = rand.Read(key) // never fails
	var text bytes.Buffer
	if err := template.Must(template.New("").Parse(conf)).Execute(&text, c); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(c.Dir, 0o711), os.WriteFile(c.at("munge.key"), key, 0o400), os.WriteFile(c.at("slurm.conf"), text.Bytes(), 0o644), os.Setenv("SLURM_CONF", c.at("slurm.conf"))); err != nil {
		return err
	}
	if err := c.daemon("munged", "munged", "--socket="+c.at("munge.socket"), "--key-file="+c.at("munge.key"), "--pid-file="+c.at("munged.pid"), "--log-file="+c.at("log/munged.log"), "--seed-file="+c.at("munged.seed")); err != nil {
		return err
	}
	if err := c.daemon("slurmctld", "slurmctld", "-f", c.at("slurm.conf"), "-c"); err != nil {
		return err
	}
	for i := 1; i <= c.Nodes; i++ {
		node := "edge" + strconv.Itoa(i)
		if err := os.MkdirAll(c.at("spool/"+node), 0o755); err != nil {
			return err
		}
		if err := c.daemon("slurmd-"+node, "slurmd", "-f", c.at("slurm.conf"), "-N", node); err != nil {
			return err
		}
	}
	return until(30*time.Second, "all nodes to be idle", func() bool {
		text, err := output("", "sinfo", "--noheader", "--Node", "--format=%N %T")
		return err == nil && strings.Count(text, " idle\n") == c.Nodes
	})
}

func (c *cluster) at(name string) string { return filepath.Join(c.Dir, name) }

// daemon starts a program that goes into the background by itself and leaves a pid file.
func (c *cluster) daemon(pid, name string, args ...string) error {
	c.daemons = append(c.daemons, pid)
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("start %s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return until(10*time.Second, name+" to write its pid file", func() bool { _, err := c.pid(pid); return err == nil })
}

func (c *cluster) pid(name string) (int, error) {
	text, err := os.ReadFile(c.at(name + ".pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// stop cancels all jobs, as a job would outlive its daemons, ends the daemons by their
// pids, and removes the folder.
func (c *cluster) stop() error {
	var errs []error
	if len(c.daemons) > 2 {
		_, err := output("", "scancel", "--user=root")
		errs = append(errs, err, until(60*time.Second, "jobs to end", func() bool {
			text, err := output("", "squeue", "--noheader")
			return err == nil && strings.TrimSpace(text) == ""
		}))
	}
	for i := len(c.daemons) - 1; i >= 0; i-- {
		pid, err := c.pid(c.daemons[i])
		if err != nil { // it never came up
			continue
		}
		errs = append(errs, end(pid), until(20*time.Second, c.daemons[i]+" to end", func() bool {
			return !running(pid)
		}))
	}
	return errors.Join(append(errs, os.RemoveAll(c.Dir), os.Unsetenv("SLURM_CONF"))...)
}

// end asks a process to end.
func end(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(syscall.SIGTERM)
}

// running reports whether a process lives; one that has ended and waits for its parent does not.
func running(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// freePorts finds n ports in a row that nobody listens on, and returns the first.
func freePorts(n int) (int, error) {
	for first := 16800; first < 30000; first += n {
		free := true
		for p := first; p < first+n && free; p++ {
			l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(p))
			if free = err == nil; free {
				_ = l.Close()
			}
		}
		if free {
			return first, nil
		}
	}
	return 0, fmt.Errorf("no %d free ports in a row between 16800 and 30000", n)
}

// until asks ten times a second, for a time.
func until(most time.Duration, what string, ok func() bool) error {
	for end := time.Now().Add(most); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("waited %s for %s", most, what)
		}
	}
	return nil
}
