package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progress is one status line on a terminal, or a plain line every ten seconds
// where nobody watches.
//
// Note: two progress-bar libraries were tried. One prints nothing unless it has
// a terminal, the other writes kilobytes of carriage returns into a log.
type progress struct {
	mu       sync.Mutex
	w        io.Writer
	tty      bool
	began    time.Time
	shown    time.Time
	cell     string
	i, n     int
	done     int
	of       int
	estimate func(i int, share float64) time.Duration // time left
	width    int
}

const (
	ttyEvery   = 100 * time.Millisecond
	plainEvery = 10 * time.Second
)

func newProgress(w io.Writer, quiet bool) *progress {
	p := &progress{w: w, began: time.Now()}
	if quiet {
		p.w = io.Discard
	}
	if f, ok := w.(*os.File); ok && !quiet && os.Getenv("CI") == "" && os.Getenv("TERM") != "dumb" {
		if info, err := f.Stat(); err == nil {
			p.tty = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

// Cell says that cell i of n begins.
func (p *progress) Cell(i, n int, name string, requests int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.i, p.n, p.cell, p.done, p.of = i, n, name, 0, requests
	p.show(false)
}

// Request says that done requests of the cell are over.
func (p *progress) Request(done int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = done
	p.show(false)
}

// Note prints a line that stays.
func (p *progress) Note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// Close removes the status line.
func (p *progress) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.tty && p.width > 0 {
		fmt.Fprintf(p.w, "\r%*s\r", p.width, "")
		p.width = 0
	}
}

func (p *progress) show(force bool) {
	now := time.Now()
	every := plainEvery
	if p.tty {
		every = ttyEvery
	}
	if !force && now.Sub(p.shown) < every {
		return
	}
	p.shown = now
	line := fmt.Sprintf("[%d/%d] %s", p.i+1, p.n, p.cell)
	share := 0.0
	if p.of > 0 {
		share = float64(p.done) / float64(p.of)
		line += fmt.Sprintf("  %d/%d requests", p.done, p.of)
	}
	line += fmt.Sprintf("  %s", now.Sub(p.began).Round(time.Second))
	if p.estimate != nil {
		if left := p.estimate(p.i, share); left > 0 {
			line += fmt.Sprintf(", about %s left", left.Round(time.Second))
		}
	}
	if !p.tty {
		fmt.Fprintln(p.w, line)
		return
	}
	p.clear()
	fmt.Fprint(p.w, line)
	p.width = len(line)
}
