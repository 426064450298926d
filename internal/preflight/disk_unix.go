//go:build linux || darwin

package preflight

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"meibench/internal/units"
)

// freeSpace is what an ordinary user may still write at dir, or where dir would
// be made.
func freeSpace(dir string) (units.Bytes, error) {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		var s syscall.Statfs_t
		err := syscall.Statfs(dir, &s)
		if err == nil {
			return units.Bytes(s.Bavail) * units.Bytes(s.Bsize), nil
		}
		if !os.IsNotExist(err) || dir == filepath.Dir(dir) {
			return 0, fmt.Errorf("read free space of %s: %w", dir, err)
		}
	}
}
