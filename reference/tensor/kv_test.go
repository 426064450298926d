package tensor

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
)

// TestKVDropEqualsDeletion: dropping a position is deleting a row of what Get reads, in every type, exactly; positions
// behind the n that are held stay where they are.
func TestKVDropEqualsDeletion(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	for _, typ := range KVTypes() {
		for _, shape := range [][3]int{{1, 16, 70}, {2, 40, 33}, {3, 8, 96}} {
			G, D, P := shape[0], shape[1], shape[2]
			kv, err := NewKV(typ, G, D, P)
			require.NoError(t, err)
			k, v := make([]float32, P*G*D), make([]float32, P*G*D)
			for i := range k {
				k[i], v[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
			}
			kv.Put(0, P, k, v)
			for n := P; n > 0; n -= 1 + r.IntN(3) {
				at := r.IntN(n)
				wantK, wantV := read(kv, P)
				W := G * D
				wantK = slices.Delete(wantK, at*W, (at+1)*W)
				wantV = slices.Delete(wantV, at*W, (at+1)*W)
				kv.Drop(at, n)
				gotK, gotV := read(kv, P)
				require.Equal(t, wantK[:(n-1)*W], gotK[:(n-1)*W], "%v %v: keys, %d of %d", typ, shape, at, n)
				require.Equal(t, wantV[:(n-1)*W], gotV[:(n-1)*W], "%v %v: values, %d of %d", typ, shape, at, n)
			}
		}
	}
	kv, err := NewKV(quant.F32, 1, 8, 4)
	require.NoError(t, err)
	require.Panics(t, func() { kv.Drop(2, 2) })
}

// TestKVPutKeysLeavesValues: keys are those that Put would have written, values those of before.
func TestKVPutKeysLeavesValues(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 2))
	const G, D, P = 2, 20, 70
	k, v, other := make([]float32, P*G*D), make([]float32, P*G*D), make([]float32, P*G*D)
	for i := range k {
		k[i], v[i], other[i] = float32(r.NormFloat64()), float32(r.NormFloat64()), float32(r.NormFloat64())
	}
	for _, typ := range []quant.Type{quant.F32, quant.F16} {
		got, err := NewKV(typ, G, D, P)
		require.NoError(t, err)
		want, err := NewKV(typ, G, D, P)
		require.NoError(t, err)
		got.Put(0, P, other, v)
		got.PutKeys(0, P, k)
		want.Put(0, P, k, v)
		gotK, gotV := read(got, P)
		wantK, wantV := read(want, P)
		require.Equal(t, wantK, gotK)
		require.Equal(t, wantV, gotV)
	}
	q8, err := NewKV(quant.Q8_0, G, D, P)
	require.NoError(t, err)
	require.Panics(t, func() { q8.PutKeys(0, 1, k) })
}

func read(kv *KV, n int) (k, v []float32) {
	k, v = make([]float32, n*kv.G*kv.D), make([]float32, n*kv.G*kv.D)
	kv.Get(0, n, k, v)
	return k, v
}
