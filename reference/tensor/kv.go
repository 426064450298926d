package tensor

import (
	"fmt"
	"math"

	"meibench/reference/quant"
)

// KV holds the keys and values of one layer of one sequence as [Pool.Attention] reads them: keys in panels of 32
// positions, so that scores of 32 positions are one product without any rearranging, and values row after row.
//
// Elements are float32, float16 (half the memory, rounded to 11 bits) or Q8_0 (8 bits and a float32 scale for 32
// channels of a position, 28 % of the memory). Positions are written once, in order or not, and may be overwritten.
type KV struct {
	Type     quant.Type // F32, F16 or Q8_0
	G, D     int        // key/value heads, channels of a head
	Capacity int        // positions

	padded int // channels of a row of values: D rounded up to 16
	groups int // scales per position and head: channels in blocks of 32
	// keys: element (g, p, d) at ((g·panels+p/32)·D+d)·32 + p%32; values: (g·Capacity+p)·padded + d
	k32, v32               []float32
	k16, v16               []uint16
	k8, v8                 []int8
	keyScales, valueScales []float32 // (g, p/32, d/32, p%32) and (g, p, d/32)
}

const kvPanel = 32 // positions

// KVTypes are the element types of a cache, most exact first.
func KVTypes() []quant.Type { return []quant.Type{quant.F32, quant.F16, quant.Q8_0} }

// NewKV makes room for a number of positions.
func NewKV(t quant.Type, kvHeads, headDim, capacity int) (*KV, error) {
	kv := &KV{Type: t, G: kvHeads, D: headDim, Capacity: capacity}
	kv.shape()
	keys, values := kv.sizes()
	switch t {
	case quant.F32:
		kv.k32, kv.v32 = make([]float32, keys), make([]float32, values)
	case quant.F16:
		kv.k16, kv.v16 = make([]uint16, keys), make([]uint16, values)
	case quant.Q8_0:
		kv.k8, kv.v8 = make([]int8, keys), make([]int8, values)
		kv.keyScales = make([]float32, kvHeads*kv.panels()*kv.groups*kvPanel)
		kv.valueScales = make([]float32, kvHeads*capacity*kv.groups)
	default:
		return nil, fmt.Errorf("make key/value cache of %v: want one of %v", t, KVTypes())
	}
	return kv, nil
}

func (kv *KV) panels() int { return (kv.Capacity + kvPanel - 1) / kvPanel }

// Resident is the memory that the cache occupies, in bytes.
func (kv *KV) Resident() int { return KVResident(kv.Type, kv.G, kv.D, kv.Capacity) }

// KVResident is what [NewKV] will take, in bytes: more than [KVBytes] a position, because rows are rounded up.
func KVResident(t quant.Type, kvHeads, headDim, capacity int) int {
	kv := KV{G: kvHeads, D: headDim, Capacity: capacity}
	kv.shape()
	keys, values := kv.sizes()
	switch t {
	case quant.F16:
		return 2 * (keys + values)
	case quant.Q8_0:
		return keys + values + 4*(keys/kv.D*kv.groups+kv.G*kv.Capacity*kv.groups)
	}
	return 4 * (keys + values)
}

func (kv *KV) shape() { kv.padded, kv.groups = (kv.D+15)/16*16, (kv.D+31)/32 }

// sizes counts the elements of keys and of values; a tile may read past the last row of values.
func (kv *KV) sizes() (keys, values int) {
	return kv.G * kv.panels() * kv.D * kvPanel, kv.G*kv.Capacity*kv.padded + kvPanel
}

// KVBytes is what a position of kvHeads heads of headDim channels needs, keys and values together.
func KVBytes(t quant.Type, kvHeads, headDim int) int {
	switch t {
	case quant.F16:
		return 2 * 2 * kvHeads * headDim
	case quant.Q8_0:
		return 2 * kvHeads * (headDim + 4*((headDim+31)/32))
	}
	return 4 * 2 * kvHeads * headDim
}

// keyAt is the place of channel 0 of a key; the next channels follow 32 apart.
func (kv *KV) keyAt(g, p int) int {
	return (g*kv.panels()+p/kvPanel)*kv.D*kvPanel + p%kvPanel
}

func (kv *KV) valueAt(g, p int) int { return (g*kv.Capacity + p) * kv.padded }

func (kv *KV) keyScaleAt(g, p int) int {
	return (g*kv.panels()+p/kvPanel)*kv.groups*kvPanel + p%kvPanel
}

// Put stores T positions from pos on, rounded to the type. Several goroutines may put different positions.
//
//	k, v: (T, G, D)
func (kv *KV) Put(pos, T int, k, v []float32) {
	if pos < 0 || pos+T > kv.Capacity {
		panic(fmt.Sprintf("tensor: put positions %d to %d into a cache for %d", pos, pos+T, kv.Capacity))
	}
	for t := range T {
		for g := range kv.G {
			at := (t*kv.G + g) * kv.D
			kv.put(g, pos+t, k[at:at+kv.D], v[at:at+kv.D])
		}
	}
}

func (kv *KV) put(g, p int, k, v []float32) {
	key, value := kv.keyAt(g, p), kv.valueAt(g, p)
	switch kv.Type {
	case quant.F32:
		for d, x := range k {
			kv.k32[key+d*kvPanel] = x
		}
		copy(kv.v32[value:], v)
	case quant.F16:
		row := kv.v16[value : value+kv.D]
		halves(row, k) // on their way, in the place of the values to come
		for d, x := range row {
			kv.k16[key+d*kvPanel] = x
		}
		halves(row, v)
	default:
		for b := range kv.groups {
			lo, hi := 32*b, min(32*b+32, kv.D)
			kv.keyScales[kv.keyScaleAt(g, p)+b*kvPanel] = round8(k[lo:hi], kv.k8[key+lo*kvPanel:], kvPanel)
			kv.valueScales[(g*kv.Capacity+p)*kv.groups+b] = round8(v[lo:hi], kv.v8[value+lo:], 1)
		}
	}
}

// PutKeys overwrites the keys of T positions from pos on and leaves their values, in F32 and F16.
//
//	k: (T, G, D)
func (kv *KV) PutKeys(pos, T int, k []float32) {
	if pos < 0 || pos+T > kv.Capacity || kv.Type == quant.Q8_0 {
		panic(fmt.Sprintf("tensor: put keys of positions %d to %d into a cache of %v for %d", pos, pos+T, kv.Type, kv.Capacity))
	}
	for t := range T {
		for g := range kv.G {
			row, key := k[(t*kv.G+g)*kv.D:][:kv.D], kv.keyAt(g, pos+t)
			if kv.Type == quant.F32 {
				for d, x := range row {
					kv.k32[key+d*kvPanel] = x
				}
				continue
			}
			for d, x := range row {
				kv.k16[key+d*kvPanel] = quant.F32ToF16(x)
			}
		}
	}
}

// halves rounds src to float16, to nearest even.
func halves(dst []uint16, src []float32) {
	n := 0
	if v := chosen().kernel.vector; v != nil && len(src) >= 8 {
		n = len(src) &^ 7
		v.halves(dst[:n], src[:n])
	}
	for i := n; i < len(src); i++ {
		dst[i] = quant.F32ToF16(src[i])
	}
}

// round8 rounds x to 8 bits, one every step of dst, and returns the scale; NaN and infinities make it NaN.
func round8(x []float32, dst []int8, step int) float32 {
	scale, inverse := quant.Scale8(x)
	for i, v := range x {
		dst[i*step] = int8(max(-127, min(127, math.RoundToEven(float64(float32(v*inverse))))))
	}
	return scale
}

// Get reads positions [from, to) back, as float32.
//
//	k, v: (to-from, G, D)
func (kv *KV) Get(from, to int, k, v []float32) {
	for p := from; p < to; p++ {
		for g := range kv.G {
			at := ((p-from)*kv.G + g) * kv.D
			for d := range kv.D {
				k[at+d], v[at+d] = kv.key(g, p, d), kv.value(g, p, d)
			}
		}
	}
}

func (kv *KV) key(g, p, d int) float32 {
	at := kv.keyAt(g, p) + d*kvPanel
	switch kv.Type {
	case quant.F32:
		return kv.k32[at]
	case quant.F16:
		return quant.F16ToF32(kv.k16[at])
	}
	return float32(kv.k8[at]) * kv.keyScales[kv.keyScaleAt(g, p)+d/32*kvPanel]
}

func (kv *KV) value(g, p, d int) float32 {
	at := kv.valueAt(g, p) + d
	switch kv.Type {
	case quant.F32:
		return kv.v32[at]
	case quant.F16:
		return quant.F16ToF32(kv.v16[at])
	}
	return float32(kv.v8[at]) * kv.valueScales[(g*kv.Capacity+p)*kv.groups+d/32]
}

// CopyPrefix copies the first n positions of a cache of the same type and shape, exactly.
func (kv *KV) CopyPrefix(from *KV, n int) {
	if kv.Type != from.Type || kv.G != from.G || kv.D != from.D || n > min(kv.Capacity, from.Capacity) {
		panic("tensor: copy between key/value caches of different types or shapes")
	}
	panels := (n + kvPanel - 1) / kvPanel
	for g := range kv.G {
		key, fromKey, keys := kv.keyAt(g, 0), from.keyAt(g, 0), panels*kv.D*kvPanel
		value, fromValue, values := kv.valueAt(g, 0), from.valueAt(g, 0), n*kv.padded
		switch kv.Type {
		case quant.F32:
			copy(kv.k32[key:key+keys], from.k32[fromKey:])
			copy(kv.v32[value:value+values], from.v32[fromValue:])
		case quant.F16:
			copy(kv.k16[key:key+keys], from.k16[fromKey:])
			copy(kv.v16[value:value+values], from.v16[fromValue:])
		default:
			copy(kv.k8[key:key+keys], from.k8[fromKey:])
			copy(kv.v8[value:value+values], from.v8[fromValue:])
			scale, fromScale := kv.keyScaleAt(g, 0), from.keyScaleAt(g, 0)
			copy(kv.keyScales[scale:scale+panels*kv.groups*kvPanel], from.keyScales[fromScale:])
			copy(kv.valueScales[g*kv.Capacity*kv.groups:][:n*kv.groups], from.valueScales[g*from.Capacity*from.groups:])
		}
	}
}

// Drop forgets position p of the first n: those behind it move one place down, exactly.
func (kv *KV) Drop(p, n int) {
	if p < 0 || p >= n || n > kv.Capacity {
		panic(fmt.Sprintf("tensor: drop position %d of %d in a cache for %d", p, n, kv.Capacity))
	}
	for g := range kv.G {
		value, end := kv.valueAt(g, p), kv.valueAt(g, p)+(n-p)*kv.padded
		at, last := (g*kv.Capacity+p)*kv.groups, (g*kv.Capacity+n)*kv.groups
		switch kv.Type {
		case quant.F32:
			dropKeys(kv.k32, kv.keyAt(g, 0), kv.D, p, n)
			copy(kv.v32[value:end], kv.v32[value+kv.padded:end])
		case quant.F16:
			dropKeys(kv.k16, kv.keyAt(g, 0), kv.D, p, n)
			copy(kv.v16[value:end], kv.v16[value+kv.padded:end])
		default:
			dropKeys(kv.k8, kv.keyAt(g, 0), kv.D, p, n)
			dropKeys(kv.keyScales, kv.keyScaleAt(g, 0), kv.groups, p, n)
			copy(kv.v8[value:end], kv.v8[value+kv.padded:end])
			copy(kv.valueScales[at:last], kv.valueScales[at+kv.groups:last])
		}
	}
}

// dropKeys moves positions (p, n) of a head one place down; it begins at base, in panels of rows of 32 positions.
func dropKeys[E any](keys []E, base, rows, p, n int) {
	for panel := p / kvPanel; panel*kvPanel < n; panel++ {
		from := max(0, p-panel*kvPanel)
		for d := range rows {
			row := keys[base+(panel*rows+d)*kvPanel:]
			copy(row[from:kvPanel-1], row[from+1:kvPanel])
			if (panel+1)*kvPanel < n {
				row[kvPanel-1] = row[rows*kvPanel]
			}
		}
	}
}

// Move copies one position over another, exactly.
func (kv *KV) Move(from, to int) {
	for g := range kv.G {
		key, toKey, value, toValue := kv.keyAt(g, from), kv.keyAt(g, to), kv.valueAt(g, from), kv.valueAt(g, to)
		switch kv.Type {
		case quant.F32:
			for d := 0; d < kv.D*kvPanel; d += kvPanel {
				kv.k32[toKey+d] = kv.k32[key+d]
			}
			copy(kv.v32[toValue:toValue+kv.D], kv.v32[value:])
		case quant.F16:
			for d := 0; d < kv.D*kvPanel; d += kvPanel {
				kv.k16[toKey+d] = kv.k16[key+d]
			}
			copy(kv.v16[toValue:toValue+kv.D], kv.v16[value:])
		default:
			for d := 0; d < kv.D*kvPanel; d += kvPanel {
				kv.k8[toKey+d] = kv.k8[key+d]
			}
			copy(kv.v8[toValue:toValue+kv.D], kv.v8[value:])
			for i := 0; i < kv.groups*kvPanel; i += kvPanel {
				kv.keyScales[kv.keyScaleAt(g, to)+i] = kv.keyScales[kv.keyScaleAt(g, from)+i]
			}
			copy(kv.valueScales[(g*kv.Capacity+to)*kv.groups:][:kv.groups], kv.valueScales[(g*kv.Capacity+from)*kv.groups:])
		}
	}
}
