//go:build !unix

package gguf

import (
	"errors"
	"os"
)

// mapFile leaves a file to be read.
func mapFile(*os.File, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmapFile([]byte) error { return nil }
