package refine

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"

	"meibench/internal/units"
	"meibench/reference/gguf"
)

// A patch is "mdif", the SHA-256 of the file that it is for, that of the result, the size of the result (8 bytes, little
// endian), and steps that write the result from beginning to end. A step is its kind (1 byte) and the bytes that it writes
// (uvarint), and then
//
//	same    the offset in the old file that they are copied from (uvarint)
//	changed the offset in the old file, the width of a number (uvarints), and a payload: what the old bytes are XORed with,
//	        first bytes of all numbers first, then all second bytes, and so on, since upper bytes hardly change; deflated
//	fresh   a payload: the bytes, deflated
//
// and a payload has its size (uvarint) in front.
const (
	patchMagic = "mdif"
	patchFixed = 4 + 2*sha256.Size + 8

	same    = 's'
	changed = 'c'
	fresh   = 'f'
)

// Diff writes what leads from one GGUF file to another. Tensors with equal content are not sent, wherever they stand and
// whatever their name; those of equal name and size as the compressed difference; others compressed. So an adapter, or a
// fine-tune of some layers, costs what it changed. Errors: one of the two is no GGUF file.
func Diff(before, after []byte) ([]byte, error) {
	old, err := gguf.Read(bytes.NewReader(before), int64(len(before)))
	if err != nil {
		return nil, fmt.Errorf("refine: diff: old file: %w", err)
	}
	latest, err := gguf.Read(bytes.NewReader(after), int64(len(after)))
	if err != nil {
		return nil, fmt.Errorf("refine: diff: new file: %w", err)
	}
	lay, _, err := newLayout(latest, int64(len(after)))
	if err != nil {
		return nil, err
	}
	d := &differ{before: before, byDigest: map[[sha256.Size]byte]gguf.Tensor{}, byName: map[string]gguf.Tensor{}}
	for _, t := range old.Tensors {
		d.byDigest[sha256.Sum256(before[t.Offset:t.Offset+t.Bytes])] = t
		d.byName[t.Name] = t
	}
	a, b := sha256.Sum256(before), sha256.Sum256(after)
	d.out = append(append([]byte(patchMagic), a[:]...), b[:]...)
	d.out = binary.LittleEndian.AppendUint64(d.out, uint64(len(after)))
	d.head(after[:lay.prefix()], before[:min(oldPrefix(old), int64(len(before)))])
	at := lay.prefix()
	for _, t := range lay.tensors {
		d.fresh(after[at:t.Offset])
		at = t.Offset + t.Bytes
		d.tensor(t.Tensor, after[t.Offset:at])
	}
	d.fresh(after[at:])
	d.flush()
	return d.out, nil
}

// oldPrefix is the bytes of a file before its first tensor.
func oldPrefix(f *gguf.File) int64 {
	first := int64(math.MaxInt64)
	for _, t := range f.Tensors {
		first = min(first, t.Offset)
	}
	return first
}

// differ writes a patch.
type differ struct {
	before   []byte
	byDigest map[[sha256.Size]byte]gguf.Tensor
	byName   map[string]gguf.Tensor
	out      []byte
	from, to int // of the old file, to be copied
}

// head writes the index of the new file: what is found in that of the old one, in runs of at least window bytes, is copied.
func (d *differ) head(b, old []byte) {
	const window = 32
	at := map[string]int{}
	for i := len(old) / window * window; i >= window; i -= window {
		at[string(old[i-window:i])] = i - window // the first of equal ones stays
	}
	done := 0
	for i := 0; i+window <= len(b); {
		from, ok := at[string(b[i:i+window])]
		if !ok {
			i++
			continue
		}
		for i > done && from > 0 && b[i-1] == old[from-1] {
			i--
			from--
		}
		n := 0
		for i+n < len(b) && from+n < len(old) && b[i+n] == old[from+n] {
			n++
		}
		d.fresh(b[done:i])
		d.same(from, n)
		i += n
		done = i
	}
	d.fresh(b[done:])
}

// same copies old bytes; what follows on what was copied last is one step with it.
func (d *differ) same(from, n int) {
	if from != d.to {
		d.flush()
		d.from = from
	}
	d.to = from + n
}

// flush writes what is to be copied.
func (d *differ) flush() {
	if n := d.to - d.from; n > 0 {
		d.out = append(d.out, same)
		d.out = binary.AppendUvarint(d.out, uint64(n))
		d.out = binary.AppendUvarint(d.out, uint64(d.from))
	}
	d.from, d.to = 0, 0
}

func (d *differ) fresh(b []byte) {
	switch {
	case len(b) == 0:
		return
	case bytes.HasPrefix(d.before[d.to:], b): // padding, mostly
		d.same(d.to, len(b))
		return
	}
	d.flush()
	d.out = append(d.out, fresh)
	d.out = binary.AppendUvarint(d.out, uint64(len(b)))
	d.payload(deflate(b))
}

func (d *differ) payload(b []byte) {
	d.out = binary.AppendUvarint(d.out, uint64(len(b)))
	d.out = append(d.out, b...)
}

func (d *differ) tensor(t gguf.Tensor, data []byte) {
	o, ok := d.byName[t.Name]
	equal, found := o, ok && bytes.Equal(d.before[o.Offset:o.Offset+o.Bytes], data)
	if !found {
		equal, found = d.byDigest[sha256.Sum256(data)]
	}
	if found {
		d.same(int(equal.Offset), len(data))
		return
	}
	if !ok || o.Bytes != t.Bytes {
		d.fresh(data)
		return
	}
	width := t.Type.BlockBytes()
	xored := make([]byte, len(data))
	for i, v := range d.before[o.Offset : o.Offset+o.Bytes] {
		xored[i] = data[i] ^ v
	}
	delta, plain := deflate(shuffle(xored, width)), deflate(data)
	if len(plain) <= len(delta) {
		d.fresh(data)
		return
	}
	d.flush()
	d.out = append(d.out, changed)
	d.out = binary.AppendUvarint(d.out, uint64(len(data)))
	d.out = binary.AppendUvarint(d.out, uint64(o.Offset))
	d.out = binary.AppendUvarint(d.out, uint64(width))
	d.payload(delta)
}

// shuffle puts the first bytes of all numbers first, then the second ones; what is no whole number stays at the end.
func shuffle(b []byte, width int) []byte {
	out := make([]byte, len(b))
	n := len(b) / width
	for k := range width {
		for i := range n {
			out[k*n+i] = b[i*width+k]
		}
	}
	copy(out[n*width:], b[n*width:])
	return out
}

// unshuffle undoes shuffle.
func unshuffle(b []byte, width int) []byte {
	out := make([]byte, len(b))
	n := len(b) / width
	for k := range width {
		for i := range n {
			out[i*width+k] = b[k*n+i]
		}
	}
	copy(out[n*width:], b[n*width:])
	return out
}

func deflate(b []byte) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // a buffer takes everything
	}
	return out.Bytes()
}

// Patch makes the new file of the old one. The result is at most so large. Errors: a patch that is damaged, of another kind
// or for another file, a result that is too large or has another digest than the patch says.
func Patch(before, patch []byte, most units.Bytes) ([]byte, error) {
	if len(patch) < patchFixed || string(patch[:4]) != patchMagic {
		return nil, fmt.Errorf("refine: patch of %d bytes: want %q and at least %d bytes: fetch it again", len(patch), patchMagic, patchFixed)
	}
	if want, is := [sha256.Size]byte(patch[4:]), sha256.Sum256(before); want != is {
		return nil, fmt.Errorf("refine: the patch is for a file with SHA-256 %s, not %s: fetch that version first", hex.EncodeToString(want[:]), hex.EncodeToString(is[:]))
	}
	size := binary.LittleEndian.Uint64(patch[patchFixed-8:])
	if size > uint64(most) {
		return nil, fmt.Errorf("refine: the patch makes a file of %d bytes: at most %d are allowed", size, most)
	}
	p := &patcher{before: before, in: patch[patchFixed:], left: size}
	for len(p.in) > 0 {
		if err := p.step(); err != nil {
			return nil, fmt.Errorf("refine: patch, at byte %d: %w", len(patch)-len(p.in), err)
		}
	}
	if p.left > 0 {
		return nil, fmt.Errorf("refine: the patch ends %d bytes early: fetch it again", p.left)
	}
	if want := [sha256.Size]byte(patch[4+sha256.Size:]); sha256.Sum256(p.out) != want {
		return nil, fmt.Errorf("refine: the patched file's SHA-256 is not %s: the patch is damaged; fetch it again", hex.EncodeToString(want[:]))
	}
	return p.out, nil
}

// patcher reads a patch.
type patcher struct {
	before, in, out []byte
	left            uint64
}

func (p *patcher) number() (uint64, error) {
	v, n := binary.Uvarint(p.in)
	if n <= 0 {
		return 0, fmt.Errorf("a number is cut off")
	}
	p.in = p.in[n:]
	return v, nil
}

// old is n bytes of the old file from an offset that follows.
func (p *patcher) old(n uint64) ([]byte, error) {
	from, err := p.number()
	if err != nil {
		return nil, err
	}
	if size := uint64(len(p.before)); from > size || n > size-from {
		return nil, fmt.Errorf("bytes %d and on, %d of them, of an old file of %d", from, n, size)
	}
	return p.before[from : from+n], nil
}

func (p *patcher) step() error {
	kind := p.in[0]
	p.in = p.in[1:]
	n, err := p.number()
	if err != nil {
		return err
	}
	if n > p.left {
		return fmt.Errorf("%d bytes where %d are left", n, p.left)
	}
	p.left -= n
	switch kind {
	case same:
		old, err := p.old(n)
		p.out = append(p.out, old...)
		return err
	case changed:
		old, err := p.old(n)
		if err != nil {
			return err
		}
		width, err := p.number()
		if err != nil || width == 0 || width > n {
			return fmt.Errorf("numbers of %d bytes in %d bytes", width, n)
		}
		delta, err := p.inflate(n)
		if err != nil {
			return err
		}
		delta = unshuffle(delta, int(width))
		for i, v := range old {
			delta[i] ^= v
		}
		p.out = append(p.out, delta...)
		return nil
	case fresh:
		b, err := p.inflate(n)
		p.out = append(p.out, b...)
		return err
	}
	return fmt.Errorf("kind %q: want %q, %q or %q", kind, same, changed, fresh)
}

// inflate reads a payload of exactly n bytes when inflated; it never takes more memory than that, and grows as they come.
func (p *patcher) inflate(n uint64) ([]byte, error) {
	size, err := p.number()
	if err != nil {
		return nil, err
	}
	if size > uint64(len(p.in)) {
		return nil, fmt.Errorf("a payload of %d bytes where %d are left", size, len(p.in))
	}
	r := flate.NewReader(bytes.NewReader(p.in[:size]))
	p.in = p.in[size:]
	b, err := io.ReadAll(io.LimitReader(r, int64(n)+1))
	if err != nil {
		return nil, fmt.Errorf("a payload does not inflate: %w", err)
	}
	if uint64(len(b)) != n {
		return nil, fmt.Errorf("a payload has other than %d bytes", n)
	}
	return b, nil
}
