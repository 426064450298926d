package pipeline

import (
	"errors"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/workloads"
)

// offload sends the prompt and its sensor data to an edge server, which runs
// the whole model with continuous batching and streams the tokens back
// (checklist I1, I2).
type offload struct {
	batch      int
	tokenBytes float64

	env   world.Env
	site  *hardware.Site
	model *hardware.Model
	edge  *batcher
	node  string
}

func (p *offload) Start(env world.Env, site *hardware.Site, model *hardware.Model) (err error) {
	p.env, p.site, p.model = env, site, model
	node, err := site.First(hardware.EdgeRole)
	if err != nil {
		return err
	}
	if err := hardware.Needs("pipeline offload: edge", node.Device, hardware.Prefill, hardware.Decode); err != nil {
		return err
	}
	p.node = node.Name
	p.edge, err = newBatcher(env, node, model, model.All(), p.batch)
	return err
}

func (p *offload) Handle(req *workloads.Request, log *record.Request) error {
	user := p.site.User(req.User)
	log.Sent = p.env.Now()
	data := hardware.Payload{Bytes: req.TextBytes + req.SensorBytes, Data: encodeTokens(req.Prompt)}
	data.Bytes = max(data.Bytes, units.Bytes(len(data.Data)))
	up, err := user.Up.Send(data)
	if err != nil {
		return err
	}
	sent(log, up, true)
	log.Spent(record.Transfer, "up", up.Usage.Start, up.Usage.End)
	log.RawBytesOut += data.Bytes

	down := user.Down.Open()
	j := newJob(int64(req.ID), req.OutputTokens, req.PromptTokens+req.OutputTokens)
	j.seq.New, j.seq.Tokens = req.PromptTokens, decodeTokens(up.Payload.Data)
	j.emit = func(out hardware.Out, _ hardware.Usage) {
		down.Write(p.tokenPayload(out.Token))
		if out.Token != hardware.NoToken {
			log.Output = append(log.Output, out.Token)
		}
	}
	j.finish = func(err error) {
		if !errors.Is(err, errNeverFits) {
			p.edge.free(j)
		}
		down.Close(err)
	}
	p.edge.queue.Put(j)

	got, err := down.Drain()
	for _, d := range got {
		log.Token(d.Usage.End, d.Payload.Tokens)
		sent(log, d, false)
	}
	p.account(log, j)
	return err
}

func (p *offload) tokenPayload(token int32) hardware.Payload {
	d := hardware.Payload{Bytes: units.Bytes(p.tokenBytes), Tokens: 1}
	if token != hardware.NoToken {
		d.Data = encodeTokens([]int32{token})
		d.Bytes = max(d.Bytes, units.Bytes(len(d.Data)))
	}
	return d
}

// account writes down where the request's time at the edge went: in line, in
// its prefill, in shared decode steps, and on the way down.
func (p *offload) account(log *record.Request, j *job) {
	if j.admit >= 0 {
		log.Spent(record.Compute, p.node, j.admit, j.prefill)
		if j.last > j.prefill {
			log.Spent(record.Batch, p.node, j.prefill, j.last)
		}
		if log.LastToken >= j.last {
			log.Spent(record.Transfer, "down", j.last, log.LastToken)
		}
	}
	log.FLOP += j.flop
	log.Spend(record.EdgePart, j.energy, uint8(j.joules))
}

// encodeTokens and decodeTokens are the wire form of token ids: little-endian
// 32-bit words. Nil stays nil: a modelled run sends sizes only.
func encodeTokens(ids []int32) []byte {
	if ids == nil {
		return nil
	}
	b := make([]byte, 4*len(ids))
	for i, id := range ids {
		b[4*i], b[4*i+1], b[4*i+2], b[4*i+3] = byte(id), byte(id>>8), byte(id>>16), byte(id>>24)
	}
	return b
}

func decodeTokens(b []byte) []int32 {
	if b == nil {
		return nil
	}
	ids := make([]int32, len(b)/4)
	for i := range ids {
		ids[i] = int32(b[4*i]) | int32(b[4*i+1])<<8 | int32(b[4*i+2])<<16 | int32(b[4*i+3])<<24
	}
	return ids
}
