package models

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/gguf"
	"meibench/reference/llm"
)

func adapted(t *testing.T, app string, base *Loaded) *llm.Adapter {
	data, err := Adapter(app)
	require.NoError(t, err)
	f, err := gguf.Read(bytes.NewReader(data), int64(len(data)))
	require.NoError(t, err)
	a, err := base.Model.ReadAdapter(f)
	require.NoError(t, err)
	return a
}

func TestAdaptersAreThoseOfTheCard(t *testing.T) {
	card, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.Equal(t, []string{"ar", "assistant", "driving", "healthcare", "robotics"}, Adapters())
	base, err := Open(AdapterBase)
	require.NoError(t, err)
	for _, app := range Adapters() {
		data, err := Adapter(app)
		require.NoError(t, err)
		sum := sha256.Sum256(data)
		require.Contains(t, string(card), hex.EncodeToString(sum[:]), app)
		require.NotNil(t, adapted(t, app, base))
	}
	_, err = Adapter("cooking")
	require.ErrorContains(t, err, "have ar, assistant")
}

// TestC2ShippedAdaptersShareTheirBackbone: kept apart the five take nearly five times the room, and what blocks hold is what they say.
func TestC2ShippedAdaptersShareTheirBackbone(t *testing.T) {
	l, content, err := Library()
	require.NoError(t, err)
	require.Len(t, l.Models, 5)
	apart, shared := l.Sizes()
	require.Greater(t, float64(apart)/float64(shared), 4.5)
	for b, block := range l.Blocks {
		sum := sha256.Sum256(content(b))
		require.Equal(t, hex.EncodeToString(sum[:]), block.Digest)
		require.EqualValues(t, len(content(b)), block.Bytes)
	}
}
