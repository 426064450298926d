package bundle

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"meibench/harness/results"
	"meibench/internal/canon"
)

// Redaction is one thing that a bundle says otherwise than the run folder did.
type Redaction struct {
	File string `json:"file"` // in the bundle
	Old  string `json:"old"`
	New  string `json:"new"`
}

// common are names of hosts and users that give nobody away, and that stand in
// suites and sites for other reasons.
const common = " admin agent android build builder ci cloud container debian desktop dev device docker edge fedora gateway home host jetson laptop linux local localhost" +
	" mei meibench mobile model node nobody phone raspberrypi root runner server system test ubuntu user vagrant worker "

// Here lists the names that give away who ran a benchmark where: the host's, the
// user's and that of the user's home. What is empty or says nothing is left out.
func Here() []string {
	var list []string
	if name, err := os.Hostname(); err == nil {
		short, _, _ := strings.Cut(name, ".")
		list = append(list, name, short)
	}
	if u, err := user.Current(); err == nil {
		list = append(list, u.Username, u.HomeDir)
	}
	return telling(list)
}

// telling is the sorted set of those names that give someone away.
func telling(names []string) []string {
	return distinct(slices.DeleteFunc(slices.Clone(names), func(s string) bool {
		return len(s) < 3 || strings.Contains(common, " "+strings.ToLower(path.Base(s))+" ")
	}))
}

// hosts are the other machines that a run asked, but for this one's loopback:
// texts of errors name them.
func hosts(m *results.Manifest) (list []string) {
	for _, e := range m.Endpoints {
		if u, err := url.Parse(e.URL); err == nil {
			list = append(list, u.Hostname())
		}
	}
	for _, a := range m.Agents {
		host, _, err := net.SplitHostPort(a.Address)
		if err != nil {
			host = a.Address
		}
		list = append(list, host)
	}
	return telling(slices.DeleteFunc(list, func(h string) bool {
		ip := net.ParseIP(h)
		return ip != nil && ip.IsLoopback()
	}))
}

// privacy knows what must not stand in a bundle.
type privacy struct{ words []*regexp.Regexp }

// Placeholders for what is taken out.
const (
	noPath = "PATH"
	noHost = "HOST"
	noName = "NAME"
)

// absolute matches an absolute path of two or more parts, or one in a home
// folder, at the beginning of a word; so do drives of Windows.
var absolute = regexp.MustCompile(`(^|[\s"'=,;:(\[])((?:~|/[A-Za-z0-9_.~+-]+)(?:/[A-Za-z0-9_.~+@%-]+)+/?|[A-Za-z]:\\[^\s"',;)\]]+)`)

// ofSystem reports whether a path is the same on every machine.
func ofSystem(file string) bool {
	for _, top := range []string{"/sys/", "/proc/", "/dev/"} {
		if strings.HasPrefix(file, top) {
			return true
		}
	}
	return false
}

func newPrivacy(names []string) *privacy {
	p := &privacy{}
	for _, n := range names {
		p.words = append(p.words, regexp.MustCompile(`(^|[^A-Za-z0-9])`+regexp.QuoteMeta(n)+`($|[^A-Za-z0-9])`))
	}
	return p
}

// clean replaces what gives someone away: of a path the last part stays.
func (p *privacy) clean(s string) string {
	s = absolute.ReplaceAllStringFunc(s, func(m string) string {
		parts := absolute.FindStringSubmatch(m)
		if ofSystem(parts[2]) {
			return m
		}
		last := strings.FieldsFunc(parts[2], func(r rune) bool { return r == '/' || r == '\\' })
		return parts[1] + noPath + "/" + last[len(last)-1]
	})
	for _, w := range p.words {
		for range 2 { // neighbours share a border
			s = w.ReplaceAllString(s, "${1}"+noName+"${2}")
		}
	}
	return s
}

// found is the first thing in a text that clean would replace, "" if there is
// none.
func (p *privacy) found(s string) string {
	for _, m := range absolute.FindAllStringSubmatch(s, -1) {
		if !ofSystem(m[2]) {
			return m[2]
		}
	}
	for _, w := range p.words {
		if m := w.FindString(s); m != "" {
			return strings.TrimFunc(m, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		}
	}
	return ""
}

// redactor rewrites the manifest of a run.
type redactor struct {
	*privacy
	file string
	list []Redaction
}

func (r *redactor) set(s *string, to string) {
	if to != *s {
		r.list = append(r.list, Redaction{r.file, *s, to})
		*s = to
	}
}

// manifest takes out of run.json what need not be there for anyone to check or
// repeat a run. The tables stay as they are.
func (r *redactor) manifest(m *results.Manifest) {
	m.Command = slices.Clone(m.Command)
	for i := range m.Command {
		r.set(&m.Command[i], noAddress(r.clean(m.Command[i])))
	}
	if len(m.Command) > 0 { // the program, however it was called
		r.set(&m.Command[0], filepath.Base(m.Command[0]))
	}
	m.Endpoints = slices.Clone(m.Endpoints)
	for i := range m.Endpoints {
		r.set(&m.Endpoints[i].URL, noAddress(m.Endpoints[i].URL))
	}
	m.Agents = slices.Clone(m.Agents)
	for i := range m.Agents {
		r.set(&m.Agents[i].Address, noHost)
	}
	m.Warnings = slices.Clone(m.Warnings)
	for i := range m.Warnings {
		r.set(&m.Warnings[i], r.clean(m.Warnings[i]))
	}
	m.Host = maps.Clone(m.Host)
	for _, k := range slices.Sorted(maps.Keys(m.Host)) {
		v := m.Host[k]
		r.set(&v, r.clean(v))
		m.Host[k] = v
	}
	kernel := r.clean(m.Kernel)
	r.set(&m.Kernel, kernel)
}

// webAddress is a URL: scheme, host with user and port, path, query.
var webAddress = regexp.MustCompile(`(https?://)([^/?#\s"']+)([^?#\s"']*)([?#][^\s"']*)?`)

// agentAddress is HOST:PORT, alone or as NODE=HOST:PORT, maybe several.
var agentAddress = regexp.MustCompile(`(^|[=,])([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{2,5})($|,)`)

// loopback is this machine as it calls itself, which gives nobody away.
var loopback = regexp.MustCompile(`^(localhost|127\.[0-9]+\.[0-9]+\.[0-9]+|\[::1\])(:[0-9]+)?$`)

// noAddress takes hosts, users and queries, which may hold keys, out of URLs and
// addresses.
func noAddress(s string) string {
	s = webAddress.ReplaceAllStringFunc(s, func(m string) string {
		parts := webAddress.FindStringSubmatch(m)
		if loopback.MatchString(parts[2]) {
			return parts[1] + parts[2] + parts[3]
		}
		return parts[1] + noHost + parts[3]
	})
	for range 2 { // neighbours share a comma
		s = agentAddress.ReplaceAllStringFunc(s, func(m string) string {
			parts := agentAddress.FindStringSubmatch(m)
			if loopback.MatchString(parts[2]) {
				return m
			}
			return parts[1] + noHost + parts[3] + parts[4]
		})
	}
	return s
}

// stays refuses what would give someone away where nothing can be rewritten
// without making the tables, the plan or their hashes untrue.
func (p *privacy) stays(dir string, run *Run) error {
	say := func(file, what string) error {
		return fmt.Errorf("%s: %s names %q, which cannot be taken out without making the results untrue: run again with paths relative to the working folder, or bundle with --identify", dir, file, what)
	}
	for i, c := range run.Set.Runs() {
		text, err := canon.JSON(c.Cell)
		if err != nil {
			return err
		}
		if s := p.found(string(text)); s != "" {
			return say(results.CellsFile, s)
		}
		for r, err := range run.Set.Rows(i) {
			if err != nil {
				return err
			}
			if s := p.found(r.Err); s != "" {
				return say(fmt.Sprintf("%s (%s request %d)", results.RequestsFile, results.KeyOf(&c.Cell), r.ID), s)
			}
		}
	}
	for _, name := range []string{planFile, hostFile, results.BenchFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			if os.IsNotExist(err) {
				continue
			}
			return err
		}
		if s := p.found(string(b)); s != "" {
			return say(name, s)
		}
	}
	m := run.Set.Manifest // what is left of it after rewriting
	m.Command, m.Endpoints, m.Agents, m.Warnings, m.Host, m.Kernel = nil, nil, nil, nil, nil, ""
	text, err := canon.JSON(m)
	if err != nil {
		return err
	}
	if s := p.found(string(text)); s != "" {
		return say(results.ManifestFile, s)
	}
	return nil
}
