package flash

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"

	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/sparse"
)

// Study is what is measured on this machine: one model in several ways.
type Study struct {
	Model   string             // its file
	Dir     string             // where files of its neurons are written; the caller removes it
	Rule    func() sparse.Rule // of the sparse ways
	Keep    float64            // share of the neurons that it keeps
	Counts  [][]int            // how often each neuron was active on a calibration text, see sparse.Samples
	Window  int                // tokens
	Budgets []float64          // shares of the neurons that memory holds
	Texts   [][]int32          // the first one warms up
	Tokens  int                // to run behind it, one at a time
	Threads int                // that compute
	Readers int                // reads at a time
	// Progress, if there, is called before each row.
	Progress func(i, n int, name string)
}

// Row is one way of running.
type Row struct {
	Way      string  `json:"way"`
	Layout   string  `json:"layout"`
	Room     int64   `json:"neuron_memory_bytes"`
	Peak     int64   `json:"neuron_memory_used_bytes"` // at most
	Tokens   int     `json:"tokens"`
	PerToken float64 `json:"bytes_per_token"`
	Moved    float64 `json:"moved_bytes_per_token"` // in whole pages
	Reads    float64 `json:"reads_per_token"`
	Hits     float64 `json:"hit_ratio"`
	PerSec   float64 `json:"tokens_per_s"`
	StallSec float64 `json:"stall_s_per_token"`
	Same     bool    `json:"same"` // logits are those of the first row with this rule, bit for bit
	Refused  string  `json:"refused,omitempty"`
}

// way is a row to be.
type way struct {
	name   string
	layout Layout
	sparse bool
	o      Options
	err    error
}

// Measure writes the model's neurons in both layouts and runs the ways: every neuron read for each token; every neuron kept;
// by the rule, with rows apart, with a window, with bundles; with the hot half in place of the window; and by the rule within
// each budget, once as a window without end, once as hot neurons.
func (s Study) Measure() ([]Row, error) {
	if len(s.Texts) < 2 || s.Tokens < 1 {
		return nil, fmt.Errorf("measure neurons in storage: %d texts, %d tokens: want two, to warm up and to measure, and 1 or more", len(s.Texts), s.Tokens)
	}
	paths, err := s.write()
	if err != nil {
		return nil, fmt.Errorf("measure neurons in storage: %w", err)
	}
	ways := s.ways()
	rows := make([]Row, len(ways))
	var first [2]uint64 // hash of the logits, dense and sparse
	for i, w := range ways {
		if s.Progress != nil {
			s.Progress(i, len(ways), w.name)
		}
		rows[i] = Row{Way: w.name, Layout: w.layout.String()}
		hash, err := s.run(&rows[i], paths[w.layout], w)
		if err != nil {
			rows[i].Refused = err.Error()
			continue
		}
		kind := 0
		if w.sparse {
			kind = 1
		}
		if first[kind] == 0 {
			first[kind] = hash
		}
		rows[i].Same = hash == first[kind]
	}
	return rows, nil
}

func (s Study) write() (paths [2]string, err error) {
	m, err := llm.Open(s.Model, llm.ReadOptions{Unpacked: true})
	if err != nil {
		return paths, err
	}
	defer m.Close()
	for _, layout := range []Layout{Bundled, Apart} {
		paths[layout] = filepath.Join(s.Dir, layout.String()+".neurons")
		f, err := os.Create(paths[layout])
		if err != nil {
			return paths, err
		}
		err = Write(f, m, layout)
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			return paths, err
		}
	}
	return paths, nil
}

func (s Study) ways() []way {
	all := make([][]bool, len(s.Counts))
	total := 0
	for l, row := range s.Counts {
		all[l] = make([]bool, len(row))
		sparse.All(l, nil, nil, nil, all[l])
		total += len(row)
	}
	ways := []way{
		{name: "all read", o: Options{}},
		{name: "all kept", o: Options{Hot: all}},
		{name: "predictor", layout: Apart, sparse: true},
		{name: "+ window", layout: Apart, sparse: true, o: Options{Window: s.Window}},
		{name: "+ bundles", sparse: true, o: Options{Window: s.Window}},
		s.hot("hot half + bundles", total/2, Options{}),
	}
	for _, share := range s.Budgets {
		size, err := s.neuronBytes()
		budget := units.Bytes(share * float64(int64(total)*size))
		window := way{name: fmt.Sprintf("%.0f %% as a window", 100*share), sparse: true, o: Options{Window: Forever, Budget: budget}, err: err}
		idle := 0
		for _, row := range s.Counts {
			idle += sparse.Count(s.Keep, len(row)) // room for neurons on their way through
		}
		n := int(share*float64(total)) - idle
		hot := s.hot(fmt.Sprintf("%.0f %% mostly hot", 100*share), max(0, n), Options{Budget: budget})
		if n < 0 {
			hot.err = fmt.Errorf("%.0f %% of the neurons: those of one token take %.0f %%: want that at least", 100*share, 100*float64(idle)/float64(max(1, total)))
		}
		ways = append(ways, window, hot)
	}
	return ways
}

// neuronBytes is the size of a neuron in the file.
func (s Study) neuronBytes() (int64, error) {
	m, err := llm.Open(s.Model, llm.ReadOptions{Unpacked: true})
	if err != nil {
		return 0, err
	}
	defer m.Close()
	row, err := TypeOf(m.Blocks[0].Up.Type).RowBytes(m.Dim)
	return int64(parts * row), err
}

// hot keeps the n neurons that were active most often.
func (s Study) hot(name string, n int, o Options) way {
	hot, err := sparse.Hot(s.Counts, nil, n)
	o.Hot = hot
	return way{name: name, sparse: true, o: o, err: err}
}

// run fills a row and returns the hash of all logits.
func (s Study) run(row *Row, neurons string, w way) (uint64, error) {
	if w.err != nil {
		return 0, w.err
	}
	o := w.o
	o.Threads, o.Readers = s.Threads, s.Readers
	if w.sparse {
		o.Rule = s.Rule()
	}
	r, err := Open(s.Model, neurons, o)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	sum, left := fnv.New64a(), s.Tokens
	for i, ids := range s.Texts {
		if i == 1 {
			r.ResetStats()
		}
		n := min(len(ids), r.Model().Context)
		if i > 0 {
			n = min(n, left)
			left -= n
		}
		if n == 0 {
			continue
		}
		c, err := r.Model().NewCache(0, r.Model().Layers, n)
		if err != nil {
			return 0, err
		}
		for t := range n {
			q := llm.Seq{IDs: ids[t : t+1], Cache: c}
			if err := r.Forward(&q); err != nil {
				return 0, err
			}
			for _, v := range q.Out {
				var b [4]byte
				binary.LittleEndian.PutUint32(b[:], math.Float32bits(v))
				sum.Write(b[:])
			}
		}
	}
	st := r.Stats()
	_, room := r.Held()
	tokens := float64(max(1, st.Tokens))
	row.Room, row.Peak, row.Tokens, row.PerToken, row.Moved, row.Reads = int64(room), int64(r.Peak()), st.Tokens, st.PerToken(), float64(st.Moved)/tokens, float64(st.Reads)/tokens
	row.Hits, row.PerSec, row.StallSec = st.HitRatio(), tokens/(st.Stall+st.Compute).Seconds(), st.Stall.Seconds()/tokens
	return sum.Sum64(), nil
}
