package city

import (
	"math"

	"meibench/hardware/radio"
)

// budget knows over how many resource blocks a transmitter of limited power does
// best: with a power that would give an SNR of x dB over one block, m blocks get
// x - 10 lg m each, and the rate is m times the goodput there. Kept for every
// step of x, which is rounded down.
//
// Power control's target is no bound here: it is above the SNR at which spreading
// further stops to pay, by far.
type budget struct {
	low    float64 // dB
	blocks []int16
	sinr   []float32
	each   []float64 // goodput per block
	lg10   []float64 // 10 lg m by m
}

const budgetStep = 0.05 // dB

func newBudget(mcs *radio.MCSTable, all int) *budget {
	const fine = 0.01
	low, high := mcs.Rows[0].SNR10, mcs.Rows[len(mcs.Rows)-1].SNR10+3
	b := &budget{low: low, lg10: make([]float64, all+1)}
	for m := 1; m <= all; m++ {
		b.lg10[m] = radio.DB(float64(m))
	}
	goodput := make([]float64, int((high-low)/fine)+1)
	for i := range goodput {
		goodput[i] = mcs.Goodput(low + float64(float64(i)*fine))
	}
	for x := low; x < high+b.lg10[all]; x = low + float64(float64(len(b.blocks))*budgetStep) {
		best, blocks, each, at := 0.0, 0, 0.0, 0.0
		for m := 1; m <= all; m++ {
			snr := x - b.lg10[m]
			i := int(math.Floor((snr - low) / fine))
			if i < 0 {
				break
			}
			g := goodput[min(i, len(goodput)-1)]
			if rate := float64(g * float64(m)); rate > best {
				best, blocks, each, at = rate, m, g, snr
			}
		}
		b.blocks, b.each, b.sinr = append(b.blocks, int16(blocks)), append(b.each, each), append(b.sinr, float32(at))
	}
	return b
}

// best is the number of blocks, their SINR in dB and their goodput in bits per
// resource element; 0 blocks = out of range.
func (b *budget) best(x float64) (blocks int, sinr, goodput float64) {
	i := int(math.Floor((x - b.low) / budgetStep))
	if i < 0 {
		return 0, math.Inf(-1), 0
	}
	i = min(i, len(b.blocks)-1)
	return int(b.blocks[i]), float64(b.sinr[i]), b.each[i]
}
