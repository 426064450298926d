package pipeline

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/internal/units"
)

// roads are the ways between the places of a site: 0 is the user's device, i > 0
// the site's i-th node. Places that no link joins are reached through others.
type roads struct {
	names []string
	devs  []hardware.Device // of user 0 and the nodes
	links [][]hardware.Link // of user 0; nil = no link
	next  [][]int           // first hop on the quickest way; -1 = none
	moved units.Bytes       // over links between nodes so far
}

// survey finds the ways of a site. The user's radio ends at the first edge node.
func survey(site *hardware.Site) (*roads, error) {
	first, err := site.First(hardware.EdgeRole)
	if err != nil {
		return nil, err
	}
	user := site.User(0)
	n := len(site.Nodes) + 1
	r := &roads{names: []string{"device"}, devs: []hardware.Device{user.Device}, links: make([][]hardware.Link, n)}
	for i := range r.links {
		r.links[i] = make([]hardware.Link, n)
	}
	for i, node := range site.Nodes {
		r.names, r.devs = append(r.names, node.Name), append(r.devs, node.Device)
		if node.Name == first.Name {
			r.links[0][i+1], r.links[i+1][0] = user.Up, user.Down
		}
		for j, other := range site.Nodes {
			if l, err := site.Between(node.Name, other.Name); err == nil {
				r.links[i+1][j+1] = l
			}
		}
	}
	r.find(1)
	return r, nil
}

// find chooses the quickest way for messages of a size between any two places
// (Floyd and Warshall's algorithm). A way never leads through the user's device. It
// may lead through a node that is down: what dies is the node's computer; its
// network ports go on.
func (r *roads) find(size units.Bytes) {
	n := len(r.names)
	cost := make([][]time.Duration, n)
	r.next = make([][]int, n)
	for i := range n {
		cost[i], r.next[i] = make([]time.Duration, n), make([]int, n)
		for j := range n {
			cost[i][j], r.next[i][j] = never, -1
			if l := r.links[i][j]; l != nil {
				cost[i][j], r.next[i][j] = across(l, size), j
			}
		}
		cost[i][i], r.next[i][i] = 0, i
	}
	for k := 1; k < n; k++ {
		for i := range n {
			for j := range n {
				if through := cost[i][k] + cost[k][j]; through < cost[i][j] {
					cost[i][j], r.next[i][j] = through, r.next[i][k]
				}
			}
		}
	}
}

// never is longer than any way, and twice it is still a time.
const never = time.Duration(1) << 61

// across is the time of a message over a link at its median rate, without load.
func across(l hardware.Link, size units.Bytes) time.Duration {
	s := l.Spec()
	return units.TransferTime(size, s.BytesPerSec) + s.Delay
}

// time is that of a message between two places; never if there is no way.
func (r *roads) time(from, to int, size units.Bytes) (t time.Duration) {
	for from != to {
		hop := r.next[from][to]
		if hop < 0 {
			return never
		}
		t += across(r.links[from][hop], size)
		from = hop
	}
	return t
}

// send takes a message from place to place, hop by hop, and returns it as it
// arrived. The request pays for it; what moves between nodes is counted apart.
func (r *roads) send(user *hardware.User, log *record.Request, way [2]int, p hardware.Payload) (hardware.Payload, error) {
	return r.carry(user, log, way, p, true)
}

// carry is send; without spans, the caller accounts for the time.
func (r *roads) carry(user *hardware.User, log *record.Request, way [2]int, p hardware.Payload, spans bool) (hardware.Payload, error) {
	for at := way[0]; at != way[1]; {
		hop := r.next[at][way[1]]
		if hop < 0 {
			return p, fmt.Errorf("no way from %s to %s: %w", r.names[at], r.names[way[1]], hardware.ErrLinkDown)
		}
		link, name := r.links[at][hop], "to "+r.names[hop]
		switch {
		case at == 0:
			link, name = user.Up, "up"
		case hop == 0:
			link, name = user.Down, "down"
		}
		d, err := link.Send(p)
		if err != nil {
			return p, err
		}
		if at == 0 || hop == 0 {
			sent(log, d, at == 0)
		} else {
			r.moved += d.Usage.Moved
		}
		if spans {
			log.Spent(record.Transfer, name, d.Usage.Start, d.Usage.End)
		}
		p, at = d.Payload, hop
	}
	return p, nil
}

// estimator is a device, or the device inside it, that can tell times beforehand.
func estimator(d hardware.Device) (hardware.Estimator, bool) {
	if e, ok := d.(hardware.Estimator); ok {
		return e, true
	}
	if w, ok := d.(interface{ Inner() hardware.Device }); ok {
		return estimator(w.Inner())
	}
	return nil, false
}

// meter adds up how long devices work, an operation that several requests share
// once, and for how long any request was under way.
type meter struct {
	busy, last map[hardware.Device]time.Duration
	active     int
	since, all time.Duration
}

func newMeter() meter {
	return meter{busy: map[hardware.Device]time.Duration{}, last: map[hardware.Device]time.Duration{}}
}

// begin and end tell of a request.
func (m *meter) begin(now time.Duration) {
	if m.active++; m.active == 1 {
		m.since = now
	}
}

func (m *meter) end(now time.Duration) {
	if m.active--; m.active == 0 {
		m.all += now - m.since
	}
}

// ran tells of an operation on a device with one slot.
func (m *meter) ran(d hardware.Device, u hardware.Usage) {
	if u.End > m.last[d] {
		m.busy[d] += u.End - max(u.Start, m.last[d])
		m.last[d] = u.End
	}
}

// bubble is the share of the devices' time that was idle while a request was
// under way.
func (m *meter) bubble() float64 {
	var busy time.Duration
	for _, b := range m.busy { // integers: any order
		busy += b
	}
	if m.all <= 0 || len(m.busy) == 0 {
		return 0
	}
	return 1 - float64(busy)/(float64(m.all)*float64(len(m.busy)))
}
