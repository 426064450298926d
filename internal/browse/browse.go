// Package browse opens a page in a real browser for a test, does what a reader
// does, and tells what the page asked of the network and wrote to its console.
//
//	p := browse.Open(t, browse.File(t, "report.html")) // skips where no browser is
//	p.Click("thead th:nth-child(3) button")
//	require.Equal(t, "37 of 45 rows shown", p.Text("[role=status]"))
//	require.Empty(t, p.Console())
//	require.Empty(t, p.Requests())
//
// The browser is the machine's own Chromium, headless, with a profile that lives as
// long as the test; it reaches nothing: names resolve to nowhere. Open skips the test
// where there is none, unless MEIBENCH_BROWSER names one, which must then work.
//
// It is for tests. It does not judge how a page looks.
package browse

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Variable is the environment variable that names the browser's program.
const Variable = "MEIBENCH_BROWSER"

const patience = 120 * time.Second // for a whole test; one step takes milliseconds

// Page is a page in a browser of its own. Whatever fails ends the test.
type Page struct {
	t   testing.TB
	ctx context.Context

	mu    sync.Mutex
	said  []string
	asked []string
}

// Find is the browser's program, "" where there is none.
func Find() string {
	if p := os.Getenv(Variable); p != "" {
		return p
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	return ""
}

// File is the address of a file.
func File(t testing.TB, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(abs)}).String()
}

// Open opens an address in a window of 1280 x 900 and waits until it is loaded.
func Open(t testing.TB, address string) *Page {
	t.Helper()
	program := Find()
	if program == "" {
		t.Skip("no browser: install chromium, or name one in " + Variable)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	ctx, closeAll := chromedp.NewExecAllocator(ctx, append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-sync", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND"))...)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(func() { closeTab(); closeAll() })
	p := &Page{t: t, ctx: ctx}
	p.must(chromedp.Listen(ctx, p.event))
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	p.must(err)
	p.Go(address)
	return p
}

// event sees everything before the answer to the next command comes.
func (p *Page) event(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := ev.(type) {
	case *network.EventRequestWillBeSent:
		if u := e.Request.URL; !strings.HasPrefix(u, "file:") && !strings.HasPrefix(u, "data:") {
			p.asked = append(p.asked, u)
		}
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			text += " " + x.Description
		}
		p.said = append(p.said, text)
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" || e.Type == "assert" {
			text := string(e.Type) + ":"
			for _, a := range e.Args {
				text += " " + string(a.Value) + a.Description
			}
			p.said = append(p.said, text)
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			p.said = append(p.said, string(e.Entry.Level)+": "+e.Entry.Text)
		}
	}
}

func (p *Page) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("browser: %v", err)
	}
}

// Go follows an address.
func (p *Page) Go(address string) {
	p.t.Helper()
	p.must(chromedp.Do(p.ctx, chromedp.Navigate(address)))
}

// Click clicks the first element that a CSS selector names, and waits for what
// follows at once: handlers, a jump inside the page, another page.
func (p *Page) Click(selector string) {
	p.t.Helper()
	p.must(chromedp.Do(p.ctx, chromedp.Click(chromedp.CSS(selector))))
	p.settle()
}

// settle waits until no page is on its way and what was queued has run.
func (p *Page) settle() {
	p.t.Helper()
	p.Eval("null", nil)
	p.Wait("document.readyState === 'complete'")
	_, err := retried(func() (bool, error) {
		return chromedp.Run(p.ctx, chromedp.Evaluate[bool]("new Promise(r => setTimeout(() => r(true), 20))", chromedp.EvalAwaitPromise))
	})
	p.must(err)
}

// Wait waits until a JavaScript expression is true; after ten seconds the test fails.
func (p *Page) Wait(expression string) {
	p.t.Helper()
	for range 500 {
		var ok bool
		if p.Eval("Boolean("+expression+")", &ok); ok {
			return
		}
		time.Sleep(pause)
	}
	p.t.Fatalf("browser: waited in vain for %s", expression)
}

const pause = 20 * time.Millisecond

// retried tries again what a change of pages has interrupted.
func retried[T any](f func() (T, error)) (v T, err error) {
	for range 100 {
		if v, err = f(); err == nil || !strings.Contains(err.Error(), "navigated") && !strings.Contains(err.Error(), "context with specified id") && !strings.Contains(err.Error(), "context was destroyed") {
			return v, err
		}
		time.Sleep(pause)
	}
	return v, err
}

// Type types into the first element that a CSS selector names, in place of what
// it holds.
func (p *Page) Type(selector, text string) {
	p.t.Helper()
	p.Eval("document.querySelector("+quote(selector)+").value = ''", nil)
	p.must(chromedp.Do(p.ctx, chromedp.SendKeys(chromedp.CSS(selector), text)))
}

// Choose takes an option of a select element by its value.
func (p *Page) Choose(selector, value string) {
	p.t.Helper()
	p.Eval("(e => { e.value = "+quote(value)+"; e.dispatchEvent(new Event('input', {bubbles: true})); e.dispatchEvent(new Event('change', {bubbles: true})); return null })(document.querySelector("+quote(selector)+"))", nil)
}

// Press sends keys to what has the focus: "\t", "\r", " ", letters.
func (p *Page) Press(keys string) {
	p.t.Helper()
	p.must(chromedp.Do(p.ctx, chromedp.KeyEvent(keys)))
}

// Text is the visible text of the first element that a CSS selector names,
// without space around it.
func (p *Page) Text(selector string) (text string) {
	p.t.Helper()
	p.Eval("document.querySelector("+quote(selector)+").innerText.trim()", &text)
	return text
}

// Texts are the visible texts of all elements of a selector that are shown.
func (p *Page) Texts(selector string) (texts []string) {
	p.t.Helper()
	p.Eval("[...document.querySelectorAll("+quote(selector)+")].filter(e => e.getClientRects().length).map(e => e.innerText.trim())", &texts)
	return texts
}

// Eval computes a JavaScript expression and puts what it gives into a variable,
// by way of JSON; nil throws it away.
func (p *Page) Eval(expression string, into any) {
	p.t.Helper()
	text, err := retried(func() (string, error) {
		return chromedp.Run(p.ctx, chromedp.Evaluate[string]("JSON.stringify(("+expression+") ?? null)"))
	})
	p.must(err)
	if into != nil {
		p.must(json.Unmarshal([]byte(text), into))
	}
}

// quote writes a text as JavaScript does.
func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// Console is what the page and the browser complained of: warnings, errors and
// exceptions, those of the content policy among them.
func (p *Page) Console() []string {
	p.t.Helper()
	p.Eval("null", nil) // what was said before has arrived
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.said)
}

// Requests are the addresses that pages asked for beyond files of this machine.
func (p *Page) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// Window changes the size of the window in CSS pixels.
func (p *Page) Window(width, height int) {
	p.t.Helper()
	p.must(chromedp.Do(p.ctx, chromedp.EmulateViewport(int64(width), int64(height))))
}

// Prefer sets a preference of the reader: "prefers-color-scheme", "dark".
func (p *Page) Prefer(feature, value string) {
	p.t.Helper()
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: feature, Value: value}}})
	p.must(err)
}

// Screenshot is what the window shows, as PNG.
func (p *Page) Screenshot() []byte {
	p.t.Helper()
	b, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	p.must(err)
	return b
}

// PDF is the page as it prints.
func (p *Page) PDF() []byte {
	p.t.Helper()
	b, err := chromedp.Run(p.ctx, chromedp.PrintToPDF())
	p.must(err)
	return b
}
