package tensor

import "fmt"

// Mat is a view of a matrix: element (i, j) is Data[i*RowStride+j*ColStride].
type Mat struct {
	Data                 []float32
	Rows, Cols           int
	RowStride, ColStride int
}

// NewMat views data as a dense row-major (rows, cols) matrix.
func NewMat(data []float32, rows, cols int) Mat { return Mat{data, rows, cols, cols, 1} }

// T is the transposed view of the same memory.
func (m Mat) T() Mat { return Mat{m.Data, m.Cols, m.Rows, m.ColStride, m.RowStride} }

// Slice is the view of rows [lo, hi).
func (m Mat) Slice(lo, hi int) Mat {
	m.Data, m.Rows = m.Data[lo*m.RowStride:], hi-lo
	return m
}

// check panics unless every element lies inside Data.
func (m Mat) check(name string) {
	if m.Rows < 0 || m.Cols < 0 || m.RowStride < 0 || m.ColStride < 0 {
		panic(fmt.Sprintf("tensor: matrix %s has a negative size or stride", name))
	}
	if m.Rows == 0 || m.Cols == 0 {
		return
	}
	if need := (m.Rows-1)*m.RowStride + (m.Cols-1)*m.ColStride + 1; len(m.Data) < need {
		panic(fmt.Sprintf("tensor: matrix %s (%d, %d) needs %d elements, has %d", name, m.Rows, m.Cols, need, len(m.Data)))
	}
}

// RowReader is a matrix that hands out parts of its rows as float32, such as quantised weights.
type RowReader interface {
	// ReadRow fills dst with row n from column k on. k is a multiple of 256, and so is len(dst) but for the last part.
	ReadRow(dst []float32, n, k int)
}

// kc is the length of a block of the inner dimension: a packed panel of 32 columns fills 32 KiB of a 48 KiB L1.
const kc = 256

// scratch is what one worker needs to multiply.
type scratch struct {
	panel []float32 // (kc, nr): packed part of B
	tile  []float32 // (12, nr): a tile of C that sticks out of C
	rows  []float32 // (nr, kc): rows of B decoded by a RowReader
	attn  attnScratch
}

func newScratch(nr int) scratch {
	return scratch{make([]float32, kc*nr), make([]float32, 12*nr), make([]float32, kc*nr), attnScratch{}}
}

// Gemm is the general product C = A·B, or C += A·B if acc, on any layout.
//
//	c: (M, N), ColStride 1; a: (M, K); b: (K, N); c must not overlap a or b
//
// One chain per element in the order of k (see the package comment); error against an exact sum is bounded by
// K·2^-24·Σ|a·b|. K = 0 leaves c alone if acc, else clears it. Panics if shapes disagree.
func (p *Pool) Gemm(c, a, b Mat, acc bool) {
	b.check("b")
	p.runGemm(gemmJob{c: c, a: a, b: operand{mat: b, k: b.Rows, n: b.Cols}, acc: acc})
}

// Triangle says which half of a product causal attention has a use for.
type Triangle int

const (
	whole  Triangle = iota
	LowerC          // C[i, n] for n <= past + i is wanted, the rest is undefined afterwards: scores
	LowerA          // A[i, k] is zero for k > past + i: weights times values
	UpperA          // A[i, k] is zero for k < i - past: the same transposed, to be added
)

// GemmCausal is Gemm, bit for bit where anything is defined, without most of the work that the triangle makes useless: tiles
// beyond it are left out, and those that it cuts are computed whole.
func (p *Pool) GemmCausal(c, a, b Mat, acc bool, half Triangle, past int) {
	if past < 0 || half == UpperA && !acc {
		panic("tensor: causal product with a negative past, or an upper one that is not added")
	}
	b.check("b")
	p.runGemm(gemmJob{c: c, a: a, b: operand{mat: b, k: b.Rows, n: b.Cols}, acc: acc, half: half, past: past})
}

func (p *Pool) runGemm(j gemmJob) {
	checkGemm(j)
	j.p = p
	p.gemm = j
	// A product too small to pay for waking workers runs on the caller.
	if j.c.Rows*j.b.n*j.b.k < 1<<15 {
		p.gemm.Part(0, 1)
	} else {
		p.Do(&p.gemm)
	}
	p.gemm = gemmJob{}
}

func checkGemm(j gemmJob) {
	j.c.check("c")
	j.a.check("a")
	if j.c.ColStride != 1 || j.c.Rows != j.a.Rows || j.c.Cols != j.b.n || j.a.Cols != j.b.k {
		panic(fmt.Sprintf("tensor: product (%d, %d) = (%d, %d)·(%d, %d): shapes disagree, or columns of c are not contiguous",
			j.c.Rows, j.c.Cols, j.a.Rows, j.a.Cols, j.b.k, j.b.n))
	}
}

// gemmJob is one product, divided by panels of columns, or by rows if there are fewer panels than workers.
type gemmJob struct {
	p    *Pool
	c, a Mat
	b    operand
	acc  bool

	half Triangle
	past int
}

func (j *gemmJob) Part(worker, workers int) {
	nr := j.p.kern.nr
	panels := (j.b.n + nr - 1) / nr
	n0, n1, m0, m1 := 0, j.b.n, 0, j.c.Rows
	if panels >= workers {
		lo, hi := Share(panels, worker, workers)
		n0, n1 = lo*nr, min(hi*nr, j.b.n)
	} else {
		m0, m1 = Share(j.c.Rows, worker, workers)
	}
	if n0 < n1 && m0 < m1 {
		j.serial(&j.p.kern, &j.p.scratch[worker], [2]int{m0, m1}, n0, n1)
	}
}

// serial computes rows [rows[0], rows[1]) of columns [n0, n1). Each part of B is packed once and used by every row of A.
func (j *gemmJob) serial(kern *kernel, s *scratch, rows [2]int, n0, n1 int) {
	if j.b.k == 0 && !j.acc {
		for i := rows[0]; i < rows[1]; i++ {
			clear(j.c.Data[i*j.c.RowStride+n0 : i*j.c.RowStride+n1])
		}
	}
	for n := n0; n < n1; n += kern.nr {
		for k := 0; k < j.b.k; k += kc {
			t := stretch{n: n, cols: min(kern.nr, n1-n), k: k, kn: min(kc, j.b.k-k)}
			t.panel, t.row = j.b.direct(kern, rows[1]-rows[0], &t)
			if t.panel == nil {
				j.b.pack(kern, s, n, t.cols, k, t.kn)
				t.panel, t.row = s.panel, kern.nr
			}
			j.column(kern, s, &t, rows)
		}
	}
}

// stretch is B[k:k+kn, n:n+cols], row i at panel[i*row].
type stretch struct {
	panel               []float32
	row, n, cols, k, kn int
}

// column adds A[rows, k:k+kn]·panel into C[rows, n:n+cols], tile by tile.
func (j *gemmJob) column(kern *kernel, s *scratch, t *stretch, rows [2]int) {
	acc, h := j.acc || t.k > 0, 0
	for i := rows[0]; i < rows[1]; {
		for kern.mrs[h] > rows[1]-i {
			h++
		}
		mr := kern.mrs[h]
		lo, hi, cols := 0, t.kn, t.cols
		if j.half != whole {
			lo, hi, cols = j.bounds(t, i, i+mr)
		}
		if lo < hi && cols > 0 {
			a := j.a.Data[i*j.a.RowStride+(t.k+lo)*j.a.ColStride:]
			c := j.c.Data[i*j.c.RowStride+t.n:]
			switch panel := t.panel[lo*t.row:]; {
			case cols == kern.nr:
				kern.tile(mr, a, j.a.RowStride, j.a.ColStride, panel, t.row, hi-lo, c, j.c.RowStride, acc)
			case kern.narrow != nil:
				for at := 0; at < cols; at += narrow {
					kern.narrow(mr, a, j.a.RowStride, j.a.ColStride, panel[at:], t.row, hi-lo, c[at:], j.c.RowStride, min(narrow, cols-at), acc)
				}
			default:
				edgeTile(kern, s, mr, a, j.a, panel, t.row, hi-lo, c, j.c.RowStride, cols, acc)
			}
		}
		i += mr
	}
}

// bounds is what of a stretch rows [i, end) have a use for: from row lo to hi, and cols.
func (j *gemmJob) bounds(t *stretch, i, end int) (lo, hi, cols int) {
	lo, hi, cols = 0, t.kn, t.cols
	switch j.half {
	case LowerC:
		cols = min(cols, (j.past+end-t.n+narrow-1)&^(narrow-1))
	case LowerA:
		hi = min(hi, j.past+end-t.k)
	case UpperA:
		lo = max(lo, i-j.past-t.k)
	}
	return lo, hi, cols
}

// edgeTile computes a tile narrower than the kernel's by way of scratch memory.
func edgeTile(kern *kernel, s *scratch, mr int, ai []float32, a Mat, panel []float32, row, kn int, ci []float32, cRow, cols int, acc bool) {
	nr := kern.nr
	if acc {
		for r := range mr {
			copy(s.tile[r*nr:], ci[r*cRow:r*cRow+cols])
		}
	}
	kern.tile(mr, ai, a.RowStride, a.ColStride, panel, row, kn, s.tile, nr, acc)
	for r := range mr {
		copy(ci[r*cRow:r*cRow+cols], s.tile[r*nr:])
	}
}

// operand is the right-hand matrix B (k, n) of a product: a view, or rows of Bᵀ that are decoded on the way in.
type operand struct {
	mat  Mat       // (k, n) if rows is nil
	rows RowReader // row n of Bᵀ is column n of B
	k, n int
}

// fewRows is up to how many rows of A pay for no packing of B.
const fewRows = 12

// narrow is the most columns of a narrow tile: a cache line.
const narrow = 16

// direct is the stretch where it lies, with the stride of its rows, or nil if it must be packed first: a product of few
// rows reads B once, so a copy would cost more than the product, and narrow tiles read one line of a row. A tile reads kern.nr
// columns, of which those beyond B's are whatever follows in its memory: they end in columns that nobody copies. A narrow one
// reads its own.
func (b *operand) direct(kern *kernel, rows int, t *stretch) (panel []float32, row int) {
	reads := kern.nr
	if kern.narrow != nil && t.cols < reads {
		reads = t.cols
	}
	if b.rows != nil || b.mat.ColStride != 1 || rows > fewRows && (kern.narrow == nil || reads > narrow) {
		return nil, 0
	}
	at, row := t.k*b.mat.RowStride+t.n, b.mat.RowStride
	if at+(t.kn-1)*row+reads > len(b.mat.Data) {
		return nil, 0
	}
	return b.mat.Data[at:], row
}

// pack fills s.panel with B[k:k+kn, n:n+cols] as (kn, nr), zero beyond cols.
func (b *operand) pack(kern *kernel, s *scratch, n, cols, k, kn int) {
	switch {
	case b.rows != nil:
		for c := range cols {
			b.rows.ReadRow(s.rows[c*kc:c*kc+kn], n+c, k)
		}
		packColumns(kern, s.panel, s.rows, kc, cols, kn)
	case b.mat.RowStride == 1:
		packColumns(kern, s.panel, b.mat.Data[n*b.mat.ColStride+k:], b.mat.ColStride, cols, kn)
	default:
		packRows(kern, s.panel, b.mat, n, cols, k, kn)
	}
}

// packColumns packs columns that are contiguous in memory: dst[j*nr+c] = src[c*colStride+j].
func packColumns(kern *kernel, dst, src []float32, colStride, cols, kn int) {
	nr, c := kern.nr, 0
	if kern.transpose != nil {
		for k8 := kn &^ 7; k8 > 0 && c+8 <= cols; c += 8 {
			kern.transpose(dst[c:], nr, src[c*colStride:], colStride, k8)
			for i := c; i < c+8; i++ {
				for j := k8; j < kn; j++ {
					dst[j*nr+i] = src[i*colStride+j]
				}
			}
		}
	}
	for ; c < cols; c++ {
		for j, v := range src[c*colStride : c*colStride+kn] {
			dst[j*nr+c] = v
		}
	}
	for ; c < nr; c++ {
		for j := range kn {
			dst[j*nr+c] = 0
		}
	}
}

// packRows packs any other layout; contiguous rows are copied.
func packRows(kern *kernel, dst []float32, b Mat, n, cols, k, kn int) {
	nr := kern.nr
	if v := kern.vector; v != nil && b.ColStride == 1 && cols == nr {
		v.gather(dst, b.Data[k*b.RowStride+n:], b.RowStride, nr, kn)
		return
	}
	for j := range kn {
		d := dst[j*nr : j*nr+nr]
		src := b.Data[(k+j)*b.RowStride+n*b.ColStride:]
		if b.ColStride == 1 {
			copy(d, src[:cols])
		} else {
			for c := range cols {
				d[c] = src[c*b.ColStride]
			}
		}
		clear(d[cols:])
	}
}
