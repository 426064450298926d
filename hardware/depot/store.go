package depot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meibench/internal/filelock"
)

// Store keeps blocks on disk under their digests, within a budget. Several processes may share its folder: who downloads a
// block holds the kernel's lock on its .part file, and who reads one a shared lock that keeps it from being evicted.
//
// A block gets its name by rename, after its digest was checked; it is checked again whenever it is opened later, so that nothing
// is forced to disk (no fsync): what a loss of power tears is found, deleted and fetched again.
// Two processes that finish blocks at the same moment may be over the budget together, by what both are about to add; parts
// of downloads that were given up do not count.
type Store struct {
	dir    string
	budget int64
}

// OpenStore opens or makes a folder of blocks of at most budget bytes in all; 0 for no limit.
func OpenStore(dir string, budget int64) (*Store, error) {
	if budget < 0 {
		return nil, fmt.Errorf("store %s: a budget of %d bytes: want 0 (no limit) or more", dir, budget)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return &Store{dir, budget}, nil
}

func (s *Store) path(b Block) string { return filepath.Join(s.dir, b.Digest) }

// Open returns the verified bytes of a block, or an error that is os.ErrNotExist if the store lacks it. A file that is not
// what its name says is deleted. Close it to let it be evicted.
func (s *Store) Open(b Block) (*os.File, error) {
	f, err := os.Open(s.path(b))
	if err != nil {
		return nil, err
	}
	if err := filelock.Shared(f); err != nil {
		f.Close()
		return nil, os.ErrNotExist // it is being evicted
	}
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err == nil && n == b.Bytes && hex.EncodeToString(sum.Sum(nil)) == b.Digest {
		now := time.Now()
		_ = os.Chtimes(f.Name(), now, now) // eviction goes by it; a read-only folder is read all the same
		return f, nil
	}
	f.Close()
	os.Remove(s.path(b))
	return nil, os.ErrNotExist
}

// part takes the lock of a block's .part file and returns it, or nil if another has finished the block meanwhile.
func (s *Store) part(ctx context.Context, b Block) (*os.File, error) {
	for {
		f, err := os.OpenFile(s.path(b)+".part", os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		err = filelock.Exclusive(f)
		if err == nil {
			mine, e1 := f.Stat()
			there, e2 := os.Stat(f.Name())
			if e1 == nil && e2 == nil && os.SameFile(mine, there) {
				return f, nil
			}
		} else if !errors.Is(err, filelock.ErrHeld) {
			f.Close()
			return nil, fmt.Errorf("store: lock %s: %w", f.Name(), err)
		}
		f.Close()
		if _, err := os.Stat(s.path(b)); err == nil {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// settled is the block that has just come to a part and has its name now: what was hashed as it came, and nobody else has had since, is not
// hashed again. nil if the block is another's, which was quicker.
func (s *Store) settled(b Block, part *os.File) (*os.File, error) {
	if err := filelock.Shared(part); err != nil { // from now on nobody may write it or evict it, and others may read
		return nil, nil
	}
	f, err := os.Open(s.path(b))
	if err != nil {
		return nil, nil
	}
	mine, e1 := part.Stat()
	there, e2 := f.Stat()
	if e1 != nil || e2 != nil || !os.SameFile(mine, there) || there.Size() != b.Bytes || filelock.Shared(f) != nil {
		return nil, f.Close()
	}
	return f, nil
}

// room evicts the blocks that were used longest ago and that nobody has open until need bytes fit.
func (s *Store) room(need int64) error {
	if s.budget == 0 {
		return nil
	}
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	var old []os.FileInfo
	sum := need
	for _, e := range list {
		if info, err := e.Info(); err == nil && !strings.HasSuffix(e.Name(), ".part") {
			old = append(old, info)
			sum += info.Size()
		}
	}
	slices.SortFunc(old, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, info := range old {
		if sum <= s.budget {
			break
		}
		if f, err := os.Open(filepath.Join(s.dir, info.Name())); err == nil {
			if filelock.Exclusive(f) == nil && os.Remove(f.Name()) == nil {
				sum -= info.Size()
			}
			f.Close()
		}
	}
	if sum > s.budget {
		return fmt.Errorf("store %s: a block of %d bytes does not fit in a budget of %d with what is in use: raise the budget", s.dir, need, s.budget)
	}
	return nil
}
