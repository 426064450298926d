// Package floor says how fast an answer could be at best: by the cost law of a
// device alone, without network, queue, batch or heat. What a latency budget
// leaves no room for, no placement, cache or scheduler can bring back.
//
//	fs, err := floor.Edge([]string{"llama-3.2-1b:q4_0"}, 1)
//	v := floor.Judge(fs, 10*time.Millisecond, 7)
//	fmt.Println(v.Sentence())
//
// The one idea: an autoregressive answer of n tokens takes the pass over the
// prompt and n-1 passes after it, one behind the other, and each reads all
// weights. It binds plain decoding: drafts that are verified together, exits
// before the last layer and heads that answer in one pass are not bounded by it.
//
// The floors are as good as the profiles: see Tier. They are no promise that a
// system reaches them.
package floor

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
)

// Floor is the fastest that a device can answer with a model.
type Floor struct {
	Device, Model string
	Parameters    int           // of the model
	Prompt        int           // tokens of the prompt
	First         time.Duration // to the first token
	Next          time.Duration // per token after it, at the shortest context
	Fits          bool          // the weights fit the device's memory
	Tier          string        // how well the law knows the pair: fitted, calibrated, microbenchmark or prior
}

// Of is the floor of a device and a model for prompts of some tokens, at least 1.
func Of(d *profiles.DeviceSheet, m *hardware.Model, prompt int) Floor {
	law, n := costmodel.NewLaw(d), max(prompt, 1)
	time := func(kind hardware.Kind, s hardware.Seq) time.Duration {
		return law.Time(&hardware.Op{Kind: kind, Model: m, Layers: m.All(), Seqs: []hardware.Seq{s}})
	}
	return Floor{Device: d.Name, Model: m.Name, Parameters: int(m.Params(m.All())), Prompt: n,
		First: time(hardware.Prefill, hardware.Seq{New: n}),
		Next:  time(hardware.Decode, hardware.Seq{Context: n, New: 1}),
		Fits:  float64(m.WeightBytes(m.All())) <= d.Memory.Value*d.MemoryShare.Value,
		Tier:  law.Tier(m)}
}

// Answer is the least time of an answer of n tokens, n >= 1.
func (f Floor) Answer(n int) time.Duration { return f.First + time.Duration(max(n, 1)-1)*f.Next }

// Tokens is the longest answer that fits a budget, 0 if not even one token does.
func (f Floor) Tokens(budget time.Duration) int {
	if f.First > budget {
		return 0
	}
	return 1 + int((budget-f.First)/max(f.Next, 1))
}

// Edge lists the floors of every device that a built-in site has on the user's
// side or at the edge, for each model by its profile name, for prompts of some
// tokens: by model in the order given, then by device name. Devices that only
// stand in clouds are left out; the network to them is another floor.
func Edge(models []string, prompt int) ([]Floor, error) {
	devices, err := edgeDevices()
	if err != nil {
		return nil, err
	}
	var out []Floor
	for _, name := range models {
		m, err := profiles.Model(name)
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			out = append(out, Of(d, m, prompt))
		}
	}
	return out, nil
}

func edgeDevices() ([]*profiles.DeviceSheet, error) {
	var names []string
	for _, s := range profiles.Sites() {
		site, err := profiles.Site(s)
		if err != nil {
			return nil, err
		}
		for _, p := range site.Nodes {
			if p.Role != hardware.CloudRole && p.Device != "" && p.Device != profiles.Host {
				names = append(names, p.Device)
			}
		}
	}
	slices.Sort(names)
	var out []*profiles.DeviceSheet
	for _, n := range slices.Compact(names) {
		d, err := profiles.Device(n)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// Verdict is what a budget leaves of an answer.
type Verdict struct {
	Budget   time.Duration
	Answer   int     // tokens wanted
	Pairs    int     // of device and model that were looked at: those whose weights fit
	Met      []Floor // that answer in time, fastest first
	Fastest  Floor   // of all pairs
	Smallest int     // parameters of the smallest model looked at
}

// Judge says which pairs can answer with so many tokens in time. Pairs whose
// weights do not fit are left out.
func Judge(fs []Floor, budget time.Duration, answer int) Verdict {
	v := Verdict{Budget: budget, Answer: answer}
	for _, f := range fs {
		if !f.Fits {
			continue
		}
		if v.Pairs++; v.Pairs == 1 || f.Answer(answer) < v.Fastest.Answer(answer) {
			v.Fastest = f
		}
		if v.Smallest == 0 || f.Parameters < v.Smallest {
			v.Smallest = f.Parameters
		}
		if f.Answer(answer) <= budget {
			v.Met = append(v.Met, f)
		}
	}
	slices.SortFunc(v.Met, func(a, b Floor) int {
		return cmp.Or(cmp.Compare(a.Answer(answer), b.Answer(answer)), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Model, b.Model))
	})
	return v
}

// Excluded reports whether no pair can.
func (v Verdict) Excluded() bool { return v.Pairs > 0 && len(v.Met) == 0 }

// Sentence says it with its numbers.
func (v Verdict) Sentence() string {
	if v.Pairs == 0 {
		return "No device holds any of these models."
	}
	f := v.Fastest
	best := fmt.Sprintf("%s with %s takes %s (first token %s, then %s each): %s fit",
		f.Device, f.Model, ms(f.Answer(v.Answer)), ms(f.First), ms(f.Next), tokens(f.Tokens(v.Budget)))
	what := fmt.Sprintf("an answer of %s in %s, prompt of %d, before any network or queue", tokens(v.Answer), ms(v.Budget), f.Prompt)
	if v.Excluded() {
		return fmt.Sprintf("None of %d pairs of edge device and model (from %.2g B parameters) can decode %s. The fastest, %s.", v.Pairs, float64(v.Smallest)/1e9, what, best)
	}
	return fmt.Sprintf("%d of %d pairs of edge device and model (from %.2g B parameters) can decode %s. The fastest, %s.", len(v.Met), v.Pairs, float64(v.Smallest)/1e9, what, best)
}

func tokens(n int) string {
	if n == 1 {
		return "1 token"
	}
	return fmt.Sprintf("%d tokens", n)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3g ms", d.Seconds()*1e3) }
