package canon_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/canon"
)

func Example() {
	b, _ := canon.JSON(map[string]any{"b": 1, "a": []any{"<", 0.5}})
	fmt.Println(string(b))
	// Output: {"a":["<",0.5],"b":1}
}

func TestOrderOfFieldsDoesNotMatter(t *testing.T) {
	a, err := canon.Hash(struct{ B, A uint64 }{1, math.MaxUint64})
	require.NoError(t, err)
	b, err := canon.Hash(struct{ A, B uint64 }{math.MaxUint64, 1})
	require.NoError(t, err)
	require.Equal(t, a, b)
	c, err := canon.JSON(struct{ A uint64 }{math.MaxUint64})
	require.NoError(t, err)
	require.Equal(t, `{"A":18446744073709551615}`, string(c), "no digit is lost to a float")
	_, err = canon.JSON(math.NaN())
	require.ErrorContains(t, err, "canonical JSON of float64")
}

// The hash of {} is that of the two bytes {}: printf '{}' | sha256sum.
func TestHashIsSHA256OfTheText(t *testing.T) {
	h, err := canon.Hash(struct{}{})
	require.NoError(t, err)
	require.Equal(t, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", h)
}
