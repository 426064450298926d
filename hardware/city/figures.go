package city

import (
	"time"

	"meibench/hardware/radio"
	"meibench/internal/units"
)

// totals are sums over a network's users.
type totals struct {
	sinr    [2]float64 // dB, once a message
	count   [2]int
	bytes   [2]units.Bytes
	airtime [2]float64 // s of cells
	failed  int
	outages int
	dark    time.Duration // waited for service
	cut     time.Duration // waited for handovers
}

// totalsOf are sums over one user's messages.
type totalsOf struct {
	bytes units.Bytes
	took  time.Duration // between handing over and the last byte
}

func (n *Network) book(a *Access, d int, w *passing, size units.Bytes, err error) {
	t := &n.total
	t.airtime[d] += w.airtime
	if err != nil {
		t.failed++
		return
	}
	t.sinr[d] += w.q.sinr
	t.count[d]++
	t.bytes[d] += size
	a.transfer[d].bytes += size
	a.transfer[d].took += w.sent - w.from
}

// Figures are what a run says of its network, by name; a mean over nothing is
// left out. Units: shares and ratios in [0, 1], dB, bit/s/Hz, bytes, seconds.
//
//	cell_airtime_up, cell_airtime_down         share of time in which a cell was in use, mean over cells
//	cell_airtime_up_max, cell_airtime_down_max that of the busiest cell
//	cell_changes                               handovers of all users
//	fairness_up, fairness_down                 Jain's index of users' throughput while transferring
//	interruption                               time that transfers waited for handovers
//	outage_share                               messages that met a place without service, of all
//	outage_time                                time that transfers waited there
//	radio_bytes_up, radio_bytes_down           bytes that arrived, with framing
//	radio_failed                               messages given up
//	sinr_up, sinr_down                         mean over messages
//	spectral_up, spectral_down                 bits through the air per second of a cell's carrier in use
func (n *Network) Figures() map[string]float64 {
	f := map[string]float64{}
	now := n.env.Now().Seconds()
	t := &n.total
	sent := t.count[up] + t.count[down] + t.failed
	for d, name := range [2]string{"up", "down"} {
		sum, most := 0.0, 0.0
		for i := range n.cells {
			busy := n.cells[i].share[d].Busy().Seconds()
			sum += busy
			most = max(most, busy)
		}
		if now > 0 {
			f["cell_airtime_"+name] = sum / now / float64(len(n.cells))
			f["cell_airtime_"+name+"_max"] = most / now
		}
		f["radio_bytes_"+name] = float64(t.bytes[d])
		if t.count[d] > 0 {
			f["sinr_"+name] = t.sinr[d] / float64(t.count[d])
			f["fairness_"+name] = radio.Jain(n.throughputs(d))
		}
		if t.airtime[d] > 0 {
			f["spectral_"+name] = float64(8*float64(t.bytes[d])) / float64(t.airtime[d]*n.c.Bandwidth)
		}
	}
	handovers := 0
	for _, a := range n.users {
		handovers += a.handed
	}
	f["cell_changes"], f["radio_failed"] = float64(handovers), float64(t.failed)
	f["interruption"], f["outage_time"] = t.cut.Seconds(), t.dark.Seconds()
	if sent > 0 {
		f["outage_share"] = float64(t.outages) / float64(sent)
	}
	return f
}

// throughputs are the bytes per second of each user that had a message arrive,
// while it was transferring.
func (n *Network) throughputs(d int) []float64 {
	var out []float64
	for _, a := range n.users {
		if x := &a.transfer[d]; x.bytes > 0 && x.took > 0 {
			out = append(out, float64(x.bytes)/x.took.Seconds())
		}
	}
	return out
}

// Airtime is the share of time until now in which each cell was in use, up and
// down.
func (n *Network) Airtime() (upward, downward []float64) {
	now := n.env.Now().Seconds()
	for i := range n.cells {
		upward = append(upward, n.cells[i].share[up].Busy().Seconds()/now)
		downward = append(downward, n.cells[i].share[down].Busy().Seconds()/now)
	}
	return upward, downward
}
