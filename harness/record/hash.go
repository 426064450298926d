package record

import (
	"crypto/sha256"
	"encoding/binary"
)

// HashTokens identifies an answer: the first eight bytes of the SHA-256 of its
// tokens, each four bytes, little-endian; the hash is read big-endian. 0 of no
// tokens. Who runs a request again can tell whether the answer was the same.
func HashTokens(tokens []int32) uint64 {
	if len(tokens) == 0 {
		return 0
	}
	b := make([]byte, 0, 4*len(tokens))
	for _, t := range tokens {
		b = binary.LittleEndian.AppendUint32(b, uint32(t))
	}
	return hash(b)
}

// HashText is the same for an answer of which only the text is known.
func HashText(text string) uint64 {
	if text == "" {
		return 0
	}
	return hash([]byte(text))
}

func hash(b []byte) uint64 {
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:8])
}
