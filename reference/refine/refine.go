// Package refine cuts the weights of a GGUF file into planes of bits, the coarse ones first, so that a model answers
// before all of it has come and gets better with what follows; and it writes the difference between two versions of a file.
//
// The one idea: the number formats of weights are already ladders. The upper bits of an 8-bit integer, a half or a nibble
// are the number, less exactly. So a piece of a ladder is some of the bits of some tensors, nothing is sent twice, the
// pieces together are as large as the file, and what has come is at any moment a file of the same size and types whose
// missing bits stand at the middle of their range: the engine runs it as it is. With the last piece it is the file, bit
// for bit.
//
//	l, err := refine.Cut(bytes.NewReader(file), int64(len(file)))
//	head, err := l.Data(0)               // what is no weight, and the sizes of all that follows
//	a, err := refine.Assemble(head, units.GiB)
//	data, err := l.Data(1)               // coarse bits of the embedding
//	err = a.Add(1, data)
//	if a.Rung() >= 0 { m, err := a.Model() } // coarse; a.Rung() == l.Rungs-1: the file, its SHA-256 checked
//
//	patch, err := refine.Diff(before, after)
//	after, err = refine.Patch(before, patch, units.GiB)
//
// What comes from outside (heads, pieces, patches) is checked before it is believed: sizes against limits, the result
// against a digest. planes.go has the bits of each format, cut.go and assemble.go the two ends, diff.go the difference,
// measure.go what a rung is worth.
//
// What it does not do: transport, repair and storage (package depot), and formats whose codes are no numbers (IQ4, MXFP4,
// Q2_K, Q3_K): they come whole with the first rung.
package refine
