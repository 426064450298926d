package codec

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/reference/llm"
	"meibench/reference/models"
)

// texts are prompts of a kind that the shipped models know.
func texts(l *models.Loaded) (list [][]int32) {
	r := rng.Stream(13, "codec texts")
	things := []string{"can", "cup", "tool", "box", "ball"}
	digit := func() int { return 1 + r.IntN(5) }
	for range 12 {
		a := r.IntN(5)
		list = append(list, l.Tokenizer.EncodePrompt(fmt.Sprintf("robot %d%d , %s %d%d , %s %d%d , shelf %d%d ; store %s =>",
			digit(), digit(), things[a], digit(), digit(), things[(a+2)%5], digit(), digit(), digit(), digit(), things[a])))
	}
	return list
}

// split runs a text with its states coded at the cut and returns all logits; a nil codec is no cut.
func split(t *testing.T, w *llm.Work, ids []int32, cut int, c Codec) []float32 {
	m := w.Model
	front, err := m.NewCache(0, cut, len(ids))
	require.NoError(t, err)
	back, err := m.NewCache(cut, len(m.Blocks), len(ids))
	require.NoError(t, err)
	seqs := []llm.Seq{{IDs: ids, Cache: front, Want: llm.Hidden}}
	require.NoError(t, w.Forward(0, cut, seqs))
	hidden := slices.Clone(seqs[0].Out)
	if c != nil {
		hidden, err = c.Decode(nil, c.Encode(nil, hidden, m.Dim), m.Dim)
		require.NoError(t, err)
	}
	seqs = []llm.Seq{{Hidden: hidden, Cache: back, Want: llm.AllLogits}}
	require.NoError(t, w.Forward(cut, len(m.Blocks), seqs))
	return slices.Clone(seqs[0].Out)
}

// I5 on a model: an f32 wire changes no bit, f16 and int8 no greedy token, int8 the perplexity by less than 1 %; two bits ruin it.
// Perplexity is that of text by the model's own law, so its change is e^KL - 1 and never negative: the model was trained to
// answer these prompts, not to write them.
func TestI5PerplexityByCodec(t *testing.T) {
	l, err := models.Open("mei-nano")
	require.NoError(t, err)
	w := l.Model.NewWork(1)
	defer w.Close()
	rise := map[string]float64{}
	for _, c := range Table {
		loss := compare(t, l, w, c)
		rise[c.Name()] = math.Expm1(loss.divergence)
		t.Logf("%-13s perplexity %+8.3f %%, greedy tokens moved %d of %d", c.Name(), 100*rise[c.Name()], loss.moved, loss.tokens)
		switch c.Name() {
		case "f32":
			require.True(t, loss.same, "bit for bit")
		case "f16", "int8":
			require.Zero(t, loss.moved, c.Name())
		}
	}
	require.Less(t, rise["int8"], 0.01)
	require.Greater(t, rise["int2"], 0.05)
	for bits := 3; bits <= 8; bits++ {
		require.Less(t, rise[Affine{Bits: bits}.Name()], rise[Affine{Bits: bits - 1}.Name()], "a bit more is better")
	}
}

// losses are what a codec changes in a model's laws.
type losses struct {
	divergence    float64 // mean Kullback-Leibler divergence of the coded laws from the whole ones, nats
	moved, tokens int     // greedy tokens that differ, of how many
	same          bool    // whether all logits are equal
}

func compare(t *testing.T, l *models.Loaded, w *llm.Work, c Codec) losses {
	out, V := losses{same: true}, l.Model.Vocab
	for _, ids := range texts(l) {
		whole, coded := split(t, w, ids, 1, nil), split(t, w, ids, 1, c)
		out.same = out.same && slices.Equal(whole, coded)
		for at := 0; at < len(whole); at += V {
			a, b := whole[at:][:V], coded[at:][:V]
			out.tokens++
			if llm.Greedy(a) != llm.Greedy(b) {
				out.moved++
			}
			sumA, sumB := mass(a), mass(b)
			for i := range a {
				out.divergence += math.Exp(float64(a[i])) / sumA * (float64(a[i]) - float64(b[i]) + math.Log(sumB/sumA))
			}
		}
	}
	out.divergence /= float64(out.tokens)
	return out
}

func mass(logits []float32) (sum float64) {
	for _, v := range logits {
		sum += math.Exp(float64(v))
	}
	return sum
}
