//go:build !linux && !darwin

package preflight

import (
	"errors"

	"meibench/internal/units"
)

// freeSpace is not known here.
func freeSpace(string) (units.Bytes, error) { return 0, errors.ErrUnsupported }
