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
		b, V := batches[i], t.shape.Vocab
		b.Exit = 0
		l.pass(t, l.grads[lane], &b, func(at int) {
			for r, place := range t.rows {
				sums[i] += loss(i, at+place, t.logits[r*V:(r+1)*V], t.b.Weights[place]*scale)
			}
		})
	})
	l.added += len(batches)
	for _, s := range sums {
		sum += s
	}
	return sum
}
