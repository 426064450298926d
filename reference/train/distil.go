package train

// RowLoss replaces the logits (V) of one place of one batch by the gradient of
// weight times a loss, and returns that, as CrossEntropy does. Threads call it
// side by side, each for batches of its own.
type RowLoss func(batch, place int, logits []float32, weight float32) (loss float64)

// AccumulateBy is Accumulate with another loss than that of the targets, such
// as the distance to a teacher's law. Early exits are not scored.
func (l *Learner) AccumulateBy(loss RowLoss, batches []Batch, total float64) (sum float64) {
	scale := float32(1 / total)
	sums := make([]float64, len(batches))
	l.each(batches, l.added, func(t *tape, lane, i int) {
		b := batches[i]
		b.Exit = 0
		t.keep = keepAll
		if l.Recompute {
			t.keep = keepInputs
		}
		t.forward(l.Params, &b, nil)
		V := t.shape.Vocab
		for r, place := range t.rows {
			sums[i] += loss(i, place, t.logits[r*V:(r+1)*V], t.b.Weights[place]*scale)
		}
		t.backward(l.grads[lane], l.Params, nil, false)
	})
	l.added += len(batches)
	for _, s := range sums {
		sum += s
	}
	return sum
}
