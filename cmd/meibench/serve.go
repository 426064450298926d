package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meibench/harness/serve"
	"meibench/reference/gguf"
	"meibench/reference/models"
	"meibench/reference/tensor"
	"meibench/reference/token"
)

const serveLong = `Serve models through OpenAI's protocol: /v1/models, /v1/completions and
/v1/chat/completions, whole and streamed, and /health. Any client of that
protocol can ask, among them meibench run --endpoint and meibench eval --endpoint.

A model is a shipped name, a GGUF file, or NAME=FILE. An adapter is a LoRA file
in GGUF for one of these models, asked for by its own name. Sequences of one
model share its steps (continuous batching), whatever their adapters; greedy
answers are the same alone and in a crowd, bit for bit.

The first line on stdout is the address. Ctrl-C lets requests under way end for
up to 10 s, a second one does not. The server listens on this machine only unless
--listen says otherwise; there is no TLS: put a proxy before it.`

// serveFlags are the flags of serve.
type serveFlags struct {
	models, adapters []string
	template         string
	listen, keyEnv   string
	threads          int
	cfg              serve.Config
}

func newServe(a *app) *cobra.Command {
	f := serveFlags{}
	c := &cobra.Command{
		Use: "serve", Short: "our engine behind OpenAI's protocol, for any client", Long: serveLong,
		Example: "  meibench serve\n  meibench serve --model mei-small --model big=model.gguf --listen 127.0.0.1:0\n" +
			"  meibench serve --model model.gguf --adapter legal=legal.gguf --api-key-env MEI_KEY",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), a) },
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.models, "model", nil, "a shipped model ("+strings.Join(shippedModels(), ", ")+"), a GGUF file, or NAME=FILE; repeat for several (default "+models.Default+")")
	fl.StringArrayVar(&f.adapters, "adapter", nil, "a LoRA adapter, NAME=FILE.gguf, of the first model that it fits; repeat for several")
	fl.StringVar(&f.template, "chat-template", "", "how models read conversations, instead of what their files say: "+strings.Join(token.Templates(), ", "))
	fl.StringVar(&f.listen, "listen", "127.0.0.1:8080", "address to listen on; port 0 takes a free one")
	fl.StringVar(&f.keyEnv, "api-key-env", "", "environment variable with a bearer key that requests must bring")
	fl.IntVar(&f.threads, "threads", 0, "threads of each model's engine (default all cores, shared by the models)")
	fl.IntVar(&f.cfg.Batch, "batch", 16, "most sequences of a model in one step")
	fl.IntVar(&f.cfg.Chunk, "chunk", 256, "most tokens of a model in one step: long prompts go in pieces")
	fl.IntVar(&f.cfg.Queue, "queue", 64, "requests of a model that may wait; more get 429 with Retry-After")
	fl.Int64Var(&f.cfg.MaxBody, "max-body", 1<<20, "most bytes of a request")
	fl.Uint64Var(&f.cfg.Seed, "seed", 1, "seed of requests that bring none")
	return c
}

// config loads what is to be served.
func (f *serveFlags) config() (*serve.Config, error) {
	cfg := &f.cfg
	if min(cfg.Batch, cfg.Chunk) < 1 || cfg.MaxBody < 1 || cfg.Queue < 0 || f.threads < 0 {
		return nil, errors.New("--batch, --chunk and --max-body: want 1 or more; --queue and --threads 0 or more")
	}
	if cfg.Queue == 0 {
		cfg.Queue = -1 // none
	}
	if f.keyEnv != "" {
		if cfg.Key = os.Getenv(f.keyEnv); cfg.Key == "" {
			return nil, fmt.Errorf("--api-key-env: the environment variable %s is empty", f.keyEnv)
		}
	}
	if len(f.models) == 0 {
		f.models = []string{models.Default}
	}
	if cfg.Threads = f.threads; cfg.Threads == 0 {
		cfg.Threads = max(1, runtime.NumCPU()/len(f.models))
	}
	for _, arg := range f.models {
		name, file, named := strings.Cut(arg, "=")
		if !named {
			name, file = strings.TrimSuffix(filepath.Base(arg), ".gguf"), arg
		}
		m, err := (&evalFlags{model: file}).load()
		if err != nil {
			return nil, fmt.Errorf("--model %s: %w", arg, err)
		}
		cfg.Models = append(cfg.Models, serve.Model{Name: name, Loaded: m, Template: f.template})
	}
	for _, arg := range f.adapters {
		a, err := adapterOf(arg, cfg.Models)
		if err != nil {
			return nil, fmt.Errorf("--adapter %s: %w", arg, err)
		}
		cfg.Adapters = append(cfg.Adapters, a)
	}
	return cfg, nil
}

// adapterOf reads an adapter for the first model that it fits.
func adapterOf(arg string, list []serve.Model) (a serve.Adapter, err error) {
	name, file, ok := strings.Cut(arg, "=")
	if !ok || name == "" {
		return a, errors.New("want NAME=FILE.gguf")
	}
	g, err := gguf.Open(file)
	if err != nil {
		return a, err
	}
	defer g.Close()
	var refused error
	for _, m := range list {
		delta, err := m.Loaded.Model.ReadAdapter(g)
		if err == nil {
			return serve.Adapter{Name: name, Base: m.Name, Delta: delta}, nil
		}
		refused = errors.Join(refused, fmt.Errorf("model %s: %w", m.Name, err))
	}
	return a, refused
}

func (f *serveFlags) run(ctx context.Context, a *app) error {
	cfg, err := f.config()
	if err != nil {
		return withCode(exitUsage, err)
	}
	s, err := serve.New(*cfg)
	if err != nil {
		return withCode(exitUsage, err)
	}
	defer s.Close()
	ln, err := net.Listen("tcp", f.listen)
	if err != nil {
		return withCode(exitEnvironment, fmt.Errorf("--listen %s: %w", f.listen, err))
	}
	if err := f.announce(a, s, "http://"+ln.Addr().String()); err != nil {
		return err
	}
	const grace = 10 * time.Second
	srv := &http.Server{}
	if err := s.Run(ctx, srv, func() error { return srv.Serve(ln) }, grace); err != nil {
		return withCode(exitIncomplete, err)
	}
	return nil
}

// announce says where and what is served.
func (f *serveFlags) announce(a *app, s *serve.Server, url string) error {
	if a.json {
		return writeJSON(a.out, map[string]any{"url": url, "models": s.Names(), "kernels": tensor.Kernel()})
	}
	fmt.Fprintln(a.out, url)
	if a.quiet {
		return nil
	}
	for _, name := range s.Names() {
		what := "adapter"
		if i := slices.IndexFunc(f.cfg.Models, func(m serve.Model) bool { return m.Name == name }); i >= 0 {
			m := f.cfg.Models[i].Loaded.Model
			what = fmt.Sprintf("%.3g M parameters, context %d", float64(m.TotalParams())/1e6, m.Context)
		}
		fmt.Fprintf(a.err, "  %-20s %s; conversations: %s\n", name, what, s.Chat(name))
	}
	fmt.Fprintf(a.err, "kernels %s, %d thread(s) per model, up to %d sequences in a step, %d may wait; Ctrl-C ends\n",
		tensor.Kernel(), f.cfg.Threads, f.cfg.Batch, max(0, f.cfg.Queue))
	fmt.Fprintf(a.err, "try: curl %s/v1/completions -H 'Content-Type: application/json' -d '{\"model\":%q,\"prompt\":\"...\",\"stream\":true}'\n", url, s.Names()[0])
	return nil
}
