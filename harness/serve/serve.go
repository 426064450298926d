// Package serve offers the engine of this project through OpenAI's protocol, so
// that any client can drive it: /v1/models, /v1/completions,
// /v1/chat/completions (whole and streamed), /health.
//
//	s, err := serve.New(serve.Config{Models: []serve.Model{{Name: "mei-small", Loaded: m}}})
//	defer s.Close()
//	http.Serve(listener, s)
//
// The one idea: one goroutine per model steps all its sequences at once through
// llm.Work.Forward, prompts in chunks beside the tokens of others (continuous
// batching). What the engine computes for a token depends on its own sequence
// only, so an answer is the same, bit for bit, alone or in a crowd. LoRA adapters
// are models of their own name; sequences with different adapters share a step.
//
// Handlers turn tokens into text and look for stop strings. A client that hangs
// up, or a stop string, takes a sequence out of the batch at the next step.
//
// What it does not do: several choices, log probabilities, tools, embeddings,
// images, prefix caches, TLS. Such fields are refused, not ignored; fields that
// it does not know are ignored.
package serve

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/token"
)

// Model is a model to serve.
type Model struct {
	Name   string
	Loaded *models.Loaded
	// Template names a family of chat templates (token.Templates); "" is that of
	// the model's file. A model without one reads the contents of a conversation
	// line by line.
	Template string
}

// Adapter is a LoRA adapter, served as a model of its own name.
type Adapter struct {
	Name  string
	Base  string // name of the model under it
	Delta *llm.Adapter
}

// Config says what is served. The zero value of a field stands for its default.
type Config struct {
	Models   []Model
	Adapters []Adapter
	Threads  int    // of each model's engine; default 1
	Batch    int    // most sequences of a model in one step; default 16
	Chunk    int    // most tokens of a model in one step; default 256
	Queue    int    // requests of a model that may wait; default 64, negative none
	MaxBody  int64  // bytes of a request; default 1 MiB
	Seed     uint64 // of requests that bring none; each has luck of its own
	Key      string // bearer key that requests must bring; "" = none
}

// Server is an http.Handler.
type Server struct {
	cfg     Config
	served  map[string]*served
	names   []string
	engines []*engine
	mux     *http.ServeMux
	began   time.Time
	count   atomic.Uint64 // requests so far: their ids, and their luck
}

// served is a name that requests may ask for.
type served struct {
	*engine
	template *token.Template // nil: contents line by line
	adapter  *llm.Adapter
}

// New starts an engine for each model.
func New(cfg Config) (*Server, error) {
	cfg.Threads, cfg.Batch, cfg.Chunk = cmp.Or(cfg.Threads, 1), cmp.Or(cfg.Batch, 16), cmp.Or(cfg.Chunk, 256)
	cfg.Queue, cfg.MaxBody = cmp.Or(cfg.Queue, 64), cmp.Or(cfg.MaxBody, 1<<20)
	switch {
	case len(cfg.Models) == 0:
		return nil, errors.New("serve: no model")
	case min(cfg.Threads, cfg.Batch, cfg.Chunk) < 1 || cfg.MaxBody < 1:
		return nil, fmt.Errorf("serve: threads (%d), batch (%d), chunk (%d) and body (%d): want 1 or more", cfg.Threads, cfg.Batch, cfg.Chunk, cfg.MaxBody)
	}
	s := &Server{cfg: cfg, served: map[string]*served{}, began: time.Now()}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	for _, e := range s.engines {
		e.start()
	}
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET /health", s.health)
	s.mux.HandleFunc("GET /v1/models", s.list)
	s.mux.HandleFunc("POST /v1/completions", func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, false) })
	s.mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, true) })
	for path, method := range map[string]string{"/health": http.MethodGet, "/v1/models": http.MethodGet, "/v1/completions": http.MethodPost, "/v1/chat/completions": http.MethodPost} {
		s.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", method)
			refuse(w, &refusal{status: http.StatusMethodNotAllowed, kind: "invalid_request_error", message: fmt.Sprintf("%s takes %s, not %s", path, method, r.Method)})
		})
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, &refusal{status: http.StatusNotFound, kind: "invalid_request_error", message: fmt.Sprintf("no %s %s here: have /v1/models, /v1/completions, /v1/chat/completions, /health", r.Method, r.URL.Path)})
	})
	return s, nil
}

// open makes the engines and gives names to them.
func (s *Server) open() error {
	add := func(name string, v *served) error {
		if _, taken := s.served[name]; taken || name == "" {
			return fmt.Errorf("name %q is empty or given twice: models and adapters need names of their own", name)
		}
		s.served[name] = v
		s.names = append(s.names, name)
		return nil
	}
	for _, m := range s.cfg.Models {
		v := &served{}
		var err error
		switch {
		case m.Template != "":
			if v.template, err = m.Loaded.Tokenizer.TemplateNamed(m.Template); err != nil {
				return fmt.Errorf("model %q: %w", m.Name, err)
			}
		case m.Loaded.Tokenizer.Metadata().ChatTemplate != "":
			if v.template, err = m.Loaded.Tokenizer.Template(); err != nil {
				return fmt.Errorf("model %q: %w", m.Name, err)
			}
		}
		v.engine = newEngine(&s.cfg, m.Loaded)
		if err := add(m.Name, v); err != nil {
			return err
		}
		s.engines = append(s.engines, v.engine)
	}
	for _, a := range s.cfg.Adapters {
		base, ok := s.served[a.Base]
		if !ok || base.adapter != nil {
			return fmt.Errorf("adapter %q: there is no model %q", a.Name, a.Base)
		}
		v := *base
		v.adapter = a.Delta
		if err := add(a.Name, &v); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the engines; requests under way fail.
func (s *Server) Close() {
	for _, e := range s.engines {
		e.close()
	}
}

// Names lists what can be asked for: models, then adapters.
func (s *Server) Names() []string { return s.names }

// Chat is how a name reads conversations: a family of templates, or "plain".
func (s *Server) Chat(name string) string {
	if t := s.served[name].template; t != nil {
		return t.Name()
	}
	return "plain"
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "meibench")
	if s.cfg.Key != "" && r.URL.Path != "/health" {
		if want := "Bearer " + s.cfg.Key; subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(want)) != 1 {
			refuse(w, &refusal{status: http.StatusUnauthorized, kind: "invalid_request_error", code: "invalid_api_key", message: "a bearer key is needed in the header Authorization, and this is not it"})
			return
		}
	}
	s.mux.ServeHTTP(w, r)
}

// Run serves on an http.Server of its own until the context ends; then requests
// under way have grace to end. It owns neither the listener's opening nor Close.
func (s *Server) Run(ctx context.Context, srv *http.Server, serve func() error, grace time.Duration) error {
	srv.Handler = s
	// No ReadTimeout: it would end answers that take longer, because the server keeps reading to see a client hang up.
	srv.ReadHeaderTimeout, srv.IdleTimeout, srv.MaxHeaderBytes = 10*time.Second, 2*time.Minute, 64<<10
	ended := make(chan error, 1)
	go func() { ended <- serve() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := srv.Shutdown(limit)
	if err != nil {
		err = fmt.Errorf("requests were cut off after %v: %w", grace, errors.Join(err, srv.Close()))
	}
	<-ended
	return err
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	active, queued := 0, 0
	for _, e := range s.engines {
		active, queued = active+int(e.active.Load()), queued+len(e.queue)
	}
	reply(w, http.StatusOK, map[string]any{"status": "ok", "models": s.names, "active": active, "queued": queued})
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	type entry struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
	var data []entry
	for _, name := range s.names {
		data = append(data, entry{name, "model", s.began.Unix(), "meibench"})
	}
	reply(w, http.StatusOK, map[string]any{"object": "list", "data": data})
}

// reply writes a JSON value.
func reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own types come here
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}
