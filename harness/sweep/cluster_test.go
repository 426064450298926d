package sweep

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/strictyaml"
)

// The fields of a batch/v1 Job that the manifest may have, by the Kubernetes API
// reference (v1.33: job-v1, pod-v1). A key that is not here is refused by strictyaml, as
// the API server refuses it (kubectl --validate=strict). kubectl itself is not asked.
type (
	meta struct {
		Name   string            `yaml:"name"`
		Labels map[string]string `yaml:"labels"`
	}
	job struct {
		APIVersion string  `yaml:"apiVersion"`
		Kind       string  `yaml:"kind"`
		Metadata   meta    `yaml:"metadata"`
		Spec       jobSpec `yaml:"spec"`
	}
	jobSpec struct {
		CompletionMode       string `yaml:"completionMode"`
		Completions          int    `yaml:"completions"`
		Parallelism          int    `yaml:"parallelism"`
		BackoffLimitPerIndex int    `yaml:"backoffLimitPerIndex"`
		PodFailurePolicy     struct {
			Rules []struct {
				Action      string `yaml:"action"`
				OnExitCodes *struct {
					ContainerName string `yaml:"containerName"`
					Operator      string `yaml:"operator"`
					Values        []int  `yaml:"values"`
				} `yaml:"onExitCodes"`
				OnPodConditions []struct {
					Type   string `yaml:"type"`
					Status string `yaml:"status"`
				} `yaml:"onPodConditions"`
			} `yaml:"rules"`
		} `yaml:"podFailurePolicy"`
		Template struct {
			Metadata meta    `yaml:"metadata"`
			Spec     podSpec `yaml:"spec"`
		} `yaml:"template"`
	}
	podSpec struct {
		RestartPolicy         string `yaml:"restartPolicy"`
		ActiveDeadlineSeconds int    `yaml:"activeDeadlineSeconds"`
		Affinity              struct {
			PodAntiAffinity struct {
				Required []struct {
					TopologyKey   string `yaml:"topologyKey"`
					LabelSelector struct {
						MatchLabels map[string]string `yaml:"matchLabels"`
					} `yaml:"labelSelector"`
				} `yaml:"requiredDuringSchedulingIgnoredDuringExecution"`
			} `yaml:"podAntiAffinity"`
		} `yaml:"affinity"`
		Containers []container `yaml:"containers"`
		Volumes    []struct {
			Name  string `yaml:"name"`
			Claim struct {
				ClaimName string `yaml:"claimName"`
			} `yaml:"persistentVolumeClaim"`
		} `yaml:"volumes"`
	}
	container struct {
		Name    string   `yaml:"name"`
		Image   string   `yaml:"image"`
		Command []string `yaml:"command"`
		Env     []struct {
			Name      string `yaml:"name"`
			ValueFrom struct {
				FieldRef struct {
					FieldPath string `yaml:"fieldPath"`
				} `yaml:"fieldRef"`
			} `yaml:"valueFrom"`
		} `yaml:"env"`
		Resources struct {
			Requests map[string]string `yaml:"requests"`
			Limits   map[string]string `yaml:"limits"`
		} `yaml:"resources"`
		VolumeMounts []struct {
			Name      string `yaml:"name"`
			MountPath string `yaml:"mountPath"`
		} `yaml:"volumeMounts"`
	}
)

func needs() Needs {
	return Needs{Name: "mei-1", Dir: "/data/sweeps/a \"b\"", Shards: 7, Program: "meibench", CPUs: 2, MiB: 700, Time: 90 * time.Minute, AtOnce: 3, Image: "registry.example/mei/bench:1.2", Claim: "results"}
}

func TestTheKubernetesManifestIsAnIndexedJob(t *testing.T) {
	n := needs()
	text, err := Manifest(n)
	require.NoError(t, err)
	var j job
	require.NoError(t, strictyaml.Decode("job.yaml", []byte(text), 1<<20, &j), text)
	require.Equal(t, []string{"batch/v1", "Job", "mei-1"}, []string{j.APIVersion, j.Kind, j.Metadata.Name})
	s := j.Spec
	require.Equal(t, "Indexed", s.CompletionMode)
	require.Equal(t, []int{7, 3, 3}, []int{s.Completions, s.Parallelism, s.BackoffLimitPerIndex})
	require.Len(t, s.PodFailurePolicy.Rules, 2)
	fail := s.PodFailurePolicy.Rules[0]
	require.Equal(t, []string{"FailIndex", "shard", "In"}, []string{fail.Action, fail.OnExitCodes.ContainerName, fail.OnExitCodes.Operator})
	require.Equal(t, []int{ExitUsage, ExitNoRetry}, fail.OnExitCodes.Values)
	lost := s.PodFailurePolicy.Rules[1]
	require.Equal(t, "Ignore", lost.Action)
	require.Equal(t, "DisruptionTarget", lost.OnPodConditions[0].Type)
	require.Equal(t, "True", lost.OnPodConditions[0].Status)
	pod := s.Template.Spec
	require.Equal(t, "Never", pod.RestartPolicy, "a pod failure policy is refused with any other")
	require.Equal(t, 5400, pod.ActiveDeadlineSeconds)
	require.Empty(t, pod.Affinity.PodAntiAffinity.Required, "modelled shards share machines")
	require.Len(t, pod.Containers, 1)
	c := pod.Containers[0]
	require.Equal(t, "shard", c.Name)
	require.Equal(t, n.Image, c.Image)
	require.Equal(t, []string{"meibench", "sweep", "--out", n.Dir, "--shard", "auto", "--shards", "7", "--jobs", "2", "--quiet"}, c.Command)
	require.Equal(t, "MEIBENCH_NODE", c.Env[0].Name)
	require.Equal(t, "spec.nodeName", c.Env[0].ValueFrom.FieldRef.FieldPath)
	require.Equal(t, map[string]string{"cpu": "2", "memory": "700Mi"}, c.Resources.Requests)
	require.Equal(t, c.Resources.Requests, c.Resources.Limits)
	require.Equal(t, "/data/sweeps", c.VolumeMounts[0].MountPath)
	require.Equal(t, c.VolumeMounts[0].Name, pod.Volumes[0].Name)
	require.Equal(t, "results", pod.Volumes[0].Claim.ClaimName)

	n.Alone, n.AtOnce, n.Name, n.Claim = true, 0, "123", "null"
	text, err = Manifest(n)
	require.NoError(t, err)
	j = job{}
	require.NoError(t, strictyaml.Decode("job.yaml", []byte(text), 1<<20, &j), text)
	require.Equal(t, []string{"123", "null"}, []string{j.Metadata.Name, j.Spec.Template.Spec.Volumes[0].Claim.ClaimName}, "names that look like other things stay names")
	require.Equal(t, 7, j.Spec.Parallelism)
	apart := j.Spec.Template.Spec.Affinity.PodAntiAffinity.Required
	require.Len(t, apart, 1, "measured shards do not")
	require.Equal(t, "kubernetes.io/hostname", apart[0].TopologyKey)
	require.Equal(t, j.Spec.Template.Metadata.Labels, apart[0].LabelSelector.MatchLabels)
}

// TestTheStrictReaderKnowsItsFields: the check of the manifest can fail.
func TestTheStrictReaderKnowsItsFields(t *testing.T) {
	var j job
	require.ErrorContains(t, strictyaml.Decode("job.yaml", []byte("apiVersion: batch/v1\nspec: {backOffLimitPerIndex: 3}\n"), 1<<20, &j), "backOffLimitPerIndex")
}

func TestClustersAreRefusedWhatTheyCannotRun(t *testing.T) {
	for want, change := range map[string]func(*Needs){
		"1 or more shards":      func(n *Needs) { n.Shards = 0 },
		"a minute or more":      func(n *Needs) { n.Time = time.Second },
		"line breaks":           func(n *Needs) { n.Dir = "/data/a\nrm -r /" },
		"job name":              func(n *Needs) { n.Name = "Mei_1" },
		"ReadWriteMany":         func(n *Needs) { n.Claim = "" },
		"--image":               func(n *Needs) { n.Image = "" },
		"path of the sweep's":   func(n *Needs) { n.Dir = "sweeps/a" },
		"below where the claim": func(n *Needs) { n.Dir = "/sweep" },
	} {
		n := needs()
		change(&n)
		_, err := Manifest(n)
		require.ErrorContains(t, err, want)
	}
}

// TestTheBatchScriptQuotes whatever a folder or a program is called.
func TestTheBatchScriptQuotes(t *testing.T) {
	n := needs()
	dir := t.TempDir()
	n.Program, n.Dir, n.Alone = filepath.Join(dir, "it's $HOME"), `a 'b' $(false)`, true
	require.NoError(t, os.WriteFile(n.Program, []byte("#!/bin/sh\nfor a; do echo \"$a\"; done\n"), 0o755))
	text, err := Script(n)
	require.NoError(t, err)
	for _, line := range []string{"#SBATCH --requeue\n", "#SBATCH --exclusive\n", "#SBATCH --time=01:30:00\n", "#SBATCH --mem=700M\n", "sbatch --array=0-6%3 array.sbatch\n"} {
		require.Contains(t, text, line)
	}
	path := filepath.Join(dir, "array.sbatch")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	out, err := exec.Command("sh", path).Output()
	if err != nil {
		t.Skip("no shell here: ", err)
	}
	require.Equal(t, "sweep\n--out\na 'b' $(false)\n--shard\nauto\n--shards\n7\n--jobs\n2\n--quiet\n", string(out))
}
