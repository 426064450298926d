package radio

import "fmt"

// Carrier is a band of OFDM: how many resource blocks of which width it has.
type Carrier struct {
	Frequency float64 // Hz
	Bandwidth float64 // Hz
	Spacing   float64 // Hz between subcarriers
	Blocks    int     // resource blocks of 12 subcarriers
	Down, Up  float64 // overhead of control and reference signals (TS 38.306 §4.1.2)
}

// FR2 begins at 24.25 GHz.
const fr2 = 24.25e9

// blocks are the resource blocks of a bandwidth in MHz: TS 38.101-1 Table
// 5.3.2-1 for 15 and 30 kHz below 7.125 GHz, TS 38.101-2 Table 5.3.2-1 for 120
// kHz above.
var blocks = []struct {
	spacing, mhz float64
	n            int
}{
	{30e3, 5, 11}, {30e3, 10, 24}, {30e3, 15, 38}, {30e3, 20, 51}, {30e3, 25, 65}, {30e3, 30, 78}, {30e3, 40, 106},
	{30e3, 50, 133}, {30e3, 60, 162}, {30e3, 70, 189}, {30e3, 80, 217}, {30e3, 90, 245}, {30e3, 100, 273},
	{15e3, 5, 25}, {15e3, 10, 52}, {15e3, 15, 79}, {15e3, 20, 106}, {15e3, 25, 133}, {15e3, 30, 160}, {15e3, 40, 216}, {15e3, 50, 270},
	{120e3, 50, 32}, {120e3, 100, 66}, {120e3, 200, 132}, {120e3, 400, 264},
}

// NewCarrier returns a carrier with the spacing that is usual there: 30 kHz
// below 24.25 GHz, 120 kHz above.
func NewCarrier(frequency, bandwidth float64) (Carrier, error) {
	spacing := 30e3
	if frequency >= fr2 {
		spacing = 120e3
	}
	return NewCarrierSpaced(frequency, bandwidth, spacing)
}

// NewCarrierSpaced returns a carrier with a subcarrier spacing of 15, 30 or 120
// kHz. The bandwidth must be one of the standard's.
func NewCarrierSpaced(frequency, bandwidth, spacing float64) (Carrier, error) {
	if !(frequency >= 0.5e9 && frequency <= 100e9) {
		return Carrier{}, fmt.Errorf("radio: a carrier of %g Hz: want 0.5e9 to 100e9, the range of TR 38.901", frequency)
	}
	if (frequency >= fr2) != (spacing >= 60e3) {
		return Carrier{}, fmt.Errorf("radio: a subcarrier spacing of %g Hz at %g Hz: want 15e3 or 30e3 below 24.25e9 Hz and 120e3 above", spacing, frequency)
	}
	c := Carrier{Frequency: frequency, Bandwidth: bandwidth, Spacing: spacing, Down: 0.14, Up: 0.08}
	if frequency >= fr2 {
		c.Down, c.Up = 0.18, 0.10
	}
	have := ""
	for _, b := range blocks {
		if b.spacing != spacing {
			continue
		}
		have += fmt.Sprintf(" %g", b.mhz)
		if b.mhz*1e6 == bandwidth {
			c.Blocks = b.n
			return c, nil
		}
	}
	return Carrier{}, fmt.Errorf("radio: a bandwidth of %g Hz with %g Hz between subcarriers: want one of, in MHz,%s", bandwidth, spacing, have)
}

// MustCarrier is NewCarrier for values known to be right.
func MustCarrier(frequency, bandwidth float64) Carrier {
	c, err := NewCarrier(frequency, bandwidth)
	if err != nil {
		panic(err)
	}
	return c
}

// BlockHz is the width of a resource block.
func (c Carrier) BlockHz() float64 { return 12 * c.Spacing }

// BitsPerSec is the rate of all resource blocks at a goodput in bits per
// resource element (MCSTable.Goodput) with a number of equal layers, before
// overhead and TDD: 12 subcarriers, 14 symbols a slot (TS 38.306 §4.1.2).
func (c Carrier) BitsPerSec(goodput, layers float64) float64 {
	return float64(goodput*layers) * float64(float64(c.Blocks)*12*14*(c.Spacing/15e3)*1e3)
}

// Rate is what is left of BitsPerSec for data in one direction: less overhead,
// and only in the share of slots that TDD gives it (1 = FDD).
func (c Carrier) Rate(bitsPerSec, overhead, tdd float64) float64 {
	return float64(bitsPerSec*(1-overhead)) * tdd
}
