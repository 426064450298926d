//go:build !unix

package filelock

import "os"

// Exclusive does nothing here.
func Exclusive(*os.File) error { return nil }

// Shared does nothing here.
func Shared(*os.File) error { return nil }
