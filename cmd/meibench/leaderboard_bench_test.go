package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkLeaderboardBuild1000 builds the site of 1,000 bundles: 50 runs of three
// modelled cells, six repeats and 20 requests each, handed in 20 times under other
// titles. Making them takes minutes and is not measured.
func BenchmarkLeaderboardBuild1000(b *testing.B) {
	dir := b.TempDir()
	at := func(format string, a ...any) string { return filepath.Join(dir, fmt.Sprintf(format, a...)) }
	must := func(args ...string) {
		var out, errs bytes.Buffer
		require.Zero(b, execute(context.Background(), &out, &errs, append(args, "-q")), "%v %s", args, &errs)
	}
	must("leaderboard", "init", at("board"), "--name", "B", "--origin", "example.org/b")
	for run := range 50 {
		must("run", "placement", "--app", "driving", "--set", "requests=20", "--repeat", "6", "--no-report", "--seed", fmt.Sprint(run+1), "--out", at("run%d", run))
		zips := []string{"leaderboard", "add", at("board"), "--rerun", "none", "--unsigned"}
		for k := range 20 {
			zip := at("b%d-%d.zip", run, k)
			must("bundle", at("run%d", run), "--name", fmt.Sprintf("e%d-%d", run, k), "--title", fmt.Sprint("try ", k), "--out", zip)
			zips = append(zips, zip)
		}
		must(zips...)
	}
	for b.Loop() {
		must("leaderboard", "build", at("board"), "--out", at("site"))
	}
}
