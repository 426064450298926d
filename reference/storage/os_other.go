//go:build !linux || !(amd64 || arm64)

package storage

import (
	"errors"
	"fmt"
	"os"
)

const canDrop = false

func openDirect(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func drop(*os.File, int64, int64) error { return errors.ErrUnsupported }

// Evict is not available on this system: the standard library has no call that drops a file from its cache.
func Evict(path string) error {
	return fmt.Errorf("drop %s from the page cache: not available on this system: %w", path, errors.ErrUnsupported)
}

// Resident is not available on this system.
func Resident(path string) (held, of int64, err error) {
	return Unknown, 0, fmt.Errorf("look for %s in the page cache: not available on this system: %w", path, errors.ErrUnsupported)
}

// Used tells nothing on this system.
func Used() Usage { return Usage{Unknown, Unknown, Unknown, Unknown, Unknown} }

// ResetPeak does nothing on this system.
func ResetPeak() bool { return false }
