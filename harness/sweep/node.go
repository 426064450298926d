package sweep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"meibench/internal/filelock"
)

// Node is a harness.Gate for all processes of a machine: modelled cells share it, a
// measured or emulated cell has it alone. Who waits to be alone keeps newcomers out.
type Node struct {
	Dir  string                      // of the two lock files; "" is the system's temporary folder
	Note func(text string, a ...any) // hears once that somebody waits; may be nil
}

const (
	doorFile = "meibench-node-door.lock" // held while one waits to come in
	roomFile = "meibench-node.lock"      // held while a cell runs: shared, or alone
	askAgain = 20 * time.Millisecond
)

// Enter waits until a cell may run. The function it returns ends that.
func (n *Node) Enter(ctx context.Context, alone bool) (leave func(), err error) {
	door, err := n.open(doorFile)
	if err != nil {
		return nil, err
	}
	defer door.Close()
	room, err := n.open(roomFile)
	if err != nil {
		return nil, err
	}
	take := filelock.Shared
	if alone {
		take = filelock.Exclusive
	}
	if err = n.wait(ctx, door, filelock.Exclusive); err == nil {
		err = n.wait(ctx, room, take)
	}
	if err != nil {
		return nil, errors.Join(err, room.Close())
	}
	return func() { _ = room.Close() }, nil
}

func (n *Node) wait(ctx context.Context, f *os.File, take func(*os.File) error) error {
	began, told := time.Now(), false
	for {
		err := take(f)
		if !errors.Is(err, filelock.ErrHeld) {
			return err
		}
		if n.Note != nil && !told && time.Since(began) > time.Second {
			n.Note("waiting for a cell of another process on this machine (%s)", f.Name())
			told = true
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(askAgain):
		}
	}
}

// open opens a lock file that perhaps another user made: reading is enough to lock.
func (n *Node) open(name string) (*os.File, error) {
	dir := n.Dir
	if dir == "" {
		dir = os.TempDir()
	}
	path := filepath.Join(dir, name)
	f, err := os.Open(path)
	if err != nil {
		f, err = os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("lock this machine: %w: set TMPDIR to a folder of this machine that can be written", err)
	}
	return f, nil
}
