package results

import "slices"

// Agent is another machine that computed for a run: who it is, how its clock
// relates to this one's, and what passed between them. Times are nanoseconds.
type Agent struct {
	Site          string            `json:"site"`
	Node          string            `json:"node"`
	Address       string            `json:"address"`
	Version       string            `json:"version"` // of its program
	TLS           bool              `json:"tls"`
	Models        map[string]string `json:"models"` // that it holds -> SHA-256
	Offset        int64             `json:"offset_ns"`
	Uncertainty   int64             `json:"offset_uncertainty_ns"`
	RTT           int64             `json:"min_rtt_ns"`
	Drift         float64           `json:"drift_ppm"`
	DriftUnsure   float64           `json:"drift_uncertainty_ppm"` // 0: not watched for long enough
	Samples       int               `json:"clock_samples"`
	Clamped       int               `json:"clamped_stamps"` // that lay outside their call after mapping
	FarthestClamp int64             `json:"farthest_clamp_ns"`
	Operations    int               `json:"operations"`
	Failures      int               `json:"failures"` // operations that failed because it was down
	Reconnects    int               `json:"reconnects"`
	Sent          int64             `json:"sent_bytes"` // below gRPC and TLS
	Received      int64             `json:"received_bytes"`
	Payload       int64             `json:"payload_bytes"` // of these, what pipelines moved
	Setup         int64             `json:"setup_bytes"`   // of these, before the first operation
	Framing       int64             `json:"framing_bytes"` // the rest
}

// SetAgents notes what a run of a cell learnt of agents and saves the manifest.
// The clock is the one seen last; counts are sums over the cells.
func (r *Run) SetAgents(list []Agent) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.manifest
	m.Agents = slices.Clone(m.Agents)
	for _, a := range list {
		i := slices.IndexFunc(m.Agents, func(b Agent) bool { return b.Site == a.Site && b.Node == a.Node && b.Address == a.Address })
		if i < 0 {
			m.Agents = append(m.Agents, a)
		} else {
			m.Agents[i] = a.after(m.Agents[i])
		}
	}
	if err := m.save(r.disk, r.dir); err != nil {
		return err
	}
	r.manifest = m
	return nil
}

// after adds what was counted before.
func (a Agent) after(b Agent) Agent {
	a.Samples += b.Samples
	a.Clamped += b.Clamped
	a.FarthestClamp = max(a.FarthestClamp, b.FarthestClamp)
	a.Operations += b.Operations
	a.Failures += b.Failures
	a.Reconnects += b.Reconnects
	a.Sent += b.Sent
	a.Received += b.Received
	a.Payload += b.Payload
	a.Setup += b.Setup
	a.Framing += b.Framing
	return a
}
