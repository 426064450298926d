// Package golden compares text with files that a person has reviewed.
//
// A test runs a scenario, prints what happened, and calls Check; `go test
// -update` rewrites the file, and the reviewer reads the diff as a story.
// Invariants are asserted in the test as well, so that a wrong golden file
// cannot bless a wrong run.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files with what the tests print now")

// Updating reports whether golden files are being rewritten.
func Updating() bool { return *update }

// Check compares got with the file, or rewrites it under -update.
func Check(t testing.TB, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (run with -update to make it, then read it)", err)
	}
	if string(want) != string(got) {
		t.Fatalf("%s differs; run with -update and read the diff.\n--- want\n%s\n--- got\n%s", file, want, got)
	}
}
