package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meibench/hardware/agent"
	"meibench/hardware/depot"
	"meibench/internal/units"
	"meibench/reference/models"
)

const depotLong = `Serve models block by block, and fetch them: an edge node and a device, for real.

depot serve cuts GGUF files at the borders of layers, in the order in which a
model uses them, and serves the blocks by their SHA-256 over HTTP/1.1 and HTTP/2
with ranges. depot fetch keeps blocks in a folder within a budget, checks every
digest before anything is used, goes on with what was broken off, tries one
source after another, and with --run answers a prompt while the last layers are
still on their way. depot ls says what a node has.

depot serve --from URL also serves what another node has: a block comes when it is
first asked for, once for all who wait, and is checked before it is handed on.

With --certs (a folder that meibench agent certs made) both sides use TLS 1.3 and
show certificates; without, nobody is asked who they are. docs/depot.md has more.`

func newDepot(a *app) *cobra.Command {
	c := &cobra.Command{Use: "depot", Short: "serve models in blocks, or fetch them: digests, ranges, a cache, decoding before all has come", Long: depotLong,
		Example: "  meibench depot serve\n  meibench depot ls --from http://127.0.0.1:8090\n  meibench depot fetch mei-small --from http://127.0.0.1:8090 --cache blocks"}
	c.AddCommand(newDepotServe(a), newDepotFetch(a), newDepotLs(a))
	return c
}

// depotServe are the flags of depot serve.
type depotServe struct {
	listen string
	cfg    depot.NodeConfig
	up     depotFetch // where blocks come from that the node lacks, if it has a source
	certs  string
}

func newDepotServe(a *app) *cobra.Command {
	f := depotServe{}
	c := &cobra.Command{Use: "serve [FILE.gguf | NAME]...", Short: "serve files, or shipped models: all of these if none is named", Long: depotLong,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c.Context(), a, args) }}
	fl := c.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:8090", "address to listen on; port 0 takes a free one")
	fl.IntVar(&f.cfg.Transfers, "transfers", 64, "blocks under way at once; more get 503 with Retry-After")
	fl.Int64Var(&f.cfg.Rate, "rate", 0, "bytes a second of all transfers together; 0 = no limit")
	fl.Int64Var(&f.cfg.PerClient, "client-rate", 0, "bytes a second of one address; 0 = no limit")
	fl.StringArrayVar(&f.up.from, "from", nil, "address of a node whose models are served too; repeat for several")
	fl.StringVar(&f.up.cache, "cache", "meibench-node", "with --from: folder of blocks from there")
	fl.Int64Var(&f.up.budget, "budget", 0, "with --from: most bytes in it; the least recently used blocks go; 0 = no limit")
	fl.StringVar(&f.certs, "certs", "", "folder that meibench agent certs made: TLS, and clients must show a certificate")
	return c
}

func (f *depotServe) run(ctx context.Context, a *app, args []string) error {
	if f.cfg.Transfers < 1 || min(f.cfg.Rate, f.cfg.PerClient, f.up.budget) < 0 {
		return withCode(exitUsage, fmt.Errorf("--transfers %d, --rate %d, --client-rate %d, --budget %d: want 1 or more, and 0 or more", f.cfg.Transfers, f.cfg.Rate, f.cfg.PerClient, f.up.budget))
	}
	conf, err := f.tls()
	if err != nil {
		return withCode(exitUsage, err)
	}
	if len(args) == 0 && len(f.up.from) == 0 {
		args = shippedModels()
	}
	node := depot.NewNode(f.cfg)
	for _, arg := range args {
		if err := addTo(node, arg, a); err != nil {
			return withCode(exitUsage, err)
		}
	}
	if len(f.up.from) > 0 {
		f.up.certs = f.certs
		c, err := f.up.client()
		if err != nil {
			return withCode(exitEnvironment, err)
		}
		list, err := node.Mirror(ctx, c)
		if err != nil {
			return withCode(exitEnvironment, err)
		}
		if !a.quiet {
			fmt.Fprintf(a.err, "  %d models of %s when they are asked for\n", len(list.Models), strings.Join(f.up.from, ", "))
		}
	}
	ln, err := net.Listen("tcp", f.listen)
	if err != nil {
		return withCode(exitEnvironment, fmt.Errorf("--listen %s: %w", f.listen, err))
	}
	srv := depot.NewServer(node)
	serve, scheme := srv.Serve, "http"
	if conf != nil {
		srv.TLSConfig = conf
		serve, scheme = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }, "https"
	}
	fmt.Fprintf(a.out, "%s://%s\n", scheme, ln.Addr())
	ended := make(chan error, 1)
	go func() { ended <- serve(ln) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = srv.Shutdown(grace)
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return withCode(exitIncomplete, err)
	}
	return nil
}

// tls is the node's side of certificates, nil without.
func (f *depotServe) tls() (*tls.Config, error) {
	if f.certs == "" {
		return nil, nil
	}
	return agent.Credentials{Cert: filepath.Join(f.certs, agent.ServerCertFile), Key: filepath.Join(f.certs, agent.ServerKeyFile), CA: filepath.Join(f.certs, agent.CAFile)}.ServerTLS()
}

// addTo serves a shipped model or a file.
func addTo(node *depot.Node, arg string, a *app) error {
	var m *depot.Model
	if data, err := models.Bytes(arg); err == nil {
		if m, err = node.Add(arg, bytes.NewReader(data), int64(len(data))); err != nil {
			return err
		}
	} else {
		file, err := os.Open(arg)
		if err != nil {
			return fmt.Errorf("%s is no shipped model (%s) and no file: %w", arg, strings.Join(shippedModels(), ", "), err)
		}
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if m, err = node.Add(strings.TrimSuffix(filepath.Base(arg), ".gguf"), file, info.Size()); err != nil {
			return fmt.Errorf("%s: %w", arg, err)
		}
	}
	if !a.quiet {
		fmt.Fprintf(a.err, "  %-20s %v in %d blocks\n", m.Name, units.Bytes(m.Bytes), len(m.Blocks))
	}
	return nil
}

// depotFetch are the flags of depot fetch.
type depotFetch struct {
	from     []string
	cache    string
	budget   int64
	out, run string
	most     int
	two      bool
	sha      string
	certs    string
}

func newDepotFetch(a *app) *cobra.Command {
	f := depotFetch{}
	c := &cobra.Command{Use: "fetch MODEL", Short: "fetch a model, checked, and answer a prompt before all of it has come", Args: cobra.ExactArgs(1), Long: depotLong,
		RunE: func(c *cobra.Command, args []string) error { return f.fetch(c.Context(), a, args[0]) }}
	fl := c.Flags()
	fl.StringArrayVar(&f.from, "from", []string{"http://127.0.0.1:8090"}, "address of a node; repeat for several, of which the first that answers rightly serves")
	fl.StringVar(&f.cache, "cache", "meibench-blocks", "folder of blocks, which several processes may share")
	fl.Int64Var(&f.budget, "budget", 0, "most bytes in it; the least recently used blocks go; 0 = no limit")
	fl.StringVar(&f.out, "out", "", "where the file goes (default MODEL.gguf)")
	fl.StringVar(&f.run, "run", "", "a prompt to answer as the layers come")
	fl.IntVar(&f.most, "n", 32, "most tokens of the answer")
	fl.BoolVar(&f.two, "http2", false, "HTTP/2 instead of HTTP/1.1")
	fl.StringVar(&f.sha, "sha256", "", "what the file's SHA-256 must be, whatever the node says")
	fl.StringVar(&f.certs, "certs", "", certsDoc)
	return c
}

const certsDoc = "folder that meibench agent certs made: the certificate to show, for addresses with https"

// http is a client for the flags.
func (f *depotFetch) http() (*http.Client, error) {
	if f.certs == "" {
		return depot.NewHTTP(f.two, nil), nil
	}
	conf, err := agent.InDir(f.certs).ClientTLS()
	if err != nil {
		return nil, err
	}
	for _, from := range f.from {
		if !strings.HasPrefix(from, "https://") {
			return nil, fmt.Errorf("--certs and --from %s: certificates are shown over https only", from)
		}
	}
	return depot.NewHTTP(f.two, conf), nil
}

// client is one for the flags.
func (f *depotFetch) client() (*depot.Client, error) {
	store, err := depot.OpenStore(f.cache, f.budget)
	if err != nil {
		return nil, err
	}
	web, err := f.http()
	if err != nil {
		return nil, err
	}
	return &depot.Client{Sources: f.from, Store: store, HTTP: web}, nil
}

func (f *depotFetch) fetch(ctx context.Context, a *app, name string) error {
	if f.budget < 0 || f.most < 1 {
		return withCode(exitUsage, fmt.Errorf("--budget %d, --n %d: want 0 or more, and 1 or more", f.budget, f.most))
	}
	c, err := f.client()
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	list, err := c.Catalogue(ctx)
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	m, err := list.Find(name)
	if err != nil {
		return withCode(exitUsage, err)
	}
	if f.sha != "" && f.sha != m.SHA256 {
		return withCode(exitIncomplete, fmt.Errorf("model %s: the node says SHA-256 %s, --sha256 wants %s: %w", name, m.SHA256, f.sha, depot.ErrRefused))
	}
	path := f.out
	if path == "" {
		path = filepath.Base(name) + ".gguf"
	}
	began := time.Now()
	out := map[string]any{"model": m.Name, "sha256": m.SHA256, "bytes": m.Bytes, "blocks": len(m.Blocks), "file": path}
	if f.run != "" {
		early, err := c.FetchRun(ctx, m, path, f.run, f.most)
		if err != nil {
			return withCode(exitIncomplete, err)
		}
		out["text"], out["first_token_s"], out["fetched_s"] = early.Text, early.First.Seconds(), early.Fetched.Seconds()
	} else {
		if err := c.Fetch(ctx, m, path, nil); err != nil {
			return withCode(exitIncomplete, err)
		}
		out["fetched_s"] = time.Since(began).Seconds()
	}
	if a.json {
		return writeJSON(a.out, out)
	}
	fmt.Fprintf(a.out, "%s: %v in %d blocks, SHA-256 %s, in %.3f s\n", path, units.Bytes(m.Bytes), len(m.Blocks), m.SHA256[:16], out["fetched_s"])
	if f.run != "" {
		fmt.Fprintf(a.out, "first token after %.3f s: %s\n", out["first_token_s"], out["text"])
	}
	return nil
}

func newDepotLs(a *app) *cobra.Command {
	f := depotFetch{}
	c := &cobra.Command{Use: "ls", Short: "what a node has", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		web, err := f.http()
		if err != nil {
			return withCode(exitUsage, err)
		}
		list, err := (&depot.Client{Sources: f.from, HTTP: web}).Catalogue(c.Context())
		if err != nil {
			return withCode(exitEnvironment, err)
		}
		if a.json {
			return writeJSON(a.out, list)
		}
		for _, m := range list.Models {
			fmt.Fprintf(a.out, "%-24s %10v %4d blocks  %s\n", m.Name, units.Bytes(m.Bytes), len(m.Blocks), m.SHA256)
		}
		return nil
	}}
	c.Flags().StringArrayVar(&f.from, "from", []string{"http://127.0.0.1:8090"}, "address of a node")
	c.Flags().StringVar(&f.certs, "certs", "", certsDoc)
	return c
}
