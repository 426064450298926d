package sweep

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"text/template"
	"time"
)

// Needs is what a cluster is told of the shards of a sweep.
type Needs struct {
	Name    string        // of the job
	Dir     string        // of the sweep, as the cluster's machines see it
	Shards  int           // of the sweep
	Program string        // meibench, as the cluster's machines see it
	CPUs    int           // of one shard
	MiB     int           // of memory of one shard
	Time    time.Duration // for one shard, at the most
	AtOnce  int           // shards that may run side by side; 0 = as many as the cluster likes
	Alone   bool          // a shard measures: it must have its machine to itself
	Image   string        // Kubernetes: with meibench in it
	Claim   string        // Kubernetes: the volume claim that holds Dir, and from where all its pods write
}

// Exit codes of meibench sweep --shard that a cluster must not answer by another try.
const (
	ExitUsage   = 2  // a flag is wrong
	ExitNoRetry = 42 // the input of the shard is wrong
)

// Script is the batch script of a Slurm job array: each task runs one shard. A task that
// is requeued, killed or sent again goes on with its shard; tasks of shards that are done
// return at once.
func Script(n Needs) (string, error) {
	if err := n.check(); err != nil {
		return "", err
	}
	return fill(slurmText, n)
}

// Manifest is the Kubernetes manifest of an Indexed Job (batch/v1): each index runs one
// shard, a shard whose input is bad fails at once, others are tried again on their own.
func Manifest(n Needs) (string, error) {
	if err := n.check(); err != nil {
		return "", err
	}
	if !label.MatchString(n.Name) {
		return "", bad("job name %q: Kubernetes wants at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit", n.Name)
	}
	if !label.MatchString(n.Claim) {
		return "", bad("--claim %q: want the name of a volume claim (ReadWriteMany) that holds the folder of the sweep", n.Claim)
	}
	if !path.IsAbs(n.Dir) || path.Dir(path.Clean(n.Dir)) == "/" {
		return "", bad("--folder %q: want the path of the sweep's folder in the pods, below where the claim is mounted, as /data/sweep", n.Dir)
	}
	n.Dir = path.Clean(n.Dir)
	if !image.MatchString(n.Image) {
		return "", bad("--image %q: want an image with meibench in it, as REGISTRY/meibench:TAG", n.Image)
	}
	return fill(jobText, n)
}

var (
	label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	image = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]*$`)
)

func (n *Needs) check() error {
	switch {
	case n.Shards < 1 || n.CPUs < 1 || n.MiB < 1 || n.AtOnce < 0 || n.Time < time.Minute:
		return bad("a cluster needs 1 or more shards, CPUs and MiB and a minute or more of time: have %d, %d, %d, %s", n.Shards, n.CPUs, n.MiB, n.Time)
	case n.Name == "" || strings.ContainsAny(n.Name+n.Dir+n.Program, "\n\r\x00"):
		return bad("name %q, folder %q, program %q: a script cannot hold an empty name or line breaks", n.Name, n.Dir, n.Program)
	}
	return nil
}

func fill(text string, n Needs) (string, error) {
	t, err := template.New("").Funcs(template.FuncMap{"sh": shell, "yaml": quoted, "clock": clock, "seconds": func(d time.Duration) int { return int(d.Seconds()) },
		"less": func(n int) int { return n - 1 }, "dir": path.Dir, "base": path.Base}).Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, n)
	return b.String(), err
}

// shell quotes a word for a POSIX shell.
func shell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// quoted quotes a text for YAML, in double quotes.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\t", `\t`).Replace(s) + `"`
}

// clock is a time as Slurm reads it: hours:minutes:seconds.
func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// A folder name goes into a comment line of sbatch as it is, so logs go beside the
// script by a relative name: scripts/slurm submits from there.
const slurmText = `#!/bin/sh
# One shard of a meibench sweep per task. Submit from the folder of this file:
#   sbatch --array=0-{{less .Shards}}{{if .AtOnce}}%{{.AtOnce}}{{end}} array.sbatch
# To run some shards again: sbatch --array=3,7 array.sbatch
#SBATCH --job-name={{.Name}}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=log-%a.txt
#SBATCH --cpus-per-task={{.CPUs}}
#SBATCH --mem={{.MiB}}M
#SBATCH --time={{clock .Time}}
{{- if .Alone}}
#SBATCH --exclusive
{{- end}}
exec {{sh .Program}} sweep --out {{sh .Dir}} --shard auto --shards {{.Shards}} --jobs {{.CPUs}} --quiet
`

const jobText = `# One shard of a meibench sweep per index. The volume claim must hold the folder
# {{.Dir}} of the sweep, at the path {{base .Dir}} in it.
#   kubectl apply -f job.yaml
#   kubectl wait --for=condition=complete job/{{.Name}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{yaml .Name}}
spec:
  completionMode: Indexed
  completions: {{.Shards}}
  parallelism: {{if .AtOnce}}{{.AtOnce}}{{else}}{{.Shards}}{{end}}
  backoffLimitPerIndex: 3
  podFailurePolicy:
    rules:
      - action: FailIndex
        onExitCodes: {containerName: shard, operator: In, values: [2, 42]}
      - action: Ignore
        onPodConditions: [{type: DisruptionTarget, status: "True"}]
  template:
    metadata:
      labels: {app: {{yaml .Name}}}
    spec:
      restartPolicy: Never
{{- if .Alone}}
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector: {matchLabels: {app: {{yaml .Name}}}}
{{- end}}
      activeDeadlineSeconds: {{seconds .Time}}
      containers:
        - name: shard
          image: {{yaml .Image}}
          command: [{{yaml .Program}}, sweep, --out, {{yaml .Dir}}, --shard, auto, --shards, "{{.Shards}}", --jobs, "{{.CPUs}}", --quiet]
          env:
            - name: MEIBENCH_NODE
              valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
          resources:
            requests: {cpu: "{{.CPUs}}", memory: {{.MiB}}Mi}
            limits: {cpu: "{{.CPUs}}", memory: {{.MiB}}Mi}
          volumeMounts:
            - {name: sweep, mountPath: {{yaml (dir .Dir)}}}
      volumes:
        - name: sweep
          persistentVolumeClaim: {claimName: {{yaml .Claim}}}
`
