package pipeline

import (
	"errors"
	"fmt"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/workloads"
)

// endpoint asks a real server for the whole answer (checklist I14). The network
// to it is the real one, so its time is inside the operation; the prompt's text
// is all that leaves the user.
type endpoint struct {
	env   world.Env
	node  hardware.Node
	model *hardware.Model
}

var endpointEntry = Entry{
	Name: "endpoint", Doc: "the prompt's text to a server with OpenAI's protocol; its chunks stream back over the real network",
	Ops: "edge or cloud: generate",
	New: func(Params) Pipeline { return &endpoint{} },
}

// Start picks the first edge or cloud node that generates.
func (p *endpoint) Start(env world.Env, site *hardware.Site, models Models) error {
	p.env, p.model = env, models.Main
	var cannot error
	for _, n := range site.Nodes {
		err := hardware.Needs(fmt.Sprintf("pipeline endpoint: node %q", n.Name), n.Device, hardware.Generate)
		if err == nil && n.Role != hardware.DeviceRole {
			p.node = n
			return nil
		}
		cannot = errors.Join(cannot, err)
	}
	if cannot == nil {
		cannot = errors.New("pipeline endpoint: no edge or cloud node")
	}
	return fmt.Errorf("site %q: %w (a node is a server by endpoint: {url: ...}; see docs/endpoints.md)", site.Name, cannot)
}

func (p *endpoint) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	op := hardware.Op{Kind: hardware.Generate, Model: p.model, Layers: p.model.All(), Seqs: []hardware.Seq{{ID: int64(req.ID),
		New: req.PromptTokens, Tokens: req.Prompt, Limit: req.OutputTokens, Text: req.Text}}}
	res, err := p.node.Device.Run(&op)
	if len(res.Seqs) == 0 {
		return err
	}
	out := &res.Seqs[0] // after an error: what came before it
	if len(out.Chunks) > 0 || err == nil {
		log.Sent = max(log.Sent, res.Usage.Start)
	}
	log.Spent(record.Compute, p.node.Name, res.Usage.Start, res.Usage.End)
	part := record.EdgePart
	if p.node.Role == hardware.CloudRole {
		part = record.CloudPart
	}
	note(log, part, res.Usage, 1)
	log.UpBytes += out.Sent
	log.DownBytes += out.Received
	log.RawBytesOut += max(req.TextBytes, units.Bytes(len(req.Text)))
	log.Count(record.Retries, int64(out.Retries))
	if out.Prompt > 0 {
		log.PromptTokens = out.Prompt
	}
	p.arrivals(log, out)
	log.Texted, log.Text, log.Output = out.Tokens == nil, out.Text, append(log.Output, out.Tokens...)
	log.Doubt, log.Mismatch = out.Doubt, out.Mismatch
	return err
}

// arrivals logs the chunks; reasoning is no answer yet.
func (p *endpoint) arrivals(log *record.Request, out *hardware.Out) {
	answered := record.Unset
	for i, c := range out.Chunks {
		if c.Tokens == 0 {
			log.Empty(c.At)
			continue
		}
		log.Token(c.At, c.Tokens)
		if i >= out.Thinking && answered == record.Unset {
			answered = c.At
		}
	}
	log.FirstAnswerToken = answered
}
