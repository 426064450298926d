package results

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/stretchr/testify/require"
)

// requestsFile writes a table of requests after a change to its columns.
func requestsFile(t *testing.T, change func(*requests)) string {
	path := filepath.Join(t.TempDir(), RequestsFile)
	f, err := os.Create(path)
	require.NoError(t, err)
	c := cell(0, 0)
	table, err := newRequests(f, []*block{{cell: c, used: hashUsed}})
	require.NoError(t, err)
	table.id.set(&c)
	for i := range 6 {
		require.NoError(t, table.put(request(1, i)))
	}
	change(table)
	require.NoError(t, table.close())
	require.NoError(t, f.Close())
	return path
}

// firstError reads a table of requests to its end.
func firstError(t *testing.T, path string) error {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	r, err := newReader(f, RequestsFormat)
	if err != nil {
		return err
	}
	return r.each(0, r.rows, func(*batch, int) (bool, error) { return true, nil })
}

func TestListsThatRunBackwardsAreRefused(t *testing.T) {
	require.NoError(t, firstError(t, requestsFile(t, func(*requests) {})))
	err := firstError(t, requestsFile(t, func(r *requests) { r.chunkAt.off[1] = r.chunkAt.off[6] }))
	require.ErrorContains(t, err, "run backwards")
	err = firstError(t, requestsFile(t, func(r *requests) { r.chunkTok.off[5] = r.chunkTok.off[6] }))
	require.ErrorContains(t, err, "lists of different lengths")
	err = firstError(t, requestsFile(t, func(r *requests) { r.err.v = []byte("abc"); copy(r.err.off, []int32{0, 3, 0, 3, 0, 3, 3}) }))
	require.ErrorContains(t, err, "run backwards")
}

func TestCompressedTablesAreRefused(t *testing.T) {
	in, err := os.Open(requestsFile(t, func(*requests) {}))
	require.NoError(t, err)
	defer in.Close()
	r, err := ipc.NewFileReader(in)
	require.NoError(t, err)
	for name, option := range map[string]ipc.Option{"lz4": ipc.WithLZ4(), "zstd": ipc.WithZstd()} {
		path := filepath.Join(t.TempDir(), RequestsFile)
		out, err := os.Create(path)
		require.NoError(t, err)
		w, err := ipc.NewFileWriter(out, ipc.WithSchema(r.Schema()), option)
		require.NoError(t, err)
		rec, err := r.RecordAt(0)
		require.NoError(t, err)
		require.NoError(t, w.Write(array.NewRecord(r.Schema(), rec.Columns(), rec.NumRows())))
		require.NoError(t, w.Close())
		require.NoError(t, out.Close())
		require.ErrorIs(t, firstError(t, path), errBlock, name)
	}
}

// The messages of a file, found as sane finds them: where the metadata of its
// only record batch begins, and the walker over it.
func recordMessage(t *testing.T, b []byte) (w walker, at int) {
	n := int(binary.LittleEndian.Uint32(b[len(b)-10:]))
	from := len(b) - 10 - n
	foot := walker{b: b[from : from+n]}
	foot.vector(foot.slot(foot.indirect(0), 3), blockBytes, func(p int) { at = int(foot.i64(p)) + 8 })
	require.False(t, foot.bad)
	return walker{b: b[at:]}, at
}

func TestBuffersThatLieOverEachOtherAreRefused(t *testing.T) {
	path := requestsFile(t, func(*requests) {})
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	w, _ := recordMessage(t, b)
	body := w.i64(w.slot(w.indirect(0), 3))
	require.Positive(t, body)
	batch := w.indirect(w.slot(w.indirect(0), 2))
	w.vector(w.slot(batch, 2), bufferBytes, func(p int) { // each is the whole body
		binary.LittleEndian.PutUint64(w.b[p:], 0)
		binary.LittleEndian.PutUint64(w.b[p+8:], uint64(body))
	})
	require.False(t, w.bad)
	require.NoError(t, os.WriteFile(path, b, 0o644))
	require.ErrorIs(t, firstError(t, path), errBlock)
}

func TestABatchOfManyRowsIsRefused(t *testing.T) {
	path := requestsFile(t, func(*requests) {})
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, rows := range []uint64{1 << 62, 1 << 40, batchRows + 1, 7} {
		b := append([]byte(nil), good...)
		w, _ := recordMessage(t, b)
		batch := w.indirect(w.slot(w.indirect(0), 2))
		binary.LittleEndian.PutUint64(w.b[w.slot(batch, 0):], rows)
		w.vector(w.slot(batch, 1), nodeBytes, func(p int) { binary.LittleEndian.PutUint64(w.b[p:], rows) })
		require.False(t, w.bad)
		require.NoError(t, os.WriteFile(path, b, 0o644))
		require.Error(t, firstError(t, path), "%d rows", rows)
	}
}

func TestBlocksTakenTwiceAreRefused(t *testing.T) {
	path := requestsFile(t, func(*requests) {})
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	n := int(binary.LittleEndian.Uint32(b[len(b)-10:]))
	foot := walker{b: b[len(b)-10-n : len(b)-10]}
	var first []byte
	longest := int64(0)
	each := func(do func(p int)) { foot.vector(foot.slot(foot.indirect(0), 2), blockBytes, do) }
	each(func(p int) {
		if size := int64(foot.u32(p+8)) + foot.i64(p+16); size > longest {
			longest, first = size, append([]byte(nil), foot.b[p:p+blockBytes]...)
		}
	})
	count := 0
	each(func(p int) { copy(foot.b[p:], first); count++ })
	require.Greater(t, count, 5, "a dictionary for each word column")
	f := blocks{f: bytesAt(b), size: int64(len(b)), left: longest * int64(count-1)}
	each(func(p int) { f.take(&foot, p, dictionaryBatch) })
	require.ErrorIs(t, f.err, errBlock, "together they are longer than the file")
}

type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) { return copy(p, b[off:]), nil }
