package flash

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"meibench/internal/units"
	"meibench/reference/quant"
	"meibench/reference/storage"
	"meibench/reference/tensor"
)

// feed takes the place of a layer's network, token by token.
//
//	out, x: (T, C)
func (r *Runner) feed(layer int, out, x []float32, T int) bool {
	C := r.model.Dim
	for t := range T {
		if r.failed == nil {
			r.failed = r.token(layer, out[t*C:(t+1)*C], x[t*C:(t+1)*C])
		}
		if r.failed != nil {
			clear(out)
			return true
		}
	}
	return true
}

// token chooses, brings and multiplies the neurons of one token.
func (r *Runner) token(layer int, out, x []float32) error {
	r.options.Rule(layer, x, nil, nil, r.on)
	r.active = r.active[:0]
	for n, on := range r.on {
		if on {
			r.active = append(r.active, int32(n))
		}
	}
	w := r.windows[layer]
	missing, err := w.hold(r.tokens[layer], r.active)
	if err != nil {
		return err
	}
	r.tokens[layer]++
	r.stats.Active += len(r.active)
	r.stats.Missed += len(missing)
	if len(missing) > 0 {
		began := time.Now()
		err := r.bring(layer, missing)
		r.stats.Stall += time.Since(began)
		if err != nil {
			return err
		}
	}
	r.multiply(layer, out, x)
	return nil
}

// multiply computes the network of the active neurons, each element one chain in ascending order of neurons.
func (r *Runner) multiply(layer int, out, x []float32) {
	n, C, w, p := len(r.active), r.model.Dim, r.windows[layer], &r.places[layer]
	if n == 0 {
		clear(out)
		return
	}
	r.gate, r.up, r.turns = room(r.gate, n), room(r.up, n), room(r.turns, n*C)
	rows := rows{w, p, r.active, 0}
	r.pool.MatMulRows(r.gate, x, &rows, 1, n, C)
	rows.part = 1
	r.pool.MatMulRows(r.up, x, &rows, 1, n, C)
	tensor.SwiGLU(r.gate, r.gate, r.up)
	rows.part = 2
	for i := range n {
		rows.ReadRow(r.turns[i*C:(i+1)*C], i, 0)
	}
	r.pool.Gemm(tensor.NewMat(out, 1, C), tensor.NewMat(r.gate, 1, n), tensor.NewMat(r.turns, n, C), false)
}

func room(s []float32, n int) []float32 { return slices.Grow(s[:0], n)[:n] }

// rows are one part of the active neurons, in their order.
type rows struct {
	w      *window
	p      *place
	active []int32
	part   int
}

// ReadRow decodes part of the row of the n-th active neuron. See [tensor.RowReader].
func (r *rows) ReadRow(dst []float32, n, k int) {
	at := r.w.at(int(r.w.slot[r.active[n]]))[r.part*r.p.row : (r.part+1)*r.p.row]
	each := 4 // bytes of a weight; types in files of neurons have no blocks
	if r.p.typ != quant.F32 {
		each = 2
	}
	quant.Decode(r.p.typ, dst, at[k*each:])
}

// bring reads neurons, sorted, into the rows that the window has for them.
func (r *Runner) bring(layer int, missing []int32) error {
	w, p := r.windows[layer], &r.places[layer]
	r.reading.list = p.spans(r.reading.list[:0], missing, chunk)
	return r.reading.run(func(b *storage.Buffer, s span) error {
		off, n := p.where(s)
		data, err := r.reader.Read(b, off, n)
		if err != nil {
			return err
		}
		for i := s.lo; i < s.hi; i++ {
			row := w.at(int(w.slot[i]))
			if s.part < 0 {
				copy(row, data[(i-s.lo)*p.bytes():])
			} else {
				copy(row[s.part*p.row:(s.part+1)*p.row], data[(i-s.lo)*p.row:])
			}
		}
		return nil
	})
}

// reading is several reads at a time, each in memory of its own.
type reading struct {
	list    []span
	buffers []*storage.Buffer
}

func newReading(r *storage.Reader, n int) *reading {
	x := &reading{}
	for range n {
		x.buffers = append(x.buffers, storage.NewBuffer(int(min(units.Bytes(r.Size), chunk))))
	}
	return x
}

// run reads every span of the list once and returns the first error by place in the list.
func (x *reading) run(read func(b *storage.Buffer, s span) error) error {
	if len(x.buffers) == 1 || len(x.list) == 1 {
		for _, s := range x.list {
			if err := read(x.buffers[0], s); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make([]error, len(x.list))
	var next atomic.Int64
	var done sync.WaitGroup
	for _, b := range x.buffers[:min(len(x.buffers), len(x.list))] {
		done.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(x.list); i = int(next.Add(1)) - 1 {
				errs[i] = read(b, x.list[i])
			}
		})
	}
	done.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
