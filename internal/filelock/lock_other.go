//go:build !unix

package filelock

import "os"

// Exclusive does nothing here.
func Exclusive(*os.File) error { return nil }
