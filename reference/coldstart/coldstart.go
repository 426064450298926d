// Package coldstart measures how long a model on storage takes until its first token, with the page cache empty of it and full.
//
//	rows, err := coldstart.Measure(path, coldstart.Options{Prompt: ids, Threads: 2, Partial: 4})
//	for _, r := range rows {
//		fmt.Println(r.Way, r.Start, r.FirstToken, r.Use.ReadBytes, r.Same)
//	}
//
// The one idea is to take the time apart where the engine really does: open (index), load (read, pack), prefill, one step of
// decode; and to say beside it what was in the page cache before and after (mincore), what the system fetched, and how many
// page faults it took. A start is called cold only if the cache held nothing of the file when it began.
//
// Ways are those that the engine has: the file read into memory and packed; mapped and packed; mapped and used as it is
// stored; streamed with everything kept, so that reading overlaps the prefill; and with only the first layers kept.
//
// What it does not do: start a new process for each row. Faults and memory are those of this process, between two readings;
// the garbage of the row before is given back first.
package coldstart

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/offload"
	"meibench/reference/storage"
)

// Options are what is measured.
type Options struct {
	Prompt  []int32
	Tokens  int // to generate, for the comparison of ways; 0 for 4
	Threads int // 0 for one
	Partial int // layers that way "partial" keeps; 0 for half
	Ways    []string
	// Progress, if there, is called before each row.
	Progress func(i, n int, name string)
}

// The ways to start, sorted.
const (
	Map     = "map"      // mapped, matrices used as the file stores them
	MapPack = "map+pack" // mapped, packed tensor by tensor: what the commands do
	Partial = "partial"  // the first layers kept, the rest read for every pass
	Read    = "read"     // the whole file read into memory, then packed
	Stream  = "stream"   // packed layer by layer while the prefill runs, all kept
)

// Ways lists them.
func Ways() []string { return []string{Map, MapPack, Partial, Read, Stream} }

// Row is one start. Times are of the wall clock; bytes that the system does not tell are storage.Unknown.
type Row struct {
	Way, Start string // Start: "cold" or "warm", as it was asked for

	HeldBefore, HeldAfter int64 // bytes of the file in the page cache
	FileBytes             int64
	CountedBytes          int64 // what the way itself counted as read; Unknown for mapped files, whose pages the system reads

	Open, Load, Prefill time.Duration // streams load during the prefill: their Load is 0
	FirstToken          time.Duration // Open + Load + Prefill: until the first token is chosen
	FirstDecode         time.Duration // the step for the second token
	Stall               time.Duration // of the prefill, waiting for storage; streams only

	Use    storage.Usage // faults and bytes until the first token, memory at the end of the start
	Answer []int32
	Same   bool // the answer and every logit of its steps are those of the first row
	exact  []float32
}

// Cold reports whether the cache is known to have held nothing of the file at the start.
func (r Row) Cold() bool { return r.HeldBefore == 0 }

// engine is a model that is ready for its first token.
type engine struct {
	model   *llm.Model
	forward func([]llm.Seq) error
	counted func() int64
	stall   func() time.Duration
	close   func()
}

// Measure starts a model in every way, cold and then warm. Where the system cannot empty its cache for the file, the rows of
// cold starts say by HeldBefore what it held. map has the bits of the others for float weights only: with quantised ones
// the packed engine rounds activations and the other does not, and Same says what came of it.
func Measure(path string, o Options) ([]Row, error) {
	if len(o.Prompt) == 0 || o.Tokens < 0 || o.Threads < 0 || o.Partial < 0 {
		return nil, fmt.Errorf("measure cold start: a prompt of %d tokens, %d to generate, %d threads, %d layers: want a prompt and nothing below 0", len(o.Prompt), o.Tokens, o.Threads, o.Partial)
	}
	o.Threads, o.Tokens = max(1, o.Threads), max(o.Tokens, 0)
	if o.Tokens == 0 {
		o.Tokens = 4
	}
	ways := o.Ways
	if ways == nil {
		ways = []string{MapPack, Read, Map, Stream, Partial}
	}
	var rows []Row
	for i, way := range ways {
		if !slices.Contains(Ways(), way) {
			return rows, fmt.Errorf("measure cold start: way %q: want one of %v", way, Ways())
		}
		for j, start := range []string{"cold", "warm"} {
			if o.Progress != nil {
				o.Progress(2*i+j, 2*len(ways), way+", "+start)
			}
			r, err := once(path, way, start, o)
			if err != nil {
				return rows, fmt.Errorf("start %s by %s, %s: %w", path, way, start, err)
			}
			r.Same = len(rows) == 0 || slices.Equal(r.Answer, rows[0].Answer) && slices.Equal(r.exact, rows[0].exact)
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// once measures one start.
func once(path, way, start string, o Options) (Row, error) {
	r := Row{Way: way, Start: start, HeldBefore: storage.Unknown, HeldAfter: storage.Unknown, CountedBytes: storage.Unknown}
	info, err := os.Stat(path)
	if err != nil {
		return r, err
	}
	r.FileBytes = info.Size()
	debug.FreeOSMemory()
	if start == "cold" {
		_ = storage.Evict(path) // HeldBefore says whether it worked
	} else if _, _, err := storage.Bandwidth(path, storage.Cached); err != nil {
		return r, err
	}
	if held, _, err := storage.Resident(path); err == nil {
		r.HeldBefore = held
	}
	storage.ResetPeak()
	before := storage.Used()
	began := time.Now()
	e, err := ready(path, way, o, func() { r.Open = time.Since(began) })
	if err != nil {
		return r, err
	}
	defer e.close()
	r.Load = time.Since(began) - r.Open
	c, err := e.model.NewCache(0, e.model.Layers, len(o.Prompt)+o.Tokens)
	if err != nil {
		return r, err
	}
	seqs := []llm.Seq{{IDs: o.Prompt, Cache: c}}
	for i := range o.Tokens {
		step := time.Now()
		if err := e.forward(seqs); err != nil {
			return r, err
		}
		r.Answer = append(r.Answer, llm.Greedy(seqs[0].Out))
		switch i {
		case 0:
			r.Prefill, r.FirstToken = time.Since(step), time.Since(began)
			r.Use, r.CountedBytes, r.Stall = storage.Used().Minus(before), e.counted(), e.stall()
		case 1:
			r.FirstDecode = time.Since(step)
		}
		r.exact = append(r.exact, seqs[0].Out...)
		seqs[0].IDs = r.Answer[i:]
	}
	if held, _, err := storage.Resident(path); err == nil {
		r.HeldAfter = held
	}
	return r, nil
}

// ready loads a model by a way; opened is called once the index is there.
func ready(path, way string, o Options, opened func()) (*engine, error) {
	switch way {
	case Stream, Partial:
		return streaming(path, way, o, opened)
	case Read:
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		f, err := gguf.Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return nil, err
		}
		m, err := llm.FromFile(f, llm.ReadOptions{})
		opened()
		if err == nil {
			err = m.Pack(o.Threads)
		}
		return loaded(m, o, int64(len(data)), err)
	}
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	opened()
	m, err := llm.OpenFile(f, llm.ReadOptions{Unpacked: way == Map, Threads: o.Threads})
	if err != nil {
		f.Close()
	}
	return loaded(m, o, storage.Unknown, err)
}

func loaded(m *llm.Model, o Options, counted int64, err error) (*engine, error) {
	if err != nil {
		return nil, err
	}
	w := m.NewWork(o.Threads)
	return &engine{
		model:   m,
		forward: func(s []llm.Seq) error { return w.Forward(0, m.Layers, s) },
		counted: func() int64 { return counted },
		stall:   func() time.Duration { return 0 },
		close:   func() { w.Close(); m.Close() },
	}, nil
}

// streaming reads through the page cache like the other ways, so that a warm start is one.
func streaming(path, way string, o Options, opened func()) (*engine, error) {
	so := offload.Options{Threads: o.Threads, Mode: storage.Cached}
	if way == Partial {
		so.Resident = o.Partial
		if so.Resident == 0 {
			f, err := gguf.Open(path)
			if err != nil {
				return nil, err
			}
			c, err := llm.ReadConfig(f)
			f.Close()
			if err != nil {
				return nil, err
			}
			so.Resident = max(1, c.Layers/2)
		}
	}
	s, err := offload.Open(path, so)
	if err != nil {
		return nil, err
	}
	opened()
	return &engine{
		model: s.Model(), forward: s.Forward,
		counted: func() int64 { return int64(s.Stats().Bytes) },
		stall:   func() time.Duration { return s.Stats().Stall },
		close:   func() { s.Close() },
	}, nil
}
