package floor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
)

const ms1 = time.Millisecond

// The floor is that of the profile's numbers: one token reads the weights once, at
// efficiency x bandwidth, after the pass's overhead.
func TestOfEqualsTheProfile(t *testing.T) {
	d, err := profiles.Device("nvidia-l4")
	require.NoError(t, err)
	m, err := profiles.Model("llama-3.2-1b:q4_0")
	require.NoError(t, err)
	f := Of(d, m, 1)
	seconds := d.Law.PassOverhead.Value + float64(m.ReadBytes(m.All(), 1))/(d.Law.Efficiency.Value*d.Bandwidth.Value)
	require.InEpsilon(t, seconds, f.First.Seconds(), 0.01, "and a trace of KV cache")
	require.InEpsilon(t, f.First.Seconds(), f.Next.Seconds(), 0.01)
	require.Greater(t, Of(d, m, 1000).First, 2*f.First, "a prompt costs")
	require.True(t, f.Fits)
	big, err := profiles.Model("llama-3.1-70b:q4_0")
	require.NoError(t, err)
	require.False(t, Of(d, big, 1).Fits, "40 GB in 24")
}

// First token after 4 ms, then 2 ms each: 10 ms hold four tokens.
func TestAnswersAndBudgets(t *testing.T) {
	f := Floor{First: 4 * ms1, Next: 2 * ms1}
	require.Equal(t, 4*ms1, f.Answer(1))
	require.Equal(t, 10*ms1, f.Answer(4))
	require.Equal(t, 4, f.Tokens(10*ms1))
	require.Equal(t, 3, f.Tokens(10*ms1-1))
	require.Equal(t, 0, f.Tokens(4*ms1-1))
}

func TestJudge(t *testing.T) {
	fs := []Floor{
		{Device: "slow", Model: "m", Parameters: 2e9, First: 9 * ms1, Next: 2 * ms1, Fits: true},
		{Device: "fast", Model: "m", Parameters: 2e9, Prompt: 1, First: 4 * ms1, Next: 2 * ms1, Fits: true},
		{Device: "full", Model: "m", Parameters: 1e9, First: ms1, Next: ms1},
	}
	v := Judge(fs, 10*ms1, 4)
	require.False(t, v.Excluded())
	require.Equal(t, []Floor{fs[1]}, v.Met, "what does not fit answers nothing")
	v = Judge(fs, 10*ms1, 5)
	require.True(t, v.Excluded())
	require.Equal(t, "fast", v.Fastest.Device)
	require.Equal(t, "None of 2 pairs of edge device and model (from 2 B parameters) can decode an answer of 5 tokens in 10 ms, prompt of 1, before any network or queue. "+
		"The fastest, fast with m takes 12 ms (first token 4 ms, then 2 ms each): 4 tokens fit.", v.Sentence())
	require.False(t, Judge(nil, ms1, 1).Excluded(), "nothing looked at excludes nothing")
}

// models are the profiles from so many parameters on, in a format.
func models(t *testing.T, least, most int64, format string) (names []string) {
	for _, name := range profiles.Models() {
		m, err := profiles.Model(name + ":" + format)
		require.NoError(t, err)
		if p := m.Params(m.All()); p >= least && p < most {
			names = append(names, m.Name)
		}
	}
	require.NotEmpty(t, names)
	return names
}

// I13: what the report says of a budget of 10 ms, and what it must not say. The
// shortest answer of any application is a robot's action of 7 tokens. From 1 B
// parameters on no edge device decodes it in 10 ms, in 4 bits or in fewer, even
// behind a prompt of one token. With models of some hundred million it is no
// longer true, and a single token never was excluded. If a profile changes any of
// this, the sentence in docs/applications.md has to change too.
func TestI13TenMillisecondsExcludeAnAnswer(t *testing.T) {
	const budget = 10 * ms1
	for _, format := range []string{"q4_0", "q2_k"} {
		fs, err := Edge(models(t, 1e9, 1e15, format), 1)
		require.NoError(t, err)
		v := Judge(fs, budget, 7)
		require.True(t, v.Excluded(), v.Sentence())
		require.Greater(t, v.Pairs, 50)
		t.Log(v.Sentence())
		one := Judge(fs, budget, 1)
		require.False(t, one.Excluded(), "the first token alone")
		t.Log(one.Sentence())
	}
	small, err := Edge(models(t, 0, 1e9, "q4_0"), 1)
	require.NoError(t, err)
	v := Judge(small, budget, 7)
	require.False(t, v.Excluded())
	t.Log(v.Sentence())
	for _, f := range v.Met {
		require.Equal(t, "prior", f.Tier, "%s: known from its class only", f.Device)
	}
	long := Judge(small, budget, 24)
	require.True(t, long.Excluded(), "a sentence of 24 tokens: %s", long.Sentence())
	t.Log(long.Sentence())
}
