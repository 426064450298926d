package tracks

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"meibench/harness/results"
)

// File writes the run of a cell of a run folder to a file, packed if its name ends in
// .gz; Perfetto reads both. Name is as for Find.
func File(path, dir, name string) (err error) {
	set, err := results.Read(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	i, err := Find(set, name)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(fmt.Errorf("write trace %s: %w", path, err), os.Remove(path))
		}
	}()
	var w io.Writer = f
	if strings.HasSuffix(path, ".gz") {
		z := gzip.NewWriter(f)
		defer func() { err = errors.Join(err, z.Close()) }()
		w = z
	}
	return Write(w, set, i)
}
