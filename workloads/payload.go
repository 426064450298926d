package workloads

import "meibench/internal/units"

// Payload is one kind of data that comes with an application's prompts.
type Payload struct {
	Kind string      // text, image, or the application's SensorKind ("sensor" where it has none)
	Mean units.Bytes // per request of a first turn, on the wire
	From string      // which fields of the application it follows from; Numbers has their sources
}

// Payloads lists what a request of the application carries, text first. Means are
// those of the distributions, so they exist without a run; a run's own bytes are
// in its records. It panics if the application is not valid.
func (a *App) Payloads() []Payload {
	mean := func(name string) float64 {
		for _, l := range a.lengths() {
			if l.name == name && l.spec.Given() {
				d, err := l.spec.Compile(l.unit)
				if err != nil {
					panic("workloads: " + a.Name + ": " + name + ": " + err.Error())
				}
				return d.Mean()
			}
		}
		return 0
	}
	out := []Payload{{"text", units.Bytes(float64(mean("prompt")*a.BytesPerToken.Value) + 0.5), "prompt x bytes_per_token"}}
	if n := float64(mean("images") * mean("image_tokens")); n > 0 {
		out = append(out, Payload{"image", units.Bytes(float64(n*a.BytesPerImageToken.Value) + 0.5), "images x image_tokens x bytes_per_image_token"})
	}
	if n := mean("sensor"); n > 0 {
		kind := a.SensorKind
		if kind == "" {
			kind = "sensor"
		}
		out = append(out, Payload{kind, units.Bytes(n + 0.5), "sensor"})
	}
	return out
}
