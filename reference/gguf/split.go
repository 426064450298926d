package gguf

import (
	"fmt"
	"strings"
)

// Keys of a model that is split over several files; each counts from 0 while file names count from 1.
// Source: llama.h (llama_split_path) and the gguf-split tool of llama.cpp.
const (
	keySplitNo      = "split.no"
	keySplitCount   = "split.count"
	keySplitTensors = "split.tensors.count"
)

// splitCount is how many files the model of a file is spread over, at least 1.
func (f *File) splitCount() (int, error) {
	if _, ok := f.Get(keySplitCount); !ok {
		return 1, nil
	}
	n, err := f.Uint(keySplitCount)
	if err == nil && n > 99999 { // five digits in file names
		err = fmt.Errorf("key %q is %d, want at most 99999", keySplitCount, n)
	}
	return max(1, int(n)), err
}

// openRest opens the other files of a split model and adds their tensors.
func (f *File) openRest(path string) error {
	count, err := f.splitCount()
	if err != nil || count == 1 {
		return err
	}
	if no, err := f.Uint(keySplitNo); err != nil || no != 0 {
		return fmt.Errorf("it is file %d of a model in %d files: open the first, which ends in %s", no+1, count, splitSuffix(0, count))
	}
	base, ok := strings.CutSuffix(path, splitSuffix(0, count))
	if !ok {
		return fmt.Errorf("it is the first of %d files, so its name must end in %s for the others to be found: rename it", count, splitSuffix(0, count))
	}
	for i := 1; i < count; i++ {
		if err := f.openPart(base+splitSuffix(i, count), i, count); err != nil {
			return err
		}
	}
	if want, err := f.Uint(keySplitTensors); err == nil && want != uint64(len(f.Tensors)) {
		return fmt.Errorf("the %d files hold %d tensors, want %d: fetch them again", count, len(f.Tensors), want)
	}
	return nil
}

func splitSuffix(i, count int) string { return fmt.Sprintf("-%05d-of-%05d.gguf", i+1, count) }

func (f *File) openPart(path string, i, count int) error {
	p, err := openOne(path)
	if err != nil {
		return err
	}
	f.parts = append(f.parts, p.parts[0]) // from here on f closes it
	no, errNo := p.Uint(keySplitNo)
	n, errCount := p.splitCount()
	if errNo != nil || errCount != nil || int(no) != i || n != count {
		return fmt.Errorf("%s says that it is file %d of %d, want %d of %d: the files are of different models", path, no+1, n, i+1, count)
	}
	for _, t := range p.Tensors {
		if _, dup := f.tensors[t.Name]; dup {
			return fmt.Errorf("%s: tensor %q is in an earlier file too", path, t.Name)
		}
		t.Part = i
		f.tensors[t.Name] = len(f.Tensors)
		f.Tensors = append(f.Tensors, t)
	}
	return nil
}
