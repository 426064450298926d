package radio

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
	"strings"

	"meibench/internal/portable"
)

//go:embed nr_mcs_snr.csv
var mcsFile string

// MCS is a modulation and coding scheme of NR.
type MCS struct {
	Index      int
	Bits       int     // of a symbol
	Efficiency float64 // bits per resource element: Bits × code rate (TS 38.214)
	SNR10      float64 // dB at which 10 % of blocks are lost
	SNR1       float64 // dB at which 1 % are lost
	Assumed    bool    // the thresholds are ours: the gap to Shannon of the nearest row that has one
}

// BLER is the share of blocks lost in the first transmission, log-linear
// through the two thresholds, at most 1.
func (m MCS) BLER(snr float64) float64 {
	slope := (snr - m.SNR10) / (m.SNR1 - m.SNR10)
	return min(1, portable.Exp(float64(-ln10*(1+slope))))
}

// MCSTable is MCS table 1 (to 64QAM) or 2 (to 256QAM) of TS 38.214 with the
// thresholds of nr_mcs_snr.csv, ordered by efficiency.
type MCSTable struct {
	Number int
	Rows   []MCS // those that any SNR makes the best: efficiency and SNR10 both rise
	steps  []float64
}

// LoadTable reads MCS table 1 or 2.
func LoadTable(number int) (*MCSTable, error) {
	if number != 1 && number != 2 {
		return nil, fmt.Errorf("radio: MCS table %d: want 1 (up to 64QAM) or 2 (up to 256QAM)", number)
	}
	rows, err := csv.NewReader(strings.NewReader(mcsFile)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("radio: nr_mcs_snr.csv: %w", err)
	}
	var all []MCS
	for _, r := range rows[1:] {
		if r[0] != strconv.Itoa(number) {
			continue
		}
		var x [5]float64
		for i, s := range []string{r[1], r[2], r[4], r[5], r[6]} {
			if x[i], err = strconv.ParseFloat(s, 64); err != nil {
				x[i] = math.NaN()
			}
		}
		all = append(all, MCS{Index: int(x[0]), Bits: int(x[1]), Efficiency: x[2], SNR10: x[3], SNR1: x[4]})
	}
	fillThresholds(all)
	t := &MCSTable{Number: number}
	for _, m := range all {
		if n := len(t.Rows); n > 0 && m.Efficiency <= t.Rows[n-1].Efficiency {
			continue // 64QAM at the rate of 16QAM needs more
		}
		t.Rows, t.steps = append(t.Rows, m), append(t.steps, m.SNR10)
	}
	return t, nil
}

// MustTable is LoadTable for tables known to exist.
func MustTable(number int) *MCSTable {
	t, err := LoadTable(number)
	if err != nil {
		panic(err)
	}
	return t
}

// fillThresholds gives rows without a measured threshold the gap to Shannon's
// bound, and the width, of the nearest row that has one.
func fillThresholds(all []MCS) {
	shannon := func(e float64) float64 { return DB(portable.Exp(float64(e*math.Ln2)) - 1) }
	for i := range all {
		if !math.IsNaN(all[i].SNR10) {
			continue
		}
		near := -1
		for j := range all {
			if !all[j].Assumed && !math.IsNaN(all[j].SNR10) && (near < 0 || abs(j-i) < abs(near-i)) {
				near = j
			}
		}
		n := all[near]
		all[i].SNR10 = shannon(all[i].Efficiency) + n.SNR10 - shannon(n.Efficiency)
		all[i].SNR1 = all[i].SNR10 + n.SNR1 - n.SNR10
		all[i].Assumed = true
	}
}

func abs(x int) int { return max(x, -x) }

// At is the index in Rows of the most efficient scheme that loses at most 10 %
// of its blocks at an SNR in dB; -1 = out of range, no service.
func (t *MCSTable) At(snr float64) int {
	lo, hi := 0, len(t.steps)
	for lo < hi {
		mid := (lo + hi) / 2
		if t.steps[mid] <= snr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// Goodput is what arrives per resource element, in bits, at an SNR in dB, HARQ's
// repetitions taken off; 0 = no service. Where the next scheme, for its losses,
// would bring less than this one, this one stays: it never falls with the SNR.
func (t *MCSTable) Goodput(snr float64) float64 {
	i := t.At(snr)
	if i < 0 {
		return 0
	}
	best := t.Rows[i].goodput(snr)
	if i > 0 {
		best = max(best, t.Rows[i-1].goodput(snr))
	}
	return best
}

func (m MCS) goodput(snr float64) float64 {
	sent, lost := m.Repetitions(snr)
	return float64(m.Efficiency*(1-lost)) / sent
}

// HARQ's limits, as deployments set them.
const (
	harqSends   = 4    // transmissions of a block before the layer above repeats it
	HARQSeconds = 8e-3 // from a transmission to its repetition
)

// Repetitions is how many times a block is sent on average, and the probability
// that it is lost for HARQ. A block sent k times has k times its energy (Chase
// combining): its loss is that of an SNR 10 lg k higher.
func (m MCS) Repetitions(snr float64) (sends, lost float64) {
	lost = 1
	for k := 1; k <= harqSends; k++ {
		sends += lost
		gain := 0.0
		if k > 1 {
			gain = combining[k-2]
		}
		lost = float64(lost * m.BLER(snr+gain))
		if lost < 1e-9 {
			break
		}
	}
	return sends, lost
}

// combining is 10 lg k dB for k = 2, 3, 4.
var combining = [3]float64{3.010299956639812, 4.771212547196624, 6.020599913279624}

// Tries is how many times a block is sent for a uniform variate u in [0, 1): the
// smallest k whose probability of having arrived exceeds u, at most four.
func (m MCS) Tries(snr, u float64) int {
	lost := m.BLER(snr)
	k := 1
	for ; k < harqSends && u >= 1-lost; k++ {
		lost = float64(lost * m.BLER(snr+combining[k-1]))
	}
	return k
}

// CQI is the channel quality that a user reports: the index, 1 to 15, of the
// most efficient row of TS 38.214's CQI table whose scheme loses at most 10 %;
// 0 = out of range. Link adaptation here takes the MCS from the SINR itself, as
// an outer loop would find it.
func (t *MCSTable) CQI(snr float64) int {
	i := t.At(snr)
	if i < 0 {
		return 0
	}
	cqi, e := 0, t.Rows[i].Efficiency
	for k, row := range cqiRows[t.Number-1] {
		if row <= e+1e-4 {
			cqi = k + 1
		}
	}
	return cqi
}

// cqiRows are the efficiencies of Tables 5.2.2.1-2 and 5.2.2.1-3 of TS 38.214.
var cqiRows = [2][15]float64{
	{0.1523, 0.2344, 0.3770, 0.6016, 0.8770, 1.1758, 1.4766, 1.9141, 2.4063, 2.7305, 3.3223, 3.9023, 4.5234, 5.1152, 5.5547},
	{0.1523, 0.3770, 0.8770, 1.4766, 1.9141, 2.4063, 2.7305, 3.3223, 3.9023, 4.5234, 5.1152, 5.5547, 6.2266, 6.9141, 7.4063},
}
