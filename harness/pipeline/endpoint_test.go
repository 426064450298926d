package pipeline

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/workloads"
)

// toyServer generates: 10 ms to the first byte, which is a role, then a chunk of
// reasoning, then two chunks of text; fail comes after the first of these.
type toyServer struct {
	env  world.Env
	fail error
	seen []hardware.Seq
}

func (d *toyServer) Spec() hardware.DeviceSpec {
	return hardware.DeviceSpec{Name: "server", Slots: 1, Time: hardware.Modelled, Ops: hardware.Set(hardware.Generate)}
}

func (d *toyServer) Run(op *hardware.Op) (hardware.Result, error) {
	d.seen = append(d.seen, op.Seqs...)
	d.env.Sleep(ms(2)) // to connect
	start := d.env.Now()
	out := hardware.Out{Text: "yes", Prompt: 9, Thinking: 2, Sent: 100, Received: 300, Doubt: "odd", Mismatch: true, Retries: 1}
	for i, n := range []int{0, 2, 1, 3} {
		if d.fail != nil && i == 3 {
			break
		}
		d.env.Sleep(ms(10))
		out.Chunks = append(out.Chunks, hardware.Chunk{At: d.env.Now(), Tokens: n})
	}
	return hardware.Result{Seqs: []hardware.Out{out}, Usage: hardware.Usage{Start: start, End: d.env.Now(), Time: hardware.Modelled}}, d.fail
}

func endpointScene(t *testing.T, fail error) (*scene, *toyServer) {
	env := world.NewSim(t.Context())
	s := newScene(env)
	d := &toyServer{env: env, fail: fail}
	s.site.Nodes = []hardware.Node{{Name: "none", Role: hardware.EdgeRole}, {Name: "server", Role: hardware.CloudRole, Device: d}}
	require.NoError(t, s.use("endpoint", nil))
	s.reqs = []workloads.Request{{PromptTokens: 5, OutputTokens: 8, Text: "may me go ?", TextBytes: 11, SensorBytes: 5000, ArriveAt: ms(1)}}
	return s, d
}

func TestEndpoint(t *testing.T) {
	s, d := endpointScene(t, nil)
	s.run(t)
	log := s.logs[0]
	require.NoError(t, log.Check())
	require.Equal(t, "may me go ?", d.seen[0].Text)
	require.Equal(t, 8, d.seen[0].Limit)
	// intended 1, sent 3, then a chunk every 10 ms: the first without a token, the second reasoning
	require.Equal(t, []time.Duration{ms(3), ms(13), ms(13), ms(23), ms(33), ms(43), ms(43)},
		[]time.Duration{log.Sent, log.FirstByte, log.FirstChunk, log.FirstToken, log.FirstAnswerToken, log.LastToken, log.Done})
	require.Equal(t, []record.Span{{Kind: record.Queue, Node: "server", Start: ms(1), End: ms(3)}, {Kind: record.Compute, Node: "server", Start: ms(3), End: ms(43)}}, log.Spans)
	require.Equal(t, []int{6, 9}, []int{log.OutputTokens, log.PromptTokens})
	require.EqualValues(t, []int{100, 300, 11, 1}, []int{int(log.UpBytes), int(log.DownBytes), int(log.RawBytesOut), int(log.Counts[record.Retries])})
	require.True(t, log.Texted && log.Mismatch)
	require.Equal(t, []string{"yes", "odd"}, []string{log.Text, log.Doubt})
	require.False(t, log.Energy[record.CloudPart].Known(), "a server does not say what it spends")
}

// A failure in mid-answer is a failed row that keeps what came before it.
func TestEndpointFails(t *testing.T) {
	s, _ := endpointScene(t, errors.New("reset by peer"))
	s.run(t)
	log := s.logs[0]
	require.NoError(t, log.Check())
	require.Equal(t, record.Failed, log.Outcome)
	require.Equal(t, "reset by peer", log.Err)
	require.Equal(t, 3, log.OutputTokens)
}

func TestEndpointNeedsAServer(t *testing.T) {
	s := newScene(world.NewSim(t.Context()))
	s.site.Nodes[0].Role = hardware.DeviceRole
	require.ErrorContains(t, s.use("endpoint", nil), "no edge or cloud node")
	s.site.Nodes = []hardware.Node{{Name: "none", Role: hardware.EdgeRole}}
	err := s.use("endpoint", nil)
	require.ErrorContains(t, err, "endpoint: {url: ...}")
}
