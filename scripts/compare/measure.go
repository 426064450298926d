package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// program is the test program of a package on both sides.
type program struct {
	pkg   string
	paths [2]string
	dirs  [2]string // where each is run
}

// build builds the test programs of all packages that have benchmarks on both
// sides.
func (j *job) build(ctx context.Context, sides [2]side, scratch string) (out []program, err error) {
	var found [2]map[string]string // import path -> folder
	for i, s := range sides {
		if found[i], err = j.packages(ctx, s); err != nil {
			return nil, err
		}
	}
	for pkg := range found[1] {
		if found[0][pkg] == "" {
			fmt.Fprintf(j.stderr, "only in new: %s\n", pkg)
		}
	}
	var names []string
	for pkg := range found[0] {
		if found[1][pkg] == "" {
			fmt.Fprintf(j.stderr, "only in old: %s\n", pkg)
			continue
		}
		names = append(names, pkg)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return nil, fmt.Errorf("no package of %s has benchmarks in both commits", strings.Join(j.pkgs, " "))
	}
	for k, pkg := range names {
		p := program{pkg: pkg}
		for i, s := range sides {
			fmt.Fprintf(j.stderr, "build %d/%d: %s %s\n", k+1, len(names), s.name, pkg)
			p.paths[i], p.dirs[i] = filepath.Join(scratch, fmt.Sprintf("%s-%d.test", s.name, k)), found[i][pkg]
			if _, err := output(ctx, s.dir, nil, "go", "test", "-c", "-o", p.paths[i], pkg); err != nil {
				return nil, err
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// packages are those of a side whose test files hold a benchmark.
func (j *job) packages(ctx context.Context, s side) (map[string]string, error) {
	const form = "{{.ImportPath}}\t{{.Dir}}\t{{range .TestGoFiles}}{{.}} {{end}}{{range .XTestGoFiles}}{{.}} {{end}}"
	text, err := output(ctx, s.dir, nil, append([]string{"go", "list", "-f", form}, j.pkgs...)...)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, line := range strings.Split(text, "\n") {
		f := strings.Split(line, "\t")
		if len(f) != 3 {
			continue
		}
		for _, name := range strings.Fields(f[2]) {
			b, err := os.ReadFile(filepath.Join(f[1], name))
			if err != nil {
				return nil, err
			}
			if strings.Contains(string(b), "\nfunc Benchmark") {
				out[f[0]] = f[1]
			}
		}
	}
	return out, nil
}

// benchmarks runs the programs in turns and writes old.txt and new.txt.
func (j *job) benchmarks(ctx context.Context, sides [2]side, programs []program) (paths [2][]string, err error) {
	var files [2]*os.File
	for i, s := range sides {
		path := filepath.Join(j.out, s.name+".txt")
		if files[i], err = os.Create(path); err != nil {
			return paths, err
		}
		defer func() { err = errors.Join(err, files[i].Close()) }()
		paths[i] = []string{path}
	}
	args := []string{"-test.run", "^$", "-test.bench", j.bench, "-test.benchmem", "-test.cpu", strconv.Itoa(j.procs)}
	if j.time != "" {
		args = append(args, "-test.benchtime", j.time)
	}
	for round := range j.count {
		fmt.Fprintf(j.stderr, "turn %d/%d\n", round+1, j.count)
		for _, p := range programs {
			for place := range 2 {
				i := turn(round, place)
				text, err := output(ctx, p.dirs[i], []string{"GOMAXPROCS=" + strconv.Itoa(j.procs)}, append([]string{p.paths[i]}, args...)...)
				if err != nil {
					return paths, err
				}
				if _, err := files[i].WriteString(lines(text)); err != nil {
					return paths, err
				}
			}
		}
	}
	return paths, nil
}

// lines keeps what belongs to the benchmark format of what a test program
// printed.
func lines(text string) string {
	var b strings.Builder
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		line := s.Text()
		key, _, isConfig := strings.Cut(line, ": ")
		switch {
		case strings.HasPrefix(line, "Benchmark"), strings.HasPrefix(line, "Unit "), isConfig && slices.Contains([]string{"goos", "goarch", "pkg", "cpu"}, key):
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// suites runs a suite by both builds of meibench in turns. Both have the same
// seed in a round.
func (j *job) suites(ctx context.Context, sides [2]side, scratch string) (paths [2][]string, err error) {
	var built [2]string
	for i, s := range sides {
		built[i] = filepath.Join(scratch, s.name+".meibench")
		fmt.Fprintf(j.stderr, "build: %s meibench\n", s.name)
		if _, err := output(ctx, s.dir, nil, "go", "build", "-o", built[i], "./cmd/meibench"); err != nil {
			return paths, err
		}
	}
	out, err := filepath.Abs(j.out)
	if err != nil {
		return paths, err
	}
	for round := range j.count {
		fmt.Fprintf(j.stderr, "turn %d/%d\n", round+1, j.count)
		for place := range 2 {
			i := turn(round, place)
			dir := filepath.Join(out, fmt.Sprintf("%s-%d", sides[i].name, round+1))
			args := []string{built[i], "run", j.suite, "--repeat", "1", "--seed", strconv.Itoa(round + 1), "--no-report", "--quiet", "--out", dir}
			if _, err := output(ctx, sides[i].dir, []string{"GOMAXPROCS=" + strconv.Itoa(j.procs)}, append(args, j.args...)...); err != nil {
				if _, gone := os.Stat(filepath.Join(dir, "bench.txt")); gone != nil || ctx.Err() != nil { // INVALID cells are an exit code, too
					return paths, err
				}
			}
			paths[i] = append(paths[i], dir)
		}
	}
	return paths, nil
}
