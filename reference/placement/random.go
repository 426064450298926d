package placement

import (
	"fmt"
	"math"

	"meibench/internal/portable"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/library"
)

// Setting is a random network in the geometry of TrimCaching's simulations. The values of Paper are recalled, not read in the
// paper: assumed.
type Setting struct {
	Servers, Users int
	Side, Radius   float64 // m: of the square, of coverage
	Bandwidth      float64 // Hz of a server, which its users share
	Active         float64 // share of them that receive at a time
	Power, Noise   float64 // dBm; dBm/Hz
	Exponent       float64 // of path loss
	Hop            float64 // bytes per second between servers
	Fast, Slow     float64 // s: deadlines are uniform between them
	Zipf           float64
	Room           units.Bytes // of each server
}

// Paper is the set-up of arXiv 2405.03990 as far as it is recalled (assumed): 1 km², 10 servers, 30 users, 275 m, 400 MHz,
// 43 dBm, exponent 4, 10 Gbit/s between servers, 0.5 to 1 s.
func Paper(room units.Bytes) Setting {
	return Setting{Servers: 10, Users: 30, Side: 1000, Radius: 275, Bandwidth: 400e6, Active: 0.5, Power: 43, Noise: -174, Exponent: 4, Hop: 1.25e9,
		Fast: 0.5, Slow: 1, Zipf: 0.8, Room: room}
}

// Random is an instance of a setting: servers and users are spread uniformly, each user ranks the models in an order of its own.
func Random(lib *library.Library, c Setting, seed uint64) (*Instance, error) {
	if c.Servers < 1 || c.Users < 1 || !(c.Side > 0) || !(c.Radius > 0) || !(c.Bandwidth > 0) || !(c.Active > 0) || !(c.Slow >= c.Fast) {
		return nil, fmt.Errorf("random network: impossible setting %+v", c)
	}
	luck := rng.Stream(seed, "network")
	in := &Instance{Lib: lib, Hop: c.Hop, Room: make([]units.Bytes, c.Servers), Users: make([]User, c.Users)}
	place := func() (x, y float64) { return float64(c.Side * rng.Float64(luck)), float64(c.Side * rng.Float64(luck)) }
	xs, ys, load := make([]float64, c.Servers), make([]float64, c.Servers), make([]float64, c.Servers)
	for m := range in.Room {
		in.Room[m] = c.Room
		xs[m], ys[m] = place()
	}
	type link struct {
		user, server int
		d2           float64
	}
	var links []link
	for k := range in.Users {
		x, y := place()
		for m := range in.Room {
			dx, dy := x-xs[m], y-ys[m]
			if d2 := float64(dx*dx) + float64(dy*dy); d2 <= float64(c.Radius*c.Radius) {
				links = append(links, link{k, m, max(1, d2)})
				load[m]++
			}
		}
	}
	for _, l := range links {
		hz := c.Bandwidth / max(1, float64(c.Active*load[l.server]))
		db := c.Power - float64(5*c.Exponent)*portable.Log(l.d2)/math.Ln10 - c.Noise - 10*portable.Log(c.Bandwidth)/math.Ln10
		rate := float64(hz*portable.Log(1+portable.Exp(db*math.Ln10/10))) / math.Ln2 / 8
		in.Users[l.user].Covers = append(in.Users[l.user].Covers, Cover{l.server, rate})
	}
	weights := library.Popularity{S: c.Zipf}.Weights(len(lib.Models))
	for k := range in.Users {
		u := &in.Users[k]
		u.Deadline = c.Fast + float64((c.Slow-c.Fast)*rng.Float64(luck))
		u.Wants = make([]float32, len(weights))
		for r, i := range luck.Perm(len(weights)) {
			u.Wants[i] = float32(weights[r])
		}
	}
	return in, in.Check()
}

// ResNets is a library of fine-tuned image networks as in the paper's simulations: so many of each of three backbones, of which
// each keeps the lowest 60 to 90 % (by bytes; the range is assumed) frozen, in twenty steps. Sizes are 4 bytes for each of the
// 11.7, 21.8 and 25.6 million parameters of torchvision's ResNet-18, -34 and -50.
func ResNets(each int, seed uint64) (*library.Library, error) {
	l := &library.Library{Name: fmt.Sprintf("%d fine-tunes of each of three ResNets", each), Source: "after arXiv 2405.03990"}
	luck := rng.Stream(seed, "resnets")
	const cuts = 20
	for b, size := range []units.Bytes{46_800_000, 87_200_000, 102_400_000} {
		deepest := 0
		var keeps []int
		for range each {
			keeps = append(keeps, 12+luck.IntN(7)) // of 20
			deepest = max(deepest, keeps[len(keeps)-1])
		}
		first := len(l.Blocks)
		for j := range deepest {
			l.Blocks = append(l.Blocks, library.Block{Name: fmt.Sprintf("backbone %d, part %d", b+1, j+1), Bytes: size / cuts, Lo: j, Hi: j + 1})
		}
		for i, keep := range keeps {
			m := library.Model{Name: fmt.Sprintf("backbone %d, fine-tune %d", b+1, i+1), Family: fmt.Sprint("backbone ", b+1)}
			for j := range keep {
				m.Blocks = append(m.Blocks, first+j)
			}
			l.Blocks = append(l.Blocks, library.Block{Name: m.Name, Bytes: size / cuts * units.Bytes(cuts-keep), Lo: keep, Hi: cuts})
			m.Blocks = append(m.Blocks, len(l.Blocks)-1)
			l.Models = append(l.Models, m)
		}
	}
	return l, l.Check()
}
