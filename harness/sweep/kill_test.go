package sweep

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness"
)

// TestChild is the process that TestKilledAtAnyMoment kills: it runs the sweep of a folder.
func TestChild(t *testing.T) {
	dir := os.Getenv("SWEEP_TEST_DIR")
	if dir == "" {
		t.Skip("a part of TestKilledAtAnyMoment")
	}
	d, err := Open(dir)
	require.NoError(t, err)
	require.NoError(t, d.RunAll(context.Background(), &harness.Lab{}, options()))
}

// TestKilledAtAnyMoment: kill -9 when a shard has its first row, in its middle, and when
// it is about to be finished; what comes of it has the bytes of a run that nobody disturbed.
func TestKilledAtAnyMoment(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such signal here")
	}
	want, d := whole(t), begin(t, 2)
	exe, err := os.Executable()
	require.NoError(t, err)
	journal := filepath.Join(d.Name(0)+partial, "journal")
	killed := 0
	for _, size := range []int64{1, 20_000, 60_000, 100_000, 1} {
		if size == 1 && killed > 2 { // the second shard
			journal = filepath.Join(d.Name(1)+partial, "journal")
		}
		child := exec.Command(exe, "-test.run=^TestChild$")
		child.Env = append(os.Environ(), "SWEEP_TEST_DIR="+d.Path)
		require.NoError(t, child.Start())
		ended := make(chan error, 1)
		go func() { ended <- child.Wait() }()
		for over := false; !over; {
			select {
			case err := <-ended: // it was quicker than the look at its journal
				require.NoError(t, err)
				over = true
			case <-time.After(time.Millisecond):
				if info, err := os.Stat(journal); err == nil && info.Size() >= size {
					require.NoError(t, child.Process.Kill())
					<-ended
					killed++
					over = true
				}
			}
		}
	}
	require.Positive(t, killed, "no process was caught in the middle")
	require.NoError(t, d.RunAll(context.Background(), &harness.Lab{}, options()))
	out := filepath.Join(t.TempDir(), "merged")
	_, err = Merge(d.Path, out)
	require.NoError(t, err)
	same(t, want, out)
	t.Logf("%d processes were killed", killed)
}
