package sourced

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheck(t *testing.T) {
	good := Number{Value: 2, Unit: "s", Source: "rules v5", Kind: Spec}
	with := func(change func(*Number)) Number { n := good; change(&n); return n }
	for _, tc := range []struct {
		name string
		in   Number
		want string
	}{
		{"complete", good, ""},
		{"no source", with(func(n *Number) { n.Source = "" }), "source is missing"},
		{"wrong unit", with(func(n *Number) { n.Unit = "ms" }), `want "s", got "ms"`},
		{"unknown kind", with(func(n *Number) { n.Kind = "rumour" }), `got "rumour"`},
		{"not a number", with(func(n *Number) { n.Value = math.NaN() }), "want a finite number"},
		{"negative", with(func(n *Number) { n.Value = -1 }), "want >= 0, got -1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.in.NonNegative("s")
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
		})
	}
	require.ErrorContains(t, with(func(n *Number) { n.Value = 0 }).Positive("s"), "want > 0, got 0")
	require.NoError(t, good.Positive("s"))
	require.False(t, Number{}.Given())
	require.True(t, good.Given())
}

func ExampleNumber() {
	fmt.Println(Number{Value: 0.5, Unit: "s", Source: "our choice", Kind: Assumed})
	// Output: 0.5 s (assumed)
}

func TestWithin(t *testing.T) {
	require.NoError(t, Within("rate", nil))
	err := Within("arrivals", Within("rate", fmt.Errorf("want > 0")))
	require.EqualError(t, err, "arrivals.rate: want > 0")
	require.Equal(t, "arrivals.rate", err.(*FieldError).Path)
}
