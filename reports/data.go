package reports

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/harness/stats"
	"meibench/internal/radix"
)

// Data is what a report is made of: runs and, per cell, the columns that tables
// and figures need: 32 bytes a request, and 8 more for a score.
type Data struct {
	Runs   []Run
	Groups []*Group

	at map[string]*Group
}

// Run is one run folder.
type Run struct {
	Label    string // short; distinguishes the runs of a report
	Dir      string
	Manifest results.Manifest
	Plan     bool // the folder keeps the plan, from which a cell can be run again

	question string            // of the suite
	parts    map[string]string // what its parts ask
}

// Group is one cell of a suite with all its repeats and seeds pooled.
type Group struct {
	Run   int           // index in Data.Runs
	Cell  record.Cell   // of the first repeat
	Cells []record.Cell // one per repeat and seed

	Values [][]record.Value // per repeat: the run's metrics as its folder has them; none where rows came from elsewhere

	N        int // requests
	Good     int // OK and within all limits
	Outcomes [record.Cancelled + 1]int
	Offered  time.Duration // summed horizons

	TTFT, TPOT, E2E []float64 // seconds, of OK requests
	// Delivery and Usable are how long models took to come, whole and as far as they answer; of OK requests that asked for one, s.
	Delivery, Usable []float64
	Tau              float64 // so many successive requests are worth one independent one

	Up, Down     float64 // bytes, of all requests
	Raw, Derived float64 // bytes that left the device: user data, and what was computed from it
	Tokens       int     // of all answers
	Counts       [record.NumCounters]int64
	answers      []answers // of all requests, repeat by repeat
	Energy       [record.NumParts]PartEnergy
	Quality      Score
	Rounds       [][]Round      // repeat by repeat, of cells that train: their requests are rounds
	Places       *record.Places // of the first repeat, where a site has several edge nodes that users move between; else nil
	Errors       []tally        // a few kinds

	ended   []ending                                   // the first requests of the first repeat that ended well, by ID
	fetch   func(id int, each func(record.Span)) error // streams the spans of one of them
	sampled *Sample                                    // what fetch gave

	next    int  // requests that the next repeat is expected to have
	dark    bool // energy of some request is unknown
	repeats [][numFigures]float64
}

// ending is when a request began and ended.
type ending struct {
	id                     int
	intended, first, total time.Duration // first counts from the intended start; Unset = no token
}

// Figures that are kept per repeat: those of quantiles, in their order, then the
// share within limits.
const (
	ttft50 = iota
	ttft95
	tpot50
	e2e50
	e2e95
	e2e99
	withinShare
	numFigures
)

// pQuantile is a quantile that reports print.
type pQuantile struct {
	of func(*Group) *[]float64
	p  float64
}

func quantiles() [withinShare]pQuantile {
	ttft := func(g *Group) *[]float64 { return &g.TTFT }
	tpot := func(g *Group) *[]float64 { return &g.TPOT }
	e2e := func(g *Group) *[]float64 { return &g.E2E }
	return [...]pQuantile{{ttft, 0.5}, {ttft, 0.95}, {tpot, 0.5}, {e2e, 0.5}, {e2e, 0.95}, {e2e, 0.99}}
}

// Answer is what a request came to, to be joined with those of other groups: cells
// of one workload and seed ask the same under the same ID.
type Answer struct {
	Seed    uint64
	ID      int
	E2E     float64 // seconds; NaN unless it ended well
	Quality float64 // NaN if unscored
	Depth   float64 // share of the layers that ran; NaN if the pipeline does not count them
}

// answers are those of one repeat by column. What all requests of a repeat lack
// takes no room, and neither do IDs that count from 0.
type answers struct {
	seed                uint64
	e2e, quality, depth []float64
	ids                 []int
}

func (a *answers) add(r *record.Request) {
	n := len(a.e2e)
	a.e2e = append(a.e2e, took(r))
	a.quality = column(a.quality, n, r.Quality)
	a.depth = column(a.depth, n, float64(r.Counts[record.LayersRun])/float64(r.Counts[record.LayersFull]))
	if a.ids == nil && r.ID != n {
		for i := range n {
			a.ids = append(a.ids, i)
		}
	}
	if a.ids != nil || r.ID != n {
		a.ids = append(a.ids, r.ID)
	}
}

// column appends the value of row n; a column of NaN alone is nil.
func column(list []float64, n int, v float64) []float64 {
	if list == nil {
		if math.IsNaN(v) {
			return nil
		}
		for range n {
			list = append(list, math.NaN())
		}
	}
	return append(list, v)
}

// Answers are those of all requests of the group, repeat by repeat.
func (g *Group) Answers() iter.Seq[Answer] {
	return func(yield func(Answer) bool) {
		for k := range g.answers {
			a := &g.answers[k]
			for i, e2e := range a.e2e {
				out := Answer{a.seed, i, e2e, math.NaN(), math.NaN()}
				if a.ids != nil {
					out.ID = a.ids[i]
				}
				if a.quality != nil {
					out.Quality = a.quality[i]
				}
				if a.depth != nil {
					out.Depth = a.depth[i]
				}
				if !yield(out) {
					return
				}
			}
		}
	}
}

// Round is a request of a cell that trains: what it took, and what had been learned when it ended.
type Round struct {
	Took, Up, Down float64 // seconds; bytes over users' links
	Joules         float64 // of all parts; NaN if some are not known
	Source         uint8   // hardware.Source of the joules, the least trusted one
	Right, Loss    float64 // held-out questions right after it: share answered right, nats per token; NaN where none were asked
	OK             bool
}

func roundOf(r *record.Request) Round {
	one := &Group{}
	one.addEnergy(r)
	out := Round{Took: (r.Done - r.Intended).Seconds(), Up: float64(r.UpBytes), Down: float64(r.DownBytes), Right: r.Quality, Loss: math.NaN(), OK: r.Outcome == record.OK}
	if out.Joules, out.Source = one.joules(); r.Counts[record.HeldLossMicro] > 0 {
		out.Loss = float64(r.Counts[record.HeldLossMicro]) / 1e6
	}
	return out
}

// Trains reports whether the group's requests are rounds of training: what serving is judged by says nothing of them.
func (g *Group) Trains() bool { return len(g.Rounds) > 0 }

// Serving is the data without cells that train; d itself where there are none.
func (d *Data) Serving() *Data {
	gs := Where(d.Groups, func(g *Group) bool { return !g.Trains() })
	if len(gs) == len(d.Groups) {
		return d
	}
	return &Data{Runs: d.Runs, Groups: gs, at: map[string]*Group{}}
}

// PartEnergy is what one part of the system spent on all requests of a group.
type PartEnergy struct {
	Joules  float64
	Source  uint8 // hardware.Source; the least trusted one; 0 = not involved
	Unknown bool
}

// Score sums task scores.
type Score struct {
	N   int
	Sum float64
}

const (
	mostEnded  = 1 << 14 // requests of a group among which one is looked for to be drawn
	mostSpans  = 1 << 17 // of a sample
	mostErrors = 3       // kinds of errors that warnings quote
	mostKinds  = 16      // kinds of errors kept per group
	mostName   = 80      // runes of a name that reports print
	mostText   = 300     // runes of a reason or an error
)

// NewData is a report's data without any run.
func NewData() *Data { return &Data{at: map[string]*Group{}} }

// AddRun takes in a run's manifest and returns the index that Add wants.
func (d *Data) AddRun(label, dir string, m results.Manifest) int {
	run := Run{Label: clean(label, mostName), Dir: dir, Manifest: m}
	run.question, run.parts = questions(m.Suite)
	d.Runs = append(d.Runs, run)
	return len(d.Runs) - 1
}

// Add takes in one run of a cell with its requests in order of ID. It stops at
// the first error of the stream. It keeps two times of each request; Build
// streams the rows once more, for the spans of the one request that it draws.
func (d *Data) Add(run int, c record.Cell, rows iter.Seq2[*record.Request, error]) error {
	g := d.group(run, cleanCell(c))
	g.Cells = append(g.Cells, cleanCell(c))
	g.Offered += c.Horizon
	g.answers = append(g.answers, answers{seed: c.Seed, e2e: make([]float64, 0, g.next)})
	g.next = 0
	if c.Trains() {
		g.Rounds = append(g.Rounds, nil)
	}
	before := mark{len(g.TTFT), len(g.TPOT), len(g.E2E), g.N, g.Good}
	for r, err := range rows {
		if err != nil {
			return err
		}
		g.add(&c, r)
	}
	g.closeRepeat(before)
	if len(g.Cells) == 1 {
		g.fetch = func(id int, each func(record.Span)) error { return spansOf(rows, id, each) }
	}
	return nil
}

// mark is how much a group held before a repeat.
type mark struct{ ttft, tpot, e2e, n, good int }

const (
	enoughRepeats = 6  // from here on the unit of inference is the repeat
	leastForTau   = 40 // stats.Tau cannot tell anything of fewer requests
	mostForTau    = 1 << 20
	clearTau      = 3 // independent requests stay below it 19 times in 20
)

// closeRepeat works out what a repeat says on its own. Its requests are still in
// order of their intended starts, which stats.Tau needs; afterwards they are
// sorted by value.
func (g *Group) closeRepeat(before mark) {
	parts := [...][]float64{g.TTFT[before.ttft:], g.TPOT[before.tpot:], g.E2E[before.e2e:]}
	for _, part := range parts {
		if len(part) < leastForTau {
			slices.Sort(part)
			continue
		}
		inOrder, scratch := slices.Clone(part), make([]float64, len(part))
		radix.Sort(part, scratch)
		sorted := part
		if len(part) > mostForTau {
			inOrder, sorted = inOrder[:mostForTau], slices.Clone(inOrder[:mostForTau])
			radix.Sort(sorted, scratch)
		}
		if tau := stats.TauOf(inOrder, sorted, 0.95); tau > clearTau {
			g.Tau = max(g.Tau, tau)
		}
	}
	var rep [numFigures]float64
	for i, of := range [...]int{0, 0, 1, 2, 2, 2} {
		rep[i] = record.Quantile(parts[of], quantiles()[i].p)
	}
	n, good := float64(g.N-before.n), float64(g.Good-before.good)
	rep[withinShare] = good / n
	g.repeats = append(g.repeats, rep)
}

// expect makes room for so many requests more, within reason: the number comes
// from a file.
func (g *Group) expect(n int) {
	n = min(max(n, 0), 1<<24)
	for _, list := range []*[]float64{&g.TTFT, &g.TPOT, &g.E2E} {
		*list = slices.Grow(*list, n)
	}
	g.next = n
}

// Holds reports whether a cell as its run folder has it is one of the group's.
func (g *Group) Holds(c *record.Cell) bool {
	return keyOf(g.Run, cleanCell(*c)) == keyOf(g.Run, g.Cell)
}

func keyOf(run int, c record.Cell) string {
	return strings.Join([]string{strconv.Itoa(run), c.Suite, c.Name, c.App, c.Pipeline, c.Site, c.Model, c.Mode, paramText(c.Params)}, "\x00")
}

// group finds the group of a clean cell or makes it.
func (d *Data) group(run int, c record.Cell) *Group {
	key := keyOf(run, c)
	g := d.at[key]
	if g == nil {
		g = &Group{Run: run, Cell: c, Tau: 1}
		d.at[key] = g
		d.Groups = append(d.Groups, g)
	}
	return g
}

// place keeps what is shown of where and when requests were served.
func (g *Group) place(c *record.Cell, r *record.Request) {
	if len(g.Cells) > 1 || r.Counts[record.Place] == 0 && g.Places == nil {
		return
	}
	if g.Places == nil {
		g.Places = record.NewPlaces(c)
	}
	g.Places.Add(r)
}

func (g *Group) add(c *record.Cell, r *record.Request) {
	g.N++
	g.Outcomes[min(r.Outcome, record.Cancelled)]++
	if c.Good(r) {
		g.Good++
	}
	g.Up, g.Down = g.Up+float64(r.UpBytes), g.Down+float64(r.DownBytes)
	g.Raw, g.Derived = g.Raw+float64(r.RawBytesOut), g.Derived+float64(r.DerivedBytesOut)
	for i, n := range r.Counts {
		g.Counts[i] += n
	}
	g.place(c, r)
	for len(g.Rounds) < len(g.Cells) && r.Counts[record.Participants] > 0 {
		g.Rounds = append(g.Rounds, nil)
	}
	if n := len(g.Rounds); n > 0 && n == len(g.Cells) {
		g.Rounds[n-1] = append(g.Rounds[n-1], roundOf(r))
	}
	g.answers[len(g.answers)-1].add(r)
	g.Tokens += r.OutputTokens
	g.addEnergy(r)
	if !math.IsNaN(r.Quality) {
		g.Quality.N++
		g.Quality.Sum += r.Quality
	}
	if r.Err != "" {
		if errs := merge(g.Errors, tally{clean(r.Err, mostText), 1, false}); len(errs) <= mostKinds {
			g.Errors = errs
		}
	}
	if r.Outcome == record.OK {
		keep(&g.TTFT, r.FirstToken, r.Intended)
		keep(&g.E2E, r.Done, r.Intended)
		if v := record.TPOTOf(r); !math.IsNaN(v) {
			g.TPOT = append(g.TPOT, v)
		}
		if d := r.Counts[record.DeliveryTime]; d > 0 {
			g.Delivery = append(g.Delivery, time.Duration(d-1).Seconds()) // a nanosecond stands for no time
			g.Usable = append(g.Usable, time.Duration(r.Counts[record.UsableTime]-1).Seconds())
		}
	}
	if len(g.Cells) == 1 && len(g.ended) < mostEnded && r.Outcome == record.OK && r.Done > r.Intended {
		b := ending{r.ID, r.Intended, record.Unset, r.Done - r.Intended}
		if r.FirstToken != record.Unset {
			b.first = r.FirstToken - r.Intended
		}
		g.ended = append(g.ended, b)
	}
}

// took is how long a request took, in seconds; NaN unless it ended well.
func took(r *record.Request) float64 {
	if r.Outcome != record.OK {
		return math.NaN()
	}
	return (r.Done - r.Intended).Seconds()
}

func keep(list *[]float64, at, from time.Duration) {
	if at != record.Unset {
		*list = append(*list, (at - from).Seconds())
	}
}

// addEnergy follows the definition of energy_per_request: a step that could not
// tell makes the part and the sum unknown.
func (g *Group) addEnergy(r *record.Request) {
	for p := range r.Energy {
		e, to := r.Energy[p], &g.Energy[p]
		switch {
		case e.Unknown:
			to.Unknown, g.dark = true, true
		case e.Known():
			to.Joules += float64(e.Joules)
			if to.Source == 0 || e.Source < to.Source {
				to.Source = e.Source
			}
		}
	}
}

// seal sorts the samples over repeats. Build calls it; twice does no harm.
func (d *Data) seal() {
	for _, g := range d.Groups {
		slices.Sort(g.Delivery)
		slices.Sort(g.Usable)
		if len(g.Cells) < 2 {
			continue
		}
		for _, list := range [][]float64{g.TTFT, g.TPOT, g.E2E} {
			radix.Sort(list, make([]float64, len(list)))
		}
	}
	slices.SortStableFunc(d.Groups, func(a, b *Group) int {
		return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.Cell.Index, b.Cell.Index))
	})
}

// joules is the energy of all requests of a group, NaN if unknown, and its least
// trusted source.
func (g *Group) joules() (sum float64, source uint8) {
	if g.dark {
		return math.NaN(), 0
	}
	for _, e := range g.Energy {
		if e.Source != 0 {
			sum += e.Joules
			if source == 0 || e.Source < source {
				source = e.Source
			}
		}
	}
	if source == 0 {
		return math.NaN(), 0
	}
	return sum, source
}

// invalid lists why runs of the group are not to be trusted, each reason once.
func (g *Group) invalid() (why []string) {
	for i := range g.Cells {
		if c := &g.Cells[i]; !c.Valid {
			reasons := c.Invalid
			if len(reasons) == 0 {
				reasons = []string{"no reason recorded"}
			}
			for _, r := range reasons {
				if r = roundTimes(r); !slices.Contains(why, r) {
					why = append(why, r)
				}
			}
		}
	}
	return why
}

// overloaded reports whether the queue of some run grew until its end: its
// latencies say more of the run's length than of the placement.
func (g *Group) overloaded() bool {
	return slices.ContainsFunc(g.Cells, func(c record.Cell) bool {
		return slices.ContainsFunc(c.Warnings, func(w string) bool { return strings.HasPrefix(w, "overloaded:") })
	})
}
