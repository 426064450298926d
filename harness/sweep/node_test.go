package sweep

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestOneMeasuredCellAMachine: any number of modelled cells, or one other.
func TestOneMeasuredCellAMachine(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no advisory locks here")
	}
	dir := t.TempDir()
	var in atomic.Int64
	var most atomic.Int64
	var all sync.WaitGroup
	for i := range 12 {
		n := &Node{Dir: dir} // as if each were a process of its own
		all.Go(func() {
			for k := range 4 {
				alone := (i+k)%4 == 0
				leave, err := n.Enter(context.Background(), alone)
				if err != nil {
					t.Error(err)
					return
				}
				weight := int64(1)
				if alone {
					weight = 1000
				}
				now := in.Add(weight)
				if alone && now != 1000 || now > 1000 {
					t.Errorf("%d in the room, with one that must be alone", now)
				}
				for was := most.Load(); now < 1000 && now > was && !most.CompareAndSwap(was, now); was = most.Load() {
				}
				time.Sleep(time.Millisecond)
				in.Add(-weight)
				leave()
			}
		})
	}
	all.Wait()
	require.Greater(t, most.Load(), int64(1), "modelled cells share the machine")

	leave, err := (&Node{Dir: dir}).Enter(context.Background(), false)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 1200*time.Millisecond)
	defer cancel()
	said := 0
	_, err = (&Node{Dir: dir, Note: func(string, ...any) { said++ }}).Enter(ctx, true)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, 1, said)
	leave()
	_, err = (&Node{Dir: dir + "/none"}).Enter(context.Background(), false)
	require.ErrorContains(t, err, "set TMPDIR")
}
