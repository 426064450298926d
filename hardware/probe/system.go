package probe

import (
	"errors"
	"io"
	"net"
	"time"

	"meibench/hardware/world"
)

// timers finds how late the two ways of waiting come back: the plain sleep that
// programs use, and the sleep-and-spin that paces a measured run.
func (p *prober) timers() {
	n := 30
	if !p.o.Quick {
		n = 300
	}
	const ask = time.Millisecond
	var slept, paced []float64
	for range n {
		began := time.Now()
		time.Sleep(ask)
		slept = append(slept, (time.Since(began) - ask).Seconds())
	}
	w := world.NewReal(p.ctx)
	w.Go("pace", func() {
		for range n {
			paced = append(paced, w.SleepUntil(w.Now()+ask).Seconds())
		}
	})
	_ = w.Run() // cancelled: the figure has the trials so far
	p.figures = append(p.figures,
		Figure{Name: SleepLate, Unit: "s", Method: "time.Sleep of 1 ms, median lateness"}.typical(slept),
		Figure{Name: PaceLate, Unit: "s", Method: "world.Real.SleepUntil 1 ms ahead, median lateness"}.typical(paced))
}

// loopback finds what a message between two processes of this machine takes at
// least: the floor under every measured link.
func (p *prober) loopback() {
	here, there, err := tcpPair()
	if err != nil {
		p.missing(LoopbackTrip, "s", "not measured: "+err.Error())
		p.missing(LoopbackRate, "B/s", "not measured: "+err.Error())
		return
	}
	defer here.Close()
	defer there.Close()
	n, bytes, trials := 500, 16<<20, 3
	if !p.o.Quick {
		n, bytes, trials = 10000, 256<<20, 5
	}
	trips, err := bounce(here, there, n)
	f := Figure{Name: LoopbackTrip, Unit: "s", Method: "1 B there and back over TCP on 127.0.0.1, half the median round trip"}
	p.figures = append(p.figures, f.typical(trips))
	var rates []float64
	for range trials {
		if err != nil || p.ctx.Err() != nil {
			break
		}
		var rate float64
		if rate, err = pour(here, there, bytes); err == nil {
			rates = append(rates, rate)
		}
	}
	f = Figure{Name: LoopbackRate, Unit: "B/s", Method: "one TCP connection on 127.0.0.1, writes of 256 KiB, best trial"}
	if err != nil {
		f.Method += ", stopped: " + err.Error()
	}
	p.figures = append(p.figures, f.best(rates))
}

// tcpPair connects the machine with itself.
func tcpPair() (here, there net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if here, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if there, err = l.Accept(); err != nil {
		return nil, nil, errors.Join(err, here.Close())
	}
	return here, there, nil
}

// bounce sends a byte there and back, n times, and returns half of each round trip.
func bounce(here, there net.Conn, n int) (trips []float64, err error) {
	echoed := make(chan error, 1)
	go func() {
		_, err := io.CopyN(there, there, int64(n))
		echoed <- err
	}()
	b := []byte{1}
	for range n {
		began := time.Now()
		if _, err := here.Write(b); err != nil {
			return trips, err
		}
		if _, err := io.ReadFull(here, b); err != nil {
			return trips, err
		}
		trips = append(trips, time.Since(began).Seconds()/2)
	}
	return trips, <-echoed
}

// pour sends n bytes and returns the rate at which they arrived.
func pour(here, there net.Conn, n int) (rate float64, err error) {
	wrote := make(chan error, 1)
	go func() {
		piece := make([]byte, 256<<10)
		for left := n; left > 0; left -= len(piece) {
			piece = piece[:min(left, len(piece))]
			if _, err := here.Write(piece); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	began := time.Now()
	buf := make([]byte, 256<<10)
	for got := 0; got < n; {
		k, err := there.Read(buf)
		if err != nil {
			return 0, err
		}
		got += k
	}
	rate = float64(n) / time.Since(began).Seconds()
	return rate, <-wrote
}
