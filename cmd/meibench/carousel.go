package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"meibench/hardware/carousel"
	"meibench/hardware/depot"
	"meibench/internal/units"
	"meibench/reference/models"
)

const carouselLong = `Send a model to many devices at once, over UDP multicast with repair symbols, and
receive it.

Nobody acknowledges: each packet of Reed-Solomon repair helps every receiver,
whichever it lost, and rounds serve those who came late. What is still lacking at
the end is fetched from a depot, those ranges and no others (--depot). The file
appears when its SHA-256 is right. An address of 224.0.0.0/4 is a multicast
group; any other is one receiver's. docs/depot.md has more.`

type carouselFlags struct {
	to, listen, face string
	options          carousel.Options
	limits           carousel.Limits
	sha, model, out  string
	depots           []string
}

func newCarousel(a *app) *cobra.Command {
	c := &cobra.Command{Use: "carousel", Short: "send a model to many over UDP multicast with repair symbols, or receive it", Long: carouselLong,
		Example: "  meibench carousel receive --model mei-base --depot http://127.0.0.1:8090 --out m.gguf\n  meibench carousel send mei-base --repair 0.25 --rounds 3"}
	c.AddCommand(newCarouselSend(a), newCarouselReceive(a))
	return c
}

const group = "239.255.77.1:9700"

func newCarouselSend(a *app) *cobra.Command {
	f := carouselFlags{}
	c := &cobra.Command{Use: "send FILE | NAME", Short: "send a file, or a shipped model", Args: cobra.ExactArgs(1), Long: carouselLong,
		RunE: func(c *cobra.Command, args []string) error { return f.send(c.Context(), a, args[0]) }}
	fl := c.Flags()
	fl.StringVar(&f.to, "to", group, "multicast group and port, or one receiver's address")
	fl.Float64Var(&f.options.Repair, "repair", 0.25, "repair symbols for each symbol, 0 to 2")
	fl.IntVar(&f.options.Rounds, "rounds", 1, "times that everything is sent")
	fl.Float64Var(&f.options.Rate, "rate", 10e6, "bytes a second; 0 = as quickly as the socket takes")
	fl.DurationVar(&f.options.Pause, "pause", 0, "between rounds")
	return c
}

// object is what a name or a path stands for.
func object(name string) ([]byte, error) {
	if data, err := models.Bytes(name); err == nil {
		return data, nil
	}
	return os.ReadFile(name)
}

func (f *carouselFlags) send(ctx context.Context, a *app, name string) error {
	data, err := object(name)
	if err != nil {
		return withCode(exitUsage, err)
	}
	to, err := net.ResolveUDPAddr("udp4", f.to)
	if err != nil {
		return withCode(exitUsage, fmt.Errorf("--to %s: %w", f.to, err))
	}
	conn, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	defer conn.Close()
	began := time.Now()
	s, err := carousel.Send(ctx, conn, to, data, f.options)
	if err != nil {
		return withCode(exitIncomplete, err)
	}
	sum := sha256.Sum256(data)
	if a.json {
		return writeJSON(a.out, map[string]any{"bytes": len(data), "sha256": hex.EncodeToString(sum[:]), "packets": s.Packets, "sent_bytes": s.Bytes, "seconds": time.Since(began).Seconds()})
	}
	fmt.Fprintf(a.out, "%v as %v in %d packets, SHA-256 %x, in %.3f s\n", units.Bytes(len(data)), units.Bytes(s.Bytes), s.Packets, sum, time.Since(began).Seconds())
	return nil
}

func newCarouselReceive(a *app) *cobra.Command {
	f := carouselFlags{}
	c := &cobra.Command{Use: "receive", Short: "receive an object by its SHA-256, or a model that a depot knows", Args: cobra.NoArgs, Long: carouselLong,
		RunE: func(c *cobra.Command, _ []string) error { return f.receive(c.Context(), a) }}
	fl := c.Flags()
	fl.StringVar(&f.listen, "listen", group, "multicast group and port, or the address that is sent to")
	fl.StringVar(&f.face, "interface", "", "network interface of the group, such as eth0; \"\" = the system's choice")
	fl.StringVar(&f.sha, "sha256", "", "SHA-256 of the object")
	fl.StringVar(&f.model, "model", "", "with --depot: model whose SHA-256 it says")
	fl.StringArrayVar(&f.depots, "depot", nil, "address of a depot for what is lacking at the end; repeat for several")
	fl.StringVar(&f.out, "out", "", "where the file goes")
	fl.DurationVar(&f.limits.Idle, "idle", 2*time.Second, "end when nothing has come for so long")
	fl.Int64Var(&f.limits.Bytes, "limit", 4<<30, "largest object that is taken, in bytes")
	return c
}

// wanted is what is to be received: its digest, and the model if a depot knows it.
func (f *carouselFlags) wanted(ctx context.Context) (sum [32]byte, c *depot.Client, m *depot.Model, err error) {
	switch {
	case f.out == "":
		return sum, nil, nil, errors.New("--out is needed: where the file goes")
	case f.model != "" && len(f.depots) == 0:
		return sum, nil, nil, errors.New("--model needs --depot: a depot says what the model is")
	case (f.model == "") == (f.sha == ""):
		return sum, nil, nil, errors.New("what is to be received: want --sha256, or --model with --depot")
	}
	text := f.sha
	if f.model != "" {
		c = &depot.Client{Sources: f.depots, HTTP: depot.NewHTTP(false, nil)}
		list, err := c.Catalogue(ctx)
		if err != nil {
			return sum, nil, nil, err
		}
		if m, err = list.Find(f.model); err != nil {
			return sum, nil, nil, err
		}
		text = m.SHA256
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(sum) {
		return sum, nil, nil, fmt.Errorf("--sha256 %q: want 64 hexadecimal digits", text)
	}
	return [32]byte(b), c, m, nil
}

func (f *carouselFlags) receive(ctx context.Context, a *app) error {
	sum, c, m, err := f.wanted(ctx)
	if err != nil {
		return withCode(exitUsage, err)
	}
	conn, err := f.socket()
	if err != nil {
		return withCode(exitEnvironment, fmt.Errorf("--listen %s: %w", f.listen, err))
	}
	defer conn.Close()
	if !a.quiet {
		fmt.Fprintf(a.err, "  listening at %s\n", conn.LocalAddr())
	}
	began := time.Now()
	got, err := carousel.Receive(ctx, conn, sum, f.limits)
	mended := int64(0)
	data := got.Data
	if err != nil && c != nil && ctx.Err() == nil {
		if data = got.Partial; data == nil {
			data, got.Missing = make([]byte, m.Bytes), [][2]int64{{0, m.Bytes}}
		}
		if !a.quiet {
			fmt.Fprintf(a.err, "  %v\n", err)
		}
		mended, err = c.Mend(ctx, m, data, got.Missing)
	}
	if err == nil {
		err = os.WriteFile(f.out+".part", data, 0o644)
	}
	if err == nil {
		err = os.Rename(f.out+".part", f.out)
	}
	if err != nil {
		return withCode(exitIncomplete, err)
	}
	if a.json {
		return writeJSON(a.out, map[string]any{"file": f.out, "bytes": len(data), "sha256": hex.EncodeToString(sum[:]), "packets": got.Packets, "foreign": got.Foreign,
			"repaired_symbols": got.Repaired, "depot_bytes": mended, "seconds": time.Since(began).Seconds()})
	}
	fmt.Fprintf(a.out, "%s: %v from %d packets, %d symbols worked out, %v from a depot, in %.3f s\n", f.out, units.Bytes(len(data)), got.Packets, got.Repaired, units.Bytes(mended), time.Since(began).Seconds())
	return nil
}

// socket listens at the address, in the group if it is one.
func (f *carouselFlags) socket() (net.PacketConn, error) {
	at, err := net.ResolveUDPAddr("udp4", f.listen)
	if err != nil {
		return nil, err
	}
	var conn *net.UDPConn
	if at.IP.IsMulticast() {
		var face *net.Interface
		if f.face != "" {
			if face, err = net.InterfaceByName(f.face); err != nil {
				return nil, err
			}
		}
		conn, err = net.ListenMulticastUDP("udp4", face, at)
	} else {
		conn, err = net.ListenUDP("udp4", at)
	}
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(8 << 20) // as much as the system grants
	return conn, nil
}
