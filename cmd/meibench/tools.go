package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/internal/strictyaml"
	"meibench/reference/library"
	"meibench/suites"
	"meibench/workloads"
)

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}
	return strings.TrimSpace(v)
}

func newValidate(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "validate FILE...", Short: "check suite and profile files",
		Long: "Check YAML files: suites, workloads, device, link, model and site profiles, and that the names in them exist.\nWhat a file is follows from its keys.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var all []error
			for _, path := range args {
				what, err := validateFile(path)
				if err != nil {
					all = append(all, err)
					continue
				}
				fmt.Fprintf(a.out, "%s: a valid %s\n", path, what)
			}
			return withCode(exitUsage, errors.Join(all...))
		},
	}
}

// validateFile finds out what a file is by the keys only its kind has.
func validateFile(path string) (string, error) {
	if !strings.ContainsRune(path, os.PathSeparator) {
		path = "." + string(os.PathSeparator) + path
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", filepath.Clean(path), err)
	}
	has := func(key string) bool { return strings.Contains("\n"+string(text), "\n"+key+":") }
	switch {
	case has("matrix") || has("question"):
		s, err := suites.Load(path)
		if err == nil {
			err = (&harness.Lab{}).Check(s)
		}
		return "suite", err
	case has("memory_bandwidth") || has("peak_fp16"):
		_, err = profiles.LoadDevice(path)
		return "device profile", err
	case has("rtt"):
		_, err = profiles.LoadLink(path)
		return "link profile", err
	case has("models") && has("blocks"):
		_, err = library.Load(path)
		return "library", err
	case has("nodes"):
		return "site", (&harness.Lab{}).CheckSite(path)
	case has("base"):
		_, err = workloads.LoadFile(path)
		return "workload", err
	case has("layers"):
		_, err = profiles.LoadModel(path, "")
		return "model profile", err
	}
	var anything any // an empty file or broken YAML says so itself
	if err := strictyaml.Decode(path, text, suites.MaxFile, &anything); err != nil {
		return "", err
	}
	return "", fmt.Errorf("%s: cannot tell what this is: a suite has a matrix and a question, a device memory_bandwidth, a link rtt, a site nodes, a model layers, a workload a base, a library models and blocks", path)
}
