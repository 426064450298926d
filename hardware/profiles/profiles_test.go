package profiles

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryBuiltinProfileIsSound(t *testing.T) {
	require.GreaterOrEqual(t, len(Devices()), 16)
	require.GreaterOrEqual(t, len(Links()), 16)
	require.GreaterOrEqual(t, len(Models()), 8)
	for _, n := range Devices() {
		d, err := Device(n)
		require.NoError(t, err)
		require.NotEmpty(t, d.Summary, n)
		require.NotNil(t, d.Law.Efficiency, n)
		require.NotNil(t, d.Law.MFU, n)
	}
	for _, n := range Links() {
		_, err := Link(n)
		require.NoError(t, err)
	}
	for _, n := range Models() {
		for _, f := range Formats() {
			m, err := Model(n + ":" + f)
			require.NoError(t, err)
			require.Equal(t, n+":"+f, m.Name)
		}
	}
}

// TestEveryNumberHasASource is the house rule: value, unit, source, kind.
func TestEveryNumberHasASource(t *testing.T) {
	for _, names := range [][]string{Devices(), Links(), Models(), Sites()} {
		for _, n := range names {
			rows, err := Describe(n)
			require.NoError(t, err)
			for _, r := range rows {
				require.Greater(t, len(r.Source), 3, "%s %s", n, r.Field)
				require.Contains(t, []Kind{Spec, Measured, Paper, Assumed}, r.Kind, "%s %s", n, r.Field)
				if r.Kind != Assumed {
					require.NotRegexp(t, doubt, r.Source, "%s %s: a source that admits doubt is assumed", n, r.Field)
				}
			}
		}
	}
}

var doubt = regexp.MustCompile(`estimate|from memory|not re-read|order of magnitude|second-hand`)

func TestSitesNameWhatExists(t *testing.T) {
	apps := map[string]bool{}
	for _, n := range Sites() {
		s, err := Site(n)
		require.NoError(t, err)
		for _, p := range s.Nodes {
			if p.Device != Host {
				_, err := Device(p.Device)
				require.NoError(t, err, n)
			}
		}
		for _, w := range s.Links {
			_, err := Link(w.Link)
			require.NoError(t, err, n)
		}
		for _, a := range s.Apps {
			apps[a] = true
		}
		require.Equal(t, strings.HasPrefix(n, "this-machine"), s.UsesHost())
	}
	for _, a := range []string{"ar", "assistant", "driving", "healthcare", "robotics"} {
		require.True(t, apps[a], "no site for %s", a)
	}
}

// TestModelsMatchPublishedSizes: billions of matrix weights, from the model
// cards' parameter counts (norms and biases add less than 0.1 %).
func TestModelsMatchPublishedSizes(t *testing.T) {
	for _, tc := range []struct {
		name string
		want float64
	}{
		{"smollm2-135m", 0.1345},  // 134.5 M as loaded by llama.cpp
		{"qwen2.5-0.5b", 0.494},   // 494.0 M as loaded by llama.cpp
		{"tinyllama-1.1b", 1.100}, // 1100.0 M as loaded by llama.cpp
		{"llama-3.2-1b", 1.236},
		{"llama-3.2-3b", 3.213},
		{"llama-2-7b", 6.738},
		{"llama-3.1-8b", 8.030},
		{"llama-3.1-70b", 70.55},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := Model(tc.name)
			require.NoError(t, err)
			require.InEpsilon(t, tc.want, float64(m.Params(m.All()))/1e9, 0.002)
		})
	}
}

func TestFileSizesMatchMeasuredOnes(t *testing.T) {
	// TinyLlama-1.1B: 2201, 1170 and 637 MB on disk. Real Q4_0 files keep the head in Q6_K: +1.5 %... -3 %.
	for format, mb := range map[string]float64{"f16": 2201, "q8_0": 1170, "q4_0": 637} {
		m, err := Model("tinyllama-1.1b:" + format)
		require.NoError(t, err)
		require.InEpsilon(t, mb, float64(m.WeightBytes(m.All()))/1e6, 0.04, format)
	}
}

func TestUnknownNamesAreExplained(t *testing.T) {
	_, err := Device("jetson-agx-orin-6")
	require.EqualError(t, err, `unknown device "jetson-agx-orin-6": did you mean "jetson-agx-orin-64"?`)
	_, err = Link("wifi6-hom")
	require.EqualError(t, err, `unknown link "wifi6-hom": did you mean "wifi6-home"?`)
	_, err = Model("llama-3.2-1b:q4")
	require.ErrorContains(t, err, `unknown weight format "q4": did you mean "q4_0"?`)
	_, err = Site("the moon")
	require.ErrorContains(t, err, `unknown site "the moon" (have `)
	_, err = Describe("rtx-4900")
	require.EqualError(t, err, `unknown profile "rtx-4900": did you mean "rtx-4090"?`)
	_, err = Device("../models/llama-2-7b")
	require.Error(t, err)
}

// sample is a complete device file; tests break one thing each.
const sample = `name: box
class: sbc
type: cpu
summary: "a test"
peak_fp16: {value: 1.5e11, unit: FLOP/s, source: "test", kind: assumed}
memory_bandwidth: {value: 1.71e10, unit: B/s, source: "test", kind: assumed}
memory: {value: 8.0e9, unit: B, source: "test", kind: assumed}
memory_share: {value: 0.75, unit: "1", source: "test", kind: assumed}
storage_read: {value: 9.0e7, unit: B/s, source: "test", kind: assumed}
slots: {value: 1, unit: "1", source: "test", kind: assumed}
power:
  scope: wall
  idle: {value: 3.3, unit: W, source: "test", kind: assumed}
  active: {value: 8.6, unit: W, source: "test", kind: assumed}
`

func read(t *testing.T, text string) (*DeviceSheet, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "box.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return LoadDevice(path)
}

func TestBadFilesAreRefusedWithTheirPosition(t *testing.T) {
	for _, tc := range []struct{ name, old, new, want string }{
		{"unknown key", "summary:", "sumary:", `:4:1: unknown field "sumary"`},
		{"key given twice", "type: cpu", "type: cpu\ntype: gpu", `:4:1: mapping key "type" already defined at [3:1]`},
		{"Gbit/s", "1.71e10, unit: B/s", "136.8, unit: Gbit/s", `:6:40: memory_bandwidth.unit unit "Gbit/s" is not an SI base unit: write value: 1.71e+10, unit: B/s`},
		{"a unit of something else", "9.0e7, unit: B/s", "9.0e7, unit: W", `unit "W" does not fit: this number is in B/s`},
		{"no source", `unit: W, source: "test", kind: assumed}
  active`, `unit: W, kind: assumed}
  active`, `:13:9: power.idle.source source is missing: say where 3.3 W was read`},
		{"unknown kind", "8.0e9, unit: B, source: \"test\", kind: assumed", "8.0e9, unit: B, source: \"test\", kind: guess", `:7:55: memory.kind kind "guess": want spec, measured, paper or assumed`},
		{"negative", "value: 3.3", "value: -3.3", `power.idle.value must not be negative, got -3.3`},
		{"NaN", "value: 3.3", "value: .nan", `power.idle.value must be a finite number`},
		{"infinite", "value: 3.3", "value: .inf", `power.idle.value must be a finite number`},
		{"more than all of the memory", "value: 0.75", "value: 75", `memory_share.value is a share and must lie in 0..1, got 75`},
		{"half a slot", "slots: {value: 1,", "slots: {value: 0.5,", `slots.value must be a whole number from 1 up`},
		{"a plain number", `slots: {value: 1, unit: "1", source: "test", kind: assumed}`, "slots: 1", `:10:8: `},
		{"left out", `slots: {value: 1, unit: "1", source: "test", kind: assumed}` + "\n", "", `slots missing: write {value: ..., unit: 1, source: ...`},
		{"anchor", "type: cpu", "type: &a cpu", `:3:7: anchors, aliases and merge keys are not allowed`},
		{"alias", "type: cpu", "type: *a", `:3:7: anchors, aliases and merge keys are not allowed`},
		{"tag", "type: cpu", "type: !!str cpu", `tags are not allowed`},
		{"two documents", "type: cpu", "type: cpu\n---\na: 1", `want exactly one YAML document`},
		{"type", "type: cpu", "type: quantum", `:3:7: type type "quantum": want cpu, gpu or npu`},
		{"scope", "scope: wall", "scope: desk", `power.scope scope "desk"`},
		{"no prior", "class: sbc", "class: toaster", `no prior for class "toaster" and type "cpu"`},
		{"upper-case name", "name: box", "name: Box", `name must be lower-case`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(sample, tc.old, tc.new, 1)
			require.NotEqual(t, sample, text)
			_, err := read(t, text)
			require.ErrorContains(t, err, tc.want)
		})
	}
	_, err := read(t, sample+"# "+strings.Repeat("x", MaxFileBytes))
	require.ErrorContains(t, err, "a profile has at most 1048576")
}

func TestErrorsShowTheOffendingLines(t *testing.T) {
	_, err := read(t, strings.Replace(sample, "type: cpu", "type: quantum", 1))
	require.ErrorContains(t, err, "     2 | class: sbc\n>    3 | type: quantum\n       |       ^\n     4 | summary: \"a test\"")
}

func TestDigestIsOfTheContent(t *testing.T) {
	a, err := read(t, sample)
	require.NoError(t, err)
	same := "# a comment\n" + strings.Replace(strings.Replace(sample, "type: cpu\n", "", 1), "  scope: wall\n", "  scope:   'wall' # indeed\n", 1) + "type: cpu\n"
	b, err := read(t, same)
	require.NoError(t, err)
	require.Equal(t, a.Digest(), b.Digest())
	c, err := read(t, strings.Replace(sample, "8.6", "8.7", 1))
	require.NoError(t, err)
	require.NotEqual(t, a.Digest(), c.Digest())
}

func TestFittedProfilesSurviveAFile(t *testing.T) {
	d, err := read(t, sample)
	require.NoError(t, err)
	d.Fitted = []Fit{{Model: "llama-3.2-1b:q4_0", Kernel: "test kernel", Source: "this test", Kind: Measured,
		Decode: Coefficients{Pass: 1e-4, Layer: 2e-3, Token: 1e-5, Pair: 1e-9, Head: 3e-3}, Samples: 12, MedianError: 0.01}}
	text, err := d.YAML()
	require.NoError(t, err)
	again, err := read(t, string(text))
	require.NoError(t, err)
	require.Equal(t, d, again)
	require.Equal(t, d.Digest(), again.Digest())
}

func FuzzDevice(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("a: &x [*x]"))
	f.Add([]byte("name: box\nslots: 1"))
	f.Add([]byte("? : -\n-"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &DeviceSheet{}
		if err := decode("fuzz.yaml", data, d); err == nil {
			require.NotEmpty(t, d.Digest())
		}
	})
}

func TestMixturesOfExperts(t *testing.T) {
	m, err := Model("mixtral-8x7b:q4_0")
	require.NoError(t, err)
	require.Equal(t, [2]int{8, 2}, [2]int{m.Experts, m.ExpertsUsed})
	require.InDelta(t, 46.7e9, float64(m.Params(m.All())), 0.1e9, "as the model's card says")
	dense := *m
	dense.Experts, dense.ExpertsUsed = 0, 0
	active := float64(dense.Params(m.All())) + 32*3*4096*14336 + 32*8*4096 // one expert more, and the gate
	require.InDelta(t, 12.9e9, active, 0.1e9, "likewise")
	for edit, want := range map[string]string{
		"experts: {value: 1,": "cannot use 2 of 1 experts", "": "experts and experts_used go together"} {
		text, err := builtin.ReadFile("models/mixtral-8x7b.yaml")
		require.NoError(t, err)
		broken := strings.Replace(string(text), "experts: {value: 8,", edit, 1)
		if edit == "" {
			broken = regexp.MustCompile("(?m)^experts: .*\n").ReplaceAllString(string(text), "")
		}
		require.ErrorContains(t, decode("x", []byte(broken), &ModelSheet{}), want)
	}
}

func TestOutagesAreInOrderAndNotOfUsers(t *testing.T) {
	const site = `
name: x
summary: "two nodes"
apps: [assistant]
nodes:
  - {name: phone, role: device, device: midrange-phone, per_user: true%s}
  - {name: edge, role: edge, device: nvidia-l4%s}
links:
  - {from: phone, to: edge, link: wifi6-home}
`
	for _, tc := range []struct{ name, user, edge, err string }{
		{"two apart", "", ", fails: [{at: 5, for: 10}, {at: 20, for: 1}]", ""},
		{"overlap", "", ", fails: [{at: 5, for: 10}, {at: 14, for: 1}]", "at 14 for 1 s"},
		{"no length", "", ", fails: [{at: 5, for: 0}]", "more than 0"},
		{"before the start", "", ", fails: [{at: -1, for: 2}]", "at -1 for 2 s"},
		{"not a number", "", ", fails: [{at: .nan, for: 2}]", "fails"},
		{"endless", "", ", fails: [{at: 1, for: .inf}]", "fails"},
		{"of a user", ", fails: [{at: 5, for: 10}]", "", "the per-user node cannot fail"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.yaml")
			require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, site, tc.user, tc.edge), 0o644))
			s, err := LoadSite(path)
			if tc.err == "" {
				require.NoError(t, err)
				require.Equal(t, []Outage{{5, 10}, {20, 1}}, s.Nodes[1].Fails)
				return
			}
			require.ErrorContains(t, err, tc.err)
		})
	}
}

// Users have devices in turn; a file says which there are, and none of them may be the machine of the run.
func TestUsersHaveUnlikeDevices(t *testing.T) {
	s, err := Site("mixed-5g-edge")
	require.NoError(t, err)
	user := s.User()
	var names []string
	for id := range 7 {
		names = append(names, user.Of(id).Device)
	}
	require.Equal(t, []string{"snapdragon-8-gen-3", "midrange-phone", "raspberry-pi-5", "snapdragon-8-elite", "jetson-orin-nano-super", "snapdragon-8-gen-3", "midrange-phone"}, names)
	require.Len(t, s.Kinds(), 6)
	for _, p := range s.Kinds() {
		_, err := Device(p.Device)
		require.NoError(t, err)
	}
	for others, want := range map[string]string{"per_user: true, others: [host]": `none of them missing or "host"`, "per_user: true, others: ['']": "none of them missing"} {
		err := decode("x", fmt.Appendf(nil, "name: x\nsummary: x\napps: [ar]\nnodes:\n  - {name: a, role: device, device: midrange-phone, %s}\n", others), &SiteSheet{})
		require.ErrorContains(t, err, want)
	}
	err = decode("x", []byte("name: x\nsummary: x\napps: [ar]\nnodes:\n  - {name: a, role: device, device: midrange-phone, per_user: true}\n  - {name: b, role: edge, device: nvidia-l4, others: [nvidia-l40s]}\nlinks:\n  - {from: a, to: b, link: wifi6-home}\n"), &SiteSheet{})
	require.ErrorContains(t, err, "only the per-user node is one of several devices")
}

// TestNetworkIsTheFit: the thermal network of the iPhone is what the traces gave, and a
// profile without one has the digest that it had before networks existed.
func TestNetworkIsTheFit(t *testing.T) {
	text, err := os.ReadFile("../thermal/testdata/fit.json")
	require.NoError(t, err)
	var f struct{ All [9]float64 }
	require.NoError(t, json.Unmarshal(text, &f))
	p, err := Device("iphone-17-pro")
	require.NoError(t, err)
	l := p.Thermal.Network.Law(0.8)
	for i, v := range []float64{l.DieR, l.DieR * l.DieC, l.CaseR, l.CaseR * l.CaseC, l.Die - l.Ambient, l.Skin - l.Ambient, l.DieSpan, l.SkinSpan} {
		require.InEpsilon(t, f.All[i], v, 2e-3, i)
	}
	require.NoError(t, l.Check())
	old, err := Device("midrange-phone")
	require.NoError(t, err)
	require.Equal(t, "1c8dbd4371dc72d4170a714700d0b9400313f256eee1e0e4095144c06ad2df18", old.Digest())
}

// TestHotNetworkIsRefused: a device that throttles at rest is not a profile.
func TestHotNetworkIsRefused(t *testing.T) {
	p, err := Device("iphone-17-pro")
	require.NoError(t, err)
	p.Thermal.Network.Ambient.Value = 60
	text, err := p.YAML()
	require.NoError(t, err)
	_, err = ParseDevice("p.yaml", text)
	require.ErrorContains(t, err, "would still be throttled")
}
