// Command fuzz runs every fuzz target of the module, one after the other: `go
// test -fuzz` takes one at a time. It stops at the first that fails.
//
//	go run ./scripts/fuzz -time 30s
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

var target = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

func main() {
	d := flag.Duration("time", 30*time.Second, "time per target")
	only := flag.String("only", "", "only targets whose package or name contains this")
	flag.Parse()
	if err := run(*d, *only); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(d time.Duration, only string) error {
	list, err := exec.Command("go", "list", "-f", "{{.Dir}}", "./...").Output()
	if err != nil {
		return fmt.Errorf("list packages: %w", err)
	}
	for dir := range strings.FieldsSeq(string(list)) {
		names, err := targets(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if !strings.Contains(dir+"."+name, only) {
				continue
			}
			fmt.Printf("== %s %s\n", dir, name)
			cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+name+"$", "-fuzztime", d.String(), dir)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s in %s: %w (the input is in its testdata/fuzz; keep it)", name, dir, err)
			}
		}
	}
	return nil
}

// targets lists the fuzz targets of a package's test files.
func targets(dir string) (names []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for _, m := range target.FindAllSubmatch(src, -1) {
			names = append(names, string(m[1]))
		}
	}
	return names, nil
}
