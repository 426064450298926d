// Package offload runs a model whose weights do not fit in memory: what is missing is read from the file while the layers
// before it compute.
//
//	s, err := offload.Open("model.gguf", offload.Options{Budget: 300 * units.MiB, Threads: 2})
//	defer s.Close()
//	cache, err := s.Model().NewCache(0, s.Model().Layers, 256)
//	answer, err := s.Generate(cache, prompt, 32, llm.Greedy)
//	fmt.Println(s.Plan().Streamed, s.Stats().Stall)
//
// # The one idea: a pass visits the weights in a fixed circle
//
// Every token needs every layer once, in the same order. For such a circle no replacement helps: the best that memory can
// do is to keep a fixed set (Belady's rule keeps one too), and the best that a reader can do is to run ahead. So the
// budget is dealt out once: the largest set of layers that fits stays (pinned), the rest goes through a ring of buffers
// that a second goroutine fills, wrapping from the last layer to the first of the next token. The head is cut into runs
// of rows no larger than a layer. All sequences of a batch pass a layer while it is there: one read serves them all, and
// with Options.Group a batch whose activations would not fit goes through each layer in groups (the zig-zag schedule of
// FlexGen, Sheng et al. 2023).
//
// Tensors are read in pieces of 1 MiB, around the page cache where the system can (see package storage), and packed into
// the very panels that a resident model has. Logits are those of a resident model bit for bit, for any budget.
//
// With Options.Experts a mixture keeps everything but its experts, and a cache of some experts per layer; see [Experts].
//
// What it does not do: offload keys and values, adapters, stores; choose between devices. Vectors (norms and biases) always
// stay. The budget bounds weights and staging; caches and activations come on top.
package offload

import (
	"fmt"
	"time"

	"meibench/internal/units"
	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/storage"
	"meibench/reference/tensor"
)

// Options are how a model is streamed.
type Options struct {
	Budget   units.Bytes  // of weights and staging in memory; 0 for no limit: everything stays once it was read
	Resident int          // if > 0: keep the first so many layers and nothing else, whatever Budget has room for
	Slots    int          // buffers of the ring; 0: two if they fit, else one, with which nothing overlaps
	Group    int          // sequences that pass a layer at once; 0 for all
	Threads  int          // that compute; 0 for one
	Mode     storage.Mode // how the file is read
	Experts  *ExpertOptions
}

// stage is the size of the pieces in which tensors are read.
const stage = 1 << 20

// Plan is how a budget was dealt out. Sizes are of weights as they lie in memory, but for File and PerPass.
type Plan struct {
	Units, Pinned       int         // layers and runs of head rows: all, and those that stay
	Kept, Ring, Vectors units.Bytes // pinned weights, the ring of buffers, norms and biases
	Staging             units.Bytes
	Experts             units.Bytes // room of the expert cache
	Slots               int
	File                units.Bytes // all matrices of layers and head, in the file
	PerPass             units.Bytes // what a pass reads once pinned weights are there, embedding rows and experts aside
	Least               units.Bytes // the smallest budget that would do
}

// Held is the memory that the plan takes.
func (p Plan) Held() units.Bytes { return p.Kept + p.Ring + p.Vectors + p.Staging + p.Experts }

// Stats are what happened since Open, or since ResetStats.
type Stats struct {
	Passes         int           // calls of Forward
	Bytes          units.Bytes   // read from the file, as asked for
	Moved          units.Bytes   // as moved: whole pages in direct mode
	Read, Pack     time.Duration // of the reading goroutines
	Stall, Compute time.Duration // of the computing one: waiting for weights, and all else
}

// StallShare is the part of the time of passes that was spent waiting for weights.
func (s Stats) StallShare() float64 {
	if all := s.Stall + s.Compute; all > 0 {
		return float64(s.Stall) / float64(all)
	}
	return 0
}

// Stream is an open model. It belongs to one goroutine.
type Stream struct {
	options Options
	reader  *storage.Reader
	file    *gguf.File
	model   *llm.Model // matrices of layers come and go
	head    *llm.Model // a run of rows of the head at a time
	units   []*unit
	plan    Plan
	embed   gguf.Tensor

	pool       *tensor.Pool
	work, last *llm.Work
	experts    *Experts
	ring       *ring
	stats      Stats
	before     [2]int64 // payload and moved at ResetStats
	indexBytes int64    // read by Open
	rows       *storage.Buffer
	logits     []float32
	failed     error
}

// Open reads the index and the vectors of a GGUF file, deals out the budget, and starts to read.
func Open(path string, o Options) (*Stream, error) {
	s := &Stream{options: o}
	if err := s.open(path); err != nil {
		s.Close()
		return nil, fmt.Errorf("stream model %s: %w", path, err)
	}
	return s, nil
}

func (s *Stream) open(path string) (err error) {
	o := &s.options
	if o.Budget < 0 || o.Resident < 0 || o.Slots < 0 || o.Group < 0 || o.Threads < 0 {
		return fmt.Errorf("budget %v, %d resident layers, %d slots, groups of %d, %d threads: want none below 0", o.Budget, o.Resident, o.Slots, o.Group, o.Threads)
	}
	if s.reader, err = storage.Open(path, o.Mode); err != nil {
		return err
	}
	if s.file, err = gguf.Read(s.reader, s.reader.Size); err != nil {
		return err
	}
	if s.model, err = llm.FromFile(s.file, llm.ReadOptions{Bare: true}); err != nil {
		return err
	}
	if err := s.cut(); err != nil {
		return err
	}
	if err := s.deal(); err != nil {
		return err
	}
	s.pool = tensor.NewPool(max(1, o.Threads))
	s.work, s.last = s.model.NewWorkOn(s.pool), s.head.NewWorkOn(s.pool)
	s.rows = storage.NewBuffer(s.rowBytes())
	if o.Experts != nil {
		s.experts.attach(s)
	}
	s.indexBytes = s.reader.Payload()
	s.ring = newRing(s)
	return nil
}

// Close ends the reading goroutines and closes the file.
func (s *Stream) Close() error {
	if s.ring != nil {
		s.ring.close()
	}
	if s.experts != nil {
		s.experts.close()
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.reader == nil {
		return nil
	}
	return s.reader.Close()
}

// Model is the configuration and the vectors; its matrices are there only while a pass uses them.
func (s *Stream) Model() *llm.Model { return s.model }

// Plan says how the budget was dealt out.
func (s *Stream) Plan() Plan { return s.plan }

// Mode is how the file is really read.
func (s *Stream) Mode() storage.Mode { return s.reader.Mode }

// Experts is the cache of experts, nil without Options.Experts.
func (s *Stream) Experts() *Experts { return s.experts }

// Stats says what happened so far. The reader runs ahead: its bytes may be those of the next pass.
func (s *Stream) Stats() Stats {
	st := s.stats
	st.Bytes, st.Moved = units.Bytes(s.reader.Payload()-s.before[0]), units.Bytes(s.reader.Moved()-s.before[1])
	st.Read, st.Pack = time.Duration(s.ring.read.Load()), time.Duration(s.ring.packed.Load())
	if s.experts != nil {
		st.Read += time.Duration(s.experts.read.Load())
		st.Pack += time.Duration(s.experts.packed.Load())
	}
	return st
}

// ResetStats begins to count anew, after a warm-up say.
func (s *Stream) ResetStats() {
	s.stats, s.before = Stats{}, [2]int64{s.reader.Payload(), s.reader.Moved()}
	s.ring.read.Store(0)
	s.ring.packed.Store(0)
	if s.experts != nil {
		s.experts.reset()
	}
}

// Generate appends up to most tokens that pick chooses to a prompt, as [llm.Work.Generate] does.
func (s *Stream) Generate(c *llm.Cache, prompt []int32, most int, pick func(logits []float32) int32) ([]int32, error) {
	seqs := []llm.Seq{{IDs: prompt, Cache: c}}
	var answer []int32
	for len(answer) < most {
		if err := s.Forward(seqs); err != nil {
			return answer, fmt.Errorf("generate token %d: %w", len(answer), err)
		}
		answer = append(answer, pick(seqs[0].Out))
		seqs[0].IDs = answer[len(answer)-1:]
	}
	return answer, nil
}
