package coded

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

func files(seed uint64, n, bytes int) [][]byte {
	luck := rng.Stream(seed, "files")
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, bytes+i) // no two of one length
		for j := range out[i] {
			out[i][j] = byte(luck.IntN(256))
		}
	}
	return out
}

// every vector of demands.
func demands(users, n int) (out [][]int) {
	out = [][]int{nil}
	for range users {
		var next [][]int
		for _, d := range out {
			for f := range n {
				next = append(next, append(append([]int(nil), d...), f))
			}
		}
		out = next
	}
	return out
}

// For all users and files up to four and whatever they want: everybody gets their file bit for bit, nobody keeps more than
// its room, and as much is sent as the formula says.
func TestC7EveryUserDecodesEveryDemand(t *testing.T) {
	for users := 1; users <= 4; users++ {
		for n := 1; n <= 4; n++ {
			for room := 0; room <= n; room++ {
				s, err := New(users, n, room)
				if users*room%n != 0 {
					require.ErrorContains(t, err, "no multiple")
					continue
				}
				require.NoError(t, err)
				f := files(uint64(users*100+n*10+room), n, 50)
				caches, err := s.Place(f)
				require.NoError(t, err)
				part := (50 + n - 1 + len(s.parts) - 1) / len(s.parts)
				for _, c := range caches {
					require.Equal(t, room*part*len(s.parts), c.Bytes(), "a share of %d of %d", room, n)
				}
				for _, wants := range demands(users, n) {
					sent, err := s.Deliver(f, wants)
					require.NoError(t, err)
					require.InDelta(t, s.Rate(), float64(len(sent))/float64(len(s.parts)), 1e-12)
					for u := range users {
						got, err := s.Decode(u, caches[u], sent, wants)
						require.NoError(t, err)
						require.Equal(t, f[wants[u]], got, "users %d, files %d, room %d, demands %v, user %d", users, n, room, wants, u)
					}
				}
			}
		}
	}
}

func TestC7Rates(t *testing.T) {
	for _, tc := range []struct {
		users, files, room int
		coded, uncoded     float64
	}{{2, 2, 1, 0.5, 1}, {3, 3, 1, 1, 2}, {4, 4, 2, 2.0 / 3, 2}, {10, 10, 3, 1.75, 7}} {
		s, err := New(tc.users, tc.files, tc.room)
		require.NoError(t, err)
		require.InDelta(t, tc.coded, s.Rate(), 1e-12)
		require.InDelta(t, tc.uncoded, s.Uncoded(), 1e-12)
		require.InDelta(t, tc.uncoded/float64(1+s.t), s.Rate(), 1e-12)
	}
	s, err := New(4, 4, 1)
	require.NoError(t, err)
	for want, wants := range map[int][]int{3: {2, 2, 2, 2}, 5: {0, 0, 1, 1}, 6: {0, 1, 2, 2}} { // 6 - C(4-d, 2)
		got, err := s.Needed(wants)
		require.NoError(t, err)
		require.Equal(t, want, got, fmt.Sprint(wants))
	}
}

func TestC7WhatIsMissingIsSaid(t *testing.T) {
	s, err := New(3, 3, 1)
	require.NoError(t, err)
	f := files(1, 3, 40)
	caches, err := s.Place(f)
	require.NoError(t, err)
	wants := []int{0, 1, 2}
	sent, err := s.Deliver(f, wants)
	require.NoError(t, err)
	_, err = s.Decode(0, caches[0], sent[1:], wants)
	require.ErrorIs(t, err, ErrMissing)
	short := append([]Sent(nil), sent...)
	short[0].Data = short[0].Data[:3]
	_, err = s.Decode(0, caches[0], short, wants)
	require.ErrorIs(t, err, ErrMissing)
	_, err = s.Decode(0, &Cache{}, sent, wants)
	require.ErrorIs(t, err, ErrMissing)
	_, err = s.Deliver(f, []int{0, 1, 9})
	require.ErrorContains(t, err, "user 2 wants file 9 of 3")
	_, err = s.Place(f[:2])
	require.ErrorContains(t, err, "2 files")
	for _, bad := range [][3]int{{0, 1, 0}, {21, 1, 0}, {2, 0, 0}, {2, 2, 3}, {2, 2, -1}} {
		_, err := New(bad[0], bad[1], bad[2])
		require.Error(t, err)
	}
}
